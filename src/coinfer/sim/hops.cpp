// The hop engine where every stage asks one member and no link makes anybody wait.
//
// One event per visit of a station, and one per decision that looks at queues. What decides the speed: all that is
// fixed about a step (from one host to the next station, and back) is added up beforehand; a request on its way is a
// cache line; its end, where it is in time, is counted by the stages it visited and its sample, of which a table knows
// what the answer is worth.
#include <array>
#include <limits>

#include "coinfer/sim/agenda.hpp"
#include "coinfer/sim/queues_core.hpp"

namespace coinfer {
namespace {

constexpr std::uint32_t nowhere = UINT32_MAX;
constexpr std::size_t block = 32;  // so many requests look up what they need together

/// From the host of one stage, or the ingress, to the member of another: what is fixed about it.
struct alignas(64) Step {
  std::int64_t there_ns = 0;  // to its host, and up
  std::int64_t down_ns = 0;
  std::int64_t back_ns = 0;           // from its host to the ingress
  std::int64_t service_ns = -1;       // -1: drawn
  std::int64_t least_ns = INT64_MIN;  // to have its answer at the ingress
  std::uint32_t station = 0;
  std::uint32_t lane = 0;
  std::uint16_t stage = 0;
  bool random = false;  // its ways
};

/// When something happens to a request, in the order of events.
struct Moment {
  std::int64_t time;
  std::uint64_t order;
};

/// One request under way.
struct alignas(64) Flight {
  std::int64_t arrival = 0;
  std::int64_t deadline = forever;  // absolute
  std::int64_t queue = 0;
  std::int64_t service = 0;
  std::uint64_t request = 0;
  std::uint64_t* seen = nullptr;  // of its course
  std::uint32_t step = 0;
  std::uint32_t next = nowhere;  // where its next step is, among those decided ahead; or it is decided on the way
  std::uint32_t sample = 0;
  std::uint16_t course = 0;
  std::uint8_t consulted = 0;
  std::uint8_t in_time = 0;  // stages whose answer the ingress would hold at the deadline
};

/// A station at work.
struct alignas(64) Desk {
  FreeTimes free;
  Ring<std::int64_t> starts;  // of those who may still wait, where somebody may want to know
  Wide wait_ns = 0;
  Wide busy_ns = 0;
  std::int64_t wait_ns_max = 0;
  std::uint64_t served = 0;
  std::uint64_t dropped = 0;
  std::int64_t epoch = -1;  // of the gossip
  float gossip_us = 0.0F;
  bool watched = false;
};

/// The stages that a request has visited, in order. Requests end alike, but for times, if lane, course and code are
/// equal; `seen` is the code of every sample and, above it, how many came.
struct Course {
  std::vector<std::uint8_t> path;
  std::vector<std::uint16_t> onward;   // [stage]: the course with one more; 0: not known yet
  std::vector<std::uint64_t> seen;     // [sample]; empty: too large
  std::vector<std::uint32_t> example;  // [code]
};

constexpr int code_bits = 6;
constexpr std::size_t codes = std::size_t{1} << code_bits;
constexpr std::size_t seen_bytes_max = std::size_t{1} << 29;  // of all courses

/// Lanes that share evidence and decisions share courses.
struct Crowd {
  std::vector<Course> courses;
  std::vector<std::uint32_t> lanes;
  std::vector<std::uint16_t> by_route;  // decided ahead: the course that a request will have taken
};

/// Somebody to be counted.
struct Ending {
  std::uint64_t* seen;
  std::uint32_t lane;
  std::uint32_t count;  // of its course; with its code, where it counts
};

/// What a request does that was decided ahead.
struct Way {
  std::uint32_t first = 0;        // where its steps begin
  std::uint64_t* seen = nullptr;  // of its course; so too:
  std::uint16_t course = 0;
};

/// A lane, as requests that enter it need it.
struct Door {
  std::uint32_t crowd = 0;
  std::uint32_t first = 0;  // step, of [from][stage]
  std::uint32_t stages = 0;
  const std::uint8_t* route = nullptr;  // [sample], where decided ahead; else of the first stage:
  const Label* labels = nullptr;
  const float* scores = nullptr;
  std::vector<Way> ways;             // [route]
  std::vector<std::uint64_t> count;  // [course x codes + code]
};

class Hops final : public Queues::Core {
 public:
  Hops(std::vector<Lane> lanes, std::span<const Label> truth, std::size_t classes, std::uint64_t seed,
       std::vector<Station> stations, std::size_t links, std::vector<Outputs> outputs, const QueueOptions& options)
      : Core(std::move(lanes), truth, classes, seed, std::move(stations), links, std::move(outputs), options),
        desks_(config_.size()) {
    endings_.reserve(256);
    for (std::size_t d = 0; d < config_.size(); ++d) desks_[d].free = FreeTimes(config_[d].instances);
    for (std::uint32_t lane = 0; lane < lanes_.size(); ++lane) lay_out(lane);
  }

