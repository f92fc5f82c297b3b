#if defined(__x86_64__)
#include "coinfer/simd/wide_avx2.hpp"

#include "coinfer/combine/stack_rows.hpp"

namespace coinfer::stacking {

bool apply_avx2(const Apply& task) noexcept { return Stacking<WideAvx2>::apply(task); }

}  // namespace coinfer::stacking
#endif
