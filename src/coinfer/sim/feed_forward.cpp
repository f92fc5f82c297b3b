// The feed-forward engine: no list of events at all.
//
// Where decisions are made ahead, nobody overtakes in a queue and requests visit stations in one order (no cycles), the
// stations can be worked through one after the other, a window of the trace at a time. A station with k instances that
// all take equally long starts its n-th request when the (n - k)-th is done, a ring of k times; else it is its k free
// times in order (Kiefer and Wolfowitz 1955): who arrives at t starts at max(t, free[0]). What leaves a station goes to
// the inbox of the next one, and is released up to a watermark: the earliest time at which anything could still arrive,
// from the next request of the trace and the shortest ways. Items that arrive at the same time are served in the order
// of requests, as in the other engines.
//
// Memory is bounded by a window and by what is on its way. What does not depend on time (answers, prices) is counted
// when a request enters.
#include <bit>
#include <memory>
#include <tuple>

#include "coinfer/sim/queues_core.hpp"

namespace coinfer {
namespace {

constexpr std::size_t window_min = 4096;

/// A visit of one station, and what follows it.
struct Visit {
  std::int64_t after_ns = 0;  // from the end of service to the next station, or to the ingress
  std::uint32_t next = 0;     // station; after the last visit the place of nobody
  bool last = false;
  bool random = false;     // jitter on the way that follows
  std::uint32_t draw = 0;  // of this visit's way down; those that follow count on
  std::uint32_t station = 0;
  std::uint32_t lane = 0;
  const Consult* consult = nullptr;
  const Leg* enter = nullptr;  // of the next stage, or the way back
  const Leg* up = nullptr;     // of the next stage
};

struct Item {
  std::int64_t at = 0;
  std::int64_t arrival = 0;
  std::uint64_t request = 0;
  std::uint32_t sample = 0;
  std::uint32_t visit = 0;
};

/// Items on their way to a station, in no order; written at `end` by whoever feeds it, after making room.
struct Inbox {
  std::unique_ptr<Item[]> items;
  std::size_t room = 0;
  std::size_t size = 0;

  void make_room(std::size_t more) {
    if (size + more <= room) return;
    const std::size_t wanted = std::max(size + more, 2 * room);
    std::unique_ptr<Item[]> larger(new Item[wanted]);
    std::copy_n(items.get(), size, larger.get());
    items = std::move(larger);
    room = wanted;
  }
};

/// A station that others feed: from `source` (none: the trace), at least `lag_ns` after it was free to leave there.
struct Feed {
  std::uint32_t source = unbounded;
  std::uint32_t target = 0;
  std::int64_t lag_ns = 0;
};

bool earlier(const Item& a, const Item& b) noexcept { return a.at < b.at || (a.at == b.at && a.request < b.request); }

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

class FeedForward final : public Queues::Core {
 public:
  FeedForward(std::vector<Lane> lanes, std::span<const Label> truth, std::size_t classes, std::uint64_t seed,
              std::vector<Station> stations, std::size_t links, std::vector<Outputs> outputs,
              const QueueOptions& options)
      : Core(std::move(lanes), truth, classes, seed, std::move(stations), links, std::move(outputs), options),
        replay_(lanes_, truth, classes, seed),
        order_(ordered(lanes_, config_.size())),
        inbox_(config_.size() + 1),
        free_(config_.size()),
        turn_(config_.size()),
        horizon_(config_.size()),
        by_sample_(replay_.group_count()) {
    for (std::size_t d = 0; d < config_.size(); ++d) free_[d].assign(config_[d].instances, INT64_MIN / 2);
    for (auto& counts : by_sample_) counts.resize(lanes_.front().evidence->rows);
    for (std::uint32_t lane = 0; lane < lanes_.size(); ++lane) lay_out(lane);
    gather_feeds();
  }

  std::uint64_t in_flight() const noexcept override { return arrived_ - ended_; }

