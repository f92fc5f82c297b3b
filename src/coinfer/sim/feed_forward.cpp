// The feed-forward engine: no list of events at all.
//
// Where decisions are made ahead, nobody overtakes in a queue and requests visit stations in one order (no cycles), the
// stations can be worked through one after the other, a window of the trace at a time. A station with k instances is
// its k free times in order: who arrives at t starts at max(t, free[0]). What leaves a station goes to the inbox of the
// next one, and is released up to a watermark: the earliest time at which anything could still arrive, from the next
// request of the trace and the shortest ways. Items that arrive at the same time are served in the order of requests,
// as in the other engines.
//
// What decides the speed: all that is fixed about a visit is added up beforehand, and what no queue can change
// (answers, prices) is counted as requests enter. Where every service of a station takes equally long (it is steady),
// ends come in the order of arrivals: free times are a ring, and what leaves for one next station by equally long ways
// is a run in order. So an inbox is a few runs to be merged; only what jitter or random services have put out of order
// is sorted. A window is dealt to the stations first, so that each is served in one tight loop. No branch there that
// data decides.
//
// Memory is bounded by a window and by what is on its way.
#include <array>
#include <limits>
#include <map>
#include <numeric>

#include "coinfer/sim/queues_core.hpp"

namespace coinfer {
namespace {

constexpr std::size_t window = 4096;
constexpr std::size_t block = 512;     // so many enter or are served at a time
constexpr std::size_t most_runs = 32;  // of an inbox: to sort costs as much as to merge more

constexpr int visit_bits = 24;
constexpr int code_bits = 16;

/// A request on its way to a station, or home. `key` packs request and visit, so that two words put items in order.
struct Item {
  std::int64_t at;
  std::uint64_t key;
  std::int64_t arrival;
  std::uint64_t sample;

  std::uint64_t request() const noexcept { return key >> visit_bits; }
  std::size_t visit() const noexcept { return key & ((1U << visit_bits) - 1U); }
};

bool earlier(const Item& a, const Item& b) noexcept { return a.at < b.at || (a.at == b.at && a.key < b.key); }

/// Items in a row, taken from the front: a vector that does not write what it makes room for, and that can always be
/// given an `end` that is later than all.
class Items {
 public:
  Item* begin() noexcept { return begin_; }
  Item* end() noexcept { return end_; }
  std::size_t size() const noexcept { return static_cast<std::size_t>(end_ - begin_); }
  void push(const Item& item) {
    if (limit_ - end_ < 2) make_room(1);
    *end_++ = item;
  }
  /// For so many more.
  void make_room(std::size_t count) {
    if (static_cast<std::size_t>(limit_ - end_) > count) return;
    const std::size_t needed = size() + count + 1;
    const auto capacity = static_cast<std::size_t>(limit_ - items_.get());
    if (2 * needed <= capacity) {
      end_ = std::copy(begin_, end_, items_.get());
    } else {
      auto larger = std::make_unique_for_overwrite<Item[]>(2 * needed);  // NOLINT(modernize-avoid-c-arrays)
      end_ = std::copy(begin_, end_, larger.get());
      items_ = std::move(larger);
      limit_ = items_.get() + 2 * needed;
    }
    begin_ = items_.get();
  }
  /// They were written, where there was room.
  void add(std::size_t count) noexcept { end_ += count; }
  void drop_front(std::size_t count) noexcept {
    begin_ += count;
    if (begin_ == end_) clear();
  }
  void clear() noexcept { begin_ = end_ = items_.get(); }
  void close() noexcept {
    if (end_ != nullptr) end_->at = forever;
  }

 private:
  std::unique_ptr<Item[]> items_;  // NOLINT(modernize-avoid-c-arrays)
  Item* begin_ = nullptr;
  Item* end_ = nullptr;
  Item* limit_ = nullptr;
};

/// Where items wait for a station. What comes from one steady station (or the trace) by ways of one length is in order
/// of time by itself.
struct Inbox {
  Items loose;                                                   // in no order
  std::map<std::pair<std::uint32_t, std::int64_t>, Items> runs;  // from a source, by the length of the way
};

/// A visit of one station, and what follows it.
struct alignas(64) Visit {
  std::int64_t after_ns = 0;         // from the end of service to the next station, or to the ingress
  std::int64_t last_ns = INT64_MIN;  // when the last one was there, from a steady station
  std::uint32_t onward = 0;          // 1; 0 if home is next
  std::uint32_t home = 1;            // the other way round
  std::uint32_t station = 0;
  std::uint32_t lane = 0;
  Items* next = nullptr;   // of the next station
  std::uint32_t draw = 0;  // of this visit's way down; those that follow count on
  const Consult* consult = nullptr;
  const Leg* enter = nullptr;  // of the next stage, or the way back
  const Leg* up = nullptr;     // of the next stage
  bool random = false;         // ways that follow
};

/// One of the window, on the way to its first station.
struct Came {
  std::int64_t arrival;
  std::uint64_t key;
};

/// Those of the window who come to a station by ways of one length, or by one random way.
struct Gate {
  std::int64_t lead_ns = 0;
  std::uint32_t station = 0;
  const Leg* enter = nullptr;  // where it is random; so too:
  const Leg* up = nullptr;
  Items* next = nullptr;         // of the station; none: it serves straight from here
  Came* end = nullptr;           // of those who came
  Came* limit = nullptr;         // of room for them
  std::unique_ptr<Came[]> came;  // NOLINT(modernize-avoid-c-arrays)

