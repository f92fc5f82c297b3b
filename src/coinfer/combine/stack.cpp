#include "coinfer/combine/stack.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "coinfer/combine/stack_task.hpp"
#include "coinfer/cpu.hpp"
#include "coinfer/status.hpp"

namespace coinfer {
namespace {

constexpr double bits_per_nat = 1.4426950408889634;  // log2(e): softmax is worked out in powers of two
constexpr double most = 1e30;                        // no coefficient is larger, so that sums stay finite in float32
constexpr std::size_t rows_at_once = 256;

stacking::Kernel* apply() {
  switch (implementation()) {
#if defined(__x86_64__)
    case Isa::avx512: return stacking::apply_avx512;
    case Isa::avx2: return stacking::apply_avx2;
#endif
    default: return stacking::apply_baseline;
  }
}

std::unique_ptr<double[]> widened(std::size_t members, std::size_t classes) {
  return std::make_unique_for_overwrite<double[]>(members * stacking::rows_together * classes);
}

void check_numbers(const std::vector<double>& values, std::size_t count, const char* what) {
  if (values.size() != count) {
    throw std::invalid_argument(std::string("a stack needs ") + std::to_string(count) + " numbers of " + what +
                                ", not " + std::to_string(values.size()));
  }
  if (!std::ranges::all_of(values, [](double x) { return std::abs(x) <= most; })) {
    throw std::invalid_argument(std::string("a stack's ") + what + " must hold numbers of at most 1e30 in size");
  }
}

}  // namespace

Stack::Stack(const std::vector<Model>& models, std::size_t members, std::size_t classes, bool logs, double floor,
             Kind score)
    : pool_(logs ? How::logpool : How::mean, classes, score),
      members_(members),
      pitch_(pool_.pitch()),
      floor_(logs ? std::log2(floor) : 0.0) {
  if (members == 0 || members > most_members) throw std::invalid_argument("a stack holds 1 to 64 members");
  if (logs && (std::isnan(floor) || floor <= 0.0 || floor >= 1.0))
    throw std::invalid_argument("the floor of a stack lies between 0 and 1");
  for (const Model& model : models) {
    check_numbers(model.coefficient, classes * members * classes, "coefficients");
    check_numbers(model.intercept, classes, "intercepts");
    if (model.there == 0 || (members < 64 && model.there >> members != 0)) {
      throw std::invalid_argument("a set of members must name at least one, and only members of this stack");
    }
    Fitted fitted;
    fitted.coefficient.resize(members * classes * pitch_);
    fitted.intercept.resize(pitch_);
    for (std::size_t k = 0; k < classes; ++k) {
      fitted.intercept[k] = bits_per_nat * model.intercept[k];
      for (std::size_t x = 0; x < members * classes; ++x) {
        fitted.coefficient[x * pitch_ + k] = bits_per_nat * model.coefficient[k * members * classes + x];
      }
    }
    if (!fitted_.emplace(model.there, std::move(fitted)).second) {
      throw std::invalid_argument("a set of members occurs twice in a stack");
    }
  }
}

void Stack::begin(float* state, std::size_t rows) const {
  for (std::size_t m = 0; m < members_; ++m) pool_.begin(state + m * pool_.state_floats() * rows, rows);
}

void Stack::add(float* state, const Member& member, const Outputs& block, std::uint8_t* answered) const {
  if (member.place >= members_) throw std::invalid_argument("a stack was fitted for fewer members than it is given");
  Member alone = member;
  alone.weight = 1.0;
  pool_.add(state + member.place * pool_.state_floats() * block.rows, alone, block, answered);
}

void Stack::answer(const float* state, std::size_t rows, std::size_t /*stage*/, Label* labels, float* scores) const {
  Combined out;
  out.label = labels;
  (score() == Kind::margin ? out.margin : out.max_prob) = scores;
  results(state, rows, out);
}

void Stack::results(const float* state, std::size_t rows, const Combined& out) const {
  const std::size_t classes = pool_.classes();
  std::vector<Pool::State> said(members_);
  std::vector<Pool::Sums> features_of(members_);
  for (std::size_t m = 0; m < members_; ++m) {
    const float* of_member = state + m * pool_.state_floats() * rows;
    said[m] = pool_.parts(const_cast<float*>(of_member), rows);
    features_of[m] = pool_.sums(of_member, rows);
  }
  std::vector<std::uint64_t> there(rows);
  std::vector<Label> otherwise(rows, no_answer);
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t m = members_; m-- > 0;) {
      there[row] |= static_cast<std::uint64_t>(said[m].total[row] > 0.0) << m;
      if (said[m].quiet[row] != no_answer) otherwise[row] = said[m].quiet[row];
    }
    if (there[row] != 0) otherwise[row] = no_answer;
  }
  std::vector<double> sums(rows * pitch_), total(rows);
  std::vector<float> features(members_ * std::min(rows, rows_at_once) * classes);
  const auto scratch = widened(members_, classes);
  std::array<const float*, most_members> data{};
  for (std::size_t first = 0; first < rows;) {
    std::size_t last = first + 1;
    while (last < rows && last - first < rows_at_once && there[last] == there[first]) ++last;
    if (const auto found = fitted_.find(there[first]); found != fitted_.end()) {
      const std::size_t count = last - first;
      for (std::size_t m = 0; m < members_; ++m) {
        float* to = features.data() + m * count * classes;
        data[m] = to;
        const double least = said[m].total[first] > 0.0 ? floor_ : 0.0;  // who is not there has zeros
        for (std::size_t row = first; row < last; ++row) {
          for (const double from : features_of[m][row]) *to++ = static_cast<float>(std::max(from, least));
        }
      }
      std::fill_n(total.data() + first, count, 1.0);
      apply()({data.data(), members_, count, classes, pitch_, found->second.coefficient.data(),
               found->second.intercept.data(), sums.data() + first * pitch_, scratch.get()});
    }
    first = last;
  }
  finish(sums.data(), total.data(), otherwise.data(), rows, classes, true, out);
}