  void push(const Requests& batch) override {
    const std::size_t rows = batch.sample.size();
    if (batch.arrival_ns.size() != rows) throw std::invalid_argument("queues need arrival times");
    if (!batch.deadline_ns.empty() || !batch.priority.empty()) {
      throw std::invalid_argument("feed-forward knows neither deadlines nor priorities");
    }
    for (std::size_t first = 0; first < rows;) {
      const std::size_t last = std::min(rows, first + (window_ - entered_));
      for (std::size_t i = first; i < last; ++i) enter(batch, i);
      entered_ += last - first;
      first = last;
      if (entered_ < window_) break;  // the next batch fills it
      release(last < rows ? batch.arrival_ns[last] : newest_);
      entered_ = 0;
      // Where much is under way, looking through it costs more than a larger window.
      window_ = std::max<std::size_t>(window_min, in_flight());
    }
  }

  void finish() override {
    release(forever);
    if (in_flight() != 0) throw std::logic_error("requests were left under way");
  }

  Tally tally() const override {
    Tally times = Core::tally();
    Tally out = replay_.counted(by_code_, by_sample_);
    if (out.requests != counted_) throw std::logic_error("requests were lost or counted twice");
    out.latency_ns = latency_;
    for (const Load& load : station_loads_) {
      out.queue_ns += load.wait_ns;
      out.service_ns += load.busy_ns;
    }
    out.network_ns = latency_ - out.queue_ns - out.service_ns;
    out.latencies = std::move(times.latencies);
    return out;
  }

 private:
  struct Way {
    std::uint32_t first = 0;  // visit
    std::uint32_t station = 0;
    std::int64_t lead_ns = 0;
    const Leg* enter = nullptr;
    const Leg* up = nullptr;
    bool random = false;
  };

  Replay replay_;
  std::vector<std::uint32_t> order_;
  std::vector<Visit> visits_;
  std::vector<std::vector<Way>> ways_;  // [lane][route]
  std::vector<Feed> feeds_;             // by source
  std::vector<std::size_t> feeds_of_;   // [station]: its first feed
  std::vector<Inbox> inbox_;            // [station]; the last is nobody's
  std::vector<std::vector<std::int64_t>> free_;
  std::vector<std::size_t> turn_;      // [station]: position in the ring
  std::vector<std::int64_t> horizon_;  // [station]: nothing arrives earlier any more
  std::vector<std::vector<std::uint64_t>> by_code_;
  std::vector<std::vector<std::uint64_t>> by_sample_;
  Wide latency_ = 0;
  std::uint64_t counted_ = 0;
  std::int64_t newest_ = 0;
  std::size_t window_ = window_min;
  std::size_t entered_ = 0;  // since the last release
  std::vector<Item> due_;
  std::vector<Item> scratch_;
  std::vector<std::uint32_t> starts_;
  std::vector<std::int64_t> ends_;  // latencies

