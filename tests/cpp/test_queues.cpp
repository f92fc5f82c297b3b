#include <algorithm>
#include <array>
#include <memory>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "check.hpp"
#include "coinfer/sim/agenda.hpp"
#include "coinfer/sim/queues.hpp"

using namespace coinfer;

namespace {

constexpr std::size_t samples = 64;

struct World {
  std::vector<std::vector<Label>> label;
  std::vector<std::vector<float>> confidence;
  std::vector<Label> truth;
  std::vector<Outputs> outputs;
  std::vector<Lane> lanes;
  std::vector<Station> stations;
  std::vector<std::int64_t> arrival_ns;
  std::vector<std::int32_t> lane;
  std::vector<std::int32_t> sample;
  std::vector<std::int64_t> deadline_ns;  // may be empty
  std::vector<std::int32_t> priority;     // the same
  std::size_t hurry_from = 0;             // row; earlier ones have neither
  std::int64_t gossip_ns = 0;
  std::int64_t warmup_ns = 0;
};

/// A random tree of up to four tiers: lanes climb it by different ways that meet. Times of a few hundred ns, arrivals
/// on a grid as coarse, so that much happens at the same time.
World world(std::uint32_t seed, std::size_t requests) {
  World w;
  std::mt19937 random(seed);
  const auto below = [&](std::uint32_t n) { return static_cast<std::uint32_t>(random() % n); };
  const std::uint32_t tiers = 1 + below(4);
  const std::uint32_t wide = 1 + below(3);  // deployments of one tier
  const bool calm = below(3) == 0;          // nothing is drawn
  const std::uint32_t least = below(2);     // that a way takes
  for (std::size_t i = 0; i < samples; ++i) w.truth.push_back(static_cast<Label>(below(4)) - 1);
  w.label.resize(tiers);
  w.confidence.resize(tiers);
  w.outputs.resize(tiers);
  for (std::uint32_t m = 0; m < tiers; ++m) {
    for (std::size_t i = 0; i < samples; ++i) {
      w.label[m].push_back(below(9) == 0 ? no_answer : static_cast<Label>(below(3)));
      w.confidence[m].push_back(static_cast<float>(below(100)) / 100.0F);
    }
    w.outputs[m].form = Form::label_confidence;
    w.outputs[m].rows = samples;
    w.outputs[m].label = w.label[m].data();
    w.outputs[m].confidence = w.confidence[m].data();
  }
  for (std::uint32_t place = 0; place < tiers * wide; ++place) {
    Station station;
    station.instances = below(5);  // 0: nobody waits
    w.stations.push_back(station);
  }
  for (std::uint32_t at = 0; at < 1 + below(3); ++at) {
    Lane lane;
    auto plan = std::make_shared<Plan>();
    plan->combiner = std::make_shared<Last>();
    for (std::uint32_t m = 0; m < tiers; ++m) {
      Member member;
      member.model = m;
      member.deployment = m * wide + below(wide);
      plan->members.push_back(member);
      plan->stages.push_back({m, 1, 0.2F * static_cast<float>(1 + below(4))});
      const Law law = std::vector{Law::constant, Law::exponential, Law::gamma, Law::lognormal}[calm ? 0 : below(4)];
      const double mean = 100.0 * (1 + below(8));
      lane.members.push_back({{}, {}, {law, law == Law::lognormal ? 5.5 : mean, 0.7, nullptr}, 7 * m});
    }
    const auto leg = [&] {
      Leg way{100 * static_cast<std::int64_t>(least + below(12)), below(50), {}, {}};
      if (!calm && below(3) == 0) way.jitters.push_back({below(6), 50.0});
      return way;
    };
    for (std::uint32_t i = 0; i < (tiers + 1) * tiers; ++i) lane.enter.push_back(leg());
    for (std::uint32_t i = 0; i < tiers; ++i) lane.back.push_back(leg());
    lane.evidence = std::make_shared<Evidence>(gather(*plan, w.outputs));
    lane.decisions = std::make_shared<Decisions>(decide(*plan, *lane.evidence));
    lane.plan = plan;
    w.lanes.push_back(lane);
  }
  const std::uint32_t gap = 1 + below(5);
  std::int64_t now = 0;
  for (std::size_t i = 0; i < requests; ++i) {
    now += 100 * static_cast<std::int64_t>(below(gap));
    w.arrival_ns.push_back(now);
    w.lane.push_back(static_cast<std::int32_t>(below(static_cast<std::uint32_t>(w.lanes.size()))));
    w.sample.push_back(static_cast<std::int32_t>(below(samples)));
  }
  return w;
}

struct Found {
  std::vector<Ended> rows;
  std::vector<Load> stations;
  Tally tally;
};

Found replayed(const World& w, QueueEngine engine, std::size_t part, bool rows_too = true, bool rounds = true) {
  QueueOptions options;
  options.engine = engine;
  options.rounds = rounds;
  options.exact = false;
  options.rows = rows_too;
  options.warmup_ns = w.warmup_ns;
  options.gossip_ns = w.gossip_ns;
  Queues queues(w.lanes, w.truth, 3, 5, w.stations, 0, w.outputs, options);
  Found found;
  const auto take = [&] {
    for (const Ended& row : queues.take()) found.rows.push_back(row);
  };
  for (std::size_t first = 0; first < w.lane.size(); first += part) {
    const std::size_t rows = std::min(part, w.lane.size() - first);
    const auto cut = [&](const auto& values) { return std::span(values).subspan(first, rows); };
    const auto of = [&](const auto& values) {
      return values.empty() || first + rows <= w.hurry_from ? std::span(values).first(0) : cut(values);
    };
    queues.push({first, cut(w.lane), cut(w.sample), of(w.deadline_ns), cut(w.arrival_ns), of(w.priority)});
    take();
  }
  queues.finish();
  take();
  found.stations.assign(queues.stations().begin(), queues.stations().end());
  found.tally = queues.tally();
  return found;
}

void check_same(const Found& a, const Found& b) {
  CHECK_EQ(a.rows.size(), b.rows.size());
  for (std::size_t i = 0; i < a.rows.size(); ++i) {
    const Outcome& x = a.rows[i].outcome;
    const Outcome& y = b.rows[i].outcome;
    CHECK_EQ(a.rows[i].request, b.rows[i].request);
    CHECK_EQ(x.queue_ns, y.queue_ns);
    CHECK_EQ(x.service_ns, y.service_ns);
    CHECK_EQ(x.network_ns, y.network_ns);
    CHECK_EQ(x.answer, y.answer);
    CHECK_EQ(x.pico_usd, y.pico_usd);
    CHECK(x.status == y.status);
  }
  for (std::size_t d = 0; d < a.stations.size(); ++d) {
    CHECK_EQ(a.stations[d].served, b.stations[d].served);
    CHECK(a.stations[d].busy_ns == b.stations[d].busy_ns);
    CHECK_EQ(a.stations[d].dropped, b.stations[d].dropped);
    CHECK(a.stations[d].wait_ns == b.stations[d].wait_ns);
    CHECK_EQ(a.stations[d].wait_ns_max, b.stations[d].wait_ns_max);
    CHECK_EQ(a.stations[d].batches, b.stations[d].batches);
    CHECK(a.stations[d].batch_size == b.stations[d].batch_size);
  }
  CHECK(a.tally.status == b.tally.status);
  CHECK(a.tally.latency_ns == b.tally.latency_ns);
  CHECK(a.tally.network_ns == b.tally.network_ns);
  CHECK(a.tally.queue_ns == b.tally.queue_ns);
  CHECK(a.tally.service_ns == b.tally.service_ns);
  CHECK(a.tally.pico_usd == b.tally.pico_usd);
  CHECK(a.tally.latencies == b.tally.latencies);
  CHECK_EQ(a.tally.requests, b.tally.requests);
  CHECK_EQ(a.tally.consulted, b.tally.consulted);
  CHECK_EQ(a.tally.correct, b.tally.correct);
  CHECK_EQ(a.tally.in_time, b.tally.in_time);
  CHECK_EQ(a.tally.truths, b.tally.truths);
  CHECK(a.tally.lane_requests == b.tally.lane_requests);
  CHECK(a.tally.lane_labelled == b.tally.lane_labelled);
  CHECK(a.tally.lane_correct == b.tally.lane_correct);
  CHECK(a.tally.settled == b.tally.settled);
  CHECK(a.tally.answered == b.tally.answered);
  CHECK(a.tally.sample_weight == b.tally.sample_weight);
  CHECK(a.tally.class_labelled == b.tally.class_labelled);
  CHECK(a.tally.class_correct == b.tally.class_correct);
}

/// Requests in a hurry, and decisions that look at queues, at once or as they stood a while ago.
void trouble(World& w, std::uint32_t seed) {
  std::mt19937 random(seed);
  if (seed % 3 == 1) w.hurry_from = 300;
  if (seed % 3 != 0) {
    for (std::size_t i = 0; i < w.lane.size(); ++i) {
      const bool none = random() % 4 == 0 || i < w.hurry_from;
      w.deadline_ns.push_back(none ? INT64_MAX : 100 * static_cast<std::int64_t>(random() % 60));
    }
  }
  if (seed % 2 == 0) w.gossip_ns = 700;
  for (std::size_t d = 0; d < w.stations.size(); ++d) w.stations[d].mean_ns = 400.0;
  for (Lane& lane : w.lanes) {
    if (random() % 4 == 0) continue;
    auto plan = std::make_shared<Plan>(*lane.plan);
    for (Stage& stage : plan->stages) stage.per_us = 0.4F;
    lane.plan = plan;
    lane.decisions = nullptr;
    if (random() % 2 == 0) {
      for (std::size_t i = 0; i < lane.enter.size(); ++i) lane.least.push_back(100 * static_cast<std::int64_t>(i));
    }
  }
}

/// Every station equally long, here or there all ways too; of many lengths.
void steady(World& w, std::uint32_t seed) {
  std::mt19937 random(seed);
  for (Lane& lane : w.lanes) {
    if (random() % 8 == 0) continue;
    for (std::size_t m = 0; m < lane.members.size(); ++m) {
      const std::uint32_t place = lane.plan->members[m].deployment;
      lane.members[m].service = {Law::constant, 100.0 * (1 + place % 5), 0.0, nullptr};
    }
    for (std::vector<Leg>* ways : {&lane.enter, &lane.back}) {
      for (Leg& way : *ways) way.jitters.clear();
    }
  }
  const std::size_t lanes = random() % 3 == 0 ? 60 : w.lanes.size();
  while (w.lanes.size() < lanes) {
    w.lanes.push_back(w.lanes[random() % w.lanes.size()]);
    for (Leg& way : w.lanes.back().enter) way.ns += 100 * static_cast<std::int64_t>(random() % 50);
  }
  for (std::int32_t& lane : w.lane) lane = static_cast<std::int32_t>(random() % lanes);
}

std::int32_t toss(void* /*state*/, const View* view) { return view->uniform < 0.4 ? 0 : view->uniform < 0.8 ? 1 : 2; }

/// Decisions by chance and by queues, ways of a nanosecond, services that take no time.
void hasten(World& w, std::uint32_t seed) {
  std::mt19937 random(seed);
  for (Station& station : w.stations) station.mean_ns = 400.0;
  for (Lane& lane : w.lanes) {
    auto plan = std::make_shared<Plan>(*lane.plan);
    if (random() % 2 == 0) {
      plan->rule.advance = toss;
      plan->rule.per_request = true;
      plan->rule.jumps = seed % 3 == 0;
    } else {
      for (Stage& stage : plan->stages) stage.per_us = 0.4F;
    }
    lane.plan = plan;
    lane.decisions = nullptr;
    for (Leg& way : lane.enter) way.ns = seed % 2 == 0 ? 1 + way.ns / 1000 : way.ns;
    for (Consult& member : lane.members) {
      if (seed % 3 == 1 && random() % 4 == 0) member.service = {Law::constant, 0.0, 0.0, nullptr};
    }
  }
}

}  // namespace

