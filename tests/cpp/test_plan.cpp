#include <algorithm>
#include <limits>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "coinfer/cpu.hpp"
#include "coinfer/plan/decide.hpp"
#include "coinfer/plan/evidence.hpp"
#include "coinfer/plan/session.hpp"

using namespace coinfer;

namespace {

constexpr float nan32 = std::numeric_limits<float>::quiet_NaN();

/// Models that report labels and confidences; some rows have no answer, no confidence, or abstain (class 2).
struct Models {
  std::vector<std::vector<Label>> label;
  std::vector<std::vector<float>> confidence;
  std::vector<Outputs> outputs;

  Models(std::size_t models, std::size_t rows, unsigned seed) : label(models), confidence(models) {
    std::mt19937 random(seed);
    for (std::size_t m = 0; m < models; ++m) {
      for (std::size_t row = 0; row < rows; ++row) {
        const auto draw = static_cast<unsigned>(random() % 20);
        label[m].push_back(draw == 0 ? no_answer : static_cast<Label>(random() % 3));
        confidence[m].push_back(draw == 1 ? nan32 : static_cast<float>(random() % 8) / 8.0F);
      }
    }
    for (std::size_t m = 0; m < models; ++m) {
      Outputs out;
      out.form = Form::label_confidence;
      out.rows = rows;
      out.classes = 3;
      out.label = label[m].data();
      out.confidence = confidence[m].data();
      outputs.push_back(out);
    }
  }
};

std::shared_ptr<Plan> ladder(std::size_t stages, float threshold, std::size_t group = 1) {
  auto plan = std::make_shared<Plan>();
  plan->combiner = std::make_shared<Last>();
  for (std::size_t s = 0; s < stages; ++s) {
    plan->stages.push_back(
        {static_cast<std::uint32_t>(plan->members.size()), static_cast<std::uint32_t>(group), threshold});
    for (std::size_t g = 0; g < group; ++g) {
      Member member;
      member.model = static_cast<std::uint32_t>(plan->members.size());
      member.deployment = member.model;
      member.abstain = {2};
      plan->members.push_back(member);
    }
  }
  return plan;
}

/// Lead one row through the live session, telling members in reverse order.
Status run(Session& session, const Models& models, std::size_t row) {
  while (session.status() == Status::open) {
    const std::vector<std::uint32_t> asked(session.ask().rbegin(), session.ask().rend());
    for (const std::uint32_t member : asked) {
      session.tell(member, models.outputs[session.plan().members[member].model].slice(row, 1));
    }
    session.step();
  }
  return session.status();
}

void check_session_equals_bulk(const std::shared_ptr<Plan>& plan, const Models& models, std::size_t rows) {
  const Evidence evidence = gather(*plan, models.outputs);
  const Decisions decisions = decide(*plan, evidence);
  for (std::size_t row = 0; row < rows; ++row) {
    Session session(plan);
    const Status status = run(session, models, row);
    const Itinerary& itinerary = decisions.itineraries[decisions.route[row]];
    CHECK(std::equal(itinerary.begin(), itinerary.end(), session.visited().begin(), session.visited().end()));
    const std::size_t stage = itinerary.back();
    CHECK_EQ(session.label(), evidence.labels(standing(evidence, itinerary, row))[row]);
    const float bulk = evidence.scores(stage)[row];
    CHECK(session.score() == bulk || (std::isnan(session.score()) && std::isnan(bulk)));
    CHECK(status == conclude(session.label(), evidence.miss(stage, row) != 0, false));
  }
}

// A rule that skips: goes on by 1 or 2 stages depending on the label, stops on high scores.
std::int32_t hop(void* /*state*/, const View* view) {
  if (view->stage < 0) return 1;
  if (view->score >= 0.75F) return 0;
  return view->label == 1 ? 2 : 1;
}

}  // namespace

