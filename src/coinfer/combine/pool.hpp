// Combiners that add up what every member says: mean, pool of logarithms, vote.
//
// Contract. State per row: one double per shared class, the weight that is present, and the first abstention; of a pool
// of logarithms also one product per class, of probabilities whose logarithm is still to be added. With w
// the weight of a member and p its probabilities (logits are softmaxed with the member's temperature in float32;
// classes that it does not know have p = 0):
//   mean     sum w p / sum w
//   logpool  2^(sum w log2 max(p, 2^-126) / sum w), normalised: the geometric mean. Zeros and denormals thus count as
//            2^-126, the least normal float32, and veto a class without ever being infinite
//   vote     sum w [label = k] / sum w: of labels, or of the labels of vectors
// The answer is the label of the largest sum (the lowest of equal sums, compared as doubles) and, in float32, max_prob
// (of a vote: its share) or margin (largest minus second-largest).
// Accumulator: double, fused multiply-add, members in the order in which they are added; the sums are multiplied by
// 1 / sum w and rounded to float32 once. Of a pool, up to eight members with probabilities and equal weights that
// follow one another share a logarithm: that of their product, w log2(p q r ...), whose mantissa is a float32 (n
// factors: relative error (n - 1) 2^-24, which is 1e-7 of a logarithm to base 2 for each) and whose exponent is an
// integer. Each logarithm is rounded to float32 (relative error 2e-7), so a pooled probability is within 1e-5 of its
// value, and within 1e-6 where no member gives the classes in question less than 1e-6. Exchanging members leaves a vote
// as it is where weights are integers, moves a mean by 2^-52 of it at most before it is rounded, and a pool within its
// error. No answer: a row that holds a NaN (or, of probabilities, a negative or infinite number) is left out and the
// others' weights renormalise; so is a row whose label the member abstains by. If nothing is left, the answer is that
// abstention, or -1, and NaN.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "coinfer/combine/combiner.hpp"
#include "coinfer/combine/task.hpp"

namespace coinfer {

enum class How : std::uint8_t { mean, logpool, vote };

class Pool final : public Combiner {
 public:
  /// `score`: max_prob or margin. Throws std::invalid_argument for others, and for no classes.
  Pool(How how, std::size_t classes, Kind score = Kind::max_prob);

  std::size_t state_floats() const noexcept override;
  bool memoryless() const noexcept override { return false; }
  void begin(float* state, std::size_t rows) const override;
  /// Throws std::invalid_argument if the answers are not of the form that this combiner needs.
  void add(float* state, const Member& member, const Outputs& block, std::uint8_t* answered) const override;
  void answer(const float* state, std::size_t rows, std::size_t stage, Label* labels, float* scores) const override;

  void results(const float* state, std::size_t rows, const Combined& out) const override;
  bool at_once(std::span<const Member> members, std::span<const Outputs> outputs, const Combined& out,
               std::uint8_t* answered) const override;

  /// The state of a block: the sums, `pitch` doubles from row to row; the weight that is present; the first abstention;
  /// of logarithms, products.
  struct State {
    double* sums;
    double* total;
    Label* quiet;
    pooling::Products products;
  };
  State parts(float* state, std::size_t rows) const noexcept;
  std::size_t pitch() const noexcept { return pitch_; }

  /// The running sums of a block, before they are divided by anything.
  class Sums {
   public:
    std::span<const double> operator[](std::size_t row) const noexcept { return {sums_ + row * pitch_, classes_}; }
    const double* data() const noexcept { return sums_; }

   private:
    friend class Pool;
    std::unique_ptr<double[]> own_;  // of a pool of logarithms
    const double* sums_ = nullptr;
    std::size_t pitch_ = 0, classes_ = 0;
  };
  Sums sums(const float* state, std::size_t rows) const;

  How how() const noexcept { return how_; }
  std::size_t classes() const noexcept override { return classes_; }
  Kind score() const noexcept override { return score_; }

 private:
  bool vote_at_once(std::span<const Member> members, std::span<const Outputs> outputs, const Combined& out,
                    std::uint8_t* answered) const;
  void add_votes(float* state, const Member& member, const Outputs& block, std::uint8_t* answered) const;
  bool multiplies() const noexcept { return how_ == How::logpool; }
  void add_vectors(float* state, const Member& member, const Outputs& block, std::uint8_t* answered) const;

  How how_;
  Kind score_;
  std::size_t classes_;
  std::size_t pitch_;  // doubles from row to row
};

/// Whether a kernel can read a member's vectors as they are: probabilities of all classes, not tempered, none of them
/// an abstention.
bool plain(const Member& member, const Outputs& outputs, std::size_t classes) noexcept;

/// From sums (of probabilities, or of logarithms to base 2) to answers: what `Pool::results` does. Rows whose total is
/// 0 get the label in `otherwise`, and NaN. Rows of `sums` are as far apart as the classes, rounded up to sixteen.
void finish(const double* sums, const double* total, const Label* otherwise, std::size_t rows, std::size_t classes,
            bool logs, const Combined& out);

}  // namespace coinfer
