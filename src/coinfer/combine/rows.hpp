// The combining kernels, written once over sixteen virtual lanes `L` (simd/wide_baseline.hpp) and compiled once per
// instruction set.
//
// A mean is a sum of w p over members and a pool of logarithms a sum of w log2 p: both are sums in double, member after
// member, which Add does one member at a time and Joint all at once with the same operations in the same order. Members
// of equal weight share a logarithm, which is most of what a pool costs: their probabilities are multiplied first, as
// mantissas and exponents, so that no product is too small. What follows is done in float32 on sixteen rows at a time:
// the sums are divided by the weight that was present and rounded; then the largest and second-largest entry are found
// (and, of logarithms, the mass S of 2^(x - max)).
//
// Up to 128 classes the sixteen rows are transposed: lane = row, and S runs over the classes in order, sixteen to a
// partial sum. Beyond, lane = class mod 16: S is summed down the lanes, then over the lanes in order. The order depends
// on the number of classes alone, so a row alone and a row in bulk have equal bits.
//
// Rounding to float32 may make neighbours equal; where the largest two are closer than that could explain, the label is
// looked up in the sums themselves, so that equal sums alone are a tie.
#pragma once

#include <cstddef>
#include <cstdint>

#include "coinfer/combine/task.hpp"

namespace coinfer::pooling {
namespace {

constexpr float infinity = __builtin_inff();
constexpr float biggest = 3.40282347e+38F;
constexpr float smallest = 1.17549435e-38F;  // 2^-126, the least normal float32
constexpr float lowest_exponent = -126.0F;
constexpr float most_probable = 1.25F;   // of factors, for products of three in (2^-126, 2^127) to stay there
constexpr float close_share = 0x1p-16F;  // of the largest probability
constexpr float close_bits = 0x1p-16F;   // between logarithms to base 2
constexpr std::ptrdiff_t lanes = 16;
constexpr std::ptrdiff_t narrow_classes = 128;  // at most, for sixteen rows to be transposed
constexpr std::ptrdiff_t ahead = 512;           // floats to prefetch ahead

template <class L>
struct Rows {
  using Float = typename L::Float;
  using Int = typename L::Int;
  using Mask = typename L::Mask;
  using Double = typename L::Double;

  /// 2^t for t in [-126, 1]: relative error 1.5e-7, exactly 1 at 0.
  static COINFER_INLINE Float exp2(Float t) {
    const Float magic = L::fill(12582912.0F);  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    const Float shifted = t + magic;
    const Float f = t - (shifted - magic);
    Float p = L::fma(f, L::fill(0x1.5bba14p-10F), L::fill(0x1.3cea88p-7F));
    p = L::fma(f, p, L::fill(0x1.c6b752p-5F));
    p = L::fma(f, p, L::fill(0x1.ebf9bcp-3F));
    p = L::fma(f, p, L::fill(0x1.62e42ap-1F));
    p = L::fma(f, p, L::fill(1.0F));
    return L::as_float(L::as_int(p) + L::template shift_left<23>(L::as_int(shifted)));
  }

  /// log2(2^exponent x) of normal x > 0: exact at powers of two, else within 2^-23 of its size plus 1.2e-7. No
  /// division. The polynomial is summed in pairs, so that few operations wait for one another.
  static COINFER_INLINE Float log2(Float x, Int exponent) {
    constexpr std::int32_t sqrt_half = 0x3F3504F3;
    const Int n = L::template shift_right<23>(L::as_int(x) - L::fill(sqrt_half));
    const Float f = L::as_float(L::as_int(x) - L::template shift_left<23>(n)) - L::fill(1.0F);
    const Float a = L::fma(f, L::fill(-0x1.7155bap-1F), L::fill(0x1.715472p+0F));
    const Float b = L::fma(f, L::fill(-0x1.70bab4p-2F), L::fill(0x1.ec7b64p-2F));
    const Float c = L::fma(f, L::fill(-0x1.00121ap-2F), L::fill(0x1.2596a4p-2F));
    const Float d = L::fma(f, L::fill(-0x1.2a7c10p-3F), L::fill(0x1.e526c6p-3F));
    const Float f2 = f * f;
    const Float p = L::fma(f2 * f2, L::fma(f2, d, c), L::fma(f2, b, a));
    return L::fma(f, p, L::to_float(n + exponent));
  }

