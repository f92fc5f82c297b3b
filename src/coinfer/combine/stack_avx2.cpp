#if defined(__x86_64__)
#include "coinfer/simd/wide_avx2.hpp"

#include "coinfer/combine/stack_rows.hpp"

namespace coinfer::stacking {

void apply_avx2(const Apply& task) noexcept { Stacking<WideAvx2>::apply(task); }
bool probabilities_avx2(const float* data, std::size_t count) noexcept {
  return Stacking<WideAvx2>::probabilities(data, count);
}

}  // namespace coinfer::stacking
#endif
