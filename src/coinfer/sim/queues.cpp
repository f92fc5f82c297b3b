#include "coinfer/sim/queues.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <unordered_map>

#include "coinfer/sim/agenda.hpp"
#include "coinfer/sim/queues_core.hpp"

namespace coinfer {
namespace {

/// A stage holds at most 255 members: see validate().
std::uint16_t members_of(const Stage& stage) { return static_cast<std::uint16_t>(stage.count); }

constexpr std::uint16_t whole_batch = UINT16_MAX;

enum Phase : std::uint8_t { entering, going_up, coming_down, going_back };

/// One request under way.
struct Flight {
  std::uint64_t request = 0;
  std::int64_t arrival = 0;
  std::int64_t deadline = forever;  // absolute
  std::int64_t queue = 0;           // waits so far, of closed stages and of ways
  std::int64_t service = 0;
  std::int64_t pico = 0;
  const Itinerary* itinerary = nullptr;  // none: decided on the way
  std::uint32_t lane = 0;
  std::uint32_t sample = 0;
  std::int32_t level = 0;
  std::uint32_t travelled = 0;
  std::uint16_t pending = 0;
  std::uint8_t stage = 0;
  std::uint8_t from = 0;
  std::uint8_t consulted = 0;
  std::uint8_t in_time = 0;  // stages whose answer the ingress would hold at the deadline
  bool counted = true;
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

struct Waiting {
  std::uint64_t request = 0;
  std::int64_t since = 0;
  std::uint32_t slot = 0;
  std::uint16_t member = 0;
};

/// A station at work. Hops use `free` and `starts`; events use the rest.
struct Place {
  std::vector<std::int64_t> free;  // when each instance is free, ascending
  Ring<std::int64_t> starts;       // of those who may still wait
  std::uint32_t busy = 0;
  std::size_t waiting = 0;
  std::vector<std::pair<std::int32_t, Ring<Waiting>>> lines;  // by priority level, ascending
  Ring<std::uint32_t> formed;                                 // batches that wait for an instance
  std::size_t formed_requests = 0;
  std::int64_t timer = -1;
  std::int64_t epoch = -1;  // of the gossip
  float gossip_us = 0.0F;
};

struct Wire {
  std::int64_t free = 0;
};

}  // namespace

namespace {

template <bool Listed>
class Loop final : public Queues::Core {
 public:
  Loop(std::vector<Lane> lanes, std::span<const Label> truth, std::size_t classes, std::uint64_t seed,
       std::vector<Station> stations, std::size_t links, std::vector<Outputs> outputs, const QueueOptions& options)
      : Core(std::move(lanes), truth, classes, seed, std::move(stations), links, std::move(outputs), options),
        places_(config_.size()),
        wires_(links) {
    for (std::size_t d = 0; d < config_.size(); ++d) places_[d].free.assign(config_[d].instances, INT64_MIN);
  }

  std::uint64_t in_flight() const noexcept override { return flights_.size() - idle_.size(); }

