#include "coinfer/sweep/grid.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <mutex>
#include <stdexcept>
#include <variant>

#include "coinfer/threads.hpp"

namespace coinfer {
namespace {

constexpr std::size_t block = 1024;
constexpr std::size_t cells_of_table = std::size_t{1} << 12;

/// How many of the ascending thresholds a score reaches, by a table over the bits of the score: a cell of the table
/// mostly holds one threshold or none, so that one comparison is left.
class Reach {
 public:
  explicit Reach(const std::vector<float>& thresholds) : thresholds_(thresholds), cells_(cells_of_table) {
    std::uint32_t low = UINT32_MAX;
    std::uint32_t high = 0;
    for (const float threshold : thresholds) {
      if (!std::isfinite(threshold)) continue;
      low = std::min(low, key(threshold));
      high = std::max(high, key(threshold));
    }
    low_ = low > high ? 0 : low;
    const std::uint32_t width = low > high ? 0 : high - low;
    while ((width >> shift_) >= cells_of_table) ++shift_;
    std::size_t at = 0;
    for (std::size_t cell = 0; cell < cells_of_table; ++cell) {
      const std::size_t first = at;
      while (at < thresholds.size() && cell_of(thresholds[at]) == cell) ++at;
      cells_[cell] = static_cast<std::uint16_t>(first | (at - first > 1 ? crowded : 0));
    }
    thresholds_.push_back(std::numeric_limits<float>::quiet_NaN());  // reached by no score
  }

  std::uint32_t operator()(float score) const noexcept {
    std::uint32_t reached = cells_[cell_of(score)];
    if ((reached & crowded) != 0) [[unlikely]] {
      const float* const end = thresholds_.data() + thresholds_.size() - 1;
      reached = static_cast<std::uint32_t>(std::upper_bound(thresholds_.data() + (reached & ~crowded), end, score) -
                                           thresholds_.data());
    } else {
      reached += static_cast<std::uint32_t>(score >= thresholds_[reached]);
    }
    return std::isnan(score) ? 0 : reached;
  }

 private:
  static constexpr std::uint32_t crowded = 0x8000U;
  std::vector<float> thresholds_;
  std::vector<std::uint16_t> cells_;  // how many thresholds lie in the cells before; crowded: more than one in this
  std::uint32_t low_ = 0;
  std::uint32_t shift_ = 0;

  static std::uint32_t key(float score) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(score + 0.0F);  // -0 and +0 are one score
    return bits ^ (static_cast<std::uint32_t>(static_cast<std::int32_t>(bits) >> 31) | 0x80000000U);
  }
  std::size_t cell_of(float score) const noexcept {
    const std::uint32_t k = key(score);
    const std::uint32_t above = k < low_ ? 0 : k - low_;
    return std::min<std::size_t>(above >> shift_, cells_of_table - 1);
  }
};

/// What a pass adds up. `counts`: how often each (reached counts, pattern of flags over stages) occurs, per flag.
/// `sums`: per number and stage, by the reached counts that its settling depends on.
struct Histogram {
  std::vector<std::vector<std::uint32_t>> counts;
  std::vector<std::vector<std::vector<std::int64_t>>> sums;

  void add(const Histogram& other) {
    for (std::size_t q = 0; q < counts.size(); ++q) {
      for (std::size_t i = 0; i < counts[q].size(); ++i) counts[q][i] += other.counts[q][i];
    }
    for (std::size_t q = 0; q < sums.size(); ++q) {
      for (std::size_t stage = 0; stage < sums[q].size(); ++stage) {
        for (std::size_t i = 0; i < sums[q][stage].size(); ++i) sums[q][stage][i] += other.sums[q][stage][i];
      }
    }
  }
};

/// A table over the first dimensions, turned in place into sums over all that do not reach a threshold.
void prefix(std::vector<std::int64_t>& table, std::span<const std::size_t> sizes, std::size_t dimension) {
  std::size_t inner = 1;
  for (std::size_t d = dimension + 1; d < sizes.size(); ++d) inner *= sizes[d];
  const std::size_t outer = table.size() / (inner * sizes[dimension]);
  for (std::size_t o = 0; o < outer; ++o) {
    std::int64_t* at = table.data() + o * sizes[dimension] * inner;
    for (std::size_t i = inner; i < sizes[dimension] * inner; ++i) at[i] += at[i - inner];
  }
}

/// The same over all that do.
void suffix(std::vector<std::int64_t>& table, std::span<const std::size_t> sizes) {
  const std::size_t size = sizes.back();
  for (std::size_t first = 0; first < table.size(); first += size) {
    for (std::size_t i = size - 1; i-- > 0;) table[first + i] += table[first + i + 1];
  }
}

}  // namespace

