// What comes out of a replay: one outcome per request, and the sums over them.
//
// Sums are integers (nanoseconds, pico-dollars), so they do not depend on order, batches or threads. The Ledger is the
// one place where an outcome is added up, whichever engine found it.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "coinfer/sim/times.hpp"
#include "coinfer/status.hpp"

namespace coinfer {

__extension__ using Wide = __int128;

inline constexpr std::int64_t no_deadline = INT64_MAX;

/// One request's end.
struct Outcome {
  Status status = Status::answered;
  Label answer = no_answer;  // as in Evidence: may be an abstention
  float confidence = 0.0F;
  std::uint8_t settled = 0;      // the last stage that was consulted
  std::uint8_t answered_by = 0;  // the stage whose answer stands
  std::uint8_t consulted = 0;    // stages started
  std::int8_t correct = -1;      // 1 right, 0 wrong, -1 unknown
  std::int64_t network_ns = 0;
  std::int64_t queue_ns = 0;  // waiting at deployments and links
  std::int64_t service_ns = 0;
  std::int64_t pico_usd = 0;

  std::int64_t latency_ns() const noexcept { return network_ns + queue_ns + service_ns; }
};

/// Sums over requests; adding tallies in any order gives the same result.
struct Tally {
  std::uint64_t requests = 0;
  std::array<std::uint64_t, status_count> status{};
  std::uint64_t labelled = 0;  // answered or degraded, with a true label
  std::uint64_t correct = 0;
  std::uint64_t in_time = 0;    // correct, and answered within the deadline
  std::uint64_t truths = 0;     // requests whose sample has a true label
  std::uint64_t consulted = 0;  // stages
  Wide latency_ns = 0;
  Wide network_ns = 0;
  Wide queue_ns = 0;
  Wide service_ns = 0;
  Wide pico_usd = 0;
  std::vector<std::uint64_t> lane_requests;  // [lane]
  std::vector<std::uint64_t> lane_labelled;
  std::vector<std::uint64_t> lane_correct;
  std::vector<std::uint64_t> settled;         // [lane][stage]: by the last stage that was consulted
  std::vector<std::uint64_t> answered;        // [lane][stage]: by the stage whose answer stands
  std::vector<std::uint64_t> sample_weight;   // [sample]: labelled requests
  std::vector<std::uint64_t> class_labelled;  // [class of the truth]
  std::vector<std::uint64_t> class_correct;
  std::vector<std::pair<std::int64_t, std::uint64_t>> latencies;  // distinct, ascending, with their counts

  /// The smallest latency that at least a share q of the requests does not exceed (nearest rank).
  std::int64_t quantile(double q) const;
};

/// The smallest of the times that at least a share q of them does not exceed (nearest rank), for each q in [0, 1]. Two
/// passes: a histogram says where the ranks are, and only what lies there is looked at more closely.
std::vector<std::int64_t> nearest_ranks(const Times& times, std::span<const double> shares);

/// Adds outcomes to tallies.
class Ledger {
 public:
  Ledger(std::size_t lanes, std::size_t stages, std::size_t samples, std::size_t classes, std::span<const Label> truth)
      : lanes_(lanes), stages_(stages), samples_(samples), classes_(classes), truth_(truth) {}

  Tally empty() const;
  /// What an outcome says, `weight` times.
  void add(Tally& tally, const Outcome& outcome, std::size_t lane, bool in_time, std::uint64_t weight) const;
  /// What it says about its sample.
  void add(Tally& tally, std::uint32_t sample, bool labelled, bool right, std::uint64_t weight) const;
  Label truth(std::size_t sample) const noexcept { return truth_.empty() ? no_answer : truth_[sample]; }

 private:
  std::size_t lanes_;
  std::size_t stages_;
  std::size_t samples_;
  std::size_t classes_;
  std::span<const Label> truth_;
};

using Weighted = std::vector<std::pair<std::int64_t, std::uint64_t>>;

/// Add one tally to another.
void accumulate(Tally& into, const Tally& from);

/// Sort, and add up the counts of equal latencies.
Weighted condense(Weighted latencies);

/// The distinct values among times >= 0, ascending, with their counts. Sorts them in place.
Weighted counted_times(std::span<std::int64_t> times);

}  // namespace coinfer
