// The scoring kernel, written once over sixteen virtual lanes `L` (simd/baseline.hpp) and compiled once per instruction
// set.
//
// Sixteen rows make a block, so that what happens once per row (a logarithm, two divisions, the stores) costs a
// sixteenth. Two passes over a block, which stays in the cache between them:
//   top     the largest entry of each row
//   mass    with d = z - max <= 0 and e = exp(d / T):  S = sum e,  W = sum e d,  Q = sum e^2;  where d = 0; the next d
//   below
// and then, with e2 for the second-largest entry and `scale` = log2(e) / T,
//   max_prob = 1 / S,  margin = (1 - e2) / S,  H = log2 S - scale W / S bits,  gini = Q / S^2,  energy = max + T ln 2
//   log2 S.
// The largest entry has e = 1 exactly, so S >= 1, and ties give a margin of exactly 0.
//
// Up to 128 classes a block is transposed first: lane = row, so that nothing has to be folded, and a sum runs over the
// classes in order. Beyond, lane = class mod 16: each row is summed down its lanes, and the lanes of sixteen rows are
// folded together, 16 to 8 to 4 to 2 to 1. Either way the order of operations depends on the number of classes alone. A
// short last block uses the same code.
//
// d is clamped where e = 2^-125. That keeps e normal (denormals cost hundreds of cycles on some CPUs) and makes -inf an
// ordinary value; what a clamped entry adds is far below the last bit of S. A NaN or an infinite maximum turns W into
// NaN, which is looked for once per block: such rows go to score_special.
#pragma once

#include <cstddef>
#include <cstdint>

#include "coinfer/score/task.hpp"

namespace coinfer::scoring {
namespace {

enum Wants : unsigned { mass = 1, squares = 2 };

constexpr float infinity = __builtin_inff();
constexpr float smallest = 1.17549435e-38F;  // the least normal float32
constexpr std::ptrdiff_t lanes = 16;
constexpr std::ptrdiff_t narrow_classes = 128;      // at most, for sixteen rows to be transposed
constexpr std::ptrdiff_t prefetch_distance = 1024;  // floats

template <class L>
struct Rows {
  using Float = typename L::Float;
  using Int = typename L::Int;
  using Mask = typename L::Mask;

  struct Block {
    Float max, second;
    Int label;
  };

  struct Sums {
    Float sum, weighted, squares;
  };

  struct Scale {
    Float least, scale;
    explicit Scale(const Task& task) : least(L::fill(task.least)), scale(L::fill(task.scale)) {}
  };

  // ----- elementary functions

