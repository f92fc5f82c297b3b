#include "coinfer/sweep/quantiles.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <functional>
#include <stdexcept>
#include <utility>

#include "coinfer/threads.hpp"

namespace coinfer {
namespace {

/// How many values have each rank, with the smallest rank that so many reach by one descent (Fenwick 1994).
class Ranks {
 public:
  explicit Ranks(std::size_t count) : sums_(count + 1), top_(std::bit_floor(count)) {}

  void add(std::size_t rank, std::int64_t count) noexcept {
    for (std::size_t at = rank + 1; at < sums_.size(); at += at & (~at + 1)) sums_[at] += count;
  }

  std::size_t reached_by(std::uint64_t reach) const noexcept {
    auto left = static_cast<std::int64_t>(reach);
    std::size_t at = 0;
    for (std::size_t step = top_; step > 0; step /= 2) {
      if (at + step < sums_.size() && sums_[at + step] < left) {
        at += step;
        left -= sums_[at];
      }
    }
    return at;
  }

 private:
  std::vector<std::int64_t> sums_;
  std::size_t top_;
};

/// The rows of one stage that have a score there, the highest first.
struct Falling {
  std::vector<float> score;
  std::vector<std::uint32_t> at;  // positions among the chosen rows

  /// How many rows reach a threshold. Nobody reaches NaN.
  std::size_t reach(float threshold) const noexcept {
    if (std::isnan(threshold)) return 0;
    return static_cast<std::size_t>(std::upper_bound(score.begin(), score.end(), threshold, std::greater<>{}) -
                                    score.begin());
  }
};

}  // namespace

std::vector<std::int64_t> quantiles(const Evidence& evidence, std::span<const float> thresholds,
                                    std::span<const std::int64_t> values, std::uint64_t reach,
                                    std::span<const std::uint32_t> rows, unsigned threads) {
  const std::size_t stages = evidence.stages;
  const std::size_t cuts = stages - 1;
  const std::size_t total = rows.empty() ? evidence.rows : rows.size();
  const std::size_t table = stages * evidence.rows;
  if (cuts == 0 || thresholds.empty() || thresholds.size() % cuts != 0) {
    throw std::invalid_argument("a threshold vector has one entry per stage but the last");
  }
  if (values.empty() || table == 0 || values.size() % table != 0) {
    throw std::invalid_argument("values are [table][stage][row]");
  }
  const std::size_t tables = values.size() / table;
  if (reach == 0 || reach > total * tables) throw std::invalid_argument("a quantile is reached by 1 to all values");
  for (const std::uint32_t row : rows) {
    if (row >= evidence.rows) throw std::invalid_argument("a row lies outside the evidence");
  }
  const auto row_at = [&](std::size_t i) { return rows.empty() ? i : std::size_t{rows[i]}; };

  std::vector<std::int64_t> distinct;
  distinct.reserve(total * stages * tables);
  for (std::size_t layer = 0; layer < tables * stages; ++layer) {
    for (std::size_t i = 0; i < total; ++i) distinct.push_back(values[layer * evidence.rows + row_at(i)]);
  }
  std::vector<std::uint32_t> rank(distinct.size());  // [table][stage][i]
  const std::vector<std::int64_t> unsorted = distinct;
  std::sort(distinct.begin(), distinct.end());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  for (std::size_t i = 0; i < rank.size(); ++i) {
    rank[i] =
        static_cast<std::uint32_t>(std::lower_bound(distinct.begin(), distinct.end(), unsorted[i]) - distinct.begin());
  }

  std::vector<Falling> falling(cuts);
  for (std::size_t stage = 0; stage < cuts; ++stage) {
    Falling& here = falling[stage];
    const float* scores = evidence.scores(stage);
    for (std::size_t i = 0; i < total; ++i) {
      if (!std::isnan(scores[row_at(i)])) here.at.push_back(static_cast<std::uint32_t>(i));
    }
    std::sort(here.at.begin(), here.at.end(),
              [&](std::uint32_t a, std::uint32_t b) { return scores[row_at(a)] > scores[row_at(b)]; });
    for (const std::uint32_t i : here.at) here.score.push_back(scores[row_at(i)]);
  }

  const std::size_t count = thresholds.size() / cuts;
  std::vector<std::int64_t> found(count);
  split(count, threads, 1, [&](std::size_t first, std::size_t last) {
    if (first == last) return;
    Ranks ranks(distinct.size());
    std::vector<std::uint8_t> settled(total, static_cast<std::uint8_t>(cuts));
    const auto moved = [&](std::size_t i, std::size_t stage, std::int64_t by) {
      for (std::size_t t = 0; t < tables; ++t) ranks.add(rank[(t * stages + stage) * total + i], by);
    };
    for (std::size_t i = 0; i < total; ++i) moved(i, cuts, 1);
    std::vector<std::size_t> passed(cuts, 0);
    for (std::size_t v = first; v < last; ++v) {
      const float* bars = thresholds.data() + v * cuts;
      for (std::size_t stage = 0; stage < cuts; ++stage) {
        const std::size_t now = falling[stage].reach(bars[stage]);
        const auto [from, to] = std::minmax({passed[stage], now});
        passed[stage] = now;
        for (std::size_t at = from; at < to; ++at) {
          const std::size_t i = falling[stage].at[at];
          const std::size_t row = row_at(i);
          std::size_t next = 0;
          while (next < cuts && !(evidence.scores(next)[row] >= bars[next])) ++next;
          if (next == settled[i]) continue;
          moved(i, settled[i], -1);
          moved(i, next, 1);
          settled[i] = static_cast<std::uint8_t>(next);
        }
      }
      found[v] = distinct[ranks.reached_by(reach)];
    }
  });
  return found;
}

}  // namespace coinfer
