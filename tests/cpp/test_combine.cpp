#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.hpp"
#include "coinfer/combine/pool.hpp"
#include "coinfer/combine/stack.hpp"
#include "coinfer/cpu.hpp"
#include "coinfer/plan/decide.hpp"
#include "coinfer/plan/evidence.hpp"
#include "coinfer/plan/session.hpp"

using namespace coinfer;

namespace {

constexpr float nan32 = std::numeric_limits<float>::quiet_NaN();

/// Models of every form over the same classes: probabilities, logits, few classes, and rows without an answer.
struct Models {
  std::vector<std::vector<float>> vector;
  std::vector<Label> relabel;
  std::vector<Outputs> outputs;
  std::vector<Member> members;

  Models(std::size_t models, std::size_t rows, std::size_t classes, unsigned seed, bool plain) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> uniform(0.0F, 1.0F);
    for (std::size_t k = 0; k < (classes + 1) / 2; ++k) relabel.push_back(static_cast<Label>(2 * k));
    for (std::size_t m = 0; m < models; ++m) {
      Outputs out;
      out.form = !plain && m % 3 == 1 ? Form::logits : Form::probs;
      out.rows = rows;
      out.classes = !plain && m % 3 == 2 ? relabel.size() : classes;
      if (out.classes != classes) out.relabel = relabel.data();
      out.row_stride = static_cast<std::ptrdiff_t>(out.classes);
      std::vector<float> table;
      for (std::size_t row = 0; row < rows; ++row) {
        const std::size_t start = table.size();
        float sum = 0.0F;
        for (std::size_t k = 0; k < out.classes; ++k) {
          const float u = uniform(random);
          table.push_back(out.form == Form::logits ? 8.0F * u : u * u * u + 1e-6F);
          sum += table.back();
        }
        if (out.form == Form::probs) {
          for (std::size_t k = 0; k < out.classes; ++k) table[start + k] /= sum;
        }
        if (random() % 25 == 0) table[start + random() % out.classes] = nan32;
      }
      vector.push_back(std::move(table));
      outputs.push_back(out);
      Member member;
      member.model = static_cast<std::uint32_t>(m);
      member.deployment = member.model;
      member.weight = 0.5 + static_cast<double>(m % 4);
      member.temperature = plain ? 1.0F : 1.0F + 0.25F * static_cast<float>(m % 3);
      members.push_back(member);
    }
    for (std::size_t m = 0; m < models; ++m) outputs[m].vector = vector[m].data();
  }
};

struct Answers {
  std::vector<Label> label;
  std::vector<float> max_prob, margin, probs;

  explicit Answers(std::size_t rows, std::size_t classes)
      : label(rows), max_prob(rows), margin(rows), probs(rows * classes) {}
  Combined to() { return {label.data(), max_prob.data(), margin.data(), probs.data()}; }
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

bool same(const Answers& a, const Answers& b) {
  return a.label == b.label && same_bits(a.max_prob, b.max_prob) && same_bits(a.margin, b.margin) &&
         same_bits(a.probs, b.probs);
}

Answers one_member_at_a_time(const Pool& pool, const Models& models, std::size_t rows) {
  Answers answers(rows, pool.classes());
  std::vector<float> state(pool.state_floats() * rows);
  std::vector<std::uint8_t> answered(rows);
  pool.begin(state.data(), rows);
  for (std::size_t m = 0; m < models.members.size(); ++m) {
    pool.add(state.data(), models.members[m], models.outputs[m], answered.data());
  }
  pool.results(state.data(), rows, answers.to());
  return answers;
}

const How hows[] = {How::mean, How::logpool, How::vote};

}  // namespace

TEST("joint, member by member, and every instruction set give equal bits") {
  for (const How how : hows) {
    for (const bool plain : {true, false}) {
      for (const std::size_t classes : {1U, 2U, 3U, 5U, 10U, 16U, 17U, 40U, 100U}) {
        const std::size_t rows = 333;
        const Models models(4, rows, classes, static_cast<unsigned>(classes), plain);
        const Pool pool(how, classes);
        const Answers expected = one_member_at_a_time(pool, models, rows);
        for (const Isa isa : implementations()) {
          force(name(isa));
          Answers joint(rows, classes);
          combine(pool, models.members, models.outputs, joint.to());
          CHECK(same(joint, expected));
          CHECK(same(one_member_at_a_time(pool, models, rows), expected));
        }
        force("auto");
      }
    }
  }
}

TEST("a row alone has the bits of the row in bulk, wherever its table starts") {
  for (const How how : hows) {
    for (const std::size_t classes : {2U, 10U, 33U}) {
      const std::size_t rows = 50;
      const Models models(5, rows, classes, 11, false);
      const Pool pool(how, classes);
      Answers bulk(rows, classes);
      combine(pool, models.members, models.outputs, bulk.to());
      for (std::size_t row = 0; row < rows; ++row) {
        std::vector<Outputs> alone;
        for (const Outputs& out : models.outputs) alone.push_back(out.slice(row, 1));
        Answers one(1, classes);
        combine(pool, models.members, alone, one.to());
        CHECK_EQ(one.label[0], bulk.label[row]);
        CHECK(std::memcmp(one.max_prob.data(), &bulk.max_prob[row], sizeof(float)) == 0);
        CHECK(std::memcmp(one.margin.data(), &bulk.margin[row], sizeof(float)) == 0);
        CHECK(std::memcmp(one.probs.data(), &bulk.probs[row * classes], classes * sizeof(float)) == 0);
      }
    }
  }
}

