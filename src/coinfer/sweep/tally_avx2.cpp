#include "coinfer/sweep/tally.hpp"

#if defined(__x86_64__)
#include "coinfer/sweep/tally.inl"

namespace coinfer::isa {

void tally_avx2(const Run& run) noexcept { tally_run(run); }

}  // namespace coinfer::isa
#endif
