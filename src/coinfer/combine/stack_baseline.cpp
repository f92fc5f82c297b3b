#include "coinfer/simd/wide_baseline.hpp"

#include "coinfer/combine/stack_rows.hpp"

namespace coinfer::stacking {

bool apply_baseline(const Apply& task) noexcept { return Stacking<WideBaseline>::apply(task); }

}  // namespace coinfer::stacking