  std::size_t count() const noexcept { return static_cast<std::size_t>(end - came.get()); }
  void push(Came one) {
    if (end == limit) grow();
    *end++ = one;
  }
  void grow() {
    const std::size_t room = std::max(block, 2 * count());
    auto larger = std::make_unique_for_overwrite<Came[]>(room);  // NOLINT(modernize-avoid-c-arrays)
    end = std::copy(came.get(), end, larger.get());
    came = std::move(larger);
    limit = came.get() + room;
  }
  void clear() noexcept { end = came.get(); }
};

/// What a lane's requests of one code have in common, and how many there were.
struct Entry {
  Gate* gate = nullptr;
  std::uint64_t count = 0;
  std::uint32_t visit = 0;
};

/// What a lane's requests need when they enter. A sample's code tells the way and all that no queue can change; above
/// it they are counted.
struct Door {
  std::uint64_t* seen = nullptr;  // [sample]
  std::size_t entry = 0;          // of code 0
};

/// What a station is doing.
struct Desk {
  // Where it is steady, services end in the order in which they began: who comes waits for the one that began
  // `instances` earlier. These are the last ends. Else the free times of instances, in order.
  std::vector<std::int64_t> times;
  std::size_t instances = 0;
  std::int64_t service_ns = -1;  // that every visit takes; -1: not known yet, -2: visits differ
  bool plain = true;             // nothing to draw, all counted, no rows
  Gate* gate = nullptr;          // only source, which it serves from
  Items* next = nullptr;         // where all go who go on; none: there are several
  std::uint64_t served = 0;
  Wide wait_ns = 0;
  std::int64_t wait_ns_max = 0;

  bool steady() const noexcept { return plain && service_ns >= 0 && instances > 0; }

  void start(std::int64_t at) { times.assign(instances + (steady() ? block : 0), at); }

  void note(std::int64_t waited) noexcept {
    ++served;
    wait_ns += waited;
    wait_ns_max = std::max(wait_ns_max, waited);
  }
};

/// A station that others feed: from `source` (none: the trace), `lag_ns` after it was free to leave there, or later.
struct Feed {
  std::uint32_t source = unbounded;
  std::uint32_t target = 0;
  std::int64_t lag_ns = 0;
  bool fixed = false;  // not later
};

constexpr std::int64_t later(std::int64_t at, std::int64_t lag) noexcept {
  return at > forever - lag ? forever : at + lag;
}

/// Of a block of times >= 0; in a word where they fit.
Wide sum(std::span<const std::int64_t> times) noexcept {
  std::uint64_t all = 0;
  std::uint64_t bits = 0;
  for (const std::int64_t ns : times) {
    all += static_cast<std::uint64_t>(ns);
    bits |= static_cast<std::uint64_t>(ns);
  }
  if (bits >> 54 == 0) return static_cast<Wide>(all);
  return std::accumulate(times.begin(), times.end(), Wide{0});
}

/// Stations in an order in which requests visit them; empty if there is none.
std::vector<std::uint32_t> ordered(std::span<const Lane> lanes, std::size_t stations) {
  std::vector<std::vector<std::uint32_t>> next(stations);
  std::vector<std::size_t> before(stations);
  for (const Lane& lane : lanes) {
    for (const Itinerary& itinerary : lane.decisions->itineraries) {
      for (std::size_t i = 1; i < itinerary.size(); ++i) {
        const auto place = [&](std::uint8_t stage) {
          return lane.plan->members[lane.plan->stages[stage].first].deployment;
        };
        next[place(itinerary[i - 1])].push_back(place(itinerary[i]));
        ++before[place(itinerary[i])];
      }
    }
  }
  std::vector<std::uint32_t> order;
  for (std::uint32_t d = 0; d < stations; ++d) {
    if (before[d] == 0) order.push_back(d);
  }
  for (std::size_t i = 0; i < order.size(); ++i) {
    for (const std::uint32_t target : next[order[i]]) {
      if (--before[target] == 0) order.push_back(target);
    }
  }
  if (order.size() < stations) order.clear();
  return order;
}

/// How the free times of a station are kept, besides the number of its instances.
enum Kept : int { any_number = 0, ring = -1, list = -2 };

class FeedForward final : public Queues::Core {
 public:
  FeedForward(std::vector<Lane> lanes, std::span<const Label> truth, std::size_t classes, std::uint64_t seed,
              std::vector<Station> stations, std::size_t links, std::vector<Outputs> outputs,
              const QueueOptions& options)
      : Core(std::move(lanes), truth, classes, seed, std::move(stations), links, std::move(outputs), options),
        replay_(lanes_, truth, classes, seed),
        order_(ordered(lanes_, config_.size())),
        inbox_(config_.size()),
        desks_(config_.size()),
        horizon_(config_.size()),
        served_until_(config_.size(), INT64_MIN),
        seen_(replay_.group_count()) {
    for (std::size_t d = 0; d < config_.size(); ++d) {
      desks_[d].instances = config_[d].instances;
      desks_[d].plain = !options.rows && options.warmup_ns <= 0;
    }
    for (std::uint32_t lane = 0; lane < lanes_.size(); ++lane) lay_out(lane);
    if (visits_.size() >> visit_bits != 0) throw std::invalid_argument("at most 2^24 visits of stations by routes");
    for (std::size_t lane = 0; lane < lanes_.size(); ++lane) {
      std::vector<std::uint64_t>& seen = seen_[replay_.group_of(lane)];
      seen.assign(replay_.codes(lane).begin(), replay_.codes(lane).end());
      doors_[lane].seen = seen.data();
    }
    connect();
    room_ = least_room();
  }

