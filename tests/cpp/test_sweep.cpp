#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <random>
#include <vector>

#include "check.hpp"
#include "coinfer/cpu.hpp"
#include "coinfer/sweep/bootstrap.hpp"
#include "coinfer/sweep/grid.hpp"
#include "coinfer/sweep/pairs.hpp"
#include "coinfer/sweep/quantiles.hpp"
#include "coinfer/sweep/risk.hpp"
#include "coinfer/sweep/vectors.hpp"

using namespace coinfer;

namespace {

constexpr float inf = std::numeric_limits<float>::infinity();

struct World {
  Evidence evidence;
  std::vector<std::int64_t> by_stage;
  std::vector<std::int64_t> by_row;
  std::vector<std::uint8_t> flags;
  std::vector<Quantity> quantities;
};

World random_world(std::size_t stages, std::size_t rows, unsigned levels, unsigned seed) {
  std::mt19937 random(seed);
  World world;
  world.evidence.stages = stages;
  world.evidence.rows = rows;
  for (std::size_t i = 0; i < stages * rows; ++i) {
    const auto draw = static_cast<unsigned>(random() % (levels + 2));
    world.evidence.label.push_back(0);
    world.evidence.score.push_back(draw == 0                    ? std::numeric_limits<float>::quiet_NaN()
                                   : draw == 1 && seed % 3 == 0 ? inf
                                                                : (static_cast<float>(draw) - 4.0F) / 7.0F);
    world.by_row.push_back(static_cast<std::int64_t>(random() % 100) - 50);
    world.flags.push_back(static_cast<std::uint8_t>(random() % 2));
  }
  for (std::size_t i = 0; i < stages; ++i) world.by_stage.push_back(static_cast<std::int64_t>(random() % 100) - 50);
  world.quantities = {std::span<const std::int64_t>(world.by_stage), std::span<const std::int64_t>(world.by_row),
                      std::span<const std::uint8_t>(world.flags)};
  return world;
}

std::vector<std::int64_t> plain(const World& world, const std::vector<float>& thresholds,
                                const std::vector<std::uint32_t>& rows) {
  const std::size_t stages = world.evidence.stages;
  std::vector<std::int64_t> sums(3 + stages);
  for (const std::uint32_t row : rows) {
    std::size_t stage = 0;
    while (stage + 1 < stages && !(world.evidence.scores(stage)[row] >= thresholds[stage])) ++stage;
    sums[0] += world.by_stage[stage];
    sums[1] += world.by_row[stage * world.evidence.rows + row];
    sums[2] += world.flags[stage * world.evidence.rows + row];
    ++sums[3 + stage];
  }
  return sums;
}

std::vector<std::uint32_t> all_rows(const World& world) {
  std::vector<std::uint32_t> rows;
  for (std::size_t row = 0; row < world.evidence.rows; ++row) rows.push_back(static_cast<std::uint32_t>(row));
  return rows;
}

template <class Found>
void check_point(const World& world, const Found& found, std::size_t at, std::size_t points,
                 const std::vector<std::int64_t>& expected) {
  for (std::size_t q = 0; q < 3; ++q) CHECK_EQ(found.quantities[q][at], expected[q]);
  for (std::size_t stage = 0; stage < world.evidence.stages; ++stage) {
    CHECK_EQ(found.settled[stage * points + at], expected[3 + stage]);
  }
}

/// All cuts of a stage: enough thresholds for every distinct outcome.
std::vector<float> all_cuts(const World& world, std::size_t stage) {
  return levels(world.evidence, stage, world.evidence.rows + 3);
}

}  // namespace

TEST("a grid's cells are what each combination of thresholds gives, on any rows and threads") {
  for (unsigned seed = 0; seed < 12; ++seed) {
    for (const std::size_t stages : {std::size_t{1}, std::size_t{2}, std::size_t{3}, std::size_t{4}}) {
      const World world = random_world(stages, 3000, 40, seed);
      std::vector<std::vector<float>> thresholds;
      for (std::size_t stage = 0; stage + 1 < stages; ++stage) {
        thresholds.push_back(levels(world.evidence, stage, 4 + (seed + stage) % 3));
      }
      const std::vector<std::uint32_t> some{5, 17, 17, 2999};
      const bool chosen = seed % 2 == 1;
      const std::vector<std::uint32_t> rows = chosen ? some : all_rows(world);
      const Grid found =
          grid(world.evidence, thresholds, world.quantities,
               chosen ? std::span<const std::uint32_t>(some) : std::span<const std::uint32_t>(), 1 + seed % 3);
      std::vector<std::size_t> at(stages - 1);
      const std::size_t cells = found.quantities[0].size();
      for (std::size_t cell = 0; cell < cells; ++cell) {
        std::vector<float> here;
        for (std::size_t d = 0; d + 1 < stages; ++d) here.push_back(thresholds[d][at[d]]);
        check_point(world, found, cell, cells, plain(world, here, rows));
        for (std::size_t d = stages - 1; d-- > 0;) {
          if (++at[d] < thresholds[d].size()) break;
          at[d] = 0;
        }
      }
    }
  }
}

