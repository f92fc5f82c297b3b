// The scoring kernel, written once over sixteen virtual lanes `L` (simd/baseline.hpp) and compiled once per instruction
// set.
//
// Sixteen rows make a block, so that everything that happens once per row (the logarithm, the division, the stores)
// costs a sixteenth. Two passes over the block, which stays in the cache between them:
//   top     the largest and second-largest entry of each row
//   mass    with t = (z - max) log2(e) / T <= 0 and e = 2^t:  S = sum e,  W = sum e t,  Q = sum e^2,  and where z ==
//   max
// and then max_prob = 1 / S, margin = (1 - e2) / S, H = log2 S - W / S bits, gini = Q / S^2, energy = max + T ln 2 log2
// S. The largest entry has t = 0 and e = 1 exactly, so S >= 1 and ties give a margin of exactly 0.
//
// Up to 16 classes the block is transposed first: lane = row, and a sum runs over the classes in order. Beyond, lane =
// class mod 16: each row is summed down its lanes, and the lanes of sixteen rows are transposed and summed in order.
// Either way the order of operations depends on the number of classes alone. A short last block uses the same code on
// padded data.
//
// t is clamped at -126, which keeps 2^t normal (denormals cost hundreds of cycles on some CPUs) and makes -inf an
// ordinary value; what a clamped entry adds (1e-38) is below the last bit of S. NaN and infinite maxima turn S into
// NaN, which is looked for once per block; such rows go to score_special.
#pragma once

#include <cstddef>
#include <cstdint>

#include "coinfer/score/task.hpp"

namespace coinfer::scoring {
namespace {

enum Wants : unsigned { mass = 1, weighted = 2, squares = 4 };

constexpr float infinity = __builtin_inff();
constexpr float smallest = 1.17549435e-38F;  // the least normal float32
constexpr float lowest_exponent = -126.0F;
constexpr std::ptrdiff_t lanes = 16;

template <class L>
struct Rows {
  using Float = typename L::Float;
  using Int = typename L::Int;
  using Mask = typename L::Mask;

  struct Block {
    Float max, second, sum, weighted, squares;
    std::uint32_t bad;  // rows that hold a NaN, as far as `sum` does not tell
  };

  /// 2^t for t in [-126, 1]: relative error 1.5e-7, exactly 1 at 0.
  static COINFER_INLINE Float exp2(Float t) {
    const Float n = L::round(t);
    const Float f = t - n;
    Float p = L::fma(f, L::fill(0x1.5bba14p-10F), L::fill(0x1.3cea88p-7F));
    p = L::fma(f, p, L::fill(0x1.c6b752p-5F));
    p = L::fma(f, p, L::fill(0x1.ebf9bcp-3F));
    p = L::fma(f, p, L::fill(0x1.62e42ap-1F));
    p = L::fma(f, p, L::fill(1.0F));
    return L::scale(p, n);
  }

  /// log2(x) for normal x > 0, through log2((1 + s) / (1 - s)): exactly 0 at 1, relative error 2e-7 near it.
  static COINFER_INLINE Float log2(Float x) {
    constexpr std::int32_t sqrt_half = 0x3F3504F3;
    const Int n = L::template shift_right<23>(L::as_int(x) - L::fill(sqrt_half));
    const Float f = L::as_float(L::as_int(x) - L::template shift_left<23>(n)) - L::fill(1.0F);
    const Float s = f / (f + L::fill(2.0F));
    const Float s2 = s * s;
    Float p = L::fma(s2, L::fill(0.43174225F), L::fill(0.57671414F));
    p = L::fma(s2, p, L::fill(0.96179885F));
    p = L::fma(s2, p, L::fill(2.88539008F));
    return L::fma(s, p, L::to_float(n));
  }