  std::uint64_t in_flight() const noexcept override { return arrived_ - ended_; }

  void push(const Requests& batch) override {
    const std::size_t rows = batch.sample.size();
    if (batch.arrival_ns.size() != rows) throw std::invalid_argument("queues need arrival times");
    if (!batch.deadline_ns.empty() || !batch.priority.empty()) {
      throw std::invalid_argument("feed-forward knows neither deadlines nor priorities");
    }
    if ((batch.first + rows) >> (64 - visit_bits) != 0) throw std::invalid_argument("at most 2^40 requests");
    for (std::size_t first = 0; first < rows;) {
      if (entered_ == room_ || batch.first + first != base_ + entered_) {
        release(batch.arrival_ns[first]);
        base_ = batch.first + first;
      }
      const std::size_t last = std::min({rows, first + block, first + room_ - entered_});
      enter(batch, first, last);
      first = last;
    }
  }

  void finish() override {
    release(forever);
    put_down();
    if (in_flight() != 0) throw std::logic_error("requests were left under way");
  }

  Tally tally() const override {
    const Tally times = Core::tally();
    Tally out = replay_.counted(by_code(), by_sample());
    if (out.requests != counted_) throw std::logic_error("requests were lost or counted twice, or are under way");
    out.latency_ns = latency_;
    out.queue_ns = out.service_ns = 0;
    for (const Load& load : station_loads_) {
      out.queue_ns += load.wait_ns;
      out.service_ns += load.busy_ns;
    }
    out.network_ns = latency_ - out.queue_ns - out.service_ns;
    out.latencies = times.latencies;
    return out;
  }

 private:
  Replay replay_;
  std::vector<std::uint32_t> order_;
  std::vector<Visit> visits_;
  std::vector<std::unique_ptr<Gate>> gates_;
  std::map<std::pair<std::uint32_t, std::int64_t>, Gate*> fixed_gates_;
  std::vector<Door> doors_;     // [lane]
  std::vector<Entry> entries_;  // [lane][code]
  std::vector<Feed> feeds_;     // by source, in `order_`, after those of the trace
  std::vector<Inbox> inbox_;    // [station]
  std::vector<Desk> desks_;
  std::vector<std::int64_t> horizon_;             // [station]: nothing arrives earlier any more
  std::vector<std::int64_t> served_until_;        // [station]: the same at the last release
  std::vector<std::vector<std::uint64_t>> seen_;  // [group][sample]: its code, above it how many came
  Wide latency_ = 0;
  std::uint64_t counted_ = 0;

  // The window: who entered since the last release.
  std::uint64_t base_ = 0;
  std::size_t entered_ = 0;
  std::size_t room_ = window;  // for so many
  std::vector<std::int32_t> sample_;
  std::int64_t newest_ = INT64_MIN;

  Items due_;
  Items rest_;
  Items spread_;
  std::array<std::vector<Item>, 2> merged_;
  std::vector<std::span<Item>> parts_;
  std::vector<std::uint32_t> starts_;

  /// The visits of each course of a lane, with all that is fixed about the ways between them added up.
  void lay_out(std::uint32_t at) {
    const Lane& lane = lanes_[at];
    const std::size_t stages = lane.plan->stages.size();
    const auto member = [&](std::uint8_t stage) { return lane.plan->stages[stage].first; };
    const auto place = [&](std::uint8_t stage) { return lane.plan->members[member(stage)].deployment; };
    const auto random = [](const Leg* leg) { return leg != nullptr && !leg->jitters.empty(); };
    doors_.push_back({nullptr, entries_.size()});
    for (const std::uint8_t route : replay_.routes(at)) {
      const Itinerary& itinerary = lane.decisions->itineraries[route];
      const Leg& enter = lane.enter[itinerary.front()];
      const Leg& up = lane.members[member(itinerary.front())].up;
      Gate& gate = gate_to(place(itinerary.front()), enter, up, random(&enter) || random(&up));
      const Entry entry{&gate, 0, static_cast<std::uint32_t>(visits_.size())};
      entries_.insert(entries_.end(), Replay::codes_per_course, entry);
      for (std::size_t i = 0; i < itinerary.size(); ++i) {
        const Consult& consult = lane.members[member(itinerary[i])];
        Visit visit;
        visit.lane = at;
        visit.station = place(itinerary[i]);
        Desk& desk = desks_[visit.station];
        visit.draw = static_cast<std::uint32_t>(3 * i + 2);
        visit.consult = &consult;
        visit.after_ns = consult.down.ns;
        if (i + 1 == itinerary.size()) {
          visit.enter = &lane.back[itinerary[i]];
        } else {
          visit.onward = 1;
          visit.home = 0;
          visit.enter = &lane.enter[(itinerary[i] + std::size_t{1}) * stages + itinerary[i + 1]];
          visit.up = &lane.members[member(itinerary[i + 1])].up;
          visit.after_ns += visit.up->ns;
        }
        visit.after_ns += visit.enter->ns;
        visit.random = random(&consult.down) || random(visit.enter) || random(visit.up);
        const std::int64_t service_ns = consult.service.law == Law::constant ? to_ns(consult.service.a) : -2;
        if (desk.service_ns == -1) desk.service_ns = service_ns;
        if (desk.service_ns != service_ns) desk.service_ns = -2;
        if (visit.random) desk.plain = false;
        visits_.push_back(visit);
      }
    }
  }

