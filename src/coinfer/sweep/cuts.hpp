// Every operating point of a plan whose stages share one threshold, exactly, from one sort.
//
// As the threshold falls, a sample moves to an earlier stage each time it passes a record of its scores: with r1 < r2 <
// ... the running maxima over stages, it settles at the stage of the first record that is not below the threshold. So N
// samples and S stages give at most N (S - 1) moves; sorted by score, prefix sums over them are the operating points.
// Equal scores move together: only whole tie groups can be cut. O(N S log N); the sort is a radix sort.
#pragma once

#include <cstdint>
#include <span>
#include <variant>
#include <vector>

#include "coinfer/plan/evidence.hpp"

namespace coinfer {

/// What to add up over samples, by the stage where a sample settles: the same for all samples ([stage]), a whole number
/// of its own for each ([stage][row]), or a flag for each ([stage][row]; a byte, so that the table stays in the cache).
using Quantity = std::variant<std::span<const std::int64_t>, std::span<const std::uint8_t>>;

/// Points in order of falling threshold. The first serves nobody early (threshold +inf), the last serves everybody that
/// has a score at the first stage (-inf). Thresholds lie midway between adjacent distinct scores where float32 allows.
struct Cuts {
  std::vector<float> threshold;
  std::vector<std::int64_t> settled;                  // [stage][point]
  std::vector<std::vector<std::int64_t>> quantities;  // [quantity][point]: sums over the rows
};

/// `rows`: which samples count (empty: all).
Cuts cuts(const Evidence& evidence, std::span<const Quantity> quantities, std::span<const std::uint32_t> rows = {});

/// The same along one coordinate: every threshold of one stage, the other stages' thresholds held. From one sort; what
/// coordinate ascent is made of. `thresholds` has one entry per stage but the last; that of `stage` is not read.
Cuts line(const Evidence& evidence, std::span<const float> thresholds, std::size_t stage,
          std::span<const Quantity> quantities, std::span<const std::uint32_t> rows = {});

/// The float32 halfway between two adjacent scores, above `low`; `high` if none lies between.
float midway(float low, float high) noexcept;

}  // namespace coinfer
