// How a request can end, and the one function that says which end it was.
#pragma once

#include <cstdint>

#include "coinfer/outputs.hpp"

namespace coinfer {

/// answered: the stop rule was satisfied, or no stage was left. degraded: the best answer so far, because a stage
/// failed or was late. expired: nothing in time. rejected: a full queue. failed: every consulted member erred.
enum class Status : std::uint8_t { open, answered, degraded, rejected, expired, failed };
inline constexpr std::size_t status_count = 6;

/// A class index >= 0 is an answer; -1 is none; below that stands an abstention ("I don't know") by the class -2 -
/// label. An abstention is never settled on while a stage remains, never a vote, and always incorrect.
constexpr Label abstention(Label label) noexcept { return -2 - label; }
constexpr bool abstains(Label label) noexcept { return label < no_answer; }

/// The status of a request that ended with `best` as its answer. `missing`: a member of its last stage gave no answer.
/// `rejected`: a full queue turned it away.
constexpr Status conclude(Label best, bool missing, bool late, bool rejected = false) noexcept {
  if (best == no_answer) return late ? Status::expired : rejected ? Status::rejected : Status::failed;
  return missing || late ? Status::degraded : Status::answered;
}

}  // namespace coinfer
