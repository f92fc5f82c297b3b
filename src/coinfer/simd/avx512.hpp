// Sixteen lanes on AVX-512: one register. See baseline.hpp for what each operation means.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#define COINFER_INLINE inline __attribute__((always_inline))

namespace coinfer {
namespace {

struct Avx512 {
  using Register = Avx512;
  static constexpr int width = 16;
  static constexpr bool fast = true;
  static constexpr int chains = 2;

  struct Mask {
    __mmask16 k;
    friend COINFER_INLINE Mask operator|(Mask a, Mask b) { return {static_cast<__mmask16>(a.k | b.k)}; }
  };

  struct Int {
    __m512i v;
    friend COINFER_INLINE Int operator+(Int a, Int b) { return {_mm512_add_epi32(a.v, b.v)}; }
    friend COINFER_INLINE Int operator-(Int a, Int b) { return {_mm512_sub_epi32(a.v, b.v)}; }
    friend COINFER_INLINE Int operator|(Int a, Int b) { return {_mm512_or_si512(a.v, b.v)}; }
    friend COINFER_INLINE Int operator&(Int a, Int b) { return {_mm512_and_si512(a.v, b.v)}; }
  };

  struct Float {
    __m512 v;
    friend COINFER_INLINE Float operator+(Float a, Float b) { return {_mm512_add_ps(a.v, b.v)}; }
    friend COINFER_INLINE Float operator-(Float a, Float b) { return {_mm512_sub_ps(a.v, b.v)}; }
    friend COINFER_INLINE Float operator*(Float a, Float b) { return {_mm512_mul_ps(a.v, b.v)}; }
    friend COINFER_INLINE Float operator/(Float a, Float b) { return {_mm512_div_ps(a.v, b.v)}; }
    friend COINFER_INLINE Mask operator>(Float a, Float b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
    friend COINFER_INLINE Mask operator==(Float a, Float b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
  };

  static COINFER_INLINE Float fill(float x) { return {_mm512_set1_ps(x)}; }
  static COINFER_INLINE Int fill(std::int32_t x) { return {_mm512_set1_epi32(x)}; }
  static COINFER_INLINE Float load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static COINFER_INLINE Int load(const std::int32_t* p) { return {_mm512_loadu_si512(p)}; }
  static COINFER_INLINE Float load_first(const float* p, unsigned n, float rest) {
    return {_mm512_mask_loadu_ps(_mm512_set1_ps(rest), first(n), p)};
  }
  static COINFER_INLINE void store(float* p, Float a) { _mm512_storeu_ps(p, a.v); }
  static COINFER_INLINE void store(std::int32_t* p, Int a) { _mm512_storeu_si512(p, a.v); }
  static COINFER_INLINE void store_first(float* p, Float a, unsigned n) { _mm512_mask_storeu_ps(p, first(n), a.v); }
  static COINFER_INLINE void store_first(std::int32_t* p, Int a, unsigned n) {
    _mm512_mask_storeu_epi32(p, first(n), a.v);
  }
  static COINFER_INLINE void stream(float* p, Float a) { _mm512_stream_ps(p, a.v); }
  static COINFER_INLINE void stream(std::int32_t* p, Int a) { _mm512_stream_si512(reinterpret_cast<__m512i*>(p), a.v); }
  static COINFER_INLINE void fence() { _mm_sfence(); }
  static COINFER_INLINE std::uint64_t lowest_bit(std::uint64_t x) { return _tzcnt_u64(x); }
  static COINFER_INLINE int count_bits(std::uint64_t x) { return static_cast<int>(_mm_popcnt_u64(x)); }

  static COINFER_INLINE Float fma(Float a, Float b, Float c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  static COINFER_INLINE Float fms(Float a, Float b, Float c) { return {_mm512_fmsub_ps(a.v, b.v, c.v)}; }
  static COINFER_INLINE Float fnma(Float a, Float b, Float c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
  static COINFER_INLINE Float max(Float a, Float b) { return {_mm512_max_ps(a.v, b.v)}; }
  static COINFER_INLINE Float min(Float a, Float b) { return {_mm512_min_ps(a.v, b.v)}; }

  static COINFER_INLINE Mask unordered(Float a) { return {_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q)}; }
  static COINFER_INLINE Mask not_at_least(Float a, Float b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_NGE_UQ)}; }
  static COINFER_INLINE Float select(Mask m, Float yes, Float no) { return {_mm512_mask_blend_ps(m.k, no.v, yes.v)}; }
  static COINFER_INLINE Int select(Mask m, Int yes, Int no) { return {_mm512_mask_blend_epi32(m.k, no.v, yes.v)}; }
  static COINFER_INLINE std::uint32_t bits(Mask m) {
    std::uint32_t k = m.k;
    // Through a general register: where these are short, g++ 12 widens a mask by storing its 16 bits and loading 64.
    asm("" : "+r"(k));
    return k;
  }
  static COINFER_INLINE Mask none() { return {0}; }