  /// The gate for a way from the trace.
  Gate& gate_to(std::uint32_t station, const Leg& enter, const Leg& up, bool random) {
    const std::int64_t lead_ns = enter.ns + up.ns;
    Gate* fresh = nullptr;
    Gate*& gate = random ? fresh : fixed_gates_[{station, lead_ns}];
    if (gate == nullptr) {
      gate = gates_.emplace_back(std::make_unique<Gate>()).get();
      gate->station = station;
      gate->lead_ns = lead_ns;
      if (random) gate->enter = &enter;
      if (random) gate->up = &up;
    }
    return *gate;
  }

  std::uint32_t target(const Visit& visit) const noexcept { return (&visit + 1)->station; }

  /// Find out who feeds whom, and lead visits and gates to where items wait.
  void connect() {
    for (const std::unique_ptr<Gate>& gate : gates_) {
      feeds_.push_back({unbounded, gate->station, gate->lead_ns, gate->enter == nullptr});
    }
    for (const Visit& visit : visits_) {
      if (visit.onward == 0) continue;
      feeds_.push_back({visit.station, target(visit), visit.after_ns, desks_[visit.station].steady()});
    }
    for (const Feed& feed : feeds_) {
      if (feed.fixed) inbox_[feed.target].runs.try_emplace({feed.source, feed.lag_ns});
    }
    for (Inbox& inbox : inbox_) {
      if (inbox.runs.size() > most_runs) inbox.runs.clear();
    }
    const auto queue = [&](const Feed& feed) {
      Inbox& inbox = inbox_[feed.target];
      const auto run = inbox.runs.find({feed.source, feed.lag_ns});
      return feed.fixed && run != inbox.runs.end() ? &run->second : &inbox.loose;
    };
    auto feed = feeds_.begin();
    for (const std::unique_ptr<Gate>& gate : gates_) gate->next = queue(*feed++);
    for (Visit& visit : visits_) {
      if (visit.onward != 0) visit.next = queue(*feed++);
    }
    serve_straight();
    lead_on();
    condense_feeds();
  }

  /// Stations that only the trace feeds, always equally long after an arrival, serve in the order of the trace.
  void serve_straight() {
    std::vector<std::size_t> sources(desks_.size());
    for (const Feed& feed : feeds_) sources[feed.target] += feed.source == unbounded ? 1 : 2;
    for (const std::unique_ptr<Gate>& gate : gates_) {
      Desk& desk = desks_[gate->station];
      if (sources[gate->station] != 1 || gate->enter != nullptr || !desk.steady()) continue;
      desk.gate = gate.get();
      gate->next = nullptr;
    }
  }

  /// Where all who go on from a steady station go to one place, it has no need to ask each.
  void lead_on() {
    std::vector<std::uint8_t> several(desks_.size());
    for (const Visit& visit : visits_) {
      if (visit.onward == 0) continue;
      Desk& desk = desks_[visit.station];
      if (desk.next == nullptr) desk.next = visit.next;
      if (desk.next != visit.next) several[visit.station] = 1;
    }
    for (std::size_t d = 0; d < desks_.size(); ++d) {
      if (several[d] != 0) desks_[d].next = nullptr;
    }
  }

  /// Of feeds between the same two places the shortest counts.
  void condense_feeds() {
    std::vector<std::uint32_t> rank(config_.size());
    for (std::uint32_t at = 0; at < order_.size(); ++at) rank[order_[at]] = at + 1;
    const auto key = [&](const Feed& feed) {
      return std::array<std::int64_t, 3>{feed.source == unbounded ? 0 : rank[feed.source], feed.target, feed.lag_ns};
    };
    std::sort(feeds_.begin(), feeds_.end(), [&](const Feed& a, const Feed& b) { return key(a) < key(b); });
    const auto twice = [](const Feed& a, const Feed& b) { return a.source == b.source && a.target == b.target; };
    feeds_.erase(std::unique(feeds_.begin(), feeds_.end(), twice), feeds_.end());
  }

  /// Of requests that arrived.
  std::vector<std::vector<std::uint64_t>> by_code() const {
    std::vector<std::vector<std::uint64_t>> counts;
    for (std::size_t lane = 0; lane < lanes_.size(); ++lane) {
      counts.emplace_back(replay_.code_count(lane));
      for (std::size_t code = 0; code < counts.back().size(); ++code) {
        counts.back()[code] = entries_[doors_[lane].entry + code].count;
      }
    }
    return counts;
  }
  std::vector<std::vector<std::uint64_t>> by_sample() const {
    std::vector<std::vector<std::uint64_t>> counts = seen_;
    for (std::vector<std::uint64_t>& group : counts) {
      for (std::uint64_t& count : group) count >>= code_bits;
    }
    return counts;
  }

