// The kernel of a fitted logistic model, written once over sixteen lanes and compiled once per instruction set. Sixteen
// rows at a time are widened to doubles, so that a feature is filled into a register straight from memory; then four of
// them and up to three registers of classes share every load. A row's sums depend on that row alone.
#pragma once

#include <cstddef>

#include "coinfer/combine/stack_task.hpp"

namespace coinfer::stacking {
namespace {

template <class L>
struct Stacking {
  using Float = typename L::Float;
  using Part = typename L::Part;
  static constexpr std::ptrdiff_t lanes = 16, part = L::part_lanes;
  static constexpr std::ptrdiff_t ahead = 640;  // floats to prefetch ahead

  /// Widen `count` floats; what is written is a multiple of the lanes.
  static COINFER_INLINE void widen(const float* from, std::ptrdiff_t count, double* to, typename L::Mask& bad) {
    const Float zero = L::fill(0.0F), biggest = L::fill(3.40282347e+38F);
    const auto next = [&](Float x) __attribute__((always_inline)) {
      bad = bad | L::not_at_least(x, zero) | (x > biggest);
      return L::widen(x);
    };
    std::ptrdiff_t i = 0;
    for (; i + lanes <= count; i += lanes) {
      __builtin_prefetch(from + i + ahead);
      L::store_double(to + i, next(L::load(from + i)));
    }
    if (i < count) L::store_double(to + i, next(L::load_first(from + i, static_cast<unsigned>(count - i), 0.0F)));
  }

  /// `rows` rows from `row` on, and `parts` registers of classes from class `k` on.
  template <int rows, int parts>
  static COINFER_INLINE void tile(const Apply& task, std::ptrdiff_t first, std::ptrdiff_t row, std::ptrdiff_t k) {
    const auto classes = static_cast<std::ptrdiff_t>(task.classes), pitch = static_cast<std::ptrdiff_t>(task.pitch);
    const auto members = static_cast<std::ptrdiff_t>(task.members);
    Part sum[rows][parts];
    for (int r = 0; r < rows; ++r) {
      for (int p = 0; p < parts; ++p) sum[r][p] = L::load_part(task.intercept + k + p * part);
    }
    const double* coefficient = task.coefficient + k;
    for (std::ptrdiff_t m = 0; m < members; ++m) {
      const double* x = task.scratch + (m * static_cast<std::ptrdiff_t>(rows_together) + row) * classes;
      for (std::ptrdiff_t j = 0; j < classes; ++j, coefficient += pitch) {
        Part c[parts];
        for (int p = 0; p < parts; ++p) c[p] = L::load_part(coefficient + p * part);
        for (int r = 0; r < rows; ++r) {
          const Part feature = L::fill_part(x[r * classes + j]);
          for (int p = 0; p < parts; ++p) sum[r][p] = L::multiply_add(feature, c[p], sum[r][p]);
        }
      }
    }
    for (int r = 0; r < rows; ++r) {
      for (int p = 0; p < parts; ++p) L::store_part(task.sums + (first + row + r) * pitch + k + p * part, sum[r][p]);
    }
  }

  template <int parts>
  static void column(const Apply& task, std::ptrdiff_t first, std::ptrdiff_t count, std::ptrdiff_t k) {
    std::ptrdiff_t row = 0;
    for (; row + 4 <= count; row += 4) tile<4, parts>(task, first, row, k);
    for (; row < count; ++row) tile<1, parts>(task, first, row, k);
  }

  static bool apply(const Apply& task) noexcept {
    constexpr auto together = static_cast<std::ptrdiff_t>(rows_together);
    const auto rows = static_cast<std::ptrdiff_t>(task.rows), classes = static_cast<std::ptrdiff_t>(task.classes);
    const auto members = static_cast<std::ptrdiff_t>(task.members);
    typename L::Mask bad = L::none();
    for (std::ptrdiff_t first = 0; first < rows; first += together) {
      const std::ptrdiff_t count = rows - first < together ? rows - first : together;
      for (std::ptrdiff_t m = 0; m < members; ++m) {
        widen(task.data[m] + first * classes, count * classes, task.scratch + m * together * classes, bad);
      }
      for (std::ptrdiff_t k = 0; k < classes;) {
        const std::ptrdiff_t left = (classes - k + part - 1) / part;
        if (left == 1) {
          column<1>(task, first, count, k);
          k += part;
        } else if (left == 2 || left == 4) {
          column<2>(task, first, count, k);
          k += 2 * part;
        } else {
          column<3>(task, first, count, k);
          k += 3 * part;
        }
      }
    }
    return L::bits(bad) == 0;
  }
};

}  // namespace
}  // namespace coinfer::stacking