  /// The logarithm of a probability; zero and denormals count as 2^-126.
  static COINFER_INLINE Float log_of(Float p) { return log2(L::max(p, L::fill(smallest)), L::fill(0)); }

  /// A product of probabilities: the mantissas, each in [1, 2), multiplied, and the exponents, each 127 too large,
  /// added.
  struct Product {
    Float mantissa;
    Int exponent;

    explicit COINFER_INLINE Product(Float p) {
      const Int bits = L::as_int(L::max(p, L::fill(smallest)));
      mantissa = L::as_float((bits & L::fill(0x007FFFFF)) | L::fill(0x3F800000));
      exponent = L::template shift_right<23>(bits);
    }
    COINFER_INLINE Product(const float* m, const std::int32_t* e) : mantissa(L::load(m)), exponent(L::load(e)) {}
    COINFER_INLINE void times(const Product& more) {
      mantissa = mantissa * more.mantissa;
      exponent = exponent + more.exponent;
    }
    COINFER_INLINE Float log(std::int32_t count) const { return log2(mantissa, exponent - L::fill(127 * count)); }
  };

  /// The same product of factors up to `most_probable`, of which two fit a float32 if one of them is scaled: rounding
  /// does not see a power of two. So every other factor is taken apart only.
  struct Pairs {
    Float product;
    Int exponent;

    COINFER_INLINE Pairs() : product(L::fill(1.0F)), exponent(L::fill(0)) {}
    COINFER_INLINE void times(Float p, std::int32_t index) {
      const Float x = L::max(p, L::fill(smallest));
      if (index == 0) {
        product = x * L::fill(0x1p126F);
      } else if (index % 2 != 0) {
        product = product * x;
      } else {
        const Int bits = L::as_int(product);
        exponent = exponent + L::template shift_right<23>(bits);
        product = L::as_float((bits & L::fill(0x007FFFFF)) | L::fill(0x3F800000)) * (x * L::fill(0x1p126F));
      }
    }
    COINFER_INLINE Float log(std::int32_t count) const {
      const std::int32_t scaled = (count + 1) / 2, apart = (count - 1) / 2;
      return log2(product, exponent - L::fill(126 * scaled + 127 * apart));
    }
  };

  static COINFER_INLINE Float exponent(Float z, Float max, Float scale) {
    return L::max(L::fill(lowest_exponent), (z - max) * scale);
  }

  /// What no probability is: negative, infinite, NaN.
  static COINFER_INLINE Mask invalid(Float p) { return L::not_at_least(p, L::fill(0.0F)) | (p > L::fill(biggest)); }

  static COINFER_INLINE unsigned left(std::ptrdiff_t classes, std::ptrdiff_t j) {
    return static_cast<unsigned>(classes - j < lanes ? classes - j : lanes);
  }

  // ------------------------------------------------------------------------------- sixteen rows: maximum, label, mass

  struct Block {
    Float max, second, mass;
  };

  /// Columns of sixteen rows, for few classes: entry j of every row at 16 j. Rows behind the n-th are zeros.
  static COINFER_INLINE void transpose(const float* rows, std::ptrdiff_t stride, std::ptrdiff_t n,
                                       std::ptrdiff_t classes, float* columns) {
    Float out[4];
    if (n == lanes && classes >= 4) {
      for (std::ptrdiff_t j = 0; j < classes; j += 4) {
        const std::ptrdiff_t from = j + 4 <= classes ? j : classes - 4;  // overlap rather than reach out
        L::columns4(rows + from, stride, out);
        for (std::ptrdiff_t k = 0; k < 4; ++k) L::store(columns + lanes * (from + k), out[k]);
      }
      return;
    }
    if (n == lanes && classes == 2 && stride == 2) {
      L::pairs(rows, out);
      L::store(columns, out[0]);
      L::store(columns + lanes, out[1]);
      return;
    }
    alignas(64) float padded[lanes * narrow_classes];
    for (std::ptrdiff_t i = 0; i < lanes; ++i) {
      for (std::ptrdiff_t j = 0; j < classes; j += lanes) {
        L::store(padded + narrow_classes * i + j,
                 i < n ? L::load_first(rows + i * stride + j, left(classes, j), 0.0F) : L::fill(0.0F));
      }
    }
    for (std::ptrdiff_t j = 0; j < classes; j += 4) {
      L::columns4(padded + j, narrow_classes, out);
      for (std::ptrdiff_t k = 0; k < 4; ++k) L::store(columns + lanes * (j + k), out[k]);
    }
  }

