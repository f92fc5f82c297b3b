// Any threshold vectors, evaluated together: ranks, bit sets and population counts.
//
// A run of 512 rows stays in the first cache level. Per stage, the set of rows that reach a threshold is one cache line
// of bits, built for all distinct thresholds from the rank of each score; per vector, what settles where is a few
// intersections and population counts. Sums are integers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "coinfer/plan/evidence.hpp"
#include "coinfer/sweep/cuts.hpp"

namespace coinfer {

struct Sums {
  std::vector<std::int64_t> settled;                  // [stage][vector]
  std::vector<std::vector<std::int64_t>> quantities;  // [quantity][vector]
};

/// `thresholds` is [vector][stage but the last].
Sums vectors(const Evidence& evidence, std::span<const float> thresholds, std::span<const Quantity> quantities,
             std::span<const std::uint32_t> rows = {}, unsigned threads = 1);

}  // namespace coinfer
