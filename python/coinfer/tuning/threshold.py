"""One threshold, tuned exactly: every operating point of a `Forward` strategy from one sort.

The whole front is found in O(N log N) (see ``src/coinfer/sweep/cuts.hpp``); nothing is sampled, no grid is laid.
The point is chosen on one part of the samples and measured on the other, because a threshold looks best on the data
it was chosen on.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer._core import sweep
from coinfer.compiling import CompiledPlan, Compiler
from coinfer.errors import BadValueError, UnsupportedError
from coinfer.replaying import check_draws
from coinfer.results import Estimate
from coinfer.strategy.forward import ANY, Forward
from coinfer.tuning.constraint import Constraint, known_quantity

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray
    from rich.table import Table

    from coinfer.network import Network
    from coinfer.predictions import Predictions

__all__ = ["Tuned", "tune"]

_HIGHER_IS_BETTER = ("accuracy",)


@dataclass(frozen=True)
class Tuned:
    """A tuned strategy, and how it was found.

    Attributes
    ----------
    strategy : Forward
        Ready to replay.
    front : pyarrow.Table
        Every operating point on the samples it was fitted on, in order of falling threshold: `threshold`,
        `accuracy`, `forwarded_share` (not settled at the first stage), `stages`, `latency_us_mean`, `price_usd`,
        `on_front` (no other point is as accurate and cheaper in the objective, or as cheap and more accurate),
        `feasible`.
        With ``models="any"`` also `models`, the path that the point belongs to.
    chosen : dict
        The chosen row of `front`.
    measured : dict
        The same quantities on the samples that were held out; `accuracy` is an `Estimate`. On the fitted samples
        themselves if nothing was held out (`held_out` says which).
    feasible : bool
        Whether some point meets all constraints on the fitted samples. If not, `chosen` is the point that misses
        them least.
    binding : str or None
        The constraint that is missed, or that keeps a cheaper point from being chosen.
    """

    strategy: Forward
    front: pa.Table
    chosen: dict[str, Any]
    measured: dict[str, Any]
    held_out: bool
    feasible: bool
    binding: str | None
    minimise: str
    subject_to: tuple[Constraint, ...]
    samples: tuple[int, int]
    certificate: None = None

    def to_dict(self) -> dict[str, Any]:
        """Give everything but the front as plain data, ready for JSON."""
        measured = {k: v.to_dict() if isinstance(v, Estimate) else v for k, v in self.measured.items()}
        return {
            "strategy": self.strategy.to_dict(),
            "minimise": self.minimise,
            "subject_to": [str(c) for c in self.subject_to],
            "feasible": self.feasible,
            "binding": self.binding,
            "chosen": self.chosen,
            "measured": measured,
            "held_out": self.held_out,
            "samples": {"fit": self.samples[0], "measured": self.samples[1]},
            "points": self.front.num_rows,
            "points_on_front": int(np.count_nonzero(self.front["on_front"])),
        }

    def rows(self) -> list[tuple[str, str, str]]:
        """Give what `print` shows: name, value where fitted, value where measured."""
        shown: list[tuple[str, str, str]] = []
        for name in ("accuracy", "forwarded_share", "stages", "latency_us_mean", "price_usd"):
            if name in self.chosen:
                measured = self.measured.get(name)  # no accuracy if no held-out sample has a label
                interval = f" ({measured.low:.4f} to {measured.high:.4f})" if isinstance(measured, Estimate) else ""
                said = "unknown" if measured is None else f"{measured:.6g}{interval}"
                shown.append((name, f"{self.chosen[name]:.6g}", said))
        return shown

    def __str__(self) -> str:
        lines = [f"{self.strategy.name}: {self._verdict()}"]
        lines += [f"  {name:<16} {fitted:>12}   {measured}" for name, fitted, measured in self.rows()]
        return "\n".join(lines)

    def _verdict(self) -> str:
        wish = f"minimise {self.minimise}" + (
            f" subject to {', '.join(map(str, self.subject_to))}" if self.subject_to else ""
        )
        where = f"chosen on {self.samples[0]:,} samples, measured on " + (
            f"{self.samples[1]:,} others" if self.held_out else "the same"
        )
        if self.feasible:
            return f"{wish}; {where}"
        return f"{wish}: INFEASIBLE, this is the nearest point; '{self.binding}' cannot be met; {where}"

    def __rich__(self) -> Table:
        from rich.table import Table

        table = Table(title=self.strategy.name, caption=self._verdict(), title_justify="left", caption_justify="left")
        for heading in ("", "fitted", "held out" if self.held_out else "same samples"):
            table.add_column(heading, justify="left" if not heading else "right")
        for row in self.rows():
            table.add_row(*row)
        return table


def tune(
    strategy: Forward,
    predictions: Predictions,
    network: Network,
    *,
    minimise: str = "price_usd",
    subject_to: str | Iterable[str] = (),
    split: Sequence[float] | None = (0.5, 0.5),
    seed: int = 0,
    ingress: str | None = None,
    threads: int = 1,
) -> Tuned:
    """Choose the threshold of a `Forward` strategy that minimises one quantity under constraints on others.

    One threshold for all stages; for two stages that is every cascade there is. All operating points are examined,
    exactly; equal scores are never cut apart. Thresholds lie midway between adjacent distinct scores.

    Parameters
    ----------
    strategy : Forward
        Its score, models and temperature are kept; thresholds it may have are ignored. With ``models="any"`` every
        way of leaving tiers out is tried too: a weak model on the path may cost more time than it saves.
    predictions : Predictions
        With true labels, if accuracy is to be bounded.
    network : Network
        For latency and price; mean service times, no queues.
    minimise : str
        ``"price_usd"``, ``"latency_us_mean"``, ``"forwarded_share"`` or ``"stages"`` (``"accuracy"`` is maximised).
        Ties go to the higher accuracy, then to the lower forwarded share.
    subject_to : str or iterable of str
        Such as ``"accuracy >= 0.95"``.
    split : pair of float, or None
        Shares of the samples to choose on and to measure on, drawn at random by `seed`; None chooses and measures
        on all.
    seed : int
        For the split.
    ingress : str, optional
        Whose path to tune for. Default: the network's ingress nodes in equal parts; their paths must hold the same
        models.
    threads : int
        Does not change any result.

    Returns
    -------
    Tuned

    Raises
    ------
    CoinferError
        If a quantity is unknown, labels are missing, the split is impossible or the ingress nodes' paths differ.

    Examples
    --------
    >>> import coinfer as ci
    >>> preds = ci.Predictions(
    ...     {"small": ci.ModelOutput(label=[0, 1, 1, 0], confidence=[0.9, 0.4, 0.8, 0.3]),
    ...      "large": ci.ModelOutput(label=[0, 0, 1, 1], confidence=[0.9, 0.9, 0.9, 0.9])}, labels=[0, 0, 1, 1])
    >>> net = ci.Network.chain({"device": "small", "cloud": "large"}, price_usd=[0, 1e-4])
    >>> tuned = ci.tune(ci.Forward(score="confidence"), preds, net, subject_to=["accuracy >= 1"], split=None)
    >>> round(tuned.strategy.threshold, 6), tuned.chosen["forwarded_share"]
    (0.6, 0.5)
    """
    if not isinstance(strategy, Forward):
        msg = f"only Forward has a threshold that can be tuned here, not {type(strategy).__name__}"
        raise UnsupportedError(msg)
    objective = known_quantity(minimise)
    constraints = Constraint.parse_all(subject_to)
    check_draws(seed, threads)
    if predictions.labels is None and (objective == "accuracy" or any(c.quantity == "accuracy" for c in constraints)):
        msg = "accuracy needs the true labels of the samples, but these predictions have none"
        raise UnsupportedError(msg)
    compiler = Compiler(predictions, network, threads)
    fit, held = _split(len(predictions), split, seed)
    _check_labelled(predictions, fit, "to choose on")
    candidates = [_Candidate(s, compiler, ingress, fit) for s in _templates(strategy, compiler, ingress)]
    front = {name: np.concatenate([c.points[name] for c in candidates]) for name in candidates[0].points}
    owner = np.repeat(np.arange(len(candidates)), [len(c.points["threshold"]) for c in candidates])
    feasible = np.ones(len(front["threshold"]), bool)
    for constraint in constraints:
        feasible &= constraint.holds(front[constraint.quantity])
    at, binding = _choose(front, feasible, objective, constraints)
    front["on_front"] = _on_front(front, objective)
    front["feasible"] = feasible
    best = candidates[owner[at]]
    threshold = float(front["threshold"][at])
    chosen = {name: column[at].item() for name, column in front.items()}
    measured = best.measure(threshold, fit if held is None else held)
    import pyarrow as pa

    table = pa.table(front)
    if strategy.models == ANY:
        names = pa.array([" -> ".join(c.models) for c in candidates])
        table = table.add_column(0, "models", pa.DictionaryArray.from_arrays(pa.array(owner), names))
        chosen["models"] = " -> ".join(best.models)
    return Tuned(
        strategy=best.strategy.at(threshold),
        front=table,
        chosen=chosen,
        measured=measured,
        held_out=held is not None,
        feasible=bool(feasible.any()),
        binding=binding,
        minimise=objective,
        subject_to=constraints,
        samples=(len(fit), len(fit if held is None else held)),
    )


Columns = dict[str, "NDArray[Any]"]

_TIERS_TO_SKIP_MAX = 10


def _templates(strategy: Forward, compiler: Compiler, ingress: str | None) -> list[Forward]:
    """Give the strategies whose thresholds are to be swept: the one given, or one per choice of tiers."""
    if strategy.models != ANY:
        return [strategy]
    network = compiler.network
    spec = replace(strategy, models=None).at(0.0).plan(network, network.ingress[0] if ingress is None else ingress)
    models = [d.model for stage in spec.stages for d in stage.members]
    if len(models) > _TIERS_TO_SKIP_MAX:
        msg = f"models='any' tries every choice of tiers, and can do so for {_TIERS_TO_SKIP_MAX}, not for {len(models)}"
        raise UnsupportedError(msg)
    choices = [c for size in range(len(models), 0, -1) for c in itertools.combinations(models, size)]
    return [replace(strategy, models=choice) for choice in choices]


class _Candidate:
    """One path of models, with all its operating points."""

    def __init__(self, strategy: Forward, compiler: Compiler, ingress: str | None, fit: NDArray[np.uint32]) -> None:
        self.strategy = strategy
        self.compiler = compiler
        if ingress is not None:
            compiler.network.node(ingress)
        names = compiler.network.ingress if ingress is None else (ingress,)
        probe = strategy.at(0.0)
        ways = [(compiler.plan(probe, name), name) for name in names]
        paths = [tuple(d.model for stage in p.spec.stages for d in stage.members) for p, _ in ways]
        self.models = paths[0]
        for name, others in zip(names, paths, strict=True):
            if others != self.models:
                msg = (
                    f"the path from {name!r} ({' -> '.join(others)}) differs from that from {names[0]!r} "
                    f"({' -> '.join(self.models)}); say which to tune for with ingress="
                )
                raise UnsupportedError(msg)
        if len(self.models) < 2 and strategy.models is None:
            msg = f"there is nothing to tune: the path from {names[0]!r} has only the model {self.models[0]!r}"
            raise UnsupportedError(msg)
        self._ingress = names[0]
        self._costs = _costs(compiler, ways)
        self.points = _points(compiler, ways[0][0], self._costs, fit)

    def measure(self, threshold: float, rows: NDArray[np.uint32]) -> dict[str, Any]:
        """Give the same quantities at one threshold, on chosen samples, by way of the engine's own decisions."""
        compiled = self.compiler.plan(self.strategy.at(threshold), self._ingress)
        stage = compiled.decisions.route[rows].astype(np.int64)
        costs = self._costs
        measured: dict[str, Any] = {}
        labels = self.compiler.predictions.labels
        if labels is not None and np.any(labels[rows] >= 0):
            known = labels[rows] >= 0
            right = int(np.count_nonzero((compiled.evidence.label[stage, rows] == labels[rows]) & known))
            total = int(np.count_nonzero(known))
            measured["accuracy"] = Estimate.share(right, total, total)
        latency = costs.latency_ns
        taken = latency[stage] if latency.ndim == 1 else latency[stage, rows]
        measured["forwarded_share"] = float(np.count_nonzero(stage > 0) / len(rows))
        measured["stages"] = float((stage + 1).mean())
        measured["latency_us_mean"] = float(taken.mean() / costs.ingresses / 1e3)
        measured["price_usd"] = float(costs.pico_usd[stage].mean() / costs.ingresses / 1e12)
        return measured


