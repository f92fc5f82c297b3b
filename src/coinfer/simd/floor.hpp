// The least that a pass over memory costs: reading the input, or reading it and writing the results. Benchmarks quote
// their times as multiples of these, measured in the same run.
#pragma once

#include <cstddef>
#include <cstdint>

namespace coinfer::simd {

/// Read `count` floats; returns their sum so that no compiler leaves the reading out.
using Read = float(const float* data, std::size_t count) noexcept;
Read read_baseline, read_avx2, read_avx512;

/// Read `count` floats and meanwhile write `written` floats past the caches; `out` lies on a 64-byte boundary.
using ReadWrite = float(const float* data, std::size_t count, float* out, std::size_t written) noexcept;
ReadWrite read_write_baseline, read_write_avx2, read_write_avx512;

namespace {

template <class L>
float read(const float* data, std::size_t count) {
  typename L::Float sum[4] = {L::fill(0.0F), L::fill(0.0F), L::fill(0.0F), L::fill(0.0F)};
  for (std::size_t i = 0; i + 64 <= count; i += 64) {
    for (std::size_t k = 0; k < 4; ++k) sum[k] = sum[k] + L::load(data + i + 16 * k);
  }
  float lanes[16];
  L::store(lanes, (sum[0] + sum[1]) + (sum[2] + sum[3]));
  return lanes[0];
}

template <class L>
float read_write(const float* data, std::size_t count, float* out, std::size_t written) {
  constexpr std::size_t step = 1024;  // floats of the results at a time
  const std::size_t steps = written / step, read_step = steps == 0 ? 0 : count / steps / 64 * 64;
  float sum = 0.0F;
  for (std::size_t i = 0; i < steps; ++i) {
    sum += read<L>(data + i * read_step, read_step);
    const typename L::Float value = L::fill(sum);
    for (std::size_t k = 0; k < step; k += 16) L::stream(out + i * step + k, value);
  }
  L::fence();
  return sum;
}

}  // namespace
}  // namespace coinfer::simd
