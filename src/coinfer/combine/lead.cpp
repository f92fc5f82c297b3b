#include "coinfer/combine/lead.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace coinfer {

double lead(std::span<const double> sums, Label label) noexcept {
  const auto top = static_cast<std::size_t>(label);
  if (sums.size() == 1) return sums[0];
  double second = -std::numeric_limits<double>::infinity();
  for (std::size_t k = 0; k < top; ++k) second = std::max(second, sums[k]);
  for (std::size_t k = top + 1; k < sums.size(); ++k) second = std::max(second, sums[k]);
  return sums[top] - second;
}

float rounded_down(double value) noexcept {
  const auto nearest = static_cast<float>(value);
  if (static_cast<double>(nearest) <= value || std::isnan(value)) return nearest;
  return std::nextafter(nearest, -std::numeric_limits<float>::infinity());
}

void Lead::answer(const float* state, std::size_t rows, std::size_t /*stage*/, Label* labels, float* scores) const {
  pool_.results(state, rows, {.label = labels});
  const Pool::Sums sums = pool_.sums(state, rows);
  for (std::size_t row = 0; row < rows; ++row) {
    scores[row] =
        labels[row] < 0 ? std::numeric_limits<float>::quiet_NaN() : rounded_down(lead(sums[row], labels[row]));
  }
}

}  // namespace coinfer
