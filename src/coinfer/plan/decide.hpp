// Decisions: for every sample, which stages a plan consults and where it stops. One per (sample, plan), shared by every
// ingress node with that plan; requests only look them up.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "coinfer/plan/evidence.hpp"
#include "coinfer/plan/plan.hpp"

namespace coinfer {

/// The stages that a request consults, in order; it settles at the last.
using Itinerary = std::vector<std::uint8_t>;

/// Samples share few itineraries, so a decision is one byte: an index into them.
struct Decisions {
  std::vector<std::uint8_t> route;  // per row
  std::vector<Itinerary> itineraries;
};

/// settled[row] = first stage whose value reaches its threshold, else the last stage: judge() for the built-in rule,
/// with curves already applied. `values` is [stage][row], thresholds has one entry per stage but the last.
void settle(const float* values, std::size_t rows, std::size_t stages, const float* thresholds,
            std::uint8_t* settled) noexcept;

/// Decide every row of a state-independent plan. `truth` (may be empty) is read by the oracle alone.
Decisions decide(const Plan& plan, const Evidence& evidence, std::span<const Label> truth = {});

}  // namespace coinfer
