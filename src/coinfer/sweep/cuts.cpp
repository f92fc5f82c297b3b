#include "coinfer/sweep/cuts.hpp"

#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <variant>

namespace coinfer {
namespace {

/// A sample leaves one stage for an earlier one when the threshold falls to `score`.
struct Move {
  std::uint32_t key;  // descending order of scores is ascending order of keys
  std::uint32_t row;
  std::uint8_t from;
  std::uint8_t to;
};

std::uint32_t key_of(float score) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(score + 0.0F);  // -0 and +0 are one score
  const std::uint32_t ascending = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
  return ~ascending;
}

float score_of(std::uint32_t key) noexcept {
  const std::uint32_t ascending = ~key;
  return std::bit_cast<float>((ascending & 0x80000000U) != 0 ? ascending ^ 0x80000000U : ~ascending);
}

void radix_sort(std::vector<Move>& moves) {
  constexpr std::uint32_t bits = 11;
  constexpr std::size_t buckets = std::size_t{1} << bits;
  std::vector<Move> other(moves.size());
  for (std::uint32_t shift = 0; shift < 32; shift += bits) {
    std::array<std::size_t, buckets> start{};
    for (const Move& move : moves) ++start[(move.key >> shift) & (buckets - 1)];
    std::size_t sum = 0;
    for (std::size_t& count : start) {
      const std::size_t here = count;
      count = sum;
      sum += here;
    }
    for (const Move& move : moves) other[start[(move.key >> shift) & (buckets - 1)]++] = move;
    moves.swap(other);
  }
}

/// Running sums over the sorted moves, read off at the last move of each point.
template <class Value>
std::vector<std::int64_t> running(std::int64_t sum, bool first_point, std::span<const Move> moves,
                                  std::span<const std::uint32_t> ends, const Value& value) {
  std::vector<std::int64_t> sums;
  sums.reserve(ends.size() + 1);
  if (first_point) sums.push_back(sum);
  std::size_t at = 0;
  for (const std::uint32_t end : ends) {
    for (; at < end; ++at) {
      const Move& move = moves[at];
      sum += value(move.to, move.row) - value(move.from, move.row);
    }
    sums.push_back(sum);
  }
  return sums;
}

/// Call use(value), value(stage, row) being the quantity.
template <class Use>
auto with_values(const Quantity& quantity, std::size_t stages, std::size_t rows, const Use& use) {
  if (const auto* flags = std::get_if<std::span<const std::uint8_t>>(&quantity)) {
    return use([data = flags->data(), rows](std::size_t stage, std::size_t row) {
      return static_cast<std::int64_t>(data[stage * rows + row]);
    });
  }
  const auto numbers = std::get<std::span<const std::int64_t>>(quantity);
  const std::size_t stride = numbers.size() == stages ? 1 : rows;
  const std::size_t step = numbers.size() == stages ? 0 : 1;
  return use([data = numbers.data(), stride, step](std::size_t stage, std::size_t row) {
    return data[stage * stride + row * step];
  });
}

/// Sizes of quantities, and how many rows count.
std::size_t check(const Evidence& evidence, std::span<const Quantity> quantities, std::span<const std::uint32_t> rows) {
  for (const Quantity& quantity : quantities) {
    const std::size_t size = std::visit([](const auto& values) { return values.size(); }, quantity);
    const bool per_stage = quantity.index() == 0 && size == evidence.stages;
    if (!per_stage && size != evidence.stages * evidence.rows) {
      throw std::invalid_argument("a quantity has one value per stage, or one per stage and sample");
    }
  }
  const std::size_t count = rows.empty() ? evidence.rows : rows.size();
  if (count > UINT32_MAX / evidence.stages) throw std::invalid_argument("too many samples for one sweep");
  for (const std::uint32_t row : rows) {
    if (row >= evidence.rows) throw std::invalid_argument("a row lies outside the evidence");
  }
  return count;
}

/// Sort the moves and read off every point. `start(row)`: where a row settles before any move.
template <class Start>
Cuts points(const Evidence& evidence, std::span<const Quantity> quantities, std::span<const std::uint32_t> rows,
            std::vector<Move>& moves, const Start& start) {
  const std::size_t stages = evidence.stages;
  const std::size_t count = rows.empty() ? evidence.rows : rows.size();
  const auto row_at = [rows](std::size_t i) { return rows.empty() ? i : std::size_t{rows[i]}; };
  radix_sort(moves);
  // A score of +inf is served at any threshold: then there is no point at which nobody is.
  const bool always = !moves.empty() && score_of(moves.front().key) == std::numeric_limits<float>::infinity();
  std::vector<std::uint32_t> ends;  // one past the last move of each point but the first
  ends.reserve(moves.size());
  Cuts out;
  out.threshold.reserve(moves.size() + 1);
  if (!always) out.threshold.push_back(std::numeric_limits<float>::infinity());
  for (std::size_t i = 0; i < moves.size(); ++i) {
    const bool last = i + 1 == moves.size();
    if (!last && moves[i + 1].key == moves[i].key) continue;
    ends.push_back(static_cast<std::uint32_t>(i + 1));
    out.threshold.push_back(last ? -std::numeric_limits<float>::infinity()
                                 : midway(score_of(moves[i + 1].key), score_of(moves[i].key)));
  }
  std::vector<std::int64_t> settled(stages);
  for (std::size_t i = 0; i < count; ++i) ++settled[start(row_at(i))];
  for (std::size_t stage = 0; stage < stages; ++stage) {
    const auto here = [stage](std::size_t at, std::size_t) { return static_cast<std::int64_t>(at == stage); };
    const std::vector<std::int64_t> sums = running(settled[stage], !always, moves, ends, here);
    out.settled.insert(out.settled.end(), sums.begin(), sums.end());
  }
  for (const Quantity& quantity : quantities) {
    out.quantities.push_back(with_values(quantity, stages, evidence.rows, [&](const auto& value) {
      std::int64_t sum = 0;
      for (std::size_t i = 0; i < count; ++i) sum += value(start(row_at(i)), row_at(i));
      return running(sum, !always, moves, ends, value);
    }));
  }
  return out;
}

}  // namespace

