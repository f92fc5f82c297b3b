// Votes of all members at once, sixteen rows side by side: no table of sums in memory, no branch on what was voted.
//
// A class's votes are the weights of the members whose label equals it, added in their order. Where classes are few,
// they are counted class by class; else only the classes that members named are: a member's label gets as many votes as
// there are members with an equal one. Both find the same sums, so the choice shows in the time alone: the smaller of
// members x classes and members^2 comparisons.
//
// Weights that are integers up to a power of two are counted in float32, exactly; others are summed in double, as Add
// does it, and where the first and the second are closer than float32 can show, the row is left to Add.
#pragma once

#include <cstddef>
#include <cstdint>

#include "coinfer/combine/rows.hpp"
#include "coinfer/combine/task.hpp"

namespace coinfer::pooling {
namespace {

template <class L>
struct Voting {
  using Float = typename L::Float;
  using Int = typename L::Int;
  using Mask = typename L::Mask;
  using Double = typename L::Double;

  /// The power of two that makes every weight an integer with a sum that float32 holds; 0 if there is none.
  static double integral(const double* weight, std::ptrdiff_t members) {
    for (int power = 0; power <= 24; ++power) {
      const auto scale = static_cast<double>(1 << power);
      double sum = 0.0;
      bool whole = true;
      for (std::ptrdiff_t m = 0; m < members && sum < 0x1p24; ++m) {
        const double w = weight[m] * scale;
        sum += w;
        whole = whole && w < 0x1p24 && static_cast<double>(static_cast<std::int64_t>(w)) == w;
      }
      if (!(sum < 0x1p24)) return 0.0;
      if (whole) return scale;
    }
    return 0.0;
  }

  struct Task {
    const Votes* votes;
    std::ptrdiff_t members;
    float whole[most_members];  // weights as integers
    Double inverse;             // of their sum
  };

  /// Votes of one class (a label per lane) over all members: a whole number, or a share rounded to float32.
  template <bool exact>
  static COINFER_INLINE Float of(const Task& task, const Float* said, Float label) {
    if constexpr (exact) {
      Float sum = L::fill(0.0F);
      for (std::ptrdiff_t m = 0; m < task.members; ++m) {
        sum = sum + L::select(said[m] == label, L::fill(task.whole[m]), L::fill(0.0F));
      }
      return sum;
    } else {
      Double sum = L::fill_double(0.0);
      for (std::ptrdiff_t m = 0; m < task.members; ++m) {
        const Float one = L::select(said[m] == label, L::fill(1.0F), L::fill(0.0F));
        sum = L::multiply_add(L::fill_double(task.votes->weight[m]), L::widen(one), sum);
      }
      return L::narrow(L::multiply(sum, task.inverse));
    }
  }

  struct Best {
    Float label, votes, second;
  };

  template <bool exact>
  static COINFER_INLINE Best by_class(const Task& task, const Float* said, std::ptrdiff_t classes) {
    Best b{L::fill(0.0F), of<exact>(task, said, L::fill(0.0F)), L::fill(0.0F)};
    for (std::ptrdiff_t k = 1; k < classes; ++k) {
      const Float label = L::fill(static_cast<float>(k)), votes = of<exact>(task, said, label);
      b.label = L::select(votes > b.votes, label, b.label);
      b.second = L::max(b.second, L::min(b.votes, votes));
      b.votes = L::max(b.votes, votes);
    }
    return b;
  }

  template <bool exact>
  static COINFER_INLINE Best by_member(const Task& task, const Float* said) {
    Float votes[most_members];
    Best b{L::fill(infinity), L::fill(0.0F), L::fill(0.0F)};
    for (std::ptrdiff_t m = 0; m < task.members; ++m) {
      votes[m] = of<exact>(task, said, said[m]);
      b.votes = L::max(b.votes, votes[m]);
    }
    for (std::ptrdiff_t m = 0; m < task.members; ++m) {
      b.label = L::min(b.label, L::select(votes[m] == b.votes, said[m], L::fill(infinity)));
    }
    for (std::ptrdiff_t m = 0; m < task.members; ++m) {
      b.second = L::max(b.second, L::select(said[m] == b.label, L::fill(0.0F), votes[m]));
    }
    return b;
  }

  template <class Lane, class Value>
  static COINFER_INLINE void write(Lane* out, Value value, std::ptrdiff_t row, std::ptrdiff_t n) {
    if (out == nullptr) return;
    if (n == lanes) {
      L::store(out + row, value);
    } else {
      L::store_first(out + row, value, static_cast<unsigned>(n));
    }
  }

  template <bool exact>
  static COINFER_INLINE void count(const Task& task) {
    const Votes& votes = *task.votes;
    const auto rows = static_cast<std::ptrdiff_t>(votes.rows), classes = static_cast<std::ptrdiff_t>(votes.classes);
    const Float last = L::fill(static_cast<float>(classes - 1));
    const bool few = classes <= task.members;
    for (std::ptrdiff_t first = 0; first < rows; first += lanes) {
      const std::ptrdiff_t n = rows - first < lanes ? rows - first : lanes;
      Float said[most_members];
      Mask bad = L::none();
      for (std::ptrdiff_t m = 0; m < task.members; ++m) {
        const std::int32_t* from = votes.label[m] + first;
        alignas(64) std::int32_t padded[lanes];
        if (n < lanes) {
          for (std::ptrdiff_t i = 0; i < lanes; ++i) padded[i] = i < n ? from[i] : 0;
          from = padded;
        }
        said[m] = L::to_float(L::load(from));
        bad = bad | L::not_at_least(said[m], L::fill(0.0F)) | (said[m] > last);
      }
      const Best b = few ? by_class<exact>(task, said, classes) : by_member<exact>(task, said);
      Float share = b.votes, second = b.second;
      if constexpr (exact) {
        share = L::narrow(L::multiply(L::widen(share), task.inverse));
        second = L::narrow(L::multiply(L::widen(second), task.inverse));
      }
      const Float gap = share - second;
      if constexpr (!exact) {
        bad = bad | L::not_at_least(gap, share * L::fill(close_share)) | L::not_at_least(share, L::fill(smallest));
      }
      const Float magic = L::fill(8388608.0F);  // 2^23: adding it leaves a whole number in the low bits
      write(votes.out.label, L::as_int(b.label + magic) - L::as_int(magic), first, n);
      write(votes.out.max_prob, share, first, n);
      write(votes.out.margin, gap, first, n);
      votes.rare[first / lanes] = static_cast<std::uint16_t>(L::bits(bad) & ((1U << n) - 1U));
    }
  }

  static void votes(const Votes& votes) noexcept {
    Task task;
    task.votes = &votes;
    task.members = static_cast<std::ptrdiff_t>(votes.members);
    double total = 0.0;
    for (std::ptrdiff_t m = 0; m < task.members; ++m) total += votes.weight[m];
    const double scale = integral(votes.weight, task.members);
    for (std::ptrdiff_t m = 0; m < task.members; ++m) task.whole[m] = static_cast<float>(votes.weight[m] * scale);
    if (scale > 0.0) {
      task.inverse = L::fill_double(1.0 / (total * scale));
      count<true>(task);
    } else {
      task.inverse = L::fill_double(1.0 / total);
      count<false>(task);
    }
  }
};

}  // namespace
}  // namespace coinfer::pooling
