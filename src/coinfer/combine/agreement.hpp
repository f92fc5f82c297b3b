// Votes within one stage, scored by the share that agrees: a tier's small ensemble answers for itself.
//
// Contract. Each stage votes anew. The label has the most votes (the lowest of equals); the score is its votes divided
// by the number of members of the stage, whoever answered, in double, rounded to float32 once; 0 where two labels have
// the most. An abstention is no vote; a stage that only abstained gives that abstention. Where nobody answered, the
// answer of the stage before stands.
#pragma once

#include <vector>

#include "coinfer/combine/pool.hpp"

namespace coinfer {

class Agreement final : public Combiner {
 public:
  /// `members`: per stage, how many are asked.
  Agreement(std::size_t classes, std::vector<std::size_t> members);

  std::size_t state_floats() const noexcept override { return pool_.state_floats() + 1; }
  bool memoryless() const noexcept override { return true; }
  void begin(float* state, std::size_t rows) const override;
  void open(float* state, std::size_t rows) const override;
  void add(float* state, const Member& member, const Outputs& block, std::uint8_t* answered) const override;
  void answer(const float* state, std::size_t rows, std::size_t stage, Label* labels, float* scores) const override;
  std::size_t classes() const noexcept override { return pool_.classes(); }

 private:
  std::vector<std::size_t> members_;
  Pool pool_;
};

}  // namespace coinfer
