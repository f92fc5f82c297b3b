"""What sequential ensembles learn: orders, thresholds on the lead, and how often stopping early changes the decision.

Nothing here needs true labels but the order by accuracy: the truth that a sequential ensemble is held against is the
decision of all its members. Half of the samples is learned from, the other half says what can be promised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from coinfer.intervals import upper_bound

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer.predictions import Predictions

__all__ = ["CONFIDENCE", "Cells", "SequentialFit", "cells", "cuts", "greedy"]

Groups = tuple[tuple[str, ...], ...]

CONFIDENCE: Final = 0.95
"""Of every upper bound here."""

_CELLS = 64
_SWEEPS = 4


@dataclass(frozen=True)
class Cells:
    """How often the running answer of one stage differed from the decision of all, by its lead.

    Attributes
    ----------
    lead : tuple of float
        Where each cell begins, ascending; it ends at the next.
    samples, disagreed : tuple of int
        Samples that came to this stage with such a lead, and those of them whose answer was not the final one.
    high : tuple of float
        Exact binomial upper bound (95 %, one-sided) on the probability to differ, of each cell by itself.
    """

    lead: tuple[float, ...]
    samples: tuple[int, ...]
    disagreed: tuple[int, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class SequentialFit:
    """What was learned for one ingress node, and how often it changes the decision of all members.

    Attributes
    ----------
    groups : tuple of tuple of str
        Who is consulted, in order.
    thresholds : tuple of float
        ``qwyc``: the lead that settles, per stage but the last. Empty for other rules.
    cells : tuple of Cells
        ``empirical``: P(disagree | stage, lead), per stage but the last. Empty for other rules.
    samples : int
        How many samples the following was measured on, none of which was learned from.
    disagreed : int
        Samples on which the answer was not that of all members.
    high : float
        Exact binomial (Clopper-Pearson) upper bound, 95 %, one-sided, on the probability of that.
    consulted : float
        Models consulted on average.
    certified : bool
        Whether nothing can be changed (``decided``), or `high` is at most delta.
    heuristic : bool
        Whether the rule promises delta under an assumption that this order breaks.
    """

    groups: Groups
    thresholds: tuple[float, ...]
    cells: tuple[Cells, ...]
    samples: int
    disagreed: int
    high: float
    consulted: float
    certified: bool
    heuristic: bool

    def __str__(self) -> str:
        total = sum(map(len, self.groups))
        kept = "certified" if self.certified else "heuristic" if self.heuristic else "not certified"
        return (
            f"{self.consulted:.2f} of {total} models on average; differs from all of them on {self.disagreed} of "
            f"{self.samples:,} samples, at most {self.high:.3g} at {CONFIDENCE:.0%}: {kept}\n"
            f"order: {' > '.join('+'.join(group) for group in self.groups)}"
        )


def contributions(predictions: Predictions, model: str, how: str, quiet: Sequence[int], rows: Any) -> NDArray[Any]:
    """Give what a model adds to the running sum of some rows, shape (rows, C); nothing where it says nothing."""
    output = predictions[model]
    label = output.answers()[rows]
    silent = (label < 0) | np.isin(label, quiet)
    added = np.zeros((len(label), predictions.class_count))
    if how == "vote":
        said = np.flatnonzero(~silent)
        added[said, label[said]] = 1.0
        return added
    assert output.vector is not None
    values: NDArray[Any] = output.vector[rows].astype(np.float64)
    silent |= np.isnan(values).any(axis=1)
    values[silent] = 0.0
    if output.form == "logits":
        values = np.exp(values - values.max(axis=1, keepdims=True))
        values /= values.sum(axis=1, keepdims=True)
    if how == "logpool":
        values = np.log2(np.maximum(values, 2.0**-126))
    values[silent] = 0.0
    if output.relabel is None:
        return values
    added[:, output.relabel] = values
    return added


def greedy(
    groups: Groups,
    added: Any,
    final: NDArray[np.int32],
    cost: Mapping[tuple[str, ...], float],
    weight: Mapping[tuple[str, ...], float],
    delta: float,
) -> Groups:
    """Order groups by cost per newly settled sample.

    Each step looks at every group that is left: if it came next, how many samples would settle, if the threshold on
    the lead is the lowest at which at most a share delta of them would get another answer than that of all? Where none
    would settle, the group that leaves most running answers right for its cost comes next.

    Parameters
    ----------
    groups : tuple of tuple of str
        To be ordered; earlier ones win ties.
    added : callable
        ``added(group, rows)``: what the group adds to the running sums.
    final : ndarray of int32, shape (N,)
        The decision of all.
    cost, weight : mapping of group to float
        What it costs to consult it, and how much it can change a lead.
    delta : float
        As above.

    References
    ----------
    Wang, Gupta and Fei, "Quit when you can: efficient evaluation of ensembles by optimized ordering", arXiv 1806.11202
    (there binary, with two thresholds per stage).
    """
    open_rows = np.flatnonzero(final >= 0)
    sums: Any = 0.0
    left, order = list(groups), []
    to_come = sum(weight.values())
    while left:
        best: Any = None
        for group in left:
            running = sums + added(group, open_rows)
            label = running.argmax(axis=1)
            lead = _lead(running, label)
            wrong = label != final[open_rows]
            settled = _settled(lead, wrong, delta, to_come - weight[group])
            count, right = int(np.count_nonzero(settled)), int(np.count_nonzero(~wrong))
            price = max(cost[group], 1e-300)
            key = (-(count / price), -(right / price))
            if best is None or key < best[0]:
                best = key, group, running, settled
        _, group, running, settled = best
        order.append(group)
        left.remove(group)
        to_come -= weight[group]
        sums, open_rows = running[~settled], open_rows[~settled]
    return tuple(order)


def _lead(running: NDArray[Any], label: NDArray[Any]) -> NDArray[Any]:
    top = np.take_along_axis(running, label[:, None], axis=1)[:, 0]
    if running.shape[1] == 1:
        return top
    others = running.copy()
    np.put_along_axis(others, label[:, None], -np.inf, axis=1)
    gap: NDArray[Any] = top - others.max(axis=1)
    return gap


def _settled(lead: NDArray[Any], wrong: NDArray[Any], delta: float, to_come: float) -> NDArray[np.bool_]:
    order = np.argsort(-lead, kind="stable")
    falling = lead[order]
    share = np.cumsum(wrong[order]) <= delta * np.arange(1, len(order) + 1)
    ends = np.append(falling[1:] < falling[:-1], True) if len(order) else np.zeros(0, bool)
    allowed = np.flatnonzero(share & ends)
    threshold = falling[allowed[-1]] if len(allowed) else np.inf
    settled: NDArray[np.bool_] = (lead >= threshold) | (lead > to_come)
    return settled


def cuts(
    lead: NDArray[np.float32],
    wrong: NDArray[np.bool_],
    cost: NDArray[np.float64],
    sure: NDArray[np.float32],
    worth: float,
    start: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Find thresholds on the lead that minimise cost plus `worth` per changed decision, one per stage but the last.

    Coordinate descent over stages, from the last backwards: each threshold is the best one, ties whole, for the samples
    that come to its stage, given what happens to those that go on. A threshold below `sure` is charged one changed
    decision that was not seen: the best of many thresholds looks better than it is.

    Parameters
    ----------
    lead, wrong : ndarray, shape (stages, N)
        Of the running answer; wrong: it is not that of all members.
    cost : ndarray, shape (stages,)
        Of consulting each stage.
    sure : ndarray, shape (stages - 1,)
        From where on nothing can change: no threshold is above.
    worth : float
        What a changed decision is worth, in units of cost.
    start : ndarray of float32, shape (stages - 1,)
        Where the descent begins: `sure`, or what was found for a higher worth.

    Returns
    -------
    ndarray of float32, shape (stages - 1,)
        Midway between adjacent leads.
    """
    stages, count = lead.shape
    orders = [np.argsort(-lead[s], kind="stable") for s in range(stages - 1)]  # NaN comes last
    found = start.copy()
    for _ in range(_SWEEPS):
        before = found.copy()
        here = np.ones(count, bool)
        reached = []
        for s in range(stages - 1):
            reached.append(here)
            here = here & ~(lead[s] >= found[s])
        onward = np.zeros(count)
        for s in range(stages - 2, -1, -1):
            rows = orders[s][reached[s][orders[s]]]
            rows = rows[~np.isnan(lead[s, rows])]
            goes_on = cost[s + 1] + onward
            falling = lead[s, rows]
            saved = np.cumsum(goes_on[rows] - worth * wrong[s, rows])
            if len(rows):
                saved[falling < sure[s]] -= worth
                saved[:-1][falling[1:] == falling[:-1]] = -np.inf
                at = int(saved.argmax())
                found[s] = _midway(falling, at) if saved[at] > 0 and falling[at] < sure[s] else sure[s]
            onward = np.where(lead[s] >= found[s], worth * wrong[s], goes_on)
        if np.array_equal(found, before):
            break
    return found