  template <Input input>
  static COINFER_INLINE Float exponent(Float z, Float max, Float scale) {
    if constexpr (input == Input::logits) {
      return L::max(L::fill(lowest_exponent), (z - max) * scale);
    } else {
      const Float ratio = z / max;
      const Mask tiny = L::not_at_least(ratio, L::fill(smallest));
      const Float normal = L::select(tiny, ratio * L::fill(0x1p32F), ratio);
      const Float log = log2(L::max(normal, L::fill(smallest))) - L::select(tiny, L::fill(32.0F), L::fill(0.0F));
      const Float t = L::max(L::fill(lowest_exponent), log * scale);
      return L::select(ratio > L::fill(0.0F), t, L::fill(lowest_exponent));
    }
  }

  struct Sums {
    Float sum, weighted, squares;
  };

  template <Input input, unsigned wants>
  static COINFER_INLINE void add(Sums& s, Float z, Float max, Float scale) {
    if constexpr (input == Input::probs) {
      if constexpr ((wants & weighted) != 0) {
        s.weighted = L::fma(z, log2(L::max(z, L::fill(smallest))), s.weighted);
      }
      if constexpr ((wants & squares) != 0) s.squares = L::fma(z, z, s.squares);
    } else {
      const Float t = exponent<input>(z, max, scale);
      const Float e = exp2(t);
      s.sum = s.sum + e;
      if constexpr ((wants & weighted) != 0) s.weighted = L::fma(e, t, s.weighted);
      if constexpr ((wants & squares) != 0) s.squares = L::fma(e, e, s.squares);
    }
  }

  static COINFER_INLINE void add(Sums& s, const Sums& more) {
    s.sum = s.sum + more.sum;
    s.weighted = s.weighted + more.weighted;
    s.squares = s.squares + more.squares;
  }

  static COINFER_INLINE Sums zero() { return {L::fill(0.0F), L::fill(0.0F), L::fill(0.0F)}; }

  /// What no number is: NaN, and for probabilities what is negative too.
  template <Input input>
  static COINFER_INLINE Mask invalid(Float z) {
    return input == Input::logits ? L::unordered(z) : L::not_at_least(z, L::fill(0.0F));
  }

  /// Whether a NaN among the entries shows in S.
  static constexpr bool tells(Input input, unsigned wants) { return input == Input::logits && (wants & mass) != 0; }

  template <Input input>
  static constexpr float padding = input == Input::logits ? -infinity : 0.0F;

  // ---------------------------------------------------------------------------------------------- up to 16 classes

  /// `columns` holds entry j of the sixteen rows at 16 j.
  template <Input input, unsigned wants>
  static COINFER_INLINE Block narrow(const float* columns, const Task& task, std::int32_t* label) {
    const auto classes = static_cast<std::ptrdiff_t>(task.classes);
    Block b;
    b.max = L::load(columns);
    b.second = L::fill(padding<input>);
    Mask bad = tells(input, wants) ? L::none() : invalid<input>(b.max);
    Int best = L::fill(0);
    for (std::ptrdiff_t j = 1; j < classes; ++j) {
      const Float z = L::load(columns + lanes * j);
      if constexpr (!tells(input, wants)) bad = bad | invalid<input>(z);
      best = L::select(z > b.max, L::fill(static_cast<std::int32_t>(j)), best);
      b.second = L::max(b.second, L::min(b.max, z));
      b.max = L::max(b.max, z);
    }
    L::store(label, best);
    Sums s = zero();
    if constexpr (wants != 0) {
      const Float scale = L::fill(task.scale);
      for (std::ptrdiff_t j = 0; j < classes; ++j) add<input, wants>(s, L::load(columns + lanes * j), b.max, scale);
    }
    b.sum = s.sum;
    b.weighted = s.weighted;
    b.squares = s.squares;
    b.bad = L::bits(bad);
    return b;
  }

  /// Transpose sixteen rows. Where rows are shorter than four entries the loads reach into the next row: up to 4 - C
  /// floats behind the last one must be readable.
  static COINFER_INLINE void transpose(const float* rows, std::ptrdiff_t stride, std::ptrdiff_t classes,
                                       float* columns) {
    Float out[4];
    if (classes == 2 && stride == 2) {
      L::pairs(rows, out);
      L::store(columns, out[0]);
      L::store(columns + lanes, out[1]);
      return;
    }
    for (std::ptrdiff_t j = 0; j < classes; j += 4) {
      const std::ptrdiff_t from = j + 4 <= classes || classes < 4 ? j : classes - 4;  // overlap rather than reach out
      L::columns4(rows + from, stride, out);
      for (std::ptrdiff_t k = 0; k < 4; ++k) L::store(columns + lanes * (from + k), out[k]);
    }
  }