TEST("on random networks all three engines give every request the same times, however the trace is cut") {
  std::size_t waited = 0;
  std::size_t in_rounds = 0;
  for (std::uint32_t seed = 1; seed <= 150; ++seed) {
    const World w = world(seed, 600);
    CHECK(Queues::plain(w.stations));
    CHECK(Queues::feeds_forward(w.lanes, w.stations));
    in_rounds += Queues::in_rounds(w.lanes, w.stations) ? 1 : 0;
    const Found events = replayed(w, QueueEngine::events, w.lane.size(), true, false);
    check_same(replayed(w, QueueEngine::events, 1 + seed % 83), events);
    check_same(replayed(w, QueueEngine::feed_forward, w.lane.size()), events);
    check_same(replayed(w, QueueEngine::feed_forward, 1 + seed % 97), events);
    check_same(replayed(w, QueueEngine::hops, 1 + seed % 89), events);
    waited += static_cast<std::size_t>(std::count_if(events.rows.begin(), events.rows.end(),
                                                     [](const Ended& row) { return row.outcome.queue_ns > 0; }));
  }
  CHECK(waited > 20000);
  CHECK(in_rounds > 75);
}

TEST("events happen in order, however far apart or close together they are") {
  std::mt19937_64 random(7);
  for (const int scale : {0, 4, 20, 40, 50}) {
    Agenda agenda;
    std::set<std::pair<std::int64_t, std::uint64_t>> expected;
    std::int64_t now = 0;
    for (std::uint64_t i = 0; i < 30000; ++i) {
      if (!expected.empty() && (random() % 8 < 3 || (i > 15000 && random() % 2 == 0))) {
        const Event event = agenda.top();
        CHECK(*expected.begin() == std::pair(event.time, event.order));
        agenda.pop();
        expected.erase(expected.begin());
        now = event.time;
      } else {
        // Most are near, some far, many at the same time; and some before what is next, as arrivals are.
        const auto range = std::uint64_t{1} << (random() % 100 == 0 ? scale : scale / 2);
        const std::int64_t time = now + static_cast<std::int64_t>(random() % range);
        agenda.push({time, i, {}});
        expected.emplace(time, i);
        CHECK(!agenda.precedes(expected.begin()->first, expected.begin()->second));
      }
      CHECK_EQ(agenda.empty(), expected.empty());
    }
    for (; !expected.empty(); expected.erase(expected.begin())) {
      CHECK(*expected.begin() == std::pair(agenda.top().time, agenda.top().order));
      agenda.pop();
    }
    CHECK(agenda.empty());
  }
}

