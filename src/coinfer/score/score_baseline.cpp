#include "coinfer/simd/baseline.hpp"

#include "coinfer/score/rows.hpp"

namespace coinfer::scoring {

std::size_t score_baseline(const Task& task) noexcept { return Rows<Baseline>::run(task); }

}  // namespace coinfer::scoring