  /// A copy of n <= 16 rows, padded with zeros to sixteen rows of `lanes` floats.
  static COINFER_INLINE void pad(const float* rows, std::ptrdiff_t stride, std::ptrdiff_t n, std::ptrdiff_t classes,
                                 float* out) {
    for (std::ptrdiff_t i = 0; i < lanes * lanes; i += lanes) L::store(out + i, L::fill(0.0F));
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      L::store(out + lanes * i, L::load_first(rows + i * stride, static_cast<unsigned>(classes), 0.0F));
    }
  }

  // ------------------------------------------------------------------------------------------ more than 16 classes

  struct Top {
    Float max, second;
    Mask bad;
  };

  template <Input input, unsigned wants>
  static COINFER_INLINE void top(Top& t, Float z) {
    if constexpr (!tells(input, wants)) t.bad = t.bad | invalid<input>(z);
    t.second = L::max(t.second, L::min(t.max, z));
    t.max = L::max(t.max, z);
  }

  template <Input input, unsigned wants>
  static COINFER_INLINE Top top_of_row(const float* row, std::ptrdiff_t classes) {
    Top t{L::fill(padding<input>), L::fill(padding<input>), L::none()};
    std::ptrdiff_t j = 0;
    for (; j + lanes <= classes; j += lanes) top<input, wants>(t, L::load(row + j));
    if (j < classes) {
      top<input, wants>(t, L::load_first(row + j, static_cast<unsigned>(classes - j), padding<input>));
    }
    return t;
  }

  /// The sums of one row down its lanes, and the first entry that equals the maximum. Four vectors are a step,
  /// alternating between two sets of sums; every eight steps these are added to the total, which bounds the rounding
  /// error of long rows.
  template <Input input, unsigned wants>
  static COINFER_INLINE Sums mass_of_row(const float* row, std::ptrdiff_t classes, float max_of_row, const Task& task,
                                         std::int32_t* label) {
    const Float max = L::fill(max_of_row), scale = L::fill(task.scale);
    Sums total = zero(), even = zero(), odd = zero();
    std::ptrdiff_t found = -1;
    const auto look = [&](std::uint64_t hits, std::ptrdiff_t at) __attribute__((always_inline)) {
      const std::ptrdiff_t here = at + __builtin_ctzll(hits | std::uint64_t{1} << 63);
      found = (hits != 0) & (found < 0) ? here : found;
    };
    const auto step = [&](Sums& s, Float z) __attribute__((always_inline)) -> std::uint64_t {
      if constexpr (wants != 0) add<input, wants>(s, z, max, scale);
      return L::bits(z == max);
    };
    std::ptrdiff_t j = 0;
    for (; j + 4 * lanes <= classes; j += 4 * lanes) {
      std::uint64_t hits = step(even, L::load(row + j));
      hits |= step(odd, L::load(row + j + lanes)) << 16;
      hits |= step(even, L::load(row + j + 2 * lanes)) << 32;
      hits |= step(odd, L::load(row + j + 3 * lanes)) << 48;
      look(hits, j);
      if (wants != 0 && (j & (32 * lanes - 1)) == 28 * lanes) {
        add(even, odd);
        add(total, even);
        even = zero();
        odd = zero();
      }
    }
    for (; j + lanes <= classes; j += lanes) look(step(even, L::load(row + j)), j);
    if (j < classes) {
      look(step(odd, L::load_first(row + j, static_cast<unsigned>(classes - j), padding<input>)), j);
    }
    add(even, odd);
    add(total, even);
    *label = static_cast<std::int32_t>(found);
    return total;
  }

