// Combiners whose score says how safe the running answer is: lead, posterior, agreement.
#include <cmath>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "coinfer/combine/agreement.hpp"
#include "coinfer/combine/lead.hpp"
#include "coinfer/combine/posterior.hpp"
#include "coinfer/status.hpp"

using namespace coinfer;

namespace {

/// P(agree) by adding one vote after the other (Polya's urn), over all vectors of counts.
double urn(std::vector<double> counts, std::size_t label, std::size_t to_come) {
  if (to_come == 0) {
    for (std::size_t k = 0; k < counts.size(); ++k) {
      if (k != label && counts[k] >= counts[label]) return 0.0;
    }
    return 1.0;
  }
  double total = 0.0, sum = 0.0;
  for (const double count : counts) total += count + 1.0;
  for (std::size_t k = 0; k < counts.size(); ++k) {
    const double chance = (counts[k] + 1.0) / total;
    counts[k] += 1.0;
    sum += chance * urn(counts, label, to_come - 1);
    counts[k] -= 1.0;
  }
  return sum;
}

struct Answer {
  Label label;
  float score;
};

/// One row through a combiner, stage by stage; no_answer: that member says nothing.
std::vector<Answer> run(const Combiner& combiner, const std::vector<std::vector<Label>>& stages, Label quiet = -9) {
  std::vector<float> state(combiner.state_floats());
  std::vector<Answer> answers;
  std::uint8_t answered = 0;
  combiner.begin(state.data(), 1);
  for (std::size_t s = 0; s < stages.size(); ++s) {
    combiner.open(state.data(), 1);
    for (const Label label : stages[s]) {
      Member member;
      if (quiet >= 0) member.abstain = {quiet};
      combiner.add(state.data(), member, {.form = Form::label, .rows = 1, .label = &label}, &answered);
    }
    Answer answer{};
    combiner.answer(state.data(), 1, s, &answer.label, &answer.score);
    answers.push_back(answer);
  }
  return answers;
}

}  // namespace

TEST("the posterior is that of Polya's urn, for every state of a small vote") {
  for (const std::size_t classes : {1U, 2U, 3U, 4U}) {
    const Posterior posterior(6, classes);
    std::vector<double> counts(classes);
    for (std::size_t code = 0; code < 2401; ++code) {
      std::size_t rest = code, total = 0, top = 0;
      for (std::size_t k = 0; k < classes; ++k, rest /= 7) {
        counts[k] = static_cast<double>(rest % 7);
        total += rest % 7;
        if (counts[k] > counts[top]) top = k;
      }
      if (rest != 0 || total == 0 || total > 6) continue;
      for (std::size_t to_come = 0; to_come + total <= 6; ++to_come) {
        const double expected = urn(counts, top, to_come);
        const float got = posterior(counts, static_cast<Label>(top), to_come);
        CHECK(std::abs(static_cast<double>(got) - expected) < 1e-6);
        CHECK(classes == 1 || (got == 1.0F) == (lead(counts, static_cast<Label>(top)) > static_cast<double>(to_come)));
      }
    }
  }
}

TEST("a posterior whose table would not end is refused") {
  CHECK_THROWS(Posterior(0, 3), std::invalid_argument);
  CHECK_THROWS(Posterior(256, 2), std::invalid_argument);
  CHECK_THROWS(Posterior(100, 100), std::invalid_argument);
  CHECK_THROWS(Posterior(5, 0), std::invalid_argument);
  CHECK(Posterior(40, 1000).states() > 1000);
}

TEST("a lead is rounded down, and counts what is there") {
  CHECK_EQ(rounded_down(16777217.0), 16777216.0F);
  CHECK_EQ(rounded_down(-16777217.0), -16777218.0F);
  CHECK(static_cast<double>(rounded_down(0.1)) <= 0.1);
  const auto answers = run(Lead(How::vote, 3), {{2}, {no_answer}, {1, 1}, {2}, {0}}, 0);
  CHECK_EQ(answers[0].label, 2);
  CHECK_EQ(answers[0].score, 1.0F);
  CHECK_EQ(answers[1].score, 1.0F);
  CHECK_EQ(answers[2].label, 1);
  CHECK_EQ(answers[2].score, 1.0F);
  CHECK_EQ(answers[3].label, 1);
  CHECK_EQ(answers[3].score, 0.0F);
  CHECK_EQ(answers[4].score, 0.0F);
}

TEST("a tier answers for itself, and what nobody answers leaves the answer before") {
  const Agreement agreement(4, {3, 2, 2, 2});
  const auto answers = run(agreement, {{2, 1, 2}, {3, 1}, {no_answer, no_answer}, {0, 0}}, 0);
  CHECK_EQ(answers[0].label, 2);
  CHECK_EQ(answers[0].score, 2.0F / 3.0F);
  CHECK_EQ(answers[1].label, 1);
  CHECK_EQ(answers[1].score, 0.0F);
  CHECK_EQ(answers[2].label, 1);
  CHECK(std::isnan(answers[2].score));
  CHECK(abstains(answers[3].label));
  CHECK(agreement.memoryless());
}

int main() { return check::run_all(); }
