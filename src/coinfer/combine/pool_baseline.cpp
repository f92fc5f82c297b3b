#include "coinfer/simd/wide_baseline.hpp"

#include "coinfer/combine/rows.hpp"
#include "coinfer/combine/votes.hpp"

namespace coinfer::pooling {

void add_baseline(const Add& task) noexcept { Rows<WideBaseline>::add(task); }
void settle_baseline(const Settle& task) noexcept { Rows<WideBaseline>::settle(task); }
void finish_baseline(const Finish& task) noexcept { Rows<WideBaseline>::finish(task); }
void joint_baseline(const Joint& task) noexcept { Rows<WideBaseline>::joint(task); }
void votes_baseline(const Votes& task) noexcept { Voting<WideBaseline>::votes(task); }

}  // namespace coinfer::pooling
