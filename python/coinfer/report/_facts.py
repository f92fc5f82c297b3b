"""What a report says, as plain values: gathered once from a comparison, then only drawn.

Everything downstream (the sentences, the table, the figures) reads these objects and nothing else, so that
the page can be tested without a browser and the numbers in the text cannot differ from those in the figures.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer.diversifying import diversity
from coinfer.report._curves import Reliability, RiskCoverage, reliability, risk_coverage
from coinfer.scoring import score

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from coinfer.comparing import Comparison
    from coinfer.network import Network
    from coinfer.predictions import Predictions
    from coinfer.replaying import Run

__all__ = [
    "Facts",
    "Interval",
    "LinkFacts",
    "ModelFacts",
    "NodeFacts",
    "StrategyFacts",
    "TierFacts",
    "TogetherFacts",
    "collect",
]

MODELS_DRAWN_MAX = 8
QUANTILES = np.concatenate([np.linspace(0.0, 0.995, 399), np.linspace(0.9955, 0.999, 8)])


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float
    n_effective: float


@dataclass(frozen=True)
class StrategyFacts:
    """One strategy's row of the table and its share of every figure."""

    name: str
    rule: str
    kind: str  # "single", "cooperative" or "oracle"
    accuracy: Interval | None
    goodput: float | None
    latency_ms: Mapping[str, float]
    price_usd_per_1000: float
    stages: float
    settled_by_node: Mapping[str, float]
    settled_by_tier: tuple[float, ...]
    status: Mapping[str, int]
    fast_and_right: bool
    cheap_and_right: bool
    latency_ms_quantiles: tuple[float, ...]
    as_right_as_best: bool = False  # its accuracy differs from the best one's by no more than chance
    between: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # 95 %: "mean" ... "p99" in ms, "price"


@dataclass(frozen=True)
class ModelFacts:
    """One model's answers over all samples: how often right, and how well its confidence says so."""

    name: str
    accuracy: float | None
    confidence: str | None  # what its confidence is; None where it reports none
    reliability: Reliability | None
    risk_coverage: RiskCoverage | None


@dataclass(frozen=True)
class TogetherFacts:
    """What the models drawn bring to each other."""

    models: tuple[str, ...]
    samples: int
    any_right: float
    accuracy: tuple[float, ...]
    only: tuple[float, ...]
    vote: tuple[float, ...]  # accuracy of the vote as models join in this order
    covered: tuple[float, ...]  # share of samples that some model so far gets right
    gain_first: tuple[float, ...]  # what a model adds to the vote where it joins first, ...
    gain_last: tuple[float, ...]  # ... and where it joins last, over random orders
    correlation: tuple[tuple[float, ...], ...]  # of errors; NaN where a model is always or never right


@dataclass(frozen=True)
class NodeFacts:
    """One node: where it stands, and what runs there."""

    name: str
    tier: int  # position in `Facts.tiers`
    models: tuple[str, ...]
    detail: str


@dataclass(frozen=True)
class LinkFacts:
    """One link: which nodes it joins (positions in `Facts.nodes`) and its one-way delay."""

    a: int
    b: int
    delay_ms: float
    detail: str


@dataclass(frozen=True)
class TierFacts:
    """One tier of the network, named after its nodes where they share a name."""

    name: str
    nodes: int


@dataclass(frozen=True)
class Facts:
    """All that the page shows."""

    strategies: tuple[StrategyFacts, ...]
    models: tuple[ModelFacts, ...]
    models_left_out: int
    together: TogetherFacts | None
    tiers: tuple[TierFacts, ...]
    nodes: tuple[NodeFacts, ...]
    links: tuple[LinkFacts, ...]
    quantiles: tuple[float, ...]
    requests: int
    samples: int
    labelled: bool
    seed: int
    control: str
    queues: bool


