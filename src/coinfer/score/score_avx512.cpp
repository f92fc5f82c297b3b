#if defined(__x86_64__)
#include "coinfer/simd/avx512.hpp"

#include "coinfer/score/rows.hpp"

namespace coinfer::scoring {

std::size_t score_avx512(const Task& task) noexcept { return Rows<Avx512>::run(task); }

}  // namespace coinfer::scoring
#endif
