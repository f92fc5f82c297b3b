#include "coinfer/drawing/philox.hpp"

#if defined(__x86_64__)
#include <immintrin.h>

namespace coinfer::isa {
namespace {

constexpr std::size_t together = 2;  // times four counters: as many as the registers hold

struct Product {
  __m256i high, low;
};

inline Product multiply(__m256i x, std::uint64_t by) noexcept {
  const __m256i mask = _mm256_set1_epi64x(0xFFFFFFFF);
  const __m256i by_low = _mm256_set1_epi64x(static_cast<std::int64_t>(by & 0xFFFFFFFF));
  const __m256i by_high = _mm256_set1_epi64x(static_cast<std::int64_t>(by >> 32));
  const __m256i x_high = _mm256_srli_epi64(x, 32);
  const __m256i least = _mm256_mul_epu32(x, by_low);
  const __m256i cross = _mm256_add_epi64(_mm256_mul_epu32(x_high, by_low), _mm256_srli_epi64(least, 32));
  const __m256i other = _mm256_add_epi64(_mm256_mul_epu32(x, by_high), _mm256_and_si256(cross, mask));
  const __m256i most = _mm256_add_epi64(_mm256_mul_epu32(x_high, by_high), _mm256_srli_epi64(cross, 32));
  return {_mm256_add_epi64(most, _mm256_srli_epi64(other, 32)),
          _mm256_blend_epi32(least, _mm256_slli_epi64(other, 32), 0xAA)};
}

struct Four {  // counters, word by word
  __m256i a, b, c, d;
};

inline __m256i mixed(__m256i high, __m256i word, std::uint64_t key) noexcept {
  return _mm256_xor_si256(_mm256_xor_si256(high, word), _mm256_set1_epi64x(static_cast<std::int64_t>(key)));
}

inline void store(const Four& x, std::uint64_t* words) noexcept {
  const __m256i ab = _mm256_unpacklo_epi64(x.a, x.b), ab_odd = _mm256_unpackhi_epi64(x.a, x.b);
  const __m256i cd = _mm256_unpacklo_epi64(x.c, x.d), cd_odd = _mm256_unpackhi_epi64(x.c, x.d);
  auto* to = reinterpret_cast<__m256i*>(words);
  _mm256_storeu_si256(to, _mm256_permute2x128_si256(ab, cd, 0x20));
  _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(ab_odd, cd_odd, 0x20));
  _mm256_storeu_si256(to + 2, _mm256_permute2x128_si256(ab, cd, 0x31));
  _mm256_storeu_si256(to + 3, _mm256_permute2x128_si256(ab_odd, cd_odd, 0x31));
}

}  // namespace

void philox_avx2(const std::uint64_t (*keys)[2], std::uint64_t first, std::uint64_t* words) noexcept {
  const __m256i zero = _mm256_setzero_si256();
  __m256i next = _mm256_add_epi64(_mm256_set1_epi64x(static_cast<std::int64_t>(first)), _mm256_setr_epi64x(0, 1, 2, 3));
  for (std::size_t at = 0; at < philox_words; at += 16 * together) {
    Four fours[together];
    for (Four& four : fours) {
      four = {next, zero, zero, zero};
      next = _mm256_add_epi64(next, _mm256_set1_epi64x(4));
    }
#pragma GCC unroll 10
    for (std::size_t round = 0; round < philox_rounds; ++round) {
      for (Four& four : fours) {
        const Product left = multiply(four.a, philox_multiplier[0]), right = multiply(four.c, philox_multiplier[1]);
        four = {mixed(right.high, four.b, keys[round][0]), right.low, mixed(left.high, four.d, keys[round][1]),
                left.low};
      }
    }
    for (std::size_t i = 0; i < together; ++i) store(fours[i], words + at + 16 * i);
  }
}

}  // namespace coinfer::isa
#endif
