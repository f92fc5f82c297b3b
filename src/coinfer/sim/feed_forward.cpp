// The feed-forward engine: no list of events at all.
//
// Where decisions are made ahead, nobody overtakes in a queue and requests visit stations in one order (no cycles), the
// stations can be worked through one after the other, a window of the trace at a time. A station with k instances is
// its k free times in order: who arrives at t starts at max(t, free[0]). What leaves a station goes to the inbox of the
// next one, and is released up to a watermark: the earliest time at which anything could still arrive, from the next
// request of the trace and the shortest ways. Items that arrive at the same time are served in the order of requests,
// as in the other engines.
//
// What decides the speed: an item is 32 bytes; all that is fixed about a visit is added up beforehand; what no queue
// can change (answers, prices) is counted as requests enter; an inbox is put in order by one pass into buckets of time.
// Where every service takes equally long, free times are a ring, and a station that only the trace feeds serves as
// requests enter: no branch there that data decides.
//
// Memory is bounded by a window and by what is on its way.
#include <array>
#include <limits>

#include "coinfer/sim/queues_core.hpp"

namespace coinfer {
namespace {

constexpr std::size_t window = 8192;
constexpr std::size_t block = 512;  // so many enter or are served at a time

constexpr int visit_bits = 24;

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

/// Items in a row: a vector that does not write what it makes room for.
class Items {
 public:
  Item* begin() noexcept { return items_.get(); }
  Item* end() noexcept { return end_; }
  std::size_t size() const noexcept { return static_cast<std::size_t>(end_ - items_.get()); }
  /// Behind the last there must be room. If `kept` is 0 instead of 1, the next one takes its place.
  void push(const Item& item, std::size_t kept = 1) noexcept {
    *end_ = item;
    end_ += kept;
  }
  /// For so many more.
  void make_room(std::size_t count) {
    const std::size_t needed = size() + count;
    if (needed <= capacity_) return;
    capacity_ = std::max(2 * capacity_, needed);
    auto larger = std::make_unique_for_overwrite<Item[]>(capacity_);  // NOLINT(modernize-avoid-c-arrays)
    end_ = std::copy(begin(), end_, larger.get());
    items_ = std::move(larger);
  }
  void resize(std::size_t count) noexcept { end_ = begin() + count; }
  void drop_front(std::size_t count) noexcept { end_ = std::copy(begin() + count, end_, begin()); }
  void swap(Items& other) noexcept {
    items_.swap(other.items_);
    std::swap(end_, other.end_);
    std::swap(capacity_, other.capacity_);
  }

 private:
  std::unique_ptr<Item[]> items_;  // NOLINT(modernize-avoid-c-arrays)
  Item* end_ = nullptr;
  std::size_t capacity_ = 0;
};

/// What a station is doing.
struct Desk {
  // Where all services take equally long, they end in the order in which they began: who comes waits for the one that
  // began `instances` earlier. `next` is its end; behind it, by `instances`, goes the new end, and by `waits` the wait.
  // Else the free times of instances, in order.
  std::int64_t* next = nullptr;
  std::size_t instances = 0;
  std::size_t waits = 0;
  std::int64_t service_ns = -1;  // that every visit takes; -1: not known yet, -2: visits differ
  bool plain = true;             // nothing to draw, all counted, no rows
  bool open = false;             // serves as requests enter
  std::uint64_t served = 0;
  Wide wait_ns = 0;
  std::int64_t wait_ns_max = 0;
  std::int64_t* settled = nullptr;  // `next` after the last block
  std::vector<std::int64_t> times;

  bool steady() const noexcept { return plain && service_ns >= 0 && instances > 0; }

  void start(std::int64_t at) {
    waits = 2 * (instances + block);
    times.assign(steady() ? 2 * waits : instances, at);
    next = settled = times.data();
  }

  /// Serve, where it is steady, and give the end. After a block: `settle`.
  std::int64_t serve(std::int64_t at) noexcept {
    std::int64_t* const slot = next++;
    const std::int64_t begin = *slot > at ? *slot : at;
    const std::int64_t end = begin + service_ns;
    slot[instances] = end;
    slot[waits] = begin - at;
    return end;
  }