  static COINFER_INLINE float largest(Float a) {
    return largest_of_8(_mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1)));
  }

  struct Reach {
    __mmask16 below;
  };
  static COINFER_INLINE Reach reach(Float a, Float bound) { return {_mm512_cmp_ps_mask(a.v, bound.v, _CMP_LT_OQ)}; }
  static COINFER_INLINE std::uint32_t bits(Reach r) { return bits(Mask{r.below}) ^ 0xFFFFU; }
  static COINFER_INLINE Float max_below(Reach r, Float a, Float b) {
    return {_mm512_mask_max_ps(a.v, r.below, a.v, b.v)};
  }
  static COINFER_INLINE Int count_below(Reach r, Int a) {
    return {_mm512_mask_add_epi32(a.v, r.below, a.v, _mm512_set1_epi32(1))};
  }
  static COINFER_INLINE Int select_below(Reach r, Int yes, Int no) {
    return {_mm512_mask_blend_epi32(r.below, no.v, yes.v)};
  }

  static COINFER_INLINE Int as_int(Float a) { return {_mm512_castps_si512(a.v)}; }
  static COINFER_INLINE Float as_float(Int a) { return {_mm512_castsi512_ps(a.v)}; }
  static COINFER_INLINE Float to_float(Int a) { return {_mm512_cvtepi32_ps(a.v)}; }
  static COINFER_INLINE Int max_unsigned(Int a, Int b) { return {_mm512_max_epu32(a.v, b.v)}; }
  template <int count>
  static COINFER_INLINE Int shift_left(Int a) {
    return {_mm512_slli_epi32(a.v, count)};
  }
  template <int count>
  static COINFER_INLINE Int shift_right(Int a) {
    return {_mm512_srai_epi32(a.v, count)};
  }

  template <int width>
  static COINFER_INLINE void unzip(Float a, Float b, Float& even, Float& odd) {
    if constexpr (width == 8) {
      even = {_mm512_shuffle_f32x4(a.v, b.v, 0x44)};
      odd = {_mm512_shuffle_f32x4(a.v, b.v, 0xEE)};
    } else if constexpr (width == 4) {
      even = {_mm512_shuffle_f32x4(a.v, b.v, 0x88)};
      odd = {_mm512_shuffle_f32x4(a.v, b.v, 0xDD)};
    } else if constexpr (width == 2) {
      even = {_mm512_shuffle_ps(a.v, b.v, 0x44)};
      odd = {_mm512_shuffle_ps(a.v, b.v, 0xEE)};
    } else {
      even = {_mm512_shuffle_ps(a.v, b.v, 0x88)};
      odd = {_mm512_shuffle_ps(a.v, b.v, 0xDD)};
    }
  }

  static COINFER_INLINE void columns4(const float* p, std::ptrdiff_t stride, Float out[4]) {
    const __m512 a = every_fourth(p, stride), b = every_fourth(p + stride, stride);
    const __m512 c = every_fourth(p + 2 * stride, stride), d = every_fourth(p + 3 * stride, stride);
    const __m512 ab_low = _mm512_unpacklo_ps(a, b), ab_high = _mm512_unpackhi_ps(a, b);
    const __m512 cd_low = _mm512_unpacklo_ps(c, d), cd_high = _mm512_unpackhi_ps(c, d);
    out[0] = {_mm512_shuffle_ps(ab_low, cd_low, 0x44)};
    out[1] = {_mm512_shuffle_ps(ab_low, cd_low, 0xEE)};
    out[2] = {_mm512_shuffle_ps(ab_high, cd_high, 0x44)};
    out[3] = {_mm512_shuffle_ps(ab_high, cd_high, 0xEE)};
  }
  static COINFER_INLINE void pairs(const float* p, Float out[2]) {
    const __m512 a = _mm512_loadu_ps(p), b = _mm512_loadu_ps(p + 16);
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    out[0] = {_mm512_permutex2var_ps(a, even, b)};
    out[1] = {_mm512_permutex2var_ps(a, odd, b)};
  }

 private:
  static COINFER_INLINE float largest_of_8(__m256 a) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
  }
  static COINFER_INLINE __mmask16 first(unsigned n) { return static_cast<__mmask16>((1U << n) - 1U); }
  static COINFER_INLINE __m512 every_fourth(const float* p, std::ptrdiff_t stride) {
    __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(p));
    v = _mm512_insertf32x4(v, _mm_loadu_ps(p + 4 * stride), 1);
    v = _mm512_insertf32x4(v, _mm_loadu_ps(p + 8 * stride), 2);
    return _mm512_insertf32x4(v, _mm_loadu_ps(p + 12 * stride), 3);
  }
};

}  // namespace
}  // namespace coinfer