  std::uint64_t in_flight() const noexcept override { return flights_.size() - idle_.size(); }

  void push(const Requests& batch) override {
    const std::size_t rows = batch.sample.size();
    if (batch.arrival_ns.size() != rows) throw std::invalid_argument("queues need arrival times");
    if ((batch.first + rows) >> request_bits != 0) throw std::invalid_argument("at most 2^37 requests");
    for (std::size_t i = 0; i < rows; ++i) {
      if (i % block == 0) look_up(batch, i, std::min(rows, i + block));
      const std::int64_t at = batch.arrival_ns[i];
      if (at < newest_) throw std::invalid_argument("arrivals must not go back in time");
      newest_ = at;
      const std::uint64_t request = batch.first + i;
      while (agenda_.precedes(at, order_of(Happening::decision, request, 0))) step();
      horizon_ = i + 1 < rows ? batch.arrival_ns[i + 1] : at;
      begin(batch, i, request, routes_[i % block]);
    }
    settle();
  }

  void finish() override {
    horizon_ = forever;
    while (!agenda_.empty()) step();
    if (in_flight() != 0) throw std::logic_error("requests were left under way");
    settle();
    for (std::size_t d = 0; d < desks_.size(); ++d) {
      const Desk& desk = desks_[d];
      Load& load = station_loads_[d];
      load.served = load.batches = load.batch_size[0] = desk.served;
      load.dropped = desk.dropped;
      load.busy_ns = desk.busy_ns;
      load.wait_ns = desk.wait_ns;
      load.wait_ns_max = desk.wait_ns_max;
    }
  }

  Tally tally() const override {
    Tally out = Core::tally();
    Tally alike = ledger_.empty();
    for (const Crowd& crowd : crowds_) {
      for (std::uint32_t at = 1; at < crowd.courses.size(); ++at) {
        const Course& course = crowd.courses[at];
        std::vector<Outcome> by_code;
        for (std::size_t code = 0; code < course.example.size(); ++code) {
          by_code.push_back(worth(crowd, course.path, course.example[code]));
          for (const std::uint32_t lane : crowd.lanes) {
            Outcome outcome = by_code.back();
            outcome.pico_usd = price(lane, course.path);
            ledger_.add(alike, outcome, lane, true, doors_[lane].count[at * codes + code]);
          }
        }
        for (std::uint32_t sample = 0; sample < course.seen.size(); ++sample) {
          const Outcome& outcome = by_code[course.seen[sample] % codes];
          ledger_.add(alike, sample, outcome.correct >= 0, outcome.correct == 1, course.seen[sample] >> code_bits);
        }
      }
    }
    alike.latency_ns = latency_;
    alike.queue_ns = queue_;
    alike.service_ns = service_;
    alike.network_ns = latency_ - queue_ - service_;
    accumulate(out, alike);
    return out;
  }

