// Sixteen virtual lanes, here on plain C++ for any CPU.
//
// Kernels are written once against this small set of operations and compiled once per instruction set, with `Baseline`,
// `Avx2` or `Avx512` as a template argument. All three mean the same to the last bit: every operation rounds once,
// fused multiply-add is written out, and max and min treat NaN and signed zeros as x86 does (the second argument wins).
//
// Everything lives in an unnamed namespace, is always inlined and uses no std template: a symbol that the linker could
// share between files compiled for different instruction sets would run wide instructions on a CPU that lacks them.
#pragma once

#include <cstddef>
#include <cstdint>

#define COINFER_INLINE inline

namespace coinfer {
namespace {

struct Baseline {
  /// The lanes that one register holds, as a smaller set of the same operations.
  using Register = Baseline;
  static constexpr int width = 16;
  static constexpr bool fast = false;  // here to be correct: kernels may trade its speed for a shorter build
  /// How many chains of dependent operations a kernel should interleave to keep the CPU busy without running out of
  /// registers.
  static constexpr int chains = 1;

  struct Mask {
    std::uint32_t k;
    friend COINFER_INLINE Mask operator|(Mask a, Mask b) { return {a.k | b.k}; }
    template <class Lane>
    static COINFER_INLINE Mask each(Lane lane) {
      std::uint32_t k = 0;
      for (int i = 0; i < 16; ++i) k |= static_cast<std::uint32_t>(lane(i)) << i;
      return {k};
    }
  };

  struct Int {
    std::int32_t v[16];
    friend COINFER_INLINE Int operator+(const Int& a, const Int& b) {
      return each([&](int i) { return wrap(bits_of(a.v[i]) + bits_of(b.v[i])); });
    }
    friend COINFER_INLINE Int operator-(const Int& a, const Int& b) {
      return each([&](int i) { return wrap(bits_of(a.v[i]) - bits_of(b.v[i])); });
    }
    friend COINFER_INLINE Int operator|(const Int& a, const Int& b) {
      return each([&](int i) { return a.v[i] | b.v[i]; });
    }
    friend COINFER_INLINE Int operator&(const Int& a, const Int& b) {
      return each([&](int i) { return a.v[i] & b.v[i]; });
    }
    template <class Lane>
    static COINFER_INLINE Int each(Lane lane) {
      Int r;
      for (int i = 0; i < 16; ++i) r.v[i] = lane(i);
      return r;
    }
    static COINFER_INLINE std::uint32_t bits_of(std::int32_t x) { return static_cast<std::uint32_t>(x); }
    static COINFER_INLINE std::int32_t wrap(std::uint32_t x) { return static_cast<std::int32_t>(x); }
  };

  struct Float {
    float v[16];
    friend COINFER_INLINE Float operator+(const Float& a, const Float& b) {
      return each([&](int i) { return a.v[i] + b.v[i]; });
    }
    friend COINFER_INLINE Float operator-(const Float& a, const Float& b) {
      return each([&](int i) { return a.v[i] - b.v[i]; });
    }
    friend COINFER_INLINE Float operator*(const Float& a, const Float& b) {
      return each([&](int i) { return a.v[i] * b.v[i]; });
    }
    friend COINFER_INLINE Float operator/(const Float& a, const Float& b) {
      return each([&](int i) { return a.v[i] / b.v[i]; });
    }
    friend COINFER_INLINE Mask operator>(const Float& a, const Float& b) {
      return Mask::each([&](int i) { return a.v[i] > b.v[i]; });
    }
    friend COINFER_INLINE Mask operator==(const Float& a, const Float& b) {
      return Mask::each([&](int i) { return a.v[i] == b.v[i]; });
    }
    template <class Lane>
    static COINFER_INLINE Float each(Lane lane) {
      Float r;
      for (int i = 0; i < 16; ++i) r.v[i] = lane(i);
      return r;
    }
  };

