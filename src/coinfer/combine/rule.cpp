#include "coinfer/combine/rule.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "coinfer/status.hpp"
#include "coinfer/threads.hpp"

namespace coinfer {
namespace {

constexpr float unsure = std::numeric_limits<float>::quiet_NaN();
constexpr float largest = std::numeric_limits<float>::max();
constexpr std::size_t block_floats = std::size_t{1} << 15;  // a block that is read twice stays in the cache
constexpr std::size_t fewest_rows = 16;

bool vectors(const Outputs& outputs) { return outputs.form == Form::logits || outputs.form == Form::probs; }

/// Probabilities over `classes` shared classes without gaps: a mean over one member.
void soften(const Member& member, const Outputs& part, std::size_t classes, Label* labels, float* probs) {
  const Pool pool(How::mean, classes);
  std::vector<float> state(pool.state_floats() * part.rows);
  std::vector<std::uint8_t> answered(part.rows);
  Member alone = member;
  alone.weight = 1.0;
  pool.begin(state.data(), part.rows);
  pool.add(state.data(), alone, part, answered.data());
  Combined out;
  out.label = labels;
  out.probs = probs;
  pool.results(state.data(), part.rows, out);
}

/// The rows that a rule reads: as they are if it can be, else converted into `space`.
const float* table_of(const ScoreRule& rule, const Outputs& part, float temperature, std::vector<float>& space) {
  const bool logits = part.form == Form::logits;
  const bool converts = rule.logits ? temperature != 1.0F : logits || temperature != 1.0F;
  const auto pitch = static_cast<std::ptrdiff_t>(part.classes);
  if (!converts && (part.row_stride == pitch || part.rows == 1)) return part.vector;
  space.resize(part.rows * part.classes);
  if (converts && !rule.logits) {
    Member reader;
    reader.temperature = temperature;
    Outputs own = part;
    own.relabel = nullptr;
    std::vector<Label> labels(part.rows);
    soften(reader, own, part.classes, labels.data(), space.data());
    return space.data();
  }
  for (std::size_t row = 0; row < part.rows; ++row) {
    const float* from = part.vector + static_cast<std::ptrdiff_t>(row) * part.row_stride;
    float* to = space.data() + row * part.classes;
    for (std::size_t k = 0; k < part.classes; ++k) to[k] = temperature == 1.0F ? from[k] : from[k] / temperature;
  }
  return space.data();
}

template <class T>
T* moved(T* p, std::size_t count) {
  return p == nullptr ? nullptr : p + count;
}

/// State of a block of rows.
struct State {
  float* tables;   // [member][row][class]
  float* weights;  // [member][row]; NaN: gave no answer, or abstained
  Label* added;    // [row]: members so far; equal in all rows
  Label* present;  // [row]: members that have a weight
  Label* quiet;    // [row]: the first abstention
};

State parts(float* state, std::size_t rows, std::size_t members, std::size_t classes) {
  float* weights = state + members * rows * classes;
  auto* added = reinterpret_cast<Label*>(weights + members * rows);
  return {state, weights, added, added + rows, added + 2 * rows};
}

/// Copy without gaps; whether every number may be a probability.
bool copied(const Outputs& block, float* to) {
  int bad = 0;
  const auto copy = [&bad](const float* from, std::size_t count, float* into) {
    for (std::size_t i = 0; i < count; ++i) {
      const float value = from[i];
      into[i] = value;
      bad |= static_cast<int>(!(value >= 0.0F)) | static_cast<int>(!(value <= largest));
    }
  };
  if (block.row_stride == static_cast<std::ptrdiff_t>(block.classes)) {
    copy(block.vector, block.rows * block.classes, to);
  } else {
    for (std::size_t row = 0; row < block.rows; ++row) {
      copy(block.vector + static_cast<std::ptrdiff_t>(row) * block.row_stride, block.classes, to + row * block.classes);
    }
  }
  return bad == 0;
}

Vectors table(const float* made, std::size_t rows, std::size_t classes) {
  Vectors vectors;
  vectors.data = made;
  vectors.probs = true;
  vectors.rows = rows;
  vectors.classes = classes;
  vectors.row_stride = static_cast<std::ptrdiff_t>(classes);
  return vectors;
}

Scores scores_of(const Combined& out, std::size_t row) {
  Scores to;
  to.label = out.label + row;
  to.kind[static_cast<std::size_t>(Kind::max_prob)] = moved(out.max_prob, row);
  to.kind[static_cast<std::size_t>(Kind::margin)] = moved(out.margin, row);
  return to;
}

/// The arguments of one call of a combiner's function.
class Call {
 public:
  Call(std::size_t members, std::size_t classes)
      : classes_(classes), tables_(members), strides_(members), weights_(members), scratch_(members * classes) {}

