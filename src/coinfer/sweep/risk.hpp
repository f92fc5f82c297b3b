// Evidence against "the risk is at least this large": p-values by betting.
//
// A gambler who believes that the mean of losses in [0, 1] is below a bound m stakes, before each loss, a share of the
// capital that depends on earlier losses only. If the mean is m or more, the capital is a non-negative supermartingale,
// so 1 / (its largest value) is a p-value (Ville's inequality), at any sample size and for any distribution. Stakes as
// in Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024: they adapt to the
// variance, which a paired loss (mostly 0) has little of.
#pragma once

#include <cstdint>
#include <span>

namespace coinfer {

/// Losses are -1, 0 or 1, read as (loss + 1) / 2; the p-value of "their mean is at least `bound`", -1 < bound < 1.
/// `delta` sets the stakes: for which level the p-value is to be small.
double betting(std::span<const std::int8_t> losses, double bound, double delta) noexcept;

}  // namespace coinfer
