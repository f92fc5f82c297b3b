"""Tuning, written to be read: every cut there is, one after the other, and textbook tests. The specification of sweeps.

Scores and labels are [stage][sample]; a sample settles at the first stage whose score reaches its threshold, else at
the last.
"""

from __future__ import annotations

import itertools
import math

import numpy as np


def settle(scores, thresholds):
    """Return the stage where every sample settles."""
    stage = np.full(scores.shape[1], len(scores) - 1)
    for at in reversed(range(len(thresholds))):
        stage[scores[at] >= thresholds[at]] = at
    return stage


def cuts(scores):
    """Return a threshold for every way of cutting between distinct scores, and the two ends."""
    distinct = np.unique(scores[~np.isnan(scores)])
    return [-math.inf, *((distinct[1:].astype(float) + distinct[:-1]) / 2), math.inf]


def operating_points(scores, right, costs):
    """Yield (thresholds, accuracy, mean cost) for every combination of cuts; costs is [stage]."""
    for thresholds in itertools.product(*(cuts(s) for s in scores[:-1])):
        stage = settle(scores, thresholds)
        yield thresholds, right[stage, np.arange(len(stage))].mean(), np.asarray(costs)[stage].mean()


def cheapest(scores, right, costs, accuracy):
    """Return the least mean cost at which the accuracy is reached, None if it never is."""
    met = [cost for _, reached, cost in operating_points(scores, right, costs) if reached >= accuracy]
    return min(met, default=None)


def betting(losses, bound, delta):
    """Return the p-value of "the mean of losses in {-1, 0, 1} is at least bound" (Waudby-Smith and Ramdas 2024)."""
    x = (np.asarray(losses, float) + 1) / 2
    m = (bound + 1) / 2
    capital, most = 1.0, 1.0
    for i, value in enumerate(x):
        seen = x[:i]
        means = (0.5 + np.cumsum(seen)) / (np.arange(i) + 2)
        variance = (0.25 + np.sum((seen - means) ** 2)) / (i + 1)
        stake = min(1.0, math.sqrt(2 * math.log(1 / delta) / (len(x) * variance)))
        capital *= 1 - stake * (value - m)
        most = max(most, capital)
    return 1 / most


def binomial(failures, n, bound):
    """Return P(Binomial(n, bound) <= failures), summed term by term."""
    return sum(math.comb(n, k) * bound**k * (1 - bound) ** (n - k) for k in range(failures + 1))


def mcnemar(first_only, second_only):
    """Return the two-sided exact p-value for samples that only one of two strategies gets right."""
    n, k = first_only + second_only, min(first_only, second_only)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n) if n else 1.0