std::vector<float> levels(const Evidence& evidence, std::size_t stage, std::size_t count,
                          std::span<const std::uint32_t> rows) {
  if (stage >= evidence.stages) throw std::invalid_argument("there is no such stage");
  if (count < 2) throw std::invalid_argument("a grid needs at least two thresholds per stage");
  std::vector<float> scores;
  const std::size_t total = rows.empty() ? evidence.rows : rows.size();
  scores.reserve(total);
  for (std::size_t i = 0; i < total; ++i) {
    const std::size_t row = rows.empty() ? i : rows[i];
    if (row >= evidence.rows) throw std::invalid_argument("a row lies outside the evidence");
    const float score = evidence.scores(stage)[row];
    if (!std::isnan(score)) scores.push_back(score + 0.0F);
  }
  std::sort(scores.begin(), scores.end());
  std::vector<std::size_t> starts;  // of every tie group but the first
  for (std::size_t i = 1; i < scores.size(); ++i) {
    if (scores[i - 1] < scores[i]) starts.push_back(i);
  }
  std::vector<float> out{-std::numeric_limits<float>::infinity()};
  const std::size_t inner = count - 2;
  const auto cut = [&](std::size_t start) { out.push_back(midway(scores[start - 1], scores[start])); };
  if (starts.size() <= inner) {
    for (const std::size_t start : starts) cut(start);
  } else {
    std::vector<std::size_t> chosen;  // indices of starts, ascending
    std::size_t at = 0;
    for (std::size_t k = 1; k <= inner; ++k) {
      // Where many scores are equal at the top, quantiles run out of groups: the last ones fill the grid.
      const std::size_t goal = scores.size() * k / (inner + 1);
      const auto found = std::lower_bound(starts.begin() + static_cast<std::ptrdiff_t>(at), starts.end(), goal);
      const auto last = starts.size() - 1 - (inner - k);
      chosen.push_back(std::min(static_cast<std::size_t>(found - starts.begin()), last));
      at = chosen.back() + 1;
    }
    for (const std::size_t start : chosen) cut(starts[start]);
  }
  out.push_back(std::numeric_limits<float>::infinity());
  return out;
}