 private:
  std::vector<Desk> desks_;
  std::vector<Step> steps_;           // [lane][from][stage]
  std::vector<std::uint32_t> ahead_;  // steps of all ways decided ahead, each followed by `nowhere`
  std::vector<std::int64_t> price_;   // [step]: of the ways there, the member and its way down
  std::vector<Door> doors_;           // [lane]
  std::vector<Crowd> crowds_;
  std::size_t seen_bytes_ = 0;
  std::vector<Flight> flights_;
  std::vector<std::uint32_t> idle_;  // slots
  Agenda agenda_;
  std::int64_t horizon_ = 0;  // no request arrives before
  std::int64_t newest_ = 0;
  std::array<std::uint8_t, block> routes_{};    // of the requests that come next
  std::vector<Ending> endings_;                 // not counted yet
  Wide latency_ = 0, queue_ = 0, service_ = 0;  // of those counted by code

  void lay_out(std::uint32_t at) {
    const Lane& lane = lanes_[at];
    const Plan& plan = *lane.plan;
    const std::size_t stages = plan.stages.size();
    Door& door = doors_.emplace_back();
    door.first = static_cast<std::uint32_t>(steps_.size());
    door.stages = static_cast<std::uint32_t>(stages);
    for (std::size_t i = 0; i < lane.enter.size(); ++i) {
      const std::size_t stage = i % stages;
      const std::uint32_t member = plan.stages[stage].first;
      const Consult& consult = lane.members[member];
      Step step;
      step.there_ns = lane.enter[i].ns + consult.up.ns;
      step.down_ns = consult.down.ns;
      step.back_ns = lane.back[stage].ns;
      step.station = plan.members[member].deployment;
      if (consult.service.law == Law::constant && config_[step.station].batch_ns.empty())
        step.service_ns = to_ns(consult.service.a);
      if (!lane.least.empty()) step.least_ns = lane.least[i];
      step.lane = at;
      step.stage = static_cast<std::uint16_t>(stage);
      step.random = !lane.enter[i].jitters.empty() || !consult.up.jitters.empty() || !consult.down.jitters.empty() ||
                    !lane.back[stage].jitters.empty();
      steps_.push_back(step);
      price_.push_back(lane.enter[i].pico_usd + consult.pico_usd + consult.up.pico_usd + consult.down.pico_usd);
      if (!lane.decisions && stage > 0) desks_[step.station].watched = true;
    }
    const auto alike = [&](const Crowd& crowd) {
      const Lane& other = lanes_[crowd.lanes.front()];
      return other.evidence == lane.evidence && other.decisions == lane.decisions;
    };
    const auto found = std::find_if(crowds_.begin(), crowds_.end(), alike);
    door.crowd = static_cast<std::uint32_t>(found - crowds_.begin());
    if (found == crowds_.end()) {
      crowds_.emplace_back().lanes.push_back(at);
      crowds_.back().courses.emplace_back().onward.resize(stages);
      if (lane.decisions) {
        for (const Itinerary& itinerary : lane.decisions->itineraries) {
          std::uint16_t course = 0;
          for (const std::uint8_t stage : itinerary) course = onward(crowds_.back(), course, stage);
          crowds_.back().by_route.push_back(course);
        }
      }
    } else {
      found->lanes.push_back(at);
    }
    door.count.resize(crowds_[door.crowd].courses.size() * codes);
    door.labels = lane.evidence->labels(0);
    door.scores = lane.evidence->scores(0);
    if (!lane.decisions) return;
    door.route = lane.decisions->route.data();
    for (const Itinerary& itinerary : lane.decisions->itineraries) {
      Crowd& crowd = crowds_[door.crowd];
      Way& way = door.ways.emplace_back();
      way.first = static_cast<std::uint32_t>(ahead_.size());
      way.course = crowd.by_route[door.ways.size() - 1];
      Course& course = crowd.courses[way.course];
      way.seen = course.seen.empty() ? nullptr : course.seen.data();
      std::size_t from = 0;
      for (const std::uint8_t stage : itinerary) {
        ahead_.push_back(static_cast<std::uint32_t>(door.first + from * stages + stage));
        from = stage + std::size_t{1};
      }
      ahead_.push_back(nowhere);
    }
  }

