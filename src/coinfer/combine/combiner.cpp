#include "coinfer/combine/combiner.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <stdexcept>

#include "coinfer/combine/rule.hpp"
#include "coinfer/status.hpp"
#include "coinfer/threads.hpp"

namespace coinfer {
namespace {

constexpr float unsure = std::numeric_limits<float>::quiet_NaN();
constexpr std::size_t rows_at_once = 4096;
constexpr std::size_t bytes_per_thread = std::size_t{8} << 20;

template <class T>
T* moved(T* p, std::size_t count) {
  return p == nullptr ? nullptr : p + count;
}

Combined moved(const Combined& out, std::size_t rows, std::size_t classes) {
  return {moved(out.label, rows), moved(out.max_prob, rows), moved(out.margin, rows), moved(out.probs, rows * classes)};
}

void read_kind(const Member& member, const Outputs& block, Label* labels, float* scores) {
  Vectors vectors;
  vectors.data = block.vector;
  vectors.probs = block.form == Form::probs;
  vectors.rows = block.rows;
  vectors.classes = block.classes;
  vectors.row_stride = block.row_stride;
  vectors.temperature = member.temperature;
  Scores out;
  out.label = labels;
  out.kind[static_cast<std::size_t>(member.score.value_or(Kind::max_prob))] = scores;
  score(vectors, out);
}

void read_vectors(const Member& member, const Outputs& block, Label* labels, float* scores) {
  if (member.rule != nullptr) {
    score(*member.rule, block, member.temperature, labels, scores);
  } else {
    read_kind(member, block, labels, scores);
  }
  if (block.relabel != nullptr) {
    for (std::size_t row = 0; row < block.rows; ++row) {
      if (labels[row] >= 0) labels[row] = block.relabel[labels[row]];
    }
  }
}

}  // namespace

float Curve::operator()(float score) const noexcept {
  if (cut.empty() || std::isnan(score)) return score;
  const auto above = std::upper_bound(cut.begin(), cut.end(), score);
  const auto step = std::max<std::ptrdiff_t>(above - cut.begin() - 1, 0);
  return value[static_cast<std::size_t>(step)];
}

void read(const Member& member, const Outputs& block, Label* labels, float* scores) {
  switch (block.form) {
    case Form::none: std::fill_n(labels, block.rows, no_answer); break;
    case Form::logits:
    case Form::probs: read_vectors(member, block, labels, scores); break;
    case Form::label:
    case Form::label_confidence:
      if (member.score || member.rule != nullptr)
        throw std::invalid_argument("a score of this kind needs a vector, but the model gives labels only");
      std::copy_n(block.label, block.rows, labels);
      if (block.form == Form::label) {
        std::fill_n(scores, block.rows, unsure);
      } else {
        std::copy_n(block.confidence, block.rows, scores);
      }
      break;
  }
  if (member.calibration != nullptr) {
    for (std::size_t row = 0; row < block.rows; ++row) scores[row] = (*member.calibration)(scores[row]);
  }
  for (const Label quiet : member.abstain) {
    for (std::size_t row = 0; row < block.rows; ++row) {
      if (labels[row] == quiet) labels[row] = abstention(quiet);
    }
  }
  for (std::size_t row = 0; row < block.rows; ++row) {
    if (labels[row] < 0) scores[row] = unsure;
  }
}

std::size_t block_rows(const Combiner& combiner) noexcept {
  constexpr std::size_t state_bytes = std::size_t{256} << 10, lanes = 16, most = 4096;
  const std::size_t fit = state_bytes / (combiner.state_floats() * sizeof(float)) / lanes * lanes;
  return std::clamp(fit, lanes, most);
}

void Combiner::results(const float* state, std::size_t rows, const Combined& out) const {
  std::vector<Label> own_label(out.label == nullptr ? rows : 0);
  std::vector<float> own_score(rows);
  answer(state, rows, 0, out.label == nullptr ? own_label.data() : out.label, own_score.data());
  const bool margin = score() == Kind::margin;
  if (out.max_prob != nullptr) std::fill_n(out.max_prob, rows, unsure);
  if (out.margin != nullptr) std::fill_n(out.margin, rows, unsure);
  if (out.probs != nullptr) std::fill_n(out.probs, rows * classes(), unsure);
  if (float* wanted = margin ? out.margin : out.max_prob; wanted != nullptr) std::ranges::copy(own_score, wanted);
}

void one_by_one(const Combiner& combiner, std::span<const Member> members, std::span<const Outputs> outputs,
                const Combined& out, std::uint8_t* answered) {
  const std::size_t rows = outputs[0].rows;
  const std::size_t block = std::min(block_rows(combiner), std::max<std::size_t>(rows, 1));
  const auto state = std::make_unique_for_overwrite<float[]>(combiner.state_floats() * block);
  std::vector<std::uint8_t> own(answered == nullptr ? block : 0);
  for (std::size_t row = 0; row < rows; row += block) {
    const std::size_t count = std::min(block, rows - row);
    std::uint8_t* counts = answered == nullptr ? own.data() : answered + row;
    std::fill_n(counts, count, std::uint8_t{0});
    combiner.begin(state.get(), count);
    for (std::size_t m = 0; m < members.size(); ++m) {
      combiner.add(state.get(), members[m], outputs[m].slice(row, count), counts);
    }
    combiner.results(state.get(), count, moved(out, row, combiner.classes()));
  }
}

std::size_t combine(const Combiner& combiner, std::span<const Member> members, std::span<const Outputs> outputs,
                    const Combined& out, unsigned threads) {
  if (members.empty() || members.size() != outputs.size()) throw std::invalid_argument("combining needs members");
  double total = 0.0;
  std::size_t bytes = 0;
  for (std::size_t m = 0; m < members.size(); ++m) {
    const Outputs& said = outputs[m];
    if (said.rows != outputs[0].rows) throw std::invalid_argument("members differ in their number of rows");
    total += members[m].weight;
    bytes += said.rows * (said.vector != nullptr ? said.classes : 4) * sizeof(float);
  }
  if (!(total > 0.0)) throw std::invalid_argument("at least one weight must be above 0");
  std::vector<Label> own;
  Combined to = out;
  if (to.label == nullptr) {
    own.resize(outputs[0].rows);
    to.label = own.data();
  }
  const auto useful = static_cast<unsigned>(std::min<std::size_t>(std::max(1U, threads), bytes / bytes_per_thread + 1));
  std::atomic<std::size_t> unanswered{0};
  split(outputs[0].rows, useful, rows_at_once, [&](std::size_t first, std::size_t last) {
    std::vector<Outputs> parts(outputs.size());
    for (std::size_t row = first; row < last; row += rows_at_once) {
      const std::size_t count = std::min(rows_at_once, last - row);
      for (std::size_t m = 0; m < parts.size(); ++m) parts[m] = outputs[m].slice(row, count);
      const Combined here = moved(to, row, combiner.classes());
      if (!combiner.at_once(members, parts, here, nullptr)) one_by_one(combiner, members, parts, here, nullptr);
    }
    unanswered +=
        static_cast<std::size_t>(std::count_if(to.label + first, to.label + last, [](Label l) { return l < 0; }));
  });
  return unanswered;
}

// State: the labels of the block (as bits), then its scores.

void Last::begin(float* state, std::size_t rows) const {
  std::fill_n(reinterpret_cast<Label*>(state), rows, no_answer);
  std::fill_n(state + rows, rows, unsure);
}

void Last::add(float* state, const Member& member, const Outputs& block, std::uint8_t* answered) const {
  constexpr std::size_t width = 1024;
  Label labels[width];
  float scores[width];
  auto* kept_label = reinterpret_cast<Label*>(state);
  float* kept_score = state + block.rows;
  for (std::size_t first = 0; first < block.rows; first += width) {
    const Outputs part = block.slice(first, std::min(width, block.rows - first));
    read(member, part, labels, scores);
    for (std::size_t row = 0; row < part.rows; ++row) {
      const bool has = labels[row] != no_answer;
      answered[first + row] = static_cast<std::uint8_t>(answered[first + row] + (has ? 1 : 0));
      kept_label[first + row] = has ? labels[row] : kept_label[first + row];
      kept_score[first + row] = has ? scores[row] : kept_score[first + row];
    }
  }
}

void Last::answer(const float* state, std::size_t rows, std::size_t /*stage*/, Label* labels, float* scores) const {
  std::copy_n(reinterpret_cast<const Label*>(state), rows, labels);
  std::copy_n(state + rows, rows, scores);
}

}  // namespace coinfer
