from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import coinfer as ci

SHARED = Path(os.environ.get("COINFER_SHARED", Path(__file__).parents[2] / ".." / "shared")) / "data"


def predictions(models, samples, levels, seed, missing=0.0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, samples)
    outputs = {}
    for m in range(models):
        right = rng.random(samples) < 0.5 + 0.45 * m / max(models - 1, 1)
        label = np.where(right, truth, (truth + 1) % 4)
        confidence = (rng.integers(0, levels, samples) / levels).astype(np.float32)
        confidence[rng.random(samples) < missing] = np.nan
        outputs[f"m{m}"] = ci.ModelOutput(label=label, confidence=confidence)
    return ci.Predictions(outputs, labels=truth)


def chain(models):
    return ci.Network.chain(
        {f"n{m}": f"m{m}" for m in range(models)},
        delay_ms=[10.0 * (m + 1) for m in range(models - 1)],
        service_ms=[1.0 + m for m in range(models)],
        price_usd=[1e-5 * m for m in range(models)],
    )


def brute_force(preds, net, threshold):
    """Every quantity at one threshold, from a replay of each sample once."""
    n = len(preds)
    trace = ci.Trace(np.arange(n), [net.ingress[0]] * n, np.arange(n))
    s = ci.replay(trace, preds, net, ci.Forward(score="confidence", threshold=threshold)).summary
    return float(s.accuracy), 1 - s.settled_by_stage[0], s.stages, s.latency_us.mean, s.price_usd


@settings(max_examples=25, deadline=None)
@given(models=st.integers(2, 4), samples=st.integers(1, 30), levels=st.integers(1, 12), seed=st.integers(0, 99))
def test_the_front_is_every_distinct_cut_and_nothing_else(models, samples, levels, seed):
    preds, net = predictions(models, samples, levels, seed, missing=0.1), chain(models)
    front = ci.tune(ci.Forward(score="confidence"), preds, net, split=None).front
    columns = ["accuracy", "forwarded_share", "stages", "latency_us_mean", "price_usd"]
    rows = list(zip(*(front[c].to_pylist() for c in columns), strict=True))
    for threshold, row in zip(front["threshold"].to_pylist(), rows, strict=True):
        assert row == pytest.approx(brute_force(preds, net, threshold), rel=1e-12, abs=1e-15)
    scores = np.concatenate([preds[f"m{m}"].confidence for m in range(models - 1)])
    for cut in np.unique(scores[~np.isnan(scores)]):
        at = brute_force(preds, net, float(cut))
        assert any(row == pytest.approx(at, rel=1e-12, abs=1e-15) for row in rows)
    assert sorted(front["threshold"].to_pylist(), reverse=True) == front["threshold"].to_pylist()


@settings(max_examples=25, deadline=None)
@given(samples=st.integers(4, 40), levels=st.integers(2, 9), seed=st.integers(0, 99), bound=st.floats(0.3, 1.0))
def test_the_choice_is_the_best_feasible_point(samples, levels, seed, bound):
    preds, net = predictions(2, samples, levels, seed), chain(2)
    tuned = ci.tune(ci.Forward(score="confidence"), preds, net, subject_to=f"accuracy >= {bound}", split=None)
    points = tuned.front.to_pylist()
    feasible = [p for p in points if p["accuracy"] >= bound]
    assert tuned.feasible == bool(feasible)
    if feasible:
        assert tuned.chosen["price_usd"] == min(p["price_usd"] for p in feasible)
    else:
        assert tuned.chosen["accuracy"] == max(p["accuracy"] for p in points)
        assert tuned.binding == f"accuracy >= {bound:g}"
        assert "INFEASIBLE" in str(tuned)
    assert dict(tuned.measured) == pytest.approx({k: tuned.chosen[k] for k in tuned.measured}, rel=1e-12)
    on = [(p["price_usd"], p["accuracy"]) for p in points if p["on_front"]]
    assert on
    for (price, accuracy), p in itertools.product(on, points):
        assert not (p["price_usd"] <= price and p["accuracy"] > accuracy)


def test_thresholds_lie_midway_between_scores():
    preds = ci.Predictions(
        {
            "m0": ci.ModelOutput(label=[0, 1], confidence=[0.25, 0.75]),
            "m1": ci.ModelOutput(label=[0, 0], confidence=[1.0, 1.0]),
        },
        labels=[0, 0],
    )
    front = ci.tune(ci.Forward(score="confidence"), preds, chain(2), split=None).front
    assert front["threshold"].to_pylist() == [float("inf"), 0.5, float("-inf")]


def test_what_was_chosen_is_measured_on_other_samples():
    preds, net = predictions(2, 2000, 500, 1), chain(2)
    tuned = ci.tune(
        ci.Forward(score="confidence"), preds, net, subject_to=["accuracy >= 0.8"], split=(0.5, 0.5), seed=4
    )
    assert tuned.held_out
    assert tuned.samples == (1000, 1000)
    assert tuned.measured["accuracy"].n_effective == 1000
    assert tuned.measured["accuracy"] != tuned.chosen["accuracy"]
    again = ci.tune(
        ci.Forward(score="confidence"), preds, net, subject_to=["accuracy >= 0.8"], split=(0.5, 0.5), seed=4
    )
    assert again.strategy == tuned.strategy
    assert again.measured == tuned.measured


