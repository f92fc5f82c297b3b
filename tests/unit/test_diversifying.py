from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

import coinfer as ci

CIFAR = Path(__file__).parents[3] / "shared/data/cifar10_models.npz"


def problem(samples=400, models=4, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, samples)
    hard = rng.random(samples)
    outputs = {}
    for at in range(models):
        right = rng.random(samples) < 0.95 - 0.6 * hard - 0.05 * at
        label = np.where(right, truth, rng.integers(0, classes, samples))
        label[rng.random(samples) < 0.03] = -1
        outputs[f"m{at}"] = ci.ModelOutput(label=label)
    truth[:7] = -1
    return ci.Predictions(outputs, labels=truth)


def votes(labels, members, classes):
    """Accuracy of the vote as a dense count would have it."""
    counts = np.stack([(labels[:, members] == c).sum(axis=1) for c in range(classes)], axis=1)
    best = counts.argmax(axis=1)
    best[counts.max(axis=1) == 0] = -1
    return best


def known(preds):
    rows = preds.labels >= 0
    return np.stack([preds[m].label[rows] for m in preds.models], axis=1), preds.labels[rows]


def test_matrices_equal_their_definitions():
    preds = problem()
    found = ci.diversity(preds)
    labels, truth = known(preds)
    right = labels == truth[:, None]
    assert found.samples == len(truth) == 393
    assert found.correlation == pytest.approx(np.corrcoef(right.T.astype(float)))
    for i, j in itertools.product(range(4), repeat=2):
        a, b = right[:, i], right[:, j]
        n11, n00, n10, n01 = (a & b).sum(), (~a & ~b).sum(), (a & ~b).sum(), (~a & b).sum()
        assert found.q_statistic[i, j] == pytest.approx((n11 * n00 - n01 * n10) / (n11 * n00 + n01 * n10))
        assert found.double_fault[i, j] == n00 / len(truth)
    assert found.any_right == right.any(axis=1).mean()
    assert found.all_right == right.all(axis=1).mean()
    for at, model in enumerate(preds.models):
        alone = right[:, at] & (right.sum(axis=1) == 1)
        assert found.only[model] == alone.mean()
        assert found.only[model].low < alone.mean() < found.only[model].high
        assert found.accuracy[model] == right[:, at].mean()


def test_steps_are_votes_of_growing_sets():
    preds = problem(seed=1)
    labels, truth = known(preds)
    found = ci.diversity(preds, ["m2", "m0", "m3", "m1"])
    before, before_covered = 0.0, 0.0
    for at, step in enumerate(found.steps):
        members = [2, 0, 3, 1][: at + 1]
        vote = (votes(labels, members, 3) == truth).mean()
        covered = (labels[:, members] == truth[:, None]).any(axis=1).mean()
        assert (step.vote, step.covered) == pytest.approx((vote, covered))
        assert (step.vote_gain, step.covered_gain) == pytest.approx((vote - before, covered - before_covered))
        before, before_covered = vote, covered


def test_gains_by_place_equal_an_enumeration_of_the_same_orders():
    preds = problem(seed=2)
    labels, truth = known(preds)
    found = ci.diversity(preds, orders=5, seed=9)
    rng = np.random.Generator(np.random.Philox(9))
    gain, covered = np.zeros((4, 4)), np.zeros((4, 4))
    for base in [rng.permutation(4) for _ in range(5)]:
        for turn in range(4):
            order = np.roll(base, turn)
            before, before_covered = 0.0, 0.0
            for place in range(4):
                members = list(order[: place + 1])
                now = (votes(labels, members, 3) == truth).mean()
                now_covered = (labels[:, members] == truth[:, None]).any(axis=1).mean()
                gain[order[place], place] += (now - before) / 5
                covered[order[place], place] += (now_covered - before_covered) / 5
                before, before_covered = now, now_covered
    assert found.vote_gain == pytest.approx(gain)
    assert found.covered_gain == pytest.approx(covered)
    # Whoever joins first brings its own accuracy.
    assert found.vote_gain[:, 0] == pytest.approx([found.accuracy[m] for m in preds.models])


def test_a_model_that_is_always_right_has_no_correlation():
    preds = ci.Predictions({"a": ci.ModelOutput(label=[0, 1]), "b": ci.ModelOutput(label=[0, 0])}, labels=[0, 1])
    found = ci.diversity(preds)
    assert np.isnan(found.correlation[0]).all()
    assert json.loads(json.dumps(found.to_dict()))["correlation"][0] == [None, None]
    assert "b" in str(found)


def test_vectors_and_labels_are_read_alike():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(50, 3)).astype(np.float32)
    truth = rng.integers(0, 3, 50)
    vectors = ci.diversity(ci.Predictions({"a": ci.ModelOutput(logits=z)}, labels=truth))
    labels = ci.diversity(ci.Predictions({"a": ci.ModelOutput(label=z.argmax(axis=1))}, labels=truth))
    assert vectors.to_dict() == labels.to_dict()


@pytest.mark.skipif(not CIFAR.exists(), reason="shared/data/cifar10_models.npz is absent")
def test_thirty_networks_on_cifar10():
    with np.load(CIFAR) as data:
        preds = ci.Predictions(
            {str(n): ci.ModelOutput(label=p) for n, p in zip(data["top1_models"], data["top1_preds"].T, strict=True)},
            labels=data["labels"],
        )
    found = ci.diversity(preds, orders=1)
    assert found.any_right == 0.9972
    assert found.steps[-1].vote == pytest.approx(0.9700)
    assert max(found.accuracy.values()) == 0.9711


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda p: ci.diversity(p, ["m9"]), ci.UnknownNameError, "m9"),
        (lambda p: ci.diversity(p, []), ci.BadValueError, "at least one model"),
        (lambda p: ci.diversity(p, ["m0", "m0"]), ci.BadValueError, "each named once"),
        (lambda p: ci.diversity(p, orders=0), ci.BadValueError, "orders"),
        (lambda p: ci.diversity(ci.Predictions({"m0": p["m0"]})), ci.UnsupportedError, "true labels"),
    ],
)
def test_what_cannot_be_compared_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call(problem(50))