  /// The lanes of sixteen rows, 16 floats each, summed in order.
  static COINFER_INLINE Float sum_lanes(const float* partial) {
    Float sum{}, column[4];
    for (std::ptrdiff_t j = 0; j < lanes; j += 4) {
      L::columns4(partial + j, lanes, column);
      sum = j == 0 ? column[0] : sum + column[0];
      sum = sum + column[1];
      sum = sum + column[2];
      sum = sum + column[3];
    }
    return sum;
  }

  template <Input input, unsigned wants>
  static COINFER_INLINE Block wide(const float* rows, std::ptrdiff_t n, const Task& task, std::int32_t* label) {
    alignas(64) float first[lanes * lanes], next[lanes * lanes], third[lanes * lanes];
    const auto classes = static_cast<std::ptrdiff_t>(task.classes);
    Block b{};
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      const Top t = top_of_row<input, wants>(rows + i * task.stride, classes);
      L::store(first + lanes * i, t.max);
      L::store(next + lanes * i, t.second);
      if constexpr (!tells(input, wants)) b.bad |= static_cast<std::uint32_t>(L::bits(t.bad) != 0) << i;
    }
    for (std::ptrdiff_t i = n; i < lanes; ++i) {
      L::store(first + lanes * i, L::fill(0.0F));
      L::store(next + lanes * i, L::fill(0.0F));
    }
    b.max = L::fill(padding<input>);
    b.second = b.max;
    for (std::ptrdiff_t j = 0; j < lanes; j += 4) {
      Float max[4], second[4];
      L::columns4(first + j, lanes, max);
      L::columns4(next + j, lanes, second);
      for (int k = 0; k < 4; ++k) {
        b.second = L::max(L::max(b.second, second[k]), L::min(b.max, max[k]));
        b.max = L::max(b.max, max[k]);
      }
    }
    alignas(64) float max_of_row[lanes];
    L::store(max_of_row, b.max);
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      const Sums s = mass_of_row<input, wants>(rows + i * task.stride, classes, max_of_row[i], task, label + i);
      L::store(first + lanes * i, s.sum);
      L::store(next + lanes * i, s.weighted);
      L::store(third + lanes * i, s.squares);
    }
    for (std::ptrdiff_t i = n; i < lanes; ++i) L::store(third + lanes * i, L::fill(0.0F));
    if constexpr (wants != 0) {
      b.sum = sum_lanes(first);
      b.weighted = sum_lanes(next);
      b.squares = sum_lanes(third);
    }
    return b;
  }

  // ------------------------------------------------------------------------------------------------------- results

  struct Writer {
    std::ptrdiff_t row;
    unsigned n;
    bool stream;

    template <class Value, class Lane>
    COINFER_INLINE void operator()(Lane* out, Value value) const {
      if (stream) {
        L::stream(out + row, value);
      } else if (n == lanes) {
        L::store(out + row, value);
      } else {
        L::store_first(out + row, value, n);
      }
    }
  };

  template <Input input, unsigned wants>
  static COINFER_INLINE void finish(const Block& b, const Task& task, const Writer& write) {
    if constexpr (input == Input::probs) {
      if (task.max_prob != nullptr) write(task.max_prob, b.max);
      if (task.margin != nullptr) write(task.margin, b.max - b.second);
      if constexpr ((wants & weighted) != 0) {
        if (task.entropy != nullptr)
          write(task.entropy, within_unit(L::fma(b.weighted, L::fill(task.inverse_entropy), L::fill(1.0F))));
      }
      if constexpr ((wants & squares) != 0) {
        if (task.gini != nullptr) write(task.gini, b.squares);
      }
      return;
    }
    if (input == Input::logits && task.logit_margin != nullptr) {
      write(task.logit_margin, (b.max - b.second) / L::fill(task.temperature));
    }
    if constexpr (input != Input::probs && (wants & mass) != 0) {
      const Float inverse = L::fill(1.0F) / b.sum;
      if (task.max_prob != nullptr) write(task.max_prob, inverse);
      if (task.margin != nullptr) {
        const Float e2 = exp2(exponent<input>(b.second, b.max, L::fill(task.scale)));
        write(task.margin, within_unit((L::fill(1.0F) - e2) * inverse));
      }
      if (task.energy != nullptr || task.entropy != nullptr) {
        const Float log_sum = log2(b.sum);
        if (task.energy != nullptr) write(task.energy, L::fma(log_sum, L::fill(task.energy_scale), b.max));
        if ((wants & weighted) != 0 && task.entropy != nullptr) {
          const Float bits = L::fnma(b.weighted, inverse, log_sum);
          write(task.entropy, within_unit(L::fnma(bits, L::fill(task.inverse_entropy), L::fill(1.0F))));
        }
      }
      if ((wants & squares) != 0 && task.gini != nullptr) write(task.gini, b.squares * inverse * inverse);
    }
  }

  static COINFER_INLINE Float within_unit(Float x) { return L::min(L::max(x, L::fill(0.0F)), L::fill(1.0F)); }

  /// Rows of this block whose results score_special must write.
  template <Input input, unsigned wants>
  static COINFER_INLINE std::uint32_t special(const Block& b) {
    if constexpr (tells(input, wants)) return L::bits(L::unordered(b.sum));
    std::uint32_t found = b.bad | L::bits(b.max == L::fill(infinity));
    found |= L::bits(b.max == L::fill(input == Input::logits ? -infinity : 0.0F));
    return found;
  }

  template <Input input, unsigned wants>
  static std::size_t run(const Task& task) noexcept {
    alignas(64) float columns[lanes * lanes], padded[lanes * lanes];
    alignas(64) std::int32_t label[lanes];
    const auto rows = static_cast<std::ptrdiff_t>(task.rows), classes = static_cast<std::ptrdiff_t>(task.classes);
    const bool direct = classes >= 4 || (task.stride == classes && classes == 2);
    std::size_t unanswered = 0;
    for (std::ptrdiff_t row = 0; row < rows; row += lanes) {
      const std::ptrdiff_t n = rows - row < lanes ? rows - row : lanes;
      const float* data = task.data + row * task.stride;
      Block b;
      if (classes > lanes) {
        b = wide<input, wants>(data, n, task, label);
      } else {
        if (n == lanes && direct) {
          transpose(data, task.stride, classes, columns);
        } else {
          pad(data, task.stride, n, classes, padded);
          transpose(padded, lanes, classes, columns);
        }
        b = narrow<input, wants>(columns, task, label);
      }
      const Writer write{row, static_cast<unsigned>(n), task.stream && n == lanes};
      finish<input, wants>(b, task, write);
      if (task.label != nullptr) {
        for (std::ptrdiff_t i = 0; i < n; ++i) task.label[row + i] = label[i];
      }
      std::uint32_t rare = special<input, wants>(b) & ((1U << n) - 1U);
      for (; rare != 0; rare &= rare - 1) {
        unanswered +=
            static_cast<std::size_t>(score_special(task, static_cast<std::size_t>(row + __builtin_ctz(rare))));
      }
    }
    if (task.stream) L::fence();
    return unanswered;
  }

  static std::size_t run(const Task& task) noexcept {
    const bool logs = task.entropy != nullptr;
    if (task.input == Input::logits) {
      if (task.gini != nullptr) return run<Input::logits, mass | weighted | squares>(task);
      if (logs) return run<Input::logits, mass | weighted>(task);
      if (task.max_prob != nullptr || task.margin != nullptr || task.energy != nullptr)
        return run<Input::logits, mass>(task);
      return run<Input::logits, 0>(task);
    }
    const bool only_label = !logs && task.max_prob == nullptr && task.margin == nullptr && task.gini == nullptr;
    if (task.input == Input::tempered && !only_label) return run<Input::tempered, mass | weighted | squares>(task);
    if (logs || task.gini != nullptr) return run<Input::probs, weighted | squares>(task);
    return run<Input::probs, 0>(task);
  }
};

}  // namespace
}  // namespace coinfer::scoring