def test_skipping_tiers_finds_what_every_choice_of_models_would():
    preds, net = predictions(4, 300, 60, 2), chain(4)
    wish = {"subject_to": ["accuracy >= 0.9"], "split": None}
    tuned = ci.tune(ci.Forward(score="confidence", models="any"), preds, net, **wish)
    names = [f"m{m}" for m in range(4)]
    by_hand = []
    for size in range(1, 5):
        for models in itertools.combinations(names, size):
            one = ci.tune(ci.Forward(score="confidence", models=models), preds, net, **wish)
            if one.feasible:
                by_hand.append(one.chosen["price_usd"])
    assert tuned.chosen["price_usd"] == min(by_hand)
    assert tuned.strategy.models == tuple(tuned.chosen["models"].split(" -> "))
    assert set(tuned.front["models"].to_pylist()) >= {"m0 -> m3", "m3", "m0 -> m1 -> m2 -> m3"}


def test_measured_service_times_and_several_ingress_nodes_enter_the_mean():
    preds = predictions(2, 50, 10, 3)
    times = np.linspace(1, 99, 50).astype(np.float32)
    preds = ci.Predictions(
        {
            "m0": ci.ModelOutput(label=preds["m0"].label, confidence=preds["m0"].confidence, service_us=times),
            "m1": preds["m1"],
        },
        labels=preds.labels,
    )
    law = ci.service.Measured()
    net = ci.Network(
        [ci.Node("a", 0), ci.Node("b", 0), ci.Node("c", 1)],
        [ci.Link(between=("a", "c"), delay_ms=5.0), ci.Link(between=("b", "c"), delay_ms=15.0)],
        [],
        [ci.Deployment("m0", "a", service=law), ci.Deployment("m0", "b", service=law), ci.Deployment("m1", "c")],
    )
    tuned = ci.tune(
        ci.Forward(score="confidence"), preds, net, minimise="latency_us_mean", subject_to="accuracy >= 0.8", split=None
    )
    trace = ci.Trace(np.arange(100), ["a", "b"] * 50, np.repeat(np.arange(50), 2))
    s = ci.replay(trace, preds, net, tuned.strategy).summary
    assert tuned.chosen["latency_us_mean"] == pytest.approx(s.latency_us.mean, rel=1e-12)
    assert tuned.chosen["accuracy"] == s.accuracy


# dataset: cheap API, best API, forwarded share (%) that reaches the best; best reachable accuracy and its share (%)
FRUGALML = {
    "audiomnist": (3, 1, "16.29", "0.98813", "26.34"),
    "ferplus": (3, 2, "55.77", "0.82573", "79.76"),
    "rafdb": (3, 2, "51.25", "0.72599", "64.01"),
}


@pytest.mark.parametrize("name", FRUGALML)
def test_frugalml_values_come_out_exactly(name):
    file = SHARED / "frugalml_dev.npz"
    if not file.exists():
        pytest.skip(f"the FrugalML predictions are not here: {file}")
    with np.load(file, allow_pickle=False) as data:
        apis, cost = data[f"{name}_apis"], data[f"{name}_cost_per10k"]
        labels, answers, confidence = data[f"{name}_labels"], data[f"{name}_preds"], data[f"{name}_conf"]
    cheap, best, share, reachable, reachable_share = FRUGALML[name]
    preds = ci.Predictions(
        {str(apis[i]): ci.ModelOutput(label=answers[:, i].astype(int), confidence=confidence[:, i]) for i in range(4)},
        labels=labels.astype(int),
    )
    net = ci.Network.chain(
        {"device": str(apis[cheap]), "cloud": str(apis[best])}, price_usd=[cost[cheap] / 1e4, cost[best] / 1e4]
    )
    goal = preds.accuracy(str(apis[best]))
    assert goal == max(preds.accuracy(m) for m in preds.models)
    tuned = ci.tune(
        ci.Forward(score="confidence"),
        preds,
        net,
        minimise="forwarded_share",
        subject_to=[f"accuracy >= {goal!r}"],
        split=None,
    )
    assert f"{100 * tuned.chosen['forwarded_share']:.2f}" == share
    assert tuned.chosen["accuracy"] >= goal
    top = ci.tune(ci.Forward(score="confidence"), preds, net, minimise="accuracy", split=None)
    assert f"{top.chosen['accuracy']:.5f}" == reachable
    assert f"{100 * top.chosen['forwarded_share']:.2f}" == reachable_share
    # Only whole tie groups are cut: there are as many points as distinct confidences, and one more.
    assert tuned.front.num_rows == len(np.unique(confidence[:, cheap])) + 1


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"minimise": "prise_usd"}, ci.UnknownNameError, "did you mean 'price_usd'"),
        ({"subject_to": ["accuracy > high"]}, ci.BadValueError, "is not of the form"),
        ({"subject_to": ["acuracy >= 0.9"]}, ci.UnknownNameError, "did you mean 'accuracy'"),
        ({"split": (0.9, 0.9)}, ci.BadValueError, "at most 1"),
        ({"split": (0.5,)}, ci.BadValueError, "two positive shares"),
        ({"seed": "x"}, ci.BadValueError, "seed"),
        ({"ingress": "n9"}, ci.UnknownNameError, "n9"),
    ],
)
def test_bad_wishes_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        ci.tune(ci.Forward(score="confidence"), predictions(2, 10, 5, 0), chain(2), **options)


def test_nothing_to_tune_is_said():
    preds = predictions(2, 10, 5, 0)
    with pytest.raises(ci.UnsupportedError, match="only the model 'm0'"):
        ci.tune(ci.Forward(score="confidence"), preds, chain(1))
    with pytest.raises(ci.UnsupportedError, match="not Local"):
        ci.tune(ci.Local(), preds, chain(2))
    unlabelled = ci.Predictions({m: preds[m] for m in preds.models})
    with pytest.raises(ci.UnsupportedError, match="true labels"):
        ci.tune(ci.Forward(score="confidence"), unlabelled, chain(2), subject_to=["accuracy >= 0.5"])
    assert ci.tune(
        ci.Forward(score="confidence"), unlabelled, chain(2), subject_to=["stages <= 1.5"], split=None
    ).feasible
