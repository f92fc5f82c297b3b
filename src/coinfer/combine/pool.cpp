#include "coinfer/combine/pool.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "coinfer/cpu.hpp"
#include "coinfer/status.hpp"

namespace coinfer {
namespace {

constexpr std::size_t lanes = 16;
struct Kernels {
  pooling::AddKernel* add;
  pooling::SettleKernel* settle;
  pooling::FinishKernel* finish;
  pooling::JointKernel* joint;
  pooling::VotesKernel* votes;
};

Kernels kernels() {
  switch (implementation()) {
#if defined(__x86_64__)
    case Isa::avx512:
      return {pooling::add_avx512, pooling::settle_avx512, pooling::finish_avx512, pooling::joint_avx512,
              pooling::votes_avx512};
    case Isa::avx2:
      return {pooling::add_avx2, pooling::settle_avx2, pooling::finish_avx2, pooling::joint_avx2, pooling::votes_avx2};
#endif
    default:
      return {pooling::add_baseline, pooling::settle_baseline, pooling::finish_baseline, pooling::joint_baseline,
              pooling::votes_baseline};
  }
}

std::size_t rounded(std::size_t classes) { return (classes + lanes - 1) / lanes * lanes; }

bool vectors(const Outputs& outputs) { return outputs.form == Form::logits || outputs.form == Form::probs; }

std::unique_ptr<float[]> scratch(std::size_t floats) { return std::make_unique_for_overwrite<float[]>(floats); }

void check(const Member& member) {
  if (!(member.weight >= 0.0) || member.weight > std::numeric_limits<float>::max()) {
    throw std::invalid_argument("a weight must be a finite number >= 0");
  }
}

/// What was marked, one row at a time, or all of them where that is faster.
void closer(const Pool& pool, std::span<const Member> members, std::span<const Outputs> outputs,
            std::span<const std::uint16_t> rare, const Combined& out, std::uint8_t* answered) {
  const std::size_t rows = outputs[0].rows, classes = pool.classes();
  std::size_t marked = 0;
  for (const std::uint16_t block : rare) marked += static_cast<std::size_t>(__builtin_popcount(block));
  if (marked == 0) return;
  if (marked > rows / 8) return one_by_one(pool, members, outputs, out, answered);
  std::vector<Outputs> alone(outputs.size());
  for (std::size_t block = 0; block < rare.size(); ++block) {
    for (unsigned left = rare[block]; left != 0; left &= left - 1) {
      const std::size_t row = block * lanes + static_cast<std::size_t>(__builtin_ctz(left));
      for (std::size_t m = 0; m < alone.size(); ++m) alone[m] = outputs[m].slice(row, 1);
      const auto at = [row](auto* p, std::size_t width = 1) { return p == nullptr ? p : p + row * width; };
      const Combined here{at(out.label), at(out.max_prob), at(out.margin), at(out.probs, classes)};
      one_by_one(pool, members, alone, here, at(answered));
    }
  }
}

}  // namespace

Pool::Pool(How how, std::size_t classes, Kind score)
    : how_(how), score_(score), classes_(classes), pitch_(rounded(classes)) {
  if (classes == 0) throw std::invalid_argument("combining needs at least one class");
  if (score != Kind::max_prob && score != Kind::margin) {
    throw std::invalid_argument("the score of a combination is max_prob or margin");
  }
}

std::size_t Pool::state_floats() const noexcept {
  const std::size_t doubles = multiplies() ? 2 * pitch_ + 3 : pitch_ + 2;
  return doubles * sizeof(double) / sizeof(float);
}

void Pool::begin(float* state, std::size_t rows) const {
  const State s = parts(state, rows);
  std::fill_n(s.sums, rows * pitch_ + rows, 0.0);
  std::fill_n(s.quiet, rows, no_answer);
  if (multiplies()) std::fill_n(s.products.count, rows, 0);
}

void Pool::add(float* state, const Member& member, const Outputs& block, std::uint8_t* answered) const {
  check(member);
  if (block.form == Form::none || block.rows == 0) return;
  if (how_ == How::vote) {
    add_votes(state, member, block, answered);
  } else {
    add_vectors(state, member, block, answered);
  }
}

void Pool::add_votes(float* state, const Member& member, const Outputs& block, std::uint8_t* answered) const {
  constexpr std::size_t width = 1024;
  Label labels[width];
  float scores[width];
  const State s = parts(state, block.rows);
  Member voter = member;
  if (!vectors(block)) voter.score.reset();  // nobody reads it
  for (std::size_t first = 0; first < block.rows; first += width) {
    const Outputs part = block.slice(first, std::min(width, block.rows - first));
    read(voter, part, labels, scores);
    for (std::size_t i = 0; i < part.rows; ++i) {
      const std::size_t row = first + i;
      if (labels[i] == no_answer) continue;
      answered[row] = static_cast<std::uint8_t>(answered[row] + 1);
      if (abstains(labels[i])) {
        if (s.quiet[row] == no_answer) s.quiet[row] = labels[i];
        continue;
      }
      if (static_cast<std::size_t>(labels[i]) >= classes_) {
        throw std::invalid_argument("a vote for class " + std::to_string(labels[i]) + ", but there are only " +
                                    std::to_string(classes_) + " classes");
      }
      s.sums[row * pitch_ + static_cast<std::size_t>(labels[i])] += member.weight;
      s.total[row] += member.weight;
    }
  }
}

void Pool::add_vectors(float* state, const Member& member, const Outputs& block, std::uint8_t* answered) const {
  if (!vectors(block)) throw std::invalid_argument("a mean needs vectors, but a model gives labels only");
  if (block.relabel == nullptr ? block.classes != classes_ : block.classes > classes_) {
    throw std::invalid_argument("a model has " + std::to_string(block.classes) + " classes where " +
                                std::to_string(classes_) + " are combined");
  }
  const State s = parts(state, block.rows);
  std::vector<std::uint8_t> skip;
  if (!member.abstain.empty()) {
    skip.resize(block.rows);
    std::vector<Label> labels(block.rows);
    std::vector<float> scores(block.rows);
    Member asked = member;
    asked.score = Kind::max_prob;
    asked.calibration = nullptr;
    read(asked, block, labels.data(), scores.data());
    for (std::size_t row = 0; row < block.rows; ++row) {
      if (!abstains(labels[row])) continue;
      skip[row] = 1;
      answered[row] = static_cast<std::uint8_t>(answered[row] + 1);
      if (s.quiet[row] == no_answer) s.quiet[row] = labels[row];
    }
  }
  const auto space = scratch(2 * lanes * pitch_);
  pooling::Add task{};
  task.data = block.vector;
  task.stride = block.row_stride;
  task.rows = block.rows;
  task.classes = block.classes;
  task.shared = classes_;
  task.pitch = pitch_;
  task.relabel = block.relabel;
  task.source = block.form == Form::logits   ? pooling::Source::logits
                : member.temperature == 1.0F ? pooling::Source::probs
                                             : pooling::Source::tempered;
  task.logs = how_ == How::logpool;
  const double unit = block.form == Form::logits ? 1.4426950408889634 : 1.0;
  task.scale =
      static_cast<float>(std::min(unit / member.temperature, static_cast<double>(std::numeric_limits<float>::max())));
  task.weight = member.weight;
  task.skip = skip.empty() ? nullptr : skip.data();
  task.sums = s.sums;
  task.products = s.products;
  task.total = s.total;
  task.answered = answered;
  task.scratch = space.get();
  kernels().add(task);
}

void Pool::answer(const float* state, std::size_t rows, std::size_t /*stage*/, Label* labels, float* scores) const {
  Combined out;
  out.label = labels;
  (score_ == Kind::margin ? out.margin : out.max_prob) = scores;
  results(state, rows, out);
}

void Pool::results(const float* state, std::size_t rows, const Combined& out) const {
  const State s = parts(const_cast<float*>(state), rows);
  finish(sums(state, rows).data(), s.total, s.quiet, rows, classes_, how_ == How::logpool, out);
}

Pool::State Pool::parts(float* state, std::size_t rows) const noexcept {
  auto* sums = reinterpret_cast<double*>(state);
  double* total = sums + rows * pitch_;
  auto* quiet = reinterpret_cast<Label*>(total + rows);
  State s{sums, total, quiet, {}};
  if (multiplies()) {
    double* weight = total + 2 * rows;
    auto* mantissa = reinterpret_cast<float*>(weight + rows);
    s.products = {mantissa, reinterpret_cast<std::int32_t*>(mantissa + rows * pitch_), weight, quiet + rows};
  }
  return s;
}

Pool::Sums Pool::sums(const float* state, std::size_t rows) const {
  const State s = parts(const_cast<float*>(state), rows);
  Sums sums;
  sums.pitch_ = pitch_;
  sums.classes_ = classes_;
  sums.sums_ = s.sums;
  if (multiplies()) {
    sums.own_ = std::make_unique_for_overwrite<double[]>(rows * pitch_);
    sums.sums_ = sums.own_.get();
    kernels().settle({s.sums, s.products, rows, pitch_, sums.own_.get()});
  }
  return sums;
}

bool plain(const Member& member, const Outputs& outputs, std::size_t classes) noexcept {
  return outputs.form == Form::probs && member.temperature == 1.0F && outputs.relabel == nullptr &&
         outputs.classes == classes && member.abstain.empty();
}

void finish(const double* sums, const double* total, const Label* otherwise, std::size_t rows, std::size_t classes,
            bool logs, const Combined& out) {
  const std::size_t pitch = rounded(classes);
  const auto space = scratch(lanes * pitch);
  kernels().finish({sums,
                    total,
                    otherwise,
                    rows,
                    classes,
                    pitch,
                    logs,
                    {out.label, out.max_prob, out.margin, out.probs},
                    space.get()});
}

bool Pool::at_once(std::span<const Member> members, std::span<const Outputs> outputs, const Combined& out,
                   std::uint8_t* answered) const {
  if (members.size() > pooling::most_members) return false;
  if (std::ranges::none_of(members, [](const Member& member) { return member.weight > 0.0; })) return false;
  if (how_ == How::vote) return vote_at_once(members, outputs, out, answered);
  std::array<const float*, pooling::most_members> data{};
  std::array<std::ptrdiff_t, pooling::most_members> stride{};
  std::array<double, pooling::most_members> weight{};
  const std::size_t rows = outputs[0].rows;
  for (std::size_t m = 0; m < members.size(); ++m) {
    check(members[m]);
    // A member without weight is not there; what it says must not turn a sum into NaN.
    if (!(members[m].weight > 0.0) || !plain(members[m], outputs[m], classes_)) return false;
    data[m] = outputs[m].vector;
    stride[m] = outputs[m].row_stride;
    weight[m] = members[m].weight;
  }
  const auto space = scratch(lanes * pitch_ + lanes);
  std::vector<std::uint16_t> rare((rows + lanes - 1) / lanes);
  kernels().joint({data.data(),
                   stride.data(),
                   weight.data(),
                   members.size(),
                   rows,
                   classes_,
                   how_ == How::logpool,
                   {out.label, out.max_prob, out.margin, out.probs},
                   space.get(),
                   rare.data()});
  if (answered != nullptr) std::fill_n(answered, rows, static_cast<std::uint8_t>(members.size()));
  closer(*this, members, outputs, rare, out, answered);
  return true;
}

/// The labels of a block of rows from every member, then all votes at once.
bool Pool::vote_at_once(std::span<const Member> members, std::span<const Outputs> outputs, const Combined& out,
                        std::uint8_t* answered) const {
  if (out.probs != nullptr || classes_ > pooling::most_voted) return false;
  const std::size_t rows = outputs[0].rows;
  std::array<const Label*, pooling::most_members> label{};
  std::array<double, pooling::most_members> weight{};
  std::vector<std::unique_ptr<Label[]>> read_labels;
  std::unique_ptr<float[]> scores;
  for (std::size_t m = 0; m < members.size(); ++m) {
    check(members[m]);
    weight[m] = members[m].weight;
    const bool given = outputs[m].form == Form::label || outputs[m].form == Form::label_confidence;
    if (given && members[m].abstain.empty()) {
      label[m] = outputs[m].label;
      continue;
    }
    read_labels.push_back(std::make_unique_for_overwrite<Label[]>(rows));
    if (!scores) scores = scratch(rows);
    Member voter = members[m];
    voter.calibration = nullptr;
    if (given) voter.score.reset();
    read(voter, outputs[m], read_labels.back().get(), scores.get());
    label[m] = read_labels.back().get();
  }
  std::vector<std::uint16_t> rare((rows + lanes - 1) / lanes);
  kernels().votes({label.data(),
                   weight.data(),
                   members.size(),
                   rows,
                   classes_,
                   {out.label, out.max_prob, out.margin, nullptr},
                   rare.data()});
  if (answered != nullptr) std::fill_n(answered, rows, static_cast<std::uint8_t>(members.size()));
  closer(*this, members, outputs, rare, out, answered);
  return true;
}

}  // namespace coinfer
