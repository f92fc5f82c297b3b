// Replay with queues: requests that wait for each other at deployments and links.
//
// A deployment is a station: k instances, first come first served within a priority, batches as Triton forms them, a
// bounded queue. A link sends one message at a time in each direction, then propagates it. Time is integer nanoseconds;
// simultaneous events happen in the order (time, kind, request, place), where kinds are: completion, decision at a
// host, arrival at a place, batch timer. So a result does not depend on how the trace is cut into batches.
//
// Two engines share everything but the station:
// * events: the truth. A list of arrivals, completions and timers; can do all of the above.
// * hops: first come first served needs no completions: who arrives now starts at the earliest free time. One event per
//   visit. Decisions that depend on queues are events of their own, so both engines see the same queue when they
//   decide.
//
// Where they can, both work through time in rounds, each station by itself: see rounds.cpp.
//
// A request that meets nobody takes exactly as long as in the direct engine: same draws, same rounding.
//
// Deadlines. No stage is entered at or after the deadline, and a station takes nobody from its queue whose deadline has
// passed; what was started is finished. At the deadline the ingress gives the best answer that can have reached it. A
// lane with `least` enters no stage that cannot finish in time: it settles at once for what it has.
//
// Outages (events): a place that is down refuses, and loses whom it holds; the host of a stage retries within a budget,
// spares endpoints behind an open breaker, and does without a stage that failed. See outages.hpp.
//
// The wait ahead that a stop rule sees is what a node can know: nothing while an instance is idle, else (waiting + 1) x
// mean service / instances; with `gossip_ns`, as it stood at the last multiple of that period.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "coinfer/sim/outages.hpp"
#include "coinfer/sim/replay.hpp"
#include "coinfer/sim/station.hpp"

namespace coinfer {

/// The outcome of one request, as a row.
struct Ended {
  std::uint64_t request = 0;
  Outcome outcome;
};

enum class QueueEngine : std::uint8_t { feed_forward, hops, events };

struct QueueOptions {
  QueueEngine engine = QueueEngine::events;
  bool exact = true;            // keep every latency; else a sketch of them
  std::size_t expected = 0;     // so many requests, perhaps
  bool rounds = true;           // where these do; else one event after the other
  bool rows = false;            // keep outcomes for take()
  std::uint64_t row_first = 0;  // of the requests [row_first, row_last)
  std::uint64_t row_last = UINT64_MAX;
  std::int64_t warmup_ns = 0;  // arrivals before this time are served but not counted
  std::int64_t gossip_ns = 0;
  std::vector<Windows> outages;  // by station, then by directed link; events only
};

/// What failures made requests do, where outages are.
struct Rescue {
  std::uint64_t retried = 0;    // attempts after the first
  std::uint64_t broken = 0;     // consultations that an open breaker forbade
  std::uint64_t fell_back = 0;  // requests that ended with the best answer so far because some member failed
};

class Queues {
 public:
  /// `stations` is indexed by Member::deployment, links by Hop::link; `outputs` (by model) are read where a stage got
  /// only some of its answers.
  Queues(std::vector<Lane> lanes, std::span<const Label> truth, std::size_t classes, std::uint64_t seed,
         std::vector<Station> stations, std::size_t links, std::vector<Outputs> outputs, const QueueOptions& options);
  ~Queues();
  Queues(const Queues&) = delete;
  Queues& operator=(const Queues&) = delete;

  /// Whether hops would do: every station plain.
  static bool plain(std::span<const Station> stations);
  /// Whether feed-forward would do: besides, decisions ahead, no groups, no queues at links, and an order of stations
  /// in which requests visit them.
  static bool feeds_forward(std::span<const Lane> lanes, std::span<const Station> stations);
  /// Whether hops and events are worked through in rounds: every stage asks one member, no link makes anybody wait, no
  /// queue is bounded, and whatever a request does next takes time to reach another station.
  static bool in_rounds(std::span<const Lane> lanes, std::span<const Station> stations);

  /// Arrivals in order; needs arrival_ns.
  void push(const Requests& batch);
  /// Serve what is still under way. Nothing may be pushed afterwards.
  void finish();

  /// Throws std::logic_error if requests were lost or counted twice.
  Tally tally() const;
  /// Of every counted request; empty if not exact: then the tally has a sketch of them.
  const Times& latencies() const;
  std::span<const Load> stations() const;
  std::span<const Load> links() const;
  std::uint64_t in_flight() const;
  Rescue rescue() const;
  /// From the first counted arrival to the end of the last counted request.
  std::int64_t span_ns() const;
  /// From the first to the last counted arrival.
  std::int64_t arrivals_ns() const;
  /// Outcomes of the requests that ended since the last call, in the order of the trace: a prefix of what is not taken.
  std::vector<Ended> take();

  class Core;

 private:
  std::unique_ptr<Core> core_;
};

}  // namespace coinfer