  static COINFER_INLINE Float fill(float x) {
    return Float::each([&](int) { return x; });
  }
  static COINFER_INLINE Int fill(std::int32_t x) {
    return Int::each([&](int) { return x; });
  }
  static COINFER_INLINE Float load(const float* p) {
    return Float::each([&](int i) { return p[i]; });
  }
  static COINFER_INLINE Int load(const std::int32_t* p) {
    return Int::each([&](int i) { return p[i]; });
  }
  /// The first n lanes from memory, nothing behind them is touched; the other lanes hold `rest`.
  static COINFER_INLINE Float load_first(const float* p, unsigned n, float rest) {
    return Float::each([&](int i) { return i < static_cast<int>(n) ? p[i] : rest; });
  }
  static COINFER_INLINE void store(float* p, const Float& a) { store_first(p, a, 16); }
  static COINFER_INLINE void store(std::int32_t* p, const Int& a) { store_first(p, a, 16); }
  static COINFER_INLINE void store_first(float* p, const Float& a, unsigned n) {
    for (unsigned i = 0; i < n; ++i) p[i] = a.v[i];
  }
  static COINFER_INLINE void store_first(std::int32_t* p, const Int& a, unsigned n) {
    for (unsigned i = 0; i < n; ++i) p[i] = a.v[i];
  }
  /// A store past the caches where the CPU has one; p lies on a 64-byte boundary. `fence` orders such stores.
  static COINFER_INLINE void stream(float* p, const Float& a) { store(p, a); }
  static COINFER_INLINE void stream(std::int32_t* p, const Int& a) { store(p, a); }
  static COINFER_INLINE void fence() {}
  /// The index of the lowest bit that is set, anything if there is none.
  static COINFER_INLINE std::uint64_t lowest_bit(std::uint64_t x) {
    return static_cast<std::uint64_t>(__builtin_ctzll(x | std::uint64_t{1} << 63));
  }
  static COINFER_INLINE int count_bits(std::uint64_t x) { return __builtin_popcountll(x); }

  static COINFER_INLINE Float fma(const Float& a, const Float& b, const Float& c) {
    return Float::each([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
  }
  /// a * b - c
  static COINFER_INLINE Float fms(const Float& a, const Float& b, const Float& c) {
    return Float::each([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], -c.v[i]); });
  }
  /// c - a * b
  static COINFER_INLINE Float fnma(const Float& a, const Float& b, const Float& c) {
    return Float::each([&](int i) { return __builtin_fmaf(-a.v[i], b.v[i], c.v[i]); });
  }
  /// a where a > b, else b: with a NaN on either side, b.
  static COINFER_INLINE Float max(const Float& a, const Float& b) {
    return Float::each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
  }
  static COINFER_INLINE Float min(const Float& a, const Float& b) {
    return Float::each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
  }

  static COINFER_INLINE Mask unordered(const Float& a) {
    return Mask::each([&](int i) { return a.v[i] != a.v[i]; });
  }
  /// !(a >= b): below, or NaN.
  static COINFER_INLINE Mask not_at_least(const Float& a, const Float& b) {
    return Mask::each([&](int i) { return !(a.v[i] >= b.v[i]); });
  }
  static COINFER_INLINE Float select(Mask m, const Float& yes, const Float& no) {
    return Float::each([&](int i) { return (m.k >> i & 1U) != 0 ? yes.v[i] : no.v[i]; });
  }
  static COINFER_INLINE Int select(Mask m, const Int& yes, const Int& no) {
    return Int::each([&](int i) { return (m.k >> i & 1U) != 0 ? yes.v[i] : no.v[i]; });
  }
  /// Lane i as bit i.
  static COINFER_INLINE std::uint32_t bits(Mask m) { return m.k; }
  static COINFER_INLINE Mask none() { return {0}; }

