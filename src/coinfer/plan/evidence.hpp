// Evidence: label and score of the running answer at every stage, for every sample. Computed once per distinct
// (members, groups, combiner, score, calibration), shared by every ingress node and every threshold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "coinfer/plan/plan.hpp"

namespace coinfer {

/// Everything is [stage][row]. A score is NaN unless its label is a class, so the built-in stop rule need not look at
/// labels. A stage that nobody answered repeats the answer before it, unless the plan's rule may have skipped that one:
/// then it has none, and standing() finds the answer along the way that was taken.
struct Evidence {
  std::size_t stages = 0;
  std::size_t rows = 0;
  std::vector<Label> label;
  std::vector<float> score;
  std::vector<std::uint8_t> missed;  // members of this stage that gave no answer: 0 none, 1 some, 2 all; empty if all 0
  std::vector<std::uint64_t> missed_rows;  // per stage
  std::vector<std::uint64_t> unsure_rows;  // per stage: rows whose score is NaN

  const Label* labels(std::size_t stage) const noexcept { return label.data() + stage * rows; }
  const float* scores(std::size_t stage) const noexcept { return score.data() + stage * rows; }
  int miss(std::size_t stage, std::size_t row) const noexcept {
    return missed.empty() ? 0 : missed[stage * rows + row];
  }
};

/// The stage whose answer stands after the visited ones: the newest that anybody answered, else the first.
inline std::uint8_t standing(const Evidence& evidence, std::span<const std::uint8_t> visited,
                             std::size_t row) noexcept {
  for (std::size_t at = visited.size(); at-- > 1;) {
    if (evidence.miss(visited[at], row) < 2) return visited[at];
  }
  return visited.front();
}

/// Run the combiner over all rows. `by_model` is indexed by Member::model; all have equal rows.
Evidence gather(const Plan& plan, std::span<const Outputs> by_model, unsigned threads = 1);

}  // namespace coinfer
