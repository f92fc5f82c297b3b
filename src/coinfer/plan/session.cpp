#include "coinfer/plan/session.hpp"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <utility>

namespace coinfer {

Session::Session(std::shared_ptr<const Plan> plan, double uniform) : plan_(std::move(plan)) {
  validate(*plan_);
  if (plan_->oracle)
    throw std::invalid_argument("the oracle knows the true labels: it can be replayed, never run live");
  state_.resize(plan_->combiner->state_floats());
  plan_->combiner->begin(state_.data(), 1);
  View view;
  view.uniform = uniform;
  enter(first_stage(*plan_, view));
}

void Session::enter(std::size_t stage) {
  stage_ = stage;
  plan_->combiner->open(state_.data(), 1);
  visited_.push_back(static_cast<std::uint8_t>(stage));
  asked_.resize(plan_->stages[stage].count);
  std::iota(asked_.begin(), asked_.end(), plan_->stages[stage].first);
  told_.assign(asked_.size(), Told{});
}

void Session::tell(std::uint32_t member, const Outputs& outputs) {
  if (status_ != Status::open) throw std::logic_error("this request has ended");
  const auto found = std::find(asked_.begin(), asked_.end(), member);
  if (found == asked_.end()) throw std::logic_error("that member was not asked at this stage");
  Told& told = told_[static_cast<std::size_t>(found - asked_.begin())];
  if (told.here) throw std::logic_error("that member has answered already");
  if (outputs.rows != 1) throw std::logic_error("a session takes one row at a time");
  told.here = true;
  told.outputs = outputs;
  if (outputs.vector != nullptr) {
    told.vector.assign(outputs.vector, outputs.vector + outputs.classes);
    told.outputs.vector = told.vector.data();
  }
  if (outputs.label != nullptr) {
    told.label = *outputs.label;
    told.outputs.label = &told.label;
  }
  if (outputs.confidence != nullptr) {
    told.confidence = *outputs.confidence;
    told.outputs.confidence = &told.confidence;
  }
  if (outputs.relabel != nullptr) {
    told.relabel.assign(outputs.relabel, outputs.relabel + outputs.classes);
    told.outputs.relabel = told.relabel.data();
  }
}

Status Session::step(float wait_us, float remaining_us, double uniform, bool can_go) {
  if (status_ != Status::open) throw std::logic_error("this request has ended");
  std::uint8_t answered = 0;
  for (std::size_t i = 0; i < asked_.size(); ++i) {
    if (told_[i].here) {
      plan_->combiner->add(state_.data(), plan_->members[asked_[i]], told_[i].outputs, &answered);
    }
  }
  plan_->combiner->answer(state_.data(), 1, stage_, &label_, &score_);
  if (answered == 0) score_ = std::numeric_limits<float>::quiet_NaN();
  View view;
  view.stage = static_cast<std::int64_t>(stage_);
  view.score = score_;
  view.label = label_;
  view.wait_us = wait_us;
  view.remaining_us = remaining_us;
  view.uniform = uniform;
  const bool last = stage_ + 1 == plan_->stages.size();
  const std::int32_t steps = judge(*plan_, view, can_go && !last);
  if (steps > 0) {
    enter(stage_ + static_cast<std::size_t>(steps));
  } else {
    const bool missing = answered < asked_.size();
    status_ = conclude(label_, missing, missing && !(remaining_us > 0.0F));
  }
  return status_;
}

Status Session::settle(bool late) {
  if (status_ != Status::open) throw std::logic_error("this request has ended");
  status_ = conclude(label_, true, late);
  return status_;
}

}  // namespace coinfer