  /// exp(d / T) for least <= d <= 0: relative error 1.6e-7, exactly 1 at 0. Adding 1.5 * 2^23 rounds the power of 2 to
  /// an integer, which then stands in the lowest bits, from where it is shifted to the exponent.
  template <int n>
  static COINFER_INLINE void power(const Float (&d)[n], const Scale& scale, Float (&e)[n]) {
    constexpr float c[] = {0x1.3cea88p-7F, 0x1.c6b752p-5F, 0x1.ebf9bcp-3F, 0x1.62e42ap-1F, 1.0F};
    const Float big = L::fill(12582912.0F);
    Float whole[n], rest[n];
    for (int k = 0; k < n; ++k) whole[k] = L::fma(d[k], scale.scale, big);
    for (int k = 0; k < n; ++k) rest[k] = L::fms(d[k], scale.scale, whole[k] - big);
    for (int k = 0; k < n; ++k) e[k] = L::fill(0x1.5bba14p-10F);
    for (const float coefficient : c) {
      for (int k = 0; k < n; ++k) e[k] = L::fma(rest[k], e[k], L::fill(coefficient));
    }
    for (int k = 0; k < n; ++k) {
      e[k] = L::as_float(L::as_int(e[k]) + L::template shift_left<23>(L::as_int(whole[k])));
    }
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

  /// log2(z / max) for probabilities: -inf at 0, good for denormals, NaN for NaN.
  static COINFER_INLINE Float log_ratio(Float z, Float max) {
    const Float ratio = z / max;
    const Mask tiny = L::not_at_least(ratio, L::fill(smallest));
    const Float normal = L::select(tiny, ratio * L::fill(0x1p32F), ratio);
    const Float log = log2(normal) - L::select(tiny, L::fill(32.0F), L::fill(0.0F));
    return L::select(ratio == L::fill(0.0F), L::fill(-infinity), log + (ratio - ratio));
  }

  static COINFER_INLINE Float within_unit(Float x) { return L::min(L::max(x, L::fill(0.0F)), L::fill(1.0F)); }

  // ----- one vector

  template <Input input>
  static constexpr float padding = input == Input::logits ? -infinity : 0.0F;

  /// An entry as it is used: what is no probability is no number.
  template <Input input>
  static COINFER_INLINE Float entry(Float z) {
    if constexpr (input == Input::logits) return z;
    return L::select(L::not_at_least(z, L::fill(0.0F)), L::fill(__builtin_nanf("")), z);
  }

  template <Input input>
  static COINFER_INLINE Float distance(Float z, Float max) {
    if constexpr (input == Input::tempered) return log_ratio(z, max);
    return z - max;
  }

  static COINFER_INLINE Sums zero() { return {L::fill(0.0F), L::fill(0.0F), L::fill(0.0F)}; }

  /// Add n vectors to a pair of sums, in turn or, if `paired`, their sum to one of them. Step by step for all of them,
  /// because the chain of operations for one is long and a CPU looks only so far ahead for others to start.
  template <Input input, unsigned wants, bool paired = false, int n>
  static COINFER_INLINE void add(Sums (&sums)[2], const Float (&z)[n], Float max, const Scale& scale, int first = 0) {
    static_assert(!paired || n == 2);
    const auto of = [&](int k) -> Sums& { return sums[(paired ? first : first + k) & 1]; };
    const auto square = [&](const Float(&x)[n]) {
      if constexpr ((wants & squares) != 0) {
        if constexpr (paired) {
          of(0).squares = of(0).squares + (x[0] * x[0] + x[1] * x[1]);
        } else {
          for (int k = 0; k < n; ++k) of(k).squares = L::fma(x[k], x[k], of(k).squares);
        }
      }
    };
    Float d[n], e[n];
    for (int k = 0; k < n; ++k) d[k] = distance<input>(z[k], max);
    if constexpr (wants == 0) {
      for (int k = 0; k < n; ++k) sums[0].weighted = sums[0].weighted + d[k];
    } else if constexpr (input == Input::probs) {
      for (int k = 0; k < n; ++k) of(k).weighted = L::fma(z[k], log2(L::max(z[k], L::fill(smallest))), of(k).weighted);
      square(z);
    } else {
      for (int k = 0; k < n; ++k) d[k] = L::max(scale.least, d[k]);  // in this order a NaN stays one
      power(d, scale, e);
      if constexpr (paired) of(0).sum = of(0).sum + (e[0] + e[1]);
      for (int k = 0; k < n; ++k) {
        if constexpr (!paired) of(k).sum = of(k).sum + e[k];
        of(k).weighted = L::fma(e[k], d[k], of(k).weighted);
      }
      square(e);
    }
  }

  static COINFER_INLINE void join(Sums& s, const Sums& more) {
    s.sum = s.sum + more.sum;
    s.weighted = s.weighted + more.weighted;
    s.squares = s.squares + more.squares;
  }

  // ----- up to 128 classes

  /// The largest and the next entry so far, lane by lane.
  struct Two {
    Float max, second;
    COINFER_INLINE void add(Float z) {
      second = L::max(second, L::min(max, z));
      max = L::max(max, z);
    }
  };

  /// Transpose sixteen rows to columns, entry j of all of them at 16 j, and find the largest two of each row. Rows
  /// shorter than four entries are read four at a time: unless they lie in pairs, two floats behind the last row must
  /// be readable.
  template <Input input>
  static COINFER_INLINE Two transpose(const float* rows, std::ptrdiff_t stride, std::ptrdiff_t classes,
                                      float* columns) {
    Float out[4];
    Two two{L::fill(padding<input>), L::fill(padding<input>)};
    if (classes == 2 && stride == 2) {
      L::pairs(rows, out);
      for (std::ptrdiff_t k = 0; k < 2; ++k) {
        L::store(columns + lanes * k, out[k]);
        two.add(entry<input>(out[k]));
      }
      return two;
    }
    std::ptrdiff_t end = classes;
    for (; end >= 4; end -= 4) {
      L::columns4(rows + end - 4, stride, out);
      for (std::ptrdiff_t k = 0; k < 4; ++k) {
        L::store(columns + lanes * (end - 4 + k), out[k]);
        two.add(entry<input>(out[k]));
      }
    }
    if (end > 0) {  // overlap rather than reach out
      L::columns4(rows, stride, out);
      for (std::ptrdiff_t k = 0; k < end; ++k) {
        L::store(columns + lanes * k, out[k]);
        two.add(entry<input>(out[k]));
      }
    }
    return two;
  }

  /// The first class whose entry is the largest.
  template <Input input>
  static COINFER_INLINE Int first_at(const float* columns, std::int32_t classes, Float max) {
    Int label = L::fill(0);
    for (std::int32_t j = classes - 1; j > 0; --j) {
      label = L::select_below(L::reach(entry<input>(L::load(columns + lanes * j)), max), label, L::fill(j));
    }
    return L::select_below(L::reach(entry<input>(L::load(columns)), max), label, L::fill(0));
  }

  /// A copy of n <= 16 rows, padded with zeros to sixteen rows of `width` floats, a multiple of 16.
  static COINFER_INLINE void pad(const float* rows, std::ptrdiff_t stride, std::ptrdiff_t n, std::ptrdiff_t classes,
                                 std::ptrdiff_t width, float* out) {
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      for (std::ptrdiff_t j = 0; j < width; j += lanes) {
        const std::ptrdiff_t left = classes - j < lanes ? classes - j : lanes;
        L::store(out + width * i + j, L::load_first(rows + i * stride + j, static_cast<unsigned>(left), 0.0F));
      }
    }
    for (std::ptrdiff_t j = n * width; j < lanes * width; j += lanes) L::store(out + j, L::fill(0.0F));
  }

