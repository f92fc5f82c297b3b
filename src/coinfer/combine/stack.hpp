// A combiner that was fitted: multinomial logistic regression on what all members say (stacked generalisation, Wolpert
// 1992).
//
// Contract. With x the features of a row (of member after member, class after class: p, or log2 max(p, floor); classes
// that a member does not know have p = 0), z = intercept + coefficient x in double, fused multiply-add, features in
// that order. The answer is the label of the largest z (the lowest of equals, compared as doubles) and, in float32, the
// softmax of z: max_prob and margin, within 1e-6 of their values plus 2^-24 of the largest |z|.
// A member is left out of a row as Pool leaves it out: its row holds a NaN, or it abstains. There is one set of
// coefficients for every set of members that was fitted; a row answered by another set of members has no answer. It is
// never guessed from coefficients that expect someone who is not there. Weights of members are not used.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "coinfer/combine/combiner.hpp"
#include "coinfer/combine/pool.hpp"

namespace coinfer {

class Stack final : public Combiner {
 public:
  static constexpr std::size_t most_members = 64;

  /// One fit. `there`: bit m is set if the member in place m answered.
  struct Model {
    std::uint64_t there = 0;
    std::vector<double> coefficient;  // [class][member][class]
    std::vector<double> intercept;    // [class]
  };

  /// Throws std::invalid_argument if sizes do not fit, a number is not finite, or a set occurs twice.
  Stack(const std::vector<Model>& models, std::size_t members, std::size_t classes, bool logs, double floor,
        Kind score = Kind::max_prob);

  std::size_t state_floats() const noexcept override { return members_ * pool_.state_floats(); }
  bool memoryless() const noexcept override { return false; }
  void begin(float* state, std::size_t rows) const override;
  void add(float* state, const Member& member, const Outputs& block, std::uint8_t* answered) const override;
  void answer(const float* state, std::size_t rows, std::size_t stage, Label* labels, float* scores) const override;

  std::size_t classes() const noexcept override { return pool_.classes(); }
  Kind score() const noexcept override { return pool_.score(); }
  void results(const float* state, std::size_t rows, const Combined& out) const override;
  bool at_once(std::span<const Member> members, std::span<const Outputs> outputs, const Combined& out,
               std::uint8_t* answered) const override;

 private:
  struct Fitted {
    std::vector<double> coefficient;  // [member][class][pitch]: all that one feature adds, side by side
    std::vector<double> intercept;    // [pitch]
  };

  Pool pool_;  // of one member: how features are read
  std::size_t members_;
  std::size_t pitch_;
  double floor_;
  std::unordered_map<std::uint64_t, Fitted> fitted_;
};

}  // namespace coinfer
