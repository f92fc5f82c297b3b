#include "coinfer/sim/replay.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "coinfer/threads.hpp"

namespace coinfer {
namespace {

constexpr std::size_t grain = 1 << 16;

// A code: (route x 4 + verdict) x 2 + whether a member of the last stage was missing.
enum Verdict : std::size_t { code_wrong, code_right, code_unknown, code_failed };
constexpr std::size_t codes_per_route = 8;
constexpr std::uint32_t nobody = UINT32_MAX;

constexpr std::size_t verdict_of(std::size_t code) noexcept { return code / 2 % 4; }

std::int64_t travel(const Leg& leg, std::uint64_t seed, std::uint64_t request, std::uint32_t draw) noexcept {
  std::int64_t ns = leg.ns;
  for (const Jitter& jitter : leg.jitters) {
    ns += to_ns(-jitter.mean_ns * std::log(uniforms(seed, Stream::jitter, request, jitter.link, draw)[0]));
  }
  return ns;
}

bool fixed(const Lane& lane) {
  const auto still = [](const Leg& leg) { return leg.jitters.empty(); };
  return std::all_of(lane.enter.begin(), lane.enter.end(), still) &&
         std::all_of(lane.back.begin(), lane.back.end(), still) &&
         std::all_of(lane.members.begin(), lane.members.end(), [&](const Consult& member) {
           return still(member.up) && still(member.down) && !member.service.random();
         });
}

void accumulate(std::vector<std::uint64_t>& into, const std::vector<std::uint64_t>& from) {
  for (std::size_t i = 0; i < into.size(); ++i) into[i] += from[i];
}

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
  into.service_ns += from.service_ns;
  into.pico_usd += from.pico_usd;
  accumulate(into.lane_requests, from.lane_requests);
  accumulate(into.lane_labelled, from.lane_labelled);
  accumulate(into.lane_correct, from.lane_correct);
  accumulate(into.settled, from.settled);
  accumulate(into.sample_weight, from.sample_weight);
  accumulate(into.class_labelled, from.class_labelled);
  accumulate(into.class_correct, from.class_correct);
}

using Weighted = std::vector<std::pair<std::int64_t, std::uint64_t>>;

/// Sort, and add up the counts of equal latencies.
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

}  // namespace

void Census::push(const Requests& batch, unsigned threads) {
  const auto count = [&](std::size_t first, std::size_t last, std::uint64_t* counts) {
    if (lanes_ == 1) {
      for (std::size_t i = first; i < last; ++i) ++counts[batch.sample[i]];
      return;
    }
    for (std::size_t i = first; i < last; ++i) {
      ++counts[static_cast<std::size_t>(batch.lane[i]) * samples_ + static_cast<std::size_t>(batch.sample[i])];
    }
  };
  const std::size_t rows = batch.sample.size();
  if (threads <= 1 || rows < 2 * grain) {
    count(0, rows, counts_.data());
    return;
  }
  // Atomic increments of a shared table: two requests seldom meet at one counter, and a private table per thread may be
  // large.
  split(rows, threads, grain, [&](std::size_t first, std::size_t last) {
    for (std::size_t i = first; i < last; ++i) {
      const std::size_t at =
          static_cast<std::size_t>(batch.lane[i]) * samples_ + static_cast<std::size_t>(batch.sample[i]);
      __atomic_fetch_add(&counts_[at], 1, __ATOMIC_RELAXED);
    }
  });
}

std::int64_t Tally::quantile(double q) const {
  if (requests == 0) return 0;
  const auto rank = static_cast<std::uint64_t>(std::ceil(q * static_cast<double>(requests)));
  std::uint64_t seen = 0;
  for (const auto& [latency, count] : latencies) {
    seen += count;
    if (seen >= std::max<std::uint64_t>(rank, 1)) return latency;
  }
  return latencies.back().first;
}