  /// The sums of `L::width` transposed rows, entry j of all of them at 16 j: pairs, blocks of 16 classes, and a binary
  /// tree over the blocks, which keeps rounding errors from adding up. On the way the cache lines `ahead` are asked
  /// for, as many as there are classes; of two calls for the same lines each asks for every other one, the first for
  /// `part`.
  template <Input input, unsigned wants>
  static COINFER_INLINE Sums mass_of_columns(const float* columns, std::ptrdiff_t classes, Float max,
                                             const Scale& scale, const float* ahead, std::ptrdiff_t part) {
    Sums tree[4];  // [k]: the sums of 2^k blocks, if that bit of the number of blocks is set
    Sums s[2] = {zero(), zero()};
    std::ptrdiff_t j = 0;
    const auto pair_at = [&](std::ptrdiff_t at, int which) {
      for (std::ptrdiff_t k = part; k < 2; k += lanes / L::width) __builtin_prefetch(ahead + lanes * (at + k));
      const Float z[2] = {entry<input>(L::load(columns + lanes * at)),
                          entry<input>(L::load(columns + lanes * (at + 1)))};
      add<input, wants, true>(s, z, max, scale, which);
    };
    for (; j + 4 <= classes; j += 4) {
      pair_at(j, 0);
      pair_at(j + 2, 1);
      if (j % lanes == lanes - 4) {
        join(s[0], s[1]);
        int level = 0;
        for (; (j / lanes >> level & 1) != 0; ++level) join(s[0], tree[level]);
        tree[level] = s[0];
        s[0] = zero();
        s[1] = s[0];
      }
    }
    if (j + 2 <= classes) {
      pair_at(j, 0);
      j += 2;
    }
    if (j < classes) {
      const Float z[1] = {entry<input>(L::load(columns + lanes * j))};
      add<input, wants>(s, z, max, scale, 1);
    }
    join(s[0], s[1]);
    for (int level = 0; level < 4; ++level) {
      if ((classes / lanes >> level & 1) != 0) join(s[0], tree[level]);
    }
    return s[0];
  }

