// A plan: what one ingress node does with a request. Stages, each a group of deployments to consult; a combiner; a stop
// rule.
//
// judge() is the only place where a stop is decided. It is inlined in every loop: bulk decisions, the event engines and
// the live session, so that replay and live cannot differ.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "coinfer/combine/combiner.hpp"
#include "coinfer/status.hpp"

namespace coinfer {

inline constexpr std::size_t max_stages = 255;

/// What a stop rule sees. Before the first stage, `stage` is -1 and there is no label.
struct View {
  std::int64_t stage = 0;
  float score = 0.0F;
  Label label = no_answer;
  float wait_us = 0.0F;       // estimated wait ahead at the next stage
  float remaining_us = 0.0F;  // until the deadline; +inf without one
  double uniform = 0.0;       // one draw per request and stage
};

/// A rule of one's own: how many stages to advance (0 stops). `jumps`: it may advance by more than one; `opens`: it
/// also chooses the first stage, asked with stage -1. Where it does not jump, it is never asked about a row without an
/// answer. `block` is the same rule for many rows of one stage: go[row] is whether it goes on; `gaps` says that some
/// rows hold no answer. `per_request`: it looks at more than stage, label and score, or changes its state.
struct Rule {
  std::int32_t (*advance)(void* state, const View* view) = nullptr;
  void (*block)(const void* state, std::int64_t stage, std::int64_t rows, std::int64_t gaps, const Label* labels,
                const float* scores, std::uint8_t* go) = nullptr;
  void (*learn)(void* state, const View* view, Label later) = nullptr;
  void* state = nullptr;
  bool jumps = false;
  bool opens = false;
  bool per_request = false;
};

/// Members [first, first + count) of the plan, consulted together; the built-in rule stops iff
/// curve(score) >= threshold - per_us x wait. NaN goes on.
struct Stage {
  std::uint32_t first = 0;
  std::uint32_t count = 0;
  float threshold = 0.0F;
  float per_us = 0.0F;
  const Curve* curve = nullptr;
};

struct Plan {
  std::uint32_t ingress = 0;
  std::vector<Member> members;
  std::vector<Stage> stages;
  std::shared_ptr<const Combiner> combiner;
  Rule rule;
  bool oracle = false;  // knows the truth: stops at the first right answer, else at the first stage; replay only
  std::vector<std::shared_ptr<const Curve>> curves;  // owns what stages and members point to
  std::vector<std::shared_ptr<const void>> held;     // and what its rules do

  /// Whether a decision depends on the sample alone, not on queues, deadlines or what was learned before.
  bool state_independent() const noexcept {
    if (rule.learn != nullptr || rule.per_request) return false;
    for (const Stage& stage : stages) {
      if (stage.per_us != 0.0F) return false;
    }
    return true;
  }
};

/// Refuse a plan that no engine could run, with std::invalid_argument that says why.
void validate(const Plan& plan);

/// The index of the stage where a request starts.
inline std::size_t first_stage(const Plan& plan, View view) noexcept {
  if (plan.rule.advance == nullptr || !plan.rule.opens) return 0;
  view.stage = -1;
  view.label = no_answer;
  const auto most = static_cast<std::int32_t>(plan.stages.size());
  const std::int32_t steps = plan.rule.advance(plan.rule.state, &view);
  return static_cast<std::size_t>((steps < 1 ? 1 : steps > most ? most : steps) - 1);
}

/// How many stages to advance; 0 settles here. `can_go`: a later stage exists, is reachable and can finish in time.
inline std::int32_t judge(const Plan& plan, const View& view, bool can_go) noexcept {
  if (!can_go) return 0;
  if (plan.rule.advance != nullptr) {
    const std::int32_t least = view.label < 0 ? 1 : 0;
    if (least == 1 && !plan.rule.jumps) return 1;
    const auto left = static_cast<std::int32_t>(static_cast<std::int64_t>(plan.stages.size()) - 1 - view.stage);
    const std::int32_t most = plan.rule.jumps ? left : 1;
    const std::int32_t steps = plan.rule.advance(plan.rule.state, &view);
    return steps < least ? least : steps > most ? most : steps;
  }
  const Stage& stage = plan.stages[static_cast<std::size_t>(view.stage)];
  const float value = stage.curve == nullptr ? view.score : (*stage.curve)(view.score);
  const float bar = stage.per_us == 0.0F ? stage.threshold : stage.threshold - stage.per_us * view.wait_us;
  const int stops =
      static_cast<int>(view.label >= 0) & static_cast<int>(value >= bar);  // no branch: nobody could guess
  return 1 - stops;
}

}  // namespace coinfer
