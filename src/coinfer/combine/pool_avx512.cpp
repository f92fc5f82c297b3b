#if defined(__x86_64__)
#include "coinfer/simd/wide_avx512.hpp"

#include "coinfer/combine/rows.hpp"
#include "coinfer/combine/votes.hpp"

namespace coinfer::pooling {

void add_avx512(const Add& task) noexcept { Rows<WideAvx512>::add(task); }
void settle_avx512(const Settle& task) noexcept { Rows<WideAvx512>::settle(task); }
void finish_avx512(const Finish& task) noexcept { Rows<WideAvx512>::finish(task); }
void joint_avx512(const Joint& task) noexcept { Rows<WideAvx512>::joint(task); }
void votes_avx512(const Votes& task) noexcept { Voting<WideAvx512>::votes(task); }

}  // namespace coinfer::pooling
#endif
