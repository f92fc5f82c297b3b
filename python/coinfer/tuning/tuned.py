"""Tune: choose the parameters of a strategy that cost least and meet constraints, and say how far to trust it.

The samples are split: chosen on one part, certified on another, measured on a third, because a threshold looks best on
the data it was chosen on.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from coinfer._checks import check_number
from coinfer._core import sweep
from coinfer.compiling import Compiler
from coinfer.errors import BadValueError, QueueWarning, UnsupportedError
from coinfer.replaying import check_draws
from coinfer.results import Estimate, wilson
from coinfer.strategy.base import Parameter, Strategy
from coinfer.tuning.certifying import candidates, certify, check_certifiable
from coinfer.tuning.constraint import (
    ON_A_TRACE,
    Constraint,
    depends_on_load,
    known_quantity,
    more_is_better,
    quantile_of,
    subject_of,
)
from coinfer.tuning.measuring import Columns, Measures
from coinfer.tuning.outer import Variant, variants
from coinfer.tuning.searching import Gap, Goal
from coinfer.tuning.waiting import UnderLoad, Waiting

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray
    from rich.table import Table

    from coinfer.network import Network
    from coinfer.predictions import Predictions
    from coinfer.trace import Trace
    from coinfer.tuning.certificate import Certificate

__all__ = ["Tuned", "evaluate", "tune"]

_SPLIT: Final = (0.5, 0.5)
_SPLIT_CERTIFIED: Final = (0.4, 0.4, 0.2)
_REPLICATES: Final = 400


@dataclass(frozen=True)
class Tuned:
    """A tuned strategy, and how it was found.

    Attributes
    ----------
    strategy : Strategy
        Ready to replay; carries the certificate if there is one.
    front : pyarrow.Table
        Every operating point that was looked at, on the samples it was fitted on: `threshold` or `thresholds` (in order
        of falling threshold, if it is one for all stages), other parameters by name, `accuracy`, `forwarded_share`
        (not settled at the first stage), `stages`, `latency_us_mean`, `price_usd`, what else the problem asks about,
        `on_front` (no other point is as accurate and cheaper in the objective, or as cheap and more accurate),
        `feasible`. With ``models="any"`` also `models`, the path that the point belongs to. With a trace also
        `replayed`: latencies and loads are null, and nothing is known to be feasible, where that is false.
    chosen : dict
        The chosen row of `front`.
    measured : dict
        The same quantities on the samples that were held out, as `Estimate`. On the fitted samples themselves if
        nothing was held out (`held_out` says which).
    feasible : bool
        Whether some point meets all constraints on the fitted samples. If not, `chosen` is the point that misses
        them least.
    binding : str or None
        The constraint that is missed, or that keeps a cheaper point from being chosen.
    certificate : Certificate or None
        What is guaranteed; None if nothing was to be certified, or nothing could be (`asked` says which).
    method : str
        How the points were found: exactly, on a grid, by coordinate ascent.
    trail : tuple of float
        The objective after each step of the search; never worse.
    gap : Gap or None
        How far the search was from the best where that could be known; None if it was exhaustive, or candidates were
        replayed.
    under_load : UnderLoad or None
        What was replayed on a trace, and on how many requests; None without a trace.
    warning : str
        What must be kept in mind: that nobody waited for anybody although the network has queues. Else empty.
    """

    strategy: Strategy
    front: pa.Table
    chosen: dict[str, Any]
    measured: dict[str, Any]
    held_out: bool
    feasible: bool
    binding: str | None
    minimise: str
    subject_to: tuple[Constraint, ...]
    samples: tuple[int, int]
    certificate: Certificate | None = None
    asked: bool = False
    calibrated: int = 0
    method: str = ""
    trail: tuple[float, ...] = field(default=(), compare=False)
    gap: Gap | None = field(default=None, compare=False)
    under_load: UnderLoad | None = field(default=None, compare=False)
    warning: str = ""

    @property
    def optimism(self) -> dict[str, float]:
        """By how much each quantity looks better where it was fitted than on the held-out samples."""
        better = {name: 1.0 if more_is_better(name) else -1.0 for name in self.measured}
        return {name: better[name] * (self.chosen[name] - float(value)) for name, value in self.measured.items()}

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
            "samples": {"fit": self.samples[0], "calibrate": self.calibrated, "measured": self.samples[1]},
            "method": self.method,
            "gap": None if self.gap is None else asdict(self.gap),
            "under_load": None if self.under_load is None else self.under_load.to_dict(),
            "warning": self.warning or None,
            "certificate": None if self.certificate is None else self.certificate.to_dict(),
            "certified": None if not self.asked else self.certificate is not None,
            "points": self.front.num_rows,
            "points_on_front": int(np.count_nonzero(self.front["on_front"])),
        }

    def rows(self) -> list[tuple[str, str, str]]:
        """Give what `print` shows: name, value where fitted, value where measured."""
        shown: list[tuple[str, str, str]] = []
        names = [*("accuracy", "forwarded_share", "stages", "latency_us_mean", "price_usd"), *self.measured]
        for name in dict.fromkeys(names):
            if name in self.chosen:
                measured = self.measured.get(name)  # no accuracy if no held-out sample has a label
                interval = f" ({measured.low:.4g} to {measured.high:.4g})" if isinstance(measured, Estimate) else ""
                said = "unknown" if measured is None else f"{measured:.6g}{interval}"
                shown.append((name, f"{self.chosen[name]:.6g}", said))
        return shown

    def __str__(self) -> str:
        lines = [f"{self.strategy.name}: {self.verdict}"]
        width = max(16, *(len(name) for name, *_ in self.rows()))
        lines += [f"  {name:<{width}} {fitted:>12}   {measured}" for name, fitted, measured in self.rows()]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said below the numbers: the certificate, what was replayed, and what was left out."""
        said = [self.certified_in_words] if self.asked else []
        if self.gap is not None:
            said.append(f"{self.gap}.")
        if self.under_load is not None:
            said.append(self.under_load.sentence)
        return (*said, self.warning) if self.warning else tuple(said)

    @property
    def certified_in_words(self) -> str:
        """The certificate in one sentence, or why there is none."""
        if self.certificate is not None:
            return self.certificate.sentence
        return (
            f"NOT CERTIFIED: no operating point passed on the {self.calibrated:,} calibration samples; allow more, or "
            "give more samples"
        )

    def report(self, path: str | PathLike[str], title: str | None = None) -> Path:
        """Write the front with the chosen point, and the certificate, as one HTML file."""
        from coinfer.report._tuned import write_tuned

        return write_tuned(self, path, title)

    @property
    def verdict(self) -> str:
        """What was asked, whether it can be had, and on which samples."""
        wish = f"{'maximise' if more_is_better(self.minimise) else 'minimise'} {self.minimise}" + (
            f" subject to {', '.join(map(str, self.subject_to))}" if self.subject_to else ""
        )
        where = f"chosen on {self.samples[0]:,} samples, measured on " + (
            f"{self.samples[1]:,} others" if self.held_out else "the same"
        )
        how = f" ({self.method})" if self.method else ""
        if self.feasible:
            return f"{wish}; {where}{how}"
        return f"{wish}: INFEASIBLE, this is the nearest point; '{self.binding}' cannot be met; {where}{how}"

    def __rich__(self) -> Table:
        from rich.table import Table

        caption = "\n".join([self.verdict, *self.notes])
        table = Table(title=self.strategy.name, caption=caption, title_justify="left", caption_justify="left")
        for heading in ("", "fitted", "held out" if self.held_out else "same samples"):
            table.add_column(heading, justify="left" if not heading else "right")
        for row in self.rows():
            table.add_row(*row)
        return table


