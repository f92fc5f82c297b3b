#include "coinfer/drawing/philox.hpp"

namespace coinfer::isa {
namespace {

__extension__ using Wide = unsigned __int128;

std::uint64_t high(Wide product) noexcept { return static_cast<std::uint64_t>(product >> 64); }
std::uint64_t low(Wide product) noexcept { return static_cast<std::uint64_t>(product); }

}  // namespace

void philox_baseline(const std::uint64_t (*keys)[2], std::uint64_t first, std::uint64_t* words) noexcept {
  for (std::size_t at = 0; at < philox_words; at += 4) {
    std::uint64_t a = first++, b = 0, c = 0, d = 0;
    for (std::size_t round = 0; round < philox_rounds; ++round) {
      const Wide left = Wide{philox_multiplier[0]} * a;
      const Wide right = Wide{philox_multiplier[1]} * c;
      a = high(right) ^ b ^ keys[round][0];
      b = low(right);
      c = high(left) ^ d ^ keys[round][1];
      d = low(left);
    }
    words[at] = a;
    words[at + 1] = b;
    words[at + 2] = c;
    words[at + 3] = d;
  }
}

}  // namespace coinfer::isa
