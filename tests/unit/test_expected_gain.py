from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import isotonic_regression

import coinfer as ci
from coinfer.calibrating import isotonic, step
from coinfer.strategy import Strategy


def ladder(samples, seed, *, miscalibrated=False, tiers=3):
    """Models whose confidence is the probability that they are right, or its square."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, samples)
    hard = rng.random(samples)
    outputs = {}
    for tier, skill in list(enumerate((0.5, 0.8, 0.95)))[-tiers:]:
        chance = np.clip(skill + 0.5 * (0.5 - hard) + 0.1 * rng.normal(size=samples), 0.05, 0.99)
        label = np.where(rng.random(samples) < chance, truth, (truth + 1) % 4)
        stated = chance**3 if miscalibrated else chance
        outputs[f"m{tier}"] = ci.ModelOutput(label=label, confidence=stated.astype(np.float32))
    return ci.Predictions(outputs, labels=truth)


def chain(preds):
    tiers = {f"n{i}": model for i, model in enumerate(preds.models)}
    count = len(tiers)
    return ci.Network.chain(
        tiers,
        delay_ms=[10.0, 40.0][: count - 1],
        service_ms=[1.0, 2.0, 5.0][:count],
        price_usd=[0.0, 1e-5, 1e-4][:count],
    )


def objective(preds, net, strategy, alpha, ms_per_usd=0.0):
    n = len(preds)
    trace = ci.Trace(np.arange(n), [net.ingress[0]] * n, np.arange(n))
    s = ci.replay(trace, preds, net, strategy).summary
    return s.latency_us.mean / 1e3 + ms_per_usd * s.price_usd + alpha * (1 - s.accuracy)


def test_isotonic_is_the_least_squares_monotone_step_function():
    rng = np.random.default_rng(0)
    score = (rng.integers(0, 40, 500) / 40).astype(np.float32)
    target = rng.random(500) < score
    curve = isotonic(score, target)
    order = np.argsort(score, kind="stable")
    values, group = np.unique(score[order], return_inverse=True)
    weight = np.bincount(group)
    expected = isotonic_regression(np.bincount(group, target[order]) / weight, weights=weight).x
    assert step(curve, values).tolist() == pytest.approx(expected.tolist())
    assert list(curve[0]) == sorted(curve[0])
    falling = isotonic(score, ~target, "falling")
    assert list(falling[1]) == sorted(falling[1], reverse=True)
    assert np.isnan(step(curve, [np.nan])).all()


@pytest.mark.parametrize(
    ("score", "target", "words"),
    [([np.nan], [1.0], "at least one score"), ([0.5], [np.nan], "row 0"), ([0.5, 0.6], [1.0], "one length")],
)
def test_isotonic_refuses_what_it_cannot_fit(score, target, words):
    with pytest.raises(ci.BadValueError, match=words):
        isotonic(score, target)


@pytest.mark.parametrize("miscalibrated", [False, True])
@pytest.mark.parametrize("tiers", [2, 3])
@pytest.mark.parametrize("alpha", [50.0, 200.0, 800.0])
def test_on_new_samples_it_is_as_good_as_the_best_threshold(miscalibrated, tiers, alpha):
    fit = ladder(20_000, 1, miscalibrated=miscalibrated, tiers=tiers)
    new = ladder(20_000, 2, miscalibrated=miscalibrated, tiers=tiers)
    net = chain(fit)
    gain = ci.ExpectedGain(alpha, score="confidence").fit(fit, net)
    got = objective(new, net, gain, alpha)
    # The rival is chosen on the very samples that it is measured on.
    rival = min(
        objective(new, net, ci.Forward(score="confidence", threshold=float(t)), alpha)
        for t in np.quantile(new[new.models[0]].confidence, np.linspace(0, 1, 21))
    )
    single = min(objective(new, net, ci.Remote(model=m), alpha) for m in new.models)
    assert got <= 1.02 * min(rival, single)


def test_alpha_moves_from_local_to_the_most_accurate():
    fit, new = ladder(6000, 3), ladder(6000, 4)
    net = chain(fit)
    n = len(new)
    trace = ci.Trace(np.arange(n), ["n0"] * n, np.arange(n))
    stages, latency, accuracy = [], [], []
    for alpha in (1.0, 100.0, 400.0, 1e5):
        s = ci.replay(trace, new, net, ci.ExpectedGain(alpha, score="confidence").fit(fit, net)).summary
        stages.append(s.stages)
        latency.append(s.latency_us.mean)
        accuracy.append(float(s.accuracy))
    assert stages[0] == 1.0
    assert latency == sorted(latency)
    assert accuracy == sorted(accuracy)
    assert accuracy[-1] > new.accuracy("m2") - 0.01


def test_looking_one_stage_ahead_is_the_whole_path_where_there_are_two_stages():
    fit = ladder(3000, 5, tiers=2)
    net = chain(fit)
    whole = ci.ExpectedGain(150.0, ms_per_usd=1e5, score="confidence").fit(fit, net)
    myopic = ci.ExpectedGain(150.0, ms_per_usd=1e5, score="confidence", horizon=1).fit(fit, net)
    assert whole.rules == myopic.rules
    cut, value = whole.rules["n0"][0][0]
    assert len(cut) == len(value) > 2


def test_the_myopic_rule_stops_before_a_stage_that_only_leads_on():
    rng = np.random.default_rng(6)
    truth = rng.integers(0, 2, 4000)
    even = rng.random(4000) < 0.5
    useless = ci.ModelOutput(label=np.where(even, truth, 1 - truth), confidence=np.full(4000, 0.5, np.float32))
    preds = ci.Predictions(
        {"m0": useless, "m1": useless, "m2": ci.ModelOutput(label=truth, confidence=np.ones(4000, np.float32))},
        labels=truth,
    )
    net = chain(preds)
    n = ci.Trace(np.arange(4000), ["n0"] * 4000, np.arange(4000))
    far = ci.replay(n, preds, net, ci.ExpectedGain(1000.0, score="confidence").fit(preds, net)).summary
    near = ci.replay(n, preds, net, ci.ExpectedGain(1000.0, score="confidence", horizon=1).fit(preds, net)).summary
    assert far.accuracy == 1.0
    assert near.stages == 1.0


def test_a_fitted_rule_is_saved_and_decides_the_same(tmp_path):
    fit = ladder(2000, 7)
    net = chain(fit)
    fitted = ci.ExpectedGain(300.0, score="confidence", models=("m0", "m2")).fit(fit, net)
    fitted.save(tmp_path / "s.toml")
    again = Strategy.open(tmp_path / "s.toml")
    assert again == fitted
    trace = ci.Trace(np.arange(2000), ["n0"] * 2000, np.arange(2000))
    assert ci.replay(trace, fit, net, again).outcomes().equals(ci.replay(trace, fit, net, fitted).outcomes())


def test_a_model_without_scores_always_passes_on():
    fit = ladder(500, 8)
    silent = ci.ModelOutput(label=fit["m0"].label)
    preds = ci.Predictions({"m0": silent, "m1": fit["m1"], "m2": fit["m2"]}, labels=fit.labels)
    net = chain(preds)
    fitted = ci.ExpectedGain(1.0, score="confidence").fit(preds, net)
    trace = ci.Trace(np.arange(500), ["n0"] * 500, np.arange(500))
    assert ci.replay(trace, preds, net, fitted).summary.settled_by_stage[0] == 0.0


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: ci.ExpectedGain(0.0), ci.BadValueError, "alpha must be a positive"),
        (lambda: ci.ExpectedGain(1.0, ms_per_usd=-1.0), ci.BadValueError, "at least 0"),
        (lambda: ci.ExpectedGain(1.0, horizon=0), ci.BadValueError, "at least 1"),
        (lambda: ci.ExpectedGain(1.0, score="margn"), ci.UnknownNameError, "did you mean 'margin'"),
        (lambda: Strategy.parse({"kind": "expected_gain"}), ci.BadValueError, "needs alpha"),
        (
            lambda: Strategy.parse({"kind": "expected_gain", "alpha": 1, "rule": [{}]}),
            ci.BadValueError,
            "rule.* 0 must",
        ),
    ],
)
def test_bad_parameters_are_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_what_is_not_fitted_cannot_run():
    preds = ladder(100, 9)
    net = chain(preds)
    trace = ci.Trace([0], ["n0"], [0])
    with pytest.raises(ci.UnsupportedError, match="not fitted yet"):
        ci.replay(trace, preds, net, ci.ExpectedGain(10.0))
    fitted = ci.ExpectedGain(10.0, score="confidence").fit(preds, net)
    with pytest.raises(ci.UnknownNameError, match="not fitted for ingress 'n1'"):
        ci.replay(ci.Trace([0], ["n1"], [0]), preds, net, fitted)
    with pytest.raises(ci.UnsupportedError, match="true labels"):
        ci.ExpectedGain(10.0).fit(ci.Predictions({m: preds[m] for m in preds.models}), net)
