#include "coinfer/sim/tally.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <utility>

#include "coinfer/sim/sketch.hpp"

namespace coinfer {
namespace {

void accumulate(std::vector<std::uint64_t>& into, const std::vector<std::uint64_t>& from) {
  for (std::size_t i = 0; i < into.size(); ++i) into[i] += from[i];
}

/// By digits of eleven bits from the lowest on, as far as any time has some.
void sort_times(std::span<std::int64_t> times) {
  constexpr std::size_t bits = 11, buckets = std::size_t{1} << bits;
  std::uint64_t all = 0;
  for (const std::int64_t ns : times) all |= static_cast<std::uint64_t>(ns);
  const auto space = std::make_unique_for_overwrite<std::int64_t[]>(times.size());
  std::span<std::int64_t> from = times, to{space.get(), times.size()};
  for (unsigned shift = 0; shift < 64 && all >> shift != 0; shift += bits) {
    std::array<std::size_t, buckets> start{};
    const auto digit = [shift](std::int64_t ns) { return static_cast<std::uint64_t>(ns) >> shift & (buckets - 1); };
    for (const std::int64_t ns : from) ++start[digit(ns)];
    std::size_t sum = 0;
    for (std::size_t& count : start) sum += std::exchange(count, sum);
    for (const std::int64_t ns : from) to[start[digit(ns)]++] = ns;
    std::swap(from, to);
  }
  if (from.data() != times.data()) std::ranges::copy(from, times.begin());
}

}  // namespace

void accumulate(Tally& into, const Tally& from) {
  into.requests += from.requests;
  for (std::size_t i = 0; i < status_count; ++i) into.status[i] += from.status[i];
  into.labelled += from.labelled;
  into.correct += from.correct;
  into.in_time += from.in_time;
  into.truths += from.truths;
  into.consulted += from.consulted;
  into.latency_ns += from.latency_ns;
  into.network_ns += from.network_ns;
  into.queue_ns += from.queue_ns;
  into.service_ns += from.service_ns;
  into.pico_usd += from.pico_usd;
  accumulate(into.lane_requests, from.lane_requests);
  accumulate(into.lane_labelled, from.lane_labelled);
  accumulate(into.lane_correct, from.lane_correct);
  accumulate(into.settled, from.settled);
  accumulate(into.answered, from.answered);
  accumulate(into.sample_weight, from.sample_weight);
  accumulate(into.class_labelled, from.class_labelled);
  accumulate(into.class_correct, from.class_correct);
}

Weighted condense(Weighted latencies) {
  std::sort(latencies.begin(), latencies.end());
  std::size_t kept = 0;
  for (std::size_t i = 0; i < latencies.size(); ++i) {
    if (kept > 0 && latencies[kept - 1].first == latencies[i].first) {
      latencies[kept - 1].second += latencies[i].second;
    } else {
      latencies[kept++] = latencies[i];
    }
  }
  latencies.resize(kept);
  return latencies;
}

Weighted counted_times(std::span<std::int64_t> times) {
  sort_times(times);
  std::size_t distinct = times.empty() ? 0 : 1;
  for (std::size_t i = 1; i < times.size(); ++i) distinct += times[i] != times[i - 1] ? 1 : 0;
  Weighted counted;
  counted.reserve(distinct);
  for (std::size_t i = 0; i < times.size(); ++i) {
    if (i == 0 || times[i] != times[i - 1]) counted.emplace_back(times[i], 0);
    ++counted.back().second;
  }
  return counted;
}

std::vector<std::int64_t> nearest_ranks(const Times& times, std::span<const double> shares) {
  std::vector<std::int64_t> out(shares.size());
  if (times.size() == 0) return out;
  const auto all = static_cast<double>(times.size());
  std::vector<std::uint64_t> counts(Sketch::buckets);
  for (const std::uint32_t ns : times.small()) ++counts[Sketch::bucket(ns)];
  for (const std::int64_t ns : times.large()) ++counts[Sketch::bucket(ns)];

  struct Wanted {
    std::size_t share;
    std::size_t bucket;
    std::uint64_t rank;  // within the bucket
  };
  std::vector<Wanted> wanted;
  std::vector<std::vector<std::int64_t>> within(counts.size());
  std::vector<std::uint8_t> looked_at(counts.size());
  for (std::size_t i = 0; i < shares.size(); ++i) {
    // A quotient is rounded as the literal that q was written as; a product q n may miss a whole number.
    auto rank = static_cast<std::uint64_t>(shares[i] * all);
    while (rank > 0 && static_cast<double>(rank) / all >= shares[i]) --rank;
    while (static_cast<double>(rank + 1) / all < shares[i]) ++rank;
    std::size_t bucket = 0;
    for (; rank >= counts[bucket]; ++bucket) rank -= counts[bucket];
    wanted.push_back({i, bucket, rank});
    looked_at[bucket] = 1;
  }
  for (const Wanted& want : wanted) within[want.bucket].reserve(counts[want.bucket]);
  const auto look_at = [&](std::int64_t ns) {
    const std::size_t bucket = Sketch::bucket(ns);
    if (looked_at[bucket] != 0) within[bucket].push_back(ns);
  };
  for (const std::uint32_t ns : times.small()) look_at(ns);
  for (const std::int64_t ns : times.large()) look_at(ns);
  for (const Wanted& want : wanted) {
    const auto at = within[want.bucket].begin() + static_cast<std::ptrdiff_t>(want.rank);
    std::nth_element(within[want.bucket].begin(), at, within[want.bucket].end());
    out[want.share] = *at;
  }
  return out;
}

std::int64_t Tally::quantile(double q) const {
  if (requests == 0) return 0;
  std::uint64_t seen = 0;
  for (const auto& [latency, count] : latencies) {
    seen += count;
    // A quotient is rounded as the literal that q was written as; a product q n may miss a whole number.
    if (static_cast<double>(seen) / static_cast<double>(requests) >= q) return latency;
  }
  return latencies.back().first;
}

Tally Ledger::empty() const {
  Tally tally;
  tally.lane_requests.resize(lanes_);
  tally.lane_labelled.resize(lanes_);
  tally.lane_correct.resize(lanes_);
  tally.settled.resize(lanes_ * stages_);
  tally.answered.resize(lanes_ * stages_);
  tally.sample_weight.resize(samples_);
  tally.class_labelled.resize(classes_);
  tally.class_correct.resize(classes_);
  return tally;
}

void Ledger::add(Tally& tally, const Outcome& outcome, std::size_t lane, bool in_time, std::uint64_t weight) const {
  const auto wide = static_cast<Wide>(weight);
  tally.requests += weight;
  tally.status[static_cast<std::size_t>(outcome.status)] += weight;
  tally.consulted += weight * outcome.consulted;
  tally.latency_ns += wide * outcome.latency_ns();
  tally.network_ns += wide * outcome.network_ns;
  tally.queue_ns += wide * outcome.queue_ns;
  tally.service_ns += wide * outcome.service_ns;
  tally.pico_usd += wide * outcome.pico_usd;
  tally.lane_requests[lane] += weight;
  tally.settled[lane * stages_ + outcome.settled] += weight;
  if (outcome.answer != no_answer) tally.answered[lane * stages_ + outcome.answered_by] += weight;
  if (outcome.correct < 0) return;
  const std::uint64_t right = outcome.correct == 1 ? weight : 0;
  tally.labelled += weight;
  tally.correct += right;
  tally.in_time += in_time ? right : 0;
  tally.lane_labelled[lane] += weight;
  tally.lane_correct[lane] += right;
}

void Ledger::add(Tally& tally, std::uint32_t sample, bool labelled, bool right, std::uint64_t weight) const {
  if (truth_.empty() || truth_[sample] < 0) return;
  tally.truths += weight;
  if (!labelled) return;
  tally.sample_weight[sample] += weight;
  const auto truth = static_cast<std::size_t>(truth_[sample]);
  if (truth >= classes_) return;
  tally.class_labelled[truth] += weight;
  tally.class_correct[truth] += right ? weight : 0;
}

}  // namespace coinfer