TEST("sums are the same where no rows are kept") {
  for (std::uint32_t seed = 1; seed <= 120; ++seed) {
    World w = world(seed, 600);
    if (seed % 2 == 0) {
      steady(w, seed);
    } else {
      w.warmup_ns = 1000;
    }
    const Found events = replayed(w, QueueEngine::events, 77, false, false);
    check_same(replayed(w, QueueEngine::events, 1 + seed % 83, false), events);
    check_same(replayed(w, QueueEngine::feed_forward, 1 + seed % 97, false), events);
    check_same(replayed(w, QueueEngine::hops, 1 + seed % 89, false), events);
  }
}

TEST("hops and events agree on deadlines and on decisions that look at queues") {
  std::array<std::uint64_t, status_count> seen{};
  std::uint64_t dropped = 0;
  std::size_t in_rounds = 0;
  for (std::uint32_t seed = 1; seed <= 150; ++seed) {
    World w = world(seed, 600);
    trouble(w, seed);
    in_rounds += Queues::in_rounds(w.lanes, w.stations) ? 1 : 0;
    for (const bool rows : {true, false}) {
      const Found events = replayed(w, QueueEngine::events, 600, rows, false);
      check_same(replayed(w, QueueEngine::events, 1 + seed % 83, rows), events);
      check_same(replayed(w, QueueEngine::hops, 1 + seed % 89, rows), events);
      for (std::size_t i = 0; i < status_count; ++i) seen[i] += events.tally.status[i];
      for (const Load& load : events.stations) dropped += load.dropped;
    }
  }
  CHECK(seen[static_cast<std::size_t>(Status::degraded)] > 1000);
  CHECK(seen[static_cast<std::size_t>(Status::expired)] > 1000);
  CHECK(dropped > 1000);
  CHECK(in_rounds > 75);
}

