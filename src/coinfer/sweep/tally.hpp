// vectors(), one run of rows, once per instruction set. Only the population count differs, and integers are equal.
#pragma once

#include <cstddef>
#include <cstdint>

namespace coinfer::isa {

inline constexpr std::size_t set_words = 8;
inline constexpr std::size_t set_rows = 64 * set_words;

/// One run of rows. reached[cut]: a set per distinct threshold of that stage; at[vector][cut]: which of them; flags[q *
/// (cuts + 1) + stage]: the rows whose flag is set; settled[stage][vector] and sums[q][vector] are added to.
struct Run {
  const std::uint64_t* const* reached;
  const std::uint32_t* at;
  const std::uint64_t* const* flags;
  const std::uint64_t* rows;
  std::size_t vectors;
  std::size_t cuts;
  std::size_t quantities;
  std::int64_t* settled;
  std::int64_t* sums;
};

using Tally = void (*)(const Run& run) noexcept;

void tally_baseline(const Run&) noexcept;
#if defined(__x86_64__)
void tally_avx2(const Run&) noexcept;
void tally_avx512(const Run&) noexcept;
#endif

}  // namespace coinfer::isa
