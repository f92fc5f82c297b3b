#include "coinfer/combine/agreement.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <utility>

#include "coinfer/combine/lead.hpp"

namespace coinfer {

// State: the votes of this stage, then the labels (as bits) that stood before it.

Agreement::Agreement(std::size_t classes, std::vector<std::size_t> members)
    : members_(std::move(members)), pool_(How::vote, classes) {}

void Agreement::begin(float* state, std::size_t rows) const {
  pool_.begin(state, rows);
  std::fill_n(reinterpret_cast<Label*>(state + rows * pool_.state_floats()), rows, no_answer);
}

void Agreement::open(float* state, std::size_t rows) const {
  auto* before = reinterpret_cast<Label*>(state + rows * pool_.state_floats());
  std::vector<Label> newest(rows);
  pool_.results(state, rows, {.label = newest.data()});
  for (std::size_t row = 0; row < rows; ++row) {
    if (newest[row] != no_answer) before[row] = newest[row];
  }
  pool_.begin(state, rows);
}

void Agreement::add(float* state, const Member& member, const Outputs& block, std::uint8_t* answered) const {
  if (member.weight != 1.0) throw std::invalid_argument("agreement counts members of equal weight 1");
  pool_.add(state, member, block, answered);
}

void Agreement::answer(const float* state, std::size_t rows, std::size_t stage, Label* labels, float* scores) const {
  const auto* before = reinterpret_cast<const Label*>(state + rows * pool_.state_floats());
  const auto asked = static_cast<double>(members_.at(stage));
  pool_.results(state, rows, {.label = labels});
  const Pool::Sums sums = pool_.sums(state, rows);
  for (std::size_t row = 0; row < rows; ++row) {
    scores[row] = std::numeric_limits<float>::quiet_NaN();
    if (labels[row] == no_answer)
      labels[row] = before[row];
    else if (labels[row] >= 0) {
      const std::span<const double> votes = sums[row];
      const bool unique = lead(votes, labels[row]) > 0.0;
      scores[row] = unique ? static_cast<float>(votes[static_cast<std::size_t>(labels[row])] / asked) : 0.0F;
    }
  }
}

}  // namespace coinfer