def tune(
    strategy: Strategy,
    predictions: Predictions,
    network: Network,
    *,
    minimise: str = "price_usd",
    subject_to: str | Iterable[str] = (),
    confidence: float | None = None,
    split: Sequence[float] | Literal["auto"] | None = "auto",
    seed: int = 0,
    ingress: str | None = None,
    rate_rps: float | None = None,
    trace: Trace | None = None,
    procedure: str = "fixed-sequence",
    threads: int = 1,
    progress: Callable[[str, int, int], object] | None = None,
) -> Tuned:
    """Choose the parameters of a strategy that minimise one quantity under constraints on others.

    One threshold for all stages: every operating point is examined, exactly, and so is every pair where a plan of
    three stages has a threshold for each (`Forward` with ``thresholds="each"``). More thresholds start from a grid.
    Equal scores are never cut apart; thresholds lie midway between adjacent distinct scores.

    Parameters
    ----------
    strategy : Strategy
        What its `parameters` name is moved, the rest is kept; thresholds it may have are ignored. `Forward` with
        ``models="any"`` tries every way of leaving tiers out: a weak model on the path may cost more than it saves.
    predictions : Predictions
        With true labels, if accuracy is to be bounded.
    network : Network
        For latency and price. Without `trace` as if nobody waited: where requests wait in the network, `QueueWarning`
        says so.
    minimise : str
        ``"price_usd"``, ``"latency_us_mean"``, ``"latency_us_p99"`` (any quantile), ``"forwarded_share"``,
        ``"stages"``, ``"accuracy"`` and ``"recall[CLASS]"`` (maximised), ``"accuracy_loss[MODEL]"`` (accuracy of that
        model alone minus accuracy), ``"disagreement[MODEL]"`` (share answered otherwise than by that model; needs no
        labels), ``"load[NODE]"`` (busy share of its instances at `rate_rps`, without batching). With a trace also
        ``"goodput"`` (share right in time; maximised) and ``"deadline_missed"`` (share cut short by the deadline, a
        full queue or a failure).
        Ties go to the higher accuracy, then to the lower forwarded share.
    subject_to : str or iterable of str
        Bounds on the same quantities, such as ``"accuracy >= 0.95"``.
    confidence : float, optional
        Certify the bounds that samples alone decide, with this probability. Default: 0.95 if `split` has three parts,
        else nothing is certified.
    split : two or three floats, or None
        Shares of the samples to choose on, to certify on (if there are three), and to measure on, drawn at random by
        `seed`; None chooses and measures on all. Default: halves; (0.4, 0.4, 0.2) if `confidence` is given.
    seed : int
        For the split, and for the starts of searches.
    ingress : str, optional
        Whose path to tune for. Default: the network's ingress nodes in equal parts; where their paths differ, each
        gets thresholds of its own.
    rate_rps : float, optional
        Requests per second in all, for loads. Default: that of the trace.
    trace : Trace, optional
        Requests whose latency counts, with queues if the network has them: candidates are replayed on it, for
        latencies, loads, goodput and missed deadlines. Its samples are rows of `predictions`; for each part of the
        split, requests about others ask about samples of this part instead. All else is known from the samples, each
        of which counts alike.
    procedure : {"fixed-sequence", "bonferroni"}
        How candidates are tested for the certificate.
    threads : int
        Does not change any result.
    progress : callable, optional
        Called as ``progress(what, done, total)``; total is 0 while unknown.

    Returns
    -------
    Tuned

    Raises
    ------
    CoinferError
        If a quantity is unknown, labels are missing, the split is impossible or nothing can be tuned.

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
    parameters = _parameters(strategy)
    goal = Goal(known_quantity(minimise), Constraint.parse_all(subject_to))
    check_draws(seed, threads)
    bounds: tuple[Constraint, ...] = ()
    shares = _shares(split, confidence)
    certifying = shares is not None and len(shares) == 3
    if confidence is not None and not certifying:
        msg = "confidence= asks for a certificate, which needs samples of its own: split=(fit, calibrate, test)"
        raise BadValueError(msg)
    if certifying:
        confidence = check_number(0.95 if confidence is None else confidence, "confidence", above=0.0, at_most=1.0)
        if confidence == 1.0:
            msg = "confidence must be less than 1: nothing is certain on a finite number of samples"
            raise BadValueError(msg)
        bounds = check_certifiable(goal, procedure)
    quantities = [goal.minimise, *(c.quantity for c in goal.subject_to)]
    compiler = Compiler(predictions, network, threads)
    measures, waiting = _measures(compiler, quantities, ingress, rate_rps, trace, seed)
    warning = _unwaited(network, goal) if waiting is None else ""
    if predictions.labels is None and any(measures.needs_labels(name) for name in quantities):
        msg = "accuracy needs the true labels of the samples, but these predictions have none"
        raise UnsupportedError(msg)
    fit, calibrate, held = _split(len(predictions), shares, seed)
    _check_labelled(predictions, fit, "to choose on")
    learning = predictions if held is None else predictions.select(fit)
    alone = goal if waiting is None else waiting.alone(goal)
    found = variants(strategy, parameters, measures, fit, alone, learning, threads, seed, progress)
    columns = {name: np.concatenate([v.points.columns[name] for v in found]) for name in found[0].points.columns}
    owner = np.repeat(np.arange(len(found)), [len(v.points) for v in found])
    first = np.concatenate([[0], np.cumsum([len(v.points) for v in found])])

    def strategy_at(point: int) -> Strategy:
        whose = int(owner[point])
        return found[whose].points.at(int(point - first[whose]))

    looked, trail = np.arange(len(owner)), None
    if waiting is not None:
        surest = candidates(alone, columns, bounds) if certifying else looked[:0]
        looked, replayed, trail = waiting.search(goal, columns, strategy_at, fit, surest, progress)
        columns = _replaced(columns, looked, replayed)
    known = {name: values[looked] for name, values in columns.items()}
    feasible = np.zeros(len(owner), bool)
    feasible[looked] = goal.missed(known) == 0
    at = int(looked[goal.best(known)])
    certificate: Certificate | None = None
    if certifying:
        assert confidence is not None
        order = looked[candidates(goal, known, bounds)]
        made = [strategy_at(int(point)) for point in order]
        passed, certificate, _ = certify(made, measures, bounds, calibrate, 1 - confidence, procedure)
        if passed is not None:
            at = int(order[passed])
    chosen_strategy = strategy_at(at)
    if certificate is not None:
        chosen_strategy = chosen_strategy.with_certificate(certificate)
    rows = fit if held is None else held
    on_front = np.zeros(len(owner), bool)
    on_front[looked] = _on_front(known, goal)
    if waiting is not None and not depends_on_load(goal.minimise):
        on_front = _on_front(columns, goal)
    extra = {"on_front": on_front, "feasible": feasible}
    measured = _measure(measures, chosen_strategy, rows, seed, threads)
    under_load = None
    if waiting is not None:
        extra["replayed"] = np.isin(np.arange(len(owner)), looked)
        estimates, under_load = waiting.measure(chosen_strategy, rows, len(looked))
        measured |= estimates
    table, chosen = _front(found, parameters, columns | extra, at)
    best = found[owner[at]].points
    return Tuned(
        strategy=chosen_strategy,
        front=table,
        chosen=chosen,
        measured=measured,
        held_out=held is not None,
        feasible=bool(feasible.any()),
        binding=_binding(goal, known, feasible[looked], int(np.flatnonzero(looked == at)[0])),
        minimise=goal.minimise,
        subject_to=goal.subject_to,
        samples=(len(fit), len(rows)),
        certificate=certificate,
        asked=certifying,
        calibrated=len(calibrate),
        method=best.method if len(found) == 1 else f"{len(found)} variants; {best.method}",
        trail=tuple(best.trail if trail is None else trail),
        gap=best.gap() if waiting is None and best.gap is not None else None,
        under_load=under_load,
        warning=warning,
    )


def evaluate(
    tuned: Tuned,
    predictions: Predictions,
    network: Network,
    *,
    confidence: float | None = None,
    split: Sequence[float] | Literal["auto"] | None = "auto",
    seed: int = 0,
    ingress: str | None = None,
    rate_rps: float | None = None,
    trace: Trace | None = None,
    **_: Any,
) -> dict[str, float]:
    """Give the quantities of a tuned strategy on the samples it was chosen on, over another network."""
    fit = _split(len(predictions), _shares(split, confidence), seed)[0]
    quantities = [tuned.minimise, *(c.quantity for c in tuned.subject_to)]
    measures, waiting = _measures(Compiler(predictions, network), quantities, ingress, rate_rps, trace, seed)
    columns = measures.point(tuned.strategy, fit)[0]
    found = {name: float(values[0]) for name, values in columns.items()}
    return found if waiting is None else found | waiting.once(tuned.strategy, fit)


def _measures(
    compiler: Compiler,
    quantities: Sequence[str],
    ingress: str | None,
    rate_rps: float | None,
    trace: Trace | None,
    seed: int,
) -> tuple[Measures, Waiting | None]:
    """Say who measures: what samples alone decide, and, on a trace, what load decides."""
    if rate_rps is not None:
        rate_rps = check_number(rate_rps, "rate_rps", above=0.0)
    if trace is None:
        for name in quantities:
            if name in ON_A_TRACE:
                msg = f"{name} depends on when requests come and how long they may take: give trace="
                raise BadValueError(msg)
        return Measures(compiler, ingress, quantities, rate_rps, seed), None
    if ingress is not None:
        msg = "the requests of a trace say where they enter: give trace= or ingress=, not both"
        raise BadValueError(msg)
    waiting = Waiting(compiler, trace, quantities, seed)
    if rate_rps is None and trace.duration_s > 0:
        rate_rps = trace.rate_rps
    alone = [name for name in quantities if name not in waiting.quantities]
    return Measures(compiler, None, alone, rate_rps, seed, waiting), waiting


def _unwaited(network: Network, goal: Goal) -> str:
    """Warn if latencies are asked for as if nobody waited, although requests wait; give the sentence to print."""
    if not network.queueing:
        return ""
    asked = [name for name in (goal.minimise, *(c.quantity for c in goal.subject_to)) if depends_on_load(name)]
    msg = "requests wait for each other in this network, but latencies here are as if nobody waited: give trace="
    if asked:
        warnings.warn(f"{', '.join(dict.fromkeys(asked))}: {msg}", QueueWarning, stacklevel=3)
    return f"Note: {msg}"


def _replaced(columns: Columns, looked: NDArray[np.int64], replayed: Columns) -> Columns:
    """Put what was replayed into the columns, null where nothing was."""
    made = dict(columns)
    for name, values in replayed.items():
        if name in columns and not depends_on_load(name):
            continue
        made[name] = np.full(len(columns["forwarded_share"]), np.nan)
        made[name][looked] = values
    return made


def _parameters(strategy: Strategy) -> tuple[Parameter, ...]:
    if not isinstance(strategy, Strategy):
        msg = f"what is tuned must be a strategy such as coinfer.Forward(), not {strategy!r}"
        raise BadValueError(msg)
    found = tuple(each for each in strategy.parameters() if isinstance(each, Parameter))
    if not found:
        msg = (
            f"there is nothing to tune: a strategy with parameters is needed, such as Forward or ExpectedGain, "
            f"not {type(strategy).__name__}"
        )
        raise UnsupportedError(msg)
    return found


def _check_labelled(predictions: Predictions, rows: NDArray[np.uint32], what: str) -> None:
    if predictions.labels is not None and not np.any(predictions.labels[rows] >= 0):
        msg = f"none of the {len(rows)} samples {what} has a true label"
        raise UnsupportedError(msg)


def _shares(split: object, confidence: float | None) -> tuple[float, ...] | None:
    if split is None:
        return None
    if split == "auto":
        return _SPLIT if confidence is None else _SPLIT_CERTIFIED
    shares = tuple(split) if isinstance(split, Iterable) and not isinstance(split, str) else ()
    good = all(isinstance(s, Real) and not isinstance(s, bool) and 0 < float(s) < 1 for s in shares)
    if len(shares) not in (2, 3) or not good or sum(shares) > 1 + 1e-9:
        msg = (
            "split must be two positive shares (to choose on, to measure on), at most 1 in sum, or three (to certify "
            f"on between them), or None, not {split!r}"
        )
        raise BadValueError(msg)
    return shares


def _split(
    count: int, shares: tuple[float, ...] | None, seed: int
) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32] | None]:
    """Draw the parts; calibration samples stay in random order, which betting needs."""
    nobody = np.empty(0, np.uint32)
    if shares is None:
        return np.arange(count, dtype=np.uint32), nobody, None
    ends = [round(each * count) for each in np.cumsum(shares)]
    if min(np.diff([0, *ends])) == 0:
        said = ", ".join(f"{each:g}" for each in shares[:-1]) + f" and {shares[-1]:g}"
        msg = f"{count} samples cannot be split into {said}; give more samples, or split=None"
        raise BadValueError(msg)
    order = np.random.Generator(np.random.Philox(seed)).permutation(count).astype(np.uint32)
    parts = np.split(order[: ends[-1]], ends[:-1])
    return np.sort(parts[0]), parts[1] if len(shares) == 3 else nobody, np.sort(parts[-1])


def _front(
    found: Sequence[Variant],
    parameters: Sequence[Parameter],
    columns: Columns,
    at: int,
) -> tuple[pa.Table, dict[str, Any]]:
    import pyarrow as pa

    made: dict[str, Any] = {}
    counts = [len(v.points) for v in found]
    owner = np.repeat(np.arange(len(found)), counts)
    for each in parameters:
        if each.kind == "cut":
            continue
        shown = pa.array([_shown(v.values[str(each)], each) for v in found])
        made[str(each)] = (
            pa.DictionaryArray.from_arrays(pa.array(owner), shown)
            if pa.types.is_string(shown.type)
            else shown.take(owner)
        )
    cuts = [v.points.cuts for v in found]
    if all(each is not None for each in cuts):
        shared = all(v.points.cut is not None and v.points.cut.shared and len(v.points.paths) == 1 for v in found)
        if shared:
            made["threshold"] = np.concatenate([c[:, 0] for c in cuts if c is not None])
        else:
            flat = np.concatenate([c.reshape(-1) for c in cuts if c is not None])
            lengths = np.repeat([c.shape[1] for c in cuts if c is not None], counts)
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
            made["thresholds"] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))
    shown = {name: pa.array(values, from_pandas=True) for name, values in columns.items()}  # NaN: not known
    table = pa.table(made | shown)
    return table, {name: table[name][at].as_py() for name in table.column_names}


def _shown(value: Any, parameter: Parameter) -> Any:
    if parameter.kind in ("subset", "order"):
        return " -> ".join(value)
    if parameter.kind == "weights":
        return ", ".join(f"{model} {weight:.4g}" for model, weight in value.items())
    return value if isinstance(value, Real) else str(value)


def _on_front(columns: Columns, goal: Goal) -> NDArray[np.bool_]:
    """Mark the points that no other dominates in accuracy and cost: the objective, or the forwarded share."""
    cost = columns["forwarded_share"] if more_is_better(goal.minimise) else columns[goal.minimise]
    on = np.zeros(len(cost), bool)
    if "accuracy" not in columns:
        on[np.argmin(cost)] = True
        return on
    # Along one path a falling threshold mostly lowers the cost at every step: then the points are sorted already.
    falls = bool(np.all(cost[1:] < cost[:-1]))
    order = np.arange(len(cost))[::-1] if falls else np.lexsort((-columns["accuracy"], cost))
    accuracy = columns["accuracy"][order]
    best_before = np.maximum.accumulate(np.concatenate([[-1.0], accuracy[:-1]]))
    on[order] = accuracy > best_before
    return on


def _binding(goal: Goal, columns: Columns, feasible: NDArray[np.bool_], at: int) -> str | None:
    cost = goal.cost(columns)
    if feasible.any():
        cheaper = cost < cost[at]
        return next((str(c) for c in goal.subject_to if np.any(cheaper & ~c.holds(columns[c.quantity]))), None)
    worst = max(goal.subject_to, key=lambda c: float(c.excess(columns[c.quantity][at : at + 1])[0]) / c.scale)
    return str(worst)


def _measure(
    measures: Measures, strategy: Strategy, rows: NDArray[np.uint32], seed: int, threads: int
) -> dict[str, Any]:
    """Measure one strategy, with intervals whose unit is the sample."""
    columns, paths = measures.point(strategy, rows)
    if not paths:  # replayed: intervals come from there
        return {}
    measured: dict[str, Any] = {}
    for name, values in columns.items():
        value = float(values[0])
        if np.isnan(value):
            continue
        about = subject_of(name)
        if quantile_of(name) is not None:
            measured[name] = Estimate(*measures.quantile(strategy, name, rows), len(rows))
            continue
        losses = measures.losses(strategy, name, rows)
        if losses is None or len(losses) == 0:
            measured[name] = value
        elif name == "accuracy" or (about is not None and about[0] in ("recall", "disagreement")):
            measured[name] = Estimate(value, *wilson(value, len(losses)), len(losses))
        else:
            ones = np.ones((1, len(losses)))
            draws = sweep.bootstrap(np.ascontiguousarray(losses[None, :]), ones, _REPLICATES, seed, threads)[0]
            low, high = np.quantile(draws, [0.025, 0.975])
            measured[name] = Estimate(value, min(float(low), value), max(float(high), value), len(losses))
    return measured
