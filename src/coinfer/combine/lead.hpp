// A running sum that is scored by its lead: the statistic of rules that stop once nothing, or little, can catch up.
//
// Contract. State and label: Pool. The score is the largest running sum minus the second-largest (of one class: the
// sum), in units of weight: votes, or w times probabilities, or w times logarithms to base 2. Sums are raw, not divided
// by the weight that is present, because what a member to come can change is its own weight whoever is absent; a member
// that says nothing or abstains changes no lead. Rounded down to float32, so that score >= t implies lead >= t; exact
// for votes below 2^24.
#pragma once

#include "coinfer/combine/pool.hpp"

namespace coinfer {

/// How far the sum of `label` is ahead of all others.
double lead(std::span<const double> sums, Label label) noexcept;

/// The largest float32 that is not above `value`.
float rounded_down(double value) noexcept;

class Lead final : public Combiner {
 public:
  Lead(How how, std::size_t classes) : pool_(how, classes) {}

  std::size_t state_floats() const noexcept override { return pool_.state_floats(); }
  bool memoryless() const noexcept override { return false; }
  void begin(float* state, std::size_t rows) const override { pool_.begin(state, rows); }
  void add(float* state, const Member& member, const Outputs& block, std::uint8_t* answered) const override {
    pool_.add(state, member, block, answered);
  }
  void answer(const float* state, std::size_t rows, std::size_t stage, Label* labels, float* scores) const override;
  std::size_t classes() const noexcept override { return pool_.classes(); }

 private:
  Pool pool_;
};

}  // namespace coinfer