def _check_labelled(predictions: Predictions, rows: NDArray[np.uint32], what: str) -> None:
    if predictions.labels is not None and not np.any(predictions.labels[rows] >= 0):
        msg = f"none of the {len(rows)} samples {what} has a true label"
        raise UnsupportedError(msg)


def _split(
    count: int, split: Sequence[float] | None, seed: int
) -> tuple[NDArray[np.uint32], NDArray[np.uint32] | None]:
    if split is None:
        return np.arange(count, dtype=np.uint32), None
    shares = tuple(split) if isinstance(split, Iterable) else ()
    if len(shares) != 2 or not all(isinstance(s, Real) and 0 < s < 1 for s in shares) or sum(shares) > 1 + 1e-9:
        msg = (
            f"split must be two positive shares (to choose on, to measure on), at most 1 in sum, or None, not {split!r}"
        )
        raise BadValueError(msg)
    first, second = round(shares[0] * count), round(sum(shares) * count)
    if first == 0 or second == first:
        msg = f"{count} samples cannot be split into {shares[0]:g} and {shares[1]:g}; give more samples, or split=None"
        raise BadValueError(msg)
    order = np.random.Generator(np.random.Philox(seed)).permutation(count).astype(np.uint32)
    return np.sort(order[:first]), np.sort(order[first:second])


