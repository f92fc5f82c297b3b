// Sixteen lanes of double on AVX2: four registers. See wide_baseline.hpp for what each operation means.
#pragma once

#include "coinfer/simd/avx2.hpp"

namespace coinfer {
namespace {

struct WideAvx2 : Avx2 {
  struct Double {
    __m256d a, b, c, d;
  };

  static COINFER_INLINE Double fill_double(double x) {
    const __m256d v = _mm256_set1_pd(x);
    return {v, v, v, v};
  }
  static COINFER_INLINE Double load_double(const double* p) {
    return {_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4), _mm256_loadu_pd(p + 8), _mm256_loadu_pd(p + 12)};
  }
  static COINFER_INLINE void store_double(double* p, Double x) {
    _mm256_storeu_pd(p, x.a);
    _mm256_storeu_pd(p + 4, x.b);
    _mm256_storeu_pd(p + 8, x.c);
    _mm256_storeu_pd(p + 12, x.d);
  }
  static COINFER_INLINE Double widen(Float x) {
    return {_mm256_cvtps_pd(_mm256_castps256_ps128(x.lo)), _mm256_cvtps_pd(_mm256_extractf128_ps(x.lo, 1)),
            _mm256_cvtps_pd(_mm256_castps256_ps128(x.hi)), _mm256_cvtps_pd(_mm256_extractf128_ps(x.hi, 1))};
  }
  static COINFER_INLINE Float narrow(Double x) {
    return {_mm256_set_m128(_mm256_cvtpd_ps(x.b), _mm256_cvtpd_ps(x.a)),
            _mm256_set_m128(_mm256_cvtpd_ps(x.d), _mm256_cvtpd_ps(x.c))};
  }
  static COINFER_INLINE Double widen_scaled(Float x) { return {even(x.lo), odd(x.lo), even(x.hi), odd(x.hi)}; }
  static COINFER_INLINE Float narrow_scaled(Double x) { return {zip(x.a, x.b), zip(x.c, x.d)}; }
  static COINFER_INLINE Double multiply(Double x, Double y) {
    return {_mm256_mul_pd(x.a, y.a), _mm256_mul_pd(x.b, y.b), _mm256_mul_pd(x.c, y.c), _mm256_mul_pd(x.d, y.d)};
  }
  static COINFER_INLINE Double multiply_add(Double x, Double y, Double z) {
    return {_mm256_fmadd_pd(x.a, y.a, z.a), _mm256_fmadd_pd(x.b, y.b, z.b), _mm256_fmadd_pd(x.c, y.c, z.c),
            _mm256_fmadd_pd(x.d, y.d, z.d)};
  }

  using Part = __m256d;
  static constexpr std::ptrdiff_t part_lanes = 4;
  static COINFER_INLINE Part fill_part(double x) { return _mm256_set1_pd(x); }
  static COINFER_INLINE Part load_part(const double* p) { return _mm256_loadu_pd(p); }
  static COINFER_INLINE void store_part(double* p, Part x) { _mm256_storeu_pd(p, x); }
  static COINFER_INLINE Part multiply_add(Part x, Part y, Part z) { return _mm256_fmadd_pd(x, y, z); }

 private:
  static COINFER_INLINE __m256d even(__m256 x) {
    return _mm256_castsi256_pd(_mm256_mul_epu32(_mm256_castps_si256(x), _mm256_set1_epi64x(1 << 29)));
  }
  static COINFER_INLINE __m256d odd(__m256 x) {
    const __m256i upper = _mm256_set1_epi64x(static_cast<std::int64_t>(0xFFFFFFFF00000000));
    return _mm256_castsi256_pd(_mm256_srli_epi64(_mm256_and_si256(_mm256_castps_si256(x), upper), 3));
  }
  static COINFER_INLINE __m256 zip(__m256d even, __m256d odd) {
    const __m128 a = _mm256_cvtpd_ps(even), b = _mm256_cvtpd_ps(odd);
    return _mm256_set_m128(_mm_unpackhi_ps(a, b), _mm_unpacklo_ps(a, b));
  }
};

}  // namespace
}  // namespace coinfer
