from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import coinfer as ci
from coinfer.calibrating import Calibration, step
from coinfer.strategy import Strategy


def logits(samples, seed, sharpness, skill=2.0, classes=5):
    """Logits of which `sharpness` times themselves are true log-odds."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, samples).astype(np.int32)
    odds = rng.normal(size=(samples, classes)) + skill * np.eye(classes)[truth]
    return (odds * skill / sharpness).astype(np.float32), truth


def nll(z, truth, temperature):
    z = z.astype(np.float64) / temperature
    z -= z.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), truth]))


def ladder(samples=4000, seed=0):
    z1, truth = logits(samples, seed, 0.25, skill=1.2)
    rng = np.random.default_rng(seed + 1)
    z2 = rng.normal(size=z1.shape) + 3.0 * np.eye(z1.shape[1])[truth]
    p2 = np.exp(z2) / np.exp(z2).sum(axis=1, keepdims=True)
    return ci.Predictions(
        {"small": ci.ModelOutput(logits=z1), "large": ci.ModelOutput(probs=p2.astype(np.float32))}, labels=truth
    )


def chain():
    return ci.Network.chain(
        {"device": "small", "cloud": "large"}, delay_ms=[20], service_ms=[1, 5], price_usd=[0, 1e-4]
    )


def once_each(preds, net):
    return ci.Trace(np.arange(len(preds)), [net.ingress[0]] * len(preds), np.arange(len(preds)))


@pytest.mark.parametrize("sharpness", [0.2, 1.0, 4.0])
def test_the_temperature_is_the_one_of_least_loss(sharpness):
    z, truth = logits(3000, 1, sharpness)
    found = ci.calibrate(ci.Predictions({"m": ci.ModelOutput(logits=z)}, labels=truth)).temperature["m"]
    expected = minimize_scalar(lambda t: nll(z, truth, np.exp(t)), bounds=(-5, 5), method="bounded").x
    assert np.log(found) == pytest.approx(expected, abs=2e-3)
    assert found == pytest.approx(1 / sharpness, rel=0.15)


def test_probabilities_are_tempered_like_logits():
    z, truth = logits(2000, 3, 0.5)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    both = ci.Predictions({"z": ci.ModelOutput(logits=z), "p": ci.ModelOutput(probs=p)}, labels=truth)
    found = ci.calibrate(both)
    assert found.temperature["p"] == pytest.approx(found.temperature["z"], rel=1e-3)
    applied = found.apply(both)
    shown = [ci.score(applied[m].vector, kind="max_prob", input=applied[m].form) for m in ("z", "p")]
    assert np.allclose(*shown, atol=1e-4)
    for model in both.models:
        assert np.array_equal(applied[model].answers(), both[model].answers())


def test_a_class_that_the_model_lacks_says_nothing_about_its_temperature():
    z, truth = logits(2000, 4, 0.5, classes=3)
    names = ["a", "b", "c"]
    alone = ci.Predictions({"m": ci.ModelOutput(logits=z, classes=names)}, labels=truth)
    wider = ci.Predictions(
        {"m": ci.ModelOutput(logits=np.vstack([z, z[:50]]), classes=names)},
        labels=np.append(truth, np.full(50, 3)),
        classes=["a", "b", "c", "d"],
    )
    assert ci.calibrate(wider).temperature["m"] == pytest.approx(ci.calibrate(alone).temperature["m"], rel=1e-6)


def test_rows_without_answer_or_truth_are_left_out():
    z, truth = logits(500, 5, 0.5)
    worse = np.vstack([z, np.full((20, 5), np.nan, np.float32), z[:20]])
    labels = np.concatenate([truth, truth[:20], np.full(20, -1)])
    one = ci.calibrate(ci.Predictions({"m": ci.ModelOutput(logits=z)}, labels=truth))
    two = ci.calibrate(ci.Predictions({"m": ci.ModelOutput(logits=worse)}, labels=labels))
    assert one == two


def test_replaying_calibrated_equals_replaying_calibrated_predictions():
    preds, net = ladder(), chain()
    for method, score in (("temperature", "margin"), ("isotonic", "confidence")):
        fitted = ci.Calibrated(ci.Forward(score, threshold=0.7), method).fit(preds, net)
        run = ci.replay(once_each(preds, net), preds, net, fitted)
        plain = ci.replay(once_each(preds, net), fitted.calibration.apply(preds), net, ci.Forward(score, threshold=0.7))
        assert run.summary.settled_by_node == pytest.approx(plain.summary.settled_by_node, abs=2e-3)
        assert float(run.summary.accuracy) == pytest.approx(float(plain.summary.accuracy), abs=2e-3)


def test_isotonic_confidence_is_the_share_that_is_right():
    preds, net = ladder(), chain()
    fitted = ci.Calibrated(ci.Forward("confidence", threshold=0.9), "isotonic").fit(preds, net)
    out = ci.replay(once_each(preds, net), preds, net, fitted).outcomes()
    small = out.filter(np.asarray(out["node"]) == "device")
    stated = np.asarray(small["confidence"], np.float64)
    assert stated.min() >= 0.9
    assert np.mean(np.asarray(small["correct"], bool)) == pytest.approx(stated.mean(), abs=1e-6)


def test_what_is_inside_is_fitted_on_calibrated_answers():
    preds, net = ladder(), chain()
    fitted = ci.Calibrated(ci.ExpectedGain(200.0, score="max_prob")).fit(preds, net)
    alone = ci.ExpectedGain(200.0, score="max_prob").fit(preds, net)
    assert fitted.inner.rules is not None
    runs = [ci.replay(once_each(preds, net), preds, net, s).summary for s in (fitted, alone)]
    # Temperature keeps the order of a binary score and nearly that of others: the rules must nearly agree.
    assert runs[0].settled_by_node == pytest.approx(runs[1].settled_by_node, abs=0.1)


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_a_calibrated_strategy_is_saved_whole(tmp_path, method):
    preds, net = ladder(400), chain()
    fitted = ci.Calibrated(ci.Forward("confidence", threshold=0.9), method).fit(preds, net)
    fitted.save(tmp_path / "s.toml")
    assert Strategy.open(tmp_path / "s.toml") == fitted
    unfitted = ci.Calibrated(ci.Forward(), method)
    unfitted.save(tmp_path / "u.toml")
    assert Strategy.open(tmp_path / "u.toml") == unfitted


def test_explain_shows_the_calibrated_score():
    preds, net = ladder(400), chain()
    fitted = ci.Calibrated(ci.Forward("confidence", threshold=0.9), "isotonic").fit(preds, net)
    explained = ci.replay(once_each(preds, net), preds, net, fitted).explain(3)
    raw = ci.score(preds["small"].vector[3:4], kind="max_prob")
    assert explained.steps[0]["score"] == np.float32(step(fitted.calibration.curves["small"], raw)[0])


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda p, n: ci.Calibrated(ci.Forward(), "platt"), ci.UnknownNameError, "known: 'temperature', 'isotonic'"),
        (lambda p, n: ci.Calibrated("forward"), ci.BadValueError, "must be a strategy"),
        (lambda p, n: ci.Calibrated(ci.Calibrated(ci.Local())), ci.BadValueError, "calibrated already"),
        (lambda p, n: ci.Calibrated(ci.Local()).plan(n, "device"), ci.UnsupportedError, "not calibrated yet"),
        (
            lambda p, n: ci.Calibrated(ci.Forward("margin", threshold=0.5), "isotonic").fit(p, n).plan(n, "device"),
            ci.UnsupportedError,
            "score='confidence'",
        ),
        (
            lambda p, n: ci.Calibrated(ci.Forward(threshold=0.5, temperature=2.0)).fit(p, n).plan(n, "device"),
            ci.UnsupportedError,
            "temperatures of its own",
        ),
        (lambda p, n: ci.calibrate(p, "platt"), ci.UnknownNameError, "platt"),
        (lambda p, n: ci.calibrate(p, models=["huge"]), ci.UnknownNameError, "huge"),
        (lambda p, n: ci.calibrate(ci.Predictions({"small": p["small"]})), ci.UnsupportedError, "true labels"),
        (
            lambda p, n: ci.calibrate(ci.Predictions({"api": ci.ModelOutput(label=[0, 1])}, labels=[0, 1])),
            ci.UnsupportedError,
            "'api' gives no vector",
        ),
        (
            lambda p, n: ci.calibrate(ci.Predictions({"api": ci.ModelOutput(label=[0, 1])}, labels=[0, 1]), "isotonic"),
            ci.UnsupportedError,
            "'api' gives labels only",
        ),
        (lambda p, n: Calibration("temperature", {"m": 0.0}), ci.BadValueError, "'m'"),
        (lambda p, n: Strategy.parse({"kind": "calibrated"}), ci.BadValueError, r"\[inner\]"),
    ],
)
def test_what_cannot_be_calibrated_is_named(build, error, words):
    with pytest.raises(error, match=words):
        build(ladder(50), chain())