  template <bool mass>
  static constexpr float padding = mass ? -infinity : 0.0F;

  template <bool mass>
  static COINFER_INLINE Block narrow(const float* rows, std::ptrdiff_t stride, std::ptrdiff_t n, std::ptrdiff_t classes,
                                     float scale, std::int32_t* label) {
    alignas(64) float columns[lanes * narrow_classes];
    L::store(columns, L::fill(0.0F));  // there is a class: compilers do not know
    transpose(rows, stride, n, classes, columns);
    Block b;
    b.max = L::load(columns);
    b.second = L::fill(padding<mass>);
    Int best = L::fill(0);
    for (std::ptrdiff_t j = 1; j < classes; ++j) {
      const Float x = L::load(columns + lanes * j);
      best = L::select(x > b.max, L::fill(static_cast<std::int32_t>(j)), best);
      b.second = L::max(b.second, L::min(b.max, x));
      b.max = L::max(b.max, x);
    }
    L::store(label, best);
    b.mass = L::fill(0.0F);
    if constexpr (mass) {
      for (std::ptrdiff_t first = 0; first < classes; first += lanes) {  // sums of sums round less
        Float part = L::fill(0.0F);
        for (std::ptrdiff_t j = first; j < classes && j < first + lanes; ++j) {
          part = part + exp2(exponent(L::load(columns + lanes * j), b.max, L::fill(scale)));
        }
        b.mass = b.mass + part;
      }
    }
    return b;
  }

  /// The lanes of sixteen rows, 16 floats each, summed in order.
  static COINFER_INLINE Float sum_lanes(const float* partial) {
    Float sum = L::fill(0.0F), column[4];
    for (std::ptrdiff_t j = 0; j < lanes; j += 4) {
      L::columns4(partial + j, lanes, column);
      for (int k = 0; k < 4; ++k) sum = sum + column[k];
    }
    return sum;
  }

  template <bool mass>
  static COINFER_INLINE Block wide(const float* rows, std::ptrdiff_t stride, std::ptrdiff_t n, std::ptrdiff_t classes,
                                   float scale, std::int32_t* label) {
    alignas(64) float first[lanes * lanes], next[lanes * lanes], of_row[lanes];
    for (std::ptrdiff_t i = 0; i < lanes; ++i) {
      Float max = L::fill(padding<mass>), second = max;
      if (i < n) {
        const float* row = rows + i * stride;
        std::ptrdiff_t j = 0;
        for (; j + lanes <= classes; j += lanes) {
          const Float x = L::load(row + j);
          second = L::max(second, L::min(max, x));
          max = L::max(max, x);
        }
        if (j < classes) {
          const Float x = L::load_first(row + j, left(classes, j), padding<mass>);
          second = L::max(second, L::min(max, x));
          max = L::max(max, x);
        }
      }
      L::store(first + lanes * i, max);
      L::store(next + lanes * i, second);
    }
    Block b;
    b.max = L::fill(padding<mass>);
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
    L::store(of_row, b.max);
    for (std::ptrdiff_t i = 0; i < lanes; ++i) {
      Float sum = L::fill(0.0F);
      if (i < n) {
        const float* row = rows + i * stride;
        const Float max = L::fill(of_row[i]);
        std::ptrdiff_t found = -1, j = 0;
        const auto step = [&](Float x) __attribute__((always_inline)) {  // no branch: where the label is, is random
          if constexpr (mass) sum = sum + exp2(exponent(x, max, L::fill(scale)));
          const std::uint32_t hits = L::bits(x == max);
          const std::ptrdiff_t here = j + __builtin_ctz(hits | 0x10000U);
          found = ((hits != 0) & (found < 0)) ? here : found;
        };
        for (; j + lanes <= classes; j += lanes) {
          step(L::load(row + j));
          if (!mass && (j & (8 * lanes - 1)) == 7 * lanes && found >= 0) break;
        }
        if (j + lanes > classes && j < classes) step(L::load_first(row + j, left(classes, j), padding<mass>));
        label[i] = static_cast<std::int32_t>(found < 0 ? 0 : found);
      }
      if constexpr (mass) L::store(first + lanes * i, sum);
    }
    b.mass = L::fill(0.0F);
    if constexpr (mass) b.mass = sum_lanes(first);
    return b;
  }

