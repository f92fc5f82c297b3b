// A lane: one ingress node with its plan laid over the network, every way and price worked out. Both controls are one
// form here: a stage has a host (the node that asks and decides); under path control the request moves to the host,
// under ingress control the ingress hosts every stage and the members are reached by a way there and a way back.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "coinfer/plan/decide.hpp"
#include "coinfer/plan/evidence.hpp"
#include "coinfer/sim/service.hpp"

namespace coinfer {

/// Exponential extra delay of one link in one direction.
struct Jitter {
  std::uint32_t link = 0;
  double mean_ns = 0.0;
};

/// One link of a way, where messages wait for each other: sending is queued per direction, then come propagation and
/// jitter.
struct Hop {
  std::uint32_t link = 0;  // 2 x link + direction
  std::int64_t send_ns = 0;
  std::int64_t delay_ns = 0;
  double jitter_ns = 0.0;  // mean
};

/// A way between two nodes for one payload: fixed time (propagation and transmission), price, and the jitters met.
/// `hops` is the same way link by link, given only where sending is queued.
struct Leg {
  std::int64_t ns = 0;
  std::int64_t pico_usd = 0;
  std::vector<Jitter> jitters;
  std::vector<Hop> hops = {};  // may be left out. NOLINT(readability-redundant-member-init)
};

/// Consulting one member from the host of its stage.
struct Consult {
  Leg up;
  Leg down;
  Service service;
  std::int64_t pico_usd = 0;
  std::int64_t median_ns = 0;  // of the service
};

struct Lane {
  std::shared_ptr<const Plan> plan;
  std::shared_ptr<const Evidence> evidence;
  std::shared_ptr<const Decisions> decisions;
  std::vector<Leg>
      enter;  // [(stages + 1) x stages]: to a stage's host, from the ingress (row 0) or the host of stage row - 1
  std::vector<Leg> back;            // [stages]: from a stage's host to the ingress
  std::vector<Consult> members;     // as in the plan
  std::vector<std::int64_t> least;  // as `enter`: to have a stage's answer at the ingress, at medians; if empty, any
                                    // stage may be entered before the deadline
};

}  // namespace coinfer