  /// The visits of each route of a lane, with all that is fixed about the ways between them added up.
  void lay_out(std::uint32_t at) {
    const Lane& lane = lanes_[at];
    const std::size_t stages = lane.plan->stages.size();
    by_code_.emplace_back(replay_.code_count(at));
    ways_.emplace_back();
    const auto member = [&](std::uint8_t stage) { return lane.plan->stages[stage].first; };
    const auto place = [&](std::uint8_t stage) { return lane.plan->members[member(stage)].deployment; };
    for (const Itinerary& itinerary : lane.decisions->itineraries) {
      Way way;
      way.first = static_cast<std::uint32_t>(visits_.size());
      way.station = place(itinerary.front());
      way.enter = &lane.enter[itinerary.front()];
      way.up = &lane.members[member(itinerary.front())].up;
      way.lead_ns = way.enter->ns + way.up->ns;
      way.random = !way.enter->jitters.empty() || !way.up->jitters.empty();
      feeds_.push_back({unbounded, way.station, way.lead_ns});
      for (std::size_t i = 0; i < itinerary.size(); ++i) {
        Visit visit;
        visit.station = place(itinerary[i]);
        visit.lane = at;
        visit.consult = &lane.members[member(itinerary[i])];
        visit.last = i + 1 == itinerary.size();
        visit.next = visit.last ? static_cast<std::uint32_t>(config_.size()) : place(itinerary[i + 1]);
        visit.draw = static_cast<std::uint32_t>(3 * i + 2);
        visit.after_ns = visit.consult->down.ns;
        visit.random = !visit.consult->down.jitters.empty();
        if (visit.last) {
          visit.enter = &lane.back[itinerary[i]];
        } else {
          visit.enter = &lane.enter[(itinerary[i] + std::size_t{1}) * stages + itinerary[i + 1]];
          visit.up = &lane.members[member(itinerary[i + 1])].up;
          visit.after_ns += visit.up->ns;
          visit.random = visit.random || !visit.up->jitters.empty();
        }
        visit.after_ns += visit.enter->ns;
        visit.random = visit.random || !visit.enter->jitters.empty();
        if (!visit.last) feeds_.push_back({visit.station, visit.next, visit.after_ns});
        visits_.push_back(visit);
      }
      ways_.back().push_back(way);
    }
  }

  /// Sort feeds by source, and keep the shortest of each pair.
  void gather_feeds() {
    std::sort(feeds_.begin(), feeds_.end(), [](const Feed& a, const Feed& b) {
      return std::tie(a.source, a.target, a.lag_ns) < std::tie(b.source, b.target, b.lag_ns);
    });
    feeds_.erase(std::unique(feeds_.begin(), feeds_.end(),
                             [](const Feed& a, const Feed& b) { return a.source == b.source && a.target == b.target; }),
                 feeds_.end());
    for (std::uint32_t station = 0; station <= config_.size(); ++station) {
      const auto first =
          std::partition_point(feeds_.begin(), feeds_.end(), [&](const Feed& feed) { return feed.source < station; });
      feeds_of_.push_back(static_cast<std::size_t>(first - feeds_.begin()));
    }
  }

  /// What a station feeds; the trace is the station after the last.
  std::span<const Feed> fed_by(std::size_t station) const {
    const std::size_t last = station < config_.size() ? feeds_of_[station + 1] : feeds_.size();
    return std::span(feeds_).subspan(feeds_of_[station], last - feeds_of_[station]);
  }

  std::int64_t jitter(const Leg& leg, std::uint64_t request, std::uint32_t draw) const noexcept {
    return travel(leg, seed_, request, draw) - leg.ns;
  }

  void enter(const Requests& batch, std::size_t i) {
    Item item;
    item.arrival = batch.arrival_ns[i];
    if (item.arrival < newest_) throw std::invalid_argument("arrivals must not go back in time");
    newest_ = item.arrival;
    item.request = batch.first + i;
    item.sample = static_cast<std::uint32_t>(batch.sample[i]);
    const auto lane = static_cast<std::size_t>(batch.lane[i]);
    const std::size_t code = replay_.codes(lane)[item.sample];
    const Way& way = ways_[lane][Replay::route_of(code)];
    item.visit = way.first;
    item.at = item.arrival + way.lead_ns;
    if (way.random) item.at += jitter(*way.enter, item.request, 0) + jitter(*way.up, item.request, 1);
    ++arrived_;
    if (item.arrival >= options_.warmup_ns) {
      if (first_ == forever) first_ = item.arrival;
      last_arrival_ = item.arrival;
      ++by_code_[lane][code];
      ++by_sample_[replay_.group_of(lane)][item.sample];
    }
    if (options_.rows) reserve_row(item.request);
    Inbox& inbox = inbox_[way.station];
    inbox.make_room(1);
    inbox.items[inbox.size++] = item;
  }