TEST("judge: a score equal to the threshold settles, NaN and negative labels go on, the last stage stops") {
  const auto plan = ladder(2, 0.5F);
  View view;
  view.label = 1;
  view.score = 0.5F;
  CHECK_EQ(judge(*plan, view, true), 0);
  view.score = std::nextafter(0.5F, 0.0F);
  CHECK_EQ(judge(*plan, view, true), 1);
  CHECK_EQ(judge(*plan, view, false), 0);
  view.score = nan32;
  CHECK_EQ(judge(*plan, view, true), 1);
  view.score = 1.0F;
  view.label = abstention(2);
  CHECK_EQ(judge(*plan, view, true), 1);
}

TEST("judge: waiting lowers the bar by per_us for each microsecond") {
  auto plan = ladder(2, 0.8F);
  plan->stages[0].per_us = 0.001F;
  View view;
  view.label = 0;
  view.score = 0.75F;
  CHECK_EQ(judge(*plan, view, true), 1);
  view.wait_us = 100.0F;
  CHECK_EQ(judge(*plan, view, true), 0);
  CHECK(!plan->state_independent());
}

TEST("a curve is a step function; NaN stays NaN") {
  Curve curve;
  curve.cut = {0.2F, 0.5F};
  curve.value = {-1.0F, 3.0F};
  CHECK_EQ(curve(0.1F), -1.0F);
  CHECK_EQ(curve(0.2F), -1.0F);
  CHECK_EQ(curve(0.5F), 3.0F);
  CHECK_EQ(curve(9.0F), 3.0F);
  CHECK(std::isnan(curve(nan32)));
}

void check_bulk_equals_judge(const Plan& plan, const Evidence& evidence) {
  for (const Isa isa : implementations()) {
    force(name(isa));
    const Decisions decisions = decide(plan, evidence);
    for (std::size_t row = 0; row < evidence.rows; ++row) {
      View view;
      std::size_t stage = 0;
      for (;; ++stage) {
        view.stage = static_cast<std::int64_t>(stage);
        view.score = evidence.scores(stage)[row];
        view.label = evidence.labels(stage)[row];
        if (judge(plan, view, stage + 1 < evidence.stages) == 0) break;
      }
      CHECK_EQ(std::size_t{decisions.itineraries[decisions.route[row]].back()}, stage);
    }
  }
  force("auto");
}

TEST("every instruction set settles like judge(), row by row: thresholds") {
  const Models models(4, 5000, 1);
  const auto plan = ladder(4, 0.625F);
  check_bulk_equals_judge(*plan, gather(*plan, models.outputs));
}

TEST("every instruction set settles like judge(), row by row: curves that rise and fall") {
  const Models models(4, 5000, 8);
  const auto plan = ladder(4, 0.5F);
  Curve wave;
  wave.cut = {-std::numeric_limits<float>::infinity(), 0.2F, 0.4F, 0.8F};
  wave.value = {0.7F, 0.1F, 0.5F, 0.2F};
  plan->curves.push_back(std::make_shared<Curve>(wave));
  plan->stages[0].curve = plan->stages[2].curve = plan->curves[0].get();
  check_bulk_equals_judge(*plan, gather(*plan, models.outputs));
  check_session_equals_bulk(plan, models, 5000);
}

TEST("the live session decides as in bulk: cascades") {
  check_session_equals_bulk(ladder(4, 0.625F), Models(4, 3000, 2), 3000);
}

TEST("the live session decides as in bulk: groups, answers told in any order") {
  check_session_equals_bulk(ladder(3, 0.625F, 3), Models(9, 3000, 3), 3000);
}

TEST("the live session decides as in bulk: a rule that skips stages") {
  const auto plan = ladder(5, 0.5F);
  plan->rule.advance = &hop;
  plan->rule.jumps = true;
  plan->rule.opens = true;
  check_session_equals_bulk(plan, Models(5, 3000, 4), 3000);
}

TEST("gather: threads and blocks do not change evidence") {
  const std::size_t rows = 10000;
  const Models models(3, rows, 5);
  const auto plan = ladder(3, 0.5F);
  const Evidence one = gather(*plan, models.outputs, 1);
  const Evidence two = gather(*plan, models.outputs, 2);
  CHECK(one.label == two.label);
  CHECK(one.missed == two.missed);
  CHECK(one.unsure_rows == two.unsure_rows);
}

