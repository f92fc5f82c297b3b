// settle(), once per instruction set. Comparisons and bytes only, so every set gives the same result by construction.
#pragma once

#include <cstddef>
#include <cstdint>

namespace coinfer::isa {

using Settle = void (*)(const float* scores, std::size_t rows, std::size_t stages, const float* thresholds,
                        std::uint8_t* settled) noexcept;

void settle_baseline(const float*, std::size_t, std::size_t, const float*, std::uint8_t*) noexcept;
#if defined(__x86_64__)
void settle_avx2(const float*, std::size_t, std::size_t, const float*, std::uint8_t*) noexcept;
void settle_avx512(const float*, std::size_t, std::size_t, const float*, std::uint8_t*) noexcept;
#endif

}  // namespace coinfer::isa
