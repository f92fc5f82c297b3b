#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "check.hpp"
#include "coinfer/sim/replay.hpp"

using namespace coinfer;

namespace {

struct World {
  std::vector<std::vector<Label>> label;
  std::vector<std::vector<float>> confidence;
  std::vector<std::vector<float>> measured_us;
  std::vector<Label> truth;
  std::vector<Lane> lanes;
  std::vector<std::int32_t> lane;
  std::vector<std::int32_t> sample;
};

/// Two lanes over three stages; service times constant, or measured per sample.
World world(std::size_t samples, std::size_t requests, bool measured, Law law = Law::constant) {
  World w;
  std::mt19937 random(7);
  w.label.resize(3);
  w.confidence.resize(3);
  w.measured_us.resize(3);
  std::vector<Outputs> outputs(3);
  for (std::size_t i = 0; i < samples; ++i) w.truth.push_back(static_cast<Label>(random() % 6) - 1);
  for (std::size_t m = 0; m < 3; ++m) {
    for (std::size_t i = 0; i < samples; ++i) {
      w.label[m].push_back(random() % 12 == 0  ? no_answer
                           : random() % 3 == 0 ? w.truth[i]
                                               : static_cast<Label>(random() % 5));
      w.confidence[m].push_back(static_cast<float>(random() % 100) / 100.0F);
      w.measured_us[m].push_back(static_cast<float>(random() % 1000));
    }
    outputs[m].form = Form::label_confidence;
    outputs[m].rows = samples;
    outputs[m].label = w.label[m].data();
    outputs[m].confidence = w.confidence[m].data();
  }
  auto plan = std::make_shared<Plan>();
  plan->combiner = std::make_shared<Last>();
  for (std::uint32_t m = 0; m < 3; ++m) {
    Member member;
    member.model = m;
    member.deployment = m;
    plan->members.push_back(member);
    plan->stages.push_back({m, 1, 0.6F});
  }
  const auto evidence = std::make_shared<Evidence>(gather(*plan, outputs));
  const auto decisions = std::make_shared<Decisions>(decide(*plan, *evidence));
  for (std::int64_t at = 0; at < 2; ++at) {
    Lane lane;
    lane.plan = plan;
    lane.evidence = evidence;
    lane.decisions = decisions;
    for (std::int64_t i = 0; i < 12; ++i) lane.enter.push_back({1000 * (i + 1) * (at + 1), 10 * i, {}});
    for (std::int64_t i = 0; i < 3; ++i) lane.back.push_back({500 * (i + 1), i, {}});
    for (std::uint32_t m = 0; m < 3; ++m) {
      Service service{law, 20000.0 * (m + 1), 0.5, nullptr};
      if (measured) service = {Law::measured, 1.0, 0.0, w.measured_us[m].data()};
      lane.members.push_back({{}, {}, service, 100});
    }
    w.lanes.push_back(lane);
  }
  for (std::size_t i = 0; i < requests; ++i) {
    w.lane.push_back(static_cast<std::int32_t>(random() % 2));
    w.sample.push_back(static_cast<std::int32_t>(random() % samples));
  }
  return w;
}

void check_same(const Tally& a, const Tally& b) {
  CHECK_EQ(a.requests, b.requests);
  CHECK(a.status == b.status);
  CHECK_EQ(a.labelled, b.labelled);
  CHECK_EQ(a.correct, b.correct);
  CHECK_EQ(a.in_time, b.in_time);
  CHECK_EQ(a.truths, b.truths);
  CHECK_EQ(a.consulted, b.consulted);
  CHECK(a.latency_ns == b.latency_ns);
  CHECK(a.network_ns == b.network_ns);
  CHECK(a.service_ns == b.service_ns);
  CHECK(a.pico_usd == b.pico_usd);
  CHECK(a.lane_requests == b.lane_requests);
  CHECK(a.lane_labelled == b.lane_labelled);
  CHECK(a.lane_correct == b.lane_correct);
  CHECK(a.settled == b.settled);
  CHECK(a.sample_weight == b.sample_weight);
  CHECK(a.class_labelled == b.class_labelled);
  CHECK(a.class_correct == b.class_correct);
  CHECK(a.latencies == b.latencies);
}

}  // namespace

TEST("Philox gives the published numbers") {
  CHECK((philox({0, 0, 0, 0}, {0, 0}) == Block{0x6627e8d5U, 0xe169c58dU, 0xbc57ac4cU, 0x9b00dbd8U}));
  CHECK((philox({~0U, ~0U, ~0U, ~0U}, {~0U, ~0U}) == Block{0x408f276dU, 0x41c83b0eU, 0xa20bc7c6U, 0x6d5451fdU}));
  CHECK((philox({0x243f6a88U, 0x85a308d3U, 0x13198a2eU, 0x03707344U}, {0xa4093822U, 0x299f31d0U}) ==
         Block{0xd16cfe09U, 0x94fdccebU, 0x5001e420U, 0x24126ea1U}));
}

