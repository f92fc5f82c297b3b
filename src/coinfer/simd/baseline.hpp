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

#define COINFER_INLINE inline __attribute__((always_inline))

namespace coinfer {
namespace {

struct Baseline {
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

  static COINFER_INLINE Float fma(const Float& a, const Float& b, const Float& c) {
    return Float::each([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
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
  /// To the nearest integer, ties to even.
  static COINFER_INLINE Float round(const Float& a) {
    constexpr float big = 12582912.0F;  // 1.5 * 2^23: adding it leaves no bit for a fraction
    return Float::each([&](int i) {
      const float x = a.v[i];
      return x > -4194304.0F && x < 4194304.0F ? __builtin_copysignf((x + big) - big, x) : x;
    });
  }
  /// a * 2^n for a in [0.5, 2] and integral n in [-126, 0]; a NaN stays NaN.
  static COINFER_INLINE Float scale(const Float& a, const Float& n) {
    const Int shift = Int::each([&](int i) { return n.v[i] == n.v[i] ? static_cast<std::int32_t>(n.v[i]) : 0; });
    return as_float(as_int(a) + shift_left<23>(shift));
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
  template <int count>
  static COINFER_INLINE Int shift_left(const Int& a) {
    return Int::each([&](int i) { return Int::wrap(Int::bits_of(a.v[i]) << count); });
  }
  /// Arithmetic: the sign is kept.
  template <int count>
  static COINFER_INLINE Int shift_right(const Int& a) {
    return Int::each([&](int i) { return a.v[i] >> count; });
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
