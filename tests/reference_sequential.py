"""What the stop rules of sequential ensembles mean, in float64 NumPy, row by row: the specification.

Written to be read, not to be fast. A problem is a list of groups, each a list of members; a member's answer to a row is
a label (below zero: none, or an abstention) or a vector of probabilities (NaN: none).
"""

from __future__ import annotations

from math import comb

import numpy as np


def adds(answer, classes, weight):
    """What one answer adds to the running sum; None if it says nothing."""
    if np.ndim(answer) == 0:
        return None if answer < 0 else weight * np.eye(classes)[int(answer)]
    return None if np.isnan(answer).any() else weight * np.asarray(answer, np.float64)


def running(groups, weights, classes):
    """Running sums after every group, for one row: shape (stages, classes)."""
    sums, total = [], np.zeros(classes)
    for group, group_weights in zip(groups, weights, strict=True):
        for answer, weight in zip(group, group_weights, strict=True):
            added = adds(answer, classes, weight)
            if added is not None:
                total = total + added
        sums.append(total)
    return np.array(sums)


def leader(sums):
    """Label with the largest sum, the lowest of equals; -1 if nothing was added."""
    return int(np.argmax(sums)) if sums.max() > 0 else -1


def lead(sums):
    """Largest minus second-largest sum; of one class the sum."""
    top = np.sort(sums)[::-1]
    return top[0] - top[1] if len(top) > 1 else top[0]


def answered(group, classes):
    """Whether a group brought anything to be sure of."""
    return any((np.ndim(a) == 0 and a != -1) or (np.ndim(a) == 1 and not np.isnan(a).any()) for a in group)


def first(groups, sums, safe):
    """The first stage that has an answer and brought news and is safe, else the last."""
    classes = sums.shape[1]
    for stage in range(len(groups) - 1):
        if leader(sums[stage]) >= 0 and answered(groups[stage], classes) and safe(stage, sums[stage]):
            return stage
    return len(groups) - 1


def decided(groups, weights, classes):
    """Stop when the lead exceeds the weight of all who are still to come."""
    left = [sum(sum(w) for w in weights[stage + 1 :]) for stage in range(len(groups))]
    return first(groups, running(groups, weights, classes), lambda stage, sums: lead(sums) > left[stage])


def posterior(counts, to_come):
    """P that the leader still leads alone after `to_come` draws, Dirichlet(1, ..., 1) before all votes."""
    counts = sorted((int(n) for n in counts), reverse=True)
    top, others = counts[0], counts[1:]
    ways = 0
    for extra in range(to_come + 1):
        product = [1] + [0] * to_come
        for n in others:
            allowed = [comb(x + n, x) if n + x < top + extra else 0 for x in range(to_come + 1)]
            product = [sum(product[i] * allowed[d - i] for i in range(d + 1)) for d in range(to_come + 1)]
        ways += comb(extra + top, extra) * product[to_come - extra]
    return ways / comb(to_come + sum(counts) + len(counts) - 1, to_come)  # integers: exact until here


def probable(groups, classes, delta):
    """Stop when the posterior is at least 1 - delta."""
    weights = [[1.0] * len(group) for group in groups]
    left = [sum(len(group) for group in groups[stage + 1 :]) for stage in range(len(groups))]
    return first(
        groups, running(groups, weights, classes), lambda stage, sums: posterior(sums, left[stage]) >= 1 - delta
    )


def thresholds(groups, weights, classes, cuts):
    """Stop when the lead reaches the threshold of its stage: qwyc."""
    return first(groups, running(groups, weights, classes), lambda stage, sums: lead(sums) >= cuts[stage])


def empirical(groups, weights, classes, cells, delta):
    """Stop when the bound of the cell that the lead falls in is at most delta."""

    def safe(stage, sums):
        starts, bounds = cells[stage]
        below = [bound for start, bound in zip(starts, bounds, strict=True) if start <= lead(sums)]
        return bool(below) and below[-1] <= delta

    return first(groups, running(groups, weights, classes), safe)


def agreement(groups, classes, votes):
    """Per group: a label that no other equals, with at least so many votes; the last always answers."""
    for stage, group in enumerate(groups):
        counts = np.bincount([a for a in group if a >= 0], minlength=classes)
        alone = np.count_nonzero(counts == counts.max()) == 1
        if counts.max() > 0 and alone and stage + 1 < len(groups) and counts.max() >= votes[stage]:
            return stage
    return len(groups) - 1


def upper_bound(events, trials, confidence=0.95):
    """The largest p at which so few events or fewer still have probability 1 - confidence, by bisection."""
    if events >= trials:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        p = (low + high) / 2
        chance = sum(comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(events + 1))
        low, high = (p, high) if chance > 1 - confidence else (low, p)
    return (low + high) / 2


def saved(lead_of, wrong, cost_next, worth, cut):
    """What a threshold saves in a plan of two stages: the next cost of all that stop, minus what they get wrong."""
    stop = lead_of >= cut
    return np.sum(np.where(stop, cost_next - worth * wrong, 0.0))
