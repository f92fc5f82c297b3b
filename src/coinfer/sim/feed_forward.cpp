// The feed-forward engine: no list of events at all.
//
// Where decisions are made ahead, nobody overtakes in a queue and requests visit stations in one order (no cycles), the
// stations can be worked through one after the other, a window of the trace at a time. A station with k instances is
// its k free times in order: who arrives at t starts at max(t, free[0]), and free times stay sorted by one min and one
// max each, without a branch. What leaves a station goes to the inbox of the next one, and is released up to a
// watermark: the earliest time at which anything could still arrive, from the next request of the trace and the
// shortest ways. Items that arrive at the same time are served in the order of requests, as in the other engines.
//
// Memory is bounded by a window and by what is on its way.
#include <limits>

#include "coinfer/sim/queues_core.hpp"

namespace coinfer {
namespace {

constexpr std::size_t window = 8192;

/// A visit of one station, and what follows it.
struct Visit {
  std::uint32_t station = 0;
  bool last = false;
  bool random = false;        // jitter on the way that follows
  std::int64_t after_ns = 0;  // from the end of service to the next station, or to the ingress
  const Consult* consult = nullptr;
  const Leg* enter = nullptr;  // of the next stage, or the way back
  const Leg* up = nullptr;     // of the next stage
  std::uint32_t draw = 0;      // of this visit's way down; those that follow count on
};

struct Item {
  std::int64_t at = 0;
  std::int64_t arrival = 0;
  std::int64_t queue = 0;
  std::int64_t service = 0;
  std::uint64_t request = 0;
  std::uint32_t sample = 0;
  std::uint32_t visit = 0;
  std::uint32_t lane = 0;
};

struct Inbox {
  std::vector<Item> items;
  bool sorted = true;

