#include "coinfer/plan/settle.hpp"

#include "coinfer/plan/settle.inl"

namespace coinfer::isa {

void settle_baseline(const float* scores, std::size_t rows, std::size_t stages, const float* thresholds,
                     std::uint8_t* settled) noexcept {
  settle_rows(scores, rows, stages, thresholds, settled);
}

}  // namespace coinfer::isa
