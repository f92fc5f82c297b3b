// Confidence scores of a batch of answers, every wanted kind and the label in one pass over memory.
//
// Contract. Input: rows x classes, float32 or float64 (rounded to float32 on load), any strides, logits or
// probabilities, one temperature 1e-30 <= T <= 1e30. Output: float32, one value per row and kind, and the label (the
// lowest index of the largest entry).
//   max_prob      p1, the largest probability of softmax(z / T)
//   margin        p1 - p2; p1 when C = 1
//   entropy       1 - H(p) / ln C; 1 when C = 1
//   gini          sum p^2
//   energy        T logsumexp(z / T); logits only
//   logit_margin  (z1 - z2) / T, +inf when C = 1 or z1 - z2 is too large for float32; logits only
// Probabilities with T != 1 are tempered as softmax(ln p / T); with T = 1 they are used as they are.
// A row that holds a NaN is no answer, and neither is a row of probabilities with a negative or infinite entry or with
// no entry above 0: its label is -1 and all its scores are NaN; such rows are counted in the result.
// Infinite logits are limits: the +inf entries share the mass equally, a row of only -inf is uniform.
// A row's bits depend on its own values and on C alone: not on its position, the batch, strides, alignment, threads or
// ISA, nor on which results are wanted.
//
// Error against float64, from logits: at most 5e-7 in max_prob and margin, 1e-6 in entropy and gini, 5e-7 of the
// largest of |z1|, T and itself in energy, 2e-7 of itself in logit_margin; from probabilities 2e-6. Measured over C = 2
// to 2000, T = 0.05 to 20, with ties, -inf and denormals: half of that at most. From 129 classes on, rows of one entry
// above many equal ones, whose rounding errors have one sign, reach twice these bounds. Labels are exact.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "coinfer/outputs.hpp"

namespace coinfer {

enum class Kind : std::uint8_t { max_prob, margin, entropy, energy, logit_margin, gini };
inline constexpr std::size_t kind_count = 6;

struct Vectors {
  const void* data = nullptr;
  bool float64 = false;
  bool probs = false;
  std::size_t rows = 0;
  std::size_t classes = 0;
  std::ptrdiff_t row_stride = 0;    // in elements
  std::ptrdiff_t class_stride = 1;  // in elements
  float temperature = 1.0F;
};

/// Where the results go; a null pointer is a result that nobody wants and that costs nothing.
struct Scores {
  Label* label = nullptr;
  std::array<float*, kind_count> kind{};
};

/// Score every row. Returns how many rows held no answer.
std::size_t score(const Vectors& vectors, const Scores& out, unsigned threads = 1);

}  // namespace coinfer