  template <bool mass>
  static COINFER_INLINE Block look(const float* rows, std::ptrdiff_t stride, std::ptrdiff_t n, std::ptrdiff_t classes,
                                   float scale, std::int32_t* label) {
    return classes <= narrow_classes ? narrow<mass>(rows, stride, n, classes, scale, label)
                                     : wide<mass>(rows, stride, n, classes, scale, label);
  }

  // --------------------------------------------------------------------------------------------------- one more member

  static COINFER_INLINE bool valid(const float* row, std::ptrdiff_t classes) {
    Mask bad = L::none();
    for (std::ptrdiff_t j = 0; j < classes; j += lanes) {
      bad = bad | invalid(L::load_first(row + j, left(classes, j), 0.0F));
    }
    return L::bits(bad) == 0;
  }

  /// A row of logits whose largest is infinite: the largest share the mass. False if it holds a NaN.
  static bool share(const float* row, std::ptrdiff_t classes, float* out) {
    float max = -infinity;
    for (std::ptrdiff_t j = 0; j < classes; ++j) {
      if (row[j] != row[j]) return false;
      max = row[j] > max ? row[j] : max;
    }
    float ties = 0.0F;
    for (std::ptrdiff_t j = 0; j < classes; ++j) ties += row[j] == max ? 1.0F : 0.0F;
    for (std::ptrdiff_t j = 0; j < classes; ++j) out[j] = row[j] == max ? 1.0F / ties : 0.0F;
    return true;
  }

  /// Softmax of n rows into `out` (pitch floats per row), as probabilities or their logarithms. Bit i of the result is
  /// set where row i is no answer.
  template <bool logs>
  static COINFER_INLINE std::uint32_t soften(const float* rows, std::ptrdiff_t stride, std::ptrdiff_t n,
                                             const Add& task, float* out) {
    const auto classes = static_cast<std::ptrdiff_t>(task.classes), pitch = static_cast<std::ptrdiff_t>(task.pitch);
    alignas(64) std::int32_t label[lanes];
    alignas(64) float max[lanes], mass[lanes], factor[lanes];
    const Block b = look<true>(rows, stride, n, classes, task.scale, label);
    L::store(max, b.max);
    L::store(mass, b.mass);
    L::store(factor, logs ? log_of(b.mass) : L::fill(1.0F) / b.mass);
    std::uint32_t silent = 0;
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      const float* row = rows + i * stride;
      float* to = out + i * pitch;
      if (mass[i] != mass[i]) {
        if (!share(row, classes, to)) {
          silent |= 1U << i;
        } else if constexpr (logs) {
          for (std::ptrdiff_t j = 0; j < classes; j += lanes) {
            const unsigned count = left(classes, j);
            L::store_first(to + j, log_of(L::load_first(to + j, count, 0.0F)), count);
          }
        }
        continue;
      }
      for (std::ptrdiff_t j = 0; j < classes; j += lanes) {
        const unsigned count = left(classes, j);
        const Float t = exponent(L::load_first(row + j, count, -infinity), L::fill(max[i]), L::fill(task.scale));
        const Float value =
            logs ? L::max(L::fill(lowest_exponent), t - L::fill(factor[i])) : exp2(t) * L::fill(factor[i]);
        L::store_first(to + j, value, count);
      }
    }
    return silent;
  }

  /// sums + weight x logarithm of the row's product, sixteen classes from j on.
  static COINFER_INLINE Double with_product(const double* sums, const Products& products, std::ptrdiff_t pitch,
                                            std::ptrdiff_t row, std::ptrdiff_t j) {
    const std::ptrdiff_t at = row * pitch + j;
    const Product product(products.mantissa + at, products.exponent + at);
    return L::multiply_add(L::fill_double(products.weight[row]), L::widen(product.log(products.count[row])),
                           L::load_double(sums + at));
  }

