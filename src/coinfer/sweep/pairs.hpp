// Two thresholds of a three-stage plan, chosen exactly in O(N log N): the best of up to N^2 pairs.
//
// The first threshold rises past whole tie groups of the first score. Each group that it passes is inserted, at the
// rank of its second score, into trees over those ranks: prefix sums of what it costs to be sent on from the second
// stage, and a segment tree with the largest prefix sum of what is gained by that. Where the cost is monotone in the
// second threshold (no sample is cheaper at the third stage than at the second), the best second threshold for this
// first one is one descent: the first prefix whose gain reaches what is asked for, or the best prefix that is paid for.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "coinfer/plan/evidence.hpp"
#include "coinfer/sweep/cuts.hpp"

namespace coinfer {

/// Sums over the rows at the best pair of thresholds.
struct Pair {
  float first = 0.0F;
  float second = 0.0F;
  std::int64_t cost = 0;
  std::int64_t gain = 0;
  bool feasible = false;  // if not: the pair that misses least, by gain (at_least) or cost (at_most)
};

/// A cost that may not exceed a bound; monotone like the first one.
struct Limit {
  Quantity cost;
  std::int64_t at_most = 0;
};

/// Minimise `cost` subject to gain >= at_least and the limits. Throws std::invalid_argument unless there are three
/// stages and no row costs less at the third than at the second. Ties go to the larger gain.
Pair cheapest_pair(const Evidence& evidence, const Quantity& cost, const Quantity& gain, std::int64_t at_least,
                   std::span<const Limit> limits = {}, std::span<const std::uint32_t> rows = {});

/// Maximise `gain` subject to the limits. Ties go to the lower `cost`.
Pair surest_pair(const Evidence& evidence, const Quantity& cost, const Quantity& gain,
                 std::span<const Limit> limits = {}, std::span<const std::uint32_t> rows = {});

}  // namespace coinfer