def _midway(falling: NDArray[np.float32], at: int) -> np.float32:
    """Give the threshold that lets pass all up to `at`: midway to the next lead, where float32 allows."""
    if at + 1 == len(falling):
        return np.float32(falling[at])
    middle = np.float32((float(falling[at]) + float(falling[at + 1])) / 2)
    return middle if middle > falling[at + 1] else np.float32(falling[at])


def cells(
    lead: NDArray[np.float32], wrong: NDArray[np.bool_], sure: NDArray[np.float32], delta: float
) -> tuple[Cells, ...]:
    """Estimate P(disagree | stage, lead) of the samples that come to each stage, and bound it cell by cell.

    Distinct leads are cells of their own, or quantiles of about equal count where there are more than 64. From `sure`
    on nothing can change, and the bound is 0. Shapes as for `cuts`.
    """
    here = np.ones(lead.shape[1], bool)
    found = []
    for s in range(len(lead) - 1):
        open_lead = lead[s, here & (lead[s] < sure[s])]
        open_wrong = wrong[s, here & (lead[s] < sure[s])]
        starts = np.unique(open_lead)
        if len(starts) > _CELLS:
            starts = np.unique(np.quantile(open_lead, np.arange(_CELLS) / _CELLS, method="lower"))
        cell = np.searchsorted(starts, open_lead, side="right") - 1
        samples = np.bincount(cell, minlength=len(starts))
        disagreed = np.bincount(cell, open_wrong, minlength=len(starts)).astype(np.int64)
        high = upper_bound(disagreed, samples, CONFIDENCE)
        known = Cells(
            (*starts.tolist(), float(sure[s])),
            (*samples.tolist(), int(np.count_nonzero(here & (lead[s] >= sure[s])))),
            (*disagreed.tolist(), 0),
            (*high.tolist(), 0.0),
        )
        found.append(known)
        stop = lead[s] >= sure[s]
        stop[here & (lead[s] < sure[s])] |= (high <= delta)[cell]
        here = here & ~stop
    return tuple(found)