  /// The course with one more stage.
  std::uint16_t onward(Crowd& crowd, std::uint16_t course, std::uint8_t stage) {
    const std::uint16_t known = crowd.courses[course].onward[stage];
    return known != 0 ? known : explore(crowd, course, stage);
  }

  std::uint16_t explore(Crowd& crowd, std::uint16_t from, std::uint8_t stage) {
    const auto at = static_cast<std::uint16_t>(crowd.courses.size());
    crowd.courses[from].onward[stage] = at;
    Course course;
    course.path = crowd.courses[from].path;
    course.path.push_back(stage);
    course.onward.resize(crowd.courses[from].onward.size());
    const Evidence& evidence = *lanes_[crowd.lanes.front()].evidence;
    if (seen_bytes_ + evidence.rows * sizeof(std::uint64_t) <= seen_bytes_max) {
      seen_bytes_ += evidence.rows * sizeof(std::uint64_t);
      appraise(crowd, course);
    }
    crowd.courses.push_back(std::move(course));
    for (const std::uint32_t lane : crowd.lanes) {
      if (lane < doors_.size()) doors_[lane].count.resize(crowd.courses.size() * codes);
    }
    return at;
  }

  /// Give samples their codes; none, if there would be too many.
  void appraise(const Crowd& crowd, Course& course) const {
    struct Kind {
      Status status;
      std::int8_t correct;
      std::uint8_t answered_by;
      bool answer;
      bool operator==(const Kind&) const = default;
    };
    const std::size_t samples = lanes_[crowd.lanes.front()].evidence->rows;
    std::vector<Kind> kinds;
    course.seen.resize(samples);
    for (std::uint32_t sample = 0; sample < samples; ++sample) {
      const Outcome outcome = worth(crowd, course.path, sample);
      const Kind kind{outcome.status, outcome.correct, outcome.answered_by, outcome.answer != no_answer};
      const auto code = static_cast<std::size_t>(std::find(kinds.begin(), kinds.end(), kind) - kinds.begin());
      if (code == codes) {
        course.seen.clear();
        course.example.clear();
        return;
      }
      if (code == kinds.size()) {
        kinds.push_back(kind);
        course.example.push_back(sample);
      }
      course.seen[sample] = code;
    }
  }

  /// What a request comes to that is in time, but for times and price.
  Outcome worth(const Crowd& crowd, std::span<const std::uint8_t> path, std::uint32_t sample) const {
    const Evidence& evidence = *lanes_[crowd.lanes.front()].evidence;
    Outcome out;
    answer(out, evidence, path, sample);
    finish(out, evidence, path, sample, false);
    return out;
  }

  static void answer(Outcome& out, const Evidence& evidence, std::span<const std::uint8_t> heard,
                     std::uint32_t sample) {
    out.answered_by = standing(evidence, heard, sample);
    out.answer = evidence.labels(out.answered_by)[sample];
    out.confidence =
        out.answer == no_answer ? std::numeric_limits<float>::quiet_NaN() : evidence.scores(out.answered_by)[sample];
  }

  /// Once the answer is known.
  void finish(Outcome& out, const Evidence& evidence, std::span<const std::uint8_t> path, std::uint32_t sample,
              bool late) const {
    out.consulted = static_cast<std::uint8_t>(path.size());
    out.settled = path.empty() ? 0 : path.back();
    out.status = conclude(out.answer, evidence.miss(out.settled, sample) != 0, late);
    const Label truth = ledger_.truth(sample);
    const bool ended_well = out.status == Status::answered || out.status == Status::degraded;
    if (truth >= 0 && ended_well) out.correct = out.answer == truth ? 1 : 0;
  }

