#include "coinfer/plan/decide.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

#include "coinfer/cpu.hpp"
#include "coinfer/plan/settle.hpp"

namespace coinfer {
namespace {

/// Itineraries of a plan that never skips: stages 0 to k.
std::vector<Itinerary> prefixes(std::size_t stages) {
  std::vector<Itinerary> all(stages);
  for (std::size_t last = 0; last < stages; ++last) {
    for (std::size_t stage = 0; stage <= last; ++stage) all[last].push_back(static_cast<std::uint8_t>(stage));
  }
  return all;
}

/// The built-in rule for all rows: curves are applied first, so that what is left is one comparison per stage.
void settle_built_in(const Plan& plan, const Evidence& evidence, std::uint8_t* settled) {
  std::vector<float> thresholds;
  for (const Stage& stage : plan.stages) thresholds.push_back(stage.threshold);
  const bool plain =
      std::all_of(plan.stages.begin(), plan.stages.end(), [](const Stage& stage) { return stage.curve == nullptr; });
  if (plain) return settle(evidence.score.data(), evidence.rows, evidence.stages, thresholds.data(), settled);
  std::vector<float> values(evidence.score);
  for (std::size_t stage = 0; stage < evidence.stages; ++stage) {
    const Curve* curve = plan.stages[stage].curve;
    if (curve == nullptr) continue;
    float* value = values.data() + stage * evidence.rows;
    for (std::size_t row = 0; row < evidence.rows; ++row) value[row] = (*curve)(value[row]);
  }
  settle(values.data(), evidence.rows, evidence.stages, thresholds.data(), settled);
}

void settle_oracle(const Evidence& evidence, std::span<const Label> truth, std::uint8_t* settled) {
  for (std::size_t row = 0; row < evidence.rows; ++row) {
    settled[row] = 0;
    for (std::size_t stage = 0; stage < evidence.stages; ++stage) {
      if (truth[row] >= 0 && evidence.labels(stage)[row] == truth[row]) {
        settled[row] = static_cast<std::uint8_t>(stage);
        break;
      }
    }
  }
}

/// A rule of one's own that never skips, a block of rows and a stage at a time, from the last stage backwards: the
/// earliest stage that does not go on is written last.
void settle_blocks(const Plan& plan, const Evidence& evidence, std::uint8_t* settled) {
  constexpr std::size_t width = 1024;
  std::uint8_t go[width];
  for (std::size_t row = 0; row < evidence.rows; row += width) {
    const std::size_t count = std::min(width, evidence.rows - row);
    std::uint8_t* out = settled + row;
    std::fill_n(out, count, static_cast<std::uint8_t>(evidence.stages - 1));
    for (std::size_t stage = evidence.stages - 1; stage-- > 0;) {
      plan.rule.block(plan.rule.state, static_cast<std::int64_t>(stage), static_cast<std::int64_t>(count),
                      evidence.unsure_rows[stage] != 0 ? 1 : 0, evidence.labels(stage) + row,
                      evidence.scores(stage) + row, go);
      const auto here = static_cast<std::uint8_t>(stage);
      for (std::size_t i = 0; i < count; ++i) out[i] = go[i] != 0 ? out[i] : here;
    }
  }
}

/// A rule of one's own, row by row, through judge(). Ways that samples took are the leaves of a tree, one step a level.
void settle_judged(const Plan& plan, const Evidence& evidence, Decisions& decisions) {
  constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();
  std::vector<std::uint32_t> child(evidence.stages, none);  // [node][stage]
  std::vector<std::uint32_t> leaf{none};                    // [node]
  Itinerary visited;
  View view;
  view.remaining_us = std::numeric_limits<float>::infinity();
  for (std::size_t row = 0; row < evidence.rows; ++row) {
    visited.clear();
    std::size_t stage = first_stage(plan, view);
    std::size_t node = 0;
    for (;;) {
      visited.push_back(static_cast<std::uint8_t>(stage));
      if (child[node * evidence.stages + stage] == none) {
        child[node * evidence.stages + stage] = static_cast<std::uint32_t>(leaf.size());
        leaf.push_back(none);
        child.resize(child.size() + evidence.stages, none);
      }
      node = child[node * evidence.stages + stage];
      view.stage = static_cast<std::int64_t>(stage);
      view.label = evidence.labels(standing(evidence, visited, row))[row];
      view.score = evidence.scores(stage)[row];
      const std::int32_t steps = judge(plan, view, stage + 1 < evidence.stages);
      if (steps == 0) break;
      stage += static_cast<std::size_t>(steps);
    }
    if (leaf[node] == none) {
      if (decisions.itineraries.size() == 256) {
        throw std::invalid_argument("this rule takes more than 256 different ways through its stages");
      }
      leaf[node] = static_cast<std::uint32_t>(decisions.itineraries.size());
      decisions.itineraries.push_back(visited);
    }
    decisions.route[row] = static_cast<std::uint8_t>(leaf[node]);
  }
}

}  // namespace

void settle(const float* scores, std::size_t rows, std::size_t stages, const float* thresholds,
            std::uint8_t* settled) noexcept {
  switch (implementation()) {
#if defined(__x86_64__)
    case Isa::avx512: return isa::settle_avx512(scores, rows, stages, thresholds, settled);
    case Isa::avx2: return isa::settle_avx2(scores, rows, stages, thresholds, settled);
#endif
    default: return isa::settle_baseline(scores, rows, stages, thresholds, settled);
  }
}

Decisions decide(const Plan& plan, const Evidence& evidence, std::span<const Label> truth) {
  if (evidence.stages != plan.stages.size()) throw std::invalid_argument("the evidence belongs to another plan");
  if (!plan.state_independent())
    throw std::invalid_argument("decisions of this plan depend on queues or on what it learned");
  Decisions decisions;
  decisions.route.resize(evidence.rows);
  if (plan.oracle) {
    if (truth.size() != evidence.rows) throw std::invalid_argument("the oracle needs the true label of every sample");
    decisions.itineraries = prefixes(evidence.stages);
    settle_oracle(evidence, truth, decisions.route.data());
  } else if (plan.rule.advance == nullptr) {
    decisions.itineraries = prefixes(evidence.stages);
    settle_built_in(plan, evidence, decisions.route.data());
  } else if (plan.rule.block != nullptr && !plan.rule.jumps && !plan.rule.opens) {
    decisions.itineraries = prefixes(evidence.stages);
    settle_blocks(plan, evidence, decisions.route.data());
  } else {
    settle_judged(plan, evidence, decisions);
  }
  return decisions;
}

}  // namespace coinfer
