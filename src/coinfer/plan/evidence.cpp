#include "coinfer/plan/evidence.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "coinfer/threads.hpp"

namespace coinfer {
namespace {

void count_gaps(Evidence& evidence) {
  std::uint64_t missed = 0;
  for (std::size_t s = 0; s < evidence.stages; ++s) {
    std::uint64_t gaps = 0;
    std::uint64_t unsure = 0;
    for (std::size_t row = 0; row < evidence.rows; ++row) {
      gaps += evidence.missed[s * evidence.rows + row] != 0 ? 1 : 0;
      unsure += std::isnan(evidence.scores(s)[row]) ? 1 : 0;
    }
    evidence.missed_rows.push_back(gaps);
    evidence.unsure_rows.push_back(unsure);
    missed += gaps;
  }
  if (missed == 0) std::vector<std::uint8_t>().swap(evidence.missed);
}

}  // namespace

void validate(const Plan& plan) {
  if (plan.stages.empty()) throw std::invalid_argument("a plan needs at least one stage");
  if (plan.stages.size() > max_stages) {
    throw std::invalid_argument("a plan has at most " + std::to_string(max_stages) + " stages, not " +
                                std::to_string(plan.stages.size()));
  }
  if (!plan.combiner) throw std::invalid_argument("a plan needs a combiner");
  for (const Stage& stage : plan.stages) {
    if (stage.count == 0 || stage.count > max_stages || stage.first + stage.count > plan.members.size()) {
      throw std::invalid_argument("a stage must hold 1 to 255 members of its plan");
    }
    if (std::isnan(stage.threshold)) throw std::invalid_argument("a threshold must be a number, not NaN");
  }
  if ((plan.rule.jumps || plan.rule.opens) && !plan.combiner->memoryless()) {
    throw std::invalid_argument("a rule that skips stages needs a combiner that looks at the newest answer only");
  }
}

Evidence gather(const Plan& plan, std::span<const Outputs> by_model, unsigned threads) {
  validate(plan);
  for (const Member& member : plan.members) {
    if (member.model >= by_model.size()) throw std::invalid_argument("a member's model has no outputs");
  }
  const std::size_t rows = by_model[plan.members.front().model].rows;
  for (const Member& member : plan.members) {
    if (by_model[member.model].rows != rows) throw std::invalid_argument("models differ in their number of rows");
  }
  const bool skips = plan.rule.jumps || plan.rule.opens;
  Evidence evidence;
  evidence.stages = plan.stages.size();
  evidence.rows = rows;
  evidence.label.resize(evidence.stages * rows);
  evidence.score.resize(evidence.stages * rows);
  evidence.missed.resize(evidence.stages * rows);
  const std::size_t block = block_rows(*plan.combiner);
  split(rows, threads, block, [&](std::size_t first, std::size_t last) {
    std::vector<float> state(plan.combiner->state_floats() * block);
    std::vector<std::uint8_t> answered(block);
    const bool at_once = plan.stages.size() == 1 && plan.stages[0].count == plan.members.size();
    std::vector<Outputs> parts(at_once ? plan.members.size() : 0);
    for (std::size_t row = first; row < last; row += block) {
      const std::size_t count = std::min(block, last - row);
      if (at_once) {
        for (std::size_t m = 0; m < parts.size(); ++m) parts[m] = by_model[plan.members[m].model].slice(row, count);
        Combined to;
        to.label = evidence.label.data() + row;
        (plan.combiner->score() == Kind::margin ? to.margin : to.max_prob) = evidence.score.data() + row;
        if (plan.combiner->at_once(plan.members, parts, to, answered.data())) {
          for (std::size_t i = 0; i < count; ++i) {
            evidence.missed[row + i] = answered[i] == 0 ? 2 : answered[i] < parts.size() ? 1 : 0;
          }
          continue;
        }
      }
      plan.combiner->begin(state.data(), count);
      for (std::size_t s = 0; s < plan.stages.size(); ++s) {
        const Stage& stage = plan.stages[s];
        if (skips) plan.combiner->begin(state.data(), count);
        plan.combiner->open(state.data(), count);
        std::fill_n(answered.begin(), count, std::uint8_t{0});
        for (std::uint32_t m = stage.first; m < stage.first + stage.count; ++m) {
          const Member& member = plan.members[m];
          plan.combiner->add(state.data(), member, by_model[member.model].slice(row, count), answered.data());
        }
        const std::size_t at = s * rows + row;
        plan.combiner->answer(state.data(), count, s, evidence.label.data() + at, evidence.score.data() + at);
        for (std::size_t i = 0; i < count; ++i) {
          evidence.missed[at + i] = answered[i] == 0 ? 2 : answered[i] < stage.count ? 1 : 0;
          // Nobody new to be sure of: an older answer stays the best so far, but its score says nothing about this
          // stage.
          if (answered[i] == 0) evidence.score[at + i] = std::numeric_limits<float>::quiet_NaN();
        }
      }
    }
  });
  count_gaps(evidence);
  return evidence;
}

}  // namespace coinfer
