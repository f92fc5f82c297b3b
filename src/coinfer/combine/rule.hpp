// Scores and combiners of one's own: functions compiled elsewhere, called by address, a block of rows at a time.
//
// Contract. A function gets contiguous rows of float32 and may not fail. Rows may not look at each other, so a block of
// any size gives the same bits, one live request included. A score is asked for rows that hold an answer only; others
// have NaN. A combiner sees the members that answered, compacted, in the order in which they were added: one that gave
// no answer, or abstains, is not there. What it writes is read as probabilities by score(): the label is the largest
// entry (the lowest of equals), a row with a NaN, a negative or infinite entry, or no entry above 0, is no answer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "coinfer/combine/combiner.hpp"
#include "coinfer/combine/pool.hpp"

namespace coinfer {

/// out[row][class] from tables[member][row x stride[member] + class] and one weight each. `scratch` holds members x
/// classes floats; `bits` is the same memory, for a function that copies and checks them as integers. rare[row] is set
/// where some number cannot be a probability (or is -0): what is made of that row does not count.
using CombineBlock = void (*)(std::int64_t rows, std::int64_t members, std::int64_t classes, const float* const* tables,
                              const std::int64_t* strides, const float* weights, void* bits, float* scratch, float* out,
                              std::uint8_t* rare);

/// Labels (in the model's own classes) and scores of every row. Throws std::invalid_argument if the rule needs what the
/// model does not give.
void score(const ScoreRule& rule, const Outputs& outputs, float temperature, Label* labels, float* scores,
           unsigned threads = 1);

/// State per row: the members' probabilities and weights, how many were added, and the first abstention.
class RuleCombiner final : public Combiner {
 public:
  /// `all`: the same function, compiled for exactly so many members; called where all of them answered.
  RuleCombiner(CombineBlock block, CombineBlock all, std::size_t members, std::size_t classes,
               Kind score = Kind::max_prob);

  std::size_t state_floats() const noexcept override { return members_ * (classes_ + 1) + 3; }
  bool memoryless() const noexcept override { return false; }
  void begin(float* state, std::size_t rows) const override;
  void add(float* state, const Member& member, const Outputs& block, std::uint8_t* answered) const override;
  void answer(const float* state, std::size_t rows, std::size_t stage, Label* labels, float* scores) const override;

  std::size_t classes() const noexcept override { return classes_; }
  Kind score() const noexcept override { return score_; }
  void results(const float* state, std::size_t rows, const Combined& out) const override;
  /// Tables of probabilities are read where they are.
  bool at_once(std::span<const Member> members, std::span<const Outputs> outputs, const Combined& out,
               std::uint8_t* answered) const override;

  /// Several results of a block at once (`to.label` is one of them), and what the rule made of it: rows x classes.
  void answer(const float* state, std::size_t rows, const Scores& to, float* made) const;

  /// The function for so many members.
  CombineBlock block(std::size_t members) const noexcept { return members == members_ ? all_ : block_; }

 private:
  CombineBlock block_;
  CombineBlock all_;
  std::size_t members_;
  std::size_t classes_;
  Kind score_;
};

}  // namespace coinfer
