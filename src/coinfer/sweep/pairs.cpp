#include "coinfer/sweep/pairs.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <variant>

namespace coinfer {
namespace {

/// Prefix sums over ranks under insertion (Fenwick 1994), with a descent for "how far does this sum suffice".
class Prefix {
 public:
  explicit Prefix(std::size_t ranks) : sums_(std::bit_ceil(ranks + 1) + 1) {}

  void add(std::size_t rank, std::int64_t value) noexcept {
    for (std::size_t i = rank + 1; i < sums_.size(); i += i & (~i + 1)) sums_[i] += value;
  }

  /// Sum over the first `count` ranks.
  std::int64_t first(std::size_t count) const noexcept {
    std::int64_t sum = 0;
    for (std::size_t i = count; i > 0; i -= i & (~i + 1)) sum += sums_[i];
    return sum;
  }

  /// The largest count whose sum is at most `most`, all values being >= 0.
  std::size_t within(std::int64_t most) const noexcept {
    std::size_t at = 0;
    for (std::size_t step = (sums_.size() - 1); step > 0; step /= 2) {
      if (at + step < sums_.size() && sums_[at + step] <= most) {
        at += step;
        most -= sums_[at];
      }
    }
    return at;
  }

 private:
  std::vector<std::int64_t> sums_;
};

/// Sum and largest sum of a non-empty prefix, under insertion.
class Peaks {
 public:
  explicit Peaks(std::size_t ranks) : leaves_(std::bit_ceil(std::max<std::size_t>(ranks, 1))), nodes_(2 * leaves_) {}

  void add(std::size_t rank, std::int64_t value) noexcept {
    std::size_t i = rank + leaves_;
    nodes_[i].sum += value;
    nodes_[i].peak = nodes_[i].sum;
    for (i /= 2; i > 0; i /= 2) {
      const Node& left = nodes_[2 * i];
      const Node& right = nodes_[2 * i + 1];
      nodes_[i] = {left.sum + right.sum, std::max(left.peak, left.sum + right.peak)};
    }
  }

  /// The smallest count of ranks whose sum reaches `least`; nothing if none does.
  std::optional<std::size_t> reaches(std::int64_t least) const noexcept {
    if (least <= 0) return 0;
    if (nodes_[1].peak < least) return std::nullopt;
    std::size_t i = 1;
    while (i < leaves_) {
      if (nodes_[2 * i].peak >= least) {
        i = 2 * i;
      } else {
        least -= nodes_[2 * i].sum;
        i = 2 * i + 1;
      }
    }
    return i - leaves_ + 1;
  }

  /// The largest sum over the first 0 to `count` ranks.
  std::int64_t best(std::size_t count) const noexcept {
    std::int64_t sum = 0;
    std::int64_t peak = 0;
    std::size_t i = 1;
    std::size_t size = leaves_;
    while (count > 0) {
      if (count >= size) {
        peak = std::max(peak, sum + nodes_[i].peak);
        break;
      }
      size /= 2;
      if (count >= size) {
        peak = std::max(peak, sum + nodes_[2 * i].peak);
        sum += nodes_[2 * i].sum;
        count -= size;
        i = 2 * i + 1;
      } else {
        i = 2 * i;
      }
    }
    return peak;
  }

 private:
  struct Node {
    std::int64_t sum = 0;
    std::int64_t peak = 0;
  };
  std::size_t leaves_;
  std::vector<Node> nodes_;
};

/// A quantity at (stage, row).
class Values {
 public:
  Values(const Quantity& quantity, const Evidence& evidence) : rows_(evidence.rows) {
    if (const auto* flags = std::get_if<std::span<const std::uint8_t>>(&quantity)) {
      flags_ = *flags;
    } else {
      numbers_ = std::get<std::span<const std::int64_t>>(quantity);
    }
    const std::size_t size = flags_.empty() ? numbers_.size() : flags_.size();
    by_row_ = size == evidence.stages * evidence.rows && (!flags_.empty() || size != evidence.stages);
    if (!by_row_ && (!flags_.empty() || size != evidence.stages)) {
      throw std::invalid_argument("a quantity has one value per stage, or one per stage and sample");
    }
  }
  std::int64_t operator()(std::size_t stage, std::size_t row) const noexcept {
    const std::size_t at = by_row_ ? stage * rows_ + row : stage;
    return flags_.empty() ? numbers_[at] : flags_[at];
  }

