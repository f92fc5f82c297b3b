// Philox-4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11) as numpy.random.Philox counts,
// once per instruction set. It stands on 64-bit products of 128 bits; AVX2 puts them together from four of 32-bit
// halves for four counters, which takes two thirds of the time of the multiplier for whole words. AVX-512 runs that,
// too.
#pragma once

#include <cstddef>
#include <cstdint>

namespace coinfer::isa {

inline constexpr std::uint64_t philox_multiplier[2] = {0xD2E7470EE14C6C93U, 0xCA5A826395121157U};
inline constexpr std::size_t philox_rounds = 10;
inline constexpr std::size_t philox_words = 256;  // made in one go: 64 counters

/// Words of the counters `first` and on; keys: of each round. A counter is the low word of four, the others are zero.
using Philox = void (*)(const std::uint64_t (*keys)[2], std::uint64_t first, std::uint64_t* words) noexcept;

void philox_baseline(const std::uint64_t (*keys)[2], std::uint64_t first, std::uint64_t* words) noexcept;
#if defined(__x86_64__)
void philox_avx2(const std::uint64_t (*keys)[2], std::uint64_t first, std::uint64_t* words) noexcept;
#endif

}  // namespace coinfer::isa