  /// Work through all stations, as far as nothing earlier can come from requests that arrive at or after `next`.
  void release(std::int64_t next) {
    std::fill(horizon_.begin(), horizon_.end(), forever);
    const auto tell = [&](std::size_t station, std::int64_t horizon) {
      for (const Feed& feed : fed_by(station)) {
        const std::int64_t at = horizon > forever - feed.lag_ns ? forever : horizon + feed.lag_ns;
        horizon_[feed.target] = std::min(horizon_[feed.target], at);
      }
    };
    tell(config_.size(), next);
    for (const std::uint32_t station : order_) {
      serve(station, horizon_[station]);
      tell(station, horizon_[station]);
    }
  }

  void serve(std::uint32_t station, std::int64_t horizon) {
    Inbox& inbox = inbox_[station];
    if (inbox.size == 0) return;
    due_.clear();
    std::size_t later = 0;
    for (std::size_t i = 0; i < inbox.size; ++i) {
      if (inbox.items[i].at < horizon) {
        due_.push_back(inbox.items[i]);
      } else {
        inbox.items[later++] = inbox.items[i];
      }
    }
    inbox.size = later;
    if (due_.empty()) return;
    if (!std::is_sorted(due_.begin(), due_.end(), earlier)) arrange(due_);
    for (const Feed& feed : fed_by(station)) inbox_[feed.target].make_room(due_.size() + 1);
    inbox_.back().make_room(1);
    const Service& law = visits_[due_.front().visit].consult->service;
    if (law.law == Law::constant && config_[station].instances > 0 && !options_.rows) {
      run<true>(station, to_ns(law.a));
    } else {
      run<false>(station, 0);
    }
    conclude();
  }

  /// Serve what is due, in order. `Constant`: all take `fixed_ns`, and nobody asks for rows.
  template <bool Constant>
  void run(std::uint32_t station, std::int64_t fixed_ns) {
    std::int64_t* const free = free_[station].data();
    const std::size_t instances = free_[station].size();
    std::size_t turn = turn_[station];
    ends_.resize(due_.size() + 1);
    std::size_t ended = 0;
    std::int64_t last_end = last_end_;
    std::uint64_t left = 0;
    Load load;
    for (Item item : due_) {
      const Visit& visit = visits_[item.visit];
      std::int64_t start = item.at;
      std::int64_t service = fixed_ns;
      if constexpr (Constant) {
        start = std::max(start, free[turn]);
        free[turn] = start + service;
        turn = turn + 1 == instances ? 0 : turn + 1;
      } else {
        service = visit.consult->service.draw(seed_, item.request, visit.station, item.sample);
        if (instances > 0) start = std::max(start, free[0]);
        insert(free, instances, start + service);
      }
      const std::int64_t waited = start - item.at;
      const bool counts = item.arrival >= options_.warmup_ns;
      load.served += counts ? 1 : 0;
      load.busy_ns += counts ? service : 0;
      load.wait_ns += counts ? waited : 0;
      load.wait_ns_max = std::max(load.wait_ns_max, counts ? waited : 0);
      std::int64_t then = start + service + visit.after_ns;
      if (visit.random) {
        then += jitter(visit.consult->down, item.request, visit.draw) +
                jitter(*visit.enter, item.request, visit.draw + 1) +
                (visit.last ? 0 : jitter(*visit.up, item.request, visit.draw + 2));
      }
      if constexpr (!Constant) {
        if (kept(item.request)) note(item, visit, waited, service, then);
      }
      // Who goes on and who has ended is hard to guess: both are written, one counts.
      ends_[ended] = then - item.arrival;
      ended += visit.last && counts ? 1 : 0;
      last_end = std::max(last_end, visit.last && counts ? then : 0);
      left += visit.last ? 1 : 0;
      item.at = then;
      ++item.visit;
      Inbox& inbox = inbox_[visit.next];
      inbox.items[inbox.size] = item;
      inbox.size += visit.last ? 0 : 1;
    }
    turn_[station] = turn;
    last_end_ = last_end;
    ended_ += left;
    ends_.resize(ended);
    Load& total = station_loads_[station];
    total.served += load.served;
    total.batches += load.served;
    total.batch_size[0] += load.served;
    total.busy_ns += load.busy_ns;
    total.wait_ns += load.wait_ns;
    total.wait_ns_max = std::max(total.wait_ns_max, load.wait_ns_max);
  }

