// What all engines with queues share: lanes and stations, sums and rows. Internal to sim/.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <vector>

#include "coinfer/sim/queues.hpp"
#include "coinfer/sim/sketch.hpp"
#include "coinfer/sim/times.hpp"

namespace coinfer {

inline constexpr std::int64_t forever = INT64_MAX;
inline constexpr std::size_t places_max = 1U << 17;

inline std::int64_t travel(const Leg& leg, std::uint64_t seed, std::uint64_t request, std::uint32_t draw) noexcept {
  std::int64_t ns = leg.ns;
  for (const Jitter& jitter : leg.jitters) {
    ns += to_ns(-jitter.mean_ns * std::log(uniforms(seed, Stream::jitter, request, jitter.link, draw)[0]));
  }
  return ns;
}

/// When each instance is free, ascending; always, if there is any number of them. Who is served last is mostly done
/// last, so what becomes free later is looked for from the end. The times move on through a longer row, at whose end
/// they go back to its beginning.
class FreeTimes {
 public:
  explicit FreeTimes(std::size_t instances = 0)
      : size_(instances),
        row_(std::make_unique<std::int64_t[]>(row_size())),  // NOLINT(modernize-avoid-c-arrays)
        head_(row_.get()) {
    std::fill_n(row_.get(), row_size(), INT64_MIN);
  }
  std::int64_t first() const noexcept { return *head_; }
  /// The instance that is free first is so again at `done`.
  void take(std::int64_t done) noexcept {
    if (size_ == 0) return;
    std::int64_t* const head = ++head_;
    std::int64_t* at = head + size_ - 1;
    for (; at > head && at[-1] > done; --at) *at = at[-1];
    *at = done;
    if (head + size_ == row_.get() + row_size()) head_ = std::copy(head, head + size_, row_.get()) - size_;
  }

 private:
  std::size_t size_;
  std::unique_ptr<std::int64_t[]> row_;  // NOLINT(modernize-avoid-c-arrays)
  std::int64_t* head_;

  std::size_t row_size() const noexcept { return 2 * size_ + 64; }
};

/// What a node knows of the wait at a station whose instances are all busy, with `ahead` requests waiting.
inline float wait_ahead_us(const Station& station, std::size_t ahead) noexcept {
  const std::size_t batches = station.max_batch == 1 ? ahead + 1 : (ahead + station.max_batch) / station.max_batch;
  return static_cast<float>(static_cast<double>(static_cast<std::int64_t>(batches)) * station.mean_ns /
                            station.instances * 1e-3);
}

/// Whether every stage asks one member, and no link makes anybody wait.
bool one_by_one(std::span<const Lane> lanes);

std::int64_t lookahead(std::span<const Lane> lanes, std::span<const Station> stations);

class Queues::Core {
 public:
  Core(std::vector<Lane> lanes, std::span<const Label> truth, std::size_t classes, std::uint64_t seed,
       std::vector<Station> stations, std::size_t links, std::vector<Outputs> outputs, QueueOptions options)
      : lanes_(std::move(lanes)),
        seed_(seed),
        config_(std::move(stations)),
        outputs_(std::move(outputs)),
        options_(std::move(options)),
        ledger_(0, 0, 0, 0, {}) {
    if (lanes_.empty()) throw std::invalid_argument("a replay needs at least one lane");
    const std::size_t samples = lanes_.front().evidence->rows;
    if (!truth.empty() && truth.size() != samples) throw std::invalid_argument("one true label per sample, please");
    if (config_.size() + links >= places_max)
      throw std::invalid_argument("at most 131,071 deployments and directions of links");
    for (const Lane& lane : lanes_) check(lane, samples, links);
    if (options_.exact) latencies_.reserve(options_.expected);
    ledger_ = Ledger(lanes_.size(), stages_, samples, classes, truth);
    tally_ = ledger_.empty();
    station_loads_.resize(config_.size());
    link_loads_.resize(links);
    for (std::size_t d = 0; d < config_.size(); ++d) {
      station_loads_[d].batch_size.resize(config_[d].max_batch);
    }
  }
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;
  virtual ~Core() = default;

  virtual void push(const Requests& batch) = 0;
  virtual void finish() = 0;

  virtual Tally tally() const {
    if (arrived_ != ended_ + in_flight()) throw std::logic_error("requests were lost or counted twice");
    std::uint64_t sum = 0;
    for (const std::uint64_t count : tally_.status) sum += count;
    if (sum != tally_.requests) throw std::logic_error("statuses do not add up to the requests counted");
    Tally out = tally_;
    if (!options_.exact) out.latencies = sketch_.pairs();
    return out;
  }

  virtual std::uint64_t in_flight() const noexcept = 0;

