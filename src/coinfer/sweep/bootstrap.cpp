#include "coinfer/sweep/bootstrap.hpp"

#include <limits>
#include <stdexcept>

#include "coinfer/sim/random.hpp"
#include "coinfer/threads.hpp"

namespace coinfer {
namespace {

constexpr std::uint32_t drawing = 0x626F6F74U;  // domains of the counters, so that no two uses share numbers
constexpr std::uint32_t pooling = 0x706F6F6CU;

std::array<std::uint32_t, 2> key_of(std::uint64_t seed) noexcept {
  return {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
}

std::size_t below(std::uint32_t bits, std::size_t count) noexcept {
  return static_cast<std::size_t>((std::uint64_t{bits} * count) >> 32);
}

}  // namespace

std::vector<double> bootstrap(std::span<const double> tops, std::span<const double> bottoms, std::size_t ratios,
                              std::size_t replicates, std::uint64_t seed, unsigned threads) {
  if (ratios == 0 || tops.size() % ratios != 0 || tops.size() != bottoms.size() || tops.empty()) {
    throw std::invalid_argument("tops and bottoms must be [ratio][sample], with at least one of each");
  }
  const std::size_t samples = tops.size() / ratios;
  const std::size_t units = samples <= units_max ? samples : units_max;
  const std::size_t width = 2 * ratios;
  std::vector<double> sums(units * width);  // [unit][tops, then bottoms]
  for (std::size_t i = 0; i < samples; ++i) {
    const std::size_t unit =
        samples <= units_max
            ? i
            : below(philox({static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i >> 32), 0, pooling},
                           key_of(seed))[0],
                    units);
    double* at = sums.data() + unit * width;
    for (std::size_t r = 0; r < ratios; ++r) {
      at[r] += tops[r * samples + i];
      at[ratios + r] += bottoms[r * samples + i];
    }
  }
  std::vector<double> out(ratios * replicates);
  split(replicates, threads, 1, [&](std::size_t begin, std::size_t end) {
    std::vector<double> total(width);
    for (std::size_t b = begin; b < end; ++b) {
      std::fill(total.begin(), total.end(), 0.0);
      for (std::size_t first = 0; first < units; first += 4) {
        const Block bits =
            philox({static_cast<std::uint32_t>(first / 4), 0, static_cast<std::uint32_t>(b), drawing}, key_of(seed));
        for (std::size_t k = 0; k < 4 && first + k < units; ++k) {
          const double* at = sums.data() + below(bits[k], units) * width;
          for (std::size_t w = 0; w < width; ++w) total[w] += at[w];
        }
      }
      for (std::size_t r = 0; r < ratios; ++r) {
        const double bottom = total[ratios + r];
        out[r * replicates + b] = bottom == 0.0 ? std::numeric_limits<double>::quiet_NaN() : total[r] / bottom;
      }
    }
  });
  return out;
}

}  // namespace coinfer