float midway(float low, float high) noexcept {
  const auto middle = static_cast<float>((static_cast<double>(low) + static_cast<double>(high)) / 2.0);
  return middle > low && std::isfinite(middle) ? middle : high;
}

Cuts cuts(const Evidence& evidence, std::span<const Quantity> quantities, std::span<const std::uint32_t> rows) {
  const std::size_t stages = evidence.stages;
  const std::size_t count = check(evidence, quantities, rows);
  std::vector<Move> moves;
  moves.reserve(count * (stages - 1));
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t row = rows.empty() ? i : rows[i];
    const std::size_t first = moves.size();
    float record = std::numeric_limits<float>::quiet_NaN();
    for (std::size_t stage = 0; stage + 1 < stages; ++stage) {
      const float score = evidence.scores(stage)[row];
      if (std::isnan(score) || score <= record) continue;
      record = score;
      if (moves.size() > first) moves.back().from = static_cast<std::uint8_t>(stage);
      moves.push_back({key_of(score), static_cast<std::uint32_t>(row), static_cast<std::uint8_t>(stages - 1),
                       static_cast<std::uint8_t>(stage)});
    }
  }
  return points(evidence, quantities, rows, moves, [stages](std::size_t) { return stages - 1; });
}

Cuts line(const Evidence& evidence, std::span<const float> thresholds, std::size_t stage,
          std::span<const Quantity> quantities, std::span<const std::uint32_t> rows) {
  const std::size_t stages = evidence.stages;
  if (thresholds.size() + 1 != stages) throw std::invalid_argument("one threshold per stage but the last");
  if (stage + 1 >= stages) throw std::invalid_argument("the last stage has no threshold");
  const std::size_t count = check(evidence, quantities, rows);
  const auto start = [&](std::size_t row) {
    for (std::size_t at = 0; at + 1 < stages; ++at) {
      if (at != stage && evidence.scores(at)[row] >= thresholds[at]) return at;
    }
    return stages - 1;
  };
  std::vector<Move> moves;
  moves.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t row = rows.empty() ? i : rows[i];
    const float score = evidence.scores(stage)[row];
    const std::size_t later = start(row);
    if (std::isnan(score) || later < stage) continue;
    moves.push_back({key_of(score), static_cast<std::uint32_t>(row), static_cast<std::uint8_t>(later),
                     static_cast<std::uint8_t>(stage)});
  }
  return points(evidence, quantities, rows, moves, start);
}

}  // namespace coinfer
