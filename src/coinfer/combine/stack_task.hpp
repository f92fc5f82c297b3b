// What stack.cpp hands to the kernels of one instruction set: plain data, as in task.hpp.
#pragma once

#include <cstddef>
#include <cstdint>

namespace coinfer::stacking {

/// sums[row] = intercept + sum of features x coefficient, for rows that the same members answered. Features are
/// float32, `classes` per member; coefficients are [member][class][pitch] and sums [row][pitch] doubles.
struct Apply {
  const float* const* data;  // per member
  const std::ptrdiff_t* stride;
  std::size_t members;
  std::size_t rows;
  std::size_t classes;
  std::size_t pitch;
  const double* coefficient;
  const double* intercept;
  double* sums;
};

/// Whether every one of `count` floats is a probability: finite and not negative.
using Check = bool(const float* data, std::size_t count) noexcept;
using Kernel = void(const Apply&) noexcept;
Kernel apply_baseline, apply_avx2, apply_avx512;
Check probabilities_baseline, probabilities_avx2, probabilities_avx512;

}  // namespace coinfer::stacking