  void put(std::size_t at, const float* from, std::ptrdiff_t stride, float weight) {
    tables_[at] = from;
    strides_[at] = stride;
    weights_[at] = weight;
  }

  void operator()(CombineBlock block, std::size_t rows, std::size_t members, float* made) {
    if (rare_.size() < rows) rare_.resize(rows);
    block(static_cast<std::int64_t>(rows), static_cast<std::int64_t>(members), static_cast<std::int64_t>(classes_),
          tables_.data(), strides_.data(), weights_.data(), scratch_.data(), scratch_.data(), made, rare_.data());
  }

  bool rare(std::size_t row) const { return rare_[row] != 0; }

 private:
  std::size_t classes_;
  std::vector<const float*> tables_;
  std::vector<std::int64_t> strides_;
  std::vector<float> weights_;
  std::vector<float> scratch_;
  std::vector<std::uint8_t> rare_;
};

}  // namespace

void score(const ScoreRule& rule, const Outputs& outputs, float temperature, Label* labels, float* scores,
           unsigned threads) {
  if (!vectors(outputs)) {
    throw std::invalid_argument("a score of this kind needs a vector, but the model gives labels only");
  }
  if (rule.logits && outputs.form == Form::probs) {
    throw std::invalid_argument("this score needs logits, but the model gives probabilities");
  }
  const std::size_t step = std::max(fewest_rows, block_floats / outputs.classes);
  split(outputs.rows, threads, step, [&](std::size_t first, std::size_t last) {
    std::vector<float> space;
    for (std::size_t row = first; row < last; row += step) {
      const Outputs part = outputs.slice(row, std::min(step, last - row));
      Vectors in;
      in.data = part.vector;
      in.probs = part.form == Form::probs;
      in.rows = part.rows;
      in.classes = part.classes;
      in.row_stride = part.row_stride;
      in.temperature = temperature;
      Scores out;
      out.label = labels + row;
      coinfer::score(in, out);
      const float* table = table_of(rule, part, temperature, space);
      rule.block(static_cast<std::int64_t>(part.rows), static_cast<std::int64_t>(part.classes), table, labels + row,
                 scores + row);
    }
  });
}

RuleCombiner::RuleCombiner(CombineBlock one, CombineBlock all, std::size_t members, std::size_t classes, Kind kind)
    : block_(one), all_(all), members_(members), classes_(classes), score_(kind) {
  if (one == nullptr || all == nullptr) throw std::invalid_argument("a combiner of one's own needs its function");
  if (members == 0) throw std::invalid_argument("combining needs members");
  if (classes == 0) throw std::invalid_argument("combining needs at least one class");
  if (kind == Kind::energy || kind == Kind::logit_margin) {
    throw std::invalid_argument("a combination has no logits to be scored by");
  }
}

void RuleCombiner::begin(float* state, std::size_t rows) const {
  const State s = parts(state, rows, members_, classes_);
  std::fill_n(s.added, 2 * rows, 0);
  std::fill_n(s.quiet, rows, no_answer);
}

void RuleCombiner::add(float* state, const Member& member, const Outputs& block, std::uint8_t* answered) const {
  if (block.rows == 0) return;
  const State s = parts(state, block.rows, members_, classes_);
  const auto at = static_cast<std::size_t>(s.added[0]);
  if (at == members_) throw std::invalid_argument("a combiner was given more members than it was made for");
  float* table = s.tables + at * block.rows * classes_;
  float* weights = s.weights + at * block.rows;
  for (std::size_t row = 0; row < block.rows; ++row) ++s.added[row];
  const auto weight = static_cast<float>(member.weight);
  if (block.form == Form::none) {
    std::fill_n(weights, block.rows, unsure);
    return;
  }
  if (!vectors(block)) throw std::invalid_argument("a combiner needs vectors, but a model gives labels only");
  if (block.relabel == nullptr ? block.classes != classes_ : block.classes > classes_) {
    throw std::invalid_argument("a model has " + std::to_string(block.classes) + " classes where " +
                                std::to_string(classes_) + " are combined");
  }
  if (plain(member, block, classes_) && copied(block, table)) {
    std::fill_n(weights, block.rows, weight);
    for (std::size_t row = 0; row < block.rows; ++row) {
      ++s.present[row];
      answered[row] = static_cast<std::uint8_t>(answered[row] + 1);
    }
    return;
  }
  std::vector<Label> labels(block.rows);
  soften(member, block, classes_, labels.data(), table);
  for (std::size_t row = 0; row < block.rows; ++row) {
    const Label label = labels[row];
    weights[row] = label >= 0 ? weight : unsure;
    s.present[row] += label >= 0 ? 1 : 0;
    answered[row] = static_cast<std::uint8_t>(answered[row] + (label != no_answer ? 1 : 0));
    if (abstains(label) && s.quiet[row] == no_answer) s.quiet[row] = label;
  }
}

void RuleCombiner::answer(const float* state, std::size_t rows, std::size_t /*stage*/, Label* labels,
                          float* scores) const {
  const auto made = std::make_unique_for_overwrite<float[]>(rows * classes_);
  Scores to;
  to.label = labels;
  to.kind[static_cast<std::size_t>(score_)] = scores;
  answer(state, rows, to, made.get());
}

void RuleCombiner::answer(const float* state, std::size_t rows, const Scores& to, float* made) const {
  if (rows == 0) return;
  const State s = parts(const_cast<float*>(state), rows, members_, classes_);
  const auto added = static_cast<std::size_t>(s.added[0]);
  Call call(members_, classes_);
  const auto all_there = [&](std::size_t row) {
    return added > 0 && static_cast<std::size_t>(s.present[row]) == added;
  };
  for (std::size_t row = 0; row < rows;) {
    std::size_t end = row + 1;
    while (all_there(row) && end < rows && all_there(end)) ++end;
    std::size_t here = 0;
    for (std::size_t m = 0; m < added; ++m) {
      const float weight = s.weights[m * rows + row];
      if (std::isnan(weight)) continue;
      call.put(here++, s.tables + (m * rows + row) * classes_, static_cast<std::ptrdiff_t>(classes_), weight);
    }
    if (here == 0) {
      std::fill_n(made + row * classes_, classes_, 0.0F);
    } else {
      call(block(here), end - row, here, made + row * classes_);
    }
    row = end;
  }
  coinfer::score(table(made, rows, classes_), to);
  for (std::size_t row = 0; row < rows; ++row) {
    if (s.present[row] == 0) to.label[row] = s.quiet[row];
  }
}

void RuleCombiner::results(const float* state, std::size_t rows, const Combined& out) const {
  std::unique_ptr<float[]> space;
  if (out.probs == nullptr) space = std::make_unique_for_overwrite<float[]>(rows * classes_);
  answer(state, rows, scores_of(out, 0), out.probs == nullptr ? space.get() : out.probs);
}

bool RuleCombiner::at_once(std::span<const Member> members, std::span<const Outputs> outputs, const Combined& out,
                           std::uint8_t* answered) const {
  for (std::size_t m = 0; m < members.size(); ++m) {
    if (!plain(members[m], outputs[m], classes_)) return false;
  }
  const std::size_t rows = outputs[0].rows;
  const std::size_t step = std::min(rows, std::max(fewest_rows, block_floats / classes_));
  const auto space = std::make_unique_for_overwrite<float[]>(classes_ * step);
  Call call(members.size(), classes_);
  std::vector<Outputs> one(outputs.begin(), outputs.end());
  for (std::size_t row = 0; row < rows; row += step) {
    const std::size_t count = std::min(step, rows - row);
    for (std::size_t m = 0; m < members.size(); ++m) {
      const Outputs part = outputs[m].slice(row, count);
      call.put(m, part.vector, part.row_stride, static_cast<float>(members[m].weight));
    }
    float* made = out.probs == nullptr ? space.get() : out.probs + row * classes_;
    call(block(members.size()), count, members.size(), made);
    coinfer::score(table(made, count, classes_), scores_of(out, row));
    if (answered != nullptr) std::fill_n(answered + row, count, static_cast<std::uint8_t>(members.size()));
    for (std::size_t at = row; at < row + count; ++at) {
      if (!call.rare(at - row)) continue;
      for (std::size_t m = 0; m < members.size(); ++m) one[m] = outputs[m].slice(at, 1);
      std::uint8_t there = 0;
      const Combined to{out.label + at, moved(out.max_prob, at), moved(out.margin, at),
                        moved(out.probs, at * classes_)};
      one_by_one(*this, members, one, to, &there);
      if (answered != nullptr) answered[at] = there;
    }
  }
  return true;
}

}  // namespace coinfer