  std::int64_t jitter(const Leg& leg, std::uint64_t request, std::uint32_t draw) const noexcept {
    return travel(leg, seed_, request, draw) - leg.ns;
  }

  void enter(const Requests& batch, std::size_t first, std::size_t last) {
    const std::int64_t* const arrivals = batch.arrival_ns.data();
    if (arrived_ == 0) {
      for (Desk& desk : desks_) desk.start(arrivals[first]);
    }
    const std::size_t counted = std::lower_bound(arrivals + first, arrivals + last, options_.warmup_ns) - arrivals;
    if (counted < last) {
      first_ = std::min(first_, arrivals[counted]);
      last_arrival_ = arrivals[last - 1];
    }
    if (sample_.size() < room_) sample_.resize(room_);
    deal(batch, first, counted, 0);
    deal(batch, counted, last, 1);
    if (options_.rows) {
      for (std::size_t i = first; i < last; ++i) reserve_row(batch.first + i);
    }
    arrived_ += last - first;
  }

  /// Deal requests to gates; each counts as so many.
  void deal(const Requests& batch, std::size_t first, std::size_t last, std::uint64_t weight) {
    const Door* const doors = doors_.data();
    // Codes in a pass of their own: what is written below goes where a code says, and as long as the processor does not
    // know where, it would not ask memory for the next one.
    std::array<std::uint32_t, block> entries;  // NOLINT(cppcoreguidelines-pro-type-member-init)
    std::int32_t* const samples = sample_.data() + entered_;
    std::int64_t newest = newest_;
    bool back = false;
    for (std::size_t i = first; i < last; ++i) {
      const Door& door = doors[batch.lane[i]];
      const std::int32_t sample = samples[i - first] = batch.sample[i];
      std::uint64_t& seen = door.seen[static_cast<std::uint32_t>(sample)];
      entries[i - first] = static_cast<std::uint32_t>(door.entry + static_cast<std::uint16_t>(seen));
      seen += weight << code_bits;
      back |= batch.arrival_ns[i] < newest;
      newest = batch.arrival_ns[i];
    }
    if (back) throw std::invalid_argument("arrivals must not go back in time");
    newest_ = newest;
    entered_ += last - first;
    Entry* const known = entries_.data();
    const std::int64_t* const arrivals = batch.arrival_ns.data() + first;
    std::uint64_t key = (batch.first + first) << visit_bits;
    for (std::size_t i = 0; i < last - first; ++i) {
      Entry& entry = known[entries[i]];
      entry.count += weight;
      entry.gate->push({arrivals[i], key + entry.visit});
      key += std::uint64_t{1} << visit_bits;
    }
  }

  /// Who came through a gate, one after the other.
  auto items_of(const Gate& gate) const noexcept {
    return [came = gate.came.get(), samples = sample_.data(), base = base_, lead_ns = gate.lead_ns](std::size_t i) {
      const Came& one = came[i];
      return Item{one.arrival + lead_ns, one.key, one.arrival,
                  static_cast<std::uint32_t>(samples[(one.key >> visit_bits) - base])};
    };
  }

  /// Those of the window who come through a gate that no station serves from.
  void admit(Gate& gate) {
    const std::size_t count = gate.count();
    const auto item_at = items_of(gate);
    gate.next->make_room(count);
    Item* to = gate.next->end();
    for (std::size_t i = 0; i < count; ++i) {
      Item item = item_at(i);
      if (gate.enter != nullptr) {
        item.at += jitter(*gate.enter, item.request(), 0) + jitter(*gate.up, item.request(), 1);
      }
      *to++ = item;
    }
    gate.next->add(count);
    gate.clear();
  }

  /// Work through all stations, as far as nothing earlier can come from requests that arrive at or after `next`.
  void release(std::int64_t next) {
    for (const std::unique_ptr<Gate>& gate : gates_) {
      if (gate->next != nullptr) admit(*gate);
    }
    std::fill(horizon_.begin(), horizon_.end(), forever);
    auto feed = feeds_.begin();
    const auto pass_on = [&](std::uint32_t source, std::int64_t from) {
      for (; feed != feeds_.end() && feed->source == source; ++feed) {
        horizon_[feed->target] = std::min(horizon_[feed->target], later(from, feed->lag_ns));
      }
    };
    pass_on(unbounded, next);
    std::size_t loose = 0;
    for (const std::uint32_t station : order_) {
      serve(station, horizon_[station]);
      pass_on(station, horizon_[station]);
      loose += inbox_[station].loose.size();
    }
    base_ += entered_;
    entered_ = 0;
    // As many as are in no order, so that looking through these costs no more than the requests do.
    room_ = std::max(least_room(), loose);
  }

  /// So that looking through gates and stations costs no more than the requests do.
  std::size_t least_room() const noexcept { return std::max(window, gates_.size() + desks_.size()); }

