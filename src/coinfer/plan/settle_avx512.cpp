#include "coinfer/plan/settle.hpp"

#if defined(__x86_64__)
#include "coinfer/plan/settle.inl"

namespace coinfer::isa {

void settle_avx512(const float* scores, std::size_t rows, std::size_t stages, const float* thresholds,
                   std::uint8_t* settled) noexcept {
  settle_rows(scores, rows, stages, thresholds, settled);
}

}  // namespace coinfer::isa
#endif