Replay::Replay(std::vector<Lane> lanes, std::span<const Label> truth, std::size_t classes, std::uint64_t seed)
    : lanes_(std::move(lanes)), truth_(truth), classes_(classes), seed_(seed) {
  if (lanes_.empty()) throw std::invalid_argument("a replay needs at least one lane");
  samples_ = lanes_.front().evidence->rows;
  if (!truth_.empty() && truth_.size() != samples_) throw std::invalid_argument("one true label per sample, please");
  for (const Lane& lane : lanes_) {
    const std::size_t stages = lane.plan->stages.size();
    if (lane.enter.size() != (stages + 1) * stages || lane.back.size() != stages ||
        lane.members.size() != lane.plan->members.size() || lane.evidence->stages != stages ||
        lane.evidence->rows != samples_ || lane.decisions->route.size() != samples_) {
      throw std::invalid_argument("a lane's ways do not fit its plan");
    }
    stages_ = std::max(stages_, stages);
    deterministic_ = deterministic_ && fixed(lane);
    measured_ = measured_ || std::any_of(lane.members.begin(), lane.members.end(),
                                         [](const Consult& member) { return member.service.law == Law::measured; });
  }
  for (std::size_t at = 0; at < lanes_.size(); ++at) {
    std::size_t known = 0;
    for (; known < groups_.size(); ++known) {
      const Lane& other = lanes_[groups_[known].lanes.front()];
      if (other.evidence == lanes_[at].evidence && other.decisions == lanes_[at].decisions) break;
    }
    if (known == groups_.size()) groups_.push_back(group(lanes_[at]));
    groups_[known].lanes.push_back(at);
    group_of_.push_back(static_cast<std::uint32_t>(known));
  }
}

Replay::Group Replay::group(const Lane& lane) const {
  const Evidence& evidence = *lane.evidence;
  const Decisions& decisions = *lane.decisions;
  Group group;
  group.code.resize(samples_);
  group.example.assign(decisions.itineraries.size() * codes_per_route, nobody);
  for (std::size_t sample = 0; sample < samples_; ++sample) {
    const std::size_t route = decisions.route[sample];
    const Itinerary& itinerary = decisions.itineraries[route];
    const Label answer = evidence.labels(standing(evidence, itinerary, sample))[sample];
    const Label truth = truth_.empty() ? no_answer : truth_[sample];
    const std::size_t verdict = answer == no_answer ? code_failed
                                : truth < 0         ? code_unknown
                                : answer == truth   ? code_right
                                                    : code_wrong;
    const std::size_t missing = evidence.miss(itinerary.back(), sample) != 0 ? 1 : 0;
    const std::size_t code = (route * 4 + verdict) * 2 + missing;
    group.code[sample] = static_cast<std::uint16_t>(code);
    group.example[code] = static_cast<std::uint32_t>(sample);
  }
  return group;
}

Outcome Replay::deliver(std::size_t lane_index, std::uint32_t sample, std::uint64_t request,
                        std::int64_t deadline_ns) const noexcept {
  const Lane& lane = lanes_[lane_index];
  const Plan& plan = *lane.plan;
  const Evidence& evidence = *lane.evidence;
  const std::size_t stages = plan.stages.size();
  const Itinerary& itinerary = lane.decisions->itineraries[lane.decisions->route[sample]];
  Outcome out;
  std::int64_t network = 0;  // until the answer of the stage stands at its host
  std::int64_t service = 0;
  std::size_t from = 0;
  std::uint32_t travelled = 0;  // each passage over a link is a draw of its own
  std::int64_t returns = 0;     // the way back from the newest stage
  std::size_t in_time = 0;      // stages whose answer the ingress would hold at the deadline
  bool late = false;
  for (const std::uint8_t stage : itinerary) {
    const Leg& enter = lane.enter[from * stages + stage];
    const std::int64_t arrives = network + service + travel(enter, seed_, request, travelled++);
    if (arrives >= deadline_ns) {
      late = true;
      break;
    }
    network += arrives - network - service;
    out.pico_usd += enter.pico_usd;
    std::int64_t slowest = -1;
    std::int64_t slowest_service = 0;
    const Stage& group = plan.stages[stage];
    for (std::uint32_t m = group.first; m < group.first + group.count; ++m) {
      const Consult& member = lane.members[m];
      const std::int64_t worked = member.service.draw(seed_, request, plan.members[m].deployment, sample);
      const std::int64_t took =
          travel(member.up, seed_, request, travelled) + worked + travel(member.down, seed_, request, travelled + 1);
      travelled += 2;
      out.pico_usd += member.pico_usd + member.up.pico_usd + member.down.pico_usd;
      if (took > slowest) {
        slowest = took;
        slowest_service = worked;
      }
    }
    service += slowest_service;
    network += slowest - slowest_service;
    out.settled = stage;
    ++out.consulted;
    from = stage + std::size_t{1};
    returns = travel(lane.back[stage], seed_, request, travelled);
    if (network + service + returns <= deadline_ns) in_time = out.consulted;
  }
  if (out.consulted > 0) {
    network += returns;
    out.pico_usd += lane.back[out.settled].pico_usd;
  }
  late = late || network + service > deadline_ns;
  std::size_t counts = out.consulted;
  if (late) {
    // The ingress waits until the deadline, then gives the best answer that has reached it.
    out.service_ns = std::min(service, deadline_ns);
    out.network_ns = deadline_ns - out.service_ns;
    counts = in_time;
  } else {
    out.network_ns = network;
    out.service_ns = service;
  }
  if (counts > 0) {
    out.answered_by = standing(evidence, std::span(itinerary).first(counts), sample);
    out.answer = evidence.labels(out.answered_by)[sample];
  }
  out.confidence =
      out.answer == no_answer ? std::numeric_limits<float>::quiet_NaN() : evidence.scores(out.answered_by)[sample];
  out.status = conclude(out.answer, evidence.miss(out.settled, sample) != 0, late);
  const Label truth = truth_.empty() ? no_answer : truth_[sample];
  const bool ended_well = out.status == Status::answered || out.status == Status::degraded;
  if (truth >= 0 && ended_well) out.correct = out.answer == truth ? 1 : 0;
  return out;
}

