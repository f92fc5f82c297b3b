#include "coinfer/simd/floor.hpp"

#include "coinfer/cpu.hpp"

namespace coinfer {

float read_floor(std::span<const float> data) noexcept {
  switch (implementations().back()) {
#if defined(__x86_64__)
    case Isa::avx512: return simd::read_avx512(data.data(), data.size());
    case Isa::avx2: return simd::read_avx2(data.data(), data.size());
#endif
    default: return simd::read_baseline(data.data(), data.size());
  }
}

float read_write_floor(std::span<const float> data, std::span<float> out) noexcept {
  switch (implementations().back()) {
#if defined(__x86_64__)
    case Isa::avx512: return simd::read_write_avx512(data.data(), data.size(), out.data(), out.size());
    case Isa::avx2: return simd::read_write_avx2(data.data(), data.size(), out.data(), out.size());
#endif
    default: return simd::read_write_baseline(data.data(), data.size(), out.data(), out.size());
  }
}

}  // namespace coinfer
