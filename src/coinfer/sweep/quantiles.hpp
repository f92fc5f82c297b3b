// A quantile of something that every sample has for every stage (a measured latency), for many threshold vectors,
// exactly.
//
// Sums can be added up by prefix; a quantile cannot. But from one vector to the next only those samples settle
// elsewhere whose score lies between an old threshold and a new one. A Fenwick tree over the ranks of all values
// follows them, and gives the quantile by one descent. Along a falling threshold every sample passes each stage once:
// O(N S log N) for all of its points. Vectors in any other order cost what they move.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "coinfer/plan/evidence.hpp"

namespace coinfer {

/// Per vector the smallest value that at least `reach` of the values do not exceed. `thresholds` is [vector][stage but
/// the last]; `values` [table][stage][row]: each row counts once per table (an ingress node), by the stage where it
/// settles. `reach` is from 1 to rows x tables.
std::vector<std::int64_t> quantiles(const Evidence& evidence, std::span<const float> thresholds,
                                    std::span<const std::int64_t> values, std::uint64_t reach,
                                    std::span<const std::uint32_t> rows = {}, unsigned threads = 1);

}  // namespace coinfer
