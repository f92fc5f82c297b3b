// How likely a vote that goes on would end with the label that leads now.
//
// Votes for class k are taken as draws from one distribution over the classes, itself uniform on the simplex (a
// Dirichlet with all parameters 1). After counts n_k, r votes to come are then Dirichlet-multinomial, and
//   P(agree) = sum_j P(x_top = j, n_k + x_k < n_top + j for all other k)
// (a tie counts as changed: which label then wins depends on its number). Everything but the sum over j is a product
// over classes under one constraint on the total, that is, a coefficient of a product of polynomials
//   g_k(z) = sum_{x < n_top + j - n_k} C(x + n_k, x) z^x,
// with the normaliser C(r + n + C - 1, r). Counts matter up to order, so Posterior walks all partitions of up to
// `voters` votes into at most C parts once, one polynomial product per step, and keeps P for every number of votes to
// come; 30 voters make 6,000 undecided states. Hernandez-Lobato, Martinez-Munoz and Suarez, "Statistical instance-based
// pruning in ensembles of independent classifiers", IEEE TPAMI 2009, section 3.
//
// Contract. P is exactly 1 iff the lead exceeds the votes to come or there is one class, and rounded down to float32
// otherwise. Voters who abstain or do not answer are neither counted nor to come.
#pragma once

#include <memory>
#include <vector>

#include "coinfer/combine/pool.hpp"

namespace coinfer {

class Posterior {
 public:
  /// Throws std::invalid_argument for no voters, more than 255, no classes, or a table that would be too large.
  Posterior(std::size_t voters, std::size_t classes);

  /// P that `label`, which leads the votes in `counts` (one whole number per class), still leads `to_come` votes later.
  float operator()(std::span<const double> counts, Label label, std::size_t to_come) const noexcept;

  std::size_t voters() const noexcept { return voters_; }
  std::size_t classes() const noexcept { return classes_; }
  /// How many count vectors, up to order, are kept.
  std::size_t states() const noexcept { return states_; }

 private:
  class Builder;

  struct Slot {
    std::uint64_t key = 0;
    std::uint32_t first = 0;  // in table_; P for `lead` votes to come, and upwards
    bool taken = false;
  };

  const Slot* find(std::uint64_t key) const noexcept;

  std::size_t voters_;
  std::size_t classes_;
  std::size_t states_ = 0;
  std::vector<std::uint64_t> mark_;  // by count: a state's key is the sum of its classes' marks
  std::vector<Slot> slots_;
  std::vector<float> table_;
};

/// A vote, scored by its posterior. Members weigh the same; `to_come` holds, per stage, the members of later stages.
class Probable final : public Combiner {
 public:
  Probable(std::shared_ptr<const Posterior> posterior, std::vector<std::size_t> to_come);

  std::size_t state_floats() const noexcept override { return pool_.state_floats(); }
  bool memoryless() const noexcept override { return false; }
  void begin(float* state, std::size_t rows) const override { pool_.begin(state, rows); }
  /// Throws std::invalid_argument for a member whose weight is not 1.
  void add(float* state, const Member& member, const Outputs& block, std::uint8_t* answered) const override;
  void answer(const float* state, std::size_t rows, std::size_t stage, Label* labels, float* scores) const override;
  std::size_t classes() const noexcept override { return pool_.classes(); }

 private:
  std::shared_ptr<const Posterior> posterior_;
  std::vector<std::size_t> to_come_;
  Pool pool_;
};

}  // namespace coinfer
