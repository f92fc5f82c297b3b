"""Tuning where requests wait for each other: candidates are replayed on a trace, for waiting is no sum over samples.

What samples alone decide (accuracy, price, shares) is swept exactly for every candidate. Latency, load and what becomes
of deadlines depend on everybody else's decisions, so they are known only where they were replayed: at points spread
over those that meet all other bounds, first on short traces (successive halving), then on the whole trace ever closer
around the best. All candidates meet the same requests and the same draws, so they differ by what they decide alone.

The search says nothing about the points that it did not replay. What comes out is an estimate on this trace: intervals
come from replaying the trace made anew of stretches of itself, asking about samples drawn anew, with fresh draws of
service times. That repeats all that is random here, and in a block whatever depends on its neighbours in time
(Kuensch, "The jackknife and the bootstrap for general stationary observations", Annals of Statistics 1989). It is never
a certificate.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from coinfer.errors import BadValueError, OverloadWarning, UnsupportedError
from coinfer.replaying import Requests, Run
from coinfer.results import Estimate, Summary
from coinfer.trace import Trace
from coinfer.tuning.constraint import depends_on_load, quantile_of, subject_of
from coinfer.tuning.searching import Goal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer.compiling import Compiler
    from coinfer.strategy.base import Strategy
    from coinfer.tuning.measuring import Columns

__all__ = ["UnderLoad", "Waiting"]

_SCATTERED: Final = 512
_SPREAD: Final = 48
_SHORT: Final = 50_000
_CLOSER: Final = 8
_ROUNDS: Final = 10
_LONGER: Final = 8
_SURE: Final = 40
_STRETCHES: Final = 20
_REPLICATES: Final = 40
_REPLICATES_MIN: Final = 20
_REPLAYED_MAX: Final = 40_000_000


@dataclass(frozen=True)
class UnderLoad:
    """What of a tuning was replayed, and on what.

    Attributes
    ----------
    quantities : tuple of str
        Known from replays; everything else is known from all samples.
    candidates : int
        Points that were replayed.
    requests : int
        In the trace, all of which the finalists were replayed on.
    replicates : int
        Replays of the trace drawn anew that the intervals rest on.
    summary : Summary
        Of the chosen strategy on the samples it was measured on: also load per deployment, and how requests ended.
    """

    quantities: tuple[str, ...]
    candidates: int
    requests: int
    replicates: int
    summary: Summary

    @property
    def sentence(self) -> str:
        """Say which numbers are estimates."""
        return (
            f"{', '.join(self.quantities)}: replayed, {self.candidates} candidates on {self.requests:,} requests each "
            f"with common draws; estimates on this trace, not certified (95 % intervals from {self.replicates} replays "
            f"of its stretches in random order, about samples drawn anew)."
        )

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain data, ready for JSON."""
        return {
            "quantities": list(self.quantities),
            "candidates": self.candidates,
            "requests": self.requests,
            "replicates": self.replicates,
            "summary": self.summary.to_dict(),
        }


