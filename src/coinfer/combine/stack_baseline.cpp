#include "coinfer/simd/wide_baseline.hpp"

#include "coinfer/combine/stack_rows.hpp"

namespace coinfer::stacking {

void apply_baseline(const Apply& task) noexcept { Stacking<WideBaseline>::apply(task); }
bool probabilities_baseline(const float* data, std::size_t count) noexcept {
  return Stacking<WideBaseline>::probabilities(data, count);
}

}  // namespace coinfer::stacking