@dataclass(frozen=True)
class _Costs:
    """What it takes to settle at each stage, added up over the ingress nodes."""

    latency_ns: NDArray[np.int64]  # [stage], or [stage, sample] if service times were measured
    pico_usd: NDArray[np.int64]  # [stage]
    ingresses: int


def _costs(compiler: Compiler, ways: list[tuple[CompiledPlan, str]]) -> _Costs:
    settling = [compiler.settling(way.spec, ingress) for way, ingress in ways]
    latency = np.broadcast_arrays(*(sum(parts) for parts in zip(*(latency for latency, _ in settling), strict=True)))
    price = np.array([price for _, price in settling], np.int64).sum(axis=0)
    return _Costs(np.rint(np.array(latency)).astype(np.int64), price, len(ways))


def _points(compiler: Compiler, compiled: CompiledPlan, costs: _Costs, rows: NDArray[np.uint32]) -> Columns:
    labels = compiler.predictions.labels
    stages = len(compiled.spec.stages)
    quantities: list[NDArray[Any]] = [costs.latency_ns.reshape(-1), costs.pico_usd]
    if labels is not None:
        right = (compiled.evidence.label == labels) & (labels >= 0)
        quantities.append(right.view(np.uint8).reshape(-1))
    threshold, settled, sums = sweep.cuts(compiled.evidence, quantities, rows)
    n, ways = len(rows), costs.ingresses
    columns: Columns = {"threshold": threshold.astype(np.float64)}
    if labels is not None:
        columns["accuracy"] = sums[2] / int(np.count_nonzero(labels[rows] >= 0))
    columns["forwarded_share"] = (n - settled[0]) / n
    columns["stages"] = (np.arange(1, stages + 1) @ settled) / n
    columns["latency_us_mean"] = sums[0] / (n * ways) / 1e3
    columns["price_usd"] = sums[1] / (n * ways) / 1e12
    return columns


