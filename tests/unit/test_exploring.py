from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import coinfer as ci
from coinfer import exploring

FRUGALML = Path(__file__).parents[3] / "shared/data/frugalml_dev.npz"


def services(name):
    """Four real services, asked from one client, cheapest first."""
    with np.load(FRUGALML, allow_pickle=False) as data:
        apis, cost = [str(a) for a in data[f"{name}_apis"]], data[f"{name}_cost_per10k"] / 1e4
        answers, confidence = data[f"{name}_preds"].astype(int), data[f"{name}_conf"]
        labels = data[f"{name}_labels"].astype(int)
    preds = ci.Predictions(
        {api: ci.ModelOutput(label=answers[:, i], confidence=confidence[:, i]) for i, api in enumerate(apis)},
        labels=labels,
    )
    order = np.argsort(cost, kind="stable")
    return preds, ci.Network(
        (ci.Node("client", 0), *(ci.Node(apis[i], tier + 1) for tier, i in enumerate(order))),
        tuple(ci.Link(("client", apis[i]), delay_ms=0.0) for i in order),
        (),
        tuple(ci.Deployment(apis[i], apis[i], price_usd=float(cost[i])) for i in order),
        control="ingress",
    )


def ladder(samples=600, seed=0, labels=True):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, samples)
    outputs = {}
    for name, skill in (("small", 1.0), ("medium", 2.0), ("large", 3.5)):
        z = rng.normal(size=(samples, 4)) + skill * np.eye(4)[truth]
        outputs[name] = ci.ModelOutput(logits=z.astype(np.float32))
    return ci.Predictions(outputs, labels=truth if labels else None)


def chain(price=(0, 1e-5, 1e-4)):
    return ci.Network.chain(
        {"device": "small", "edge": "medium", "cloud": "large"},
        delay_ms=[5, 40],
        service_ms=[1, 5, 20],
        price_usd=list(price),
    )


@pytest.fixture(scope="module")
def found():
    return ci.explore(ladder(), chain(), points=6)


def test_the_rule_of_choice_is_kept(found):
    by_name = {c.name: c for c in found.candidates}
    reference, chosen = by_name[found.reference], by_name[found.chosen]
    singles = [c for c in found.candidates if c.name.startswith("only ")]
    assert reference.accuracy == max(c.accuracy for c in singles)
    affordable = [c for c in found.candidates if c.cost <= reference.cost * (1 + 1e-12)]
    assert chosen.accuracy == max(c.accuracy for c in affordable)
    for c in found.candidates:
        beaten = any(
            o.accuracy >= c.accuracy and o.cost <= c.cost and (o.accuracy, o.cost) != (c.accuracy, c.cost)
            for o in found.candidates
        )
        assert not (c.on_front and beaten)


def test_what_is_shown_was_measured_on_the_other_half(found):
    preds = ladder()
    assert found.samples == (300, 300)
    assert found.comparison.predictions.fingerprint != preds.fingerprint
    held = found.comparison.predictions
    run = found.comparison[found.chosen]
    other = found.comparison[found.reference]
    right = [np.array(r.outcomes()["correct"].to_pylist()) for r in (run, other)]
    assert len(held) == 300
    assert float(found.gain) == pytest.approx(right[0].mean() - right[1].mean())
    assert found.gain.low < found.gain < found.gain.high
    assert "SelectionOracle" in found.comparison.runs
    text = str(found)
    assert "chosen on 300 samples, measured on 300 others" in text
    assert "points above" in text


def test_every_family_that_fits_is_tried(found):
    families = {c.family for c in found.candidates}
    assert {"only small", "Forward(confidence)", "ExpectedGain(margin)", "Ensemble(mean)", "Ensemble(vote)"} <= families
    assert {"Sequential(mean, decided)", "Sequential(vote, qwyc)", "Agreement(2 first)"} <= families
    labels_only = ci.Predictions({m: ci.ModelOutput(label=ladder()[m].answers()) for m in ladder().models})
    families = exploring.catalogue(labels_only, chain())
    assert {"Ensemble(vote)", "Sequential(vote, qwyc)", "Agreement(2 first)"} <= families.keys()
    assert not any(f.startswith(("Forward", "ExpectedGain", "Ensemble(mean)")) for f in families)


def test_strategies_that_learn_are_judged_on_what_they_did_not_learn_from():
    # Noise that looks like skill: a rule fitted and judged on the same few samples would seem to gain.
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, 120)
    outputs = {
        name: ci.ModelOutput(label=rng.integers(0, 2, 120), confidence=rng.random(120).astype(np.float32))
        for name in ("small", "large")
    }
    preds = ci.Predictions(outputs, labels=truth)
    net = ci.Network.chain({"device": "small", "cloud": "large"}, price_usd=[1e-4, 1e-4])
    found = ci.explore(preds, net, strategies={"gain": ci.ExpectedGain(1e5, 0.0, score="confidence")}, points=1)
    gain = next(c for c in found.candidates if c.family == "gain")
    fit, _ = exploring.halves(preds, 0)
    n = len(fit)
    seen = ci.replay(ci.Trace(np.arange(n), ["device"] * n, np.arange(n)), fit, net, gain.strategy).summary.accuracy
    assert gain.accuracy < seen


def test_latency_is_minimised_where_nothing_has_a_price():
    found = ci.explore(ladder(), chain(price=(0, 0, 0)), points=4)
    assert found.minimise == "latency_us_mean"
    assert found.cost("only large") == pytest.approx(1e3 * (2 * 45 + 20))
    assert " ms" in str(found)


def test_all_is_plain_data_and_pictures(found, tmp_path):
    data = json.loads(json.dumps(found.to_dict()))
    assert data["chosen"] == found.chosen
    assert sum(c["chosen"] for c in data["candidates"]) == 1
    page = found.report(tmp_path / "r.html").read_text()
    assert "candidates were fitted and ranked on 300 samples" in page
    assert found.table().num_rows == len(found.candidates)


@pytest.mark.skipif(not FRUGALML.exists(), reason="shared/data/frugalml_dev.npz is absent")
@pytest.mark.parametrize("name", ["ferplus", "rafdb"])
def test_real_services_together_beat_the_best_of_them(name):
    preds, net = services(name)
    found = ci.explore(preds, net)
    best, single = (found.comparison[n].summary for n in (found.chosen, found.reference))
    assert single.accuracy == max(found.comparison[f"only {m}"].summary.accuracy for m in preds.models)
    assert found.gain.low > 0
    assert best.accuracy > single.accuracy
    assert best.price_usd <= single.price_usd


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: ci.explore(ladder(labels=False), chain()), ci.UnsupportedError, "true labels"),
        (lambda: ci.explore(ladder(), chain(), minimise="prise_usd"), ci.UnknownNameError, "did you mean 'price_usd'"),
        (lambda: ci.explore(ladder(), chain(), points=0), ci.BadValueError, "points"),
        (lambda: ci.explore(ladder(), chain(), folds=1), ci.BadValueError, "folds"),
        (lambda: ci.explore(ladder(), chain(), strategies={}), ci.BadValueError, "at least one template"),
        (
            lambda: ci.explore(ci.Predictions({"small": ladder()["small"]}, labels=ladder().labels), chain()),
            ci.UnsupportedError,
            "only",
        ),
    ],
)
def test_what_cannot_be_explored_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
