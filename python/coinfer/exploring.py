"""Explore: which strategy of the whole catalogue is worth running on these models, said on samples that chose nothing.

One half of the samples fits and chooses, the other only measures. A strategy that learns could look good on what it
learned from, so on the first half it is judged by cross-validation; on the second half nothing is chosen any more. The
rule of choice is fixed in advance: the most accurate candidate that costs no more than the best single model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from coinfer._checks import check_integer
from coinfer.combiner import HOWS
from coinfer.comparing import Comparison, compare
from coinfer.compiling import Compiler
from coinfer.demo import halves
from coinfer.errors import BadValueError, CoinferError, UnknownNameError, UnsupportedError, nearest
from coinfer.replaying import Requests, Run
from coinfer.results import Estimate
from coinfer.strategy import (
    Agreement,
    Ensemble,
    ExpectedGain,
    Forward,
    Remote,
    Router,
    SelectionOracle,
    Sequential,
    Strategy,
)
from coinfer.strategy.base import Parameter
from coinfer.strategy.forward import ANY
from coinfer.trace import Trace
from coinfer.tuning import tune

if TYPE_CHECKING:
    from os import PathLike
    from pathlib import Path

    import pyarrow as pa

    from coinfer.network import Network
    from coinfer.predictions import Predictions

__all__ = ["COSTS", "Candidate", "Exploration", "catalogue", "explore"]

COSTS: Final = ("price_usd", "latency_us_mean")
ORACLE: Final = "SelectionOracle"
_MODELS_SKIPPED_MAX = 6  # above it, trying every choice of tiers takes longer than it is worth
_MODELS_ORDERED_MAX = 12  # so that orders are learned in seconds
_GROUP_MAX = 5

Progress = Callable[[str, int, int], object]


@dataclass(frozen=True)
class Candidate:
    """One strategy, as it looked on the half that chose.

    Attributes
    ----------
    name, family : str
        The family is what it was made from; its members differ in their parameters.
    strategy : Strategy
        Fitted on the whole first half.
    accuracy, cost : float
        On the first half: cross-validated where the strategy learns.
    on_front : bool
        Whether no other candidate is as accurate there and cheaper, or as cheap and more accurate.
    """

    name: str
    family: str
    strategy: Strategy
    accuracy: float
    cost: float
    on_front: bool = False


@dataclass(frozen=True)
class Exploration:
    """What was tried, what was chosen on one half of the samples, and what it is worth on the other.

    Attributes
    ----------
    candidates : tuple of Candidate
        All that were tried.
    chosen, reference : str
        The strategy chosen, and the best single model, both picked on the first half.
    minimise : str
        The cost: ``"price_usd"`` or ``"latency_us_mean"``.
    comparison : Comparison
        The front, the single models and the oracle on the second half; `comparison[chosen]` is the run.
    gain : Estimate
        Accuracy of the chosen strategy minus that of the reference, paired by sample, on the second half.
    samples : (int, int)
        How many chose, how many measured.
    """

    candidates: tuple[Candidate, ...]
    chosen: str
    reference: str
    minimise: str
    comparison: Comparison
    gain: Estimate
    samples: tuple[int, int]

    @property
    def strategy(self) -> Strategy:
        """The chosen strategy, ready to replay or to save."""
        return self.comparison[self.chosen].strategy

    def table(self) -> pa.Table:
        """Give one row per candidate: name, family, accuracy and cost where chosen, `on_front`, `chosen`."""
        import pyarrow as pa

        return pa.Table.from_pylist(
            [
                {
                    "name": c.name,
                    "family": c.family,
                    "accuracy": c.accuracy,
                    self.minimise: c.cost,
                    "on_front": c.on_front,
                    "chosen": c.name == self.chosen,
                }
                for c in self.candidates
            ]
        )

    def cost(self, name: str) -> float:
        """Give the cost of a strategy on the half that measures."""
        summary = self.comparison[name].summary
        return summary.price_usd if self.minimise == "price_usd" else summary.latency_us.mean

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain data, ready for JSON."""
        return {
            "chosen": self.chosen,
            "reference": self.reference,
            "minimise": self.minimise,
            "strategy": self.strategy.to_dict(),
            "gain": self.gain.to_dict(),
            "samples": {"chosen_on": self.samples[0], "measured_on": self.samples[1]},
            "candidates": self.table().to_pylist(),
            "measured": self.comparison.to_dict(),
        }

    def report(self, path: str | PathLike[str], title: str | None = None) -> Path:
        """Write the front, the single models and the oracle as a self-contained HTML report."""
        from coinfer.report import write

        return write(self.comparison, path, title or "Which strategy is worth running", notes=self._notes())

    def _notes(self) -> dict[str, str]:
        tried = f"{len(self.candidates):,} candidates were fitted and ranked on {self.samples[0]:,} samples"
        measured = f"everything shown is measured on the {self.samples[1]:,} others"
        return {"choice": f"{tried}, those that learn by cross-validation; {measured}"}

    def __str__(self) -> str:
        runs = self.comparison.summaries
        best, single, oracle = (runs[name].accuracy for name in (self.chosen, self.reference, ORACLE))
        assert best is not None
        assert single is not None
        assert oracle is not None
        cost, limit = self.cost(self.chosen), self.cost(self.reference)
        width = max(len(self.chosen), len(self.reference), len(ORACLE))
        unit, per = ("USD / 1,000", 1e3) if self.minimise == "price_usd" else ("ms", 1e-3)
        tried = f"{len(self.candidates):,} candidates, chosen on {self.samples[0]:,} samples"
        lines = [f"{tried}, measured on {self.samples[1]:,} others:"]
        for name, accuracy in ((self.reference, single), (self.chosen, best), (ORACLE, oracle)):
            lines.append(
                f"  {name:<{width}}  accuracy {accuracy:.4f} ({accuracy.low:.4f} to {accuracy.high:.4f})  "
                f"{self.cost(name) * per:.4g} {unit}"
            )
        lines.append(self.verdict(float(self.gain), cost, limit))
        left = f"{100 * (oracle - best):.1f} points above"
        lines.append(f"The oracle, which selects one model's answer knowing the truth, is {left}.")
        return "\n".join(lines)

    def verdict(self, gain: float, cost: float, limit: float) -> str:
        """Say in one sentence what the chosen strategy is worth beside the best single model."""
        if self.chosen == self.reference:
            return f"Nothing beat the best single model, {self.reference}, at its cost."
        share = (
            "at no cost" if cost == 0 else f"at {100 * cost / limit:.0f} % of its cost" if limit > 0 else "at a cost"
        )
        sure = "" if self.gain.low > 0 or self.gain.high < 0 else ", which these samples cannot tell from none"
        return (
            f"{self.chosen} is {100 * abs(gain):.1f} points {'more' if gain >= 0 else 'less'} accurate than "
            f"{self.reference} (95 %: {100 * self.gain.low:+.1f} to {100 * self.gain.high:+.1f}{sure}) {share}."
        )


