#include "coinfer/combine/pool.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "coinfer/combine/task.hpp"
#include "coinfer/cpu.hpp"
#include "coinfer/status.hpp"
#include "coinfer/threads.hpp"

namespace coinfer {
namespace {

constexpr std::size_t lanes = 16;
constexpr std::size_t rows_at_once = 4096;  // of the joint kernel, between looks at what it marked
constexpr std::size_t bytes_per_thread = std::size_t{8} << 20;

struct Kernels {
  pooling::AddKernel* add;
  pooling::FinishKernel* finish;
  pooling::JointKernel* joint;
};

Kernels kernels() {
  switch (implementation()) {
#if defined(__x86_64__)
    case Isa::avx512: return {pooling::add_avx512, pooling::finish_avx512, pooling::joint_avx512};
    case Isa::avx2: return {pooling::add_avx2, pooling::finish_avx2, pooling::joint_avx2};
#endif
    default: return {pooling::add_baseline, pooling::finish_baseline, pooling::joint_baseline};
  }
}

std::size_t rounded(std::size_t classes) { return (classes + lanes - 1) / lanes * lanes; }

bool vectors(const Outputs& outputs) { return outputs.form == Form::logits || outputs.form == Form::probs; }

/// State of a block: the sums, then the weight that is present, then the first abstention.
struct State {
  double* sums;
  double* total;
  Label* quiet;
};

State parts(float* state, std::size_t rows, std::size_t pitch) {
  auto* sums = reinterpret_cast<double*>(state);
  double* total = sums + rows * pitch;
  return {sums, total, reinterpret_cast<Label*>(total + rows)};
}

std::unique_ptr<float[]> scratch(std::size_t floats) { return std::make_unique_for_overwrite<float[]>(floats); }

/// Whether the joint kernel can read this member as it is.
bool plain(const Member& member, const Outputs& outputs, std::size_t classes) {
  return outputs.form == Form::probs && member.temperature == 1.0F && outputs.relabel == nullptr &&
         outputs.classes == classes && member.abstain.empty();
}

void check(const Member& member) {
  if (!(member.weight >= 0.0) || member.weight > std::numeric_limits<float>::max()) {
    throw std::invalid_argument("a weight must be a finite number >= 0");
  }
}

template <class T>
T* moved(T* p, std::size_t count) {
  return p == nullptr ? nullptr : p + count;
}

Combined moved(const Combined& out, std::size_t rows, std::size_t classes) {
  return {moved(out.label, rows), moved(out.max_prob, rows), moved(out.margin, rows), moved(out.probs, rows * classes)};
}

/// Members one after the other, over blocks of rows whose state stays in the cache.
void one_by_one(const Pool& pool, std::span<const Member> members, std::span<const Outputs> outputs, std::size_t first,
                std::size_t last, const Combined& out) {
  const std::size_t block = std::min(block_rows(pool), std::max<std::size_t>(last - first, 1));
  const auto state = scratch(pool.state_floats() * block);
  std::vector<std::uint8_t> answered(block);
  for (std::size_t row = first; row < last; row += block) {
    const std::size_t count = std::min(block, last - row);
    pool.begin(state.get(), count);
    for (std::size_t m = 0; m < members.size(); ++m) {
      pool.add(state.get(), members[m], outputs[m].slice(row, count), answered.data());
    }
    pool.answer(state.get(), count, moved(out, row, pool.classes()));
  }
}

void joined(const Pool& pool, std::span<const Member> members, std::span<const Outputs> outputs, std::size_t first,
            std::size_t last, const Combined& out) {
  const auto space = scratch(lanes * rounded(pool.classes()) + lanes);
  std::array<const float*, pooling::most_members> data{};
  std::array<std::ptrdiff_t, pooling::most_members> stride{};
  std::array<double, pooling::most_members> weight{};
  std::array<std::uint16_t, rows_at_once / lanes> rare{};
  for (std::size_t row = first; row < last; row += rows_at_once) {
    const std::size_t count = std::min(rows_at_once, last - row);
    for (std::size_t m = 0; m < members.size(); ++m) {
      data[m] = outputs[m].slice(row, count).vector;
      stride[m] = outputs[m].row_stride;
      weight[m] = members[m].weight;
    }
    const Combined to = moved(out, row, pool.classes());
    kernels().joint({data.data(),
                     stride.data(),
                     weight.data(),
                     members.size(),
                     count,
                     pool.classes(),
                     pool.how() == How::logpool,
                     {to.label, to.max_prob, to.margin, to.probs},
                     space.get(),
                     rare.data()});
    for (std::size_t block = 0; block * lanes < count; ++block) {
      for (unsigned marked = rare[block]; marked != 0; marked &= marked - 1) {
        const std::size_t at = row + block * lanes + static_cast<std::size_t>(__builtin_ctz(marked));
        one_by_one(pool, members, outputs, at, at + 1, out);
      }
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

std::size_t Pool::state_floats() const noexcept { return (pitch_ + 2) * sizeof(double) / sizeof(float); }

void Pool::begin(float* state, std::size_t rows) const {
  const State s = parts(state, rows, pitch_);
  std::fill_n(s.sums, rows * pitch_ + rows, 0.0);
  std::fill_n(s.quiet, rows, no_answer);
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
  const State s = parts(state, block.rows, pitch_);
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
  const State s = parts(state, block.rows, pitch_);
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
  task.total = s.total;
  task.answered = answered;
  task.scratch = space.get();
  kernels().add(task);
}

void Pool::answer(const float* state, std::size_t rows, std::size_t /*stage*/, Label* labels, float* scores) const {
  Combined out;
  out.label = labels;
  (score_ == Kind::margin ? out.margin : out.max_prob) = scores;
  answer(state, rows, out);
}

void Pool::answer(const float* state, std::size_t rows, const Combined& out) const {
  const State s = parts(const_cast<float*>(state), rows, pitch_);
  const auto space = scratch(lanes * pitch_);
  kernels().finish({s.sums,
                    s.total,
                    s.quiet,
                    rows,
                    classes_,
                    pitch_,
                    how_ == How::logpool,
                    {out.label, out.max_prob, out.margin, out.probs},
                    space.get()});
}

std::size_t combine(const Pool& pool, std::span<const Member> members, std::span<const Outputs> outputs,
                    const Combined& out, unsigned threads) {
  if (members.empty() || members.size() != outputs.size()) throw std::invalid_argument("combining needs members");
  double total = 0.0;
  std::size_t bytes = 0;
  bool all_plain = pool.how() != How::vote && members.size() <= pooling::most_members;
  for (std::size_t m = 0; m < members.size(); ++m) {
    check(members[m]);
    if (outputs[m].rows != outputs[0].rows) throw std::invalid_argument("members differ in their number of rows");
    total += members[m].weight;
    // A member without weight is not there; what it says must not turn a sum into NaN.
    all_plain = all_plain && members[m].weight > 0.0 && plain(members[m], outputs[m], pool.classes());
    bytes += outputs[m].rows * (vectors(outputs[m]) ? outputs[m].classes : 4) * sizeof(float);
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
    if (all_plain) {
      joined(pool, members, outputs, first, last, to);
    } else {
      one_by_one(pool, members, outputs, first, last, to);
    }
    unanswered +=
        static_cast<std::size_t>(std::count_if(to.label + first, to.label + last, [](Label l) { return l < 0; }));
  });
  return unanswered;
}

}  // namespace coinfer
