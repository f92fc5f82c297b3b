// Hops and events where every stage asks one member, no link makes anybody wait, no queue is bounded, and whatever a
// request does next takes time to reach another station.
//
// That time is what rounds are made of (conservative windows, as in Chandy and Misra 1979, or Nicol 1993): in a round
// no longer than it, nobody can arrive who is not known at its beginning. So a round needs no common list of events.
// Those who arrive are put in order and served: first come first served by free times alone (hops), or by counters
// (`Listed`: events) with lines, batches and a list of when their instances are done. Then decisions that look at
// queues are made, each with what was before it.
//
// What decides the speed, besides: all that is fixed about a step (from one host to the next station, and back) is
// added up beforehand; a request on its way is a cache line; its end, where it is in time, is counted by the stages it
// visited and its sample, of which a table knows what the answer is worth. `Plain`: where nobody is in a hurry and
// nothing is drawn, nothing of the kind is asked.
#include <array>
#include <limits>
#include <utility>

#include "coinfer/sim/agenda.hpp"
#include "coinfer/sim/counter.hpp"
#include "coinfer/sim/queues_core.hpp"
#include "coinfer/sim/timetable.hpp"

namespace coinfer {
namespace {

/// What a request does when a stage is closed.
enum Then : std::uint8_t { goes_home, is_decided, goes_on, thens };

constexpr std::int64_t round_max = std::int64_t{1} << 50;  // ns
constexpr std::size_t block = 64;                          // so many requests enter together
constexpr std::size_t endings_max = 256;

/// From the host of one stage, or the ingress, to the member of another: what is fixed about it.
struct alignas(64) Step {
  std::int64_t there_ns = 0;  // to its host, and up
  std::int64_t down_ns = 0;
  std::int64_t back_ns = 0;       // from its host to the ingress
  std::int64_t service_ns = -1;   // -1: drawn
  std::uint64_t* seen = nullptr;  // of the course that it makes of those before, where these are known; so too:
  std::uint16_t course = 0;       // 0: not known
  std::uint16_t stage = 0;
  std::uint32_t from = 0;  // the stage before, and one; 0: the ingress
  std::uint32_t next = 0;  // step, if it goes on
  std::uint32_t station = 0;
  std::uint32_t lane = 0;
  Then then = is_decided;
  std::uint8_t nth = 0;  // of the course
  bool random = false;   // its ways
  bool open = false;     // its station serves as requests enter
};

/// What is to be decided after a step.
struct Question {
  const Plan* plan = nullptr;
  const Label* labels = nullptr;  // where no member is ever missing
  const float* scores = nullptr;
  std::uint32_t station = 0;  // of the next stage
  std::uint32_t onward = 0;   // the step to the first stage after it, less one
  std::uint16_t stage = 0;
  bool looks = false;     // at the wait
  bool monotone = false;  // settles the sooner, the longer the wait
};

/// One request under way.
struct alignas(64) Flight {
  std::int64_t arrival = 0;
  std::int64_t queue = 0;
  std::int64_t deadline = forever;  // absolute
  std::int64_t service = 0;
  std::uint64_t request = 0;
  std::uint64_t* seen = nullptr;  // of its course
  std::uint32_t sample = 0;
  std::uint16_t course = 0;
  std::uint8_t consulted = 0;
  std::uint8_t in_time = 0;        // stages whose answer the ingress would hold at the deadline
  std::int32_t level = INT32_MAX;  // of its priority; nothing said: after all others
};

/// Somebody came to a station at `at` and started, or gave up, at `start`; from then on it was free at `free`.
struct Passage {
  std::int64_t at;
  std::int64_t start;
  std::int64_t free;
};

/// A sum that 64 bits may not hold.
struct Sum {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  void add(std::int64_t ns) noexcept { high += __builtin_add_overflow(low, static_cast<std::uint64_t>(ns), &low); }
  Wide total() const noexcept { return (static_cast<Wide>(high) << 64) | low; }
};

/// A station at work.
struct alignas(64) Desk {
  FreeTimes free;
  std::uint64_t served = 0;
  Sum wait_ns;
  Sum busy_ns;
  std::int64_t wait_ns_max = 0;
  std::uint64_t dropped = 0;
  // Somebody may want to know how long one would wait: what happened later than they have asked about, and before that
  // those who were waiting then.
  bool watched = false;
  Ring<Passage> passages;
  std::size_t passages_most = 64;
  std::size_t waiting = 0;  // of them; the others are later
  std::int64_t free_then = INT64_MIN;
  std::int64_t gossip_at = INT64_MIN;
  float gossip_us = 0.0F;

  void note(std::int64_t wait) noexcept {
    ++served;
    wait_ns.add(wait);
    wait_ns_max = wait > wait_ns_max ? wait : wait_ns_max;
  }
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
};

/// Somebody to be counted.
struct Ending {
  std::uint64_t* seen;
  std::uint32_t lane;
  std::uint32_t count;  // of its course; with its code, where it counts
};

/// Who goes on, and its next step.
struct Onward {
  std::uint32_t message;
  std::uint32_t next;
};

/// A lane, as requests that enter it need it.
struct Door {
  const std::uint8_t* route = nullptr;  // [sample], where decided ahead; else of the first stage:
  const Label* labels = nullptr;
  const float* scores = nullptr;
  std::vector<std::uint32_t> ways;  // [route]: first step
  std::uint32_t first = 0;          // step, of [from][stage]
  std::uint32_t prices = 0;         // where they begin, of [from][stage]
  std::uint32_t stages = 0;
  std::uint32_t crowd = 0;
  std::vector<std::uint64_t> count;  // [course x codes + code]
};

template <bool Listed>
class Rounds final : public Queues::Core {
 public:
  Rounds(std::vector<Lane> lanes, std::span<const Label> truth, std::size_t classes, std::uint64_t seed,
         std::vector<Station> stations, std::size_t links, std::vector<Outputs> outputs, const QueueOptions& options)
      : Core(std::move(lanes), truth, classes, seed, std::move(stations), links, std::move(outputs), options),
        desks_(config_.size()),
        counters_(Listed ? config_.size() : 0),
        inbox_(Listed ? config_.size() : 0) {
    for (std::size_t d = 0; d < config_.size(); ++d) desks_[d].free = FreeTimes(config_[d].instances);
    for (std::uint32_t lane = 0; lane < lanes_.size(); ++lane) lay_out(lane);
    open_desks();
    plain_ =
        !options.rows && options.warmup_ns <= 0 && std::all_of(steps_.begin(), steps_.end(), [&](const Step& step) {
          return !taken(step) || (step.service_ns >= 0 && !step.random && step.seen != nullptr);
        });
    const std::int64_t longest = std::min(lookahead(lanes_, config_), round_max);
    shift_max_ = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(longest))) - 1;
  }

