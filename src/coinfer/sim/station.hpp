// A deployment as a place where requests wait: instances, a batcher in front of them, and room for so many.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "coinfer/sim/tally.hpp"

namespace coinfer {

inline constexpr std::uint32_t unbounded = UINT32_MAX;

struct Station {
  std::uint32_t instances = 1;  // batches served at the same time; 0: any number, so that nobody waits
  std::uint32_t max_batch = 1;
  std::vector<std::uint32_t> preferred;  // ascending
  std::int64_t batch_delay_ns = 0;
  std::uint32_t queue_max = unbounded;  // requests waiting
  std::vector<std::int64_t> batch_ns;   // [size - 1][choice]; empty: drawn from the law of the batch's first request
  double mean_ns = 0.0;                 // of a full batch, for estimates of the wait ahead

  std::size_t choices() const noexcept { return batch_ns.size() / max_batch; }

  /// Whether it is first come, first served, one at a time and without bounds: a recursion on free times is enough.
  bool plain() const noexcept { return max_batch == 1 && queue_max == unbounded; }
};

/// What one station or link did.
struct Load {
  std::uint64_t served = 0;    // requests
  std::uint64_t rejected = 0;  // turned away at a full queue
  std::uint64_t dropped = 0;   // taken from the queue after their deadline
  std::uint64_t refused = 0;   // turned away or lost while it was down
  std::uint64_t batches = 0;
  std::uint64_t waiting_max = 0;
  Wide busy_ns = 0;  // instances at work
  Wide wait_ns = 0;
  std::int64_t wait_ns_max = 0;
  std::vector<std::uint64_t> batch_size;  // [size - 1]: batches
};

}  // namespace coinfer