  void serve(std::uint32_t station, std::int64_t horizon) {
    Desk& desk = desks_[station];
    if (desk.gate != nullptr) {
      serve(desk, desk.gate->count(), items_of(*desk.gate));
      desk.gate->clear();
      return;
    }
    Inbox& inbox = inbox_[station];
    parts_.clear();
    const bool moved = arrange(inbox.loose, served_until_[station], horizon);
    const std::size_t loose = parts_.empty() ? 0 : parts_.front().size();
    served_until_[station] = std::max(served_until_[station], horizon);
    for (auto& [source, run] : inbox.runs) take_due(run, horizon);
    if (parts_.empty()) return;
    const std::span<Item> due = merge_parts();
    settle_ties(due);
    if (desk.steady()) {
      serve(desk, due.size(), [due](std::size_t i) -> const Item& { return due[i]; });
    } else {
      switch (config_[station].instances) {
        case 0: run<any_number>(desk, due); break;
        case 1: run<1>(desk, due); break;
        case 2: run<2>(desk, due); break;
        case 4: run<4>(desk, due); break;
        case 8: run<8>(desk, due); break;
        default: run<list>(desk, due); break;
      }
    }
    if (!moved) inbox.loose.drop_front(loose);
    for (auto& [source, run] : inbox.runs) run.drop_front(due_of(run, horizon));
  }

  static std::size_t due_of(Items& run, std::int64_t horizon) {
    const auto late =
        std::partition_point(run.begin(), run.end(), [horizon](const Item& item) { return item.at < horizon; });
    return static_cast<std::size_t>(late - run.begin());
  }

  void take_due(Items& run, std::int64_t horizon) {
    const std::size_t count = due_of(run, horizon);
    if (count == 0) return;
    run.close();
    parts_.emplace_back(run.begin(), count);
  }

  /// Parts that are in order, each followed by an item that is later than all, become one.
  std::span<Item> merge_parts() {
    std::size_t total = 0;
    for (const std::span<Item> part : parts_) total += part.size() + 1;
    if (parts_.size() > 1) {
      for (std::vector<Item>& half : merged_) {
        if (half.size() < total) half.resize(2 * total);
      }
    }
    return merge_parts(0, parts_.size(), 0, 0);
  }

  /// Halves are in one of two places in turn, each where its parts would be.
  std::span<Item> merge_parts(std::size_t first, std::size_t last, std::size_t offset, std::size_t depth) {
    if (last - first == 1) return parts_[first];
    const std::size_t middle = first + (last - first) / 2;
    std::size_t behind = offset;
    for (std::size_t i = first; i < middle; ++i) behind += parts_[i].size() + 1;
    const std::span<Item> a = merge_parts(first, middle, offset, depth + 1);
    const std::span<Item> b = merge_parts(middle, last, behind, depth + 1);
    const std::span<Item> out = std::span(merged_[depth % 2]).subspan(offset, a.size() + b.size());
    merge(a, b, out.data());
    out.end()->at = forever;
    return out;
  }

  /// By time. From the beginning and from the middle at once, so that one need not wait for the other.
  static void merge(std::span<const Item> a, std::span<const Item> b, Item* out) noexcept {
    const std::size_t count = a.size() + b.size();
    const std::size_t half = count / 2;
    // How many of a are among the first half: those that are not later than what of b would be there in their place.
    std::size_t low = half > b.size() ? half - b.size() : 0;
    for (std::size_t high = std::min(half, a.size()); low < high;) {
      const std::size_t middle = (low + high) / 2;
      if (b[half - middle - 1].at < a[middle].at) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    // By arithmetic on addresses: compilers like to make a branch of a choice, and this one cannot be predicted.
    struct Merge {
      const std::byte* a;
      const std::byte* b;
      Item* out;
      static std::int64_t at(const std::byte* item) noexcept { return reinterpret_cast<const Item*>(item)->at; }
      void step() noexcept {
        constexpr std::ptrdiff_t size = sizeof(Item);
        const std::ptrdiff_t right = at(b) < at(a) ? -1 : 0;
        *out++ = *reinterpret_cast<const Item*>(a + ((b - a) & right));
        b += size & right;
        a += size & ~right;
      }
    };
    const auto bytes = [](std::span<const Item> items, std::size_t from) { return std::as_bytes(items.subspan(from)); };
    Merge front{bytes(a, 0).data(), bytes(b, 0).data(), out};
    Merge back{bytes(a, low).data(), bytes(b, half - low).data(), out + half};
    for (std::size_t i = 0; i < half; ++i) {
      front.step();
      back.step();
    }
    if (count % 2 != 0) back.step();
  }

  /// Those who come at the same time are served in the order of requests.
  static void settle_ties(std::span<Item> due) {
    for (std::size_t i = 1; i < due.size(); ++i) {
      if (due[i].at != due[i - 1].at || due[i].key > due[i - 1].key) continue;
      const auto same = [at = due[i].at](const Item& item) { return item.at == at; };
      std::size_t first = i - 1;
      while (first > 0 && same(due[first - 1])) --first;
      const auto last = std::find_if_not(due.begin() + static_cast<std::ptrdiff_t>(i), due.end(), same);
      std::sort(due.begin() + static_cast<std::ptrdiff_t>(first), last, earlier);
      i = static_cast<std::size_t>(last - due.begin());
    }
  }

  /// Serve at a steady station; `item_at` gives who comes, in order.
  template <class ItemAt>
  void serve(Desk& desk, std::size_t count, ItemAt item_at) {
    Items& next = desk.next == nullptr ? spread_ : *desk.next;
    for (std::size_t first = 0; first < count; first += block) {
      const std::size_t last = std::min(count, first + block);
      next.make_room(last - first);
      serve(desk, first, last, item_at, next);
      if (desk.next == nullptr) {
        for (const Item& item : std::span(spread_.begin(), spread_.size())) visits_[item.visit() - 1].next->push(item);
        spread_.clear();
      }
    }
  }

  /// Who goes on and who goes home is written to both places, as nobody could predict where a branch would lead.
  template <class ItemAt>
  void serve(Desk& desk, std::size_t first, std::size_t last, const ItemAt& item_at, Items& next) {
    const std::int64_t service_ns = desk.service_ns;
    const std::size_t count = last - first;
    std::int64_t* const free = desk.times.data();
    std::int64_t* const ends = free + desk.instances;
    const auto at = [&](std::size_t i) { return item_at(first + i).at; };
    switch (desk.instances) {
      case 1: find_ends<1>(ends, count, service_ns, at); break;
      case 2: find_ends<2>(ends, count, service_ns, at); break;
      default: find_ends<any_number>(ends, count, service_ns, at, desk.instances); break;
    }
    Visit* const visits = visits_.data();
    std::array<std::int64_t, block + 1> latencies;  // NOLINT(cppcoreguidelines-pro-type-member-init)
    std::int64_t* latency = latencies.data();
    Item* on = next.end();
    std::uint64_t waited_ns = 0;
    std::int64_t waited_ns_max = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const auto& item = item_at(first + i);
      const std::int64_t waited = ends[i] - service_ns - item.at;
      waited_ns += static_cast<std::uint64_t>(waited);
      waited_ns_max = std::max(waited_ns_max, waited);
      Visit& visit = visits[item.visit()];
      const std::int64_t then = ends[i] + visit.after_ns;
      visit.last_ns = then;
      *latency = then - item.arrival;
      latency += visit.home;
      const std::size_t onward = visit.onward;
      *on = {then, item.key + 1, item.arrival, item.sample};
      on += onward;
    }
    if (waited_ns_max >> 54 == 0) {
      desk.wait_ns += static_cast<Wide>(waited_ns);
    } else {  // may be more than a word holds
      for (std::size_t i = 0; i < count; ++i) desk.wait_ns += ends[i] - service_ns - item_at(first + i).at;
    }
    desk.wait_ns_max = std::max(desk.wait_ns_max, waited_ns_max);
    desk.served += count;
    std::copy(ends + count - desk.instances, ends + count, free);
    next.add(static_cast<std::size_t>(on - next.end()));
    welcome({latencies.data(), latency});
  }

