#if defined(__x86_64__)
#include "coinfer/simd/wide_avx512.hpp"

#include "coinfer/combine/stack_rows.hpp"

namespace coinfer::stacking {

bool apply_avx512(const Apply& task) noexcept { return Stacking<WideAvx512>::apply(task); }

}  // namespace coinfer::stacking
#endif
