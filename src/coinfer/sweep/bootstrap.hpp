// Cluster bootstrap of ratios: how far sums over samples would move if other samples had been drawn.
//
// The unit is the sample, with all its requests: a replicate draws as many samples as there are, with replacement, and
// takes every ratio from the same draw. More than `units_max` samples are first pooled at random into that many units,
// whose sums vary in the same way. Draws are Philox, keyed by seed and counted by (replicate, draw), so the result
// depends on no number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace coinfer {

inline constexpr std::size_t units_max = 4096;

/// `tops` and `bottoms` are [ratio][sample]. Returns [ratio][replicate]: sum of tops / sum of bottoms, NaN where the
/// latter is 0.
std::vector<double> bootstrap(std::span<const double> tops, std::span<const double> bottoms, std::size_t ratios,
                              std::size_t replicates, std::uint64_t seed, unsigned threads = 1);

}  // namespace coinfer
