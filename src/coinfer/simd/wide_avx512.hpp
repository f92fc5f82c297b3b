// Sixteen lanes of double on AVX-512: two registers. See wide_baseline.hpp for what each operation means.
#pragma once

#include "coinfer/simd/avx512.hpp"

namespace coinfer {
namespace {

struct WideAvx512 : Avx512 {
  struct Double {
    __m512d lo, hi;
  };

  static COINFER_INLINE Double fill_double(double x) { return {_mm512_set1_pd(x), _mm512_set1_pd(x)}; }
  static COINFER_INLINE Double load_double(const double* p) { return {_mm512_loadu_pd(p), _mm512_loadu_pd(p + 8)}; }
  static COINFER_INLINE void store_double(double* p, Double x) {
    _mm512_storeu_pd(p, x.lo);
    _mm512_storeu_pd(p + 8, x.hi);
  }
  static COINFER_INLINE Double widen(Float x) {
    return {_mm512_cvtps_pd(_mm512_castps512_ps256(x.v)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(x.v, 1))};
  }
  static COINFER_INLINE Float narrow(Double x) {
    return {_mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(x.lo)), _mm512_cvtpd_ps(x.hi), 1)};
  }
  static COINFER_INLINE Double widen_scaled(Float x) {
    const __m512i bits = _mm512_castps_si512(x.v);
    const __m512i upper = _mm512_set1_epi64(static_cast<std::int64_t>(0xFFFFFFFF00000000));
    return {_mm512_castsi512_pd(_mm512_mul_epu32(bits, _mm512_set1_epi64(1 << 29))),
            _mm512_castsi512_pd(_mm512_srli_epi64(_mm512_and_si512(bits, upper), 3))};
  }
  static COINFER_INLINE Float narrow_scaled(Double x) {
    const __m256 even = _mm512_cvtpd_ps(x.lo), odd = _mm512_cvtpd_ps(x.hi);
    const __m512 pairs =
        _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_unpacklo_ps(even, odd)), _mm256_unpackhi_ps(even, odd), 1);
    return {_mm512_shuffle_f32x4(pairs, pairs, 0xD8)};
  }
  static COINFER_INLINE Double multiply(Double x, Double y) {
    return {_mm512_mul_pd(x.lo, y.lo), _mm512_mul_pd(x.hi, y.hi)};
  }
  static COINFER_INLINE Double multiply_add(Double x, Double y, Double z) {
    return {_mm512_fmadd_pd(x.lo, y.lo, z.lo), _mm512_fmadd_pd(x.hi, y.hi, z.hi)};
  }

  using Part = __m512d;
  static constexpr std::ptrdiff_t part_lanes = 8;
  static COINFER_INLINE Part fill_part(double x) { return _mm512_set1_pd(x); }
  static COINFER_INLINE Part load_part(const double* p) { return _mm512_loadu_pd(p); }
  static COINFER_INLINE void store_part(double* p, Part x) { _mm512_storeu_pd(p, x); }
  static COINFER_INLINE Part multiply_add(Part x, Part y, Part z) { return _mm512_fmadd_pd(x, y, z); }
};

}  // namespace
}  // namespace coinfer
