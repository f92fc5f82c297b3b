#include "coinfer/sim/queues.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <unordered_map>

#include "coinfer/sim/agenda.hpp"
#include "coinfer/sim/outages.hpp"
#include "coinfer/sim/queues_core.hpp"
#include "coinfer/sim/waits.hpp"

namespace coinfer {
namespace {

/// A stage holds at most 255 members: see validate().
std::uint16_t members_of(const Stage& stage) { return static_cast<std::uint16_t>(stage.count); }

constexpr std::uint16_t whole_batch = UINT16_MAX;

/// Where a request is on its way. After `going_back`, events of networks with outages: an answer at its host, news of a
/// failure, the next attempt at a member or at the host, and (of a place) that it goes down.
enum Phase : std::uint8_t {
  entering,
  going_up,
  coming_down,
  going_back,
  arrived,
  failing,
  asking,
  setting_out,
  striking
};

/// Why a member did not answer.
enum Reason : std::uint8_t { refused, full, unheard };

/// From the host of one stage to the only member of another, where nothing on the way is drawn, queued or out.
struct Step {
  std::int64_t there_ns = 0;  // to its host, and up
  std::int64_t down_ns = 0;
  std::int64_t back_ns = 0;  // from its host to the ingress
  std::int64_t pico = 0;
  std::uint32_t place = 0;
};

/// One request under way.
struct Flight {
  std::uint64_t request = 0;
  std::int64_t arrival = 0;
  std::int64_t deadline = forever;  // absolute
  std::int64_t queue = 0;           // waits so far, of closed stages and of ways
  std::int64_t service = 0;
  std::int64_t pico = 0;
  const Itinerary* itinerary = nullptr;  // none: decided on the way
  const Step* steps = nullptr;           // [from][stage], if nothing about its ways is random; none: leg by leg
  std::uint32_t lane = 0;
  std::uint32_t sample = 0;
  std::int32_t level = INT32_MAX;  // of its priority; nothing said: after all others
  std::uint32_t travelled = 0;
  std::uint16_t pending = 0;
  std::uint8_t stage = 0;
  std::uint8_t from = 0;
  std::uint8_t consulted = 0;
  std::uint8_t in_time = 0;  // stages whose answer the ingress would hold at the deadline
  bool counted = true;
  bool stopped = false;   // what it wanted to ask next could not finish in time
  bool troubled = false;  // a member turned it away
  bool dropped = false;   // its deadline passed in a queue
};

/// One member of the stage that a request is at.
struct Part {
  std::int64_t back_at = 0;
  std::int64_t queue = 0;
  std::int64_t service = 0;
  bool answered = true;
};

/// A request that was let down: which members answered it, and what stands.
struct Trouble {
  std::vector<std::uint8_t> heard;  // by member of the plan
  Label label = no_answer;
  float score = std::numeric_limits<float>::quiet_NaN();
  std::uint8_t by = 0;
  bool missing = false;  // a member of its newest stage
  bool silent = false;   // all of them
  Label timely_label = no_answer;
  float timely_score = std::numeric_limits<float>::quiet_NaN();
  std::uint8_t timely_by = 0;
};

/// Consulting one member, where outages are: one consultation may take several attempts.
struct Attempt {
  std::int64_t sent = 0;
  std::uint8_t count = 0;
  bool open = false;      // sent, and nothing heard yet
  bool borrowed = false;  // a retry, from the budget
};

/// Going to the host of a stage, where outages are.
struct Trip {
  Attempt attempt;
  std::int64_t until = 0;   // nobody waits longer
  std::uint8_t before = 0;  // where it came from
  bool lost = false;        // its host is down
  bool failed = false;      // some member, for good
};

struct Waiting {
  std::uint64_t request = 0;
  std::int64_t since = 0;
  std::uint32_t slot = 0;
  std::uint16_t member = 0;
};

/// How requests of a lane end whose decisions were made ahead, but for their times.
struct Door {
  const std::uint16_t* code = nullptr;  // [sample]
  std::vector<std::uint64_t> by_code;
  std::size_t group = 0;
};

/// A station at work. Hops use `free` and `starts`; events use the rest.
struct Place : Waits<Waiting> {
  FreeTimes free;
  Ring<std::int64_t> starts;  // of those who may still wait
  std::int64_t epoch = -1;    // of the gossip
  float gossip_us = 0.0F;
};

/// What a station is working on, where outages are.
struct Job {
  Waiting who;
  std::int64_t began = 0;
  std::int64_t service = 0;
  std::uint32_t batch = UINT32_MAX;  // instead of `who`
};

struct Ward {
  std::vector<Job> jobs;
  std::uint16_t strikes = 0;  // so far; what began before the last will not be completed
  Breaker breaker;
};

struct Wire {
  std::int64_t free = 0;
};

}  // namespace

namespace {

template <bool Listed, bool Faulty>
class Loop final : public Queues::Core {
 public:
  Loop(std::vector<Lane> lanes, std::span<const Label> truth, std::size_t classes, std::uint64_t seed,
       std::vector<Station> stations, std::size_t links, std::vector<Outputs> outputs, const QueueOptions& options)
      : Core(std::move(lanes), truth, classes, seed, std::move(stations), links, std::move(outputs), options),
        places_(config_.size()),
        wires_(links) {
    for (std::size_t d = 0; d < config_.size(); ++d) places_[d].free = FreeTimes(config_[d].instances);
    if constexpr (!Faulty) {
      for (const Lane& lane : lanes_) lay_out(lane);
      if (std::all_of(lanes_.begin(), lanes_.end(), [](const Lane& lane) { return lane.decisions != nullptr; })) {
        replay_ = std::make_unique<Replay>(lanes_, truth, classes, seed);
        by_sample_.assign(replay_->group_count(), std::vector<std::uint64_t>(lanes_.front().evidence->rows));
        for (std::size_t lane = 0; lane < lanes_.size(); ++lane) {
          doors_.push_back({replay_->codes(lane).data(), std::vector<std::uint64_t>(replay_->code_count(lane)),
                            replay_->group_of(lane)});
        }
      }
    }
    if constexpr (Faulty) {
      wards_.resize(config_.size());
      options_.outages.resize(config_.size() + links);
      for (std::uint32_t d = 0; d < config_.size(); ++d) {
        for (const Window& window : options_.outages[d]) {
          if (window.down()) agenda_.push({window.from, order_of(Happening::timer, 0, d, 1), {d, 0, striking, 0}});
        }
      }
    }
  }

  std::uint64_t in_flight() const noexcept override { return flights_.size() - idle_.size(); }

  Tally tally() const override {
    Tally out = Core::tally();
    if (replay_ == nullptr) return out;
    std::vector<std::vector<std::uint64_t>> by_code;
    for (const Door& door : doors_) by_code.push_back(door.by_code);
    Tally foreseen = replay_->counted(by_code, by_sample_);
    foreseen.latency_ns = latency_;
    foreseen.queue_ns = queue_;
    foreseen.service_ns = service_;
    foreseen.network_ns = latency_ - queue_ - service_;
    accumulate(out, foreseen);
    return out;
  }