  /// The largest lane: 16 are folded to 8, to 4, to 2, to 1.
  static COINFER_INLINE float largest(const Float& a) {
    Float r = a;
    for (int n = 8; n > 0; n /= 2) {
      for (int i = 0; i < n; ++i) r.v[i] = r.v[i] > r.v[i + n] ? r.v[i] : r.v[i + n];
    }
    return r.v[0];
  }

  /// Which lanes reach a bound, that is, are not below it; so a NaN does.
  struct Reach {
    std::uint32_t k;
  };
  static COINFER_INLINE Reach reach(const Float& a, const Float& bound) {
    return {Mask::each([&](int i) { return !(a.v[i] < bound.v[i]); }).k};
  }
  static COINFER_INLINE std::uint32_t bits(Reach r) { return r.k; }
  /// The larger of a and b where b's bound is not reached; elsewhere a.
  static COINFER_INLINE Float max_below(Reach r, const Float& a, const Float& b) {
    return select(Mask{r.k}, a, Float::each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; }));
  }
  /// a + 1 where the bound is not reached.
  static COINFER_INLINE Int count_below(Reach r, const Int& a) { return select(Mask{r.k}, a, a + fill(1)); }
  static COINFER_INLINE Int select_below(Reach r, const Int& yes, const Int& no) { return select(Mask{r.k}, no, yes); }

  static COINFER_INLINE Int as_int(const Float& a) {
    Int r;
    __builtin_memcpy(r.v, a.v, sizeof r.v);
    return r;
  }
  static COINFER_INLINE Float as_float(const Int& a) {
    Float r;
    __builtin_memcpy(r.v, a.v, sizeof r.v);
    return r;
  }
  static COINFER_INLINE Float to_float(const Int& a) {
    return Float::each([&](int i) { return static_cast<float>(a.v[i]); });
  }
  /// The larger as unsigned numbers.
  static COINFER_INLINE Int max_unsigned(const Int& a, const Int& b) {
    return Int::each([&](int i) { return Int::bits_of(a.v[i]) > Int::bits_of(b.v[i]) ? a.v[i] : b.v[i]; });
  }
  template <int count>
  static COINFER_INLINE Int shift_left(const Int& a) {
    return Int::each([&](int i) { return Int::wrap(Int::bits_of(a.v[i]) << count); });
  }
  /// Arithmetic: the sign is kept.
  template <int count>
  static COINFER_INLINE Int shift_right(const Int& a) {
    return Int::each([&](int i) { return a.v[i] >> count; });
  }

  /// The even and the odd runs of `width` lanes, those of a before those of b: over all lanes for a width of 8 or 4,
  /// inside every four lanes for 2 or 1. Adding the two halves the lanes per sum; four steps turn sixteen rows into one
  /// register.
  template <int width>
  static COINFER_INLINE void unzip(const Float& a, const Float& b, Float& even, Float& odd) {
    constexpr int group = width >= 4 ? 16 : 4;
    const auto lane = [&](int i, int which) {
      const int at = i % group, run = at % (group / 2);
      const int from = i - at + 2 * width * (run / width) + width * which + run % width;
      return at < group / 2 ? a.v[from] : b.v[from];
    };
    even = Float::each([&](int i) { return lane(i, 0); });
    odd = Float::each([&](int i) { return lane(i, 1); });
  }

  /// Columns 0 to 3 of sixteen rows that start `stride` floats apart: out[k] holds entry k of every row.
  static COINFER_INLINE void columns4(const float* p, std::ptrdiff_t stride, Float out[4]) {
    for (int k = 0; k < 4; ++k) out[k] = Float::each([&](int i) { return p[i * stride + k]; });
  }
  /// The same for sixteen rows of two that lie without gaps.
  static COINFER_INLINE void pairs(const float* p, Float out[2]) {
    for (int k = 0; k < 2; ++k) out[k] = Float::each([&](int i) { return p[2 * i + k]; });
  }
};

}  // namespace
}  // namespace coinfer
