#include "coinfer/combine/combiner.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "coinfer/status.hpp"

namespace coinfer {
namespace {

constexpr float unsure = std::numeric_limits<float>::quiet_NaN();

void read_vectors(const Member& member, const Outputs& block, Label* labels, float* scores) {
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
      if (member.score)
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