  /// The sums of sixteen transposed rows. One register at a time: its chain of operations is long, and so its constants
  /// and sums find room in the others.
  template <Input input, unsigned wants>
  static COINFER_INLINE Sums mass_of_block(const float* columns, const Task& task, Float max, const float* ahead) {
    using Register = typename L::Register;
    using Part = Rows<Register>;
    const typename Part::Scale scale(task);
    const auto classes = static_cast<std::ptrdiff_t>(task.classes);
    alignas(64) float largest[lanes], sum[lanes], weighted[lanes], squared[lanes];
    L::store(largest, max);
    for (std::ptrdiff_t i = 0; i < lanes; i += Register::width) {
      const typename Part::Sums s = Part::template mass_of_columns<input, wants>(
          columns + i, classes, Register::load(largest + i), scale, ahead, i / Register::width);
      Register::store(weighted + i, s.weighted);
      if constexpr ((wants & mass) != 0) Register::store(sum + i, s.sum);
      if constexpr ((wants & squares) != 0) Register::store(squared + i, s.squares);
    }
    Sums sums = zero();
    sums.weighted = L::load(weighted);
    if constexpr ((wants & mass) != 0) sums.sum = L::load(sum);
    if constexpr ((wants & squares) != 0) sums.squares = L::load(squared);
    return sums;
  }

  /// The same for two classes, of which one has e = 1: equal bits for less work. Returns the other e.
  template <unsigned wants>
  static COINFER_INLINE Float pair(Float z, Float other, const Scale& scale, Block& b, Sums& sums) {
    const Float one = L::fill(1.0F), none = L::fill(0.0F);
    b.max = L::max(other, z);  // in this order and the next a NaN is either the larger or the smaller
    b.second = L::min(z, other);
    b.label = L::select(other > z, L::fill(1), L::fill(0));
    const Float d[1] = {L::max(scale.least, (b.second - b.max) + (b.max - b.max))};
    Float e[1];
    power(d, scale, e);
    sums.sum = e[0] + one;
    sums.weighted = L::fma(e[0], d[0], none);
    if constexpr ((wants & squares) != 0) sums.squares = L::fma(e[0], e[0], none) + one;
    return e[0];
  }

  template <Input input, unsigned wants>
  static std::size_t run_narrow(const Task& task) noexcept {
    alignas(64) float columns[lanes * narrow_classes], padded[lanes * narrow_classes];
    const auto rows = static_cast<std::ptrdiff_t>(task.rows), classes = static_cast<std::ptrdiff_t>(task.classes);
    const Scale scale(task);
    const bool direct = classes >= 4 || (task.stride == 2 && classes == 2);
    const std::ptrdiff_t step = lanes * task.stride, distance = step < prefetch_distance ? prefetch_distance : step;
    std::size_t unanswered = 0;
    for (std::ptrdiff_t row = 0; row < rows; row += lanes) {
      const std::ptrdiff_t n = rows - row < lanes ? rows - row : lanes;
      const float* data = task.data + row * task.stride;
      Two two;
      if (n == lanes && direct) {
        two = transpose<input>(data, task.stride, classes, columns);
      } else {
        const std::ptrdiff_t width = (classes + lanes - 1) / lanes * lanes;
        pad(data, task.stride, n, classes, width, padded);
        two = transpose<input>(padded, width, classes, columns);
      }
      Block b{two.max, two.second, L::fill(0)};
      if (input == Input::logits && (wants & mass) != 0 && classes == 2) {
        __builtin_prefetch(data + prefetch_distance);
        __builtin_prefetch(data + prefetch_distance + lanes);
        Sums sums;
        const Float e2 = pair<wants>(L::load(columns), L::load(columns + lanes), scale, b, sums);
        unanswered += finish<input, wants>(b, sums, scale, task, row, n, &e2);
      } else {
        if (task.label != nullptr) b.label = first_at<input>(columns, static_cast<std::int32_t>(classes), b.max);
        const Sums sums = mass_of_block<input, wants>(columns, task, b.max, data + distance);
        unanswered += finish<input, wants>(b, sums, scale, task, row, n);
      }
    }
    return unanswered;
  }

  // ----- more than 128 classes

  /// The lanes of a block's rows: 16 floats for each of 16 rows.
  struct Partial {
    alignas(64) float v[lanes * lanes] = {};
    COINFER_INLINE void put(std::ptrdiff_t row, Float lane) { L::store(v + lanes * row, lane); }
  };