def _choose(
    front: Columns, feasible: NDArray[np.bool_], objective: str, constraints: tuple[Constraint, ...]
) -> tuple[int, str | None]:
    goal = -front[objective] if objective in _HIGHER_IS_BETTER else front[objective]
    accuracy = front.get("accuracy", np.zeros(len(goal)))
    if feasible.any():
        rows = np.flatnonzero(feasible)
        for key in (goal, -accuracy, front["forwarded_share"]):
            rows = rows[key[rows] == key[rows].min()]
        at = int(rows[0])
        cheaper = goal < goal[at]
        binding = next((str(c) for c in constraints if np.any(cheaper & ~c.holds(front[c.quantity]))), None)
        return at, binding
    missed = sum((c.excess(front[c.quantity]) / max(abs(c.bound), 1e-12) for c in constraints), np.zeros(len(goal)))
    at = int(np.lexsort((goal, missed))[0])
    worst = max(
        constraints,
        key=lambda c: float(c.excess(front[c.quantity][at : at + 1])[0]) / max(abs(c.bound), 1e-12),
    )
    return at, str(worst)


def _on_front(front: Columns, objective: str) -> NDArray[np.bool_]:
    """Mark the points that no other dominates in accuracy and cost: the objective, or the forwarded share."""
    cost = front["forwarded_share"] if objective in _HIGHER_IS_BETTER else front[objective]
    on = np.zeros(len(cost), bool)
    if "accuracy" not in front:
        on[np.argmin(cost)] = True
        return on
    # Along one path a falling threshold mostly lowers the cost at every step: then the points are sorted already.
    falls = bool(np.all(cost[1:] < cost[:-1]))
    order = np.arange(len(cost))[::-1] if falls else np.lexsort((-front["accuracy"], cost))
    accuracy = front["accuracy"][order]
    best_before = np.maximum.accumulate(np.concatenate([[-1.0], accuracy[:-1]]))
    on[order] = accuracy > best_before
    return on