Tally Replay::empty() const {
  Tally tally;
  tally.lane_requests.resize(lanes_.size());
  tally.lane_labelled.resize(lanes_.size());
  tally.lane_correct.resize(lanes_.size());
  tally.settled.resize(lanes_.size() * stages_);
  tally.sample_weight.resize(samples_);
  tally.class_labelled.resize(classes_);
  tally.class_correct.resize(classes_);
  return tally;
}

void Replay::add(Tally& tally, const Outcome& outcome, std::size_t lane, bool in_time, std::uint64_t weight) const {
  const auto wide = static_cast<Wide>(weight);
  tally.requests += weight;
  tally.status[static_cast<std::size_t>(outcome.status)] += weight;
  tally.consulted += weight * outcome.consulted;
  tally.latency_ns += wide * outcome.latency_ns();
  tally.network_ns += wide * outcome.network_ns;
  tally.service_ns += wide * outcome.service_ns;
  tally.pico_usd += wide * outcome.pico_usd;
  tally.lane_requests[lane] += weight;
  tally.settled[lane * stages_ + outcome.settled] += weight;
  if (outcome.correct < 0) return;
  const std::uint64_t right = outcome.correct == 1 ? weight : 0;
  tally.labelled += weight;
  tally.correct += right;
  tally.in_time += in_time ? right : 0;
  tally.lane_labelled[lane] += weight;
  tally.lane_correct[lane] += right;
}

void Replay::add(Tally& tally, std::uint32_t sample, bool labelled, bool right, std::uint64_t weight) const {
  if (truth_.empty() || truth_[sample] < 0) return;
  tally.truths += weight;
  if (!labelled) return;
  tally.sample_weight[sample] += weight;
  const auto truth = static_cast<std::size_t>(truth_[sample]);
  if (truth >= classes_) return;
  tally.class_labelled[truth] += weight;
  tally.class_correct[truth] += right ? weight : 0;
}

void Replay::add_codes(Tally& tally, std::size_t lane, std::span<const std::uint64_t> weight) const {
  const Group& group = groups_[group_of_[lane]];
  for (std::size_t code = 0; code < weight.size(); ++code) {
    if (weight[code] == 0) continue;
    const Outcome outcome = deliver(lane, group.example[code], 0, no_deadline);
    add(tally, outcome, lane, true, weight[code]);
    tally.latencies.emplace_back(outcome.latency_ns(), weight[code]);
  }
}

void Replay::add_samples(Tally& tally, const Group& group, std::span<const std::uint64_t> weight) const {
  if (truth_.empty()) return;
  for (std::size_t sample = 0; sample < samples_; ++sample) {
    if (weight[sample] == 0) continue;
    const std::size_t verdict = verdict_of(group.code[sample]);
    add(tally, static_cast<std::uint32_t>(sample), verdict != code_failed, verdict == code_right, weight[sample]);
  }
}

Tally Replay::run(const Census& census) const {
  if (!deterministic_) throw std::logic_error("random times: each request must be delivered by itself");
  if (census.lanes() != lanes_.size() || census.samples() != samples_) {
    throw std::invalid_argument("the census counts other lanes or samples");
  }
  Tally tally = empty();
  std::vector<std::uint64_t> by_sample(samples_);
  for (const Group& group : groups_) {
    std::fill(by_sample.begin(), by_sample.end(), std::uint64_t{0});
    for (const std::size_t lane : group.lanes) {
      const std::span<const std::uint64_t> weight = census.counts().subspan(lane * samples_, samples_);
      for (std::size_t sample = 0; sample < samples_; ++sample) by_sample[sample] += weight[sample];
      if (measured_) {
        for (std::size_t sample = 0; sample < samples_; ++sample) {
          if (weight[sample] == 0) continue;
          const Outcome outcome = deliver(lane, static_cast<std::uint32_t>(sample), 0, no_deadline);
          add(tally, outcome, lane, true, weight[sample]);
          tally.latencies.emplace_back(outcome.latency_ns(), weight[sample]);
        }
        tally.latencies = condense(std::move(tally.latencies));
      } else {
        std::vector<std::uint64_t> by_code(group.example.size());
        for (std::size_t sample = 0; sample < samples_; ++sample) by_code[group.code[sample]] += weight[sample];
        add_codes(tally, lane, by_code);
      }
    }
    add_samples(tally, group, by_sample);
  }
  tally.latencies = condense(std::move(tally.latencies));
  return tally;
}

