#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"
#include "coinfer/plan/decide.hpp"
#include "coinfer/sweep/cuts.hpp"

using namespace coinfer;

namespace {

Evidence random_evidence(std::size_t stages, std::size_t rows, unsigned levels, unsigned seed) {
  std::mt19937 random(seed);
  Evidence evidence;
  evidence.stages = stages;
  evidence.rows = rows;
  for (std::size_t i = 0; i < stages * rows; ++i) {
    const auto draw = static_cast<unsigned>(random() % levels);
    evidence.label.push_back(0);
    evidence.score.push_back(draw == 0 ? std::numeric_limits<float>::quiet_NaN()
                                       : (static_cast<float>(draw) - static_cast<float>(levels) / 3.0F) / 7.0F);
  }
  return evidence;
}

/// Every point against a plain evaluation at its threshold; and no distinct outcome of any threshold is missing.
void check_against_brute_force(std::size_t stages, std::size_t rows, unsigned levels, unsigned seed) {
  const Evidence evidence = random_evidence(stages, rows, levels, seed);
  std::mt19937 random(seed + 1);
  std::vector<std::int64_t> by_stage(stages);
  std::vector<std::int64_t> by_row(stages * rows);
  for (std::int64_t& value : by_stage) value = static_cast<std::int64_t>(random() % 100) - 50;
  for (std::int64_t& value : by_row) value = static_cast<std::int64_t>(random() % 100) - 50;
  std::vector<std::uint8_t> flags(stages * rows);
  for (std::uint8_t& flag : flags) flag = static_cast<std::uint8_t>(random() % 2);
  const std::vector<Quantity> quantities{std::span<const std::int64_t>(by_stage), std::span<const std::int64_t>(by_row),
                                         std::span<const std::uint8_t>(flags)};
  const Cuts found = cuts(evidence, quantities);
  const std::size_t points = found.threshold.size();
  CHECK(std::is_sorted(found.threshold.rbegin(), found.threshold.rend()));

  const auto evaluate = [&](float threshold) {
    std::vector<std::int64_t> sums(3 + stages);
    for (std::size_t row = 0; row < rows; ++row) {
      std::size_t stage = 0;
      while (stage + 1 < stages && !(evidence.scores(stage)[row] >= threshold)) ++stage;
      sums[0] += by_stage[stage];
      sums[1] += by_row[stage * rows + row];
      sums[2] += flags[stage * rows + row];
      ++sums[3 + stage];
    }
    return sums;
  };
  std::vector<std::vector<std::int64_t>> seen;
  for (std::size_t p = 0; p < points; ++p) {
    const std::vector<std::int64_t> expected = evaluate(found.threshold[p]);
    CHECK_EQ(found.quantities[0][p], expected[0]);
    CHECK_EQ(found.quantities[1][p], expected[1]);
    CHECK_EQ(found.quantities[2][p], expected[2]);
    for (std::size_t stage = 0; stage < stages; ++stage) {
      CHECK_EQ(found.settled[stage * points + p], expected[3 + stage]);
    }
    seen.push_back(expected);
  }
  for (const float score : evidence.score) {
    if (std::isnan(score)) continue;
    for (const float threshold : {score, std::nextafter(score, 100.0F)}) {
      CHECK(std::find(seen.begin(), seen.end(), evaluate(threshold)) != seen.end());
    }
  }
}

}  // namespace

TEST("all operating points, and no others: ties, NaN, negative scores, two to four stages") {
  for (unsigned seed = 0; seed < 20; ++seed) {
    check_against_brute_force(2, 40, 9, seed);
    check_against_brute_force(3, 40, 50, seed);
    check_against_brute_force(4, 25, 6, seed);
  }
  check_against_brute_force(1, 5, 5, 0);
  check_against_brute_force(2, 1, 2, 0);
}

TEST("chosen rows only") {
  const Evidence evidence = random_evidence(2, 100, 30, 3);
  const std::vector<std::int64_t> ones(2, 1);
  const std::vector<Quantity> quantities{std::span<const std::int64_t>(ones)};
  const std::vector<std::uint32_t> rows{3, 50, 99};
  const Cuts found = cuts(evidence, quantities, rows);
  CHECK(found.threshold.size() <= 4);
  for (const std::int64_t sum : found.quantities[0]) CHECK_EQ(sum, 3);
  const std::vector<std::uint32_t> outside{100};
  CHECK_THROWS(cuts(evidence, quantities, outside), std::invalid_argument);
}

TEST("a score of +inf is served at every threshold") {
  Evidence evidence = random_evidence(2, 3, 2, 1);
  evidence.score = {std::numeric_limits<float>::infinity(), 1.0F, -1.0F, 0.0F, 0.0F, 0.0F};
  const Cuts found = cuts(evidence, {});
  CHECK_EQ(found.threshold.size(), std::size_t{3});
  CHECK_EQ(found.settled[0], 1);
}

TEST("midway lies above the lower score and never above the higher") {
  const float low = 0.7F;
  const float next = std::nextafter(low, 1.0F);
  CHECK_EQ(midway(low, next), next);
  CHECK(midway(0.25F, 0.75F) == 0.5F);
  CHECK_EQ(midway(-3e38F, 3e38F), 0.0F);
  CHECK(midway(3e38F, std::numeric_limits<float>::infinity()) > 3e38F);
}

int main() { return check::run_all(); }
