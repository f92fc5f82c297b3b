#include "coinfer/sweep/cuts.hpp"

#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <stdexcept>

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

std::int64_t at(Quantity quantity, std::size_t stages, std::size_t rows, std::size_t stage, std::size_t row) noexcept {
  return quantity.size() == stages ? quantity[stage] : quantity[stage * rows + row];
}

}  // namespace

float midway(float low, float high) noexcept {
  const auto middle = static_cast<float>((static_cast<double>(low) + static_cast<double>(high)) / 2.0);
  return middle > low && std::isfinite(middle) ? middle : high;
}

Cuts cuts(const Evidence& evidence, std::span<const Quantity> quantities, std::span<const std::uint32_t> rows) {
  const std::size_t stages = evidence.stages;
  const std::size_t count = rows.empty() ? evidence.rows : rows.size();
  for (const Quantity quantity : quantities) {
    if (quantity.size() != stages && quantity.size() != stages * evidence.rows) {
      throw std::invalid_argument("a quantity has one value per stage, or one per stage and sample");
    }
  }
  std::vector<Move> moves;
  moves.reserve(count * (stages - 1));
  std::vector<std::int64_t> sums(quantities.size());
  std::vector<std::uint64_t> settled(stages);
  settled[stages - 1] = count;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t row = rows.empty() ? i : rows[i];
    if (row >= evidence.rows) throw std::invalid_argument("a row lies outside the evidence");
    for (std::size_t q = 0; q < quantities.size(); ++q)
      sums[q] += at(quantities[q], stages, evidence.rows, stages - 1, row);
    std::size_t first = moves.size();
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
  radix_sort(moves);
  // A score of +inf is served at any threshold: then there is no point at which nobody is.
  const bool always = !moves.empty() && std::isinf(score_of(moves.front().key)) && score_of(moves.front().key) > 0;
  std::size_t points = always ? 0 : 1;
  for (std::size_t i = 0; i < moves.size(); ++i)
    points += i + 1 == moves.size() || moves[i + 1].key != moves[i].key ? 1 : 0;
  Cuts out;
  out.threshold.resize(points);
  out.settled.resize(stages * points);
  out.quantities.assign(quantities.size(), std::vector<std::int64_t>(points));
  const auto write = [&](std::size_t point, float threshold) {
    out.threshold[point] = threshold;
    for (std::size_t stage = 0; stage < stages; ++stage) out.settled[stage * points + point] = settled[stage];
    for (std::size_t q = 0; q < quantities.size(); ++q) out.quantities[q][point] = sums[q];
  };
  std::size_t point = 0;
  if (!always) write(point++, std::numeric_limits<float>::infinity());
  for (std::size_t i = 0; i < moves.size(); ++i) {
    const Move& move = moves[i];
    --settled[move.from];
    ++settled[move.to];
    for (std::size_t q = 0; q < quantities.size(); ++q) {
      sums[q] += at(quantities[q], stages, evidence.rows, move.to, move.row) -
                 at(quantities[q], stages, evidence.rows, move.from, move.row);
    }
    if (i + 1 == moves.size()) {
      write(point, -std::numeric_limits<float>::infinity());
    } else if (moves[i + 1].key != move.key) {
      write(point++, midway(score_of(moves[i + 1].key), score_of(move.key)));
    }
  }
  return out;
}

}  // namespace coinfer
