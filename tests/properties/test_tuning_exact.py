"""Tuning against exhaustive search, on random small problems with ties and missing scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import coinfer as ci
import reference_tuning as reference
from coinfer.tuning import searching


def problem(models, samples, levels, seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, samples)
    label = np.stack(
        [np.where(rng.random(samples) < 0.5 + 0.4 * m / models, truth, (truth + 1) % 3) for m in range(models)]
    )
    score = (rng.integers(0, levels, (models, samples)) / levels).astype(np.float32)
    score[rng.random(score.shape) < 0.05] = np.nan
    preds = ci.Predictions(
        {f"m{m}": ci.ModelOutput(label=label[m], confidence=score[m]) for m in range(models)}, labels=truth
    )
    net = ci.Network.chain(
        {f"n{m}": f"m{m}" for m in range(models)},
        delay_ms=[10.0 * (m + 1) for m in range(models - 1)],
        service_ms=[1.0 + m for m in range(models)],
        price_usd=[1e-5 * (m + m * m) for m in range(models)],
    )
    price = np.cumsum([round(1e7 * (m + m * m)) for m in range(models)])
    return preds, net, score, label == truth, price / 1e12


@settings(max_examples=40, deadline=None)
@given(
    samples=st.integers(2, 25),
    levels=st.integers(1, 12),
    seed=st.integers(0, 10**6),
    bound=st.floats(0.3, 1.0),
    coarse=st.booleans(),
)
def test_two_thresholds_are_as_good_as_the_best_of_all_pairs(samples, levels, seed, bound, coarse):
    preds, net, score, right, price = problem(3, samples, levels, seed)
    best = reference.cheapest(score, right, price, bound)
    with pytest.MonkeyPatch.context() as patch:
        if coarse:  # too few levels for all cuts: then the pair is found by the exact search
            patch.setitem(searching._LEVELS, 2, 3)
        tuned = ci.tune(
            ci.Forward("confidence", thresholds="each"), preds, net, subject_to=f"accuracy >= {bound!r}", split=None
        )
    assert tuned.feasible == (best is not None)
    if tuned.gap is not None and tuned.gap.search == "grid" and tuned.gap.infeasible == 0:
        on_grid = [row["price_usd"] for row in tuned.front.to_pylist()[:-1] if row["feasible"]]
        assert tuned.gap.mean == pytest.approx((min(on_grid) - best) / (best or price.max()), abs=1e-12)
    if best is not None:
        assert tuned.chosen["price_usd"] == pytest.approx(best, rel=1e-12, abs=1e-18)
        assert tuned.method.startswith("exact")
        stage = reference.settle(score, tuned.chosen["thresholds"])
        assert tuned.chosen["accuracy"] == right[stage, np.arange(samples)].mean()
        assert tuned.measured["accuracy"] == tuned.chosen["accuracy"]
        assert tuned.measured["price_usd"] == pytest.approx(tuned.chosen["price_usd"], rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(samples=st.integers(2, 25), levels=st.integers(1, 12), seed=st.integers(0, 10**6), budget=st.floats(0, 1))
def test_the_surest_pair_within_a_budget(samples, levels, seed, budget):
    preds, net, score, right, price = problem(3, samples, levels, seed)
    most = float(price[0] + budget * (price[-1] - price[0]))
    points = list(reference.operating_points(score, right, price))
    best = max((accuracy for _, accuracy, cost in points if cost <= most * (1 + 1e-12)), default=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(searching._LEVELS, 2, 3)
        tuned = ci.tune(
            ci.Forward("confidence", thresholds="each"),
            preds,
            net,
            minimise="accuracy",
            subject_to=f"price_usd <= {most * (1 + 1e-12)!r}",
            split=None,
        )
    assert tuned.feasible == (best is not None)
    if best is not None:
        assert tuned.chosen["accuracy"] == pytest.approx(best, abs=1e-12)


def test_coordinate_ascent_is_never_better_than_exhaustive_search_and_mostly_as_good():
    gaps = []
    for seed in range(24):
        preds, net, score, right, price = problem(4, 18, 5, seed)
        bound = 0.6 + 0.3 * (seed % 4) / 4
        best = reference.cheapest(score, right, price, bound)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(searching._LEVELS, 3, 3)
            tuned = ci.tune(
                ci.Forward("confidence", thresholds="each"), preds, net, subject_to=f"accuracy >= {bound}", split=None
            )
        assert "coordinate ascent" in tuned.method
        assert tuned.gap.search == "coordinate ascent"
        assert tuned.gap.samples == 18  # all of them: the problem itself
        assert (tuned.gap.problems == 0) == (best is None)
        assert 0 <= tuned.gap.mean <= tuned.gap.worst
        assert "against exhaustive search" in str(tuned)
        finite = [value for value in tuned.trail if np.isfinite(value)]
        assert tuned.trail[-1] == min(finite, default=tuned.trail[-1])
        if best is None:
            assert not tuned.feasible
        elif tuned.feasible:
            assert tuned.chosen["price_usd"] >= best * (1 - 1e-12)
            gaps.append(tuned.chosen["price_usd"] / best - 1)
    assert len(gaps) >= 10
    assert np.mean(gaps) < 0.03, f"mean gap to the optimum {np.mean(gaps):.1%}"
    assert np.mean(np.array(gaps) < 1e-12) >= 0.8


def test_paths_that_differ_get_thresholds_of_their_own():
    preds, _, score, right, _ = problem(3, 15, 6, 4)
    net = ci.Network(
        [ci.Node("a", 0), ci.Node("b", 0), ci.Node("c", 1)],
        [ci.Link(between=("a", "c"), delay_ms=5.0), ci.Link(between=("b", "c"), delay_ms=15.0)],
        [],
        [
            ci.Deployment("m0", "a", service=ci.service.Constant(1.0)),
            ci.Deployment("m1", "b", service=ci.service.Constant(2.0)),
            ci.Deployment("m2", "c", service=ci.service.Constant(4.0)),
        ],
    )
    template = ci.Forward("confidence", thresholds="each")
    tuned = ci.tune(template, preds, net, minimise="latency_us_mean", subject_to="accuracy >= 0.7", split=None, seed=1)
    latency = {"a": [1000, 15000], "b": [2000, 36000]}
    best = min(
        (np.mean(np.array(latency["a"])[sa]) + np.mean(np.array(latency["b"])[sb])) / 2
        for sa in (reference.settle(score[[0, 2]], [cut]) for cut in reference.cuts(score[0]))
        for sb in (reference.settle(score[[1, 2]], [cut]) for cut in reference.cuts(score[1]))
        if (right[[0, 2]][sa, np.arange(15)].mean() + right[[1, 2]][sb, np.arange(15)].mean()) / 2 >= 0.7
    )
    assert tuned.feasible
    assert tuned.chosen["latency_us_mean"] >= best * (1 - 1e-12)
    assert tuned.chosen["latency_us_mean"] <= best * 1.1
    assert set(tuned.strategy.by_ingress) == {"a", "b"}
    assert tuned.measured["latency_us_mean"] == pytest.approx(tuned.chosen["latency_us_mean"], rel=1e-12)
    trace = ci.Trace(np.arange(30), ["a", "b"] * 15, np.repeat(np.arange(15), 2))
    run = ci.replay(trace, preds, net, tuned.strategy)
    assert run.summary.latency_us.mean == pytest.approx(tuned.chosen["latency_us_mean"], rel=1e-12)
    assert run.summary.accuracy == pytest.approx(tuned.chosen["accuracy"], rel=1e-12)


@settings(max_examples=20, deadline=None)
@given(
    samples=st.integers(2, 25),
    levels=st.integers(1, 12),
    seed=st.integers(0, 10**6),
    each=st.booleans(),
    q=st.sampled_from([1, 50, 90, 99]),
    ingresses=st.integers(1, 2),
)
def test_quantiles_of_measured_times_are_those_of_every_point(samples, levels, seed, each, q, ingresses):
    preds, _, score, _, _ = problem(3, samples, levels, seed)
    rng = np.random.default_rng(seed)
    took = rng.integers(1, 50, (2, samples)).astype(np.float32)
    preds = ci.Predictions(
        {
            "m0": ci.ModelOutput(label=preds["m0"].label, confidence=preds["m0"].confidence, service_us=took[0]),
            "m1": ci.ModelOutput(label=preds["m1"].label, confidence=preds["m1"].confidence, service_us=took[1]),
            "m2": preds["m2"],
        },
        labels=preds.labels,
    )
    doors = ["a", "b"][:ingresses]
    net = ci.Network(
        [*(ci.Node(d, 0) for d in doors), ci.Node("e", 1), ci.Node("c", 2)],
        [
            *(ci.Link(between=(d, "e"), delay_ms=0.01 * (i + 1)) for i, d in enumerate(doors)),
            ci.Link(between=("e", "c"), delay_ms=0.02),
        ],
        [],
        [
            *(ci.Deployment("m0", d, service=ci.service.Measured()) for d in doors),
            ci.Deployment("m1", "e", service=ci.service.Measured()),
            ci.Deployment("m2", "c", service=ci.service.Constant(0.03)),
        ],
    )
    template = ci.Forward("confidence", thresholds="each" if each else None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(searching._LEVELS, 2, 4)
        tuned = ci.tune(template, preds, net, minimise=f"latency_us_p{q}", subject_to="accuracy >= 0.5", split=None)
    delay = np.array([[0, 20 * (i + 1), 20 * (i + 3)] for i in range(ingresses)])
    service = np.cumsum([took[0], took[1], np.full(samples, 30.0)], axis=0)
    for row in tuned.front.to_pylist():
        stage = reference.settle(score, row["thresholds"] if each else [row["threshold"]] * 2)
        every = np.sort((delay[:, stage] + service[stage, np.arange(samples)]).reshape(-1))
        assert row[f"latency_us_p{q}"] == every[max(int(np.ceil(q / 100 * len(every) - 1e-9)), 1) - 1]
    trace = ci.Trace(np.arange(samples * ingresses), doors * samples, np.repeat(np.arange(samples), ingresses))
    run = ci.replay(trace, preds, net, tuned.strategy)
    assert tuned.measured[f"latency_us_p{q}"] == tuned.chosen[f"latency_us_p{q}"] == run.latency_quantiles(q / 100)
