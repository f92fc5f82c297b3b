#include "coinfer/simd/baseline.hpp"

#include "coinfer/simd/floor.hpp"

namespace coinfer::simd {

float read_baseline(const float* data, std::size_t count) noexcept { return read<Baseline>(data, count); }

float read_write_baseline(const float* data, std::size_t count, float* out, std::size_t written) noexcept {
  return read_write<Baseline>(data, count, out, written);
}

}  // namespace coinfer::simd