  void push(const Item& item) {
    sorted = sorted && (items.empty() || items.back().at < item.at ||
                        (items.back().at == item.at && items.back().request < item.request));
    items.push_back(item);
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
        inbox_(config_.size()),
        free_(config_.size()),
        horizon_(config_.size()),
        by_sample_(replay_.group_count()) {
    for (std::size_t d = 0; d < config_.size(); ++d) free_[d].assign(config_[d].instances, INT64_MIN);
    for (auto& counts : by_sample_) counts.resize(lanes_.front().evidence->rows);
    for (std::uint32_t lane = 0; lane < lanes_.size(); ++lane) lay_out(lane);
  }

  std::uint64_t in_flight() const noexcept override { return arrived_ - ended_; }

  void push(const Requests& batch) override {
    const std::size_t rows = batch.sample.size();
    if (batch.arrival_ns.size() != rows) throw std::invalid_argument("queues need arrival times");
    if (!batch.deadline_ns.empty() || !batch.priority.empty()) {
      throw std::invalid_argument("feed-forward knows neither deadlines nor priorities");
    }
    for (std::size_t first = 0; first < rows; first += window) {
      const std::size_t last = std::min(rows, first + window);
      for (std::size_t i = first; i < last; ++i) enter(batch, i);
      release(last < rows ? batch.arrival_ns[last] : batch.arrival_ns[last - 1]);
    }
  }

  void finish() override {
    release(forever);
    if (in_flight() != 0) throw std::logic_error("requests were left under way");
  }

  Tally tally() const override {
    const Tally times = Core::tally();
    Tally out = replay_.counted(by_code_, by_sample_);
    if (out.requests != counted_) throw std::logic_error("requests were lost or counted twice");
    out.latency_ns = latency_;
    out.queue_ns = queue_;
    out.service_ns = service_;
    out.network_ns = latency_ - queue_ - service_;
    out.latencies = times.latencies;
    return out;
  }

 private:
  struct Way {
    std::uint32_t first = 0;  // visit
    std::int64_t lead_ns = 0;
    const Leg* enter = nullptr;
    const Leg* up = nullptr;
    bool random = false;
  };

  Replay replay_;
  std::vector<std::uint32_t> order_;
  std::vector<Visit> visits_;
  std::vector<std::vector<Way>> ways_;  // [lane][route]
  std::vector<Feed> feeds_;
  std::vector<Inbox> inbox_;
  std::vector<std::vector<std::int64_t>> free_;
  std::vector<std::int64_t> horizon_;  // [station]: nothing arrives earlier any more
  std::vector<std::vector<std::uint64_t>> by_code_;
  std::vector<std::vector<std::uint64_t>> by_sample_;
  Wide latency_ = 0;
  Wide queue_ = 0;
  Wide service_ = 0;
  std::uint64_t counted_ = 0;
  std::int64_t newest_ = 0;
  std::vector<Item> scratch_;
  std::vector<std::uint32_t> starts_;

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
      way.enter = &lane.enter[itinerary.front()];
      way.up = &lane.members[member(itinerary.front())].up;
      way.lead_ns = way.enter->ns + way.up->ns;
      way.random = !way.enter->jitters.empty() || !way.up->jitters.empty();
      feeds_.push_back({unbounded, place(itinerary.front()), way.lead_ns});
      for (std::size_t i = 0; i < itinerary.size(); ++i) {
        Visit visit;
        visit.station = place(itinerary[i]);
        visit.consult = &lane.members[member(itinerary[i])];
        visit.last = i + 1 == itinerary.size();
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
        if (!visit.last) feeds_.push_back({visit.station, place(itinerary[i + 1]), visit.after_ns});
        visits_.push_back(visit);
      }
      ways_.back().push_back(way);
    }
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
    item.lane = static_cast<std::uint32_t>(batch.lane[i]);
    item.sample = static_cast<std::uint32_t>(batch.sample[i]);
    const Way& way = ways_[item.lane][lanes_[item.lane].decisions->route[item.sample]];
    item.visit = way.first;
    item.at = item.arrival + way.lead_ns;
    if (way.random) item.at += jitter(*way.enter, item.request, 0) + jitter(*way.up, item.request, 1);
    ++arrived_;
    if (item.arrival >= options_.warmup_ns) {
      first_ = std::min(first_, item.arrival);
      last_arrival_ = item.arrival;
    }
    if (options_.rows) reserve_row(item.request);
    inbox_[visits_[item.visit].station].push(item);
  }

  /// Work through all stations, as far as nothing earlier can come from requests that arrive at or after `next`.
  void release(std::int64_t next) {
    std::fill(horizon_.begin(), horizon_.end(), forever);
    const auto later = [](std::int64_t at, std::int64_t lag) { return at > forever - lag ? forever : at + lag; };
    for (const Feed& feed : feeds_) {
      if (feed.source == unbounded) horizon_[feed.target] = std::min(horizon_[feed.target], later(next, feed.lag_ns));
    }
    for (const std::uint32_t station : order_) {
      serve(station, horizon_[station]);
      for (const Feed& feed : feeds_) {
        if (feed.source != station) continue;
        horizon_[feed.target] = std::min(horizon_[feed.target], later(horizon_[station], feed.lag_ns));
      }
    }
  }

  void serve(std::uint32_t station, std::int64_t horizon) {
    Inbox& inbox = inbox_[station];
    if (inbox.items.empty()) return;
    if (!inbox.sorted) arrange(inbox.items);
    inbox.sorted = true;
    std::vector<Item>& items = inbox.items;
    const auto end = horizon == forever ? items.end()
                                        : std::partition_point(items.begin(), items.end(),
                                                               [&](const Item& item) { return item.at < horizon; });
    const auto count = static_cast<std::size_t>(end - items.begin());
    const std::span<Item> due{items.data(), count};
    switch (config_[station].instances) {
      case 0: run<0>(station, due); break;
      case 1: run<1>(station, due); break;
      case 2: run<2>(station, due); break;
      case 4: run<4>(station, due); break;
      case 8: run<8>(station, due); break;
      default: run<-1>(station, due); break;
    }
    items.erase(items.begin(), end);
  }