/// Batches of all sorts.
void batches(World& w, std::uint32_t seed) {
  std::mt19937 random(seed);
  for (Station& station : w.stations) {
    station.max_batch = 1 + static_cast<std::uint32_t>(random() % 6);
    station.mean_ns = 400.0;
    if (random() % 2 == 0) station.batch_delay_ns = 100 * static_cast<std::int64_t>(random() % 20);
    for (std::uint32_t size = 1; size <= station.max_batch && station.max_batch > 1; ++size) {
      if (random() % 4 == 0) station.preferred.push_back(size);
    }
    const std::size_t choices = random() % 3;
    for (std::size_t i = 0; i < choices * station.max_batch; ++i) {
      station.batch_ns.push_back(100 * static_cast<std::int64_t>(random() % 12));
    }
  }
}

TEST("events in rounds and one after the other agree on priorities and batches") {
  std::uint64_t full = 0;
  for (std::uint32_t seed = 1; seed <= 160; ++seed) {
    World w = world(seed, 600);
    if (seed % 4 < 2) trouble(w, seed);
    if (seed % 3 != 0) batches(w, seed);
    std::mt19937 random(seed);
    for (std::size_t i = 0; i < w.lane.size() && seed % 5 != 0; ++i) {
      w.priority.push_back(i < w.hurry_from + 100 ? 0 : static_cast<std::int32_t>(random() % 3));
    }
    for (const bool rows : {true, false}) {
      const Found alone = replayed(w, QueueEngine::events, 600, rows, false);
      check_same(replayed(w, QueueEngine::events, 1 + seed % 83, rows), alone);
      for (const Load& load : alone.stations) full += load.batch_size.size() > 2 ? load.batch_size.back() : 0;
    }
  }
  CHECK(full > 500);
}