  std::int64_t price(std::uint32_t lane, std::span<const std::uint8_t> path) const {
    if (path.empty()) return 0;
    const Door& door = doors_[lane];
    std::int64_t pico = lanes_[lane].back[path.back()].pico_usd;
    std::size_t from = 0;
    for (const std::uint8_t stage : path) {
      pico += price_[door.first + from * door.stages + stage];
      from = stage + std::size_t{1};
    }
    return pico;
  }

  /// Look up what requests need, many at a time, so that they need not wait for memory one after the other: samples
  /// come in random order.
  void look_up(const Requests& batch, std::size_t first, std::size_t last) noexcept {
    for (std::size_t i = first; i < last; ++i) {
      const Door& door = doors_[static_cast<std::size_t>(batch.lane[i])];
      const auto sample = static_cast<std::size_t>(batch.sample[i]);
      if (door.route != nullptr) {
        routes_[i - first] = door.route[sample];
      } else {
        __builtin_prefetch(&door.labels[sample]);
        __builtin_prefetch(&door.scores[sample]);
      }
    }
  }

  /// Count those who ended. In two passes: in one, the processor would not know where a count goes before memory has
  /// answered, and would not ask for the next one.
  void settle() noexcept {
    for (Ending& ending : endings_) {
      std::uint64_t& seen = *ending.seen;
      ending.count += static_cast<std::uint32_t>(seen % codes);
      seen += codes;
    }
    for (const Ending& ending : endings_) ++doors_[ending.lane].count[ending.count];
    endings_.clear();
  }

  std::uint32_t seat() {
    if (idle_.empty()) {
      flights_.emplace_back();
      return static_cast<std::uint32_t>(flights_.size() - 1);
    }
    const std::uint32_t slot = idle_.back();
    idle_.pop_back();
    return slot;
  }

  void step() {
    const Event& event = agenda_.top();
    const Moment moment{event.time, event.order};
    const std::uint32_t slot = event.token.slot;
    agenda_.pop();
    run(slot, moment);
  }

  /// Do what an event says, and what follows from it for as long as nothing else can come before.
  void run(std::uint32_t slot, Moment moment) {
    Flight& flight = flights_[slot];
    for (;;) {
      const bool more = kind_of(moment.order) == Happening::arrival ? visit(moment, flight) : decide(moment, flight);
      if (!more) {
        idle_.push_back(slot);
        return;
      }
      if (moment.time >= horizon_ || agenda_.precedes(moment.time, moment.order)) {
        return agenda_.push({moment.time, moment.order, {slot, 0, 0, 0}});
      }
    }
  }

  void begin(const Requests& batch, std::size_t i, std::uint64_t request, std::uint8_t route) {
    const std::uint32_t slot = seat();
    ++arrived_;
    Flight& flight = flights_[slot];
    const std::int64_t at = batch.arrival_ns[i];
    flight.arrival = at;
    flight.deadline = forever;
    flight.queue = flight.service = 0;
    flight.request = request;
    flight.sample = static_cast<std::uint32_t>(batch.sample[i]);
    flight.consulted = flight.in_time = 0;
    if (!batch.deadline_ns.empty() && batch.deadline_ns[i] <= forever - at) flight.deadline = at + batch.deadline_ns[i];
    if (at >= options_.warmup_ns) {
      first_ = std::min(first_, at);
      last_arrival_ = at;
    }
    reserve_row(request);
    const Door& door = doors_[static_cast<std::size_t>(batch.lane[i])];
    if (door.route != nullptr) {
      const Way& way = door.ways[route];
      flight.step = ahead_[way.first];
      flight.next = way.first + 1;
      flight.course = way.course;
      flight.seen = way.seen;
    } else {
      const Plan& plan = *lanes_[static_cast<std::size_t>(batch.lane[i])].plan;
      flight.step = door.first + static_cast<std::uint32_t>(first_stage(plan, view_of(flight, plan, at)));
      flight.next = nowhere;
      flight.course = 0;
      flight.seen = nullptr;
    }
    Moment moment{at, 0};
    const Step& first = steps_[flight.step];
    if (flight.deadline - at < first.least_ns) {
      end(at, flight, first, false, true);
    } else if (enter(moment, flight, first)) {
      if (moment.time < horizon_ && !agenda_.precedes(moment.time, moment.order)) return run(slot, moment);
      return agenda_.push({moment.time, moment.order, {slot, 0, 0, 0}});
    }
    idle_.push_back(slot);
  }

