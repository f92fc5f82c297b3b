#if defined(__x86_64__)
#include "coinfer/simd/wide_avx512.hpp"

#include "coinfer/combine/stack_rows.hpp"

namespace coinfer::stacking {

void apply_avx512(const Apply& task) noexcept { Stacking<WideAvx512>::apply(task); }
bool probabilities_avx512(const float* data, std::size_t count) noexcept {
  return Stacking<WideAvx512>::probabilities(data, count);
}

}  // namespace coinfer::stacking
#endif