bool Stack::at_once(std::span<const Member> members, std::span<const Outputs> outputs, const Combined& out,
                    std::uint8_t* answered) const {
  const std::size_t rows = outputs[0].rows, classes = pool_.classes();
  const auto all = fitted_.find(~std::uint64_t{0} >> (64 - members_));
  if (pool_.how() != How::mean || members.size() != members_ || all == fitted_.end()) return false;
  std::array<const float*, most_members> data{};
  for (std::size_t m = 0; m < members_; ++m) {
    const Outputs& said = outputs[m];
    if (members[m].place != m || !plain(members[m], said, classes)) return false;
    if (said.row_stride != static_cast<std::ptrdiff_t>(classes)) return false;
  }
  constexpr std::size_t lanes = stacking::rows_together;
  const std::size_t block = std::max(lanes, (std::size_t{1} << 13) / pitch_ / lanes * lanes);
  const auto scratch = widened(members_, classes);
  std::vector<double> sums(std::min(block, rows) * pitch_);
  std::vector<double> total(std::min(block, rows), 1.0);
  std::vector<Label> otherwise(std::min(block, rows), no_answer);
  std::vector<Outputs> parts(members_);
  for (std::size_t row = 0; row < rows; row += block) {
    const std::size_t count = std::min(block, rows - row);
    const auto at = [row](auto* p, std::size_t width = 1) { return p == nullptr ? p : p + row * width; };
    const Combined here{at(out.label), at(out.max_prob), at(out.margin), at(out.probs, classes)};
    for (std::size_t m = 0; m < members_; ++m) {
      parts[m] = outputs[m].slice(row, count);
      data[m] = parts[m].vector;
    }
    if (!apply()({data.data(), members_, count, classes, pitch_, all->second.coefficient.data(),
                  all->second.intercept.data(), sums.data(), scratch.get()})) {
      one_by_one(*this, members, parts, here, at(answered));
      continue;
    }
    finish(sums.data(), total.data(), otherwise.data(), count, classes, true, here);
    if (answered != nullptr) std::fill_n(answered + row, count, static_cast<std::uint8_t>(members_));
  }
  return true;
}

}  // namespace coinfer