Tally Replay::run(const Requests& requests, unsigned threads) const {
  return deterministic_ && !measured_ && requests.deadline_ns.empty() ? run_counted(requests)
                                                                      : run_each(requests, threads);
}

Tally Replay::run_counted(const Requests& requests) const {
  std::vector<std::uint64_t> by_sample(groups_.size() * samples_);
  std::vector<std::vector<std::uint64_t>> by_code;
  for (const std::uint32_t group : group_of_) by_code.emplace_back(groups_[group].example.size());
  for (std::size_t i = 0; i < requests.sample.size(); ++i) {
    const auto lane = static_cast<std::size_t>(requests.lane[i]);
    const auto sample = static_cast<std::size_t>(requests.sample[i]);
    const std::size_t group = group_of_[lane];
    ++by_code[lane][groups_[group].code[sample]];
    ++by_sample[group * samples_ + sample];
  }
  Tally tally = empty();
  for (std::size_t lane = 0; lane < lanes_.size(); ++lane) add_codes(tally, lane, by_code[lane]);
  for (std::size_t group = 0; group < groups_.size(); ++group) {
    add_samples(tally, groups_[group], std::span(by_sample).subspan(group * samples_, samples_));
  }
  tally.latencies = condense(std::move(tally.latencies));
  return tally;
}

Tally Replay::run_each(const Requests& requests, unsigned threads) const {
  const std::size_t rows = requests.sample.size();
  std::vector<std::int64_t> latency(rows);
  const std::size_t parts = std::max<std::size_t>(1, std::min<std::size_t>(std::max(threads, 1U), rows / grain));
  std::vector<Tally> tallies(parts, empty());
  split(parts, static_cast<unsigned>(parts), 1, [&](std::size_t first_part, std::size_t last_part) {
    for (std::size_t part = first_part; part < last_part; ++part) {
      for (std::size_t i = rows * part / parts; i < rows * (part + 1) / parts; ++i) {
        const auto lane = static_cast<std::size_t>(requests.lane[i]);
        const auto sample = static_cast<std::uint32_t>(requests.sample[i]);
        const std::int64_t deadline = requests.deadline_ns.empty() ? no_deadline : requests.deadline_ns[i];
        const Outcome outcome = deliver(lane, sample, requests.first + i, deadline);
        add(tallies[part], outcome, lane, outcome.latency_ns() <= deadline, 1);
        add(tallies[part], sample, outcome.correct >= 0, outcome.correct == 1, 1);
        latency[i] = outcome.latency_ns();
      }
    }
  });
  Tally tally = std::move(tallies.front());
  for (std::size_t part = 1; part < parts; ++part) accumulate(tally, tallies[part]);
  std::sort(latency.begin(), latency.end());
  for (const std::int64_t ns : latency) {
    if (tally.latencies.empty() || tally.latencies.back().first != ns) tally.latencies.emplace_back(ns, 0);
    ++tally.latencies.back().second;
  }
  return tally;
}

void Replay::outcomes(const Requests& requests, const Columns& columns, unsigned threads) const {
  split(requests.sample.size(), threads, grain, [&](std::size_t first, std::size_t last) {
    for (std::size_t i = first; i < last; ++i) {
      const std::int64_t deadline = requests.deadline_ns.empty() ? no_deadline : requests.deadline_ns[i];
      const Outcome outcome = deliver(static_cast<std::size_t>(requests.lane[i]),
                                      static_cast<std::uint32_t>(requests.sample[i]), requests.first + i, deadline);
      columns.answer[i] = outcome.answer;
      columns.confidence[i] = outcome.confidence;
      columns.settled[i] = outcome.settled;
      columns.answered_by[i] = outcome.answered_by;
      columns.consulted[i] = outcome.consulted;
      columns.correct[i] = outcome.correct;
      columns.status[i] = static_cast<std::uint8_t>(outcome.status);
      columns.network_ns[i] = outcome.network_ns;
      columns.service_ns[i] = outcome.service_ns;
      columns.pico_usd[i] = outcome.pico_usd;
    }
  });
}

}  // namespace coinfer