  /// The instance that is free first is taken until `done`.
  static void insert(std::int64_t* free, std::size_t instances, std::int64_t done) noexcept {
    if (instances == 0) return;
    std::size_t i = 1;
    for (; i < instances && free[i] < done; ++i) free[i - 1] = free[i];
    free[i - 1] = done;
  }

  /// Add the latencies of a run up.
  void conclude() {
    counted_ += ends_.size();
    for (const std::int64_t latency : ends_) latency_ += latency;
    measure(ends_);
  }

  /// What a visit says about its request's row.
  void note(const Item& item, const Visit& visit, std::int64_t waited, std::int64_t service, std::int64_t then) {
    Outcome& row = rows_[item.request - row_base_].outcome;
    row.queue_ns += waited;
    row.service_ns += service;
    if (!visit.last) return;
    Outcome out = replay_.deliver(visit.lane, item.sample, item.request, no_deadline);
    out.queue_ns = row.queue_ns;
    out.service_ns = row.service_ns;
    out.network_ns = then - item.arrival - row.queue_ns - row.service_ns;
    row = out;
  }

  /// Sort by time, then request: into as many buckets of time as there are items, then by insertion.
  void arrange(std::vector<Item>& items) {
    const std::size_t count = items.size();
    if (count < 64) {
      std::sort(items.begin(), items.end(), earlier);
      return;
    }
    std::int64_t low = items.front().at;
    std::int64_t high = low;
    for (const Item& item : items) {
      low = std::min(low, item.at);
      high = std::max(high, item.at);
    }
    // Buckets of a power of two in time: one to two for each item.
    const auto range = static_cast<std::uint64_t>(high - low);
    const int shift = std::max(0, static_cast<int>(std::bit_width(range)) - static_cast<int>(std::bit_width(count)));
    const auto bucket = [&](const Item& item) { return static_cast<std::uint64_t>(item.at - low) >> shift; };
    starts_.assign((range >> shift) + 2, 0);
    for (const Item& item : items) ++starts_[bucket(item) + 1];
    if (*std::max_element(starts_.begin(), starts_.end()) > 48) {  // crowded: insertion would be slow
      std::sort(items.begin(), items.end(), earlier);
      return;
    }
    for (std::size_t i = 1; i < starts_.size(); ++i) starts_[i] += starts_[i - 1];
    scratch_.resize(count);
    for (const Item& item : items) scratch_[starts_[bucket(item)]++] = item;
    for (std::size_t i = 1; i < count; ++i) {
      if (!earlier(scratch_[i], scratch_[i - 1])) continue;
      const Item item = scratch_[i];
      std::size_t at = i;
      for (; at > 0 && earlier(item, scratch_[at - 1]); --at) scratch_[at] = scratch_[at - 1];
      scratch_[at] = item;
    }
    items.swap(scratch_);
  }
};

}  // namespace

bool Queues::feeds_forward(std::span<const Lane> lanes, std::span<const Station> stations) {
  if (!plain(stations)) return false;
  for (const Lane& lane : lanes) {
    if (!lane.decisions) return false;
    const auto free = [](const Leg& leg) { return leg.hops.empty(); };
    if (!std::all_of(lane.plan->stages.begin(), lane.plan->stages.end(),
                     [](const Stage& stage) { return stage.count == 1; }) ||
        !std::all_of(lane.enter.begin(), lane.enter.end(), free) ||
        !std::all_of(lane.back.begin(), lane.back.end(), free) ||
        !std::all_of(lane.members.begin(), lane.members.end(),
                     [&](const Consult& member) { return free(member.up) && free(member.down); })) {
      return false;
    }
  }
  return !ordered(lanes, stations.size()).empty();
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