def catalogue(predictions: Predictions, network: Network) -> dict[str, Strategy]:
    """Give every family worth trying on these models: templates, still to be tuned or fitted.

    Parameters
    ----------
    predictions : Predictions
        Decides what applies: vectors can be averaged, labels only voted on.
    network : Network
        Decides what stands on a path.

    Returns
    -------
    dict of str to Strategy
    """
    deployed = [m for m in predictions.models if any(d.model == m for d in network.deployments)]
    forms = {predictions[m].form for m in deployed}
    vectors = forms <= {"logits", "probs"}
    scores = [] if "label" in forms else ["confidence", *(("margin", "entropy") if vectors else ())]
    found: dict[str, Strategy] = {}
    # So that the dearest request counts as a second: the alphas that are tried, in ms, then span it well on both sides.
    dearest = max(d.price_usd for d in network.deployments)
    ms_per_usd = 1e3 / dearest if dearest > 0 else 0.0
    skipping = len(network.tiers) > 2 and len(deployed) <= _MODELS_SKIPPED_MAX
    for score in scores:
        found[f"Forward({score})"] = Forward(score=score, models=ANY if skipping else None)
        found[f"ExpectedGain({score})"] = ExpectedGain(1.0, ms_per_usd, score=score)
    if scores:
        found["Router"] = Router(alpha=1.0, ms_per_usd=ms_per_usd)
    if len(deployed) > 1:
        fits = {"vote", "boost", *(("mean", "logpool", "stack") if vectors else ())}
        found |= {f"Ensemble({how})": Ensemble(how) for how in HOWS if how in fits}
        cheapest = sorted(deployed, key=lambda m: min(d.price_usd for d in network.deployments if d.model == m))
        for how in ("vote", "mean") if vectors else ("vote",):
            found[f"Sequential({how}, decided)"] = Sequential(how, "decided", "price")
            if len(deployed) <= _MODELS_ORDERED_MAX:
                learned = Sequential(how, "qwyc", "learned", ms_per_usd=ms_per_usd)
                found[f"Sequential({how}, qwyc)"] = learned
        for size in range(2, min(len(deployed), _GROUP_MAX + 1)):
            groups = (tuple(cheapest[:size]), *((model,) for model in cheapest[size:]))
            found[f"Agreement({size} first)"] = Agreement(groups)
    return found


