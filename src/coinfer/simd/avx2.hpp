// Sixteen lanes on AVX2 and FMA: two registers. See baseline.hpp for what each operation means.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#define COINFER_INLINE inline __attribute__((always_inline))

namespace coinfer {
namespace {

/// One register of eight lanes: half of the sixteen. Long chains of operations on a single register keep their
/// constants in the others.
struct Avx2Half {
  static constexpr int width = 8;

  struct Mask {
    __m256 v;
  };

  struct Int {
    __m256i v;
    friend COINFER_INLINE Int operator+(Int a, Int b) { return {_mm256_add_epi32(a.v, b.v)}; }
    friend COINFER_INLINE Int operator-(Int a, Int b) { return {_mm256_sub_epi32(a.v, b.v)}; }
  };

  struct Float {
    __m256 v;
    friend COINFER_INLINE Float operator+(Float a, Float b) { return {_mm256_add_ps(a.v, b.v)}; }
    friend COINFER_INLINE Float operator-(Float a, Float b) { return {_mm256_sub_ps(a.v, b.v)}; }
    friend COINFER_INLINE Float operator*(Float a, Float b) { return {_mm256_mul_ps(a.v, b.v)}; }
    friend COINFER_INLINE Float operator/(Float a, Float b) { return {_mm256_div_ps(a.v, b.v)}; }
    friend COINFER_INLINE Mask operator==(Float a, Float b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
  };

  static COINFER_INLINE Float fill(float x) { return {_mm256_set1_ps(x)}; }
  static COINFER_INLINE Int fill(std::int32_t x) { return {_mm256_set1_epi32(x)}; }
  static COINFER_INLINE Float load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static COINFER_INLINE void store(float* p, Float a) { _mm256_storeu_ps(p, a.v); }
  static COINFER_INLINE Float fma(Float a, Float b, Float c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  static COINFER_INLINE Float fms(Float a, Float b, Float c) { return {_mm256_fmsub_ps(a.v, b.v, c.v)}; }
  static COINFER_INLINE Float max(Float a, Float b) { return {_mm256_max_ps(a.v, b.v)}; }
  static COINFER_INLINE Float min(Float a, Float b) { return {_mm256_min_ps(a.v, b.v)}; }
  static COINFER_INLINE Mask not_at_least(Float a, Float b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_NGE_UQ)}; }
  static COINFER_INLINE Float select(Mask m, Float yes, Float no) { return {_mm256_blendv_ps(no.v, yes.v, m.v)}; }
  static COINFER_INLINE Int as_int(Float a) { return {_mm256_castps_si256(a.v)}; }
  static COINFER_INLINE Float as_float(Int a) { return {_mm256_castsi256_ps(a.v)}; }
  static COINFER_INLINE Float to_float(Int a) { return {_mm256_cvtepi32_ps(a.v)}; }
  template <int count>
  static COINFER_INLINE Int shift_left(Int a) {
    return {_mm256_slli_epi32(a.v, count)};
  }
  template <int count>
  static COINFER_INLINE Int shift_right(Int a) {
    return {_mm256_srai_epi32(a.v, count)};
  }
};

struct Avx2 {
  using Register = Avx2Half;
  static constexpr int width = 16;
  static constexpr bool fast = true;
  static constexpr int chains = 1;

  struct Mask {
    __m256 lo, hi;
    friend COINFER_INLINE Mask operator|(Mask a, Mask b) {
      return {_mm256_or_ps(a.lo, b.lo), _mm256_or_ps(a.hi, b.hi)};
    }
  };

