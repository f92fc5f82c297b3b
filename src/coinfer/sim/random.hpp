// Counter-based random numbers: Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11).
//
// A draw is a pure function of (seed, stream) and (request, deployment or link, attempt, draw): it does not matter who
// asks, when, or on which thread, and strategies that are compared on one trace share their draws.
#pragma once

#include <array>
#include <cstdint>

namespace coinfer {

using Block = std::array<std::uint32_t, 4>;

constexpr Block philox(Block counter, std::array<std::uint32_t, 2> key) noexcept {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53U} * counter[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57U} * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key[0] += 0x9E3779B9U;
    key[1] += 0xBB67AE85U;
  }
  return counter;
}

/// What a draw is for. Streams never share numbers.
enum class Stream : std::uint32_t { service, jitter, rule, retry };

/// Two uniforms in (0, 1), 53 bits each, for one request and one place (deployment or link).
inline std::array<double, 2> uniforms(std::uint64_t seed, Stream stream, std::uint64_t request, std::uint32_t place,
                                      std::uint32_t draw) noexcept {
  const auto folded = static_cast<std::uint32_t>(seed >> 32) ^ (static_cast<std::uint32_t>(stream) * 0x9E3779B9U);
  const Block bits =
      philox({static_cast<std::uint32_t>(request), static_cast<std::uint32_t>(request >> 32), place, draw},
             {static_cast<std::uint32_t>(seed), folded});
  const auto unit = [](std::uint32_t high, std::uint32_t low) {
    const std::uint64_t wide = (std::uint64_t{high} << 32) | low;
    return (static_cast<double>(wide >> 11) + 0.5) * 0x1.0p-53;
  };
  return {unit(bits[0], bits[1]), unit(bits[2], bits[3])};
}

}  // namespace coinfer