TEST("hops and events agree where decisions are drawn, and where hardly any time passes") {
  std::size_t in_rounds = 0;
  for (std::uint32_t seed = 1; seed <= 120; ++seed) {
    World w = world(seed, 400);
    if (seed % 4 < 2) steady(w, seed);
    hasten(w, seed);
    in_rounds += Queues::in_rounds(w.lanes, w.stations) ? 1 : 0;
    for (const bool rows : {true, false}) {
      const Found events = replayed(w, QueueEngine::events, 400, rows, false);
      check_same(replayed(w, QueueEngine::hops, 1 + seed % 89, rows), events);
      check_same(replayed(w, QueueEngine::events, 1 + seed % 83, rows), events);
    }
  }
  CHECK(in_rounds > 60);
}

TEST("hops and events agree where all come at once, by ways of many lengths") {
  for (std::uint32_t seed = 1; seed <= 12; ++seed) {
    World w = world(seed, 3000);
    steady(w, seed);
    for (Station& station : w.stations) station.instances = seed % 2;
    std::fill(w.arrival_ns.begin(), w.arrival_ns.end(), 0);
    const Found events = replayed(w, QueueEngine::events, 3000, true, false);
    check_same(replayed(w, QueueEngine::hops, 10), events);
    check_same(replayed(w, QueueEngine::events, 10), events);
  }
}

TEST("what an engine cannot do is refused") {
  World w = world(3, 10);
  std::swap(w.arrival_ns.front(), w.arrival_ns.back());
  w.arrival_ns.front() += 1;
  for (const QueueEngine engine : {QueueEngine::feed_forward, QueueEngine::hops, QueueEngine::events}) {
    CHECK_THROWS(replayed(w, engine, 10), std::invalid_argument);
  }
  w.stations.front().max_batch = 2;
  CHECK_THROWS(replayed(w, QueueEngine::hops, 10), std::invalid_argument);
}

int main() { return check::run_all(); }