def explore(
    predictions: Predictions,
    network: Network,
    *,
    minimise: str | None = None,
    strategies: Mapping[str, Strategy] | None = None,
    points: int = 24,
    folds: int = 4,
    seed: int = 0,
    threads: int = 1,
    progress: Progress | None = None,
) -> Exploration:
    """Try the whole catalogue, choose on one half of the samples, and measure on the other.

    Parameters
    ----------
    predictions : Predictions
        With true labels.
    network : Network
        Latency without queues: mean service times and delays of the network as it states them.
    minimise : {"price_usd", "latency_us_mean"}, optional
        The cost. Default: price where anything has one, else latency.
    strategies : mapping of str to Strategy, optional
        Templates to try instead of `catalogue`.
    points : int
        Settings tried per family: thresholds spread along its exact front, or values of its scalar parameters.
    folds : int
        For the cross-validation of strategies that learn.
    seed, threads : int
        For the halves and folds; threads change no result.
    progress : callable, optional
        Called as ``progress(family, done, total)``.

    Returns
    -------
    Exploration

    Raises
    ------
    UnsupportedError
        If there are no labels, or fewer than two models that are deployed.

    Examples
    --------
    >>> import coinfer as ci
    >>> preds, net = ci.datasets.digits(), ci.datasets.demo_network()  # doctest: +SKIP
    >>> print(ci.explore(preds, net))  # doctest: +SKIP
    """
    if predictions.labels is None or np.count_nonzero(predictions.labels >= 0) < 2:
        msg = "explore needs the true labels of the samples, to choose by and to measure with"
        raise UnsupportedError(msg)
    deployed = [m for m in predictions.models if any(d.model == m for d in network.deployments)]
    if len(deployed) < 2:
        msg = f"explore compares models, but of those in the predictions only {deployed} are deployed"
        raise UnsupportedError(msg)
    if minimise is None:
        minimise = COSTS[0] if any(d.price_usd for d in network.deployments) else COSTS[1]
    if minimise not in COSTS:
        msg = f"unknown cost {minimise!r}; {nearest(str(minimise), COSTS)}"
        raise UnknownNameError(msg)
    points = check_integer(points, "points", at_least=1, at_most=10_000)
    folds = check_integer(folds, "folds", at_least=2, at_most=1000)
    if strategies is not None and not strategies:
        msg = "explore: strategies must hold at least one template"
        raise BadValueError(msg)
    fit, held = halves(_labelled(predictions), seed)
    judge = _Judge(fit, network, minimise, folds, seed, threads)
    templates = dict(strategies) if strategies is not None else catalogue(predictions, network)
    singles = _singles(fit, network)
    tried: list[Candidate] = [judge.judged(name, name, single) for name, single in singles.items()]
    reference = max(tried, key=lambda c: (c.accuracy, -c.cost))
    for at, (family, template) in enumerate(templates.items()):
        if progress is not None:
            progress(family, at, len(templates))
        tried += [judge.judged(strategy.name, family, strategy) for strategy in _settings(judge, template, points)]
    if progress is not None:
        progress("", len(templates), len(templates))
    front = _front(tried)
    marked = tuple(
        Candidate(c.name, c.family, c.strategy, c.accuracy, c.cost, at in front) for at, c in enumerate(tried)
    )
    affordable = [c for c in tried if c.cost <= reference.cost * (1 + 1e-12)]
    chosen = max(affordable, key=lambda c: (c.accuracy, -c.cost))
    shown = {c.name: c.strategy for c in _spread([marked[at] for at in sorted(front, key=lambda i: tried[i].cost)], 9)}
    shown = {**singles, **shown}
    shown |= {reference.name: reference.strategy, chosen.name: chosen.strategy, ORACLE: SelectionOracle()}
    comparison = compare(_once(held, network), held, network, shown, seed=seed, threads=threads)
    return Exploration(
        candidates=marked,
        chosen=chosen.name,
        reference=reference.name,
        minimise=minimise,
        comparison=comparison,
        gain=_paired(comparison[chosen.name], comparison[reference.name]),
        samples=(len(fit), len(held)),
    )