TEST("thresholds that crowd together are told apart") {
  World world = random_world(2, 2000, 40, 1);
  float score = 0.999F;
  for (float& each : world.evidence.score) {
    each = score;
    score = std::nextafter(score, 2.0F);
    if (score > 0.9995F) score = -5.0F;
  }
  const std::vector<std::vector<float>> thresholds{levels(world.evidence, 0, 300)};
  CHECK_EQ(thresholds[0].size(), std::size_t{300});
  const Grid found = grid(world.evidence, thresholds, world.quantities);
  for (std::size_t t = 0; t < 300; ++t) {
    check_point(world, found, t, 300, plain(world, {thresholds[0][t]}, all_rows(world)));
  }
}

TEST("a grid refuses thresholds that do not ascend, and too many cells") {
  const World world = random_world(3, 10, 5, 1);
  const auto of = [&](const std::vector<std::vector<float>>& thresholds) { grid(world.evidence, thresholds, {}); };
  CHECK_THROWS(of({{1.0F, 0.0F}, {1.0F}}), std::invalid_argument);
  CHECK_THROWS(of({{1.0F}}), std::invalid_argument);
  CHECK_THROWS(of({std::vector<float>(3000, 1.0F), std::vector<float>(3000, 1.0F)}), std::invalid_argument);
}

TEST("a line has every threshold of one stage, the others held") {
  for (unsigned seed = 0; seed < 12; ++seed) {
    const World world = random_world(4, 60, 9, seed);
    for (std::size_t stage = 0; stage < 3; ++stage) {
      std::vector<float> thresholds{0.1F, inf, -0.2F};
      const Cuts found = line(world.evidence, thresholds, stage, world.quantities);
      const std::size_t points = found.threshold.size();
      std::vector<std::vector<std::int64_t>> seen;
      for (std::size_t p = 0; p < points; ++p) {
        thresholds[stage] = found.threshold[p];
        seen.push_back(plain(world, thresholds, all_rows(world)));
        check_point(world, found, p, points, seen.back());
      }
      for (const float cut : all_cuts(world, stage)) {
        thresholds[stage] = cut;
        CHECK(std::find(seen.begin(), seen.end(), plain(world, thresholds, all_rows(world))) != seen.end());
      }
    }
  }
}

TEST("vectors of thresholds, on every instruction set") {
  for (unsigned seed = 0; seed < 9; ++seed) {
    const World world = random_world(2 + seed % 3, 1111, 30, seed);
    const std::size_t cuts = world.evidence.stages - 1;
    std::mt19937 random(seed);
    std::vector<float> thresholds;
    for (std::size_t i = 0; i < 50 * cuts; ++i) {
      thresholds.push_back(i % 11 == 0 ? inf : i % 13 == 0 ? -inf : static_cast<float>(random() % 50) / 10.0F - 1.0F);
    }
    for (const Isa isa : implementations()) {
      force(name(isa));
      const Sums found = vectors(world.evidence, thresholds, world.quantities, {}, 1 + seed % 2);
      for (std::size_t v = 0; v < 50; ++v) {
        const std::vector<float> here(thresholds.begin() + static_cast<std::ptrdiff_t>(v * cuts),
                                      thresholds.begin() + static_cast<std::ptrdiff_t>((v + 1) * cuts));
        check_point(world, found, v, 50, plain(world, here, all_rows(world)));
      }
    }
    force("auto");
  }
}

TEST("quantiles are those of the sorted values, on any rows, order of vectors and threads") {
  for (unsigned seed = 0; seed < 12; ++seed) {
    const std::size_t stages = 2 + seed % 3;
    const World world = random_world(stages, 60, 6, seed);
    std::mt19937 random(seed);
    std::vector<std::uint32_t> rows;
    for (std::uint32_t row = 0; row < 60; row += 1 + seed % 2) rows.push_back(row);
    std::vector<std::int64_t> values = world.by_row;  // two tables: each row counts twice
    for (const std::int64_t value : world.by_row) values.push_back(value * 2 + 7);
    std::vector<float> thresholds;
    for (std::size_t i = 0; i < 40 * (stages - 1); ++i) {
      const auto draw = static_cast<int>(random() % 10);
      thresholds.push_back(draw == 0   ? inf
                           : draw == 1 ? -inf
                           : draw == 2 ? std::numeric_limits<float>::quiet_NaN()
                                       : static_cast<float>(draw - 4) / 7.0F);
    }
    const std::uint64_t reach = 1 + random() % (2 * rows.size());
    const auto found = quantiles(world.evidence, thresholds, values, reach, rows, 1 + seed % 3);
    for (std::size_t v = 0; v < 40; ++v) {
      std::vector<std::int64_t> all;
      for (const std::uint32_t row : rows) {
        std::size_t stage = 0;
        while (stage + 1 < stages && !(world.evidence.scores(stage)[row] >= thresholds[v * (stages - 1) + stage])) {
          ++stage;
        }
        all.push_back(values[stage * 60 + row]);
        all.push_back(values[(stages + stage) * 60 + row]);
      }
      std::sort(all.begin(), all.end());
      CHECK_EQ(found[v], all[reach - 1]);
    }
  }
}