  std::vector<Ended> take() {
    std::size_t ready = 0;
    while (ready < rows_.size() && rows_[ready].outcome.status != Status::open) ++ready;
    std::vector<Ended> out(rows_.begin(), rows_.begin() + static_cast<std::ptrdiff_t>(ready));
    rows_.erase(rows_.begin(), rows_.begin() + static_cast<std::ptrdiff_t>(ready));
    row_base_ += ready;
    return out;
  }

  Times latencies_;  // of every counted request, if exact
  std::vector<Load> station_loads_;
  std::vector<Load> link_loads_;
  std::int64_t first_ = forever;
  std::int64_t last_arrival_ = 0;
  std::int64_t last_end_ = 0;
  Rescue rescue_;

 protected:
  std::vector<Lane> lanes_;
  std::uint64_t seed_;
  std::vector<Station> config_;
  std::vector<Outputs> outputs_;
  QueueOptions options_;
  Ledger ledger_;
  Tally tally_;
  Sketch sketch_;           // of latencies, if not exact
  std::size_t stages_ = 0;  // the most of any lane
  std::size_t width_ = 1;   // the largest group
  bool watched_ = false;    // some decision looks at queues
  std::vector<Ended> rows_;
  std::uint64_t row_base_ = 0;
  std::uint64_t arrived_ = 0;
  std::uint64_t ended_ = 0;

  void measure(std::int64_t latency_ns) {
    if (options_.exact) {
      latencies_.push(latency_ns);
    } else {
      sketch_.add(latency_ns);
    }
  }
  /// Where up to `count` latencies may be written; then how many there are.
  std::int64_t* latencies_room(std::size_t count) {
    if (written_.size() < count) written_.resize(count);
    return written_.data();
  }
  void measure_written(std::size_t count) { measure(std::span(written_).first(count)); }
  void measure(std::span<const std::int64_t> latencies_ns) {
    if (options_.exact) {
      latencies_.push(latencies_ns);
    } else {
      for (const std::int64_t ns : latencies_ns) sketch_.add(ns);
    }
  }

  bool kept(std::uint64_t request) const noexcept {
    return options_.rows && request >= options_.row_first && request < options_.row_last;
  }

  /// Make room for a request's row; requests come in order.
  void reserve_row(std::uint64_t request) {
    if (!kept(request)) return;
    if (rows_.empty() && row_base_ == 0) row_base_ = request;
    rows_.push_back({request, {}});
    rows_.back().outcome.status = Status::open;
  }

 private:
  std::vector<std::int64_t> written_;

  void check(const Lane& lane, std::size_t samples, std::size_t links) {
    const Plan& plan = *lane.plan;
    const std::size_t stages = plan.stages.size();
    if (lane.enter.size() != (stages + 1) * stages || lane.back.size() != stages ||
        lane.members.size() != plan.members.size() || (!lane.least.empty() && lane.least.size() != lane.enter.size()) ||
        lane.evidence->stages != stages || lane.evidence->rows != samples ||
        (lane.decisions && lane.decisions->route.size() != samples)) {
      throw std::invalid_argument("a lane's ways do not fit its plan");
    }
    if (!lane.decisions && !plan.rule.advance && plan.oracle) throw std::invalid_argument("the oracle decides ahead");
    stages_ = std::max(stages_, stages);
    for (const Stage& stage : plan.stages) width_ = std::max<std::size_t>(width_, stage.count);
    for (const Member& member : plan.members) {
      if (member.deployment >= config_.size()) throw std::invalid_argument("a member's deployment has no station");
    }
    watched_ = watched_ || !lane.decisions;
    const auto known = [&](const Leg& leg) {
      return std::all_of(leg.hops.begin(), leg.hops.end(), [&](const Hop& hop) { return hop.link < links; }) &&
             leg.hops.size() < 256;
    };
    bool all = std::all_of(lane.enter.begin(), lane.enter.end(), known) &&
               std::all_of(lane.back.begin(), lane.back.end(), known);
    for (const Consult& member : lane.members) all = all && known(member.up) && known(member.down);
    if (!all) throw std::invalid_argument("a way leads over an unknown link");
  }
};

std::unique_ptr<Queues::Core> make_feed_forward(std::vector<Lane> lanes, std::span<const Label> truth,
                                                std::size_t classes, std::uint64_t seed, std::vector<Station> stations,
                                                std::size_t links, std::vector<Outputs> outputs,
                                                const QueueOptions& options);

std::unique_ptr<Queues::Core> make_rounds(std::vector<Lane> lanes, std::span<const Label> truth, std::size_t classes,
                                          std::uint64_t seed, std::vector<Station> stations, std::size_t links,
                                          std::vector<Outputs> outputs, const QueueOptions& options);

}  // namespace coinfer