  /// One more factor to a row's product; what cannot join it ends it.
  static COINFER_INLINE void multiply(const Add& task, std::ptrdiff_t row, const float* said) {
    const auto pitch = static_cast<std::ptrdiff_t>(task.pitch), shared = static_cast<std::ptrdiff_t>(task.shared);
    const Products& products = task.products;
    std::int32_t& count = products.count[row];
    if (count == most_factors || (count > 0 && products.weight[row] != task.weight)) {
      for (std::ptrdiff_t j = 0; j < pitch; j += lanes) {
        L::store_double(task.sums + row * pitch + j, with_product(task.sums, products, pitch, row, j));
      }
      count = 0;
    }
    for (std::ptrdiff_t j = 0; j < pitch; j += lanes) {
      float* mantissa = products.mantissa + row * pitch + j;
      std::int32_t* exponent = products.exponent + row * pitch + j;
      Product product(L::load_first(said + j, left(shared, j), 0.0F));
      if (count > 0) product.times(Product(mantissa, exponent));
      L::store(mantissa, product.mantissa);
      L::store(exponent, product.exponent);
    }
    products.weight[row] = task.weight;
    ++count;
  }

  template <bool logs>
  static COINFER_INLINE void add_rows(const Add& task) {
    const auto rows = static_cast<std::ptrdiff_t>(task.rows), classes = static_cast<std::ptrdiff_t>(task.classes);
    const auto pitch = static_cast<std::ptrdiff_t>(task.pitch), shared = static_cast<std::ptrdiff_t>(task.shared);
    const Double weight = L::fill_double(task.weight);
    float* const soft = task.scratch;
    float* const spread = task.scratch + lanes * pitch;
    const bool direct = task.source == Source::probs;
    for (std::ptrdiff_t first = 0; first < rows; first += lanes) {
      const std::ptrdiff_t n = rows - first < lanes ? rows - first : lanes;
      const float* data = task.data + first * task.stride;
      std::uint32_t silent = 0;
      if (task.source == Source::logits) {
        silent = soften<logs>(data, task.stride, n, task, soft);
      } else if (task.source == Source::tempered) {
        for (std::ptrdiff_t i = 0; i < n; ++i) {
          const float* row = data + i * task.stride;
          silent |= static_cast<std::uint32_t>(!valid(row, classes)) << i;
          for (std::ptrdiff_t j = 0; j < classes; j += lanes) {
            const unsigned count = left(classes, j);
            const Float p = L::load_first(row + j, count, 0.0F);
            const Float log = L::select(p > L::fill(0.0F), log_of(p), L::fill(-infinity));
            L::store_first(spread + i * pitch + j, log, count);
          }
        }
        silent |= soften<logs>(spread, pitch, n, task, soft);
      }
      for (std::ptrdiff_t i = 0; i < n; ++i) {
        const float* row = direct ? data + i * task.stride : soft + i * pitch;
        if (direct && !valid(row, classes)) silent |= 1U << i;
        if (task.skip != nullptr && task.skip[first + i] != 0) continue;
        if ((silent >> i & 1U) != 0) continue;
        task.answered[first + i] = static_cast<std::uint8_t>(task.answered[first + i] + 1);
        task.total[first + i] += task.weight;
        if (task.relabel != nullptr) {
          // Classes that the member does not know have probability zero.
          for (std::ptrdiff_t j = 0; j < pitch; j += lanes) {
            L::store(spread + j, L::fill(logs && !direct ? lowest_exponent : 0.0F));
          }
          for (std::ptrdiff_t j = 0; j < classes; ++j) spread[task.relabel[j]] = row[j];
          row = spread;
        }
        double* sums = task.sums + (first + i) * pitch;
        if (logs && direct) {
          multiply(task, first + i, row);
          continue;
        }
        for (std::ptrdiff_t j = 0; j < shared; j += lanes) {
          const Float x = L::load_first(row + j, left(shared, j), 0.0F);
          L::store_double(sums + j, L::multiply_add(weight, L::widen(x), L::load_double(sums + j)));
        }
      }
    }
  }

  static void add(const Add& task) noexcept {
    if (task.logs) {
      add_rows<true>(task);
    } else {
      add_rows<false>(task);
    }
  }

  // ------------------------------------------------------------------------------------------------------- the answer