class _Judge:
    """What candidates are worth on the half that chooses."""

    def __init__(self, fit: Predictions, network: Network, minimise: str, folds: int, seed: int, threads: int) -> None:
        self.fit, self.network, self.minimise, self.seed, self.threads = fit, network, minimise, seed, threads
        self._whole = _Bench(fit, network, threads)
        order = np.random.Generator(np.random.Philox(key=[seed, 1])).permutation(len(fit))
        parts = [np.sort(part) for part in np.array_split(order, min(folds, len(fit)))]
        self._folds = [
            (fit.select(np.setdiff1d(np.arange(len(fit)), part)), _Bench(fit.select(part), network, threads), len(part))
            for part in parts
        ]

    def judged(self, name: str, family: str, strategy: Strategy) -> Candidate:
        """Fit what has to be fitted, and judge it; by cross-validation if it learned."""
        if strategy.fitted:
            accuracy, cost = self._whole.measure(strategy, self.minimise, self.seed)
            return Candidate(name, family, strategy, accuracy, cost)
        measured = [
            (*bench.measure(strategy.fit(rest, self.network), self.minimise, self.seed), size)
            for rest, bench, size in self._folds
        ]
        accuracy, cost = (float(np.average([m[i] for m in measured], weights=[m[2] for m in measured])) for i in (0, 1))
        return Candidate(name, family, strategy.fit(self.fit, self.network), accuracy, cost)


class _Bench:
    """Some samples, once at each ingress node, scored once for all candidates."""

    def __init__(self, predictions: Predictions, network: Network, threads: int) -> None:
        self._compiler = Compiler(predictions, network, threads)
        self._requests = Requests(_once(predictions, network), predictions, network, threads)

    def measure(self, strategy: Strategy, minimise: str, seed: int) -> tuple[float, float]:
        summary = Run(self._requests, self._compiler, strategy, seed).summary
        cost = summary.price_usd if minimise == "price_usd" else summary.latency_us.mean
        return float(summary.accuracy or 0.0), cost


def _settings(judge: _Judge, template: Strategy, points: int) -> Iterator[Strategy]:
    """Give the settings of a family that are to be tried: what tune may move, spread over its range."""
    kinds = {p.kind: p for p in template.parameters() if isinstance(p, Parameter)}
    if "cut" in kinds and isinstance(template, Forward):
        yield from _cuts(judge, template, points)
        return
    for kind in ("scalar", "choice"):
        if kind in kinds and kinds[kind].values:
            for value in _spread(list(kinds[kind].values), points):
                yield template.with_parameters(**{str(kinds[kind]): value})
            return
    yield template


def _cuts(judge: _Judge, template: Forward, points: int) -> Iterator[Strategy]:
    """Give thresholds spread along the exact front of a cascade."""
    try:
        alone = replace(judge.network, queues=False)  # a sample at a time, as everything here
        front = tune(template, judge.fit, alone, minimise=judge.minimise, split=None).front
    except CoinferError:
        return  # nothing to tune here: a path of one model, or paths that differ between ingress nodes
    rows = front.filter(front["on_front"]).to_pylist()
    rows.sort(key=lambda row: row[judge.minimise])
    for row in _spread(rows, points):
        models = tuple(row["models"].split(" -> ")) if "models" in row else template.models
        yield template.with_parameters(threshold=row["threshold"], models=models)


def _labelled(predictions: Predictions) -> Predictions:
    assert predictions.labels is not None
    known = predictions.labels >= 0
    return predictions if known.all() else predictions.select(np.flatnonzero(known))


def _singles(predictions: Predictions, network: Network) -> dict[str, Strategy]:
    """Every deployed model alone, at its nearest node."""
    deployed = {d.model for d in network.deployments}
    return {f"only {model}": Remote(model=model) for model in predictions.models if model in deployed}


def _once(predictions: Predictions, network: Network) -> Trace:
    """Every sample once at each ingress node, far apart in time."""
    n, nodes = len(predictions), network.ingress
    return Trace(
        np.arange(n * len(nodes)) * 10**9,
        np.repeat(nodes, n),
        np.tile(np.arange(n), len(nodes)),
        nodes=nodes,
    )


def _front(candidates: list[Candidate]) -> set[int]:
    order = sorted(range(len(candidates)), key=lambda i: (candidates[i].cost, -candidates[i].accuracy))
    front, best = set(), -1.0
    for at in order:
        if candidates[at].accuracy > best:
            front.add(at)
            best = candidates[at].accuracy
    return front


def _spread(items: list[Any], most: int) -> Iterable[Any]:
    """Keep at most so many items, spread evenly, both ends kept."""
    if len(items) <= most:
        return items
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, most).round().astype(int))]


def _paired(run: Run, other: Run) -> Estimate:
    """Difference in accuracy, paired: the unit is the sample, whatever the number of ingress nodes."""
    right = [np.array(r.outcomes()["correct"].to_pylist(), np.float64) for r in (run, other)]
    sample = run.trace.sample
    per_sample = np.bincount(sample, right[0] - right[1]) / np.maximum(np.bincount(sample), 1)
    n = len(per_sample)
    mean = float(per_sample.mean())
    half = 1.959963984540054 * float(per_sample.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    return Estimate(mean, mean - half, mean + half, n)
