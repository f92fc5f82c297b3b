// How the answers so far become one answer: the running state of a block of rows, one member added at a time.
//
// Contract. Rows never look at each other, so a block of any size gives the same bits. A member without an answer for a
// row (label -1) changes nothing there; an abstention is never a vote. `answer` yields, per row, a class index, an
// abstention or -1, and a score that is NaN unless the label is a class. A combiner is stateless itself and shared
// between threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "coinfer/outputs.hpp"
#include "coinfer/score/score.hpp"

namespace coinfer {

/// A step function: value[i] from cut[i] up to the next cut, value.front() below the first cut. NaN stays NaN.
struct Curve {
  std::vector<float> cut;
  std::vector<float> value;

  float operator()(float score) const noexcept;
};

/// Which number says how sure an answer is: a kind computed from vectors, or (empty) the confidence that the service
/// reports; a model that reports a vector reports its largest probability.
using ScoreKind = std::optional<Kind>;

/// A score of one's own (see rule.hpp): scores[row] from vectors[row][class] and labels[row], the model's own index of
/// its largest entry.
struct ScoreRule {
  void (*block)(std::int64_t rows, std::int64_t classes, const float* vectors, const Label* labels,
                float* scores) = nullptr;
  bool logits = false;  // whether it reads z / T, or probabilities
};

/// One deployment that a stage consults, with all that is needed to read its answers.
struct Member {
  std::uint32_t model = 0;
  std::uint32_t deployment = 0;
  ScoreKind score;
  double weight = 1.0;
  float temperature = 1.0F;
  const Curve* calibration = nullptr;
  const ScoreRule* rule = nullptr;  // in the place of `score`
  std::vector<Label> abstain;       // classes, in the shared label set, that mean "I don't know"
  std::uint32_t place = 0;          // among the plan's members: for combiners that know one member from another
};

/// Read one member's answers to a block of rows: labels in the shared label set, -1 or an abstention; calibrated
/// scores.
void read(const Member& member, const Outputs& block, Label* labels, float* scores);

/// Where results go; null: not wanted. `probs` holds rows x classes without gaps.
struct Combined {
  Label* label = nullptr;
  float* max_prob = nullptr;
  float* margin = nullptr;
  float* probs = nullptr;
};

class Combiner {
 public:
  Combiner() = default;
  Combiner(const Combiner&) = delete;
  Combiner& operator=(const Combiner&) = delete;
  virtual ~Combiner() = default;

  /// Floats of state per row.
  virtual std::size_t state_floats() const noexcept = 0;
  /// Whether an answer depends on the newest stage alone, so that stages may be skipped.
  virtual bool memoryless() const noexcept = 0;
  virtual void begin(float* state, std::size_t rows) const = 0;
  /// A stage starts; most combiners go on with what they have.
  virtual void open(float* /*state*/, std::size_t /*rows*/) const {}
  /// Add one member's answers; `answered[row]` is increased where it gave one.
  virtual void add(float* state, const Member& member, const Outputs& block, std::uint8_t* answered) const = 0;
  virtual void answer(const float* state, std::size_t rows, std::size_t stage, Label* labels, float* scores) const = 0;

  /// Number of classes that it combines over; 0 if it looks at none.
  virtual std::size_t classes() const noexcept { return 0; }
  /// Which number `answer` gives as the score.
  virtual Kind score() const noexcept { return Kind::max_prob; }
  /// All results of a block; those that a combiner does not have are NaN.
  virtual void results(const float* state, std::size_t rows, const Combined& out) const;
  /// Combine rows of all members at once where there is a faster way to the same bits; false where there is none, and
  /// nothing is written. `out.label` is wanted; `answered[row]` (unless null) becomes the number of members that gave
  /// an answer.
  virtual bool at_once(std::span<const Member> /*members*/, std::span<const Outputs> /*outputs*/,
                       const Combined& /*out*/, std::uint8_t* /*answered*/) const {
    return false;
  }
};

/// Combine all rows of all members: the bits of adding one member after the other, at the speed of reading where the
/// combiner has a fast way. Returns how many rows nobody answered.
std::size_t combine(const Combiner& combiner, std::span<const Member> members, std::span<const Outputs> outputs,
                    const Combined& out, unsigned threads = 1);

/// The same for a few rows, one member after the other.
void one_by_one(const Combiner& combiner, std::span<const Member> members, std::span<const Outputs> outputs,
                const Combined& out, std::uint8_t* answered);

/// How many rows to combine at a time, so that their state stays in the second-level cache: a multiple of sixteen.
std::size_t block_rows(const Combiner& combiner) noexcept;

/// The newest answer counts: serve-or-forward, cascades. In a group, the last member that answered.
class Last final : public Combiner {
 public:
  std::size_t state_floats() const noexcept override { return 2; }
  bool memoryless() const noexcept override { return true; }
  void begin(float* state, std::size_t rows) const override;
  void add(float* state, const Member& member, const Outputs& block, std::uint8_t* answered) const override;
  void answer(const float* state, std::size_t rows, std::size_t stage, Label* labels, float* scores) const override;
};

}  // namespace coinfer