  void push(const Requests& batch) override {
    const std::size_t rows = batch.sample.size();
    if (batch.arrival_ns.size() != rows) throw std::invalid_argument("queues need arrival times");
    for (std::size_t i = 0; i < rows; ++i) {
      const std::int64_t at = batch.arrival_ns[i];
      if (at < now_arrival_) throw std::invalid_argument("arrivals must not go back in time");
      now_arrival_ = at;
      const std::uint64_t request = batch.first + i;
      while (agenda_.precedes(at, order_of(Happening::decision, request, 0))) step();
      horizon_ = i + 1 < rows ? batch.arrival_ns[i + 1] : at;
      begin(batch, i, request);
    }
  }

  void finish() override {
    horizon_ = forever;
    while (!agenda_.empty()) step();
    if (in_flight() != 0) throw std::logic_error("requests were left under way");
  }

 private:
  std::vector<Place> places_;
  std::unique_ptr<Replay> replay_;                     // where all decisions are made ahead; so too:
  std::vector<Door> doors_;                            // [lane]
  std::vector<std::vector<std::uint64_t>> by_sample_;  // [group of lanes][sample]
  Wide latency_ = 0, queue_ = 0, service_ = 0;         // of those counted by code
  std::vector<std::vector<Step>> steps_;               // [lane][(stages + 1) x stages], empty where ways are random
  std::vector<Wire> wires_;
  std::vector<Flight> flights_;
  std::vector<Part> parts_;            // [slot][member of the group]
  std::vector<std::uint8_t> visited_;  // [slot][stage]
  std::vector<std::uint32_t> idle_;    // slots
  std::unordered_map<std::uint32_t, Trouble> troubles_;
  Agenda agenda_;
  std::int64_t horizon_ = 0;  // no request arrives before
  std::int64_t now_arrival_ = 0;
  Batches<Waiting> batches_;
  std::int32_t first_level_ = 0;
  bool levels_ = false;            // requests have differed in priority
  std::vector<Ward> wards_;        // [station], where outages are; so too:
  std::vector<Attempt> attempts_;  // [slot][member of the group]
  std::vector<Trip> trips_;        // [slot]
  Budget budget_;

  const Lane& lane_of(const Flight& flight) const noexcept { return lanes_[flight.lane]; }
  std::size_t stages_of(const Flight& flight) const noexcept { return lane_of(flight).plan->stages.size(); }
  Part& part(std::uint32_t slot, std::uint16_t member) noexcept { return parts_[slot * width_ + member]; }
  std::uint8_t* visited(std::uint32_t slot) noexcept { return visited_.data() + slot * stages_; }

  /// Put an event on the agenda, or, at the end of what is being done and if nothing can come before it, do it now.
  void next(const Event& event, bool tail) {
    if (tail && event.time < horizon_ && !agenda_.precedes(event.time, event.order)) {
      perform(event);
    } else {
      agenda_.push(event);
    }
  }

  void step() {
    const Event event = agenda_.top();
    agenda_.pop();
    perform(event);
  }

  void perform(const Event& event) {
    switch (kind_of(event.order)) {
      case Happening::completion: return complete(event.time, place_of(event.order), event.token);
      case Happening::decision:
        if constexpr (Faulty) {
          switch (event.token.phase) {
            case arrived: return close(event.token, event.time, true);
            case failing: return hear(event.token, event.time);
            case asking: return ask(event.token, event.time);
            case setting_out: return set_out(event.token.slot, event.time);
            default: break;
          }
        }
        return decide(event.token.slot, event.time, true);
      case Happening::arrival: {
        const std::uint32_t place = place_of(event.order);
        if (place >= config_.size()) return send(event.time, event.token);
        return arrive(event.time, place, event.token);
      }
      case Happening::timer:
        if constexpr (Faulty) {
          if (event.token.phase == striking) return strike(event.token.slot, event.time);
        }
        if (places_[place_of(event.order)].timer == event.time) {
          if (watched_) touch(place_of(event.order), event.time);
          places_[place_of(event.order)].timer = -1;
          form(place_of(event.order), event.time);
        }
        return;
    }
  }

  void begin(const Requests& batch, std::size_t i, std::uint64_t request) {
    std::uint32_t slot = 0;
    if (idle_.empty()) {
      slot = static_cast<std::uint32_t>(flights_.size());
      flights_.emplace_back();
      parts_.resize(parts_.size() + width_);
      visited_.resize(visited_.size() + stages_);
      if constexpr (Faulty) {
        attempts_.resize(attempts_.size() + width_);
        trips_.emplace_back();
      }
    } else {
      slot = idle_.back();
      idle_.pop_back();
      flights_[slot] = Flight{};
      if constexpr (Faulty) trips_[slot] = Trip{};
    }
    if (request >> request_bits != 0) throw std::invalid_argument("at most 2^37 requests");
    ++arrived_;
    Flight& flight = flights_[slot];
    flight.request = request;
    flight.arrival = batch.arrival_ns[i];
    flight.lane = static_cast<std::uint32_t>(batch.lane[i]);
    flight.sample = static_cast<std::uint32_t>(batch.sample[i]);
    if (!batch.deadline_ns.empty()) {
      const std::int64_t relative = batch.deadline_ns[i];
      flight.deadline = relative > forever - flight.arrival ? forever : flight.arrival + relative;
    }
    if (!batch.priority.empty() && batch.priority[i] != 0) flight.level = batch.priority[i];
    if (arrived_ == 1) first_level_ = flight.level;
    levels_ = levels_ || flight.level != first_level_;
    flight.counted = flight.arrival >= options_.warmup_ns;
    if (flight.counted) {
      first_ = std::min(first_, flight.arrival);
      last_arrival_ = flight.arrival;
    }
    reserve_row(request);
    const Lane& lane = lane_of(flight);
    if constexpr (!Faulty) {
      if (flight.deadline == forever && !steps_[flight.lane].empty()) flight.steps = steps_[flight.lane].data();
    }
    std::size_t stage = 0;
    if (lane.decisions) {
      flight.itinerary = &lane.decisions->itineraries[lane.decisions->route[flight.sample]];
      stage = flight.itinerary->front();
    } else {
      View view = view_of(flight, flight.arrival);
      stage = first_stage(*lane.plan, view);
    }
    if (!feasible(flight, stage, flight.arrival)) {
      flight.stopped = true;
      return end(slot, flight.arrival, false);
    }
    enter(slot, stage, flight.arrival, true);
  }

  /// Whether a stage, entered now, can finish before the deadline, at its own median and if it meets nobody.
  bool feasible(const Flight& flight, std::size_t stage, std::int64_t at) const noexcept {
    const Lane& lane = lane_of(flight);
    return lane.least.empty() || flight.deadline - at >= lane.least[flight.from * lane.plan->stages.size() + stage];
  }

  /// Send a request to the host of a stage.
  void enter(std::uint32_t slot, std::size_t stage, std::int64_t at, bool tail) {
    Flight& flight = flights_[slot];
    flight.stage = static_cast<std::uint8_t>(stage);
    if constexpr (Faulty) {
      Trip& trip = trips_[slot];
      return_loan(trip.attempt);
      trip.attempt = Attempt{};
      trip.until = at > forever - patience_ns ? forever : at + patience_ns;
      trip.until = std::min(trip.until, flight.deadline);
      return set_out(slot, at);
    }
    if (flight.steps != nullptr) return step_on(slot, at, tail);
    follow(at, {slot, 0, entering, 0}, tail);
  }