 private:
  std::size_t rows_;
  bool by_row_ = false;
  std::span<const std::uint8_t> flags_;
  std::span<const std::int64_t> numbers_;
};

struct Cost {
  Values values;
  Prefix prefix;
  std::int64_t base = 0;  // the sum if nobody goes on from the second stage
  std::int64_t at_most = 0;

  std::int64_t at(std::size_t count) const noexcept { return base + prefix.first(count); }
};

/// Where each row's score stands among the distinct scores, ascending; NaN stands nowhere.
struct Ranks {
  static constexpr std::uint32_t nowhere = UINT32_MAX;
  std::vector<float> distinct;
  std::vector<std::uint32_t> rank;  // by position in `rows`

  Ranks(const float* scores, const std::vector<std::uint32_t>& rows) : rank(rows.size(), nowhere) {
    for (const std::uint32_t row : rows) {
      if (!std::isnan(scores[row])) distinct.push_back(scores[row] + 0.0F);
    }
    std::sort(distinct.begin(), distinct.end());
    distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const float score = scores[rows[i]] + 0.0F;
      if (std::isnan(score)) continue;
      rank[i] =
          static_cast<std::uint32_t>(std::lower_bound(distinct.begin(), distinct.end(), score) - distinct.begin());
    }
  }

  /// The threshold below which the first `count` distinct scores lie; +inf itself is served at any threshold.
  std::size_t cuts() const noexcept {
    return distinct.size() - (!distinct.empty() && std::isinf(distinct.back()) && distinct.back() > 0 ? 1 : 0);
  }
  float threshold(std::size_t count) const noexcept {
    if (count == 0) return -std::numeric_limits<float>::infinity();
    if (count == distinct.size()) return std::numeric_limits<float>::infinity();
    return midway(distinct[count - 1], distinct[count]);
  }
};

/// One walk of the first threshold over its tie groups; `choose` is asked after each.
template <class Choose>
void walk(const Evidence& evidence, const Quantity& cost, const Quantity& gain, std::span<const Limit> limits,
          std::span<const std::uint32_t> chosen, const Choose& choose) {
  if (evidence.stages != 3) throw std::invalid_argument("a pair of thresholds belongs to a plan of three stages");
  std::vector<std::uint32_t> rows(chosen.begin(), chosen.end());
  if (chosen.empty()) {
    for (std::size_t row = 0; row < evidence.rows; ++row) rows.push_back(static_cast<std::uint32_t>(row));
  }
  for (const std::uint32_t row : rows) {
    if (row >= evidence.rows) throw std::invalid_argument("a row lies outside the evidence");
  }
  const Ranks first(evidence.scores(0), rows);
  const Ranks second(evidence.scores(1), rows);
  const std::size_t ranks = second.cuts();
  std::vector<Cost> costs;
  costs.push_back({Values(cost, evidence), Prefix(ranks), 0, 0});
  for (const Limit& limit : limits) costs.push_back({Values(limit.cost, evidence), Prefix(ranks), 0, limit.at_most});
  const Values gains(gain, evidence);
  Peaks peaks(ranks);
  std::int64_t gained = 0;
  for (const Cost& each : costs) {
    for (const std::uint32_t row : rows) {
      if (each.values(2, row) < each.values(1, row)) {
        throw std::invalid_argument("a cost is not monotone in the second threshold");
      }
    }
  }
  for (const std::uint32_t row : rows) {
    gained += gains(0, row);
    for (Cost& each : costs) each.base += each.values(0, row);
  }
  std::vector<std::vector<std::uint32_t>> groups(first.distinct.size() + 1);  // by rank; those without a score first
  for (std::size_t i = 0; i < rows.size(); ++i) {
    groups[first.rank[i] == Ranks::nowhere ? 0 : first.rank[i] + 1].push_back(static_cast<std::uint32_t>(i));
  }
  const std::size_t last = first.cuts();
  for (std::size_t count = 0; count <= last; ++count) {
    for (const std::uint32_t i : groups[count]) {
      const std::uint32_t row = rows[i];
      const std::uint32_t rank = second.rank[i];
      const bool sure = rank != Ranks::nowhere;
      const std::size_t stage = sure ? 1 : 2;
      gained += gains(stage, row) - gains(0, row);
      if (sure && rank < ranks) peaks.add(rank, gains(2, row) - gains(1, row));
      for (Cost& each : costs) {
        each.base += each.values(stage, row) - each.values(0, row);
        if (sure && rank < ranks) each.prefix.add(rank, each.values(2, row) - each.values(1, row));
      }
    }
    choose(first.threshold(count), second, ranks, costs, gained, peaks);
  }
}

/// How many ranks may go on under all limits; nothing if even none may.
std::optional<std::size_t> allowed(std::span<const Cost> limits, std::size_t ranks) {
  std::size_t most = ranks;
  for (const Cost& limit : limits) {
    if (limit.base > limit.at_most) return std::nullopt;
    most = std::min(most, limit.prefix.within(limit.at_most - limit.base));
  }
  return most;
}

/// Keep the better of two pairs. `better`: strictly.
template <class Better>
void keep(std::optional<Pair>& best, const Pair& found, const Better& better) {
  if (!best || better(found, *best)) best = found;
}

}  // namespace