TEST("counted by census, counted by code and delivered one by one: the same sums") {
  for (const bool measured : {false, true}) {
    const World w = world(500, 200000, measured);
    const Replay replay(w.lanes, w.truth, 5, 0);
    CHECK(replay.deterministic());
    const std::vector<std::int64_t> forever(w.lane.size(), no_deadline);
    const Requests requests{0, w.lane, w.sample, {}};
    const Requests each{0, w.lane, w.sample, forever};
    Census census(2, 500);
    census.push(requests);
    const Tally one_by_one = replay.run(each);
    check_same(replay.run(census), one_by_one);
    check_same(replay.run(requests), one_by_one);
    check_same(replay.run(each, 2), one_by_one);
    Census threaded(2, 500);
    threaded.push(requests, 2);
    CHECK(std::equal(census.counts().begin(), census.counts().end(), threaded.counts().begin()));
    std::uint64_t ended = 0;
    for (const std::uint64_t count : one_by_one.status) ended += count;
    CHECK_EQ(ended, std::uint64_t{200000});
    CHECK(one_by_one.status[static_cast<std::size_t>(Status::failed)] > 0);
    CHECK(one_by_one.status[static_cast<std::size_t>(Status::degraded)] > 0);
  }
}

TEST("random service times: independent of batches and threads, with the right means") {
  for (const Law law : {Law::exponential, Law::lognormal, Law::gamma}) {
    World w = world(100, 200000, false, law);
    double mean = 0.0;
    for (Lane& lane : w.lanes) {
      for (Consult& member : lane.members) {
        member.service.a = law == Law::lognormal ? std::log(20000.0) - 0.125 : 20000.0;
      }
      mean = law == Law::gamma ? 10000.0 : 20000.0;
    }
    const Replay replay(w.lanes, w.truth, 5, 42);
    CHECK(!replay.deterministic());
    const Requests requests{0, w.lane, w.sample, {}};
    const Tally whole = replay.run(requests);
    check_same(replay.run(requests, 2), whole);
    const double average = static_cast<double>(whole.service_ns) / static_cast<double>(whole.consulted);
    CHECK(std::abs(average - mean) < 0.01 * mean);
    const std::span<const std::int32_t> lane(w.lane);
    const std::span<const std::int32_t> sample(w.sample);
    const Requests tail{150000, lane.subspan(150000), sample.subspan(150000), {}};
    const Tally last = replay.run(tail);
    const Tally first = replay.run(Requests{0, lane.first(150000), sample.first(150000), {}});
    CHECK(first.latency_ns + last.latency_ns == whole.latency_ns);
  }
}

TEST("a late stage leaves the best answer so far: degraded at the deadline, expired without an answer") {
  const World w = world(300, 1, false);
  const Replay replay(w.lanes, w.truth, 5, 0);
  for (std::uint32_t sample = 0; sample < 300; ++sample) {
    const Outcome free = replay.deliver(0, sample, 0, no_deadline);
    const std::int64_t after_first = 1000 + 20000 + 500;
    const Outcome tight = replay.deliver(0, sample, 0, after_first);
    if (free.latency_ns() <= after_first) {
      CHECK_EQ(tight.latency_ns(), free.latency_ns());
      CHECK(tight.status == free.status);
    } else {
      CHECK_EQ(tight.latency_ns(), after_first);
      const bool answered = w.label[0][sample] != no_answer;
      CHECK(tight.status == (answered ? Status::degraded : Status::expired));
      if (answered) CHECK_EQ(tight.answer, w.label[0][sample]);
      CHECK(tight.pico_usd <= free.pico_usd);
    }
    const Outcome none = replay.deliver(0, sample, 0, 900);
    CHECK(none.status == Status::expired);
    CHECK_EQ(none.consulted, std::uint8_t{0});
    CHECK_EQ(none.pico_usd, std::int64_t{0});
  }
}

TEST("quantiles are nearest ranks") {
  Tally tally;
  tally.requests = 10;
  tally.latencies = {{100, 5}, {200, 4}, {900, 1}};
  CHECK_EQ(tally.quantile(0.0), 100);
  CHECK_EQ(tally.quantile(0.5), 100);
  CHECK_EQ(tally.quantile(0.51), 200);
  CHECK_EQ(tally.quantile(0.9), 200);
  CHECK_EQ(tally.quantile(0.91), 900);
  CHECK_EQ(tally.quantile(1.0), 900);
  tally.requests = 20;
  tally.latencies = {{100, 11}, {200, 9}};  // 0.55 * 20 is more than 11 in float64
  CHECK_EQ(tally.quantile(0.55), 100);
}

TEST("nearest ranks are those of sorted values") {
  std::vector<std::int64_t> values;
  for (std::int64_t i = 0; i < 3000; ++i) values.push_back((i * 7919 % 3001) * (i * 7919 % 3001) * 1'000'003);
  values.insert(values.end(), {0, 0, 17, 17, (std::int64_t{1} << 60) + 1, INT64_MAX});
  std::vector<std::int64_t> sorted = values;
  std::sort(sorted.begin(), sorted.end());
  const std::vector<double> shares{0.5, 0.0, 0.99, 1.0, 0.001, 0.5, 0.55};
  Times times;
  times.push(std::span(values).first(3000));
  for (const std::int64_t value : std::span(values).subspan(3000)) times.push(value);
  CHECK(!times.small().empty() && !times.large().empty());
  const std::vector<std::int64_t> found = nearest_ranks(times, shares);
  for (std::size_t i = 0; i < shares.size(); ++i) {
    std::size_t rank = 0;
    while (static_cast<double>(rank + 1) / static_cast<double>(sorted.size()) < shares[i]) ++rank;
    CHECK_EQ(found[i], sorted[rank]);
  }
  CHECK(nearest_ranks(Times(), shares) == std::vector<std::int64_t>(shares.size()));
}

int main() { return check::run_all(); }
