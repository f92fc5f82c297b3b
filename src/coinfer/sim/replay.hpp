// Replay: what a strategy would have given on a trace.
//
// The direct engine: no queues, so a request's outcome depends on its lane, its sample, its deadline and its own draws.
// Where it depends on lane and sample alone (constant or measured times, no jitter, no deadlines), requests are
// counted, not walked: a sample's way through a plan is one of a few codes, all requests of one lane and code end
// alike, so one outcome is worked out per (lane, code) and weighted. Counting is by (lane, sample), the census, which
// strategies on one trace share, or, where that table would be larger than the trace, by (lane, code) and (plan,
// sample). Otherwise each request is delivered by itself. All three give equal sums.
//
// All sums are integers (nanoseconds, pico-dollars), so they do not depend on order, batches or threads.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "coinfer/sim/lane.hpp"
#include "coinfer/sim/tally.hpp"

namespace coinfer {

/// A batch of a trace. `lane` and `sample` index lanes and samples; `deadline_ns` is empty or relative to the arrival,
/// with no_deadline for requests that may take for ever.
struct Requests {
  std::uint64_t first = 0;  // row of the whole trace
  std::span<const std::int32_t> lane;
  std::span<const std::int32_t> sample;
  std::span<const std::int64_t> deadline_ns;
  // Initializers, so that who has no queues may leave these out. NOLINTNEXTLINE(readability-redundant-member-init)
  std::span<const std::int64_t> arrival_ns = {};  // non-decreasing; read where requests wait for each other
  // NOLINTNEXTLINE(readability-redundant-member-init)
  std::span<const std::int32_t> priority = {};  // may be empty; 1 is served first, 0 after all others
};

/// How often each (lane, sample) occurs: [lane][sample].
class Census {
 public:
  Census(std::size_t lanes, std::size_t samples) : lanes_(lanes), samples_(samples), counts_(lanes * samples) {}
  void push(const Requests& batch, unsigned threads = 1);
  std::size_t lanes() const noexcept { return lanes_; }
  std::size_t samples() const noexcept { return samples_; }
  std::span<const std::uint64_t> counts() const noexcept { return counts_; }

 private:
  std::size_t lanes_;
  std::size_t samples_;
  std::vector<std::uint64_t> counts_;
};

/// Arrays for one outcome per request; all have the length of the batch.
struct Columns {
  std::span<Label> answer;
  std::span<float> confidence;
  std::span<std::uint8_t> settled;
  std::span<std::uint8_t> answered_by;
  std::span<std::uint8_t> consulted;
  std::span<std::int8_t> correct;
  std::span<std::uint8_t> status;
  std::span<std::int64_t> network_ns;
  std::span<std::int64_t> queue_ns;
  std::span<std::int64_t> service_ns;
  std::span<std::int64_t> pico_usd;

  void set(std::size_t at, const Outcome& outcome) const noexcept {
    answer[at] = outcome.answer;
    confidence[at] = outcome.confidence;
    settled[at] = outcome.settled;
    answered_by[at] = outcome.answered_by;
    consulted[at] = outcome.consulted;
    correct[at] = outcome.correct;
    status[at] = static_cast<std::uint8_t>(outcome.status);
    network_ns[at] = outcome.network_ns;
    queue_ns[at] = outcome.queue_ns;
    service_ns[at] = outcome.service_ns;
    pico_usd[at] = outcome.pico_usd;
  }
};

class Replay {
 public:
  /// A code: (course x 4 + verdict) x 2 + whether a member of the last stage was missing. A course is a route and the
  /// stage on it whose answer stands.
  static constexpr std::size_t codes_per_course = 8;

  Replay(std::vector<Lane> lanes, std::span<const Label> truth, std::size_t classes, std::uint64_t seed);

  /// Whether outcomes depend on lane and sample alone, so that a census is enough for traces without deadlines.
  bool deterministic() const noexcept { return deterministic_; }