  /// Send a request to the station of its next step. Gives whether it is on its way there; else it has ended.
  [[gnu::always_inline]] bool enter(Moment& moment, Flight& flight, const Step& step) {
    std::int64_t there = moment.time + step.there_ns;
    if (step.random || flight.deadline != forever) {
      const Lane& lane = lanes_[step.lane];
      const std::uint32_t draw = 3U * flight.consulted;
      const std::size_t index = static_cast<std::size_t>(&step - steps_.data()) - doors_[step.lane].first;
      const std::int64_t host = moment.time + travel(lane.enter[index], seed_, flight.request, draw);
      if (host >= flight.deadline) {
        moment.time = host;
        end(moment.time, flight, step, true);
        return false;
      }
      there = host + travel(lane.members[lane.plan->stages[step.stage].first].up, seed_, flight.request, draw + 1);
    }
    ++flight.consulted;
    if (flight.next == nowhere) {
      Crowd& crowd = crowds_[doors_[step.lane].crowd];
      flight.course = onward(crowd, flight.course, static_cast<std::uint8_t>(step.stage));
      std::vector<std::uint64_t>& seen = crowd.courses[flight.course].seen;
      flight.seen = seen.empty() ? nullptr : seen.data();
    }
    moment.time = there;
    moment.order = order_of(Happening::arrival, flight.request, step.station);
    return true;
  }

  /// First come, first served: a request starts as soon as an instance is free, and no one who comes later matters.
  [[gnu::always_inline]] bool visit(Moment& moment, Flight& flight) {
    const Step& step = steps_[flight.step];
    Desk& desk = desks_[step.station];
    const std::int64_t at = moment.time;
    if (desk.watched) touch(step.station, at);
    const std::int64_t start = desk.free.none() ? at : std::max(at, desk.free.first());
    if (desk.watched) {
      while (!desk.starts.empty() && desk.starts.front() <= at) desk.starts.pop();
      desk.starts.push(start);
    }
    const bool counted = flight.arrival >= options_.warmup_ns;
    if (start > at && start >= flight.deadline) {
      flight.queue += start - at;
      desk.dropped += counted ? 1 : 0;
      moment.time = start;
      end(moment.time, flight, step, true);
      return false;
    }
    const std::int64_t service = step.service_ns >= 0 ? step.service_ns : draw(step, flight);
    const std::int64_t done = start + service;
    if (!desk.free.none()) desk.free.take(done);
    flight.queue += start - at;
    flight.service += service;
    if (counted) {
      ++desk.served;
      desk.busy_ns += service;
      desk.wait_ns += start - at;
      desk.wait_ns_max = std::max(desk.wait_ns_max, start - at);
    }
    const std::uint32_t drawn = 3U * flight.consulted;
    moment.time = done + step.down_ns;
    if (step.random) {
      const Lane& lane = lanes_[step.lane];
      moment.time =
          done + travel(lane.members[lane.plan->stages[step.stage].first].down, seed_, flight.request, drawn - 1);
    }
    if (flight.deadline != forever && moment.time + returning(step, flight) <= flight.deadline) {
      flight.in_time = flight.consulted;
    }
    if (flight.next != nowhere) return go_on(moment, flight, step, ahead_[flight.next++]);
    moment.order = order_of(Happening::decision, flight.request, 0);
    return true;
  }