Grid grid(const Evidence& evidence, std::span<const std::vector<float>> thresholds,
          std::span<const Quantity> quantities, std::span<const std::uint32_t> rows, unsigned threads) {
  const std::size_t stages = evidence.stages;
  const std::size_t cuts = stages - 1;
  if (thresholds.size() != cuts) throw std::invalid_argument("one list of thresholds per stage but the last");
  std::vector<std::size_t> sizes;  // of the histogram, per stage but the last: none reached to all reached
  std::size_t cells = 1;
  std::size_t buckets = 1;
  for (const std::vector<float>& list : thresholds) {
    if (list.empty() || !std::is_sorted(list.begin(), list.end()) || std::isnan(list.front())) {
      throw std::invalid_argument("thresholds must ascend, at least one per stage but the last");
    }
    sizes.push_back(list.size() + 1);
    if (list.size() > 0x7FFE || buckets > grid_cells_max / sizes.back())
      throw std::invalid_argument("the grid has too many cells");
    cells *= list.size();
    buckets *= sizes.back();
  }
  if (stages > 8) throw std::invalid_argument("a grid can span at most eight stages");
  const std::size_t count = rows.empty() ? evidence.rows : rows.size();
  if (count > UINT32_MAX) throw std::invalid_argument("too many samples for one sweep");
  for (const std::uint32_t row : rows) {
    if (row >= evidence.rows) throw std::invalid_argument("a row lies outside the evidence");
  }
  std::vector<const std::uint8_t*> flags;
  std::vector<const std::int64_t*> numbers;
  for (const Quantity& quantity : quantities) {
    const std::size_t size = std::visit([](const auto& values) { return values.size(); }, quantity);
    if ((quantity.index() != 0 || size != stages) && size != stages * evidence.rows) {
      throw std::invalid_argument("a quantity has one value per stage, or one per stage and sample");
    }
    if (quantity.index() == 1) {
      flags.push_back(std::get<1>(quantity).data());
    } else if (size != stages) {
      numbers.push_back(std::get<0>(quantity).data());
    }
  }
  std::vector<Reach> reach;
  for (const std::vector<float>& list : thresholds) reach.emplace_back(list);
  // Numbers are kept by the buckets of the stages up to theirs; stage k by those of the first min(k + 1, cuts).
  std::vector<std::size_t> tables;
  for (std::size_t stage = 0, size = 1; stage < stages; ++stage) {
    if (stage < cuts) size *= sizes[stage];
    tables.push_back(size);
  }
  const std::size_t patterns = std::size_t{1} << stages;
  const auto empty = [&] {
    Histogram histogram;
    if (flags.empty()) histogram.counts.emplace_back(buckets);
    for (std::size_t q = 0; q < flags.size(); ++q) histogram.counts.emplace_back(buckets * patterns);
    histogram.sums.resize(numbers.size());
    for (auto& by_stage : histogram.sums) {
      for (const std::size_t size : tables) by_stage.emplace_back(size);
    }
    return histogram;
  };
  Histogram total = empty();
  std::mutex adding;
  split(count, threads, block, [&](std::size_t begin, std::size_t end) {
    Histogram mine = empty();
    std::vector<std::vector<std::uint32_t>> bucket(std::max<std::size_t>(cuts, 1), std::vector<std::uint32_t>(block));
    for (std::size_t first = begin; first < end; first += block) {
      const std::size_t length = std::min(block, end - first);
      const auto row_at = [&](std::size_t i) { return rows.empty() ? first + i : std::size_t{rows[first + i]}; };
      const auto each = [&](const auto& use) {
        if (rows.empty()) {
          for (std::size_t i = 0; i < length; ++i) use(i, first + i);
        } else {
          for (std::size_t i = 0; i < length; ++i) use(i, row_at(i));
        }
      };
      for (std::size_t stage = 0; stage < cuts; ++stage) {
        const float* scores = evidence.scores(stage);
        std::uint32_t* out = bucket[stage].data();
        const Reach& reached = reach[stage];
        if (stage == 0) {
          each([&](std::size_t i, std::size_t row) { out[i] = reached(scores[row]); });
        } else {
          const std::uint32_t* before = bucket[stage - 1].data();
          const auto size = static_cast<std::uint32_t>(sizes[stage]);
          each([&](std::size_t i, std::size_t row) { out[i] = before[i] * size + reached(scores[row]); });
        }
      }
      const std::uint32_t* joint = bucket.back().data();
      if (flags.empty()) {
        std::uint32_t* counts = mine.counts[0].data();
        for (std::size_t i = 0; i < length; ++i) ++counts[joint[i]];
      }
      for (std::size_t q = 0; q < flags.size(); ++q) {
        std::uint32_t* counts = mine.counts[q].data();
        const std::uint8_t* flag = flags[q];
        const auto tally = [&](auto known) {
          each([&](std::size_t i, std::size_t row) {
            std::size_t pattern = 0;
            for (std::size_t stage = 0; stage < (known() == 0 ? stages : known()); ++stage) {
              pattern |= static_cast<std::size_t>(flag[stage * evidence.rows + row]) << stage;
            }
            ++counts[joint[i] * patterns + pattern];
          });
        };
        if (stages == 2) {
          tally(std::integral_constant<std::size_t, 2>{});
        } else if (stages == 3) {
          tally(std::integral_constant<std::size_t, 3>{});
        } else {
          tally(std::integral_constant<std::size_t, 0>{});
        }
      }
      for (std::size_t q = 0; q < numbers.size(); ++q) {
        for (std::size_t stage = 0; stage < stages; ++stage) {
          std::int64_t* sums = mine.sums[q][stage].data();
          const std::uint32_t* at = bucket[std::min(stage, std::max<std::size_t>(cuts, 1) - 1)].data();
          const std::int64_t* number = numbers[q] + stage * evidence.rows;
          each([&](std::size_t i, std::size_t row) { sums[at[i]] += number[row]; });
        }
      }
    }
    const std::scoped_lock lock(adding);
    total.add(mine);
  });

  // From a table per stage (by the buckets that settling there depends on) to the sum in every cell.
  const auto evaluate = [&](std::vector<std::vector<std::int64_t>>& by_stage, auto&& add) {
    for (std::size_t stage = 0; stage < stages; ++stage) {
      std::vector<std::int64_t>& table = by_stage[stage];
      const std::span<const std::size_t> shape(sizes.data(), std::min(stage + 1, cuts));
      for (std::size_t d = 0; d < std::min(stage, cuts); ++d) prefix(table, shape, d);
      if (stage < cuts) suffix(table, shape);
      std::vector<std::size_t> at(cuts);
      for (std::size_t cell = 0; cell < cells; ++cell) {
        std::size_t index = 0;
        for (std::size_t d = 0; d < shape.size(); ++d) index = index * sizes[d] + at[d] + (d == stage ? 1 : 0);
        add(stage, cell, table[index]);
        for (std::size_t d = cuts; d-- > 0;) {
          if (++at[d] < thresholds[d].size()) break;
          at[d] = 0;
        }
      }
    }
  };
  const auto fold = [&](const std::vector<std::uint32_t>& counts, std::size_t width, bool flagged) {
    std::vector<std::vector<std::int64_t>> by_stage;
    for (std::size_t stage = 0; stage < stages; ++stage) {
      std::vector<std::int64_t> table(tables[stage]);
      const std::size_t shared = buckets / tables[stage] * width;
      const std::uint32_t* at = counts.data();
      for (std::int64_t& sum : table) {
        for (std::size_t i = 0; i < shared; ++i) {
          if (!flagged || (i >> stage & 1U) != 0) sum += at[i];  // patterns vary fastest
        }
        at += shared;
      }
      by_stage.push_back(std::move(table));
    }
    return by_stage;
  };
  Grid out;
  out.settled.resize(stages * cells);
  {
    auto by_stage = fold(total.counts[0], flags.empty() ? 1 : patterns, false);
    evaluate(by_stage,
             [&](std::size_t stage, std::size_t cell, std::int64_t sum) { out.settled[stage * cells + cell] = sum; });
  }
  std::size_t flag = 0;
  std::size_t number = 0;
  for (const Quantity& quantity : quantities) {
    std::vector<std::int64_t> sums(cells);
    const auto add = [&](std::size_t, std::size_t cell, std::int64_t sum) { sums[cell] += sum; };
    if (quantity.index() == 1) {
      auto by_stage = fold(total.counts[flag++], patterns, true);
      evaluate(by_stage, add);
    } else if (std::get<0>(quantity).size() == stages) {
      for (std::size_t stage = 0; stage < stages; ++stage) {
        const std::int64_t each = std::get<0>(quantity)[stage];
        for (std::size_t cell = 0; cell < cells; ++cell) sums[cell] += each * out.settled[stage * cells + cell];
      }
    } else {
      evaluate(total.sums[number++], add);
    }
    out.quantities.push_back(std::move(sums));
  }
  return out;
}

}  // namespace coinfer