  /// Fill `steps_` for a lane whose ways are all fixed, and whose stages have one member.
  void lay_out(const Lane& lane) {
    std::vector<Step>& steps = steps_.emplace_back();
    const auto fixed = [](const Leg& leg) { return leg.jitters.empty() && leg.hops.empty(); };
    const std::size_t stages = lane.plan->stages.size();
    if (!std::all_of(lane.enter.begin(), lane.enter.end(), fixed) ||
        !std::all_of(lane.back.begin(), lane.back.end(), fixed) ||
        !std::all_of(lane.members.begin(), lane.members.end(),
                     [&](const Consult& member) { return fixed(member.up) && fixed(member.down); }) ||
        !std::all_of(lane.plan->stages.begin(), lane.plan->stages.end(),
                     [](const Stage& stage) { return stage.count == 1; })) {
      return;
    }
    for (std::size_t i = 0; i < lane.enter.size(); ++i) {
      const std::size_t stage = i % stages;
      const std::uint32_t first = lane.plan->stages[stage].first;
      const Consult& member = lane.members[first];
      steps.push_back({lane.enter[i].ns + member.up.ns, member.down.ns, lane.back[stage].ns,
                       lane.enter[i].pico_usd + member.pico_usd + member.up.pico_usd + member.down.pico_usd,
                       lane.plan->members[first].deployment});
    }
  }

  /// `host` and the ways around it in one, where they are fixed and there is no deadline.
  void step_on(std::uint32_t slot, std::int64_t at, bool tail) {
    Flight& flight = flights_[slot];
    const std::uint8_t stage = flight.stage;
    const Step& step = flight.steps[flight.from * stages_of(flight) + stage];
    flight.pico += step.pico;
    ++flight.travelled;
    visited(slot)[flight.consulted++] = stage;
    flight.from = static_cast<std::uint8_t>(stage + 1);
    flight.pending = 1;
    part(slot, 0) = Part{};
    next({at + step.there_ns, order_of(Happening::arrival, flight.request, step.place), {slot, 0, going_up, 0}}, tail);
  }

  /// A member has served a request.
  void served(std::int64_t at, const Token& token, bool tail) {
    Flight& flight = flights_[token.slot];
    if (Faulty || flight.steps == nullptr || flight.troubled) return follow(at, token, tail);
    const Part& part = parts_[token.slot * width_];
    flight.queue += part.queue;
    flight.service += part.service;
    flight.travelled += 2;
    at += flight.steps[flight.stage].down_ns;
    if (flight.itinerary != nullptr) return decide(token.slot, at, tail);
    next({at, order_of(Happening::decision, flight.request, 0), {token.slot, 0, 0, 0}}, tail);
  }

  const Leg& leg_of(const Flight& flight, const Token& token) const noexcept {
    const Lane& lane = lane_of(flight);
    const std::size_t stages = lane.plan->stages.size();
    switch (token.phase) {
      case entering: return lane.enter[flight.from * stages + flight.stage];
      case going_up: return lane.members[lane.plan->stages[flight.stage].first + token.member].up;
      case coming_down: return lane.members[lane.plan->stages[flight.stage].first + token.member].down;
      default: return back_of(flight);
    }
  }

  /// The way back from where the request is: its stage's host, unless it never got there.
  const Leg& back_of(const Flight& flight) const noexcept {
    if constexpr (Faulty) {
      static const Leg none{};
      return flight.from == 0 ? none : lane_of(flight).back[flight.from - std::size_t{1}];
    } else {
      return lane_of(flight).back[flight.stage];
    }
  }

  static std::uint32_t draw_of(const Flight& flight, const Token& token) noexcept {
    switch (token.phase) {
      case going_up: return flight.travelled + 2U * token.member;
      case coming_down: return flight.travelled + 2U * token.member + 1U;
      default: return flight.travelled;
    }
  }

  /// Go on along a way until it ends or a message has to wait its turn to be sent.
  void follow(std::int64_t at, Token token, bool tail) {
    const Flight& flight = flights_[token.slot];
    const Leg& leg = leg_of(flight, token);
    const std::uint32_t draw = draw_of(flight, token);
    if (leg.hops.empty()) {
      at += travel(leg, seed_, flight.request, draw);
    } else {
      for (const auto last = static_cast<std::uint8_t>(leg.hops.size()); token.hop < last; ++token.hop) {
        const Hop& hop = leg.hops[token.hop];
        if (hop.send_ns > 0) {
          const auto place = static_cast<std::uint32_t>(config_.size()) + hop.link;
          return next({at, order_of(Happening::arrival, flight.request, place, token.member), token}, tail);
        }
        if constexpr (Faulty) {
          const std::int64_t open = up_again(outages_of(hop), at);
          if (open != at && going(token)) return turn_back(token, at);
          delay(flights_[token.slot], token, open - at);
          at = open + slowed(outages_of(hop), open, pass(hop, flight.request, draw));
          continue;
        }
        at += pass(hop, flight.request, draw);
      }
    }
    token.hop = 0;
    switch (token.phase) {
      case entering: return host(token.slot, at, tail);
      case going_up: {
        const std::uint32_t place = lane_of(flight).plan->members[member_of(flight, token)].deployment;
        return next({at, order_of(Happening::arrival, flight.request, place, token.member), token}, tail);
      }
      case coming_down:
        if constexpr (Faulty) {
          token.phase = arrived;
          return next({at, order_of(Happening::decision, flight.request, 0, token.member), token}, tail);
        }
        return close(token, at, tail);
      default: return end(token.slot, at, false);
    }
  }

  static std::uint32_t member_of(const Flight& flight, const Token& token, const Plan& plan) noexcept {
    return plan.stages[flight.stage].first + token.member;
  }
  std::uint32_t member_of(const Flight& flight, const Token& token) const noexcept {
    return member_of(flight, token, *lane_of(flight).plan);
  }

  std::int64_t pass(const Hop& hop, std::uint64_t request, std::uint32_t draw) const noexcept {
    std::int64_t ns = hop.delay_ns;
    if (hop.jitter_ns > 0.0) {
      ns += to_ns(-hop.jitter_ns * std::log(uniforms(seed_, Stream::jitter, request, hop.link, draw)[0]));
    }
    return ns;
  }

  /// A message at the head of a link: first come, first sent.
  void send(std::int64_t at, Token token) {
    Flight& flight = flights_[token.slot];
    const Hop& hop = leg_of(flight, token).hops[token.hop];
    Wire& wire = wires_[hop.link];
    std::int64_t start = std::max(at, wire.free);
    std::int64_t send = hop.send_ns;
    if constexpr (Faulty) {
      if (going(token) && up_again(outages_of(hop), at) != at) return turn_back(token, at);
      start = up_again(outages_of(hop), start);
      send = slowed(outages_of(hop), start, send);
    }
    wire.free = start + send;
    delay(flight, token, start - at);
    if (flight.counted) {
      Load& load = link_loads_[hop.link];
      ++load.served;
      load.busy_ns += send;
      load.wait_ns += start - at;
      load.wait_ns_max = std::max(load.wait_ns_max, start - at);
    }
    std::int64_t passing = pass(hop, flight.request, draw_of(flight, token));
    if constexpr (Faulty) passing = slowed(outages_of(hop), wire.free, passing);
    const std::int64_t there = wire.free + passing;
    ++token.hop;
    follow(there, token, true);
  }