  template <class Lane, class Value>
  static COINFER_INLINE void write(Lane* out, Value value, std::ptrdiff_t row, std::ptrdiff_t n) {
    if (out == nullptr) return;
    if (n == lanes) {
      L::store(out + row, value);
    } else {
      L::store_first(out + row, value, static_cast<unsigned>(n));
    }
  }

  /// Answer sixteen rows of combined probabilities, or of combined logarithms. The result marks rows whose label is
  /// open (the largest two are close) and rows without any mass.
  template <bool logs>
  static COINFER_INLINE std::uint32_t answer(const float* x, std::ptrdiff_t stride, std::ptrdiff_t row,
                                             std::ptrdiff_t n, std::ptrdiff_t classes, const Results& out) {
    alignas(64) std::int32_t label[lanes];
    const Block b = look<logs>(x, stride, n, classes, 1.0F, label);
    const Float gap = b.max - b.second;
    Mask open;
    if constexpr (logs) {
      const Float inverse = L::fill(1.0F) / b.mass;
      write(out.max_prob, inverse, row, n);
      if (out.margin != nullptr) {
        const Float rest = L::fill(1.0F) - exp2(exponent(b.second, b.max, L::fill(1.0F)));
        write(out.margin, rest * inverse, row, n);
      }
      open = L::not_at_least(gap, L::fill(close_bits));
      if (out.probs != nullptr) {
        alignas(64) float max[lanes], factor[lanes];
        L::store(max, b.max);
        L::store(factor, inverse);
        for (std::ptrdiff_t i = 0; i < n; ++i) {
          float* to = out.probs + (row + i) * classes;
          for (std::ptrdiff_t j = 0; j < classes; j += lanes) {
            const unsigned count = left(classes, j);
            const Float t =
                exponent(L::load_first(x + i * stride + j, count, -infinity), L::fill(max[i]), L::fill(1.0F));
            L::store_first(to + j, exp2(t) * L::fill(factor[i]), count);
          }
        }
      }
    } else {
      write(out.max_prob, b.max, row, n);
      write(out.margin, gap, row, n);
      open = L::not_at_least(gap, b.max * L::fill(close_share)) | L::not_at_least(b.max, L::fill(smallest)) |
             (b.max > L::fill(biggest));
      if (out.probs != nullptr) {
        for (std::ptrdiff_t i = 0; i < n; ++i) {
          float* to = out.probs + (row + i) * classes;
          for (std::ptrdiff_t j = 0; j < classes; j += lanes) {
            const unsigned count = left(classes, j);
            L::store_first(to + j, L::load_first(x + i * stride + j, count, 0.0F), count);
          }
        }
      }
    }
    if (out.label != nullptr) {
      for (std::ptrdiff_t i = 0; i < n; ++i) out.label[row + i] = label[i];
    }
    return L::bits(open) & ((1U << n) - 1U);
  }

  static void settle(const Settle& task) noexcept {
    const auto rows = static_cast<std::ptrdiff_t>(task.rows), pitch = static_cast<std::ptrdiff_t>(task.pitch);
    for (std::ptrdiff_t row = 0; row < rows; ++row) {
      const bool pending = task.products.count[row] > 0;
      for (std::ptrdiff_t j = 0; j < pitch; j += lanes) {
        L::store_double(task.out + row * pitch + j, pending ? with_product(task.sums, task.products, pitch, row, j)
                                                            : L::load_double(task.sums + row * pitch + j));
      }
    }
  }

  template <bool logs>
  static COINFER_INLINE void finish_rows(const Finish& task) {
    const auto rows = static_cast<std::ptrdiff_t>(task.rows), classes = static_cast<std::ptrdiff_t>(task.classes);
    const auto pitch = static_cast<std::ptrdiff_t>(task.pitch);
    for (std::ptrdiff_t first = 0; first < rows; first += lanes) {
      const std::ptrdiff_t n = rows - first < lanes ? rows - first : lanes;
      std::uint32_t nobody = 0;
      for (std::ptrdiff_t i = 0; i < n; ++i) {
        const double total = task.total[first + i];
        const Double inverse = L::fill_double(total > 0.0 ? 1.0 / total : 0.0);
        if (!(total > 0.0)) nobody |= 1U << i;
        const double* sums = task.sums + (first + i) * pitch;
        for (std::ptrdiff_t j = 0; j < pitch; j += lanes) {
          L::store(task.scratch + i * pitch + j, L::narrow(L::multiply(L::load_double(sums + j), inverse)));
        }
      }
      std::uint32_t open = answer<logs>(task.scratch, pitch, first, n, classes, task.out) | nobody;
      for (; open != 0; open &= open - 1) {
        const std::ptrdiff_t i = __builtin_ctz(open), row = first + i;
        const double* sums = task.sums + row * pitch;
        std::ptrdiff_t best = 0;
        for (std::ptrdiff_t j = 1; j < classes; ++j) best = sums[j] > sums[best] ? j : best;
        if ((nobody >> i & 1U) != 0 || (!logs && !(sums[best] > 0.0))) {
          silence(task, row, classes);
        } else if (task.out.label != nullptr) {
          task.out.label[row] = static_cast<std::int32_t>(best);
        }
      }
    }
  }

