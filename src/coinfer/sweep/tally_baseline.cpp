#include "coinfer/sweep/tally.hpp"

#include "coinfer/sweep/tally.inl"

namespace coinfer::isa {

void tally_baseline(const Run& run) noexcept { tally_run(run); }

}  // namespace coinfer::isa
