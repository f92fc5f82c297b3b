// Where to go next by the label and score of the first stage: one row of a table per class (Chen, Zaharia, Zou,
// "FrugalML", NeurIPS 2020). What answers then is taken, unless it abstains.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "coinfer/plan/plan.hpp"

namespace coinfer {

/// One entry per class, then one for requests without an answer. Settles iff score >= cut; a cut of -inf settles
/// whatever the score, none (NaN) included. Otherwise goes `steps` stages ahead; abstentions always do.
struct Route {
  std::vector<float> cut;
  std::vector<std::int32_t> steps;
};

/// The rule: `route` is a Route. Never fails; labels behind the table go to the next stage.
inline std::int32_t follow(void* route, const View* view) noexcept {
  if (view->stage != 0) return 0;
  const auto& table = *static_cast<const Route*>(route);
  const std::size_t none = table.cut.size() - 1;
  const Label of = view->label >= 0 ? view->label : -2 - view->label;  // the class, or the one it abstains by
  const std::size_t at = view->label == no_answer ? none : static_cast<std::size_t>(of);
  if (at >= table.cut.size()) return 1;
  const float cut = table.cut[at];
  const bool sure = view->score >= cut || cut == -std::numeric_limits<float>::infinity();
  return view->label >= 0 && sure ? 0 : table.steps[at];
}

}  // namespace coinfer