  /// Ends of services of those who come `at`, behind the last ends before. Few of these are kept in registers: to read
  /// what was just written takes longer than all else here.
  template <int Instances, class At>
  static void find_ends(std::int64_t* ends, std::size_t count, std::int64_t service_ns, const At& at,
                        std::size_t instances = Instances) {
    std::size_t i = 0;
    if constexpr (Instances > 0) {
      std::array<std::int64_t, Instances> free;  // NOLINT(cppcoreguidelines-pro-type-member-init)
      std::copy(ends - Instances, ends, free.begin());
      for (; i + Instances <= count; i += Instances) {
        for (std::size_t j = 0; j < Instances; ++j) ends[i + j] = free[j] = std::max(free[j], at(i + j)) + service_ns;
      }
    }
    for (; i < count; ++i) ends[i] = std::max(*(ends + i - instances), at(i)) + service_ns;
  }

  void welcome(std::span<const std::int64_t> latencies) {
    latency_ += sum(latencies);
    measure(latencies);
    ended_ += latencies.size();
    counted_ += latencies.size();
  }

  /// Serve items in order. `Instances`: their number if it is small and common, or how they are kept.
  template <int Instances>
  void run(Desk& desk, std::span<const Item> due) {
    std::int64_t* const free = desk.times.data();
    const std::size_t instances = desk.instances;
    Wide busy = 0;
    for (const Item& item : due) {
      const Visit& visit = visits_[item.visit()];
      const std::uint64_t request = item.request();
      const Service& law = visit.consult->service;
      const std::int64_t service =
          law.law == Law::constant ? to_ns(law.a)
                                   : law.draw(seed_, request, visit.station, static_cast<std::uint32_t>(item.sample));
      std::int64_t start = item.at;
      if constexpr (Instances != any_number) start = std::max(item.at, free[0]);
      const std::int64_t done = start + service;
      if constexpr (Instances > 0) {
        // The freed instance leaves the front and comes back where it belongs.
        for (int i = 0; i + 1 < Instances; ++i) {
          free[i] = std::min(free[i + 1], i == 0 ? done : std::max(free[i], done));
        }
        free[Instances - 1] = Instances == 1 ? done : std::max(free[Instances - 1], done);
      } else if constexpr (Instances == list) {
        std::size_t i = 1;
        for (; i < instances && free[i] < done; ++i) free[i - 1] = free[i];
        free[i - 1] = done;
      }
      if (item.arrival >= options_.warmup_ns) {
        desk.note(start - item.at);
        busy += service;
      }
      std::int64_t then = done + visit.after_ns;
      if (visit.random) {
        then += jitter(visit.consult->down, request, visit.draw) + jitter(*visit.enter, request, visit.draw + 1) +
                (visit.up == nullptr ? 0 : jitter(*visit.up, request, visit.draw + 2));
      }
      if (kept(request)) {
        Outcome& row = rows_[request - row_base_].outcome;
        row.queue_ns += start - item.at;
        row.service_ns += service;
      }
      if (visit.onward != 0) {
        visit.next->push({then, item.key + 1, item.arrival, item.sample});
      } else {
        end(visit, item, then);
      }
    }
    station_loads_[&desk - desks_.data()].busy_ns += busy;
  }