  /// Fold the lanes of each row into one value: lane = row.
  template <class Operation>
  static COINFER_INLINE Float fold(const Partial& partial, Operation operation) {
    Float four[4];
    const auto row = [&](std::ptrdiff_t i) { return L::load(partial.v + lanes * i); };
    for (std::ptrdiff_t k = 0; k < 4; ++k) {
      const Float low = merge<8>(row(k), row(k + 4), operation), high = merge<8>(row(k + 8), row(k + 12), operation);
      four[k] = merge<4>(low, high, operation);
    }
    return merge<1>(merge<2>(four[0], four[1], operation), merge<2>(four[2], four[3], operation), operation);
  }
  template <int width, class Operation>
  static COINFER_INLINE Float merge(Float a, Float b, Operation operation) {
    Float even, odd;
    L::template unzip<width>(a, b, even, odd);
    return operation(even, odd);
  }

  /// How the vectors of a row are grouped: 4 at a time, or a multiple in rows so long that this would be over 32
  /// groups. The maxima of the groups, lane by lane, tell where the largest and the next entry lie without a comparison
  /// for each vector.
  struct Groups {
    static constexpr std::ptrdiff_t most = 32;
    std::ptrdiff_t classes, size;  // in entries
    explicit Groups(std::ptrdiff_t c)
        : classes(c), size(4 * lanes * ((c + 4 * lanes * most - 1) / (4 * lanes * most))) {}
    std::ptrdiff_t floats() const { return (classes + size - 1) / size * lanes; }
  };

  template <Input input>
  static COINFER_INLINE Float piece(const float* row, std::ptrdiff_t j, std::ptrdiff_t classes) {
    if (j + lanes <= classes) return entry<input>(L::load(row + j));
    return entry<input>(L::load_first(row + j, static_cast<unsigned>(classes - j), padding<input>));
  }

  /// The largest entries of a row while it is read, lane by lane: of all of it, and of each group.
  template <Input input>
  struct Top {
    Float row, group;
    std::ptrdiff_t size, left;
    float* maxima;

    COINFER_INLINE Top(const Groups& groups, float* out)
        : row(L::fill(padding<input>)), group(row), size(groups.size), left(size), maxima(out) {}

    COINFER_INLINE void add(const float* four_vectors) {
      Float z[4];
      for (int k = 0; k < 4; ++k) z[k] = entry<input>(L::load(four_vectors + k * lanes));
      add(L::max(L::max(z[0], z[1]), L::max(z[2], z[3])));
      left -= 4 * lanes;
      if (left == 0) {
        left = size;
        group = L::fill(padding<input>);
        maxima += lanes;
      }
    }
    COINFER_INLINE void add(Float z) {
      group = L::max(group, z);
      row = L::max(row, z);
      L::store(maxima, group);
    }
  };

  template <Input input>
  static Float top_of_row(const float* row, const Groups& groups, float* maxima) {
    Top<input> top(groups, maxima);
    std::ptrdiff_t j = 0;
    for (; j + 4 * lanes <= groups.classes; j += 4 * lanes) top.add(row + j);
    for (; j < groups.classes; j += lanes) top.add(piece<input>(row, j, groups.classes));
    return top.row;
  }

  /// Where the largest entry lies, and, lane by lane, the largest of the others.
  template <Input input>
  static COINFER_INLINE std::int32_t place(const float* row, const Groups& groups, const float* maxima,
                                           float max_of_row, Float& second) {
    const Float max = L::fill(max_of_row);
    std::uint64_t where = 0;
    int reached = 0;
    second = L::fill(padding<input>);
    std::ptrdiff_t from = 0;
    if (groups.classes > groups.size) {
      for (std::ptrdiff_t k = 0; k * groups.size < groups.classes; ++k) {
        const Float z = L::load(maxima + lanes * k);
        const typename L::Reach reach = L::reach(z, max);
        second = L::max_below(reach, second, z);
        const std::uint32_t hits = L::bits(reach);
        where |= static_cast<std::uint64_t>(hits != 0) << k;
        reached += L::count_bits(hits);
      }
      from = static_cast<std::ptrdiff_t>(L::lowest_bit(where | std::uint64_t{1} << (Groups::most - 1))) * groups.size;
    }
    std::ptrdiff_t label = groups.classes;
    int in_group = 0;
    for (std::ptrdiff_t j = from; j < from + groups.size && j < groups.classes; j += lanes) {
      const Float z = piece<input>(row, j, groups.classes);
      const typename L::Reach reach = L::reach(z, max);
      second = L::max_below(reach, second, z);
      const std::uint32_t hits = L::bits(reach);
      const std::ptrdiff_t here = hits != 0 ? j + static_cast<std::ptrdiff_t>(L::lowest_bit(hits)) : groups.classes;
      label = here < label ? here : label;
      in_group += L::count_bits(hits);
    }
    if (reached > 1 || in_group > 1) second = max;
    return static_cast<std::int32_t>(label);
  }