  /// After at most a block of `serve`.
  void settle() noexcept {
    served += static_cast<std::uint64_t>(next - settled);
    for (const std::int64_t* slot = settled; slot < next; ++slot) {
      wait_ns += slot[waits];
      wait_ns_max = std::max(wait_ns_max, slot[waits]);
    }
    if (static_cast<std::size_t>(next - times.data()) + instances + block > waits) {
      next = std::copy(next, next + instances, times.data()) - instances;
    }
    settled = next;
  }

  void note(std::int64_t waited) noexcept {
    ++served;
    wait_ns += waited;
    wait_ns_max = std::max(wait_ns_max, waited);
  }
};

/// A visit of one station, and what follows it.
struct alignas(64) Visit {
  std::int64_t after_ns = 0;  // from the end of service to the next station, or to the ingress
  Items* next = nullptr;      // of the next station, or of those at home
  std::uint32_t onward = 0;   // 1; 0 if home is next
  std::uint32_t station = 0;
  std::uint32_t lane = 0;
  std::uint32_t draw = 0;  // of this visit's way down; those that follow count on
  const Consult* consult = nullptr;
  const Leg* enter = nullptr;  // of the next stage, or the way back
  const Leg* up = nullptr;     // of the next stage
  bool random = false;         // ways that follow
};

/// The way of a request from its ingress to its first station and on from there, and how many went it, by the last
/// digit of their code.
struct alignas(128) Way {
  std::int64_t lead_ns = 0;
  Desk* desk = nullptr;
  std::int64_t after_ns = 0;  // as the first visit has it; so too:
  Items* next = nullptr;
  std::uint32_t onward = 0;
  std::uint32_t visit = 0;
  const Leg* enter = nullptr;  // where it is random; so too:
  const Leg* up = nullptr;
  std::array<std::uint64_t, Replay::codes_per_course> count{};
};

/// What a lane's requests need when they enter. A sample's code tells the way and all that no queue can change; above
/// it they are counted.
struct Door {
  std::uint64_t* seen = nullptr;  // [sample]
  Way* ways = nullptr;            // [course]
};

constexpr int code_bits = 16;

/// A station that others feed: from `source` (none: the trace), at least `lag_ns` after it was free to leave there.
struct Feed {
  std::uint32_t source = unbounded;
  std::uint32_t target = 0;
  std::int64_t lag_ns = 0;
};

constexpr std::int64_t later(std::int64_t at, std::int64_t lag) noexcept {
  return at > forever - lag ? forever : at + lag;
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

/// On from stations where nothing is drawn: to the next, or home, which no branch decides, as nobody could predict it.
struct Homecoming {
  std::int64_t* latency;  // of the next who is home
  std::int64_t last_ns;   // no end is later, and the last is not earlier once all are home

  /// `Step`: a visit, or a way with its first.
  template <class Step>
  void go_on(const Step& step, std::int64_t done, const Item& item) noexcept {
    const std::int64_t then = done + step.after_ns;
    const std::size_t onward = step.onward;
    step.next->push({then, item.key + 1, item.arrival, item.sample}, onward);
    *latency = then - item.arrival;
    latency += 1 - onward;
    last_ns = std::max(last_ns, then);
  }
};

class FeedForward final : public Queues::Core {
 public:
  FeedForward(std::vector<Lane> lanes, std::span<const Label> truth, std::size_t classes, std::uint64_t seed,
              std::vector<Station> stations, std::size_t links, std::vector<Outputs> outputs,
              const QueueOptions& options)
      : Core(std::move(lanes), truth, classes, seed, std::move(stations), links, std::move(outputs), options),
        replay_(lanes_, truth, classes, seed),
        order_(ordered(lanes_, config_.size())),
        inbox_(config_.size() + 1),
        desks_(config_.size()),
        horizon_(config_.size()),
        served_until_(config_.size(), INT64_MIN),
        seen_(replay_.group_count()) {
    for (std::size_t d = 0; d < config_.size(); ++d) {
      desks_[d].instances = config_[d].instances;
      desks_[d].plain = !options.rows && options.warmup_ns <= 0;
    }
    for (std::size_t lane = 0; lane < lanes_.size(); ++lane) {
      courses_ = std::max(courses_, replay_.routes(lane).size());
    }
    ways_.resize(lanes_.size() * courses_);
    for (std::uint32_t lane = 0; lane < lanes_.size(); ++lane) lay_out(lane);
    if (visits_.size() >> visit_bits != 0) throw std::invalid_argument("at most 2^24 visits of stations by routes");
    for (std::size_t lane = 0; lane < lanes_.size(); ++lane) {
      std::vector<std::uint64_t>& seen = seen_[replay_.group_of(lane)];
      seen.assign(replay_.codes(lane).begin(), replay_.codes(lane).end());
      doors_.push_back({seen.data(), &ways_[lane * courses_]});
    }
    condense_feeds();
    open_desks();
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
      const std::size_t last = std::min({rows, first + block, first + room_ - entered_});
      enter(batch, first, last);
      if (entered_ == room_) release(last < rows ? batch.arrival_ns[last] : batch.arrival_ns[last - 1]);
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
  std::vector<Way> ways_;  // [lane][course]
  std::size_t courses_ = 0;
  std::vector<Door> doors_;   // [lane]
  std::vector<Feed> feeds_;   // by source, in `order_`, after those of the trace
  std::vector<Items> inbox_;  // [station], and home
  std::vector<Desk> desks_;
  std::vector<std::int64_t> horizon_;             // [station]: nothing arrives earlier any more
  std::vector<std::int64_t> served_until_;        // [station]: the same at the last release
  std::vector<std::vector<std::uint64_t>> seen_;  // [group][sample]: its code, above it how many came
  Wide latency_ = 0;
  std::uint64_t counted_ = 0;
  bool all_open_ = false;      // all first stations
  std::size_t entered_ = 0;    // since the last release
  std::size_t room_ = window;  // for so many
  std::int64_t newest_ = INT64_MIN;

  Items due_;
  Items rest_;
  std::vector<std::uint32_t> starts_;

  /// The visits of each course of a lane, with all that is fixed about the ways between them added up.
  void lay_out(std::uint32_t at) {
    const Lane& lane = lanes_[at];
    const std::size_t stages = lane.plan->stages.size();
    const auto member = [&](std::uint8_t stage) { return lane.plan->stages[stage].first; };
    const auto place = [&](std::uint8_t stage) { return lane.plan->members[member(stage)].deployment; };
    const auto random = [](const Leg* leg) { return leg != nullptr && !leg->jitters.empty(); };
    const std::span<const std::uint8_t> routes = replay_.routes(at);
    for (std::size_t course = 0; course < routes.size(); ++course) {
      const Itinerary& itinerary = lane.decisions->itineraries[routes[course]];
      Way& way = ways_[at * courses_ + course];
      way.visit = static_cast<std::uint32_t>(visits_.size());
      way.desk = &desks_[place(itinerary.front())];
      way.enter = &lane.enter[itinerary.front()];
      way.up = &lane.members[member(itinerary.front())].up;
      way.lead_ns = way.enter->ns + way.up->ns;
      if (!random(way.enter) && !random(way.up)) way.enter = way.up = nullptr;
      feeds_.push_back({unbounded, place(itinerary.front()), way.lead_ns});
      for (std::size_t i = 0; i < itinerary.size(); ++i) {
        const Consult& consult = lane.members[member(itinerary[i])];
        Visit visit;
        visit.lane = at;
        visit.station = place(itinerary[i]);
        Desk& desk = desks_[visit.station];
        visit.next = &inbox_.back();
        visit.draw = static_cast<std::uint32_t>(3 * i + 2);
        visit.consult = &consult;
        visit.after_ns = consult.down.ns;
        if (i + 1 == itinerary.size()) {
          visit.enter = &lane.back[itinerary[i]];
        } else {
          visit.next = &inbox_[place(itinerary[i + 1])];
          visit.onward = 1;
          visit.enter = &lane.enter[(itinerary[i] + std::size_t{1}) * stages + itinerary[i + 1]];
          visit.up = &lane.members[member(itinerary[i + 1])].up;
          visit.after_ns += visit.up->ns;
        }
        visit.after_ns += visit.enter->ns;
        visit.random = random(&consult.down) || random(visit.enter) || random(visit.up);
        const std::int64_t service_ns = consult.service.law == Law::constant ? to_ns(consult.service.a) : -2;
        if (desk.service_ns == -1) desk.service_ns = service_ns;
        if (desk.service_ns != service_ns) desk.service_ns = -2;
        if (visit.random || service_ns < 0) desk.plain = false;
        if (visit.onward != 0) feeds_.push_back({visit.station, place(itinerary[i + 1]), visit.after_ns});
        if (i == 0) {
          way.after_ns = visit.after_ns;
          way.next = visit.next;
          way.onward = visit.onward;
        }
        visits_.push_back(visit);
      }
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

  /// Stations that only the trace feeds, always equally long after an arrival, serve in the order of the trace.
  void open_desks() {
    std::vector<std::int64_t> lead(config_.size(), -1);
    for (Desk& desk : desks_) desk.open = desk.steady();
    for (const Way& way : ways_) {
      if (way.desk == nullptr) continue;
      std::int64_t& known = lead[static_cast<std::size_t>(way.desk - desks_.data())];
      if (way.enter != nullptr || (known >= 0 && known != way.lead_ns)) way.desk->open = false;
      known = way.lead_ns;
    }
    for (const Feed& feed : feeds_) {
      if (feed.source != unbounded) desks_[feed.target].open = false;
    }
    all_open_ =
        std::all_of(ways_.begin(), ways_.end(), [](const Way& way) { return way.desk == nullptr || way.desk->open; });
  }

  /// Of requests that arrived.
  std::vector<std::vector<std::uint64_t>> by_code() const {
    std::vector<std::vector<std::uint64_t>> counts;
    for (std::size_t lane = 0; lane < lanes_.size(); ++lane) {
      counts.emplace_back(replay_.code_count(lane));
      for (std::size_t code = 0; code < counts.back().size(); ++code) {
        counts.back()[code] = doors_[lane].ways[Replay::course_of(code)].count[code % Replay::codes_per_course];
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
    if (arrivals[first] < newest_ || !std::is_sorted(arrivals + first, arrivals + last)) {
      throw std::invalid_argument("arrivals must not go back in time");
    }
    if (arrived_ == 0) {
      for (Desk& desk : desks_) desk.start(arrivals[first]);
    }
    newest_ = arrivals[last - 1];
    const std::size_t counted = std::lower_bound(arrivals + first, arrivals + last, options_.warmup_ns) - arrivals;
    if (counted < last) {
      first_ = std::min(first_, arrivals[counted]);
      last_arrival_ = newest_;
    }
    all_open_ ? enter<true>(batch, first, last, counted) : enter<false>(batch, first, last, counted);
    if (options_.rows) {
      for (std::size_t i = first; i < last; ++i) reserve_row(batch.first + i);
    }
    arrived_ += last - first;
    entered_ += last - first;
  }

  /// `Open`: all first stations are.
  template <bool Open>
  void enter(const Requests& batch, std::size_t first, std::size_t last, std::size_t counted) {
    for (Items& items : inbox_) items.make_room(block);
    const Door* const doors = doors_.data();
    // Codes in a pass of their own: what is written below goes where a code says, and as long as the processor does not
    // know where, it would not ask memory for the next one.
    std::array<std::uint16_t, block> codes;  // NOLINT(cppcoreguidelines-pro-type-member-init)
    for (std::size_t i = first; i < last; ++i) {
      std::uint64_t& seen = doors[batch.lane[i]].seen[static_cast<std::uint32_t>(batch.sample[i])];
      codes[i - first] = static_cast<std::uint16_t>(seen);
      if (Open || i >= counted) seen += std::uint64_t{1} << code_bits;
    }
    Homecoming homecoming = expect(last - first);
    for (std::size_t i = first; i < last; ++i) {
      const std::int64_t arrival = batch.arrival_ns[i];
      const std::size_t code = codes[i - first];
      Way& way = doors[batch.lane[i]].ways[Replay::course_of(code)];
      const std::uint64_t request = batch.first + i;
      if (Open || i >= counted) ++way.count[code % Replay::codes_per_course];
      Item item{arrival + way.lead_ns, request << visit_bits | way.visit, arrival,
                static_cast<std::uint32_t>(batch.sample[i])};
      if (!Open && way.enter != nullptr) item.at += jitter(*way.enter, request, 0) + jitter(*way.up, request, 1);
      if (Open || way.desk->open) {
        homecoming.go_on(way, way.desk->serve(item.at), item);
      } else {
        inbox_[static_cast<std::size_t>(way.desk - desks_.data())].push(item);
      }
    }
    for (Desk& desk : desks_) {
      if (desk.open) desk.settle();
    }
    welcome(homecoming);
  }

  Homecoming expect(std::size_t count) { return {latencies_room(count), last_end_}; }

  void welcome(const Homecoming& homecoming) {
    const std::int64_t* const latencies = latencies_room(0);
    const auto count = static_cast<std::size_t>(homecoming.latency - latencies);
    for (std::size_t i = 0; i < count; ++i) latency_ += latencies[i];
    measure_written(count);
    last_end_ = homecoming.last_ns;
    ended_ += count;
    counted_ += count;
  }

  /// Work through all stations, as far as nothing earlier can come from requests that arrive at or after `next`.
  void release(std::int64_t next) {
    std::fill(horizon_.begin(), horizon_.end(), forever);
    auto feed = feeds_.begin();
    const auto pass_on = [&](std::uint32_t source, std::int64_t from) {
      for (; feed != feeds_.end() && feed->source == source; ++feed) {
        horizon_[feed->target] = std::min(horizon_[feed->target], later(from, feed->lag_ns));
      }
    };
    pass_on(unbounded, next);
    for (const std::uint32_t station : order_) {
      for (auto onward = feed; onward != feeds_.end() && onward->source == station; ++onward) {
        inbox_[onward->target].make_room(inbox_[station].size());
      }
      serve(station, horizon_[station]);
      pass_on(station, horizon_[station]);
    }
    entered_ = 0;
    // As many as are under way, so that looking through these costs no more than the requests do.
    room_ = std::max(window, static_cast<std::size_t>(in_flight()));
  }

  void serve(std::uint32_t station, std::int64_t horizon) {
    Items& items = inbox_[station];
    if (items.size() == 0) return;
    const std::span<const Item> due = arrange(items, served_until_[station], horizon);
    Desk& desk = desks_[station];
    if (desk.steady()) {
      for (std::size_t first = 0; first < due.size(); first += block) {
        serve(desk, due.subspan(first, std::min(block, due.size() - first)));
      }
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
    served_until_[station] = std::max(served_until_[station], horizon);
    if (due.data() == items.begin()) items.drop_front(due.size());
  }

  void serve(Desk& desk, std::span<const Item> due) {
    Homecoming homecoming = expect(due.size());
    for (const Item& item : due) {
      homecoming.go_on(visits_[item.visit()], desk.serve(item.at), item);
    }
    desk.settle();
    welcome(homecoming);
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

  /// What stations did.
  void put_down() {
    for (std::size_t d = 0; d < desks_.size(); ++d) {
      const Desk& desk = desks_[d];
      Load& load = station_loads_[d];
      load.served = load.batches = load.batch_size[0] = desk.served;
      load.wait_ns = desk.wait_ns;
      load.wait_ns_max = desk.wait_ns_max;
      if (desk.steady()) load.busy_ns = static_cast<Wide>(desk.served) * desk.service_ns;
    }
  }

  /// Those who arrive before `horizon`, by time, then request; all arrive at `low` or later. What is in order stays
  /// where it is; else they move to `due_`: into about twice as many buckets of time as there are items, then by
  /// insertion.
  std::span<const Item> arrange(Items& items, std::int64_t low, std::int64_t horizon) {
    const std::span<Item> all{items.begin(), items.end()};
    const auto by_time = [](const Item& a, const Item& b) { return a.at < b.at; };
    if (std::is_sorted(all.begin(), all.end(), earlier)) {
      const auto late =
          std::partition_point(all.begin(), all.end(), [&](const Item& item) { return item.at < horizon; });
      return all.first(static_cast<std::size_t>(late - all.begin()));
    }
    if (low == INT64_MIN) low = std::min_element(all.begin(), all.end(), by_time)->at;
    if (horizon <= low) return {};
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
    due_.resize(0);
    rest_.resize(0);
    due_.make_room(count);
    rest_.make_room(all.size() - count);
    due_.resize(count);
    Item* const due = due_.begin();
    for (const Item& item : all) {
      if (item.at < high) {
        due[starts_[bucket(item)]++] = item;
      } else {
        rest_.push(item);
      }
    }
    items.swap(rest_);
    if (most > 48) {  // crowded: insertion would be slow
      std::sort(due_.begin(), due_.end(), earlier);
      return {due, count};
    }
    for (std::size_t i = 1; i < count; ++i) {
      if (!earlier(due[i], due[i - 1])) continue;
      const Item item = due[i];
      std::size_t at = i;
      for (; at > 0 && earlier(item, due[at - 1]); --at) due[at] = due[at - 1];
      due[at] = item;
    }
    return {due, count};
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
