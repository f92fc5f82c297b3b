"""Boosting over a fixed pool, against the algorithm as published, and as a strategy."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import coinfer as ci
import reference_combining as reference
from coinfer.strategy import Strategy

CIFAR = Path(os.environ.get("COINFER_SHARED", Path(__file__).parents[2] / ".." / "shared")) / "data/cifar10_models.npz"


def network(models):
    placed = [ci.Deployment(m, "n", service=ci.service.Constant(mean_ms=1.0)) for m in models]
    return ci.Network([ci.Node("n", 0)], [], [], placed)


def trace(rows):
    return ci.Trace(np.arange(rows) * 1000, ["n"] * rows, np.arange(rows))


def pool(rng, rows=400, classes=4, models=6):
    """Models of falling skill, the last one worse than chance, with errors that overlap."""
    truth = rng.integers(0, classes, rows)
    hard = rng.random(rows)
    said = []
    for m in range(models):
        wrong = 0.7 * hard + 0.3 * rng.random(rows) > 0.75 - 0.1 * m
        said.append(np.where(wrong, (truth + rng.integers(1, classes, rows)) % classes, truth))
    said.append((truth + 1) % classes)
    return [s.astype(np.int32) for s in said], truth


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_weights_and_order_are_those_of_the_reference(seed, classes):
    said, truth = pool(np.random.default_rng(seed), classes=classes)
    if seed % 2:
        said[1][::7] = -1
    boost = ci.Boost.fit(said, truth, classes=classes)
    order, weights = reference.samme(said, truth, classes)
    assert boost.models == tuple(map(str, order))
    np.testing.assert_allclose(list(boost.weights.values()), weights, rtol=1e-12)
    assert all(weight > 0 for weight in boost.weights.values())
    assert sorted(boost.models + boost.dropped) == sorted(map(str, range(len(said))))
    assert "6" in boost.dropped, "a model that is always wrong gets no weight"


def test_the_first_of_equal_models_is_taken_and_its_copy_adds_nothing():
    truth = np.array([0, 1, 2, 0, 1, 2, 0, 1])
    good = np.array([0, 1, 2, 0, 1, 2, 1, 0])
    boost = ci.Boost.fit([good, good], truth)
    # After the first round its errors hold 2/3 of the weight: ln(K - 1) with K = 3 makes that exactly chance.
    assert boost.models == ("0",)
    assert boost.dropped == ("1",)


def test_a_model_without_fault_has_a_finite_weight():
    truth = np.arange(100) % 5
    boost = ci.Boost.fit([truth], truth)
    assert boost.weights["0"] == pytest.approx(np.log(199) + np.log(4))


def test_permuting_the_pool_permutes_the_weights():
    said, truth = pool(np.random.default_rng(3))
    names = [f"m{i}" for i in range(len(said))]
    boost = ci.Boost.fit(dict(zip(names, said, strict=True)), truth)
    back = ci.Boost.fit(dict(reversed(list(zip(names, said, strict=True)))), truth)
    assert boost.picked == back.picked


def test_it_votes_with_what_it_found_and_members_may_be_named():
    said, truth = pool(np.random.default_rng(4))
    boost = ci.Boost.fit(said, truth)
    weights = [boost.weights.get(str(i), 0.0) for i in range(len(said))]
    expected = reference.combine(said, "vote", weights, classes=4)
    got = ci.combine(said, boost)
    np.testing.assert_array_equal(got.label, expected[0])
    np.testing.assert_allclose(got.confidence, expected[1], atol=1e-6)
    named = {f"m{i}": s for i, s in enumerate(said)}
    np.testing.assert_array_equal(ci.combine(named, ci.Boost.fit(named, truth)).label, got.label)
    with pytest.raises(ci.UnsupportedError, match="was fitted for the members"):
        ci.combine(said[:3], boost)
    with pytest.raises(ci.BadValueError, match="weights of its own"):
        ci.combine(said, boost, weights=[1.0] * len(said))


def test_unfitted_it_is_refused_everywhere():
    said, truth = pool(np.random.default_rng(5))
    with pytest.raises(ci.UnsupportedError, match=r"must be fitted first: pass how=coinfer\.Boost\.fit"):
        ci.combine(said, "boost")
    predictions = ci.Predictions({f"m{i}": ci.ModelOutput(label=s) for i, s in enumerate(said)}, labels=truth)
    with pytest.raises(ci.UnsupportedError, match="is not fitted yet"):
        ci.replay(trace(400), predictions, network(predictions.models), ci.Ensemble("boost"))
    with pytest.raises(ci.UnsupportedError, match="true labels"):
        ci.Ensemble("boost").fit(
            ci.Predictions({m: predictions[m] for m in predictions.models}), network(predictions.models)
        )
    with pytest.raises(ci.UnsupportedError, match="no model that is better than chance"):
        ci.Boost.fit([(truth + 1) % 4], truth)


def test_fitted_saved_replayed_as_a_weighted_vote(tmp_path):
    said, truth = pool(np.random.default_rng(6))
    predictions = ci.Predictions({f"m{i}": ci.ModelOutput(label=s) for i, s in enumerate(said)}, labels=truth)
    net = network(predictions.models)
    fitted = ci.Ensemble("boost").fit(predictions, net)
    fitted.save(tmp_path / "boost.toml")
    opened = Strategy.open(tmp_path / "boost.toml")
    assert opened == fitted
    run = ci.replay(trace(400), predictions, net, opened)
    vote = ci.Ensemble("weighted_vote", weights=dict(fitted.learned.picked), models=fitted.learned.models)
    assert run.outcomes().equals(ci.replay(trace(400), predictions, net, vote).outcomes())
    joint = ci.combine(said, ci.Boost.fit(said, truth))
    np.testing.assert_array_equal(run.outcomes()["answer"].to_numpy(), joint.label)
    asked = {d.model for d in fitted.plan(net, "n").stages[0].members}
    assert asked == set(fitted.learned.models), "a model without weight is not asked"


def test_thirty_real_networks():
    if not CIFAR.exists():
        pytest.skip(f"{CIFAR.name} is not there: set COINFER_SHARED to the folder that holds data/")
    with np.load(CIFAR, allow_pickle=False) as archive:
        said, truth = archive["top1_preds"].T, archive["labels"]
    fit, held = slice(0, None, 2), slice(1, None, 2)
    boost = ci.Boost.fit(list(said[:, fit]), truth[fit], classes=10)
    boosted = np.mean(ci.combine(list(said[:, held]), boost).label == truth[held])
    best = max(np.mean(one[held] == truth[held]) for one in said)
    assert boosted > best - 0.005
    assert boost.models[0] == str(int(np.argmax([np.mean(one[fit] == truth[fit]) for one in said])))