class Waiting:
    """Candidates replayed on one trace."""

    def __init__(self, compiler: Compiler, trace: Trace, quantities: Sequence[str], seed: int) -> None:
        if not isinstance(trace, Trace):
            msg = f"trace must be a coinfer.Trace, not {trace!r}"
            raise BadValueError(msg)
        self.compiler, self.trace, self.seed = compiler, trace, seed
        self._requests(trace)  # refuses what does not fit together
        queueing = compiler.network.queueing
        asked = [name for name in quantities if depends_on_load(name) and (queueing or not name.startswith("load["))]
        self.quantities = tuple(dict.fromkeys(["latency_us_mean", *asked]))
        if "goodput" in asked and compiler.predictions.labels is None:
            msg = "goodput needs the true labels of the samples, but these predictions have none"
            raise UnsupportedError(msg)

    def alone(self, goal: Goal) -> Goal:
        """Give what of a goal samples alone decide; what is to be minimised under load, by what it is alone."""
        minimise = "latency_us_mean" if depends_on_load(goal.minimise) else goal.minimise
        kept = tuple(c for c in goal.subject_to if c.quantity not in self.quantities)
        return Goal(minimise, kept, scatter=_SCATTERED)

    # Traces -------------------------------------------------------------------------------------------------

    def about(self, rows: NDArray[np.uint32]) -> Trace:
        """Give the trace with all its arrivals, asking about these samples alone.

        A request about another sample asks what some other request at its ingress does that asks about one of these:
        so loads stay, and so does what is popular where.
        """
        trace, sample = self.trace, self.trace.sample.copy()
        inside = np.zeros(len(self.compiler.predictions), bool)
        inside[rows] = True
        rng = np.random.Generator(np.random.Philox(key=[self.seed, 1]))
        known = inside[sample]
        for node in range(len(trace.nodes)):
            here = trace.ingress == node
            lost, like = np.flatnonzero(here & ~known), sample[here & known]
            like = like if len(like) else rows.astype(np.int32)
            sample[lost] = like[rng.integers(len(like), size=len(lost))]
        return _of_rows(trace, np.arange(len(trace)), sample)

    def anew(self, trace: Trace, rows: NDArray[np.uint32], draw: int) -> Trace:
        """Make the trace of stretches of itself, asking about samples that are drawn anew from these."""
        rng = np.random.Generator(np.random.Philox(key=[self.seed, 2 + draw]))
        stretches = np.array_split(np.arange(len(trace)), min(_STRETCHES, len(trace)))
        order = np.concatenate([stretches[at] for at in rng.integers(len(stretches), size=len(stretches))])
        instead = np.arange(len(self.compiler.predictions), dtype=np.int32)
        instead[rows] = rows[rng.integers(len(rows), size=len(rows))]
        return _of_rows(trace, order, instead[trace.sample])

    # Replays ------------------------------------------------------------------------------------------------

    def run(self, strategy: Strategy, requests: Requests, seed: int) -> Run:
        """Replay, whatever is overloaded: a candidate may be."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OverloadWarning)
            return Run(requests, self.compiler, strategy, seed)

    def _requests(self, trace: Trace) -> Requests:
        return Requests(trace, self.compiler.predictions, self.compiler.network)

    def decides(self, strategy: Strategy) -> bool:
        """Say whether what the strategy decides depends on queues, so that nothing is known without a replay."""
        return any(self.compiler.plan(strategy, node).queue_dependent for node in self.trace.nodes)

    def everything(self, strategy: Strategy, rows: NDArray[np.uint32], extra: Sequence[str]) -> dict[str, float]:
        """Replay one strategy on the trace about some samples, for all quantities; those named last too."""
        run = self.run(strategy, self._requests(self.about(rows)), self.seed)
        return {name: _value(run, name) for name in (*_FROM_A_RUN, *extra)} | self.values(run)

    def values(self, run: Run, names: Sequence[str] = ()) -> dict[str, float]:
        """Give the quantities that load decides, and others that are named."""
        return {name: _value(run, name) for name in (*names, *self.quantities)}

    def once(self, strategy: Strategy, rows: NDArray[np.uint32]) -> dict[str, float]:
        """Replay one strategy on the whole trace about some samples."""
        return self.values(self.run(strategy, self._requests(self.about(rows)), self.seed))

    def measure(
        self, strategy: Strategy, rows: NDArray[np.uint32], candidates: int
    ) -> tuple[dict[str, Estimate], UnderLoad]:
        """Replay one strategy on the whole trace about some samples, with intervals."""
        trace = self.about(rows)
        run = self.run(strategy, self._requests(trace), self.seed)
        names = tuple(_FROM_A_RUN) if self.decides(strategy) else ()
        found = self.values(run, names)
        count = max(_REPLICATES_MIN, min(_REPLICATES, _REPLAYED_MAX // len(trace)))
        draws = [
            self.values(self.run(strategy, self._requests(self.anew(trace, rows, draw)), self.seed + 1 + draw), names)
            for draw in range(count)
        ]
        measured = {}
        for name, value in found.items():
            low, high = np.quantile([draw[name] for draw in draws], [0.025, 0.975])
            measured[name] = Estimate(value, min(float(low), value), max(float(high), value), len(rows))
        return measured, UnderLoad(tuple(found), candidates, len(trace), count, run.summary)

    # Search -------------------------------------------------------------------------------------------------

    def search(
        self,
        goal: Goal,
        columns: Columns,
        strategy_at: Callable[[int], Strategy],
        rows: NDArray[np.uint32],
        surest: NDArray[np.int64],
        progress: Callable[[str, int, int], object] | None,
    ) -> tuple[NDArray[np.int64], Columns, list[float]]:
        """Replay points, ever closer to the best.

        Parameters
        ----------
        columns : Columns
            What samples alone decide, for all points.
        surest : ndarray of int
            Points to replay in any case: what a certificate may have to fall back on.

        Returns
        -------
        tuple
            The points that were replayed on the whole trace, their quantities, and the best objective after each round.
        """
        alone = self.alone(goal)
        missed = alone.missed(columns)
        pool = np.flatnonzero(missed == missed.min())  # what meets all bounds, as far as samples can say
        first = int(np.flatnonzero(pool == alone.best(columns))[0])
        looks = _looks(columns, pool)
        whole = self.about(rows)
        done = 0

        def replayed(points: NDArray[np.int64], requests: int) -> Columns:
            nonlocal done
            asked = self._requests(_shortened(whole, requests))
            found = []
            for point in pool[points]:
                found.append(self.values(self.run(strategy_at(int(point)), asked, self.seed)))
                done += 1
                if progress is not None:
                    progress("replaying candidates", done, 0)
            fixed = {name: values[pool[points]] for name, values in columns.items()}
            return fixed | {name: np.array([each[name] for each in found]) for name in self.quantities}

        points, radius = _spread(looks, np.empty((0, looks.shape[1])), _SPREAD, first)
        requests = _SHORT
        while requests < len(whole):  # successive halving
            ranked = _ranked(goal, replayed(points, requests))
            points = points[ranked[: max(_CLOSER, len(points) // 2)]]
            requests *= _LONGER
        known = replayed(points, len(whole))
        trail = []
        for _ in range(_ROUNDS):
            best = int(_ranked(goal, known)[0])
            trail.append(_reached(goal, known))
            hoped = np.ones(len(pool), bool)
            if trail[-1] < np.inf and not depends_on_load(goal.minimise):
                hoped = goal.cost(columns)[pool] < goal.cost(known)[best]
            hoped[points] = False
            if not hoped.any():
                break
            apart = np.abs(looks - looks[points[best]]).max(axis=1)
            near = np.flatnonzero(hoped & (apart <= max(radius, apart[hoped].min())))
            new = near[_spread(looks[near], looks[points], _CLOSER)[0]]
            points, known = np.concatenate([points, new]), _joined(known, replayed(new, len(whole)))
            radius /= 2
        if len(surest):
            some = surest[np.unique(np.linspace(0, len(surest) - 1, _SURE).round().astype(int))]
            new = np.setdiff1d(np.flatnonzero(np.isin(pool, some)), points)
            points, known = np.concatenate([points, new]), _joined(known, replayed(new, len(whole)))
        trail.append(_reached(goal, known))
        return pool[points], known, [float(v) for v in np.minimum.accumulate(trail)]


_FROM_A_RUN: Final[dict[str, Callable[[Summary], float | None]]] = {
    "accuracy": lambda s: s.accuracy,
    "forwarded_share": lambda s: 1.0 - s.settled_by_stage[0],
    "stages": lambda s: s.stages,
    "latency_us_mean": lambda s: s.latency_us.mean,
    "price_usd": lambda s: s.price_usd,
    "goodput": lambda s: s.goodput,
    "deadline_missed": lambda s: 1.0 - s.status["answered"] / s.requests,
}


def _value(run: Run, name: str) -> float:
    summary, quantile, about = run.summary, quantile_of(name), subject_of(name)
    if quantile is not None:
        return float(run.latency_quantiles(quantile))
    if about is None:
        value = _FROM_A_RUN[name](summary)
        return float("nan") if value is None else float(value)
    if about[0] in ("recall", "load"):
        shares = summary.accuracy_by_class if about[0] == "recall" else summary.utilisation_by_node
        return shares.get(about[1], float("nan"))
    msg = f"{name} of a strategy whose decisions depend on queues is not known: bound accuracy or recall[...]"
    raise UnsupportedError(msg)


def _of_rows(trace: Trace, rows: NDArray[np.int64], sample: NDArray[np.int32]) -> Trace:
    """Make a trace of requests in the order given: each comes as long after the one before as it did."""
    gap = np.diff(trace.arrival_ns, prepend=trace.arrival_ns[:1])[rows]
    parts = {name: getattr(trace, name) for name in ("deadline_us", "priority")}
    return Trace(
        np.cumsum(gap),
        trace.ingress[rows],
        sample[rows],
        nodes=trace.nodes,
        **{name: None if values is None else values[rows] for name, values in parts.items()},
    )


def _shortened(trace: Trace, requests: int) -> Trace:
    """Keep about so many requests, in eight stretches spread over the trace."""
    if requests >= len(trace):
        return trace
    each = max(1, requests // 8)
    starts = np.linspace(0, len(trace) - each, 8).astype(np.int64)
    return _of_rows(trace, (starts[:, None] + np.arange(each)).reshape(-1), trace.sample)


def _looks(columns: Columns, pool: NDArray[np.int64]) -> NDArray[np.float64]:
    """Place points so that those of like quantities, which load the network alike, lie close: [point][0 to 1]."""
    placed = []
    for values in columns.values():
        here = values[pool].astype(np.float64)
        low, high = float(here.min()), float(here.max())
        if high > low:
            placed.append((here - low) / (high - low))
    return np.stack(placed, axis=1) if placed else np.zeros((len(pool), 1))


def _spread(
    looks: NDArray[np.float64], known: NDArray[np.float64], most: int, first: int = 0
) -> tuple[NDArray[np.int64], float]:
    """Choose points far from known ones and from each other, and say how far from one of them any point is at most."""
    apart = np.full(len(looks), np.finfo(np.float64).max)
    apart[first] = np.inf
    for each in known:
        apart = np.minimum(apart, np.abs(looks - each).max(axis=1))
    chosen: list[int] = []
    while len(chosen) < min(most, len(looks)):
        at = int(apart.argmax())
        if chosen and apart[at] == 0:
            break
        chosen.append(at)
        apart = np.minimum(apart, np.abs(looks - looks[at]).max(axis=1))
    return np.array(chosen, np.int64), float(apart.max())


def _ranked(goal: Goal, known: Columns) -> NDArray[np.int64]:
    """Order replayed points, the best first, as `Goal.best` compares them."""
    accuracy = known.get("accuracy", np.zeros(len(known["forwarded_share"])))
    order: NDArray[np.int64] = np.lexsort((known["forwarded_share"], -accuracy, goal.cost(known), goal.missed(known)))
    return order


def _reached(goal: Goal, known: Columns) -> float:
    missed, cost, *_ = goal.key(known, goal.best(known))
    return cost if missed == 0 else float("inf")


def _joined(known: Columns, more: Columns) -> Columns:
    return {name: np.concatenate([values, more[name]]) for name, values in known.items()}