TEST("the best pair is the best of all pairs") {
  for (unsigned seed = 0; seed < 60; ++seed) {
    World world = random_world(3, 5 + seed % 26, 2 + seed % 9, seed);
    const std::size_t rows = world.evidence.rows;
    for (std::size_t row = 0; row < rows; ++row) {
      std::int64_t& third = world.by_row[2 * rows + row];
      third = std::max(third, world.by_row[rows + row]);
    }
    world.by_stage = {1, 3, 7};
    std::vector<std::vector<std::int64_t>> sums;
    const std::vector<float> firsts = all_cuts(world, 0);
    const std::vector<float> seconds = all_cuts(world, 1);
    for (const float a : firsts) {
      for (const float b : seconds) sums.push_back(plain(world, {a, b}, all_rows(world)));
    }
    for (std::int64_t least = 0; least <= static_cast<std::int64_t>(rows) + 1; ++least) {
      const std::int64_t most = seed % 2 == 0 ? INT64_MAX : static_cast<std::int64_t>(rows) * 4;
      std::optional<std::int64_t> cheapest;
      std::optional<std::int64_t> surest;
      for (const auto& sum : sums) {
        if (sum[0] > most) continue;
        surest = std::max(surest.value_or(sum[2]), sum[2]);
        if (sum[2] >= least) cheapest = std::min(cheapest.value_or(sum[1]), sum[1]);
      }
      const std::vector<Limit> limits{{world.quantities[0], most}};
      const Pair found = cheapest_pair(world.evidence, world.quantities[1], world.quantities[2], least, limits);
      CHECK_EQ(found.feasible, cheapest.has_value());
      const std::vector<std::int64_t> there = plain(world, {found.first, found.second}, all_rows(world));
      if (cheapest) CHECK_EQ(found.cost, *cheapest);
      if (surest) {
        CHECK_EQ(found.cost, there[1]);
        CHECK_EQ(found.gain, there[2]);
        if (!cheapest) CHECK_EQ(found.gain, *surest);
      }
      const Pair sure = surest_pair(world.evidence, world.quantities[1], world.quantities[2], limits);
      CHECK_EQ(sure.feasible, surest.has_value());
      if (surest) CHECK_EQ(sure.gain, *surest);
    }
  }
}

TEST("a cost that falls from the second stage to the third is refused") {
  World world = random_world(3, 10, 5, 1);
  world.by_stage = {0, 2, 1};
  CHECK_THROWS(cheapest_pair(world.evidence, world.quantities[0], world.quantities[2], 3), std::invalid_argument);
}

TEST("betting: certain evidence is small, none is 1, and order matters little") {
  const std::vector<std::int8_t> never(1000, 0);
  CHECK(betting(never, 0.05, 0.05) < 1e-6);
  CHECK_EQ(betting(never, 0.0, 0.05), 1.0);
  const std::vector<std::int8_t> always(1000, 1);
  CHECK_EQ(betting(always, 0.5, 0.05), 1.0);
  CHECK_EQ(betting({}, 0.5, 0.05), 1.0);
}

TEST("bootstrap: replicates do not depend on threads, and a constant has no spread") {
  std::vector<double> tops;
  std::vector<double> bottoms;
  for (std::size_t i = 0; i < 2 * 9000; ++i) {
    bottoms.push_back(1.0 + static_cast<double>(i % 3));
    tops.push_back(i < 9000 ? 2.0 * bottoms.back() : static_cast<double>(i % 7));
  }
  const std::vector<double> one = bootstrap(tops, bottoms, 2, 50, 7, 1);
  CHECK(one == bootstrap(tops, bottoms, 2, 50, 7, 3));
  CHECK(one != bootstrap(tops, bottoms, 2, 50, 8, 1));
  for (std::size_t b = 0; b < 50; ++b) CHECK(std::abs(one[b] - 2.0) < 1e-12);
}

int main() { return check::run_all(); }