  /// The sums of one row down its lanes, and at the same time the top of another, so that one is computed while the
  /// other is read. Every 32 vectors the sums are added to the total, which bounds the rounding error of long rows.
  template <Input input, unsigned wants>
  static COINFER_INLINE Sums mass_of_row(const float* row, std::ptrdiff_t classes, float max_of_row, const Scale& scale,
                                         const float* ahead, Top<input>& top) {
    const Float max = L::fill(max_of_row);
    Sums total = zero(), s[2] = {total, total};
    std::ptrdiff_t j = 0;
    for (; j + 4 * lanes <= classes; j += 4 * lanes) {
      for (int k = 0; k < 4; ++k) __builtin_prefetch(ahead + j + k * lanes + prefetch_distance);
      top.add(ahead + j);
      for (int k = 0; k < 4; k += L::chains) {
        Float z[L::chains];
        for (int i = 0; i < L::chains; ++i) z[i] = entry<input>(L::load(row + j + (k + i) * lanes));
        add<input, wants>(s, z, max, scale, k);
      }
      if ((j & (32 * lanes - 1)) == 28 * lanes) {
        join(s[0], s[1]);
        join(total, s[0]);
        s[0] = zero();
        s[1] = s[0];
      }
    }
    for (; j < classes; j += lanes) {
      __builtin_prefetch(ahead + j + prefetch_distance);
      const Float z[1] = {piece<input>(row, j, classes)};
      top.add(piece<input>(ahead, j, classes));
      add<input, wants>(s, z, max, scale);
    }
    join(s[0], s[1]);
    join(total, s[0]);
    return total;
  }

  template <Input input, unsigned wants>
  static std::size_t run_wide(const Task& task) noexcept {
    Partial second, sum, weighted, squared;
    alignas(64) float maxima[lanes * Groups::most];
    alignas(64) float max[lanes];
    alignas(64) std::int32_t label[lanes] = {};
    const auto rows = static_cast<std::ptrdiff_t>(task.rows), classes = static_cast<std::ptrdiff_t>(task.classes);
    const Groups groups(classes);
    const Scale scale(task);
    const auto larger = [](Float x, Float y) { return L::max(x, y); };
    const auto plus = [](Float x, Float y) { return x + y; };
    // The top of a row is taken one row ahead.
    Float top = top_of_row<input>(task.data, groups, maxima);
    std::size_t unanswered = 0;
    for (std::ptrdiff_t row = 0; row < rows; row += lanes) {
      const std::ptrdiff_t n = rows - row < lanes ? rows - row : lanes;
      for (std::ptrdiff_t i = 0; i < n; ++i) {
        const float* here = task.data + (row + i) * task.stride;
        const float* ahead = row + i + 1 < rows ? here + task.stride : here;
        max[i] = L::largest(top);
        Float next;
        label[i] = place<input>(here, groups, maxima, max[i], next);
        second.put(i, next);
        Top<input> top_ahead(groups, maxima);
        const Sums s = mass_of_row<input, wants>(here, classes, max[i], scale, ahead, top_ahead);
        top = top_ahead.row;
        weighted.put(i, s.weighted);
        if constexpr ((wants & mass) != 0) sum.put(i, s.sum);
        if constexpr ((wants & squares) != 0) squared.put(i, s.squares);
      }
      Sums sums = zero();
      sums.weighted = fold(weighted, plus);
      if constexpr ((wants & mass) != 0) sums.sum = fold(sum, plus);
      if constexpr ((wants & squares) != 0) sums.squares = fold(squared, plus);
      const Block b{L::load(max), fold(second, larger), L::load(label)};
      unanswered += finish<input, wants>(b, sums, scale, task, row, n);
    }
    return unanswered;
  }

  // ----- results