  void delay(Flight& flight, const Token& token, std::int64_t ns) noexcept {
    if (token.phase == going_up || token.phase == coming_down) {
      part(token.slot, token.member).queue += ns;
    } else {
      flight.queue += ns;
    }
  }

  /// A request at the host of its stage: consult the members.
  void host(std::uint32_t slot, std::int64_t at, bool tail) {
    Flight& flight = flights_[slot];
    if (at >= flight.deadline) return end(slot, at, true);
    const Lane& lane = lane_of(flight);
    const std::size_t stages = lane.plan->stages.size();
    const Stage& stage = lane.plan->stages[flight.stage];
    flight.pico += lane.enter[flight.from * stages + flight.stage].pico_usd;
    ++flight.travelled;
    visited(slot)[flight.consulted++] = flight.stage;
    if constexpr (Faulty) trips_[slot].before = flight.from;
    flight.from = static_cast<std::uint8_t>(flight.stage + 1);
    flight.pending = static_cast<std::uint16_t>(stage.count);
    for (std::uint16_t m = 0, count = members_of(stage); m < count; ++m) {
      part(slot, m) = Part{};
      if constexpr (Faulty) {
        if (!attempt(slot, m).open) continue;
        attempt(slot, m).sent = at;
      }
      const Consult& member = lane.members[stage.first + m];
      flight.pico += member.pico_usd + member.up.pico_usd + member.down.pico_usd;
    }
    const auto count = static_cast<std::uint16_t>(stage.count);
    for (std::uint16_t m = 0; m < count; ++m) {
      if constexpr (Faulty) {
        if (!attempt(slot, m).open) {
          tell(slot, m, at, refused);
          continue;
        }
      }
      follow(at, {slot, m, going_up, 0}, tail && count == 1);
    }
  }

  void begin_service(std::uint32_t place, std::uint32_t slot, std::uint16_t member, std::int64_t since,
                     std::int64_t start, std::int64_t service) {
    Part& p = part(slot, member);
    p.queue += start - since;
    p.service = service;
    if (!flights_[slot].counted) return;
    Load& load = station_loads_[place];
    ++load.served;
    load.wait_ns += start - since;
    load.wait_ns_max = std::max(load.wait_ns_max, start - since);
  }

  void begin_batch(std::uint32_t place, std::size_t size, std::int64_t service, bool counted) {
    if (!counted) return;
    Load& load = station_loads_[place];
    ++load.batches;
    ++load.batch_size[size - 1];
    load.busy_ns += service;
  }

  std::int64_t draw_service(const Flight& flight, std::uint16_t member, std::uint32_t place, std::size_t size) const {
    const Station& station = config_[place];
    if (!station.batch_ns.empty()) {
      const std::size_t choices = station.choices();
      return station
          .batch_ns[(size - 1) * choices + (choices == 1 ? 0 : Service::choose(seed_, flight.request, place, choices))];
    }
    const Lane& lane = lane_of(flight);
    return lane.members[lane.plan->stages[flight.stage].first + member].service.draw(seed_, flight.request, place,
                                                                                     flight.sample);
  }

  /// A member without an answer: turned away, or late in the queue.
  void fail(Token token, std::int64_t at, std::int64_t since, bool rejected, std::uint32_t place, bool tail) {
    Part& p = part(token.slot, token.member);
    token.phase = coming_down;
    p.queue += at - since;
    p.answered = false;
    if (flights_[token.slot].counted) ++(rejected ? station_loads_[place].rejected : station_loads_[place].dropped);
    if constexpr (Faulty) {
      if (rejected) return tell(token.slot, token.member, at + leg_of(flights_[token.slot], token).ns, full);
      late(token, at);
    }
    (rejected ? flights_[token.slot].troubled : flights_[token.slot].dropped) = true;
    if (rejected) at += leg_of(flights_[token.slot], token).ns;  // the news takes the way back, and meets nobody
    close(token, at, tail);
  }

  void arrive(std::int64_t at, std::uint32_t place, Token token) {
    if (watched_) touch(place, at);
    if constexpr (Listed) {
      arrive_listed(at, place, token);
    } else {
      arrive_hop(at, place, token);
    }
  }

  /// First come, first served: the request starts as soon as an instance is free, and no one who comes later matters.
  void arrive_hop(std::int64_t at, std::uint32_t place, Token token) {
    const Flight& flight = flights_[token.slot];
    FreeTimes& free = places_[place].free;
    const std::int64_t start = std::max(at, free.first());
    if (watched_) places_[place].starts.push(start);
    if (start > at && start >= flight.deadline) return fail(token, start, at, false, place, true);
    const std::int64_t service = draw_service(flight, token.member, place, 1);
    begin_service(place, token.slot, token.member, at, start, service);
    begin_batch(place, 1, service, flight.counted);
    const std::int64_t done = start + service;
    free.take(done);
    token.phase = coming_down;
    served(done, token, true);
  }

  void arrive_listed(std::int64_t at, std::uint32_t place, Token token) {
    const Station& station = config_[place];
    Place& p = places_[place];
    const Flight& flight = flights_[token.slot];
    if constexpr (Faulty) {
      const Window* window = window_at(options_.outages[place], at);
      if (window != nullptr && window->down()) return turn_away(token, place, *window, at);
    }
    const bool instance = station.instances == 0 || p.busy < station.instances;
    if (station.max_batch == 1) {
      if (instance) return start_one(place, {flight.request, at, token.slot, token.member}, at);
      if (p.waiting >= station.queue_max) return fail(token, at, at, true, place, true);
      line_up(place, token, at);
      return;
    }
    if (p.waiting >= station.queue_max && (!instance || p.waiting != 0)) return fail(token, at, at, true, place, true);
    line_up(place, token, at);
    form(place, at);
  }

  void line_up(std::uint32_t place, const Token& token, std::int64_t at) {
    Place& p = places_[place];
    const Flight& flight = flights_[token.slot];
    p.line_up(flight.level, {flight.request, at, token.slot, token.member});
    Load& load = station_loads_[place];
    load.waiting_max = std::max<std::uint64_t>(load.waiting_max, p.waiting);
  }

  void start_one(std::uint32_t place, const Waiting& who, std::int64_t at) {
    const Flight& flight = flights_[who.slot];
    std::int64_t service = draw_service(flight, who.member, place, 1);
    Token token{who.slot, who.member, coming_down, 0};
    if constexpr (Faulty) {
      service = slowed(options_.outages[place], at, service);
      mark(token, place, {who, at, service});
    }
    begin_service(place, who.slot, who.member, who.since, at, service);
    begin_batch(place, 1, service, flight.counted);
    ++places_[place].busy;
    agenda_.push({at + service, order_of(Happening::completion, who.request, place, who.member), token});
  }

  void complete(std::int64_t at, std::uint32_t place, Token token) {
    if (watched_) touch(place, at);
    if constexpr (Faulty) {
      if (!unmark(token, place)) return;
    }
    Place& p = places_[place];
    --p.busy;
    if (token.member == whole_batch) {
      Host host{*this, place, batches_};
      p.dispatch(config_[place], at, host);
      form(place, at);
      const std::vector<Waiting> batch = std::move(batches_[token.slot]);
      batches_.close(token.slot);
      for (const Waiting& who : batch) served(at, {who.slot, who.member, coming_down, 0}, batch.size() == 1);
      return;
    }
    while (p.waiting > 0 && p.busy < config_[place].instances) {
      const Waiting who = p.call();
      if (flights_[who.slot].deadline <= at) {
        fail({who.slot, who.member, coming_down, 0}, at, who.since, false, place, false);
      } else {
        start_one(place, who, at);
      }
    }
    served(at, token, true);
  }

