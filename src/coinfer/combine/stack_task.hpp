// What stack.cpp hands to the kernels of one instruction set: plain data, as in task.hpp.
#pragma once

#include <cstddef>
#include <cstdint>

namespace coinfer::stacking {

/// How many rows share every load of a coefficient from the second-level cache.
inline constexpr std::size_t rows_together = 16;

/// sums[row] = intercept + sum of features x coefficient, for rows that the same members answered. Features are
/// float32, [row][class] per member; coefficients are [member][class][pitch] and sums [row][pitch] doubles.
struct Apply {
  const float* const* data;  // per member
  std::size_t members;
  std::size_t rows;
  std::size_t classes;
  std::size_t pitch;
  const double* coefficient;
  const double* intercept;
  double* sums;
  double* scratch;  // members x rows_together x classes
};

/// Returns whether all features were probabilities: finite and not negative.
using Kernel = bool(const Apply&) noexcept;
Kernel apply_baseline, apply_avx2, apply_avx512;

}  // namespace coinfer::stacking