def collect(comparison: Comparison) -> Facts:
    """Gather from a comparison everything that its report shows.

    Parameters
    ----------
    comparison : Comparison
        At least one run; all runs share trace, predictions and network.

    Returns
    -------
    Facts
        Plain values, in the order of the comparison.
    """
    runs: Mapping[str, Run] = comparison.runs
    first = next(iter(runs.values()))
    network, predictions = first.network, first.predictions
    fast, cheap = (set(comparison.pareto(axis)) for axis in ("latency", "price"))
    tiers = _tiers(network)
    alike = comparison.as_good_as_best()
    strategies = tuple(
        _strategy(name, run, network, name in fast, name in cheap, name in alike and len(alike) > 1)
        for name, run in runs.items()
    )
    models, left_out = _models(predictions)
    index = {node.name: position for position, node in enumerate(network.nodes)}
    level = {tier: position for position, tier in enumerate(network.tiers)}
    return Facts(
        strategies=strategies,
        models=models,
        models_left_out=left_out,
        together=_together(predictions, tuple(model.name for model in models)),
        tiers=tiers,
        nodes=tuple(
            NodeFacts(
                node.name,
                level[node.tier],
                tuple(d.model for d in network.deployments if d.node == node.name),
                _node_detail(node.name, network),
            )
            for node in network.nodes
        ),
        links=tuple(
            LinkFacts(index[link.a], index[link.b], link.delay_ms, _link_detail(link)) for link in network.links
        ),
        quantiles=tuple(QUANTILES.tolist()),
        requests=first.summary.requests,
        samples=len(predictions),
        labelled=first.summary.accuracy is not None,
        seed=first.summary.seed,
        control=network.control,
        queues=any(not run.summary.engine.startswith("direct") for run in runs.values()),
    )


def _strategy(name: str, run: Run, network: Network, fast: bool, cheap: bool, alike: bool) -> StrategyFacts:
    summary = run.summary
    accuracy = summary.accuracy
    by_node = {node.name: float(summary.settled_by_node.get(node.name, 0.0)) for node in network.nodes}
    latency, found = summary.latency_us, run.intervals()
    quantiles = np.asarray(run.latency_quantiles(QUANTILES), np.float64) / 1e3
    return StrategyFacts(
        name=name,
        rule=str(run.strategy),
        kind=_kind(run),
        accuracy=None
        if accuracy is None
        else Interval(float(accuracy), accuracy.low, accuracy.high, accuracy.n_effective),
        goodput=summary.goodput,
        latency_ms={key: float(getattr(latency, key)) / 1e3 for key in ("mean", "p50", "p95", "p99")},
        price_usd_per_1000=1e3 * summary.price_usd,
        stages=summary.stages,
        settled_by_node=by_node,
        settled_by_tier=tuple(
            sum(by_node[node.name] for node in network.nodes if node.tier == tier) for tier in network.tiers
        ),
        status=dict(summary.status),
        fast_and_right=fast,
        cheap_and_right=cheap,
        latency_ms_quantiles=tuple(quantiles.tolist()),
        as_right_as_best=alike,
        between={
            key: (scale * found[name].low, scale * found[name].high)
            for key, name, scale in (
                *((key, f"latency_us_{key}", 1e-3) for key in ("mean", "p50", "p95", "p99")),
                ("price", "price_usd", 1e3),
            )
        },
    )


def _kind(run: Run) -> str:
    plans = [run.strategy.plan(run.network, node) for node in run.trace.nodes]
    if any(plan.oracle for plan in plans):
        return "oracle"
    consulted = max(len(stage.members) for plan in plans for stage in plan.stages)
    return "single" if consulted == 1 and all(len(plan.stages) == 1 for plan in plans) else "cooperative"


def _tiers(network: Network) -> tuple[TierFacts, ...]:
    groups = [[node.name for node in network.nodes if node.tier == tier] for tier in network.tiers]
    named = []
    for tier, names in zip(network.tiers, groups, strict=True):
        stem = _shared_start(names).rstrip("-_ .:0123456789") if len(names) > 1 else names[0]
        named.append(TierFacts(stem or f"tier {tier}", len(names)))
    repeated = {name for name, count in Counter(tier.name for tier in named).items() if count > 1}
    return tuple(
        TierFacts(f"{tier.name} (tier {number})", tier.nodes) if tier.name in repeated else tier
        for number, tier in zip(network.tiers, named, strict=True)
    )


