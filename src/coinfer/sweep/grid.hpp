// Every combination of chosen thresholds, one list per stage but the last, in one pass over the samples.
//
// A sample is described by how many thresholds of each stage its scores reach. Those counts index a joint histogram;
// prefix sums over it give all combinations at once, so the cost is one pass plus the size of the histogram, whatever
// the number of combinations. Exact for the thresholds that were asked for, and a grid all the same: what lies between
// them is not looked at. Sums are integers, so they depend on no order and no number of threads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "coinfer/plan/evidence.hpp"
#include "coinfer/sweep/cuts.hpp"

namespace coinfer {

/// Cells in row-major order: the first stage's threshold varies slowest.
struct Grid {
  std::vector<std::int64_t> settled;                  // [stage][cell]
  std::vector<std::vector<std::int64_t>> quantities;  // [quantity][cell]: sums over the rows
};

inline constexpr std::size_t grid_cells_max = std::size_t{1} << 22;

/// `thresholds`: per stage but the last, ascending, without NaN; -inf serves all that have a score.
Grid grid(const Evidence& evidence, std::span<const std::vector<float>> thresholds,
          std::span<const Quantity> quantities, std::span<const std::uint32_t> rows = {}, unsigned threads = 1);

/// At most `count` thresholds at quantiles of a stage's scores, ascending, from -inf to +inf; midway between distinct
/// scores, so that ties are not cut. All cuts there are, if those are not more than `count`; else exactly `count`.
std::vector<float> levels(const Evidence& evidence, std::size_t stage, std::size_t count,
                          std::span<const std::uint32_t> rows = {});

}  // namespace coinfer