  void form(std::uint32_t place, std::int64_t at) {
    Host host{*this, place, batches_};
    places_[place].form(config_[place], at, levels_, host);
  }

  /// What a station's batcher has to know.
  struct Host {
    Loop& loop;
    std::uint32_t place;
    Batches<Waiting>& batches;

    std::int64_t deadline(const Waiting& who) const noexcept { return loop.flights_[who.slot].deadline; }
    void miss(const Waiting& who, std::int64_t at) {
      loop.fail({who.slot, who.member, coming_down, 0}, at, who.since, false, place, false);
    }
    void ring(std::int64_t at) { loop.agenda_.push({at, order_of(Happening::timer, 0, place), {}}); }
    void start(std::uint32_t id, std::int64_t at) { loop.start_batch(place, id, at); }
  };

  void start_batch(std::uint32_t place, std::uint32_t id, std::int64_t at) {
    const std::vector<Waiting>& batch = batches_[id];
    const Flight& first = flights_[batch.front().slot];
    std::int64_t service = draw_service(first, batch.front().member, place, batch.size());
    Token token{id, whole_batch, 0, 0};
    if constexpr (Faulty) {
      service = slowed(options_.outages[place], at, service);
      mark(token, place, {{}, at, service, id});
    }
    for (const Waiting& who : batch) begin_service(place, who.slot, who.member, who.since, at, service);
    begin_batch(place, batch.size(), service, first.counted);
    agenda_.push({at + service, order_of(Happening::completion, batch.front().request, place), token});
  }

  /// A member has answered, or will not. The last one closes the stage.
  void close(Token token, std::int64_t at, bool tail) {
    Flight& flight = flights_[token.slot];
    part(token.slot, token.member).back_at = at;
    if constexpr (Faulty) heard(token, at);
    if (--flight.pending > 0) return;
    const Lane& lane = lane_of(flight);
    const Stage& stage = lane.plan->stages[flight.stage];
    std::uint16_t slowest = 0;
    for (std::uint16_t m = 1, count = members_of(stage); m < count; ++m) {
      if (part(token.slot, m).back_at > part(token.slot, slowest).back_at) slowest = m;
    }
    const Part& last = part(token.slot, slowest);
    flight.queue += last.queue;
    flight.service += last.service;
    flight.travelled += 2U * stage.count;
    const std::int64_t closed = last.back_at;
    if (flight.dropped) return end(token.slot, closed, true);
    if constexpr (Faulty) {
      if (trips_[token.slot].lost && step_back(token.slot, closed)) return;
    }
    settle_down(token.slot, closed, tail);
  }

  /// All that a stage will say is there.
  void settle_down(std::uint32_t slot, std::int64_t closed, bool tail) {
    Flight& flight = flights_[slot];
    if (flight.troubled) reconsider(slot);
    if (flight.deadline != forever) {
      if (closed + returning(flight, closed) <= flight.deadline) {
        flight.in_time = flight.consulted;
        if (flight.troubled) {
          Trouble& trouble = troubles_[slot];
          trouble.timely_label = trouble.label;
          trouble.timely_score = trouble.score;
          trouble.timely_by = trouble.by;
        }
      }
    }
    if (flight.itinerary != nullptr && !flight.troubled) return decide(slot, closed, tail);
    next({closed, order_of(Happening::decision, flight.request, 0), {slot, 0, 0, 0}}, tail);
  }

  /// How long an answer given now would take back to the ingress, if it met nobody.
  std::int64_t returning(const Flight& flight, std::int64_t at) const {
    const Leg& leg = back_of(flight);
    if constexpr (Faulty) {
      if (leg.hops.empty()) return travel(leg, seed_, flight.request, flight.travelled);
      std::int64_t there = at;
      for (const Hop& hop : leg.hops) {
        there = up_again(outages_of(hop), there);
        there += slowed(outages_of(hop), there, hop.send_ns + pass(hop, flight.request, flight.travelled));
      }
      return there - at;
    }
    return travel(leg, seed_, flight.request, flight.travelled);
  }

  View view_of(const Flight& flight, std::int64_t at) const noexcept {
    View view;
    view.remaining_us = flight.deadline == forever ? std::numeric_limits<float>::infinity()
                                                   : static_cast<float>(flight.deadline - at) * 1e-3F;
    if (lane_of(flight).plan->rule.advance != nullptr) {
      view.uniform = uniforms(seed_, Stream::rule, flight.request, flight.consulted, 0)[0];
    }
    return view;
  }

  /// The stage is closed: settle, or go on to a later one.
  void decide(std::uint32_t slot, std::int64_t at, bool tail) {
    Flight& flight = flights_[slot];
    if (at > flight.deadline) return end(slot, at, true);
    const Lane& lane = lane_of(flight);
    const std::size_t stages = lane.plan->stages.size();
    std::size_t to = flight.stage;
    if (flight.itinerary != nullptr && (!flight.troubled || lane.plan->oracle)) {
      if (flight.consulted < flight.itinerary->size()) to = (*flight.itinerary)[flight.consulted];
    } else {
      View view = view_of(flight, at);
      view.stage = flight.stage;
      if (flight.troubled) {
        const Trouble& trouble = troubles_[slot];
        view.label = trouble.label;
        view.score = trouble.silent ? std::numeric_limits<float>::quiet_NaN() : trouble.score;
      } else {
        const Evidence& evidence = *lane.evidence;
        view.label =
            evidence.labels(standing(evidence, {visited(slot), flight.consulted}, flight.sample))[flight.sample];
        view.score = evidence.scores(flight.stage)[flight.sample];
      }
      const bool more = flight.stage + std::size_t{1} < stages;
      if (more && watched_) view.wait_us = wait_us(*lane.plan, flight.stage + std::size_t{1}, at);
      to += static_cast<std::size_t>(judge(*lane.plan, view, more));
    }
    if (to != flight.stage) {
      if (at >= flight.deadline) return end(slot, at, true);
      flight.stopped = !feasible(flight, to, at);
      if (!flight.stopped) return enter(slot, to, at, tail);
    }
    if (flight.steps != nullptr) return end(slot, at + flight.steps[flight.stage].back_ns, false);
    follow(at, {slot, 0, going_back, 0}, tail);
  }