  template <class Lane, class Value>
  static COINFER_INLINE void write(const Task& task, Lane* out, Value value, std::ptrdiff_t row, std::ptrdiff_t n) {
    if (n < lanes) {
      L::store_first(out + row, value, static_cast<unsigned>(n));
    } else if (task.stream) {
      L::stream(out + row, value);
    } else {
      L::store(out + row, value);
    }
  }

  template <Input input, unsigned wants>
  static COINFER_INLINE std::size_t finish(const Block& b, const Sums& s, const Scale& scale, const Task& task,
                                           std::ptrdiff_t row, std::ptrdiff_t n, const Float* e2 = nullptr) {
    const auto put = [&](auto* out, auto value) { write(task, out, value, row, n); };
    const Float one = L::fill(1.0F), gap = b.max - b.second;
    if (task.label != nullptr) put(task.label, b.label);
    if constexpr (input == Input::probs) {
      if (task.max_prob != nullptr) put(task.max_prob, b.max);
      if (task.margin != nullptr) put(task.margin, gap);
      if (wants != 0 && task.entropy != nullptr) {
        put(task.entropy, within_unit(L::fma(s.weighted, L::fill(task.inverse_entropy), one)));
      }
      if ((wants & squares) != 0 && task.gini != nullptr) put(task.gini, s.squares);
    } else {
      if (input == Input::logits && task.logit_margin != nullptr)
        put(task.logit_margin, gap / L::fill(task.temperature));
      if constexpr ((wants & mass) != 0) {
        const Float inverse = one / s.sum;
        if (task.max_prob != nullptr) put(task.max_prob, inverse);
        if (task.margin != nullptr) {
          Float d[1] = {L::max(scale.least, distance<input>(b.second, b.max))}, e[1];
          power(d, scale, e);
          if (e2 != nullptr) e[0] = *e2;
          put(task.margin, within_unit((one - e[0]) * inverse));
        }
        if (task.energy != nullptr || task.entropy != nullptr) {
          const Float log_sum = log2(s.sum);
          if (task.energy != nullptr) put(task.energy, L::fma(log_sum, L::fill(task.energy_scale), b.max));
          if (task.entropy != nullptr) {
            const Float bits = L::fnma(s.weighted * L::fill(task.scale), inverse, log_sum);
            put(task.entropy, within_unit(L::fnma(bits, L::fill(task.inverse_entropy), one)));
          }
        }
        if ((wants & squares) != 0 && task.gini != nullptr) put(task.gini, s.squares * inverse * inverse);
      }
    }
    std::uint32_t special = L::bits(L::unordered(s.weighted));
    if constexpr (input != Input::logits) {
      special |= L::bits((b.max == L::fill(infinity)) | (b.max == L::fill(0.0F)));
    }
    special &= (1U << n) - 1U;
    std::size_t unanswered = 0;
    for (; special != 0; special &= special - 1) {
      unanswered +=
          static_cast<std::size_t>(score_special(task, static_cast<std::size_t>(row + __builtin_ctz(special))));
    }
    return unanswered;
  }

  // ----- choice

  template <Input input, unsigned wants>
  static std::size_t run_as(const Task& task) noexcept {
    const std::size_t unanswered =
        task.classes <= narrow_classes ? run_narrow<input, wants>(task) : run_wide<input, wants>(task);
    if (task.stream) L::fence();
    return unanswered;
  }

  /// The kernel that computes what is wanted and little else. Where speed is no aim, fewer of them keep the build
  /// short.
  static std::size_t run(const Task& task) noexcept {
    const bool gini = task.gini != nullptr || !L::fast, entropy = task.entropy != nullptr || !L::fast;
    const bool probabilities = gini || entropy || task.max_prob != nullptr || task.margin != nullptr;
    if (task.input == Input::logits) {
      if (gini) return run_as<Input::logits, mass | squares>(task);
      if constexpr (L::fast) {
        if (probabilities || task.energy != nullptr) return run_as<Input::logits, mass>(task);
        return run_as<Input::logits, 0>(task);
      }
    }
    if (task.input == Input::tempered && probabilities) return run_as<Input::tempered, mass | squares>(task);
    if constexpr (L::fast) {
      if (!gini && !entropy) return run_as<Input::probs, 0>(task);
    }
    return run_as<Input::probs, mass | squares>(task);
  }
};

}  // namespace
}  // namespace coinfer::scoring
