// Sixteen lanes of double beside the sixteen of float, for sums that float32 is too narrow for. See baseline.hpp for
// the rules; `widen` is exact, `narrow` rounds to nearest even, everything else rounds once.
#pragma once

#include "coinfer/simd/baseline.hpp"

namespace coinfer {
namespace {

struct WideBaseline : Baseline {
  struct Double {
    double v[16];
  };

  template <class Lane>
  static COINFER_INLINE Double each(Lane lane) {
    Double r;
    for (int i = 0; i < 16; ++i) r.v[i] = lane(i);
    return r;
  }
  static COINFER_INLINE Double fill_double(double x) {
    return each([&](int) { return x; });
  }
  static COINFER_INLINE Double load_double(const double* p) {
    return each([&](int i) { return p[i]; });
  }
  static COINFER_INLINE void store_double(double* p, const Double& a) {
    for (int i = 0; i < 16; ++i) p[i] = a.v[i];
  }
  static COINFER_INLINE Double widen(const Float& a) {
    return each([&](int i) { return static_cast<double>(a.v[i]); });
  }
  static COINFER_INLINE Float narrow(const Double& a) {
    return Float::each([&](int i) { return static_cast<float>(a.v[i]); });
  }
  /// 2^-896 x of finite x >= 0, exactly, and back. How the lanes of the doubles lie is nobody's business: what is done
  /// to them must be the same for all. Cheaper than `widen`, because a shift of the bits is all it takes.
  static COINFER_INLINE Double widen_scaled(const Float& a) {
    return each([&](int i) { return static_cast<double>(a.v[i]) * 0x1p-896; });
  }
  static COINFER_INLINE Float narrow_scaled(const Double& a) { return narrow(a); }
  static COINFER_INLINE Double multiply(const Double& a, const Double& b) {
    return each([&](int i) { return a.v[i] * b.v[i]; });
  }
  static COINFER_INLINE Double multiply_add(const Double& a, const Double& b, const Double& c) {
    return each([&](int i) { return __builtin_fma(a.v[i], b.v[i], c.v[i]); });
  }

  /// One register of doubles, for kernels that need fewer than sixteen lanes.
  struct Part {
    double v[2];
  };
  static constexpr std::ptrdiff_t part_lanes = 2;
  static COINFER_INLINE Part fill_part(double x) { return {{x, x}}; }
  static COINFER_INLINE Part load_part(const double* p) { return {{p[0], p[1]}}; }
  static COINFER_INLINE void store_part(double* p, const Part& a) {
    p[0] = a.v[0];
    p[1] = a.v[1];
  }
  static COINFER_INLINE Part multiply_add(const Part& a, const Part& b, const Part& c) {
    return {{__builtin_fma(a.v[0], b.v[0], c.v[0]), __builtin_fma(a.v[1], b.v[1], c.v[1])}};
  }
};

}  // namespace
}  // namespace coinfer