def _shared_start(names: list[str]) -> str:
    low, high = min(names), max(names)
    length = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[:length]


def _node_detail(name: str, network: Network) -> str:
    stations = [d for d in network.deployments if d.node == name]
    if not stations:
        return "no model"
    return "; ".join(
        f"{d.model}: "
        + ("service as measured per sample" if np.isnan(d.service_ms_mean) else f"{d.service_ms_mean:g} ms")
        + (f", {d.instances} instances" if (d.instances or 1) > 1 else "")
        + (f", {1e6 * d.price_usd:g} USD per million" if d.price_usd else "")
        for d in stations
    )


def _link_detail(link: Any) -> str:
    parts = [f"{link.a} {'to' if link.directed else 'and'} {link.b}: {link.delay_ms:g} ms one way"]
    if link.jitter_ms:
        parts.append(f"jitter {link.jitter_ms:g} ms")
    if link.bandwidth_mbps is not None:
        parts.append(f"{link.bandwidth_mbps:g} Mbit/s")
    if link.price_usd_per_mb:
        parts.append(f"{1e3 * link.price_usd_per_mb:g} USD per GB")
    return ", ".join(parts)


def _models(predictions: Predictions) -> tuple[tuple[ModelFacts, ...], int]:
    labels = None if predictions.labels is None else np.asarray(predictions.labels)
    gathered = [_model(name, predictions, labels) for name in predictions.models]
    kept = gathered
    if len(gathered) > MODELS_DRAWN_MAX:
        best = sorted(gathered, key=lambda m: -(m.accuracy or 0.0))[:MODELS_DRAWN_MAX]
        kept = [m for m in gathered if m in best]
    return tuple(kept), len(gathered) - len(kept)


def _together(predictions: Predictions, models: tuple[str, ...]) -> TogetherFacts | None:
    if len(models) < 2 or predictions.labels is None or not np.any(predictions.labels >= 0):
        return None
    found = diversity(predictions, models)
    return TogetherFacts(
        models=models,
        samples=found.samples,
        any_right=found.any_right,
        accuracy=tuple(float(found.accuracy[m]) for m in models),
        only=tuple(float(found.only[m]) for m in models),
        vote=tuple(s.vote for s in found.steps),
        covered=tuple(s.covered for s in found.steps),
        gain_first=tuple(found.vote_gain[:, 0].tolist()),
        gain_last=tuple(found.vote_gain[:, -1].tolist()),
        correlation=tuple(map(tuple, found.correlation.tolist())),
    )


def _model(name: str, predictions: Predictions, labels: NDArray[Any] | None) -> ModelFacts:
    answer, confidence, kind = _answers(name, predictions)
    if labels is None:
        return ModelFacts(name, None, kind, None, None)
    known = labels >= 0
    right = answer[known] == labels[known]
    accuracy = float(right.mean()) if right.size else None
    if confidence is None or not right.size:
        return ModelFacts(name, accuracy, kind, None, None)
    stated = confidence[known]
    within = bool(np.all((stated >= 0) & (stated <= 1) | np.isnan(stated)))
    return ModelFacts(
        name, accuracy, kind, reliability(stated, right) if within else None, risk_coverage(stated, right)
    )


def _answers(name: str, predictions: Predictions) -> tuple[NDArray[Any], NDArray[np.float32] | None, str | None]:
    """Return a model's labels, its confidence where it has one, and what that confidence is."""
    output = predictions[name]
    if output.vector is None:
        return output.answers(), output.confidence, None if output.confidence is None else "as reported"
    return output.answers(), score(output.vector, kind="max_prob", input=output.form), "largest probability"