  void push(const Requests& batch) override {
    const std::size_t rows = batch.sample.size();
    if (batch.arrival_ns.size() != rows) throw std::invalid_argument("queues need arrival times");
    for (std::size_t i = 0; i < rows; ++i) {
      const std::int64_t at = batch.arrival_ns[i];
      if (at < now_arrival_) throw std::invalid_argument("arrivals must not go back in time");
      now_arrival_ = at;
      const std::uint64_t request = batch.first + i;
      const Event bound{at, order_of(Happening::decision, request, 0), {}};
      while (!agenda_.empty() && before(agenda_.top(), bound)) step();
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
  std::vector<Wire> wires_;
  std::vector<Flight> flights_;
  std::vector<Part> parts_;            // [slot][member of the group]
  std::vector<std::uint8_t> visited_;  // [slot][stage]
  std::vector<std::uint32_t> idle_;    // slots
  std::unordered_map<std::uint32_t, Trouble> troubles_;
  Agenda agenda_;
  std::int64_t horizon_ = 0;  // no request arrives before
  std::int64_t now_arrival_ = 0;
  std::vector<std::vector<Waiting>> batches_;
  std::vector<std::uint32_t> idle_batches_;

  const Lane& lane_of(const Flight& flight) const noexcept { return lanes_[flight.lane]; }
  Part& part(std::uint32_t slot, std::uint16_t member) noexcept { return parts_[slot * width_ + member]; }
  std::uint8_t* visited(std::uint32_t slot) noexcept { return visited_.data() + slot * stages_; }

  /// Put an event on the agenda, or, at the end of what is being done and if nothing can come before it, do it now.
  void next(const Event& event, bool tail) {
    if (tail && event.time < horizon_ && (agenda_.empty() || before(event, agenda_.top()))) {
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
      case Happening::decision: return decide(event.token.slot, event.time, true);
      case Happening::arrival: {
        const std::uint32_t place = place_of(event.order);
        if (place >= config_.size()) return send(event.time, event.token);
        return arrive(event.time, place, event.token);
      }
      case Happening::timer:
        if (places_[place_of(event.order)].timer == event.time) {
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
    } else {
      slot = idle_.back();
      idle_.pop_back();
      flights_[slot] = Flight{};
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
    if (!batch.priority.empty()) flight.level = batch.priority[i] == 0 ? INT32_MAX : batch.priority[i];
    flight.counted = flight.arrival >= options_.warmup_ns;
    if (flight.counted) {
      first_ = std::min(first_, flight.arrival);
      last_arrival_ = flight.arrival;
    }
    reserve_row(request);
    const Lane& lane = lane_of(flight);
    std::size_t stage = 0;
    if (lane.decisions) {
      flight.itinerary = &lane.decisions->itineraries[lane.decisions->route[flight.sample]];
      stage = flight.itinerary->front();
    } else {
      View view = view_of(flight, flight.arrival);
      stage = first_stage(*lane.plan, view);
    }
    enter(slot, stage, flight.arrival, true);
  }

  /// Send a request to the host of a stage.
  void enter(std::uint32_t slot, std::size_t stage, std::int64_t at, bool tail) {
    Flight& flight = flights_[slot];
    flight.stage = static_cast<std::uint8_t>(stage);
    follow(at, {slot, 0, entering, 0}, tail);
  }

  const Leg& leg_of(const Flight& flight, const Token& token) const noexcept {
    const Lane& lane = lane_of(flight);
    const std::size_t stages = lane.plan->stages.size();
    switch (token.phase) {
      case entering: return lane.enter[flight.from * stages + flight.stage];
      case going_up: return lane.members[lane.plan->stages[flight.stage].first + token.member].up;
      case coming_down: return lane.members[lane.plan->stages[flight.stage].first + token.member].down;
      default: return lane.back[flight.stage];
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
      case coming_down: return close(token, at, tail);
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
    const std::int64_t start = std::max(at, wire.free);
    wire.free = start + hop.send_ns;
    if (token.phase == going_up || token.phase == coming_down) {
      part(token.slot, token.member).queue += start - at;
    } else {
      flight.queue += start - at;
    }
    if (flight.counted) {
      Load& load = link_loads_[hop.link];
      ++load.served;
      load.busy_ns += hop.send_ns;
      load.wait_ns += start - at;
      load.wait_ns_max = std::max(load.wait_ns_max, start - at);
    }
    const std::int64_t there = wire.free + pass(hop, flight.request, draw_of(flight, token));
    ++token.hop;
    follow(there, token, true);
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
    flight.from = static_cast<std::uint8_t>(flight.stage + 1);
    flight.pending = static_cast<std::uint16_t>(stage.count);
    for (std::uint16_t m = 0, count = members_of(stage); m < count; ++m) {
      const Consult& member = lane.members[stage.first + m];
      flight.pico += member.pico_usd + member.up.pico_usd + member.down.pico_usd;
      part(slot, m) = Part{};
    }
    const auto count = static_cast<std::uint16_t>(stage.count);
    for (std::uint16_t m = 0; m < count; ++m) follow(at, {slot, m, going_up, 0}, tail && count == 1);
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
    if (!station.batch_ns.empty()) return station.batch_ns[size - 1];
    const Lane& lane = lane_of(flight);
    return lane.members[lane.plan->stages[flight.stage].first + member].service.draw(seed_, flight.request, place,
                                                                                     flight.sample);
  }

  /// A member without an answer: turned away, or late in the queue.
  void fail(Token token, std::int64_t at, std::int64_t since, bool rejected, std::uint32_t place, bool tail) {
    Part& p = part(token.slot, token.member);
    p.queue += at - since;
    p.answered = false;
    if (flights_[token.slot].counted) ++(rejected ? station_loads_[place].rejected : station_loads_[place].dropped);
    (rejected ? flights_[token.slot].troubled : flights_[token.slot].dropped) = true;
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
    std::vector<std::int64_t>& free = places_[place].free;
    const std::int64_t start = free.empty() ? at : std::max(at, free.front());
    if (watched_) places_[place].starts.push(start);
    if (start > at && start >= flight.deadline) return fail(token, start, at, false, place, true);
    const std::int64_t service = draw_service(flight, token.member, place, 1);
    begin_service(place, token.slot, token.member, at, start, service);
    begin_batch(place, 1, service, flight.counted);
    const std::int64_t done = start + service;
    if (!free.empty()) {
      std::size_t i = 1;
      for (; i < free.size() && free[i] < done; ++i) free[i - 1] = free[i];
      free[i - 1] = done;
    }
    token.phase = coming_down;
    follow(done, token, true);
  }

  void arrive_listed(std::int64_t at, std::uint32_t place, Token token) {
    const Station& station = config_[place];
    Place& p = places_[place];
    const Flight& flight = flights_[token.slot];
    const bool instance = station.instances == 0 || p.busy < station.instances;
    if (station.max_batch == 1) {
      if (instance) return start_one(place, {flight.request, at, token.slot, token.member}, at);
      if (p.waiting >= station.queue_max) return fail(token, at, at, true, place, true);
      line(p, flight.level).push({flight.request, at, token.slot, token.member});
      waits(place);
      return;
    }
    if (p.waiting >= station.queue_max && (!instance || p.waiting != 0)) return fail(token, at, at, true, place, true);
    line(p, flight.level).push({flight.request, at, token.slot, token.member});
    waits(place);
    form(place, at);
  }

  void waits(std::uint32_t place) {
    Load& load = station_loads_[place];
    load.waiting_max = std::max<std::uint64_t>(load.waiting_max, ++places_[place].waiting);
  }

  static Ring<Waiting>& line(Place& p, std::int32_t level) {
    auto found = p.lines.begin();
    while (found != p.lines.end() && found->first < level) ++found;
    if (found == p.lines.end() || found->first != level) found = p.lines.insert(found, {level, {}});
    return found->second;
  }

  void start_one(std::uint32_t place, const Waiting& who, std::int64_t at) {
    const Flight& flight = flights_[who.slot];
    const std::int64_t service = draw_service(flight, who.member, place, 1);
    begin_service(place, who.slot, who.member, who.since, at, service);
    begin_batch(place, 1, service, flight.counted);
    ++places_[place].busy;
    agenda_.push({at + service,
                  order_of(Happening::completion, who.request, place, who.member),
                  {who.slot, who.member, coming_down, 0}});
  }

  void complete(std::int64_t at, std::uint32_t place, Token token) {
    if (watched_) touch(place, at);
    Place& p = places_[place];
    --p.busy;
    if (token.member == whole_batch) {
      dispatch(place, at);
      form(place, at);
      const std::vector<Waiting> batch = std::move(batches_[token.slot]);
      batches_[token.slot].clear();
      idle_batches_.push_back(token.slot);
      for (const Waiting& who : batch) follow(at, {who.slot, who.member, coming_down, 0}, batch.size() == 1);
      return;
    }
    while (p.waiting > 0 && p.busy < config_[place].instances) {
      auto first = p.lines.begin();
      while (first->second.empty()) ++first;
      const Waiting who = first->second.front();
      first->second.pop();
      --p.waiting;
      if (flights_[who.slot].deadline <= at) {
        fail({who.slot, who.member, coming_down, 0}, at, who.since, false, place, false);
      } else {
        start_one(place, who, at);
      }
    }
    follow(at, token, true);
  }

  /// Form batches as Triton's dynamic batcher does: when an instance is idle. Nothing is formed ahead: on a real server
  /// (2.51, Python backend, 52 ms, 15 to 80 requests per second) nobody waited longer than the batch that was running.
  void form(std::uint32_t place, std::int64_t at) {
    const Station& station = config_[place];
    Place& p = places_[place];
    const std::size_t limit = station.preferred.empty() ? station.max_batch : station.preferred.back();
    while (p.waiting > 0 && (station.instances == 0 || p.busy + p.formed.size() < station.instances)) {
      std::size_t pending = 0;
      std::int64_t oldest = forever;
      for (auto& [level, line] : p.lines) {
        for (std::size_t i = 0; i < line.size() && pending < limit;) {
          const Waiting who = line[i];
          if (flights_[who.slot].deadline <= at) {
            line.erase(i);
            --p.waiting;
            fail({who.slot, who.member, coming_down, 0}, at, who.since, false, place, false);
            continue;
          }
          oldest = std::min(oldest, who.since);
          ++pending;
          ++i;
        }
      }
      if (pending == 0) return;
      std::size_t best = station.preferred.empty() && pending >= limit ? limit : 0;
      for (const std::uint32_t size : station.preferred) best = size <= pending ? size : best;
      const bool exceeded = station.batch_delay_ns > 0 && at - oldest >= station.batch_delay_ns;
      std::size_t take = pending;
      if (best > 0 && !exceeded) {
        take = best;
      } else if (pending < limit && !exceeded && station.batch_delay_ns > 0) {
        const std::int64_t ring = oldest + station.batch_delay_ns;
        if (p.timer < 0 || p.timer > ring) {
          p.timer = ring;
          agenda_.push({ring, order_of(Happening::timer, 0, place), {}});
        }
        return;
      }
      std::uint32_t id = 0;
      if (idle_batches_.empty()) {
        id = static_cast<std::uint32_t>(batches_.size());
        batches_.emplace_back();
      } else {
        id = idle_batches_.back();
        idle_batches_.pop_back();
      }
      std::vector<Waiting>& batch = batches_[id];
      for (auto& [level, line] : p.lines) {
        for (; !line.empty() && batch.size() < take; line.pop()) batch.push_back(line.front());
      }
      p.waiting -= take;
      p.formed.push(id);
      p.formed_requests += take;
      dispatch(place, at);
    }
  }

  /// Hand formed batches to idle instances. Where batches may wait for company, those that fit go together.
  void dispatch(std::uint32_t place, std::int64_t at) {
    const Station& station = config_[place];
    Place& p = places_[place];
    while (!p.formed.empty() && (station.instances == 0 || p.busy < station.instances)) {
      const std::uint32_t id = p.formed.front();
      p.formed.pop();
      std::vector<Waiting>& batch = batches_[id];
      while (station.batch_delay_ns > 0 && !p.formed.empty() &&
             batch.size() + batches_[p.formed.front()].size() <= station.max_batch) {
        const std::uint32_t other = p.formed.front();
        p.formed.pop();
        batch.insert(batch.end(), batches_[other].begin(), batches_[other].end());
        batches_[other].clear();
        idle_batches_.push_back(other);
      }
      p.formed_requests -= batch.size();
      const Flight& first = flights_[batch.front().slot];
      const std::int64_t service = draw_service(first, batch.front().member, place, batch.size());
      for (const Waiting& who : batch) begin_service(place, who.slot, who.member, who.since, at, service);
      begin_batch(place, batch.size(), service, first.counted);
      ++p.busy;
      agenda_.push(
          {at + service, order_of(Happening::completion, batch.front().request, place), {id, whole_batch, 0, 0}});
    }
  }

  /// A member has answered, or will not. The last one closes the stage.
  void close(Token token, std::int64_t at, bool tail) {
    Flight& flight = flights_[token.slot];
    part(token.slot, token.member).back_at = at;
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
    if (flight.troubled) reconsider(token.slot);
    if (flight.deadline != forever) {
      const std::int64_t returns = travel(lane.back[flight.stage], seed_, flight.request, flight.travelled);
      if (closed + returns <= flight.deadline) {
        flight.in_time = flight.consulted;
        if (flight.troubled) {
          Trouble& trouble = troubles_[token.slot];
          trouble.timely_label = trouble.label;
          trouble.timely_score = trouble.score;
          trouble.timely_by = trouble.by;
        }
      }
    }
    if (flight.itinerary != nullptr && !flight.troubled) return decide(token.slot, closed, tail);
    next({closed, order_of(Happening::decision, flight.request, 0), {token.slot, 0, 0, 0}}, tail);
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
      return enter(slot, to, at, tail);
    }
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

  void end(std::uint32_t slot, std::int64_t at, bool late) {
    Flight& flight = flights_[slot];
    const Lane& lane = lane_of(flight);
    const Evidence& evidence = *lane.evidence;
    Outcome out;
    out.consulted = flight.consulted;
    out.settled = flight.consulted == 0 ? 0 : visited(slot)[flight.consulted - 1];
    out.pico_usd = flight.pico + (flight.consulted > 0 ? lane.back[out.settled].pico_usd : 0);
    late = late || at > flight.deadline;
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
    out.status = conclude(out.answer, missing, late, flight.troubled);
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
      if (p.free.front() <= at) return 0.0F;
      ahead = p.starts.size();
    }
    const std::size_t batches = (ahead + station.max_batch) / station.max_batch;  // whole ones
    return static_cast<float>(static_cast<double>(batches) * station.mean_ns / station.instances * 1e-3);
  }
};

}  // namespace

Queues::Queues(std::vector<Lane> lanes, std::span<const Label> truth, std::size_t classes, std::uint64_t seed,
               std::vector<Station> stations, std::size_t links, std::vector<Outputs> outputs,
               const QueueOptions& options) {
  if (options.engine == QueueEngine::feed_forward) {
    core_ = make_feed_forward(std::move(lanes), truth, classes, seed, std::move(stations), links, std::move(outputs),
                              options);
  } else if (options.engine == QueueEngine::events) {
    core_ = std::make_unique<Loop<true>>(std::move(lanes), truth, classes, seed, std::move(stations), links,
                                         std::move(outputs), options);
  } else {
    if (!plain(stations)) throw std::invalid_argument("hops cannot batch, nor bound a queue");
    core_ = std::make_unique<Loop<false>>(std::move(lanes), truth, classes, seed, std::move(stations), links,
                                          std::move(outputs), options);
  }
}

Queues::~Queues() = default;

bool Queues::plain(std::span<const Station> stations) {
  return std::all_of(stations.begin(), stations.end(), [](const Station& station) { return station.plain(); });
}

void Queues::push(const Requests& batch) { core_->push(batch); }
void Queues::finish() { core_->finish(); }
Tally Queues::tally() const { return core_->tally(); }
std::span<const Load> Queues::stations() const { return core_->station_loads_; }
std::span<const Load> Queues::links() const { return core_->link_loads_; }
std::uint64_t Queues::in_flight() const { return core_->in_flight(); }
std::vector<Ended> Queues::take() { return core_->take(); }
std::int64_t Queues::span_ns() const { return core_->last_end_ > core_->first_ ? core_->last_end_ - core_->first_ : 0; }
std::int64_t Queues::arrivals_ns() const {
  return core_->last_arrival_ > core_->first_ ? core_->last_arrival_ - core_->first_ : 0;
}

}  // namespace coinfer