  struct Int {
    __m256i lo, hi;
    friend COINFER_INLINE Int operator+(Int a, Int b) {
      return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
    }
    friend COINFER_INLINE Int operator-(Int a, Int b) {
      return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)};
    }
    friend COINFER_INLINE Int operator|(Int a, Int b) {
      return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)};
    }
    friend COINFER_INLINE Int operator&(Int a, Int b) {
      return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)};
    }
  };

  struct Float {
    __m256 lo, hi;
    friend COINFER_INLINE Float operator+(Float a, Float b) {
      return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
    }
    friend COINFER_INLINE Float operator-(Float a, Float b) {
      return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
    }
    friend COINFER_INLINE Float operator*(Float a, Float b) {
      return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
    }
    friend COINFER_INLINE Float operator/(Float a, Float b) {
      return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
    }
    friend COINFER_INLINE Mask operator>(Float a, Float b) {
      return {_mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ)};
    }
    friend COINFER_INLINE Mask operator==(Float a, Float b) {
      return {_mm256_cmp_ps(a.lo, b.lo, _CMP_EQ_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_EQ_OQ)};
    }
  };

  static COINFER_INLINE Float fill(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static COINFER_INLINE Int fill(std::int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
  static COINFER_INLINE Float load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static COINFER_INLINE Int load(const std::int32_t* p) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8))};
  }
  static COINFER_INLINE Float load_first(const float* p, unsigned n, float rest) {
    const __m256i lo = first(n), hi = first(n, 8);
    const __m256 fill = _mm256_set1_ps(rest);
    return {_mm256_blendv_ps(fill, _mm256_maskload_ps(p, lo), _mm256_castsi256_ps(lo)),
            _mm256_blendv_ps(fill, _mm256_maskload_ps(p + 8, hi), _mm256_castsi256_ps(hi))};
  }
  static COINFER_INLINE void store(float* p, Float a) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
  }
  static COINFER_INLINE void store(std::int32_t* p, Int a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.lo);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), a.hi);
  }
  static COINFER_INLINE void store_first(float* p, Float a, unsigned n) {
    _mm256_maskstore_ps(p, first(n), a.lo);
    _mm256_maskstore_ps(p + 8, first(n, 8), a.hi);
  }
  static COINFER_INLINE void store_first(std::int32_t* p, Int a, unsigned n) {
    _mm256_maskstore_epi32(p, first(n), a.lo);
    _mm256_maskstore_epi32(p + 8, first(n, 8), a.hi);
  }
  static COINFER_INLINE void stream(float* p, Float a) {
    _mm256_stream_ps(p, a.lo);
    _mm256_stream_ps(p + 8, a.hi);
  }
  static COINFER_INLINE void stream(std::int32_t* p, Int a) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), a.lo);
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p + 8), a.hi);
  }
  static COINFER_INLINE void fence() { _mm_sfence(); }
  static COINFER_INLINE std::uint64_t lowest_bit(std::uint64_t x) { return _tzcnt_u64(x); }
  static COINFER_INLINE int count_bits(std::uint64_t x) { return static_cast<int>(_mm_popcnt_u64(x)); }

  static COINFER_INLINE Float fma(Float a, Float b, Float c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
  }
  static COINFER_INLINE Float fms(Float a, Float b, Float c) {
    return {_mm256_fmsub_ps(a.lo, b.lo, c.lo), _mm256_fmsub_ps(a.hi, b.hi, c.hi)};
  }
  static COINFER_INLINE Float fnma(Float a, Float b, Float c) {
    return {_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
  }
  static COINFER_INLINE Float max(Float a, Float b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
  static COINFER_INLINE Float min(Float a, Float b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }

  static COINFER_INLINE Mask unordered(Float a) {
    return {_mm256_cmp_ps(a.lo, a.lo, _CMP_UNORD_Q), _mm256_cmp_ps(a.hi, a.hi, _CMP_UNORD_Q)};
  }
  static COINFER_INLINE Mask not_at_least(Float a, Float b) {
    return {_mm256_cmp_ps(a.lo, b.lo, _CMP_NGE_UQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_NGE_UQ)};
  }
  static COINFER_INLINE Float select(Mask m, Float yes, Float no) {
    return {_mm256_blendv_ps(no.lo, yes.lo, m.lo), _mm256_blendv_ps(no.hi, yes.hi, m.hi)};
  }
  static COINFER_INLINE Int select(Mask m, Int yes, Int no) { return as_int(select(m, as_float(yes), as_float(no))); }
  static COINFER_INLINE std::uint32_t bits(Mask m) {
    return static_cast<std::uint32_t>(_mm256_movemask_ps(m.lo)) | static_cast<std::uint32_t>(_mm256_movemask_ps(m.hi))
                                                                      << 8;
  }
  static COINFER_INLINE Mask none() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }

  static COINFER_INLINE float largest(Float a) { return largest_of_8(_mm256_max_ps(a.lo, a.hi)); }

  struct Reach {
    __m256 lo, hi;  // ones where the bound is reached
  };
  static COINFER_INLINE Reach reach(Float a, Float bound) {
    return {_mm256_cmp_ps(a.lo, bound.lo, _CMP_NLT_UQ), _mm256_cmp_ps(a.hi, bound.hi, _CMP_NLT_UQ)};
  }
  static COINFER_INLINE std::uint32_t bits(Reach r) { return bits(Mask{r.lo, r.hi}); }
  static COINFER_INLINE Float max_below(Reach r, Float a,
                                        Float b) {  // ones are a NaN: then max gives its second argument
    return {_mm256_max_ps(_mm256_or_ps(b.lo, r.lo), a.lo), _mm256_max_ps(_mm256_or_ps(b.hi, r.hi), a.hi)};
  }
  static COINFER_INLINE Int count_below(Reach r, Int a) {
    const Int one = fill(1);
    return a + one + Int{_mm256_castps_si256(r.lo), _mm256_castps_si256(r.hi)};
  }
  static COINFER_INLINE Int select_below(Reach r, Int yes, Int no) { return select(Mask{r.lo, r.hi}, no, yes); }

  static COINFER_INLINE Int as_int(Float a) { return {_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)}; }
  static COINFER_INLINE Float as_float(Int a) { return {_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)}; }
  static COINFER_INLINE Float to_float(Int a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
  static COINFER_INLINE Int max_unsigned(Int a, Int b) {
    return {_mm256_max_epu32(a.lo, b.lo), _mm256_max_epu32(a.hi, b.hi)};
  }
  template <int count>
  static COINFER_INLINE Int shift_left(Int a) {
    return {_mm256_slli_epi32(a.lo, count), _mm256_slli_epi32(a.hi, count)};
  }
  template <int count>
  static COINFER_INLINE Int shift_right(Int a) {
    return {_mm256_srai_epi32(a.lo, count), _mm256_srai_epi32(a.hi, count)};
  }

  template <int width>
  static COINFER_INLINE void unzip(Float a, Float b, Float& even, Float& odd) {
    if constexpr (width == 8) {
      even = {a.lo, b.lo};
      odd = {a.hi, b.hi};
    } else if constexpr (width == 4) {
      even = {_mm256_permute2f128_ps(a.lo, a.hi, 0x20), _mm256_permute2f128_ps(b.lo, b.hi, 0x20)};
      odd = {_mm256_permute2f128_ps(a.lo, a.hi, 0x31), _mm256_permute2f128_ps(b.lo, b.hi, 0x31)};
    } else if constexpr (width == 2) {
      even = {_mm256_shuffle_ps(a.lo, b.lo, 0x44), _mm256_shuffle_ps(a.hi, b.hi, 0x44)};
      odd = {_mm256_shuffle_ps(a.lo, b.lo, 0xEE), _mm256_shuffle_ps(a.hi, b.hi, 0xEE)};
    } else {
      even = {_mm256_shuffle_ps(a.lo, b.lo, 0x88), _mm256_shuffle_ps(a.hi, b.hi, 0x88)};
      odd = {_mm256_shuffle_ps(a.lo, b.lo, 0xDD), _mm256_shuffle_ps(a.hi, b.hi, 0xDD)};
    }
  }

  static COINFER_INLINE void columns4(const float* p, std::ptrdiff_t stride, Float out[4]) {
    __m256 half[2][4];
    for (std::ptrdiff_t h = 0; h < 2; ++h) {
      const float* q = p + 8 * h * stride;
      const __m256 a = rows_four_apart(q, stride), b = rows_four_apart(q + stride, stride);
      const __m256 c = rows_four_apart(q + 2 * stride, stride), d = rows_four_apart(q + 3 * stride, stride);
      const __m256 ab_low = _mm256_unpacklo_ps(a, b), ab_high = _mm256_unpackhi_ps(a, b);
      const __m256 cd_low = _mm256_unpacklo_ps(c, d), cd_high = _mm256_unpackhi_ps(c, d);
      half[h][0] = _mm256_shuffle_ps(ab_low, cd_low, 0x44);
      half[h][1] = _mm256_shuffle_ps(ab_low, cd_low, 0xEE);
      half[h][2] = _mm256_shuffle_ps(ab_high, cd_high, 0x44);
      half[h][3] = _mm256_shuffle_ps(ab_high, cd_high, 0xEE);
    }
    for (int k = 0; k < 4; ++k) out[k] = {half[0][k], half[1][k]};
  }
  static COINFER_INLINE void pairs(const float* p, Float out[2]) {
    __m256 half[2][2];
    for (std::ptrdiff_t h = 0; h < 2; ++h) {
      const __m256 a = _mm256_loadu_ps(p + 16 * h), b = _mm256_loadu_ps(p + 16 * h + 8);
      const __m256 low = _mm256_permute2f128_ps(a, b, 0x20), high = _mm256_permute2f128_ps(a, b, 0x31);
      half[h][0] = _mm256_shuffle_ps(low, high, 0x88);
      half[h][1] = _mm256_shuffle_ps(low, high, 0xDD);
    }
    for (int k = 0; k < 2; ++k) out[k] = {half[0][k], half[1][k]};
  }

 private:
  static COINFER_INLINE float largest_of_8(__m256 a) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
  }
  /// Lanes `from`, `from + 1`, ... below n are all ones.
  static COINFER_INLINE __m256i first(unsigned n, int from = 0) {
    const __m256i lane = _mm256_add_epi32(_mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0), _mm256_set1_epi32(from));
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
  }
  static COINFER_INLINE __m256 rows_four_apart(const float* p, std::ptrdiff_t stride) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + 4 * stride), 1);
  }
};

}  // namespace
}  // namespace coinfer
