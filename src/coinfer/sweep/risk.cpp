#include "coinfer/sweep/risk.hpp"

#include <algorithm>
#include <cmath>

namespace coinfer {

double betting(std::span<const std::int8_t> losses, double bound, double delta) noexcept {
  const double mean_bound = (bound + 1.0) / 2.0;
  const double scale = 2.0 * std::log(1.0 / delta) / static_cast<double>(std::max<std::size_t>(losses.size(), 1));
  double sum = 0.5;       // of losses so far, and half a loss to begin with
  double squares = 0.25;  // of their distances from the running mean
  double variance = 0.25;
  double capital = 1.0;
  double most = 1.0;
  double seen = 1.0;
  for (const std::int8_t each : losses) {
    const double loss = (static_cast<double>(each) + 1.0) / 2.0;
    const double stake = std::min(1.0, std::sqrt(scale / variance));
    capital *= 1.0 - stake * (loss - mean_bound);
    most = std::max(most, capital);
    if (capital > 1e250) break;
    sum += loss;
    seen += 1.0;
    const double away = loss - sum / seen;
    squares += away * away;
    variance = squares / seen;
  }
  return 1.0 / most;
}

}  // namespace coinfer
