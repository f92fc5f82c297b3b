// The kernel of a fitted logistic model, written once over sixteen lanes (lane = class) and compiled once per
// instruction set. Two rows at a time share every load of a coefficient; a row's sums depend on that row alone.
#pragma once

#include <cstddef>

#include "coinfer/combine/stack_task.hpp"

namespace coinfer::stacking {
namespace {

template <class L>
struct Stacking {
  using Float = typename L::Float;
  using Double = typename L::Double;
  static constexpr std::ptrdiff_t lanes = 16;

  template <int at_once>
  static COINFER_INLINE void rows(const Apply& task, std::ptrdiff_t row) {
    const auto classes = static_cast<std::ptrdiff_t>(task.classes), pitch = static_cast<std::ptrdiff_t>(task.pitch);
    const auto members = static_cast<std::ptrdiff_t>(task.members);
    for (std::ptrdiff_t k = 0; k < pitch; k += lanes) {
      Double a = L::load_double(task.intercept + k), b = a;
      const double* coefficient = task.coefficient + k;
      for (std::ptrdiff_t m = 0; m < members; ++m) {
        const float* x = task.data[m] + row * task.stride[m];
        const float* y = x + (at_once - 1) * task.stride[m];
        for (std::ptrdiff_t j = 0; j < classes; ++j, coefficient += pitch) {
          const Double c = L::load_double(coefficient);
          a = L::multiply_add(L::fill_double(static_cast<double>(x[j])), c, a);
          if constexpr (at_once > 1) b = L::multiply_add(L::fill_double(static_cast<double>(y[j])), c, b);
        }
      }
      L::store_double(task.sums + row * pitch + k, a);
      if constexpr (at_once > 1) L::store_double(task.sums + (row + 1) * pitch + k, b);
    }
  }

  static void apply(const Apply& task) noexcept {
    const auto count = static_cast<std::ptrdiff_t>(task.rows);
    std::ptrdiff_t row = 0;
    for (; row + 2 <= count; row += 2) rows<2>(task, row);
    if (row < count) rows<1>(task, row);
  }

  static bool probabilities(const float* data, std::size_t count) noexcept {
    typename L::Mask bad = L::none();
    const Float zero = L::fill(0.0F), biggest = L::fill(3.40282347e+38F);
    std::size_t i = 0;
    for (; i + 16 <= count; i += 16) {
      const Float x = L::load(data + i);
      bad = bad | L::not_at_least(x, zero) | (x > biggest);
    }
    if (i < count) {
      const Float x = L::load_first(data + i, static_cast<unsigned>(count - i), 0.0F);
      bad = bad | L::not_at_least(x, zero) | (x > biggest);
    }
    return L::bits(bad) == 0;
  }
};

}  // namespace
}  // namespace coinfer::stacking