Pair cheapest_pair(const Evidence& evidence, const Quantity& cost, const Quantity& gain, std::int64_t at_least,
                   std::span<const Limit> limits, std::span<const std::uint32_t> rows) {
  std::optional<Pair> best;
  std::optional<Pair> nearest;
  walk(evidence, cost, gain, limits, rows,
       [&](float first, const Ranks& second, std::size_t ranks, std::span<const Cost> costs, std::int64_t gained,
           const Peaks& peaks) {
         const std::optional<std::size_t> most = allowed(costs.subspan(1), ranks);
         if (!most) return;
         const std::optional<std::size_t> found = peaks.reaches(at_least - gained);
         if (found && *found <= *most) {
           const std::int64_t sum = gained + (*found == 0 ? 0 : peaks.best(*found));
           keep(best, {first, second.threshold(*found), costs[0].at(*found), sum, true},
                [](const Pair& a, const Pair& b) { return a.cost != b.cost ? a.cost < b.cost : a.gain > b.gain; });
         } else if (!best) {
           const std::int64_t peak = peaks.best(*most);
           const std::size_t count = peaks.reaches(peak).value_or(0);
           keep(nearest, {first, second.threshold(count), costs[0].at(count), gained + peak, false},
                [](const Pair& a, const Pair& b) { return a.gain != b.gain ? a.gain > b.gain : a.cost < b.cost; });
         }
       });
  return best ? *best : nearest.value_or(Pair{});
}

Pair surest_pair(const Evidence& evidence, const Quantity& cost, const Quantity& gain, std::span<const Limit> limits,
                 std::span<const std::uint32_t> rows) {
  std::optional<Pair> best;
  walk(evidence, cost, gain, limits, rows,
       [&](float first, const Ranks& second, std::size_t ranks, std::span<const Cost> costs, std::int64_t gained,
           const Peaks& peaks) {
         const std::optional<std::size_t> most = allowed(costs.subspan(1), ranks);
         if (!most) return;
         const std::int64_t peak = peaks.best(*most);
         const std::size_t count = peaks.reaches(peak).value_or(0);
         keep(best, {first, second.threshold(count), costs[0].at(count), gained + peak, true},
              [](const Pair& a, const Pair& b) { return a.gain != b.gain ? a.gain > b.gain : a.cost < b.cost; });
       });
  return best.value_or(Pair{});
}

}  // namespace coinfer