TEST("a live session combines as in bulk, in one group and one by one") {
  for (const How how : hows) {
    for (const bool group : {true, false}) {
      const std::size_t rows = 2000, classes = 7;
      const Models models(4, rows, classes, 5, false);
      auto plan = std::make_shared<Plan>();
      plan->combiner = std::make_shared<Pool>(how, classes, Kind::margin);
      plan->members = models.members;
      if (group) {
        plan->stages.push_back({0, 4, 0.0F});
      } else {
        for (std::uint32_t m = 0; m < 4; ++m) plan->stages.push_back({m, 1, 0.3F});
      }
      const Evidence evidence = gather(*plan, models.outputs, 2);
      const Decisions decisions = decide(*plan, evidence);
      for (std::size_t row = 0; row < rows; ++row) {
        Session session(plan);
        while (session.status() == Status::open) {
          const std::vector<std::uint32_t> asked(session.ask().rbegin(), session.ask().rend());
          for (const std::uint32_t member : asked) session.tell(member, models.outputs[member].slice(row, 1));
          session.step();
        }
        const Itinerary& itinerary = decisions.itineraries[decisions.route[row]];
        CHECK_EQ(session.stage(), std::size_t{itinerary.back()});
        CHECK_EQ(session.label(), evidence.labels(session.stage())[row]);
        const float bulk = evidence.scores(session.stage())[row];
        CHECK(session.score() == bulk || (std::isnan(session.score()) && std::isnan(bulk)));
      }
    }
  }
}

TEST("votes: ties go to the lowest label, no answer and abstentions are no votes") {
  const std::vector<Label> said[] = {{2, 1, no_answer, 0, 0}, {1, 1, no_answer, no_answer, 0}, {0, 2, no_answer, 2, 0}};
  std::vector<Outputs> outputs(3);
  std::vector<Member> members(3);
  for (std::size_t m = 0; m < 3; ++m) {
    outputs[m].form = Form::label;
    outputs[m].rows = 5;
    outputs[m].label = said[m].data();
  }
  for (Member& member : members) member.abstain = {0};
  const Pool pool(How::vote, 3);
  Answers answers(5, 3);
  CHECK_EQ(combine(pool, members, outputs, answers.to()), std::size_t{2});
  CHECK((answers.label == std::vector<Label>{1, 1, no_answer, 2, abstention(0)}));
  CHECK_EQ(answers.max_prob[0], 0.5F);
  CHECK_EQ(answers.margin[0], 0.0F);
  CHECK(std::isnan(answers.max_prob[2]));
  CHECK(std::isnan(answers.max_prob[4]));
  for (Member& member : members) member.abstain.clear();
  members[2].weight = 2.5;
  combine(pool, members, outputs, answers.to());
  CHECK((answers.label == std::vector<Label>{0, 2, no_answer, 2, 0}));
}

TEST("all votes at once are the votes one by one, on every instruction set") {
  std::mt19937 random(3);
  const std::vector<double> weights[] = {{1, 1, 1, 1, 1, 1}, {0.5, 2, 0.25, 1, 3, 1}, {0.3, 0.1, 0.7, 0.3, 0.1, 0.9}};
  for (const std::size_t classes : {1U, 2U, 5U, 6U, 7U, 40U}) {
    for (const unsigned quiet : {0U, 50U, 3U}) {  // one in `quiet` labels is missing
      for (const std::vector<double>& weight : weights) {
        const std::size_t rows = 333;
        std::vector<std::vector<Label>> said(weight.size(), std::vector<Label>(rows));
        std::vector<Outputs> outputs(weight.size());
        std::vector<Member> members(weight.size());
        for (std::size_t m = 0; m < weight.size(); ++m) {
          for (Label& label : said[m]) {
            label = static_cast<Label>(random() % classes);
            if (quiet != 0 && random() % quiet == 0) label = no_answer;
          }
          outputs[m].form = Form::label;
          outputs[m].rows = rows;
          outputs[m].label = said[m].data();
          members[m].weight = weight[m];
          if (m == 2) members[m].abstain = {0};
        }
        const Pool pool(How::vote, classes);
        Answers expected(rows, classes);
        std::vector<std::uint8_t> counts(rows), answered(rows, 77);
        one_by_one(pool, members, outputs, expected.to(), counts.data());
        for (const Isa isa : implementations()) {
          force(name(isa));
          Answers joint(rows, classes);
          Combined to = joint.to();
          to.probs = nullptr;
          CHECK(pool.at_once(members, outputs, to, answered.data()));
          CHECK(joint.label == expected.label);
          CHECK(same_bits(joint.max_prob, expected.max_prob));
          CHECK(same_bits(joint.margin, expected.margin));
          CHECK(answered == counts);
        }
        force("auto");
      }
    }
  }
}