  static void silence(const Finish& task, std::ptrdiff_t row, std::ptrdiff_t classes) {
    constexpr float nan = __builtin_nanf("");
    if (task.out.label != nullptr) task.out.label[row] = task.otherwise[row];
    if (task.out.max_prob != nullptr) task.out.max_prob[row] = nan;
    if (task.out.margin != nullptr) task.out.margin[row] = nan;
    if (task.out.probs != nullptr) {
      for (std::ptrdiff_t j = 0; j < classes; ++j) task.out.probs[row * classes + j] = nan;
    }
  }

  static void finish(const Finish& task) noexcept {
    if (task.logs) {
      finish_rows<true>(task);
    } else {
      finish_rows<false>(task);
    }
  }

  // ---------------------------------------------------------------------------------------------- all members at once

  /// Where each member stands in its table, and, of logarithms, how many factors the product has that starts with it.
  /// For four members, the common case, all of this stays in registers.
  template <int fixed>
  struct Readers {
    const float* at[fixed > 0 ? fixed : most_members];
    double weight[fixed > 0 ? fixed : most_members];
    std::int32_t factors[fixed > 0 ? 1 : most_members];
  };

  template <bool logs, int fixed, bool whole>
  static COINFER_INLINE Float pooled(const Readers<fixed>& from, std::ptrdiff_t members, std::ptrdiff_t at,
                                     unsigned count, double inverse, Int& seen) {
    Double sum = L::fill_double(0.0);
    const std::ptrdiff_t all = fixed > 0 ? fixed : members;
    const auto next = [&](std::ptrdiff_t m) __attribute__((always_inline)) {
      const float* p = from.at[m] + at;
      if constexpr (whole) __builtin_prefetch(p + ahead);
      const Float x = whole ? L::load(p) : L::load_first(p, count, 0.0F);
      seen = L::max_unsigned(seen, L::as_int(x));
      return x;
    };
    if constexpr (!logs) {
      for (std::ptrdiff_t m = 0; m < all; ++m) {
        sum = L::multiply_add(L::fill_double(from.weight[m] * 0x1p896), L::widen_scaled(next(m)), sum);
      }
      return L::narrow_scaled(L::multiply(sum, L::fill_double(inverse)));
    } else if constexpr (fixed > 0) {
      Pairs pairs;
      for (std::int32_t m = 0; m < fixed; ++m) pairs.times(next(m), m);
      return pairs.log(fixed) * L::fill(static_cast<float>(from.weight[0] * inverse));
    } else {
      for (std::ptrdiff_t m = 0; m < all;) {
        const double weight = from.weight[m];
        const std::int32_t factors = from.factors[m];
        Pairs pairs;
        for (std::int32_t i = 0; i < factors; ++i) pairs.times(next(m++), i);
        sum = L::multiply_add(L::fill_double(weight), L::widen(pairs.log(factors)), sum);
      }
      return L::narrow(L::multiply(sum, L::fill_double(inverse)));
    }
  }

  /// `count` floats of every member, combined. True if one of them is no probability.
  template <bool logs, int fixed>
  static COINFER_INLINE bool pool_run(const Readers<fixed>& from, std::ptrdiff_t members, std::ptrdiff_t count,
                                      double inverse, float* __restrict out) {
    Int seen = L::fill(0);  // the largest bits of all: probabilities are those below infinity's
    std::ptrdiff_t at = 0;
    for (; at + lanes <= count; at += lanes) {
      L::store(out + at, pooled<logs, fixed, true>(from, members, at, 0, inverse, seen));
    }
    if (at < count) {
      L::store(out + at, pooled<logs, fixed, false>(from, members, at, left(count, at), inverse, seen));
    }
    return unusual<logs>(seen);
  }

