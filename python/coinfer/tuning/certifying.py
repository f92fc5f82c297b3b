"""Which operating points can be certified, and which of them is best: Learn-then-Test.

Candidates and their order come from the samples that were fitted on: the points that no other beats in both cost and
safety, safest first. Fixed-sequence testing walks them at the full level and stops at the first that fails; Bonferroni
tests all of them at delta / (their number). Several risks at once: a candidate passes if each of its tests does, which
costs nothing, because one violated bound is enough to make the candidate wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer.errors import UnknownNameError, UnsupportedError, nearest
from coinfer.tuning.certificate import Certificate, Guarantee, binned, certifiable, edges_of, p_value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer.strategy.base import Strategy
    from coinfer.tuning.constraint import Constraint
    from coinfer.tuning.measuring import Columns, Measures
    from coinfer.tuning.searching import Goal

__all__ = ["PROCEDURES", "accepted", "candidates", "certify", "check_certifiable"]

PROCEDURES = ("fixed-sequence", "bonferroni")
_CANDIDATES_MAX = 200


def check_certifiable(goal: Goal, procedure: str) -> tuple[Constraint, ...]:
    """Give the constraints that can be certified."""
    if procedure not in PROCEDURES:
        msg = f"unknown procedure {procedure!r}; {nearest(str(procedure), PROCEDURES)}"
        raise UnknownNameError(msg)
    found = tuple(each for each in goal.subject_to if certifiable(each))
    if not found:
        msg = (
            "nothing can be certified: a certificate needs a lower bound on accuracy or recall[...], or an upper "
            "bound on accuracy_loss[...], disagreement[...], forwarded_share, price_usd or stages"
        )
        raise UnsupportedError(msg)
    return found


def candidates(goal: Goal, columns: Columns, bounds: Sequence[Constraint]) -> NDArray[np.int64]:
    """Choose which points to test, in their order, from quantities on the fitted samples alone."""
    risk = np.max([each.beyond(columns[each.quantity]) for each in bounds], axis=0)
    cost = goal.cost(columns)
    usable = np.ones(len(risk), bool)
    for each in goal.subject_to:
        usable &= each.holds(columns[each.quantity])
    rows = np.flatnonzero(usable & ~np.isnan(risk))
    order = rows[np.lexsort((risk[rows], cost[rows]))]
    safest_before = np.minimum.accumulate(np.concatenate([[np.inf], risk[order]]))[:-1]
    front: NDArray[np.int64] = order[risk[order] < safest_before][::-1]  # falling cost, rising risk
    if len(front) > _CANDIDATES_MAX:
        front = front[np.unique(np.linspace(0, len(front) - 1, _CANDIDATES_MAX).round().astype(np.int64))]
    return front


def certify(
    strategies: Sequence[Strategy],
    measures: Measures,
    bounds: Sequence[Constraint],
    rows: NDArray[np.uint32],
    delta: float,
    procedure: str = "fixed-sequence",
) -> tuple[int | None, Certificate | None, int]:
    """Test candidates in their order on calibration samples (in random order).

    Returns
    -------
    tuple
        The last candidate that passed (the order is of falling cost), its certificate, and how many were tested.
    """
    found: dict[int, tuple[Guarantee, ...]] = {}
    level = delta if procedure == "fixed-sequence" else delta / max(len(strategies), 1)

    def test(at: int) -> float:
        found[at] = tuple(_guarantee(strategies[at], measures, each, rows, level) for each in bounds)
        return max(g.p_value for g in found[at])

    valid = accepted(test, len(strategies), delta, procedure)
    tested = len(found)
    if not valid:
        return None, None, tested
    passed = valid[-1]
    path = measures.paths(strategies[passed])[0]
    scores = []
    for stage in range(path.stages - 1):
        score = path.evidence.score[stage][rows]
        edges = edges_of(score)
        scores.append((edges, binned(score, edges)))
    certificate = Certificate(
        found[passed],
        delta,
        len(rows),
        f"{procedure}, {tested} of {len(strategies)} candidates tested",
        measures.compiler.predictions.select(np.sort(rows)).fingerprint,
        tuple(scores),
    )
    return passed, certificate, tested


def accepted(test: Callable[[int], float], count: int, delta: float, procedure: str) -> list[int]:
    """Name the candidates that pass, given each one's p-value: the family-wise error is at most delta.

    Parameters
    ----------
    test : callable
        Gives the p-value of a candidate; asked in order, and only as far as needed.
    count : int
        How many candidates there are.

    Examples
    --------
    >>> accepted([0.01, 0.04, 0.2, 0.01].__getitem__, 4, 0.05, "fixed-sequence")
    [0, 1]
    >>> accepted([0.01, 0.04, 0.2, 0.01].__getitem__, 4, 0.05, "bonferroni")
    [0, 3]
    """
    level = delta if procedure == "fixed-sequence" else delta / max(count, 1)
    passed = []
    for at in range(count):
        if test(at) <= level:
            passed.append(at)
        elif procedure == "fixed-sequence":
            break
    return passed


def _guarantee(
    strategy: Strategy, measures: Measures, bound: Constraint, rows: NDArray[np.uint32], delta: float
) -> Guarantee:
    values: Any = measures.losses(strategy, bound.quantity, rows)
    kind, low, most = measures.support(strategy, bound.quantity)
    observed = float(values.mean()) if len(values) else float("nan")
    if bound.at_least:
        p, method = p_value(1.0 - values, 1.0 - bound.bound, kind, delta=delta)
    else:
        p, method = p_value(values, bound.bound, kind, delta=delta, low=low, most=most)
    return Guarantee(str(bound), observed, len(values), method, p)