  std::int64_t draw(const Step& step, const Flight& flight) const {
    const Station& station = config_[step.station];
    if (!station.batch_ns.empty()) {
      const std::size_t choices = station.choices();
      return station.batch_ns[choices == 1 ? 0 : Service::choose(seed_, flight.request, step.station, choices)];
    }
    const Lane& lane = lanes_[step.lane];
    return lane.members[lane.plan->stages[step.stage].first].service.draw(seed_, flight.request, step.station,
                                                                          flight.sample);
  }

  std::int64_t returning(const Step& step, const Flight& flight) const noexcept {
    return step.random ? travel(lanes_[step.lane].back[step.stage], seed_, flight.request, 3U * flight.consulted)
                       : step.back_ns;
  }

  /// The stage is closed: settle, or go on to a later one, as the state of queues has it.
  [[gnu::always_inline]] bool decide(Moment& moment, Flight& flight) {
    const Step& step = steps_[flight.step];
    if (moment.time > flight.deadline) {
      end(moment.time, flight, step, true);
      return false;
    }
    const Lane& lane = lanes_[step.lane];
    const Plan& plan = *lane.plan;
    const Evidence& evidence = *lane.evidence;
    const std::size_t stages = plan.stages.size();
    View view = view_of(flight, plan, moment.time);
    view.stage = step.stage;
    const std::uint8_t stands =
        evidence.missed.empty()
            ? static_cast<std::uint8_t>(step.stage)
            : standing(evidence, crowds_[doors_[step.lane].crowd].courses[flight.course].path, flight.sample);
    view.label = evidence.labels(stands)[flight.sample];
    view.score = evidence.scores(step.stage)[flight.sample];
    const bool more = step.stage + std::size_t{1} < stages;
    if (more)
      view.wait_us = wait_us(plan.members[plan.stages[step.stage + std::size_t{1}].first].deployment, moment.time);
    const auto by = static_cast<std::size_t>(judge(plan, view, more));
    const std::size_t to = step.stage + by;
    return go_on(
        moment, flight, step,
        by == 0 ? nowhere : static_cast<std::uint32_t>(doors_[step.lane].first + (step.stage + 1) * stages + to));
  }

  [[gnu::always_inline]] bool go_on(Moment& moment, Flight& flight, const Step& step, std::uint32_t next) {
    if (moment.time > flight.deadline) {
      end(moment.time, flight, step, true);
      return false;
    }
    if (next != nowhere) {
      if (moment.time >= flight.deadline) {
        end(moment.time, flight, step, true);
        return false;
      }
      const Step& following = steps_[next];
      if (flight.deadline - moment.time >= following.least_ns) {
        flight.step = next;
        return enter(moment, flight, following);
      }
    }
    end(moment.time + returning(step, flight), flight, step, false, next != nowhere);
    return false;
  }

  View view_of(const Flight& flight, const Plan& plan, std::int64_t at) const noexcept {
    View view;
    view.remaining_us = flight.deadline == forever ? std::numeric_limits<float>::infinity()
                                                   : static_cast<float>(flight.deadline - at) * 1e-3F;
    if (plan.rule.advance != nullptr) {
      view.uniform = uniforms(seed_, Stream::rule, flight.request, flight.consulted, 0)[0];
    }
    return view;
  }

  /// `stopped`: what it wanted to ask next could not finish in time.
  void end(std::int64_t at, const Flight& flight, const Step& step, bool late, bool stopped = false) {
    const bool counted = flight.arrival >= options_.warmup_ns;
    late = late || at > flight.deadline;
    if (late || stopped || flight.seen == nullptr || options_.rows) {
      end_alone(at, flight, step, late, stopped);
    } else if (counted) {
      std::uint64_t* const seen = flight.seen + flight.sample;
      __builtin_prefetch(seen, 1);
      endings_.push_back({seen, step.lane, static_cast<std::uint32_t>(flight.course * codes)});
      if (endings_.size() == endings_.capacity()) settle();
      last_end_ = std::max(last_end_, at);
      queue_ += flight.queue;
      service_ += flight.service;
      latency_ += at - flight.arrival;
      measure(at - flight.arrival);
    }
    ++ended_;
  }

