// What pool.cpp hands to the kernels of one instruction set: plain data, so that no inline code is shared between files
// that are compiled for different instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

namespace coinfer::pooling {

enum class Source : std::uint8_t { logits, probs, tempered };

/// Factors of equal weight whose logarithm is still to be added: per row `count` of them (none: nothing is to be added)
/// and their weight, and per class the product of their mantissas and the sum of their exponents.
struct Products {
  float* mantissa;
  std::int32_t* exponent;
  double* weight;
  std::int32_t* count;
};

inline constexpr std::int32_t most_factors = 8;

/// One member's vectors for a block of rows, to be added to the running sums. `pitch` is the number of doubles between
/// rows of `sums`: the shared classes, rounded up to sixteen. `scratch` holds 32 x pitch floats.
struct Add {
  const float* data;
  std::ptrdiff_t stride;
  std::size_t rows;
  std::size_t classes;  // of this member
  std::size_t shared;   // of all
  std::size_t pitch;
  const std::int32_t* relabel;  // null: its classes are the shared ones
  Source source;
  bool logs;    // add logarithms, not probabilities
  float scale;  // exponents of 2 per unit: log2(e) / T for logits, 1 / T for tempered probabilities
  double weight;
  const std::uint8_t* skip;  // rows to leave out; null: none
  double* sums;
  Products products;       // of logs
  double* total;           // weight that was added, per row
  std::uint8_t* answered;  // increased where this member gave an answer
  float* scratch;
};

/// The sums with what is still to be added to them.
struct Settle {
  const double* sums;
  Products products;
  std::size_t rows;
  std::size_t pitch;
  double* out;
};

/// Results, each null if nobody wants it. `probs` has `classes` floats per row.
struct Results {
  std::int32_t* label;
  float* max_prob;
  float* margin;
  float* probs;
};

/// From sums to answers. Rows that nobody answered get the label in `otherwise`, and NaN.
struct Finish {
  const double* sums;
  const double* total;
  const std::int32_t* otherwise;
  std::size_t rows;
  std::size_t classes;
  std::size_t pitch;
  bool logs;
  Results out;
  float* scratch;  // 16 x pitch floats
};

inline constexpr std::size_t most_members = 64;  // that Joint takes

/// All members at once, where each gives probabilities of all classes: nothing is stored between reading and answering.
/// Rows that need a closer look (a member left out, a tie) are marked in `rare`, sixteen rows to a word, and their
/// results must be worked out through Add and Finish.
struct Joint {
  const float* const* data;
  const std::ptrdiff_t* stride;
  const double* weight;
  std::size_t members;
  std::size_t rows;
  std::size_t classes;
  bool logs;
  Results out;
  float* scratch;  // 16 x pitch + 16 floats
  std::uint16_t* rare;
};

inline constexpr std::size_t most_voted = std::size_t{1} << 22;  // classes whose numbers float32 holds with ease

/// One vote per member for its label, all members at once. Marked in `rare`: rows where a label is not a class, and
/// rows where float32 cannot tell the first from the second.
struct Votes {
  const std::int32_t* const* label;
  const double* weight;
  std::size_t members;
  std::size_t rows;
  std::size_t classes;
  Results out;  // without probs
  std::uint16_t* rare;
};

using AddKernel = void(const Add&) noexcept;
using SettleKernel = void(const Settle&) noexcept;
using FinishKernel = void(const Finish&) noexcept;
using JointKernel = void(const Joint&) noexcept;
AddKernel add_baseline, add_avx2, add_avx512;
SettleKernel settle_baseline, settle_avx2, settle_avx512;
FinishKernel finish_baseline, finish_avx2, finish_avx512;
using VotesKernel = void(const Votes&) noexcept;
JointKernel joint_baseline, joint_avx2, joint_avx512;
VotesKernel votes_baseline, votes_avx2, votes_avx512;

}  // namespace coinfer::pooling
