// Those who wait at a station: in line by priority, and in batches that are formed of them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "coinfer/sim/agenda.hpp"
#include "coinfer/sim/station.hpp"

namespace coinfer {

/// Batches by number; numbers are used again.
template <class Who>
class Batches {
 public:
  std::uint32_t open() {
    if (idle_.empty()) {
      all_.emplace_back();
      return static_cast<std::uint32_t>(all_.size() - 1);
    }
    const std::uint32_t id = idle_.back();
    idle_.pop_back();
    return id;
  }
  void close(std::uint32_t id) {
    all_[id].clear();
    idle_.push_back(id);
  }
  std::vector<Who>& operator[](std::uint32_t id) noexcept { return all_[id]; }

 private:
  std::vector<std::vector<Who>> all_;
  std::vector<std::uint32_t> idle_;
};

/// `Who` has waited `since` then. A host knows the rest: `batches`, the `deadline` of one, what it means to `miss` it,
/// to `start` a batch, and to `ring` later.
template <class Who>
struct Waits {
  std::uint32_t busy = 0;                                 // instances
  std::size_t waiting = 0;                                // in lines
  std::vector<std::pair<std::int32_t, Ring<Who>>> lines;  // by priority level, ascending
  Ring<std::uint32_t> formed;                             // batches that wait for an instance
  std::size_t formed_requests = 0;
  bool growing = false;  // the newest of them
  std::int64_t timer = -1;

  void line_up(std::int32_t level, const Who& who) {
    auto found = lines.begin();
    while (found != lines.end() && found->first < level) ++found;
    if (found == lines.end() || found->first != level) found = lines.insert(found, {level, {}});
    found->second.push(who);
    ++waiting;
  }

  /// Whose turn it is; somebody waits.
  Who call() noexcept {
    auto first = lines.begin();
    while (first->second.empty()) ++first;
    const Who who = first->second.front();
    first->second.pop();
    --waiting;
    return who;
  }

  /// Form batches as Triton's dynamic batcher does (2.51; tests/live holds it against a real server). A station with a
  /// bounded queue or priorities (`levels`) forms a batch when an instance is idle. Any other forms up to two per
  /// instance ahead, and the newest of them grows until it is served; that makes a difference only where sizes are
  /// preferred.
  template <class Host>
  void form(const Station& station, std::int64_t at, bool levels, Host& host) {
    const bool ahead = !station.preferred.empty() && station.queue_max == unbounded && !levels && station.instances > 0;
    const auto room = [&] {
      if (ahead) return formed.size() < std::size_t{2} * station.instances;
      return station.instances == 0 || busy + formed.size() < station.instances;
    };
    const auto wanted = [&](std::size_t size) {
      return station.preferred.empty() ? size == station.max_batch
                                       : std::binary_search(station.preferred.begin(), station.preferred.end(), size);
    };
    const std::size_t largest = station.preferred.empty() ? station.max_batch : station.preferred.back();
    while (waiting > 0 && room()) {
      const std::size_t held = ahead && growing ? host.batches[formed[formed.size() - 1]].size() : 0;
      std::size_t pending = 0;
      std::size_t best = 0;
      bool full = false;  // no more than this batch holds now
      bool closed = false;
      std::int64_t oldest = std::numeric_limits<std::int64_t>::max();
      for (auto& [level, line] : lines) {
        for (std::size_t i = 0; i < line.size() && !full;) {
          const Who who = line[i];
          if (host.deadline(who) <= at) {
            line.erase(i);
            --waiting;
            host.miss(who, at);
            continue;
          }
          if (held + pending == largest && best == 0) closed = true;
          full = held + pending == station.max_batch;
          if (full) break;
          oldest = std::min(oldest, who.since);
          ++pending;
          ++i;
          if (wanted(held + pending)) best = pending;
        }
      }
      const bool exceeded = station.batch_delay_ns > 0 && at - oldest >= station.batch_delay_ns;
      std::size_t take = pending;
      if (pending == 0) {
        if (!full) return;
        growing = false;
        continue;
      }
      if (best > 0 && !exceeded) {
        take = best;
        closed = closed || station.batch_delay_ns == 0;
      } else if (full || held + pending >= largest) {
        closed = true;
      } else if (!exceeded && station.batch_delay_ns > 0 && (closed || held == 0 || wanted(held))) {
        const std::int64_t ring = oldest + station.batch_delay_ns;
        if (timer < 0 || timer > ring) {
          timer = ring;
          host.ring(ring);
        }
        return;
      }
      if (held == 0) formed.push(host.batches.open());
      std::vector<Who>& batch = host.batches[formed[formed.size() - 1]];
      const std::size_t size = held + take;
      for (auto& [level, line] : lines) {
        for (; !line.empty() && batch.size() < size; line.pop()) batch.push_back(line.front());
      }
      waiting -= take;
      formed_requests += take;
      growing = ahead && !closed;
      dispatch(station, at, host);
    }
  }

  /// Hand formed batches to idle instances. Where batches may wait for company, those that have waited for too long and
  /// fit go together.
  template <class Host>
  void dispatch(const Station& station, std::int64_t at, Host& host) {
    while (!formed.empty() && (station.instances == 0 || busy < station.instances)) {
      const std::uint32_t id = formed.front();
      formed.pop();
      std::vector<Who>& batch = host.batches[id];
      while (station.batch_delay_ns > 0 && !formed.empty() &&
             at - host.batches[formed.front()].front().since > station.batch_delay_ns &&
             batch.size() + host.batches[formed.front()].size() <= station.max_batch) {
        const std::vector<Who>& other = host.batches[formed.front()];
        batch.insert(batch.end(), other.begin(), other.end());
        host.batches.close(formed.front());
        formed.pop();
      }
      formed_requests -= batch.size();
      growing = growing && !formed.empty();
      ++busy;
      host.start(id, at);
    }
  }
};

}  // namespace coinfer