  /// From the largest bits of all: whether some are no probability (-0 among them), or no factor.
  template <bool logs>
  static COINFER_INLINE bool unusual(Int seen) {
    const Float sign = L::to_float(L::template shift_right<23>(seen));
    return L::bits(L::not_at_least(sign, L::fill(0.0F)) |
                   L::not_at_least(L::fill(logs ? most_probable : biggest), L::as_float(seen))) != 0;
  }
  template <bool logs>
  static COINFER_INLINE bool unusual(const float* row, std::ptrdiff_t classes) {
    Int seen = L::fill(0);
    for (std::ptrdiff_t j = 0; j < classes; j += lanes) {
      seen = L::max_unsigned(seen, L::as_int(L::load_first(row + j, left(classes, j), 0.0F)));
    }
    return unusual<logs>(seen);
  }

  template <bool logs, int fixed>
  static COINFER_INLINE void join(const Joint& task) {
    const auto rows = static_cast<std::ptrdiff_t>(task.rows), classes = static_cast<std::ptrdiff_t>(task.classes);
    const auto members = static_cast<std::ptrdiff_t>(task.members);
    double total = 0.0;
    bool flat = true;  // rows without gaps are one long run
    Readers<fixed> from;
    for (std::ptrdiff_t m = 0; m < (fixed > 0 ? fixed : members); ++m) {
      total += task.weight[m];
      flat = flat && task.stride[m] == classes;
      from.weight[m] = task.weight[m];
    }
    if constexpr (logs && fixed == 0) {
      for (std::ptrdiff_t first = 0, m = 0; m < members; ++m) {
        if (m - first == most_factors || task.weight[m] != task.weight[first]) first = m;
        from.factors[first] = static_cast<std::int32_t>(m + 1 - first);
      }
    }
    const double inverse = 1.0 / total;
    const std::ptrdiff_t pitch = flat ? classes : (classes + lanes - 1) / lanes * lanes;
    const auto stand_at = [&](std::ptrdiff_t row) __attribute__((always_inline)) {
      for (std::ptrdiff_t m = 0; m < (fixed > 0 ? fixed : members); ++m) {
        from.at[m] = task.data[m] + row * task.stride[m];
      }
    };
    for (std::ptrdiff_t first = 0; first < rows; first += lanes) {
      const std::ptrdiff_t n = rows - first < lanes ? rows - first : lanes;
      std::uint32_t marked = 0;
      if (flat) {
        stand_at(first);
        if (pool_run<logs, fixed>(from, members, n * classes, inverse, task.scratch)) {
          for (std::ptrdiff_t i = 0; i < n; ++i) {
            for (std::ptrdiff_t m = 0; m < (fixed > 0 ? fixed : members); ++m) {
              marked |= static_cast<std::uint32_t>(unusual<logs>(from.at[m] + i * classes, classes)) << i;
            }
          }
        }
      } else {
        for (std::ptrdiff_t i = 0; i < n; ++i) {
          stand_at(first + i);
          const bool bad = pool_run<logs, fixed>(from, members, classes, inverse, task.scratch + i * pitch);
          marked |= static_cast<std::uint32_t>(bad) << i;
        }
      }
      marked |= answer<logs>(task.scratch, pitch, first, n, classes, task.out);
      task.rare[first / lanes] = static_cast<std::uint16_t>(marked & ((1U << n) - 1U));
    }
  }

  static void joint(const Joint& task) noexcept {
    if (task.logs) {
      // Four equal weights that are a power of two: dividing by their sum is exact in float32 too.
      std::uint64_t bits;
      __builtin_memcpy(&bits, task.weight, sizeof bits);
      bool simple = task.members == 4 && bits << 12 == 0;
      for (std::size_t m = 1; m < task.members; ++m) simple = simple && task.weight[m] == task.weight[0];
      simple ? join<true, 4>(task) : join<true, 0>(task);
    } else {
      task.members == 4 ? join<false, 4>(task) : join<false, 0>(task);
    }
  }
};

}  // namespace
}  // namespace coinfer::pooling