TEST("a stack at once is a stack one by one, and a member in bulk is a member alone") {
  for (const bool logs : {true, false}) {
    for (const bool plain : {true, false}) {
      for (const std::size_t classes : {1U, 3U, 10U, 17U}) {
        const std::size_t rows = 200, count = 4;
        Models models(count, rows, classes, 21, plain);
        for (std::uint32_t m = 0; m < count; ++m) models.members[m].place = m;
        std::mt19937 random(5);
        std::normal_distribution<double> normal;
        std::vector<Stack::Model> fits;
        for (const std::uint64_t there : {15U, 14U, 13U, 7U}) {
          Stack::Model fit;
          fit.there = there;
          for (std::size_t i = 0; i < classes * count * classes; ++i) fit.coefficient.push_back(normal(random));
          for (std::size_t k = 0; k < classes; ++k) fit.intercept.push_back(normal(random));
          fits.push_back(fit);
        }
        const Stack stack(fits, count, classes, logs, 0x1p-20);
        Answers expected(rows, classes);
        std::vector<std::uint8_t> counts(rows), answered(rows);
        one_by_one(stack, models.members, models.outputs, expected.to(), counts.data());
        for (const Isa isa : implementations()) {
          force(name(isa));
          Answers joint(rows, classes);
          combine(stack, models.members, models.outputs, joint.to());
          CHECK(same(joint, expected));
          if (stack.at_once(models.members, models.outputs, joint.to(), answered.data())) CHECK(answered == counts);
          for (std::size_t row = 0; row < rows; row += 7) {
            std::vector<Outputs> alone;
            for (const Outputs& out : models.outputs) alone.push_back(out.slice(row, 1));
            Answers one(1, classes);
            combine(stack, models.members, alone, one.to());
            CHECK_EQ(one.label[0], expected.label[row]);
            CHECK(std::memcmp(one.probs.data(), &expected.probs[row * classes], classes * sizeof(float)) == 0);
          }
        }
        force("auto");
      }
    }
  }
}

TEST("a stack gives no answer to members that it was not fitted for, and refuses what does not fit") {
  Models models(2, 4, 2, 1, true);
  models.members[1].place = 1;
  for (std::vector<float>& table : models.vector) table = {0.9F, 0.1F, 0.2F, 0.8F, nan32, 1.0F, 0.5F, 0.5F};
  models.vector[1] = {nan32, 0.1F, 0.2F, 0.8F, nan32, 1.0F, 0.5F, 0.5F};
  for (std::size_t m = 0; m < 2; ++m) models.outputs[m].vector = models.vector[m].data();
  const Stack::Model both{3, {1, 0, 1, 0, 0, 1, 0, 1}, {0, 0}};
  const Stack stack({both}, 2, 2, false, 0.5);
  Answers answers(4, 2);
  CHECK_EQ(combine(stack, models.members, models.outputs, answers.to()), std::size_t{2});
  CHECK((answers.label == std::vector<Label>{no_answer, 1, no_answer, 0}));
  CHECK_THROWS(Stack({both, both}, 2, 2, false, 0.5), std::invalid_argument);
  CHECK_THROWS(Stack({both}, 3, 2, false, 0.5), std::invalid_argument);
  CHECK_THROWS(Stack({{4, both.coefficient, both.intercept}}, 2, 2, false, 0.5), std::invalid_argument);
  CHECK_THROWS(Stack({both}, 2, 2, true, 0.0), std::invalid_argument);
  models.members[1].place = 2;
  CHECK_THROWS(combine(stack, models.members, models.outputs, answers.to()), std::invalid_argument);
}

TEST("state of a block stays in the second-level cache") {
  for (const std::size_t classes : {1U, 10U, 100U, 1000U}) {
    const Pool pool(How::mean, classes);
    const std::size_t rows = block_rows(pool);
    CHECK_EQ(rows % 16, std::size_t{0});
    CHECK(rows * pool.state_floats() * sizeof(float) <= std::size_t{256} << 10);
  }
  CHECK_EQ(block_rows(Last()), std::size_t{4096});
}

TEST("what cannot be combined is refused") {
  const Models models(2, 4, 3, 1, true);
  Answers answers(4, 3);
  CHECK_THROWS(Pool(How::mean, 0), std::invalid_argument);
  CHECK_THROWS(Pool(How::mean, 3, Kind::entropy), std::invalid_argument);
  const Pool other(How::mean, 4);
  CHECK_THROWS(combine(other, models.members, models.outputs, answers.to()), std::invalid_argument);
  const Pool pool(How::mean, 3);
  auto weightless = models.members;
  for (Member& member : weightless) member.weight = 0.0;
  CHECK_THROWS(combine(pool, weightless, models.outputs, answers.to()), std::invalid_argument);
  std::vector<Label> labels(4);
  auto outputs = models.outputs;
  outputs[1].form = Form::label;
  outputs[1].label = labels.data();
  CHECK_THROWS(combine(pool, models.members, outputs, answers.to()), std::invalid_argument);
}

int main() { return check::run_all(); }
