// What score.cpp hands to the kernel of one instruction set: plain data, so that no inline code is shared between files
// that are compiled for different instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

namespace coinfer::scoring {

enum class Input : std::uint8_t { logits, probs, tempered };

/// Rows of float32 with unit stride along a row, and where the results go (null: not wanted).
struct Task {
  const float* data;
  std::ptrdiff_t stride;
  std::size_t rows;
  std::size_t classes;
  Input input;
  bool stream;  // results are too many for the caches
  float temperature;
  float scale;         // log2(e) / T: powers of 2 per unit of logit; 1 / T for probabilities, whose logits are in bits
  float least;         // -125 / scale
  float energy_scale;  // T ln 2
  float inverse_entropy;  // 1 / log2(C), the entropy of a uniform row; 0 when C = 1
  std::int32_t* label;
  float* max_prob;
  float* margin;
  float* entropy;
  float* energy;
  float* logit_margin;
  float* gini;
};

/// Each returns how many rows held no answer.
using Kernel = std::size_t(const Task&) noexcept;
Kernel score_baseline, score_avx2, score_avx512;

/// The rows that the kernels do not compute: those with a NaN or an infinite maximum. True if the row holds no answer.
bool score_special(const Task& task, std::size_t row) noexcept;

}  // namespace coinfer::scoring