  void end_alone(std::int64_t at, const Flight& flight, const Step& step, bool late, bool stopped) {
    const Evidence& evidence = *lanes_[step.lane].evidence;
    const std::span<const std::uint8_t> path =
        std::span(crowds_[doors_[step.lane].crowd].courses[flight.course].path).first(flight.consulted);
    Outcome out;
    out.pico_usd = price(step.lane, path);
    out.confidence = std::numeric_limits<float>::quiet_NaN();
    // The ingress waits until the deadline, then gives the best answer that has reached it.
    const std::int64_t ended = late ? flight.deadline : at;
    const std::int64_t took = ended - flight.arrival;
    out.service_ns = std::min(flight.service, took);
    out.queue_ns = std::min(flight.queue, took - out.service_ns);
    out.network_ns = took - out.service_ns - out.queue_ns;
    const std::size_t heard = late ? flight.in_time : flight.consulted;
    if (heard > 0) answer(out, evidence, path.first(heard), flight.sample);
    finish(out, evidence, path, flight.sample, late || stopped);
    if (flight.arrival >= options_.warmup_ns) {
      last_end_ = std::max(last_end_, ended);
      ledger_.add(tally_, out, step.lane, ended <= flight.deadline, 1);
      ledger_.add(tally_, flight.sample, out.correct >= 0, out.correct == 1, 1);
      measure(out.latency_ns());
    }
    if (kept(flight.request)) rows_[flight.request - row_base_].outcome = out;
  }

  /// What a node can know of the wait at a station.
  float wait_us(std::uint32_t station, std::int64_t at) {
    touch(station, at);
    return options_.gossip_ns > 0 ? desks_[station].gossip_us : estimate_us(station, at);
  }

  /// Keep what was to be known at the last multiple of the gossip period, before anything changes after it.
  void touch(std::uint32_t station, std::int64_t at) {
    if (options_.gossip_ns <= 0) return;
    Desk& desk = desks_[station];
    const std::int64_t epoch = at / options_.gossip_ns;
    if (epoch == desk.epoch) return;
    desk.epoch = epoch;
    desk.gossip_us = estimate_us(station, epoch * options_.gossip_ns - 1);
  }

  float estimate_us(std::uint32_t station, std::int64_t at) {
    Desk& desk = desks_[station];
    if (desk.free.none() || desk.free.first() <= at) return 0.0F;
    while (!desk.starts.empty() && desk.starts.front() <= at) desk.starts.pop();
    return wait_ahead_us(config_[station], desk.starts.size());
  }
};

}  // namespace

bool one_by_one(std::span<const Lane> lanes) {
  constexpr std::size_t stages_max = 8;  // of rules that jump: every subset may be a course
  const auto free = [](const Leg& leg) { return leg.hops.empty(); };
  return std::all_of(lanes.begin(), lanes.end(), [&](const Lane& lane) {
    const bool many = lane.plan->rule.jumps || lane.plan->rule.opens;
    return (lane.decisions || !many || lane.plan->stages.size() <= stages_max) &&
           std::all_of(lane.plan->stages.begin(), lane.plan->stages.end(),
                       [](const Stage& stage) { return stage.count == 1; }) &&
           std::all_of(lane.enter.begin(), lane.enter.end(), free) &&
           std::all_of(lane.back.begin(), lane.back.end(), free) &&
           std::all_of(lane.members.begin(), lane.members.end(),
                       [&](const Consult& member) { return free(member.up) && free(member.down); });
  });
}

std::unique_ptr<Queues::Core> make_hops(std::vector<Lane> lanes, std::span<const Label> truth, std::size_t classes,
                                        std::uint64_t seed, std::vector<Station> stations, std::size_t links,
                                        std::vector<Outputs> outputs, const QueueOptions& options) {
  return std::make_unique<Hops>(std::move(lanes), truth, classes, seed, std::move(stations), links, std::move(outputs),
                                options);
}

}  // namespace coinfer