TEST("a member without an answer changes nothing, and its stage is never settled on") {
  const std::vector<Label> first{1, 1};
  const std::vector<float> sure{0.4F, 0.4F};
  const std::vector<Label> second{no_answer, 0};
  const std::vector<float> surer{0.9F, 0.9F};
  const std::vector<Label> third{no_answer, 0};
  std::vector<Outputs> outputs(3);
  const Label* labels[] = {first.data(), second.data(), third.data()};
  const float* confidences[] = {sure.data(), surer.data(), surer.data()};
  for (std::size_t m = 0; m < 3; ++m) {
    outputs[m].form = Form::label_confidence;
    outputs[m].rows = 2;
    outputs[m].classes = 2;
    outputs[m].label = labels[m];
    outputs[m].confidence = confidences[m];
  }
  const auto plan = ladder(3, 0.3F);
  for (Stage& stage : plan->stages) stage.threshold = 0.5F;
  const Evidence evidence = gather(*plan, outputs);
  const Decisions decisions = decide(*plan, evidence);
  CHECK_EQ(decisions.itineraries[decisions.route[0]].size(), std::size_t{3});
  CHECK_EQ(evidence.labels(2)[0], 1);
  CHECK_EQ(evidence.miss(2, 0), 2);
  CHECK_EQ(decisions.itineraries[decisions.route[1]].size(), std::size_t{2});
}

TEST("the oracle stops at the first right answer, else at the first stage") {
  const Models models(3, 2000, 6);
  const auto plan = ladder(3, 0.5F);
  plan->oracle = true;
  const Evidence evidence = gather(*plan, models.outputs);
  std::vector<Label> truth(2000);
  for (std::size_t row = 0; row < truth.size(); ++row) truth[row] = static_cast<Label>(row % 4) - 1;
  const Decisions decisions = decide(*plan, evidence, truth);
  for (std::size_t row = 0; row < truth.size(); ++row) {
    std::size_t expected = 0;
    for (std::size_t stage = 3; stage-- > 0;) {
      if (truth[row] >= 0 && evidence.labels(stage)[row] == truth[row]) expected = stage;
    }
    CHECK_EQ(std::size_t{decisions.itineraries[decisions.route[row]].back()}, expected);
  }
  CHECK_THROWS(Session(plan), std::invalid_argument);
  CHECK_THROWS(decide(*plan, evidence), std::invalid_argument);
}

TEST("a session keeps what it was told, class map included") {
  const auto plan = ladder(1, 0.5F);
  Session session(plan);
  const float vector[] = {0.25F, 0.75F};
  {
    const std::vector<Label> relabel{3, 5};
    Outputs out;
    out.form = Form::probs;
    out.rows = 1;
    out.classes = 2;
    out.vector = vector;
    out.relabel = relabel.data();
    session.tell(0, out);
  }
  const std::vector<Label> other{7, 7};  // where the map was, most likely
  session.step();
  CHECK_EQ(session.label(), 5);
  CHECK_EQ(other[0], 7);
}

TEST("misuse of a session throws") {
  const Models models(2, 4, 7);
  const auto plan = ladder(2, 2.0F);
  Session session(plan);
  CHECK_THROWS(session.tell(1, models.outputs[1].slice(0, 1)), std::logic_error);
  CHECK_THROWS(session.tell(0, models.outputs[0]), std::logic_error);
  session.tell(0, models.outputs[0].slice(1, 1));
  CHECK_THROWS(session.tell(0, models.outputs[0].slice(1, 1)), std::logic_error);
  session.step();
  CHECK(session.settle(true) == Status::degraded || session.status() == Status::expired);
  CHECK_THROWS(session.step(), std::logic_error);
  CHECK_THROWS(session.settle(true), std::logic_error);
}

TEST("plans that no engine could run are refused") {
  const auto empty = std::make_shared<Plan>();
  CHECK_THROWS(validate(*empty), std::invalid_argument);
  const auto hollow = ladder(2, 0.5F);
  hollow->stages[1].count = 2;
  CHECK_THROWS(validate(*hollow), std::invalid_argument);
  const auto unset = ladder(2, nan32);
  CHECK_THROWS(validate(*unset), std::invalid_argument);
}

int main() { return check::run_all(); }
