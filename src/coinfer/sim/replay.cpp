#include "coinfer/sim/replay.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <stdexcept>

#include "coinfer/threads.hpp"

namespace coinfer {
namespace {

constexpr std::size_t grain = 1 << 16;

enum Verdict : std::size_t { code_wrong, code_right, code_unknown, code_failed };
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

Replay::Replay(std::vector<Lane> lanes, std::span<const Label> truth, std::size_t classes, std::uint64_t seed)
    : lanes_(std::move(lanes)), truth_(truth), ledger_(0, 0, 0, 0, {}), seed_(seed) {
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
  ledger_ = Ledger(lanes_.size(), stages_, samples_, classes, truth_);
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
  std::map<std::pair<std::uint8_t, std::uint8_t>, std::size_t> courses;
  for (std::size_t sample = 0; sample < samples_; ++sample) {
    const std::uint8_t route = decisions.route[sample];
    const Itinerary& itinerary = decisions.itineraries[route];
    const std::uint8_t stands = standing(evidence, itinerary, sample);
    const Label answer = evidence.labels(stands)[sample];
    const Label truth = truth_.empty() ? no_answer : truth_[sample];
    const std::size_t verdict = answer == no_answer ? code_failed
                                : truth < 0         ? code_unknown
                                : answer == truth   ? code_right
                                                    : code_wrong;
    const std::size_t missing = evidence.miss(itinerary.back(), sample) != 0 ? 1 : 0;
    const auto [course, fresh] = courses.try_emplace({route, stands}, courses.size());
    if (fresh) {
      if (courses.size() > std::numeric_limits<std::uint16_t>::max() / codes_per_course) {
        throw std::length_error("answers stand in more ways than can be told apart");
      }
      group.route.push_back(route);
      group.example.resize(courses.size() * codes_per_course, nobody);
    }
    const std::size_t code = (course->second * 4 + verdict) * 2 + missing;
    group.code[sample] = static_cast<std::uint16_t>(code);
    group.example[code] = static_cast<std::uint32_t>(sample);
  }
  return group;
}

Replay::Fate Replay::fate(const Lane& lane, const Itinerary& itinerary, std::uint32_t sample, std::uint64_t request,
                          std::int64_t deadline_ns) const noexcept {
  const Plan& plan = *lane.plan;
  const std::size_t stages = plan.stages.size();
  Fate fate;
  std::size_t from = 0;
  std::uint32_t travelled = 0;  // each passage over a link is a draw of its own
  std::int64_t returns = 0;     // the way back from the newest stage
  for (const std::uint8_t stage : itinerary) {
    const Leg& enter = lane.enter[from * stages + stage];
    fate.entered_ns = fate.latency_ns() + travel(enter, seed_, request, travelled++);
    if (fate.entered_ns >= deadline_ns) {
      fate.late = true;
      break;
    }
    fate.network_ns = fate.entered_ns - fate.service_ns;
    fate.pico_usd += enter.pico_usd;
    std::int64_t slowest = -1;
    std::int64_t slowest_service = 0;
    const Stage& group = plan.stages[stage];
    for (std::uint32_t m = group.first; m < group.first + group.count; ++m) {
      const Consult& member = lane.members[m];
      const std::int64_t worked = member.service.draw(seed_, request, plan.members[m].deployment, sample);
      const std::int64_t took =
          travel(member.up, seed_, request, travelled) + worked + travel(member.down, seed_, request, travelled + 1);
      travelled += 2;
      fate.pico_usd += member.pico_usd + member.up.pico_usd + member.down.pico_usd;
      if (took > slowest) {
        slowest = took;
        slowest_service = worked;
      }
    }
    fate.service_ns += slowest_service;
    fate.network_ns += slowest - slowest_service;
    fate.settled = stage;
    ++fate.consulted;
    from = stage + std::size_t{1};
    if (deadline_ns == no_deadline && fate.consulted < itinerary.size()) continue;
    returns = travel(lane.back[stage], seed_, request, travelled);
    if (fate.latency_ns() + returns <= deadline_ns) fate.in_time = fate.consulted;
  }
  if (fate.consulted > 0) {
    fate.network_ns += returns;
    fate.pico_usd += lane.back[fate.settled].pico_usd;
  }
  fate.late = fate.late || fate.latency_ns() > deadline_ns;
  return fate;
}

Outcome Replay::ending(const Lane& lane, const Itinerary& itinerary, std::uint32_t sample, const Fate& fate,
                       std::int64_t deadline_ns) const noexcept {
  const Evidence& evidence = *lane.evidence;
  Outcome out;
  out.settled = fate.settled;
  out.consulted = fate.consulted;
  out.pico_usd = fate.pico_usd;
  std::size_t counts = fate.consulted;
  if (fate.late) {
    // The ingress waits until the deadline, then gives the best answer that has reached it.
    out.service_ns = std::min(fate.service_ns, deadline_ns);
    out.network_ns = deadline_ns - out.service_ns;
    counts = fate.in_time;
  } else {
    out.network_ns = fate.network_ns;
    out.service_ns = fate.service_ns;
  }
  if (counts > 0) {
    out.answered_by = standing(evidence, std::span(itinerary).first(counts), sample);
    out.answer = evidence.labels(out.answered_by)[sample];
  }
  out.confidence =
      out.answer == no_answer ? std::numeric_limits<float>::quiet_NaN() : evidence.scores(out.answered_by)[sample];
  out.status = conclude(out.answer, evidence.miss(out.settled, sample) != 0, fate.late);
  const Label truth = truth_.empty() ? no_answer : truth_[sample];
  const bool ended_well = out.status == Status::answered || out.status == Status::degraded;
  if (truth >= 0 && ended_well) out.correct = out.answer == truth ? 1 : 0;
  return out;
}

Outcome Replay::deliver(std::size_t lane_index, std::uint32_t sample, std::uint64_t request,
                        std::int64_t deadline_ns) const noexcept {
  const Lane& lane = lanes_[lane_index];
  const Itinerary& itinerary = lane.decisions->itineraries[lane.decisions->route[sample]];
  return ending(lane, itinerary, sample, fate(lane, itinerary, sample, request, deadline_ns), deadline_ns);
}

void Replay::add_codes(Tally& tally, std::size_t lane, std::span<const std::uint64_t> weight) const {
  const Group& group = groups_[group_of_[lane]];
  for (std::size_t code = 0; code < weight.size(); ++code) {
    if (weight[code] == 0) continue;
    const Outcome outcome = deliver(lane, group.example[code], 0, no_deadline);
    ledger_.add(tally, outcome, lane, true, weight[code]);
    tally.latencies.emplace_back(outcome.latency_ns(), weight[code]);
  }
}

void Replay::add_samples(Tally& tally, const Group& group, std::span<const std::uint64_t> weight) const {
  if (truth_.empty()) return;
  for (std::size_t sample = 0; sample < samples_; ++sample) {
    if (weight[sample] == 0) continue;
    const std::size_t verdict = verdict_of(group.code[sample]);
    ledger_.add(tally, static_cast<std::uint32_t>(sample), verdict != code_failed, verdict == code_right,
                weight[sample]);
  }
}

Tally Replay::counted(std::span<const std::vector<std::uint64_t>> by_code,
                      std::span<const std::vector<std::uint64_t>> by_sample) const {
  Tally tally = ledger_.empty();
  for (std::size_t lane = 0; lane < lanes_.size(); ++lane) {
    const Group& group = groups_[group_of_[lane]];
    for (std::size_t code = 0; code < by_code[lane].size(); ++code) {
      if (by_code[lane][code] == 0) continue;
      Outcome outcome = deliver(lane, group.example[code], 0, no_deadline);
      outcome.network_ns = outcome.queue_ns = outcome.service_ns = 0;
      ledger_.add(tally, outcome, lane, true, by_code[lane][code]);
    }
  }
  for (std::size_t group = 0; group < groups_.size(); ++group) add_samples(tally, groups_[group], by_sample[group]);
  return tally;
}

Tally Replay::run(const Census& census) const {
  if (!deterministic_) throw std::logic_error("random times: each request must be delivered by itself");
  if (census.lanes() != lanes_.size() || census.samples() != samples_) {
    throw std::invalid_argument("the census counts other lanes or samples");
  }
  Tally tally = ledger_.empty();
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
          ledger_.add(tally, outcome, lane, true, weight[sample]);
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
  Tally tally = ledger_.empty();
  for (std::size_t lane = 0; lane < lanes_.size(); ++lane) add_codes(tally, lane, by_code[lane]);
  for (std::size_t group = 0; group < groups_.size(); ++group) {
    add_samples(tally, groups_[group], std::span(by_sample).subspan(group * samples_, samples_));
  }
  tally.latencies = condense(std::move(tally.latencies));
  return tally;
}

/// Requests that end in time end like others of their code, but for their times, and are counted; what the others come
/// to is looked up in the evidence. All is asked for before it is needed, because samples come in random order.
void Replay::deliver_each(const Requests& requests, std::size_t first, std::size_t last, Each& each) const {
  constexpr std::size_t block = 256, ahead = 24;
  struct Late {
    std::size_t request, route;
    Fate fate;
  };
  std::vector<std::vector<Fate>> still(lanes_.size());  // [lane][route], where nothing is random or measured
  for (std::size_t lane = 0; lane < lanes_.size(); ++lane) {
    if (measured_ || !fixed(lanes_[lane])) continue;
    for (const Itinerary& way : lanes_[lane].decisions->itineraries) {
      still[lane].push_back(fate(lanes_[lane], way, 0, 0, no_deadline));
    }
  }
  const auto deadline_of = [&](std::size_t i) {
    return requests.deadline_ns.empty() ? no_deadline : requests.deadline_ns[i];
  };
  std::vector<Late> late;
  late.reserve(block);
  const auto one = [&](std::size_t i) {
    const auto lane_index = static_cast<std::size_t>(requests.lane[i]);
    const auto sample = static_cast<std::uint32_t>(requests.sample[i]);
    const Lane& lane = lanes_[lane_index];
    const std::int64_t deadline = deadline_of(i);
    const std::size_t group = group_of_[lane_index], code = groups_[group].code[sample];
    const std::size_t route = groups_[group].route[course_of(code)];
    const Itinerary& itinerary = lane.decisions->itineraries[route];
    Fate fate;
    if (still[lane_index].empty()) {
      fate = this->fate(lane, itinerary, sample, requests.first + i, deadline);
    } else {
      fate = still[lane_index][route];
      if (fate.entered_ns >= deadline || fate.latency_ns() > deadline) {
        fate = this->fate(lane, itinerary, sample, requests.first + i, deadline);
      }
    }
    if (fate.late) {
      const std::size_t counts = std::max<std::size_t>(fate.in_time, 1);
      __builtin_prefetch(&lane.evidence->labels(itinerary[counts - 1])[sample]);
      __builtin_prefetch(&each.late.sample_weight[sample]);
      if (!truth_.empty()) __builtin_prefetch(&truth_[sample]);
      late.push_back({i, route, fate});
      return;
    }
    ++each.by_code[lane_index][code];
    ++each.by_sample[group][sample];
    each.network_ns += fate.network_ns;
    each.service_ns += fate.service_ns;
    each.latency[i] = fate.latency_ns();
  };
  for (std::size_t begin = first; begin < last; begin += block) {
    for (std::size_t i = begin; i < std::min(last, begin + block); ++i) {
      if (i + ahead < last) {
        const std::size_t group = group_of_[static_cast<std::size_t>(requests.lane[i + ahead])];
        const auto sample = static_cast<std::size_t>(requests.sample[i + ahead]);
        __builtin_prefetch(&groups_[group].code[sample]);
        __builtin_prefetch(&each.by_sample[group][sample], 1);
      }
      one(i);
    }
    for (const Late& entry : late) {
      const auto lane_index = static_cast<std::size_t>(requests.lane[entry.request]);
      const auto sample = static_cast<std::uint32_t>(requests.sample[entry.request]);
      const Lane& lane = lanes_[lane_index];
      const Outcome outcome =
          ending(lane, lane.decisions->itineraries[entry.route], sample, entry.fate, deadline_of(entry.request));
      ledger_.add(each.late, outcome, lane_index, true, 1);
      ledger_.add(each.late, sample, outcome.correct >= 0, outcome.correct == 1, 1);
      each.latency[entry.request] = outcome.latency_ns();
    }
    late.clear();
  }
}

Tally Replay::run_each(const Requests& requests, unsigned threads) const {
  const std::size_t rows = requests.sample.size();
  const auto latency = std::make_unique_for_overwrite<std::int64_t[]>(rows);
  const std::size_t parts = std::max<std::size_t>(1, std::min<std::size_t>(std::max(threads, 1U), rows / grain));
  std::vector<Each> each(parts);
  for (Each& part : each) {
    for (const std::uint32_t group : group_of_) part.by_code.emplace_back(groups_[group].example.size());
    part.by_sample.assign(groups_.size(), std::vector<std::uint64_t>(samples_));
    part.late = ledger_.empty();
    part.latency = latency.get();
  }
  split(parts, static_cast<unsigned>(parts), 1, [&](std::size_t first_part, std::size_t last_part) {
    for (std::size_t part = first_part; part < last_part; ++part) {
      deliver_each(requests, rows * part / parts, rows * (part + 1) / parts, each[part]);
    }
  });
  Tally tally = ledger_.empty();
  for (const Each& part : each) {
    accumulate(tally, counted(part.by_code, part.by_sample));
    accumulate(tally, part.late);
    tally.network_ns += part.network_ns;
    tally.service_ns += part.service_ns;
    tally.latency_ns += part.network_ns + part.service_ns;
  }
  tally.latencies = counted_times({latency.get(), rows});
  return tally;
}

void Replay::outcomes(const Requests& requests, const Columns& columns, unsigned threads) const {
  split(requests.sample.size(), threads, grain, [&](std::size_t first, std::size_t last) {
    for (std::size_t i = first; i < last; ++i) {
      const std::int64_t deadline = requests.deadline_ns.empty() ? no_deadline : requests.deadline_ns[i];
      columns.set(i, deliver(static_cast<std::size_t>(requests.lane[i]), static_cast<std::uint32_t>(requests.sample[i]),
                             requests.first + i, deadline));
    }
  });
}

}  // namespace coinfer
