#if defined(__x86_64__)
#include "coinfer/simd/wide_avx2.hpp"

#include "coinfer/combine/rows.hpp"
#include "coinfer/combine/votes.hpp"

namespace coinfer::pooling {

void add_avx2(const Add& task) noexcept { Rows<WideAvx2>::add(task); }
void settle_avx2(const Settle& task) noexcept { Rows<WideAvx2>::settle(task); }
void finish_avx2(const Finish& task) noexcept { Rows<WideAvx2>::finish(task); }
void joint_avx2(const Joint& task) noexcept { Rows<WideAvx2>::joint(task); }
void votes_avx2(const Votes& task) noexcept { Voting<WideAvx2>::votes(task); }

}  // namespace coinfer::pooling
#endif