  Outcome deliver(std::size_t lane, std::uint32_t sample, std::uint64_t request,
                  std::int64_t deadline_ns) const noexcept;

  Tally run(const Census& census) const;
  Tally run(const Requests& requests, unsigned threads = 1) const;
  void outcomes(const Requests& requests, const Columns& columns, unsigned threads = 1) const;

  /// For engines that find times themselves: requests end alike, but for times, if lane and code are equal.
  std::span<const std::uint16_t> codes(std::size_t lane) const noexcept { return groups_[group_of_[lane]].code; }
  static std::size_t course_of(std::size_t code) noexcept { return code / codes_per_course; }
  /// [course]
  std::span<const std::uint8_t> routes(std::size_t lane) const noexcept { return groups_[group_of_[lane]].route; }
  std::size_t code_count(std::size_t lane) const noexcept { return groups_[group_of_[lane]].example.size(); }
  std::size_t group_of(std::size_t lane) const noexcept { return group_of_[lane]; }
  std::size_t group_count() const noexcept { return groups_.size(); }
  /// The sums over requests counted by [lane][code] and [group][sample], without times.
  Tally counted(std::span<const std::vector<std::uint64_t>> by_code,
                std::span<const std::vector<std::uint64_t>> by_sample) const;

 private:
  /// What lanes with the same plan share: the code of every sample and, per code, a sample that has it.
  struct Group {
    std::vector<std::uint16_t> code;
    std::vector<std::uint8_t> route;     // [course]
    std::vector<std::uint32_t> example;  // [code]; nobody if no sample has it
    std::vector<std::size_t> lanes;
  };

  std::vector<Lane> lanes_;
  std::span<const Label> truth_;
  Ledger ledger_;
  std::size_t samples_ = 0;
  std::size_t stages_ = 0;  // the most of any lane
  std::uint64_t seed_;
  bool deterministic_ = true;
  bool measured_ = false;
  std::vector<Group> groups_;
  std::vector<std::uint32_t> group_of_;  // [lane]

  /// How far a request gets until it ends or its deadline passes, and when: all but what was answered.
  struct Fate {
    std::int64_t network_ns = 0;  // of a late one: until the deadline stopped it
    std::int64_t service_ns = 0;
    std::int64_t pico_usd = 0;
    std::int64_t entered_ns = 0;  // the last stage
    std::uint8_t settled = 0;     // as in Outcome
    std::uint8_t consulted = 0;
    std::uint8_t in_time = 0;  // stages whose answer the ingress holds at the deadline
    bool late = false;

    std::int64_t latency_ns() const noexcept { return network_ns + service_ns; }
  };

  /// What one thread finds out about requests that are delivered by themselves.
  struct Each {
    std::vector<std::vector<std::uint64_t>> by_code;    // [lane][code]: in time
    std::vector<std::vector<std::uint64_t>> by_sample;  // [group][sample]: in time
    Wide network_ns = 0;                                // in time
    Wide service_ns = 0;
    Tally late;
    std::int64_t* latency = nullptr;  // [request]
  };

  Fate fate(const Lane& lane, const Itinerary& itinerary, std::uint32_t sample, std::uint64_t request,
            std::int64_t deadline_ns) const noexcept;
  Outcome ending(const Lane& lane, const Itinerary& itinerary, std::uint32_t sample, const Fate& fate,
                 std::int64_t deadline_ns) const noexcept;
  void deliver_each(const Requests& requests, std::size_t first, std::size_t last, Each& each) const;
  Group group(const Lane& lane) const;
  void add_codes(Tally& tally, std::size_t lane, std::span<const std::uint64_t> weight) const;
  void add_samples(Tally& tally, const Group& group, std::span<const std::uint64_t> weight) const;
  Tally run_counted(const Requests& requests) const;
  Tally run_each(const Requests& requests, unsigned threads) const;
};

}  // namespace coinfer