  std::uint64_t in_flight() const noexcept override { return flights_.size() - idle_.size(); }

  void push(const Requests& batch) override {
    const std::size_t rows = batch.sample.size();
    if (batch.arrival_ns.size() != rows) throw std::invalid_argument("queues need arrival times");
    if ((batch.first + rows) >> request_bits != 0) throw std::invalid_argument("at most 2^37 requests");
    if (rows == 0) return;
    if (batch.arrival_ns[0] < newest_ || !std::is_sorted(batch.arrival_ns.begin(), batch.arrival_ns.end())) {
      throw std::invalid_argument("arrivals must not go back in time");
    }
    newest_ = batch.arrival_ns[rows - 1];
    size_rounds(batch.arrival_ns);
    if (plain_ && !(batch.deadline_ns.empty() && batch.priority.empty())) complicate();
    plain_ ? push<true>(batch) : push<false>(batch);
    settle();
  }

  void finish() override {
    while (!table_.empty()) plain_ ? work<true>(last_round()) : work<false>(last_round());
    if (in_flight() != 0) throw std::logic_error("requests were left under way");
    settle();
    for (std::size_t d = 0; d < desks_.size(); ++d) {
      const Desk& desk = desks_[d];
      Load& load = station_loads_[d];
      load.served = desk.served;
      if (config_[d].max_batch == 1) load.batches = load.batch_size[0] = desk.served;
      load.dropped = desk.dropped;
      load.busy_ns = desk.busy_ns.total();
      load.wait_ns = desk.wait_ns.total();
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
  std::vector<Counter> counters_;  // [station], where there are; so too:
  std::vector<Pile> inbox_;
  std::vector<std::uint32_t> touched_;  // stations with something to do in this round
  Batches<Waiter> batches_;
  Pile closed_;
  std::int32_t first_level_ = INT32_MAX;  // of priority
  std::uint64_t first_request_ = 0;
  std::int64_t levels_from_ = forever;  // then somebody had another
  std::vector<Step> steps_;  // of lanes whose requests are decided on the way: [lane][from][stage]; and of all ways
                             // decided ahead, one after the other
  std::vector<Question> questions_;  // [step]
  std::vector<std::int64_t> least_;  // [step]: to have its answer at the ingress
  std::vector<std::int64_t> price_;  // [lane][from][stage]: of the ways there, the member and its way down
  std::vector<Door> doors_;          // [lane]
  std::vector<Crowd> crowds_;
  std::size_t seen_bytes_ = 0;
  std::vector<Flight> flights_;
  std::vector<std::uint32_t> idle_;  // slots
  Timetable table_;
  int shift_max_ = 0;  // a round takes at most 2^shift_max_ ns
  std::int64_t newest_ = 0;
  std::size_t sized_ = 0;  // requests since it was last asked how long rounds should be, and when the first came
  std::int64_t sized_from_ = 0;
  Pile due_;  // of one kind, in this round
  Pile sorted_;
  std::vector<std::uint32_t> starts_;
  std::array<Message, block> fresh_{};  // requests at open stations
  std::size_t fresh_count_ = 0;
  // Of messages whose stages are closed, what requests do next: which, and so many.
  std::array<std::vector<std::uint32_t>, thens> then_;
  std::array<std::size_t, thens> then_count_{};
  std::vector<Onward> onward_;
  bool plain_ = false;  // so far no deadlines; and nothing drawn, no rows, no warm-up, all courses known
  std::vector<Ending> endings_ = std::vector<Ending>(endings_max);
  std::size_t ending_count_ = 0;                // of them not counted yet
  Wide latency_ = 0, queue_ = 0, service_ = 0;  // of those counted by code

  void lay_out(std::uint32_t at) {
    const Lane& lane = lanes_[at];
    const Plan& plan = *lane.plan;
    const std::size_t stages = plan.stages.size();
    Door& door = doors_.emplace_back();
    door.prices = static_cast<std::uint32_t>(price_.size());
    door.stages = static_cast<std::uint32_t>(stages);
    for (std::size_t i = 0; i < lane.enter.size(); ++i) {
      const Consult& consult = lane.members[plan.stages[i % stages].first];
      price_.push_back(lane.enter[i].pico_usd + consult.pico_usd + consult.up.pico_usd + consult.down.pico_usd);
    }
    const auto alike = [&](const Crowd& crowd) {
      const Lane& other = lanes_[crowd.lanes.front()];
      return other.evidence == lane.evidence && other.decisions == lane.decisions;
    };
    const auto found = std::find_if(crowds_.begin(), crowds_.end(), alike);
    door.crowd = static_cast<std::uint32_t>(found - crowds_.begin());
    if (found == crowds_.end()) crowds_.emplace_back().courses.emplace_back().onward.resize(stages);
    Crowd& crowd = crowds_[door.crowd];
    crowd.lanes.push_back(at);
    door.first = static_cast<std::uint32_t>(steps_.size());
    if (lane.decisions) {
      door.route = lane.decisions->route.data();
      for (const Itinerary& itinerary : lane.decisions->itineraries) lay_out(at, itinerary);
    } else {
      door.labels = lane.evidence->labels(0);
      door.scores = lane.evidence->scores(0);
      for (std::size_t i = 0; i < lane.enter.size(); ++i) {
        Step& step = add_step(at, i / stages, i % stages);
        if (step.stage + 1U == stages) step.then = goes_home;
        step.nth = static_cast<std::uint8_t>(step.stage + 1);
        if (step.stage > 0) desks_[step.station].watched = true;
      }
      std::uint16_t course = 0;
      for (std::uint8_t stage = 0; stage < stages && !plan.rule.jumps && !plan.rule.opens; ++stage) {
        course = onward(crowd, course, stage);
        take_course(steps_[door.first + stage * stages + stage], crowd, course);
      }
    }
    for (const std::uint32_t lane_of_crowd : crowd.lanes) {
      doors_[lane_of_crowd].count.resize(crowd.courses.size() * codes);
    }
  }

  /// A way decided ahead.
  void lay_out(std::uint32_t at, const Itinerary& itinerary) {
    Crowd& crowd = crowds_[doors_[at].crowd];
    doors_[at].ways.push_back(static_cast<std::uint32_t>(steps_.size()));
    std::uint16_t course = 0;
    for (const std::uint8_t stage : itinerary) course = onward(crowd, course, stage);
    std::size_t from = 0;
    std::uint8_t nth = 0;
    for (const std::uint8_t stage : itinerary) {
      Step& step = add_step(at, from, stage);
      step.nth = ++nth;
      take_course(step, crowd, course);
      step.then = goes_on;
      step.next = static_cast<std::uint32_t>(steps_.size());
      from = stage + std::size_t{1};
    }
    steps_.back().then = goes_home;
  }

  static void take_course(Step& step, Crowd& crowd, std::uint16_t course) {
    step.course = course;
    std::vector<std::uint64_t>& seen = crowd.courses[course].seen;
    step.seen = seen.empty() ? nullptr : seen.data();
  }

  Step& add_step(std::uint32_t at, std::size_t from, std::size_t stage) {
    const Lane& lane = lanes_[at];
    const Plan& plan = *lane.plan;
    const std::size_t stages = plan.stages.size();
    const std::uint32_t member = plan.stages[stage].first;
    const Consult& consult = lane.members[member];
    const Leg& enter = lane.enter[from * stages + stage];
    Step& step = steps_.emplace_back();
    step.there_ns = enter.ns + consult.up.ns;
    step.down_ns = consult.down.ns;
    step.back_ns = lane.back[stage].ns;
    step.station = plan.members[member].deployment;
    if (consult.service.law == Law::constant && config_[step.station].batch_ns.empty()) {
      step.service_ns = to_ns(consult.service.a);
    }
    step.lane = at;
    step.from = static_cast<std::uint32_t>(from);
    step.stage = static_cast<std::uint16_t>(stage);
    step.random = !enter.jitters.empty() || !consult.up.jitters.empty() || !consult.down.jitters.empty() ||
                  !lane.back[stage].jitters.empty();
    least_.push_back(lane.least.empty() ? INT64_MIN : lane.least[from * stages + stage]);
    Question& question = questions_.emplace_back();
    question.plan = &plan;
    if (lane.evidence->missed.empty()) question.labels = lane.evidence->labels(stage);
    question.scores = lane.evidence->scores(stage);
    question.looks = plan.rule.advance != nullptr || plan.stages[stage].per_us != 0.0F;
    question.monotone = plan.rule.advance == nullptr && plan.stages[stage].per_us >= 0.0F;
    if (stage + 1 < stages) question.station = plan.members[plan.stages[stage + 1].first].deployment;
    question.stage = step.stage;
    question.onward = static_cast<std::uint32_t>(doors_[at].first + (stage + 1) * stages + stage);
    return step;
  }

  /// Whether some request may take it.
  bool taken(const Step& step) const noexcept {
    const Lane& lane = lanes_[step.lane];
    if (lane.decisions) return true;
    return lane.plan->rule.jumps || lane.plan->rule.opens ? step.from <= step.stage : step.from == step.stage;
  }

  /// Stations that only the trace feeds, always equally long after an arrival, serve in the order of the trace.
  void open_desks() {
    std::vector<std::int64_t> lead(desks_.size(), -1);
    std::vector<bool> fed(desks_.size());  // by others than the trace, or as rules and chance have it
    for (const Step& step : steps_) {
      if (!taken(step)) continue;
      std::int64_t& known = lead[step.station];
      const bool first = step.from == 0 && (lanes_[step.lane].decisions || step.stage == 0);
      if (!first || step.random || (known >= 0 && known != step.there_ns)) fed[step.station] = true;
      known = step.there_ns;
    }
    for (Step& step : steps_) step.open = !Listed && !fed[step.station];
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
      pico += price_[door.prices + from * door.stages + stage];
      from = stage + std::size_t{1};
    }
    return pico;
  }

  /// Count those who ended. In two passes: in one, the processor would not know where a count goes before memory has
  /// answered, and would not ask for the next one.
  void settle() noexcept {
    const std::span<Ending> endings = std::span(endings_).first(ending_count_);
    for (Ending& ending : endings) {
      const std::uint64_t seen = *ending.seen;
      ending.count += static_cast<std::uint32_t>(seen % codes);
      *ending.seen = seen + codes;
    }
    Door* const doors = doors_.data();
    for (const Ending& ending : endings) ++doors[ending.lane].count[ending.count];
    ending_count_ = 0;
  }

  /// Rounds of some fifty requests: in shorter ones there is little to put in order, but more to begin. Looked at only
  /// once so many have come that cutting anew, which moves all who are under way, costs little.
  void size_rounds(std::span<const std::int64_t> arrivals) {
    if (sized_ == 0) sized_from_ = arrivals.front();
    sized_ += arrivals.size();
    if (arrived_ != 0 && sized_ < std::max<std::size_t>(4096, in_flight())) return;
    const std::int64_t gap = (arrivals.back() - sized_from_) / static_cast<std::int64_t>(std::exchange(sized_, 0));
    const int wanted = std::min(shift_max_, static_cast<int>(std::bit_width(static_cast<std::uint64_t>(gap))) + 5);
    if (arrived_ == 0) {
      table_.cut(wanted, arrivals.front());
    } else if (std::abs(wanted - table_.shift()) >= 2) {
      table_.cut(wanted, table_.starts_at());
    }
  }

  std::int64_t last_round() const noexcept { return forever >> table_.shift(); }

  /// From now on there are deadlines or priorities. Those under way have none, but must know where they have been.
  void complicate() {
    plain_ = false;
    const auto know = [this](const auto& who) {
      const Step& step = steps_[who.step];
      Flight& flight = flights_[who.slot];
      flight.deadline = forever;
      flight.seen = step.seen;
      flight.course = step.course;
      flight.consulted = step.nth;
      flight.in_time = 0;
      flight.level = INT32_MAX;
    };
    table_.each([&](Timetable::Kind kind, const Message& message) {
      if (kind != Timetable::wake) know(message);
    });
    for (Counter& counter : counters_) {
      for (auto& [level, line] : counter.lines) {
        for (std::size_t i = 0; i < line.size(); ++i) know(line[i]);
      }
      for (std::size_t i = 0; i < counter.formed.size(); ++i) {
        for (const Waiter& who : batches_[counter.formed[i]]) know(who);
      }
    }
  }

  template <bool Plain>
  void push(const Requests& batch) {
    const std::size_t rows = batch.sample.size();
    for (std::size_t first = 0; first < rows; first += block) {
      const std::size_t last = std::min(rows, first + block);
      begin<Plain>(batch, first, last);
      const std::int64_t next = batch.arrival_ns[last < rows ? last : last - 1] >> table_.shift();
      if (next > table_.round()) work<Plain>(next);
    }
  }

  /// Work through this round and those that follow, up to `last`.
  template <bool Plain>
  void work(std::int64_t last) {
    do {
      table_.take(Timetable::arrival, due_);
      if constexpr (Listed) {
        attend<Plain>();
      } else if (due_.size() > 0) {
        arrange(due_);
        proceed<Plain>(visit<Plain>(due_.all()));
      }
      clear(due_);
      table_.take(Timetable::decision, due_);
      if (due_.size() > 0) {
        arrange(due_);
        decide<Plain>(due_.all());
      }
      clear(due_);
      table_.advance(last);
    } while (table_.round() < last);
  }

  void clear(Pile& pile) {
    pile.resize(0);
    table_.put_back(pile);
  }

  /// Put what is due in order of time, then request: into buckets of time, about one message each, then by insertion,
  /// unless too many come at the same time.
  void arrange(Pile& pile) {
    const Flight* const flights = flights_.data();
    const auto earlier = [flights](const Message& a, const Message& b) {
      if (a.time != b.time) return a.time < b.time;
      return flights[a.slot].request < flights[b.slot].request;
    };
    const std::size_t count = pile.size();
    if (count > 12) {
      const std::int64_t low = table_.starts_at();
      const int shift = std::max(0, table_.shift() - static_cast<int>(std::bit_width(count)));
      const std::size_t buckets = std::size_t{1} << (table_.shift() - shift);
      starts_.assign(buckets + 1, 0);
      std::uint32_t* const starts = starts_.data();
      for (const Message& message : pile.all()) ++starts[((message.time - low) >> shift) + 1];
      std::uint32_t sum = 0;
      for (std::size_t b = 1; b < buckets; ++b) starts[b] = sum += starts[b];
      sorted_.resize(count);
      Message* const sorted = sorted_.all().data();
      for (const Message& message : pile.all()) {
        __builtin_prefetch(&flights[message.slot]);
        sorted[starts[(message.time - low) >> shift]++] = message;
      }
      pile.swap(sorted_);
    }
    Message* const due = pile.all().data();
    std::size_t moved = 0;
    for (std::size_t i = 1; i < count; ++i) {
      if (!earlier(due[i], due[i - 1])) continue;
      const Message message = due[i];
      std::size_t at = i;
      for (; at > 0 && earlier(message, due[at - 1]); --at) due[at] = due[at - 1];
      due[at] = message;
      moved += i - at;
      if (moved > 32 * count) return std::sort(due, due + count, earlier);
    }
  }

  template <bool Plain>
  void begin(const Requests& batch, std::size_t first, std::size_t last) {
    while (idle_.size() < last - first) {
      idle_.push_back(static_cast<std::uint32_t>(flights_.size()));
      flights_.emplace_back();
    }
    const std::int32_t* const lanes = batch.lane.data();
    const std::int32_t* const samples = batch.sample.data();
    const Door* const doors = doors_.data();
    // What is looked up by sample, in a pass of its own: memory answers many questions at a time.
    std::array<std::uint32_t, block> steps;  // NOLINT(cppcoreguidelines-pro-type-member-init)
    for (std::size_t i = first; i < last; ++i) {
      const Door& door = doors[static_cast<std::uint32_t>(lanes[i])];
      const auto sample = static_cast<std::uint32_t>(samples[i]);
      if (door.route != nullptr) {
        steps[i - first] = door.ways[door.route[sample]];
      } else {
        __builtin_prefetch(&door.labels[sample]);
        __builtin_prefetch(&door.scores[sample]);
        steps[i - first] = door.first;
      }
    }
    if (arrived_ == 0) first_request_ = batch.first + first;
    arrived_ += last - first;
    note_arrivals(batch.arrival_ns.subspan(first, last - first));
    std::array<std::uint32_t, block> slots;  // NOLINT(cppcoreguidelines-pro-type-member-init)
    const auto taken = idle_.end() - static_cast<std::ptrdiff_t>(last - first);
    std::copy(taken, idle_.end(), slots.begin());
    idle_.erase(taken, idle_.end());
    const std::int64_t* const arrivals = batch.arrival_ns.data();
    Flight* const flights = flights_.data();
    for (std::size_t i = first; i < last; ++i) {
      const std::uint32_t slot = slots[i - first];
      std::uint32_t next = steps[i - first];
      Flight& flight = flights[slot];
      flight.arrival = arrivals[i];
      flight.queue = 0;
      flight.service = 0;
      flight.request = batch.first + i;
      flight.sample = static_cast<std::uint32_t>(samples[i]);
      if constexpr (!Plain) {
        flight.deadline = forever;
        flight.course = 0;
        flight.consulted = flight.in_time = 0;
        flight.level = batch.priority.empty() || batch.priority[i] == 0 ? INT32_MAX : batch.priority[i];
        if (flight.request == first_request_) first_level_ = flight.level;
        if (flight.level != first_level_) levels_from_ = std::min(levels_from_, arrivals[i]);
        reserve_row(flight.request);
        if (steps_[next].course == 0) next += opening(flight, steps_[next]);
        if (!batch.deadline_ns.empty() && !may_begin(flight, batch.deadline_ns[i], next)) continue;
      }
      enter<Plain>(arrivals[i], slot, next);
    }
    if constexpr (!Listed) proceed<Plain>(visit<Plain>({fresh_.data(), fresh_count_}));
    fresh_count_ = 0;
  }

  void note_arrivals(std::span<const std::int64_t> arrivals) noexcept {
    const auto counted = std::lower_bound(arrivals.begin(), arrivals.end(), options_.warmup_ns);
    if (counted == arrivals.end()) return;
    first_ = std::min(first_, *counted);
    last_arrival_ = arrivals.back();
  }

  /// Where a request of no known course begins, counted from the first step of its lane.
  [[gnu::noinline]] std::uint32_t opening(const Flight& flight, const Step& step) const {
    const Plan& plan = *lanes_[step.lane].plan;
    View view;
    look_around(view, flight, 0, flight.arrival);
    return static_cast<std::uint32_t>(first_stage(plan, view));
  }

  /// Whether a request that has so much time asks anybody.
  [[gnu::noinline]] bool may_begin(Flight& flight, std::int64_t relative, std::uint32_t next) {
    if (relative > forever - flight.arrival) return true;
    flight.deadline = flight.arrival + relative;
    if (relative >= least_[next]) return true;
    end(flight.arrival, slot_of(flight), steps_[next], false, true);
    return false;
  }

  /// Send a request to the station of its next step.
  template <bool Plain>
  [[gnu::always_inline]] void enter(std::int64_t at, std::uint32_t slot, std::uint32_t next) {
    const Step& step = steps_[next];
    std::int64_t there = at + step.there_ns;
    if constexpr (!Plain) {
      Flight& flight = flights_[slot];
      there = set_out(at, flight, step);
      if (there == forever) return;
      ++flight.consulted;
      if (step.course != 0) {
        flight.course = step.course;
        flight.seen = step.seen;
      } else {
        find_course(flight, step);
      }
    }
    if (step.open) {
      fresh_[fresh_count_++] = {there, slot, next};
    } else {
      table_.post(Timetable::arrival, {there, slot, next});
    }
  }

  /// When a request that sets out is there; `forever` if it has ended on its way.
  std::int64_t set_out(std::int64_t at, const Flight& flight, const Step& step) {
    std::int64_t there = at + step.there_ns;
    if (step.random || flight.deadline != forever) {
      const Lane& lane = lanes_[step.lane];
      const std::uint32_t draw = 3U * flight.consulted;
      const Leg& leg = lane.enter[step.from * lane.plan->stages.size() + step.stage];
      const std::int64_t host = at + travel(leg, seed_, flight.request, draw);
      if (host >= flight.deadline) {
        end(host, slot_of(flight), step, true);
        return forever;
      }
      there = host + travel(lane.members[lane.plan->stages[step.stage].first].up, seed_, flight.request, draw + 1);
    }
    return there;
  }

  std::uint32_t slot_of(const Flight& flight) const noexcept {
    return static_cast<std::uint32_t>(&flight - flights_.data());
  }

  [[gnu::noinline]] void find_course(Flight& flight, const Step& step) {
    Crowd& crowd = crowds_[doors_[step.lane].crowd];
    flight.course = onward(crowd, flight.course, static_cast<std::uint8_t>(step.stage));
    std::vector<std::uint64_t>& seen = crowd.courses[flight.course].seen;
    flight.seen = seen.empty() ? nullptr : seen.data();
  }

  /// First come, first served: who comes starts as soon as an instance is free, and no one who comes later matters.
  /// `due` is in order of time at every station. Gives those whose stages are closed, and when.
  template <bool Plain>
  std::span<const Message> visit(std::span<Message> due) {
    make_room(due.size());
    const Step* const steps = steps_.data();
    Desk* const desks = desks_.data();
    std::uint32_t count = 0;
    for (const Message& message : due) {
      const Step& step = steps[message.step];
      Desk& desk = desks[step.station];
      const std::int64_t at = message.time;
      const std::int64_t free = desk.free.first();
      const std::int64_t start = free > at ? free : at;
      if constexpr (!Plain) {
        if (start > at && start >= flights_[message.slot].deadline) {
          if (desk.watched) watch(desk, at, start);
          drop(message, start);
          continue;
        }
      }
      desk.free.take(start + serve<Plain>(message, start, step, desk, due[count], count));
      ++count;
      if (desk.watched) watch(desk, at, start);
    }
    return due.first(count);
  }

  /// A request that has waited since `who.time` is served from `start`; its stage is the `index`th that is `closed`.
  /// Gives for how long.
  template <bool Plain>
  [[gnu::always_inline]] std::int64_t serve(const Message& who, std::int64_t start, const Step& step, Desk& desk,
                                            Message& closed, std::uint32_t index) {
    Flight& flight = flights_[who.slot];
    std::int64_t service = step.service_ns;
    if constexpr (!Plain) {
      if (service < 0) service = draw(step, flight);
    }
    if (Plain || flight.arrival >= options_.warmup_ns) desk.busy_ns.add(service);
    pass<Plain>(flight, desk, start - who.time, service);
    closed = {closing<Plain>(flight, step, start + service), who.slot, who.step};
    then_[step.then][then_count_[step.then]++] = index;
    return service;
  }

  template <bool Plain>
  [[gnu::always_inline]] void pass(Flight& flight, Desk& desk, std::int64_t wait, std::int64_t service) const noexcept {
    flight.queue += wait;
    flight.service += service;
    if (Plain || flight.arrival >= options_.warmup_ns) desk.note(wait);
  }

  /// When the stage is closed of a request whose service is done.
  template <bool Plain>
  [[gnu::always_inline]] std::int64_t closing(Flight& flight, const Step& step, std::int64_t done) const noexcept {
    if constexpr (Plain) return done + step.down_ns;
    const std::int64_t closed = step.random ? come_down(step, flight, done) : done + step.down_ns;
    if (flight.deadline != forever) hear(step, flight, closed);
    return closed;
  }

  /// Stages are closed: what requests do next, one thing for all of them at a time, so that no branch depends on who
  /// comes.
  template <bool Plain>
  void proceed(std::span<const Message> closed) {
    decide_early(closed);
    const auto those = [this](Then then) { return std::span(then_[then]).first(std::exchange(then_count_[then], 0)); };
    go_home<Plain>(closed, those(goes_home));
    for (const std::uint32_t i : those(is_decided)) table_.post(Timetable::decision, closed[i]);
    Onward* onward = onward_.data();
    for (const std::uint32_t i : those(goes_on)) *onward++ = {i, steps_[closed[i].step].next};
    go_on<Plain>(closed, {onward_.data(), onward});
  }

  /// Who settles even if nobody waited anywhere need not be decided about: a wait only lowers the bar.
  void decide_early(std::span<const Message> closed) {
    std::uint32_t* const undecided = then_[is_decided].data();
    std::uint32_t* const homeward = then_[goes_home].data();
    std::size_t rest = 0;
    for (std::size_t at = 0; at < then_count_[is_decided]; ++at) {
      const std::uint32_t i = undecided[at];
      const Question& question = questions_[closed[i].step];
      std::size_t open = 1;
      if (question.monotone) open = static_cast<std::size_t>(judge(*question.plan, view_of(question, closed[i]), true));
      homeward[then_count_[goes_home]] = undecided[rest] = i;
      then_count_[goes_home] += 1 - open;
      rest += open;
    }
    then_count_[is_decided] = rest;
  }

  /// But for the wait, and what only rules of one's own look at.
  View view_of(const Question& question, const Message& message) const {
    const std::uint32_t sample = flights_[message.slot].sample;
    View view;
    view.stage = question.stage;
    view.label = question.labels != nullptr ? question.labels[sample] : standing_label(message);
    view.score = question.scores[sample];
    return view;
  }

  /// Who comes goes to the counters, and these work through the round.
  template <bool Plain>
  void attend() {
    const auto touch = [this](std::uint32_t station) {
      if (inbox_[station].size() == 0) touched_.push_back(station);
    };
    for (const Message& message : due_.all()) {
      const std::uint32_t station = steps_[message.step].station;
      touch(station);
      Pile& inbox = inbox_[station];
      if (inbox.full()) inbox.make_room(16);
      inbox.push(message);
    }
    clear(due_);
    table_.take(Timetable::wake, due_);
    for (const Message& message : due_.all()) touch(message.slot);
    for (const std::uint32_t station : touched_) {
      arrange(inbox_[station]);
      attend<Plain>(station, inbox_[station].all());
      inbox_[station].resize(0);
    }
    touched_.clear();
    proceed<Plain>(closed_.all());
    closed_.resize(0);
  }

  template <bool Plain>
  void attend(std::uint32_t station, std::span<const Message> due) {
    Counter& counter = counters_[station];
    const Station& config = config_[station];
    const bool batched = config.max_batch > 1;
    const std::size_t most = counter.waiting + counter.formed_requests + due.size();  // may be served
    if (closed_.room() < most) closed_.make_room(most);
    make_room(closed_.size() + most);
    for (const Message& message : due) {
      catch_up<Plain>(station, message.time, message.time);
      if (!batched && (config.instances == 0 || counter.busy < config.instances)) {
        start<Plain>(counter, {message.time, message.slot, message.step}, message.time);
      } else {
        counter.line_up(Plain ? INT32_MAX : flights_[message.slot].level, {message.time, message.slot, message.step});
        std::uint64_t& longest = station_loads_[station].waiting_max;
        longest = std::max<std::uint64_t>(longest, counter.waiting);
        if (batched) form<Plain>(station, message.time, message.time >= levels_from_);
      }
      if (desks_[station].watched) watch(station, counter, halves(message.time) + 1);
    }
    if (counter.waiting + counter.formed_requests == 0) return;
    catch_up<Plain>(station, table_.ends_at() - 1, table_.ends_at());
    if (counter.waiting + counter.formed_requests == 0) return;
    std::int64_t next = counter.ends.empty() ? forever : counter.ends.first();
    if (counter.timer >= 0) next = std::min(next, counter.timer);
    if (next == std::exchange(counter.woken_at, next)) return;
    table_.post(Timetable::wake, {next, station, 0});
  }

  /// Instances that are done, until `last`, take who waits; and batches are formed whose time has come before `end`.
  template <bool Plain>
  [[gnu::always_inline]] void catch_up(std::uint32_t station, std::int64_t last, std::int64_t end) {
    Counter& counter = counters_[station];
    const Station& config = config_[station];
    for (;;) {
      const std::int64_t done = counter.ends.empty() ? forever : counter.ends.first();
      if (counter.timer >= 0 && counter.timer < end && counter.timer < done) {
        const std::int64_t at = std::exchange(counter.timer, -1);
        form<Plain>(station, at, at >= levels_from_);
        if (desks_[station].watched) watch(station, counter, halves(at) + 1);
        continue;
      }
      if (done > last) return;
      counter.ends.pop();
      --counter.busy;
      if (counter.waiting + counter.formed_requests == 0) continue;
      if (config.max_batch > 1) {
        Host<Plain> host{*this, station, batches_};
        counter.dispatch(config, done, host);
        form<Plain>(station, done, done > levels_from_);
      }
      while (config.max_batch == 1 && counter.waiting > 0 && counter.busy < config.instances) {
        const Waiter who = counter.call();
        if (!Plain && flights_[who.slot].deadline <= done) {
          drop({who.since, who.slot, who.step}, done);
        } else {
          start<Plain>(counter, who, done);
        }
      }
      if (desks_[station].watched) watch(station, counter, halves(done));
    }
  }

  template <bool Plain>
  [[gnu::always_inline]] void start(Counter& counter, const Waiter& who, std::int64_t at) {
    const Step& step = steps_[who.step];
    const auto index = static_cast<std::uint32_t>(closed_.size());
    const Message message{who.since, who.slot, who.step};
    const std::int64_t service = serve<Plain>(message, at, step, desks_[step.station], closed_.next(), index);
    if (config_[step.station].instances == 0) return;  // nobody ever waits
    ++counter.busy;
    counter.ends.push(at + service);
  }

  template <bool Plain>
  [[gnu::noinline]] void form(std::uint32_t station, std::int64_t at, bool levels) {
    Host<Plain> host{*this, station, batches_};
    counters_[station].form(config_[station], at, levels, host);
  }

  /// What a counter's batcher has to know.
  template <bool Plain>
  struct Host {
    Rounds& rounds;
    std::uint32_t station;
    Batches<Waiter>& batches;

    std::int64_t deadline(const Waiter& who) const noexcept {
      return Plain ? forever : rounds.flights_[who.slot].deadline;
    }
    void miss(const Waiter& who, std::int64_t at) { rounds.drop({who.since, who.slot, who.step}, at); }
    void ring(std::int64_t) const noexcept {}  // `timer` is looked at
    void start(std::uint32_t id, std::int64_t at) { rounds.template start_batch<Plain>(station, id, at); }
  };

  /// As long as its first request has it.
  template <bool Plain>
  void start_batch(std::uint32_t station, std::uint32_t id, std::int64_t at) {
    Desk& desk = desks_[station];
    const std::vector<Waiter>& batch = batches_[id];
    const Flight& first = flights_[batch.front().slot];
    const std::int64_t service = draw(steps_[batch.front().step], first, batch.size());
    if (Plain || first.arrival >= options_.warmup_ns) {
      Load& load = station_loads_[station];
      ++load.batches;
      ++load.batch_size[batch.size() - 1];
      desk.busy_ns.add(service);
    }
    for (const Waiter& who : batch) {
      const Step& step = steps_[who.step];
      Flight& flight = flights_[who.slot];
      pass<Plain>(flight, desk, at - who.since, service);
      then_[step.then][then_count_[step.then]++] = static_cast<std::uint32_t>(closed_.size());
      closed_.push({closing<Plain>(flight, step, at + service), who.slot, who.step});
    }
    counters_[station].ends.push(at + service);
    batches_.close(id);
  }

  void make_room(std::size_t count) {
    if (onward_.size() > count) return;
    for (std::vector<std::uint32_t>& which : then_) which.resize(2 * count + 1);
    onward_.resize(2 * count + 1);
  }

  [[gnu::noinline]] void drop(const Message& message, std::int64_t start) {
    const Step& step = steps_[message.step];
    Desk& desk = desks_[step.station];
    Flight& flight = flights_[message.slot];
    flight.queue += start - message.time;
    desk.dropped += flight.arrival >= options_.warmup_ns ? 1 : 0;
    end(start, message.slot, step, true);
  }

  [[gnu::noinline]] std::int64_t come_down(const Step& step, const Flight& flight, std::int64_t done) const noexcept {
    const Lane& lane = lanes_[step.lane];
    return done + travel(lane.members[lane.plan->stages[step.stage].first].down, seed_, flight.request,
                         3U * flight.consulted - 1);
  }

  /// A stage is closed, of a request in a hurry.
  [[gnu::noinline]] void hear(const Step& step, Flight& flight, std::int64_t closed) const noexcept {
    if (closed + returning(step, flight) <= flight.deadline) flight.in_time = flight.consulted;
  }

  /// Stages are closed: settle, or go on to a later one, as the state of queues has it. `due` is in order of time.
  template <bool Plain>
  void decide(std::span<const Message> due) {
    make_room(due.size());
    const Question* const questions = questions_.data();
    const Flight* const flights = flights_.data();
    std::uint32_t* homeward = then_[goes_home].data();
    Onward* onward = onward_.data();
    for (std::uint32_t i = 0; i < due.size(); ++i) {
      const Message& message = due[i];
      const Question& question = questions[message.step];
      const Flight& flight = flights[message.slot];
      if constexpr (!Plain) {
        if (message.time > flight.deadline) {
          end(message.time, message.slot, steps_[message.step], true);
          continue;
        }
      }
      View view = view_of(question, message);
      if (question.plan->rule.advance != nullptr) {
        look_around(view, flight, Plain ? question.stage + 1U : flight.consulted, message.time);
      }
      if (question.looks) view.wait_us = wait_us(question.station, message.time);
      const auto by = static_cast<std::uint32_t>(judge(*question.plan, view, true));
      const std::size_t on = by != 0 ? 1 : 0;
      *homeward = i;
      *onward = {i, question.onward + by};
      homeward += 1 - on;
      onward += on;
    }
    go_home<Plain>(due, {then_[goes_home].data(), homeward});
    go_on<Plain>(due, {onward_.data(), onward});
  }

  [[gnu::noinline]] Label standing_label(const Message& message) const {
    const Step& step = steps_[message.step];
    const Flight& flight = flights_[message.slot];
    const Evidence& evidence = *lanes_[step.lane].evidence;
    const Crowd& crowd = crowds_[doors_[step.lane].crowd];
    const Course& course = crowd.courses[step.course != 0 ? step.course : flight.course];
    return evidence.labels(standing(evidence, course.path, flight.sample))[flight.sample];
  }

  template <bool Plain>
  void go_on(std::span<const Message> due, std::span<const Onward> onward) {
    for (const Onward& one : onward) {
      const Message& message = due[one.message];
      if (Plain || flights_[message.slot].deadline == forever || may_go_on(message, one.next)) {
        enter<Plain>(message.time, message.slot, one.next);
      }
    }
  }

  /// A request in a hurry: else it has ended.
  [[gnu::noinline]] bool may_go_on(const Message& message, std::uint32_t next) {
    const std::int64_t left = flights_[message.slot].deadline - message.time;
    if (left <= 0) {
      end(message.time, message.slot, steps_[message.step], true);
    } else if (left < least_[next]) {
      go_home(message, true);
    }
    return left > 0 && left >= least_[next];
  }

  template <bool Plain>
  void go_home(std::span<const Message> due, std::span<const std::uint32_t> homeward) {
    if constexpr (!Plain) {
      for (const std::uint32_t i : homeward) go_home(due[i], false);
      return;
    }
    const Step* const steps = steps_.data();
    const Flight* const flights = flights_.data();
    std::int64_t* const latencies = latencies_room(homeward.size());
    std::size_t count = 0;
    Sum latency, queue, service;
    std::int64_t last = last_end_;
    for (const std::uint32_t i : homeward) {
      const Message& message = due[i];
      const Flight& flight = flights[message.slot];
      const Step& step = steps[message.step];
      const std::int64_t at = message.time + step.back_ns;
      latencies[count++] = at - flight.arrival;
      latency.add(at - flight.arrival);
      queue.add(flight.queue);
      service.add(flight.service);
      last = at > last ? at : last;
      idle_.push_back(message.slot);
      count_one(step.seen + flight.sample, step.lane, step.course);
    }
    measure_written(count);
    ended_ += count;
    latency_ += latency.total();
    queue_ += queue.total();
    service_ += service.total();
    last_end_ = last;
  }

  /// Count somebody who ended in time.
  [[gnu::always_inline]] void count_one(std::uint64_t* seen, std::uint32_t lane, std::uint16_t course) {
    __builtin_prefetch(seen, 1);
    endings_[ending_count_++] = {seen, lane, static_cast<std::uint32_t>(course * codes)};
    if (ending_count_ == endings_max) settle();
  }

  void go_home(const Message& message, bool stopped) {
    const Flight& flight = flights_[message.slot];
    const Step& step = steps_[message.step];
    if (message.time > flight.deadline) return end(message.time, message.slot, step, true);
    end(message.time + returning(step, flight), message.slot, step, false, stopped);
  }

  /// `stopped`: what it wanted to ask next could not finish in time.
  [[gnu::noinline]] void end(std::int64_t at, std::uint32_t slot, const Step& step, bool late, bool stopped = false) {
    const Flight& flight = flights_[slot];
    late = late || at > flight.deadline;
    if (late || stopped || flight.seen == nullptr || options_.rows) {
      end_alone(at, flight, step, late, stopped);
    } else if (flight.arrival >= options_.warmup_ns) {
      measure(at - flight.arrival);
      count_one(flight.seen + flight.sample, step.lane, flight.course);
      last_end_ = std::max(last_end_, at);
      latency_ += at - flight.arrival;
      queue_ += flight.queue;
      service_ += flight.service;
    }
    ++ended_;
    idle_.push_back(slot);
  }

  std::int64_t draw(const Step& step, const Flight& flight, std::size_t size = 1) const {
    const Station& station = config_[step.station];
    if (!station.batch_ns.empty()) {
      const std::size_t choices = station.choices();
      const std::size_t choice = choices == 1 ? 0 : Service::choose(seed_, flight.request, step.station, choices);
      return station.batch_ns[(size - 1) * choices + choice];
    }
    const Lane& lane = lanes_[step.lane];
    return lane.members[lane.plan->stages[step.stage].first].service.draw(seed_, flight.request, step.station,
                                                                          flight.sample);
  }

  std::int64_t returning(const Step& step, const Flight& flight) const noexcept {
    return step.random ? travel(lanes_[step.lane].back[step.stage], seed_, flight.request, 3U * flight.consulted)
                       : step.back_ns;
  }

  /// What rules of one's own see besides.
  void look_around(View& view, const Flight& flight, std::uint32_t consulted, std::int64_t at) const noexcept {
    view.remaining_us = flight.deadline == forever ? std::numeric_limits<float>::infinity()
                                                   : static_cast<float>(flight.deadline - at) * 1e-3F;
    view.uniform = uniforms(seed_, Stream::rule, flight.request, consulted, 0)[0];
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

  /// The last before this that the gossip told of. Nobody asks about earlier times than its of this round's beginning.
  std::int64_t told(std::int64_t at) const noexcept {
    return options_.gossip_ns > 0 ? at / options_.gossip_ns * options_.gossip_ns - 1 : at;
  }

  /// Keep a passage; and now and then forget what nobody will ask about.
  void watch(Desk& desk, std::int64_t at, std::int64_t start) {
    desk.passages.push({at, start, desk.free.first()});
    if (desk.passages.size() < desk.passages_most) return;
    const std::int64_t past = told(table_.starts_at());
    while (desk.waiting < desk.passages.size() && desk.passages[desk.waiting].at < past) let_in(desk);
    while (desk.waiting > 0 && desk.passages.front().start <= past) let_go(desk);
    desk.passages_most = 2 * desk.passages.size() + 64;
  }

  static void let_in(Desk& desk) noexcept { desk.free_then = desk.passages[desk.waiting++].free; }
  static void let_go(Desk& desk) noexcept {
    desk.passages.pop();
    --desk.waiting;
  }

  /// What a node can know of the wait at a station.
  float wait_us(std::uint32_t station, std::int64_t at) {
    Desk& desk = desks_[station];
    if (options_.gossip_ns <= 0) return estimate_us(desk, station, at, at);
    const std::int64_t then = told(at);
    if (then != desk.gossip_at) desk.gossip_us = estimate_us(desk, station, then, then + 1);
    desk.gossip_at = then;
    return desk.gossip_us;
  }

  /// The wait at `at`, after all that came earlier than `before`. Times never go back.
  float estimate_us(Desk& desk, std::uint32_t station, std::int64_t at, std::int64_t before) noexcept {
    if (at < 0) return 0.0F;
    if constexpr (Listed) {
      Counter& counter = counters_[station];
      counter.look_back(halves(at) + (before > at ? 1 : 0));
      return counter.free_then <= at ? 0.0F : wait_ahead_us(config_[station], counter.waiting_then);
    }
    while (desk.waiting < desk.passages.size() && desk.passages[desk.waiting].at < before) let_in(desk);
    while (desk.waiting > 0 && desk.passages.front().start <= at) let_go(desk);
    const float wait = wait_ahead_us(config_[station], desk.waiting);
    return desk.free_then <= at ? 0.0F : wait;
  }

  static std::uint64_t halves(std::int64_t ns) noexcept { return 2 * static_cast<std::uint64_t>(ns); }

  /// Keep how a counter stands now, at so many halves of a nanosecond: those who are done come before who comes.
  void watch(std::uint32_t station, Counter& counter, std::uint64_t at) {
    const std::uint32_t instances = config_[station].instances;
    std::int64_t free = INT64_MIN;
    const std::size_t waiting = counter.waiting + counter.formed_requests;
    if (instances > 0 && counter.busy == instances) free = waiting > 0 ? forever : counter.ends.first();
    counter.marks.push({at, free, waiting});
    const std::int64_t past = told(table_.starts_at());
    if (past > 0) counter.look_back(halves(past));
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

namespace {

/// The least that a service takes.
std::int64_t shortest(const Service& law, const Station& station, std::size_t samples) {
  if (!station.batch_ns.empty()) return *std::min_element(station.batch_ns.begin(), station.batch_ns.end());
  if (law.law == Law::constant) return to_ns(law.a);
  if (law.law == Law::empirical) samples = static_cast<std::size_t>(law.b);
  if (law.measured_us == nullptr) return drawn_min_ns;
  const double least_ns = static_cast<double>(*std::min_element(law.measured_us, law.measured_us + samples)) * 1e3;
  return to_ns(law.law == Law::measured ? law.a * least_ns : least_ns);
}

}  // namespace

/// How long it takes at least from when a request is served, or decided about, to another station: nobody can come
/// there sooner who has not set out. 0, too, where a decision may be due as soon as its request has come: it would see
/// those who came at the same time, and before it.
std::int64_t lookahead(std::span<const Lane> lanes, std::span<const Station> stations) {
  // Of all who come to a station: a batch takes as long as its first request.
  std::vector<std::int64_t> service(stations.size(), forever);
  for (const Lane& lane : lanes) {
    for (std::size_t m = 0; m < lane.members.size(); ++m) {
      const std::uint32_t place = lane.plan->members[m].deployment;
      service[place] =
          std::min(service[place], shortest(lane.members[m].service, stations[place], lane.evidence->rows));
    }
  }
  std::int64_t least = forever;
  for (const Lane& lane : lanes) {
    const std::vector<Stage>& stages = lane.plan->stages;
    const auto there = [&](std::size_t from, std::size_t to) {
      return lane.enter[(from + 1) * stages.size() + to].ns + lane.members[stages[to].first].up.ns;
    };
    const auto served = [&](std::size_t at) {
      const std::uint32_t member = stages[at].first;
      return service[lane.plan->members[member].deployment] + lane.members[member].down.ns;
    };
    if (!lane.decisions) {
      for (std::size_t from = 0; from + 1 < stages.size(); ++from) {
        if (served(from) == 0) return 0;
        const std::size_t last = lane.plan->rule.jumps ? stages.size() : from + 2;
        for (std::size_t to = from + 1; to < last; ++to) least = std::min(least, there(from, to));
      }
      continue;
    }
    for (const Itinerary& itinerary : lane.decisions->itineraries) {
      for (std::size_t i = 1; i < itinerary.size(); ++i) {
        least = std::min(least, served(itinerary[i - 1]) + there(itinerary[i - 1], itinerary[i]));
      }
    }
  }
  return least;
}

bool Queues::in_rounds(std::span<const Lane> lanes, std::span<const Station> stations) {
  // A rule that remembers is asked in the order of time.
  const auto remembers = [](const Lane& lane) {
    return !lane.decisions && lane.plan->rule.opens &&
           (lane.plan->rule.per_request || lane.plan->rule.learn != nullptr);
  };
  const auto bounded = [](const Station& station) { return station.queue_max != unbounded; };
  return one_by_one(lanes) && lookahead(lanes, stations) > 0 && std::none_of(lanes.begin(), lanes.end(), remembers) &&
         std::none_of(stations.begin(), stations.end(), bounded);
}

std::unique_ptr<Queues::Core> make_rounds(std::vector<Lane> lanes, std::span<const Label> truth, std::size_t classes,
                                          std::uint64_t seed, std::vector<Station> stations, std::size_t links,
                                          std::vector<Outputs> outputs, const QueueOptions& options) {
  if (options.engine == QueueEngine::hops) {
    return std::make_unique<Rounds<false>>(std::move(lanes), truth, classes, seed, std::move(stations), links,
                                           std::move(outputs), options);
  }
  return std::make_unique<Rounds<true>>(std::move(lanes), truth, classes, seed, std::move(stations), links,
                                        std::move(outputs), options);
}

}  // namespace coinfer