  void end(const Visit& visit, const Item& item, std::int64_t at) {
    ++ended_;
    const std::int64_t latency = at - item.arrival;
    if (item.arrival >= options_.warmup_ns) {
      ++counted_;
      latency_ += latency;
      last_end_ = std::max(last_end_, at);
      measure(latency);
    }
    if (!kept(item.request())) return;
    Outcome& row = rows_[item.request() - row_base_].outcome;
    Outcome out = replay_.deliver(visit.lane, static_cast<std::uint32_t>(item.sample), item.request(), no_deadline);
    out.queue_ns = row.queue_ns;
    out.service_ns = row.service_ns;
    out.network_ns = latency - out.queue_ns - out.service_ns;
    row = out;
  }

  /// What stations did, and when the last request was home.
  void put_down() {
    for (const Visit& visit : visits_) {
      if (visit.home != 0) last_end_ = std::max(last_end_, visit.last_ns);
    }
    for (std::size_t d = 0; d < desks_.size(); ++d) {
      const Desk& desk = desks_[d];
      Load& load = station_loads_[d];
      load.served = load.batches = load.batch_size[0] = desk.served;
      load.wait_ns = desk.wait_ns;
      load.wait_ns_max = desk.wait_ns_max;
      if (desk.steady()) load.busy_ns = static_cast<Wide>(desk.served) * desk.service_ns;
    }
  }

  /// Those who arrive before `horizon` become a part, by time, then request; all arrive at `low` or later. What is in
  /// order stays where it is; else they move (true) to `due_`: into about twice as many buckets of time as there are
  /// items, then by insertion.
  bool arrange(Items& items, std::int64_t low, std::int64_t horizon) {
    if (items.size() == 0) return false;
    const std::span<Item> all{items.begin(), items.end()};
    const auto by_time = [](const Item& a, const Item& b) { return a.at < b.at; };
    if (std::is_sorted(all.begin(), all.end(), earlier)) {
      take_due(items, horizon);
      return false;
    }
    if (low == INT64_MIN) low = std::min_element(all.begin(), all.end(), by_time)->at;
    if (horizon <= low) return false;
    const std::int64_t high = horizon == forever ? std::max_element(all.begin(), all.end(), by_time)->at + 1 : horizon;
    const auto range = static_cast<std::uint64_t>(high - low);
    int shift = 0;
    while ((range >> shift) >= 2 * all.size()) ++shift;
    const std::size_t buckets = (range >> shift) + 1;
    starts_.assign(buckets + 1, 0);
    const auto bucket = [&](const Item& item) { return static_cast<std::uint64_t>(item.at - low) >> shift; };
    for (const Item& item : all) {
      if (item.at < high) ++starts_[bucket(item) + 1];
    }
    std::uint32_t most = 0;
    for (std::size_t b = 1; b <= buckets; ++b) {
      most = std::max(most, starts_[b]);
      starts_[b] += starts_[b - 1];
    }
    const std::size_t count = starts_[buckets];
    if (count == 0) return false;
    due_.clear();
    rest_.clear();
    due_.make_room(count);
    rest_.make_room(all.size() - count);
    due_.add(count);
    due_.close();
    Item* const due = due_.begin();
    parts_.emplace_back(due, count);
    for (const Item& item : all) {
      if (item.at < high) {
        due[starts_[bucket(item)]++] = item;
      } else {
        rest_.push(item);
      }
    }
    std::swap(items, rest_);
    if (most > 48) {  // crowded: insertion would be slow
      std::sort(due, due + count, earlier);
      return true;
    }
    for (std::size_t i = 1; i < count; ++i) {
      if (!earlier(due[i], due[i - 1])) continue;
      const Item item = due[i];
      std::size_t at = i;
      for (; at > 0 && earlier(item, due[at - 1]); --at) due[at] = due[at - 1];
      due[at] = item;
    }
    return true;
  }
};

}  // namespace

bool Queues::feeds_forward(std::span<const Lane> lanes, std::span<const Station> stations) {
  return plain(stations) && one_by_one(lanes) &&
         std::all_of(lanes.begin(), lanes.end(), [](const Lane& lane) { return lane.decisions != nullptr; }) &&
         !ordered(lanes, stations.size()).empty();
}

std::unique_ptr<Queues::Core> make_feed_forward(std::vector<Lane> lanes, std::span<const Label> truth,
                                                std::size_t classes, std::uint64_t seed, std::vector<Station> stations,
                                                std::size_t links, std::vector<Outputs> outputs,
                                                const QueueOptions& options) {
  if (!Queues::feeds_forward(lanes, stations)) {
    throw std::invalid_argument("feed-forward needs decisions made ahead, plain stations and an order of visits");
  }
  return std::make_unique<FeedForward>(std::move(lanes), truth, classes, seed, std::move(stations), links,
                                       std::move(outputs), options);
}

}  // namespace coinfer
