// One live request going through its plan: the same combiner and the same judge() as in bulk, a row at a time.
//
//   while (session.status() == Status::open) { for (m : session.ask()) consult it; session.tell(m, outputs);
//   session.step(...); }
//
// Misuse (telling a member that was not asked, stepping a settled session) throws std::logic_error.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "coinfer/plan/plan.hpp"

namespace coinfer {

class Session {
 public:
  /// `uniform`: the draw that the rule sees before the first stage. Refuses the oracle, which knows what no one can.
  explicit Session(std::shared_ptr<const Plan> plan, double uniform = 0.0);

  /// Indices into the plan's members: the group to consult now.
  std::span<const std::uint32_t> ask() const noexcept { return asked_; }

  /// One member's answer (a single row, copied), in whatever order answers arrive. A member that erred is not told.
  void tell(std::uint32_t member, const Outputs& outputs);

  /// Close the stage with what was told: combine in plan order, then judge. Members that did not answer were late if
  /// no time remains.
  Status step(float wait_us = 0.0F, float remaining_us = std::numeric_limits<float>::infinity(), double uniform = 0.0,
              bool can_go = true);

  /// End from outside: the deadline passed, or no further stage can be reached. The best answer so far stands.
  Status settle(bool late);

  Status status() const noexcept { return status_; }
  std::size_t stage() const noexcept { return stage_; }
  Label label() const noexcept { return label_; }
  float score() const noexcept { return score_; }
  std::span<const std::uint8_t> visited() const noexcept { return visited_; }
  const Plan& plan() const noexcept { return *plan_; }

 private:
  struct Told {
    bool here = false;
    Outputs outputs;
    std::vector<float> vector;
    std::vector<Label> relabel;
    Label label = no_answer;
    float confidence = 0.0F;
  };

  void enter(std::size_t stage);

  std::shared_ptr<const Plan> plan_;
  std::vector<float> state_;
  std::vector<std::uint32_t> asked_;
  std::vector<Told> told_;
  std::vector<std::uint8_t> visited_;
  std::size_t stage_ = 0;
  Status status_ = Status::open;
  Label label_ = no_answer;
  float score_ = std::numeric_limits<float>::quiet_NaN();
};

}  // namespace coinfer
