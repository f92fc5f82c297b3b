#if defined(__x86_64__)
#include "coinfer/simd/avx2.hpp"

#include "coinfer/simd/floor.hpp"

namespace coinfer::simd {

float read_avx2(const float* data, std::size_t count) noexcept { return read<Avx2>(data, count); }

float read_write_avx2(const float* data, std::size_t count, float* out, std::size_t written) noexcept {
  return read_write<Avx2>(data, count, out, written);
}

}  // namespace coinfer::simd
#endif