  /// Work out what stands after members were missing, from what the others said.
  void reconsider(std::uint32_t slot) {
    const Flight& flight = flights_[slot];
    const Lane& lane = lane_of(flight);
    const Plan& plan = *lane.plan;
    const bool skips = plan.rule.jumps || plan.rule.opens;
    Trouble& trouble = troubles_[slot];
    const std::span<const std::uint8_t> seen{visited(slot), flight.consulted};
    if (trouble.heard.empty()) trouble.heard.assign(plan.members.size(), 1);
    const Stage& newest = plan.stages[flight.stage];
    for (std::uint16_t m = 0, count = members_of(newest); m < count; ++m) {
      trouble.heard[newest.first + m] = part(slot, m).answered ? 1 : 0;
    }
    std::vector<float> state(plan.combiner->state_floats());
    plan.combiner->begin(state.data(), 1);
    for (std::size_t at = 0; at < seen.size(); ++at) {
      const Stage& stage = plan.stages[seen[at]];
      if (skips) plan.combiner->begin(state.data(), 1);
      plan.combiner->open(state.data(), 1);
      std::uint8_t answered = 0;
      for (std::uint32_t m = stage.first; m < stage.first + stage.count; ++m) {
        if (trouble.heard[m] == 0) continue;
        const Member& member = plan.members[m];
        plan.combiner->add(state.data(), member, outputs_[member.model].slice(flight.sample, 1), &answered);
      }
      Label label = no_answer;
      float score = 0.0F;
      plan.combiner->answer(state.data(), 1, seen[at], &label, &score);
      if (answered > 0 || at == 0) {
        trouble.label = label;
        trouble.score = answered > 0 ? score : std::numeric_limits<float>::quiet_NaN();
        trouble.by = seen[at];
      }
      trouble.missing = answered < stage.count;
      trouble.silent = answered == 0;
    }
  }

  /// A request whose end was decided ahead, but for its times.
  void count(std::uint32_t slot, std::int64_t at) {
    const Flight& flight = flights_[slot];
    if (flight.counted) {
      Door& door = doors_[flight.lane];
      ++door.by_code[door.code[flight.sample]];
      ++by_sample_[door.group][flight.sample];
      last_end_ = std::max(last_end_, at);
      queue_ += flight.queue;
      service_ += flight.service;
      latency_ += at - flight.arrival;
      measure(at - flight.arrival);
    }
    ++ended_;
    idle_.push_back(slot);
  }

  void end(std::uint32_t slot, std::int64_t at, bool late) {
    Flight& flight = flights_[slot];
    late = late || at > flight.deadline;
    if constexpr (!Faulty) {
      const bool foreseen = !late && !flight.troubled && !flight.stopped && !doors_.empty();
      if (foreseen && !kept(flight.request)) return count(slot, at);
    }
    const Lane& lane = lane_of(flight);
    const Evidence& evidence = *lane.evidence;
    Outcome out;
    out.consulted = flight.consulted;
    out.settled = flight.consulted == 0 ? 0 : visited(slot)[flight.consulted - 1];
    out.pico_usd = flight.pico;
    if constexpr (Faulty) {
      out.pico_usd += back_of(flight).pico_usd;
    } else if (flight.consulted > 0) {
      out.pico_usd += lane.back[out.settled].pico_usd;
    }
    std::int64_t ended = at;
    std::size_t counts = flight.consulted;
    if (late) {
      // The ingress waits until the deadline, then gives the best answer that has reached it.
      ended = flight.deadline;
      const std::int64_t took = flight.deadline - flight.arrival;
      out.service_ns = std::min(flight.service, took);
      out.queue_ns = std::min(flight.queue, took - out.service_ns);
      out.network_ns = took - out.service_ns - out.queue_ns;
      counts = flight.in_time;
    } else {
      out.service_ns = flight.service;
      out.queue_ns = flight.queue;
      out.network_ns = at - flight.arrival - flight.service - flight.queue;
    }
    out.confidence = std::numeric_limits<float>::quiet_NaN();
    bool missing = evidence.miss(out.settled, flight.sample) != 0;
    if (flight.troubled) {
      const Trouble& trouble = troubles_[slot];
      missing = trouble.missing;
      if (counts > 0) {
        out.answer = late ? trouble.timely_label : trouble.label;
        out.answered_by = late ? trouble.timely_by : trouble.by;
        if (out.answer != no_answer) out.confidence = late ? trouble.timely_score : trouble.score;
      }
    } else if (counts > 0) {
      out.answered_by = standing(evidence, {visited(slot), counts}, flight.sample);
      out.answer = evidence.labels(out.answered_by)[flight.sample];
      if (out.answer != no_answer) out.confidence = evidence.scores(out.answered_by)[flight.sample];
    }
    if constexpr (Faulty) give_up(slot);
    const bool rejected = flight.troubled && (!Faulty || !trips_[slot].failed);
    out.status = conclude(out.answer, missing, late || flight.stopped, rejected);
    if constexpr (Faulty) {
      const bool failed = flight.troubled || trips_[slot].failed;
      rescue_.fell_back += flight.counted && failed && out.status == Status::degraded ? 1 : 0;
    }
    const Label truth = ledger_.truth(flight.sample);
    const bool ended_well = out.status == Status::answered || out.status == Status::degraded;
    if (truth >= 0 && ended_well) out.correct = out.answer == truth ? 1 : 0;
    if (flight.counted) {
      last_end_ = std::max(last_end_, ended);
      ledger_.add(tally_, out, flight.lane, ended <= flight.deadline, 1);
      ledger_.add(tally_, flight.sample, out.correct >= 0, out.correct == 1, 1);
      measure(out.latency_ns());
    }
    if (kept(flight.request)) rows_[flight.request - row_base_].outcome = out;
    if (flight.troubled) troubles_.erase(slot);
    ++ended_;
    idle_.push_back(slot);
  }

  // Outages. A request in trouble is somewhere between `tell` (news of a failure is on its way) and `hear`.

  Attempt& attempt(std::uint32_t slot, std::uint16_t member) noexcept { return attempts_[slot * width_ + member]; }
  std::uint32_t place_at(const Flight& flight, std::uint16_t member) const noexcept {
    const Plan& plan = *lane_of(flight).plan;
    return plan.members[plan.stages[flight.stage].first + member].deployment;
  }
  Breaker& breaker(const Flight& flight, std::uint16_t member) noexcept {
    return wards_[place_at(flight, member)].breaker;
  }
  std::int64_t median_of(const Flight& flight, std::uint16_t member) const noexcept {
    const Lane& lane = lane_of(flight);
    return lane.members[lane.plan->stages[flight.stage].first + member].median_ns;
  }
  const Windows& outages_of(const Hop& hop) const noexcept { return options_.outages[config_.size() + hop.link]; }
  static bool going(const Token& token) noexcept { return token.phase == entering || token.phase == going_up; }

  /// Send a request to the host of its stage, if some member of it may be asked.
  void set_out(std::uint32_t slot, std::int64_t at) {
    Flight& flight = flights_[slot];
    Trip& trip = trips_[slot];
    const Stage& stage = lane_of(flight).plan->stages[flight.stage];
    trip.lost = false;
    ++trip.attempt.count;
    trip.attempt.sent = at;
    bool any = false;
    for (std::uint16_t m = 0, count = members_of(stage); m < count; ++m) {
      Attempt& one = attempt(slot, m);
      one = {at, trip.attempt.count, breaker(flight, m).allows(at), false};
      if (one.open) {
        breaker(flight, m).sent();
        any = true;
      } else {
        rescue_.broken += flight.counted ? 1 : 0;
      }
    }
    if (!any) return stay(slot, at);
    follow(at, {slot, 0, entering, 0}, true);
  }

  /// A request that cannot go to a stage: it is where it was, and the stage has said nothing.
  void stay(std::uint32_t slot, std::int64_t at) {
    Flight& flight = flights_[slot];
    const Stage& stage = lane_of(flight).plan->stages[flight.stage];
    visited(slot)[flight.consulted++] = flight.stage;
    flight.travelled += 1 + 2U * stage.count;
    for (std::uint16_t m = 0, count = members_of(stage); m < count; ++m) part(slot, m) = {at, 0, 0, false};
    flight.troubled = trips_[slot].failed = true;
    return_loan(trips_[slot].attempt);
    settle_down(slot, at, true);
  }

