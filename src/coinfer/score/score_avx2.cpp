#if defined(__x86_64__)
#include "coinfer/simd/avx2.hpp"

#include "coinfer/score/rows.hpp"

namespace coinfer::scoring {

std::size_t score_avx2(const Task& task) noexcept { return Rows<Avx2>::run(task); }

}  // namespace coinfer::scoring
#endif