  /// Serve items in order. `Instances`: their number if it is small and common, else -1; 0 is any number.
  template <int Instances>
  void run(std::uint32_t station, std::span<const Item> due) {
    std::int64_t* const free = free_[station].data();
    const std::size_t instances = free_[station].size();
    Load load;
    for (Item item : due) {
      const Visit& visit = visits_[item.visit];
      const Service& law = visit.consult->service;
      const std::int64_t service =
          law.law == Law::constant ? to_ns(law.a) : law.draw(seed_, item.request, visit.station, item.sample);
      std::int64_t start = item.at;
      if constexpr (Instances != 0) start = std::max(item.at, free[0]);
      const std::int64_t done = start + service;
      if constexpr (Instances > 0) {
        // The freed instance leaves the front and comes back where it belongs.
        for (int i = 0; i + 1 < Instances; ++i) {
          free[i] = std::min(free[i + 1], i == 0 ? done : std::max(free[i], done));
        }
        free[Instances - 1] = Instances == 1 ? done : std::max(free[Instances - 1], done);
      } else if constexpr (Instances < 0) {
        std::size_t i = 1;
        for (; i < instances && free[i] < done; ++i) free[i - 1] = free[i];
        free[i - 1] = done;
      }
      const std::int64_t waited = start - item.at;
      item.queue += waited;
      item.service += service;
      if (item.arrival >= options_.warmup_ns) {
        ++load.served;
        load.busy_ns += service;
        load.wait_ns += waited;
        load.wait_ns_max = std::max(load.wait_ns_max, waited);
      }
      std::int64_t then = done + visit.after_ns;
      if (visit.random) {
        then += jitter(visit.consult->down, item.request, visit.draw) +
                jitter(*visit.enter, item.request, visit.draw + 1) +
                (visit.last ? 0 : jitter(*visit.up, item.request, visit.draw + 2));
      }
      if (visit.last) {
        end(item, then);
      } else {
        item.at = then;
        ++item.visit;
        inbox_[visits_[item.visit].station].push(item);
      }
    }
    Load& total = station_loads_[station];
    total.served += load.served;
    total.batches += load.served;
    total.batch_size[0] += load.served;
    total.busy_ns += load.busy_ns;
    total.wait_ns += load.wait_ns;
    total.wait_ns_max = std::max(total.wait_ns_max, load.wait_ns_max);
  }

  void end(const Item& item, std::int64_t at) {
    ++ended_;
    const std::int64_t latency = at - item.arrival;
    if (item.arrival >= options_.warmup_ns) {
      ++counted_;
      ++by_code_[item.lane][replay_.codes(item.lane)[item.sample]];
      ++by_sample_[replay_.group_of(item.lane)][item.sample];
      latency_ += latency;
      queue_ += item.queue;
      service_ += item.service;
      last_end_ = std::max(last_end_, at);
      measure(latency);
    }
    if (options_.rows && kept(item.request)) {
      Outcome out = replay_.deliver(item.lane, item.sample, item.request, no_deadline);
      out.queue_ns = item.queue;
      out.service_ns = item.service;
      out.network_ns = latency - item.queue - item.service;
      rows_[item.request - row_base_].outcome = out;
    }
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
    const double scale = static_cast<double>(count - 1) / (static_cast<double>(high - low) + 1.0);
    const auto bucket = [&](const Item& item) {
      return static_cast<std::size_t>(static_cast<double>(item.at - low) * scale);
    };
    starts_.assign(count + 1, 0);
    for (const Item& item : items) ++starts_[bucket(item) + 1];
    if (*std::max_element(starts_.begin(), starts_.end()) > 48) {  // crowded: insertion would be slow
      std::sort(items.begin(), items.end(), earlier);
      return;
    }
    for (std::size_t i = 1; i <= count; ++i) starts_[i] += starts_[i - 1];
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