  /// A link that is down: the news comes back as fast as the request went.
  void turn_back(const Token& token, std::int64_t at) {
    const Flight& flight = flights_[token.slot];
    const Hop& hop = leg_of(flight, token).hops[token.hop];
    const bool silent = window_at(outages_of(hop), at)->silent;
    if (token.phase == going_up)
      return tell(token.slot, token.member, 2 * at - attempt(token.slot, token.member).sent,
                  silent ? unheard : refused);
    const std::int64_t known = silent ? trips_[token.slot].until : 2 * at - trips_[token.slot].attempt.sent;
    agenda_.push({std::max(at, known),
                  order_of(Happening::decision, flight.request, 0),
                  {token.slot, whole_batch, failing, silent ? unheard : refused}});
  }

  /// A station that is down.
  void turn_away(const Token& token, std::uint32_t place, const Window& window, std::int64_t at) {
    const Flight& flight = flights_[token.slot];
    if (flight.counted) ++station_loads_[place].refused;
    const Lane& lane = lane_of(flight);
    const std::size_t stages = lane.plan->stages.size();
    const bool moved = !lane.enter[trips_[token.slot].before * stages + flight.stage].hops.empty();
    if (window.whole && moved && leg_of(flight, {token.slot, token.member, going_up, 0}).hops.empty())
      trips_[token.slot].lost = true;  // its host is the node that is down
    const Leg& down = leg_of(flight, {token.slot, token.member, coming_down, 0});
    tell(token.slot, token.member, at + down.ns, window.silent ? unheard : refused);
  }

  /// Let the host know, at some time, that a member will not answer; if nobody says so, it waits as long as it can.
  void tell(std::uint32_t slot, std::uint16_t member, std::int64_t at, Reason why) {
    if (why == unheard) at = std::max(at, trips_[slot].until);
    agenda_.push({at, order_of(Happening::decision, flights_[slot].request, 0, member), {slot, member, failing, why}});
  }

  /// News of a failure: try again, or do without.
  void hear(const Token& token, std::int64_t at) {
    const std::uint32_t slot = token.slot;
    Flight& flight = flights_[slot];
    const auto why = static_cast<Reason>(token.hop);
    if (token.member == whole_batch) {  // nobody of the stage was reached
      const Stage& stage = lane_of(flight).plan->stages[flight.stage];
      std::int64_t median = 0;
      for (std::uint16_t m = 0, count = members_of(stage); m < count; ++m) {
        note(slot, m, at, why);
        median = std::max(median, median_of(flight, m));
      }
      if (at >= flight.deadline) {
        trips_[slot].failed = true;
        return end(slot, at, true);
      }
      if (!again(slot, 0, trips_[slot].attempt, median, at, why, setting_out)) stay(slot, at);
      return;
    }
    const bool asked = attempt(slot, token.member).open;
    note(slot, token.member, at, why);
    if (at >= flight.deadline) {
      flight.dropped = true;
    } else if (asked && !trips_[slot].lost &&
               again(slot, token.member, attempt(slot, token.member), median_of(flight, token.member), at, why,
                     asking)) {
      return;
    }
    part(slot, token.member) = {at, 0, 0, false};
    flight.troubled = flight.troubled || !flight.dropped;
    trips_[slot].failed = trips_[slot].failed || why != full;
    close({slot, token.member, coming_down, 0}, at, true);
  }

  /// Tell the breaker what became of an attempt.
  void note(std::uint32_t slot, std::uint16_t member, std::int64_t at, Reason why) {
    Attempt& one = attempt(slot, member);
    if (!one.open) return;
    one.open = false;
    Breaker& guard = breaker(flights_[slot], member);
    if (why == full) {
      guard.succeeded();  // it is there, and answers
    } else if (why == refused || at - one.sent >= 2 * median_of(flights_[slot], member)) {
      guard.failed(at);
    } else {
      guard.abandoned();
    }
  }

  /// Plan another attempt, if that can help, the budget allows it, and time is left.
  bool again(std::uint32_t slot, std::uint16_t member, Attempt& one, std::int64_t median, std::int64_t at, Reason why,
             Phase phase) {
    if (why == unheard || one.count >= attempts_max) return false;
    if (!one.borrowed && !budget_.take(in_flight())) return false;
    one.borrowed = true;
    const Flight& flight = flights_[slot];
    const double u = uniforms(seed_, Stream::retry, flight.request, place_at(flight, member), one.count)[0];
    const std::int64_t pause =
        to_ns(static_cast<double>(backoff_ns << (std::max<int>(one.count, 1) - 1)) * (0.8 + 0.4 * u));
    if (at + pause + median >= trips_[slot].until) return false;
    rescue_.retried += flight.counted ? 1 : 0;
    agenda_.push({at + pause, order_of(Happening::decision, flight.request, 0, member), {slot, member, phase, 0}});
    return true;
  }

  /// Another attempt at one member.
  void ask(Token token, std::int64_t at) {
    Flight& flight = flights_[token.slot];
    Attempt& one = attempt(token.slot, token.member);
    if (!breaker(flight, token.member).allows(at)) {
      rescue_.broken += flight.counted ? 1 : 0;
      return tell(token.slot, token.member, at, refused);
    }
    breaker(flight, token.member).sent();
    ++one.count;
    one.sent = at;
    one.open = true;
    part(token.slot, token.member) = Part{};
    follow(at, {token.slot, token.member, going_up, 0}, true);
  }

  /// An answer is there.
  void heard(const Token& token, std::int64_t at) {
    Attempt& one = attempt(token.slot, token.member);
    if (at > flights_[token.slot].deadline) {
      late(token, at);
    } else if (one.open) {
      one.open = false;
      breaker(flights_[token.slot], token.member).succeeded();
    }
    return_loan(one);
  }

  void late(const Token& token, std::int64_t at) { note(token.slot, token.member, at, unheard); }

  void return_loan(Attempt& one) {
    if (one.borrowed) budget_.give();
    one.borrowed = false;
  }

  /// A request whose host went down under it is where it came from: it sets out again, or does without the stage.
  bool step_back(std::uint32_t slot, std::int64_t closed) {
    Flight& flight = flights_[slot];
    Trip& trip = trips_[slot];
    const Stage& stage = lane_of(flight).plan->stages[flight.stage];
    std::int64_t median = 0;
    for (std::uint16_t m = 0, count = members_of(stage); m < count; ++m) {
      if (part(slot, m).answered) return false;
      median = std::max(median, median_of(flight, m));
    }
    flight.from = trip.before;
    if (closed < trip.until) closed += leg_of(flight, {slot, 0, entering, 0}).ns;  // else nobody said so
    if (again(slot, 0, trip.attempt, median, closed, refused, setting_out)) {
      --flight.consulted;
      return true;
    }
    settle_down(slot, closed, false);
    return true;
  }

