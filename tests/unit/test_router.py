"""Router: the table is the best of all tables, and replay does what it says."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

import coinfer as ci
from coinfer.strategy.router import Route

DATA = Path(__file__).parents[3] / "shared" / "data" / "frugalml_dev.npz"


def problem(seed, rows=12, models=3, abstain=False, silent=False, labels_only=False):
    """A few samples with ties in their confidences, so that all tables can be tried."""
    rng = np.random.default_rng(seed)
    outputs = {}
    for m in range(models):
        label = rng.integers(0, 3, rows).astype(np.int32)
        if silent:
            label[rng.random(rows) < 0.2] = -1
        confidence = (rng.integers(0, 4, rows) / 4).astype(np.float32)
        outputs[f"m{m}"] = ci.ModelOutput(label=label, confidence=None if labels_only and m == 0 else confidence)
    predictions = ci.Predictions(outputs, labels=rng.integers(0, 3, rows), classes=["x", "y", "unknown"])
    network = ci.Network.chain(
        {f"tier{m}": f"m{m}" for m in range(models)},
        delay_ms=rng.integers(1, 20, models - 1).tolist(),
        service_ms=rng.integers(1, 9, models).tolist(),
        price_usd=(rng.integers(0, 9, models) * 1e-4).tolist(),
    )
    if abstain:
        declared = [ci.Model(f"m{m}", abstain=["unknown"]) for m in range(models)]
        network = ci.Network(network.nodes, network.links, declared, network.deployments)
    return predictions, network


def total_cost(predictions, network, strategy, alpha, ms_per_usd):
    """From what replay says of each sample."""
    rows = len(predictions)
    trace = ci.Trace(np.arange(rows) * 10**9, ["tier0"] * rows, np.arange(rows))
    o = ci.replay(trace, predictions, network, strategy).outcomes().to_pydict()
    wrong = [c is not True for c in o["correct"]]
    return sum(o["latency_us"]) / 1e3 + ms_per_usd * sum(o["price_usd"]) + alpha * sum(wrong)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["plain", "abstain", "silent", "labels_only"])
def test_the_table_is_the_best_of_all_tables(seed, kind):
    predictions, network = problem(seed, **{} if kind == "plain" else {kind: True})
    alpha, worth = 30.0, 2000.0
    fitted = ci.Router(alpha=alpha, ms_per_usd=worth, min_samples=1).fit(predictions, network)
    found = total_cost(predictions, network, fitted, alpha, worth)
    cuts = [-math.inf, 0.25, 0.5, 0.75, math.inf]
    best = math.inf
    for first in predictions.models:
        table = fitted.tables["tier0"]
        order = (first, *(m for m in predictions.models if m != first))
        # Classes do not depend on each other: the cost of a table is a sum over its lines, tried one by one.
        base = [(math.inf, 1)] * 4

        def cost(lines, order=order, table=table):
            cut, following = zip(*lines, strict=True)
            made = ci.Router(alpha=alpha, tables={"tier0": type(table)(order, tuple(cut), tuple(following))})
            return total_cost(predictions, network, made, alpha, worth)

        start = cost(base)
        saved = 0.0
        for k in range(4):
            tried = [cost([*base[:k], line, *base[k + 1 :]]) for line in itertools.product(cuts, (1, 2))]
            saved += start - min(tried)
        best = min(best, start - saved)
    assert found == pytest.approx(best, rel=1e-9)


def test_a_front_can_be_swept_saved_and_explained(tmp_path):
    predictions, network = problem(1, rows=400)
    prices = []
    for alpha in (1, 30, 3000):
        router = ci.Router("m0", alpha=alpha, ms_per_usd=2000).fit(predictions, network)
        router.save(tmp_path / "router.toml")
        assert ci.Strategy.open(tmp_path / "router.toml") == router
        trace = ci.Trace(np.arange(400) * 1000, ["tier0"] * 400, np.arange(400))
        run = ci.replay(trace, predictions, network, router)
        prices.append(run.summary.price_usd)
        assert "for this label" in str(run.explain(0))
    assert prices == sorted(prices)
    assert prices[0] < prices[-1]
    assert ci.Router(alpha=5).with_parameters(alpha=7).alpha == 7


def test_tiers_are_skipped_and_rare_labels_follow_all():
    predictions, network = problem(3, rows=400)
    pooled = ci.Router("m0", alpha=30, min_samples=10**6).fit(predictions, network).tables["tier0"]
    assert len(set(pooled.cut[:3])) == 1
    assert len(set(pooled.next[:3])) == 1
    route = Route((math.inf, -math.inf, 0.5, math.inf), (2, 1, 2, 1))
    assert route.say(0, 0.9, 2) == "< inf for this label: skips 1"
    assert route.say(-4, math.nan, 2) == "abstains: skips 1"


def test_what_does_not_fit_is_refused():
    predictions, network = problem(0)
    trace = ci.Trace([0], ["tier0"], [0])
    with pytest.raises(ci.UnsupportedError, match=r"Router\(5 ms\) is not fitted yet"):
        ci.replay(trace, predictions, network, ci.Router(alpha=5))
    with pytest.raises(ci.UnknownNameError, match="'m7' does not stand on the path"):
        ci.Router("m7", alpha=5).fit(predictions, network)
    with pytest.raises(ci.BadValueError, match="alpha"):
        ci.Router(alpha=0)
    with pytest.raises(ci.BadValueError, match="next must be a later stage"):
        ci.Strategy.parse(
            {
                "kind": "router",
                "alpha": 1.0,
                "table": [{"ingress": "a", "models": ["x", "y"], "cut": [0.5], "next": [2]}],
            }
        )
    unlabelled = ci.Predictions({m: predictions[m] for m in predictions.models})
    with pytest.raises(ci.UnsupportedError, match="fitted on the true labels"):
        ci.Router(alpha=5).fit(unlabelled, network)


@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data/frugalml_dev.npz")
def test_real_services_that_abstain():
    """Spoken digits: a service that says "unknown" is never settled on while another can be asked."""
    import table_router

    predictions, network = table_router.services("AUDIOMNIST")
    rows = np.arange(len(predictions))
    router = ci.Router(alpha=10.0, ms_per_usd=100.0).fit(predictions.select(rows % 2 == 0), network)
    held = predictions.select(rows % 2 == 1)
    trace = ci.Trace(np.arange(len(held)), [network.ingress[0]] * len(held), np.arange(len(held)))
    run = ci.replay(trace, held, network, router)
    best = max(held.accuracy(m) for m in held.models)
    assert float(run.summary.accuracy) > best
    outcomes = run.outcomes().to_pydict()
    stages, names = np.array(outcomes["stages"]), np.array(outcomes["answer_name"])
    assert not np.any((names == "unknown") & (stages == 1))