  /// Nothing of a request is left behind.
  void give_up(std::uint32_t slot) {
    const Flight& flight = flights_[slot];
    const Stage& stage = lane_of(flight).plan->stages[flight.stage];
    for (std::uint16_t m = 0, count = members_of(stage); m < count; ++m) {
      Attempt& one = attempt(slot, m);
      if (one.open) breaker(flight, m).abandoned();
      return_loan(one);
      one = Attempt{};
    }
    return_loan(trips_[slot].attempt);
  }

  /// Note what a station works on; the token says in which of its lives.
  void mark(Token& token, std::uint32_t place, const Job& job) {
    Ward& ward = wards_[place];
    token.phase = static_cast<std::uint8_t>(ward.strikes >> 8);
    token.hop = static_cast<std::uint8_t>(ward.strikes);
    ward.jobs.push_back(job);
  }

  /// Whether work is done, or was lost with an earlier life of its station.
  bool unmark(Token& token, std::uint32_t place) {
    Ward& ward = wards_[place];
    if (ward.strikes != ((static_cast<std::uint32_t>(token.phase) << 8) | token.hop)) return false;
    const auto found = std::find_if(ward.jobs.begin(), ward.jobs.end(), [&](const Job& job) {
      return token.member == whole_batch ? job.batch == token.slot
                                         : job.who.slot == token.slot && job.who.member == token.member;
    });
    *found = ward.jobs.back();
    ward.jobs.pop_back();
    token.phase = coming_down;
    token.hop = 0;
    return true;
  }

  /// A station goes down, with all whom it holds.
  void strike(std::uint32_t place, std::int64_t at) {
    if (watched_) touch(place, at);
    Place& p = places_[place];
    Ward& ward = wards_[place];
    ++ward.strikes;
    const Window& window = *window_at(options_.outages[place], at);
    std::vector<Waiting> lost;
    for (const Job& job : ward.jobs) {
      const bool whole = job.batch != UINT32_MAX;
      if (flights_[whole ? batches_[job.batch].front().slot : job.who.slot].counted)
        station_loads_[place].busy_ns -= job.began + job.service - at;
      if (!whole) {
        lost.push_back(job.who);
        continue;
      }
      lost.insert(lost.end(), batches_[job.batch].begin(), batches_[job.batch].end());
      batches_.close(job.batch);
    }
    for (const Waiting& who : lost) {
      if (flights_[who.slot].counted) --station_loads_[place].served;
    }
    ward.jobs.clear();
    for (; !p.formed.empty(); p.formed.pop()) {
      const std::vector<Waiting>& batch = batches_[p.formed.front()];
      lost.insert(lost.end(), batch.begin(), batch.end());
      batches_.close(p.formed.front());
    }
    p.formed_requests = 0;
    p.growing = false;
    for (auto& [level, line] : p.lines) {
      for (; !line.empty(); line.pop()) lost.push_back(line.front());
    }
    p.busy = 0;
    p.waiting = 0;
    p.timer = -1;
    for (const Waiting& who : lost) turn_away({who.slot, who.member, going_up, 0}, place, window, at);
  }

  /// What a node can know of the wait at a stage: the longest of its members.
  float wait_us(const Plan& plan, std::size_t stage, std::int64_t at) {
    float longest = 0.0F;
    for (std::uint32_t m = plan.stages[stage].first; m < plan.stages[stage].first + plan.stages[stage].count; ++m) {
      const std::uint32_t place = plan.members[m].deployment;
      touch(place, at);
      longest = std::max(longest, options_.gossip_ns > 0 ? places_[place].gossip_us : estimate_us(place, at));
    }
    return longest;
  }

  /// Keep what was to be known at the last multiple of the gossip period, before anything changes after it.
  void touch(std::uint32_t place, std::int64_t at) {
    if (options_.gossip_ns <= 0) return;
    Place& p = places_[place];
    const std::int64_t epoch = at / options_.gossip_ns;
    if (epoch == p.epoch) return;
    p.epoch = epoch;
    p.gossip_us = estimate_us(place, epoch * options_.gossip_ns - 1);
  }

  float estimate_us(std::uint32_t place, std::int64_t at) {
    const Station& station = config_[place];
    Place& p = places_[place];
    if (station.instances == 0) return 0.0F;
    std::size_t ahead = 0;
    if constexpr (Listed) {
      if (p.busy < station.instances) return 0.0F;
      ahead = p.waiting + p.formed_requests;
    } else {
      while (!p.starts.empty() && p.starts.front() <= at) p.starts.pop();
      if (p.free.first() <= at) return 0.0F;
      ahead = p.starts.size();
    }
    return wait_ahead_us(station, ahead);
  }
};

template <bool Listed, bool Faulty>
std::unique_ptr<Queues::Core> make_loop(std::vector<Lane> lanes, std::span<const Label> truth, std::size_t classes,
                                        std::uint64_t seed, std::vector<Station> stations, std::size_t links,
                                        std::vector<Outputs> outputs, const QueueOptions& options) {
  return std::make_unique<Loop<Listed, Faulty>>(std::move(lanes), truth, classes, seed, std::move(stations), links,
                                                std::move(outputs), options);
}

}  // namespace

Queues::Queues(std::vector<Lane> lanes, std::span<const Label> truth, std::size_t classes, std::uint64_t seed,
               std::vector<Station> stations, std::size_t links, std::vector<Outputs> outputs,
               const QueueOptions& options) {
  if (options.engine == QueueEngine::feed_forward) {
    core_ = make_feed_forward(std::move(lanes), truth, classes, seed, std::move(stations), links, std::move(outputs),
                              options);
    return;
  }
  const bool events = options.engine == QueueEngine::events;
  const bool faulty = std::any_of(options.outages.begin(), options.outages.end(),
                                  [](const Windows& windows) { return !windows.empty(); });
  if (!events && !options.outages.empty()) throw std::invalid_argument("hops know no outages");
  if (!events && !plain(stations)) throw std::invalid_argument("hops cannot batch, nor bound a queue");
  const auto make = [&](auto maker) {
    core_ = maker(std::move(lanes), truth, classes, seed, std::move(stations), links, std::move(outputs), options);
  };
  if (options.rounds && !faulty && in_rounds(lanes, stations)) {
    make(make_rounds);
  } else if (!events) {
    make(make_loop<false, false>);
  } else if (faulty) {
    make(make_loop<true, true>);
  } else {
    make(make_loop<true, false>);
  }
}

Queues::~Queues() = default;

bool Queues::plain(std::span<const Station> stations) {
  return std::all_of(stations.begin(), stations.end(), [](const Station& station) { return station.plain(); });
}

void Queues::push(const Requests& batch) { core_->push(batch); }
void Queues::finish() { core_->finish(); }
Tally Queues::tally() const { return core_->tally(); }
const Times& Queues::latencies() const { return core_->latencies_; }
std::span<const Load> Queues::stations() const { return core_->station_loads_; }
std::span<const Load> Queues::links() const { return core_->link_loads_; }
std::uint64_t Queues::in_flight() const { return core_->in_flight(); }
Rescue Queues::rescue() const { return core_->rescue_; }
std::vector<Ended> Queues::take() { return core_->take(); }
std::int64_t Queues::span_ns() const { return core_->last_end_ > core_->first_ ? core_->last_end_ - core_->first_ : 0; }
std::int64_t Queues::arrivals_ns() const {
  return core_->last_arrival_ > core_->first_ ? core_->last_arrival_ - core_->first_ : 0;
}

}  // namespace coinfer
