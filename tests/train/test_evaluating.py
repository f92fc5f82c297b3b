"""Served accuracy, calibration and shift."""

import numpy as np
import pytest

import coinfer as ci
from coinfer import train

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def table():
    """Three exits, each better than the last, on samples of known difficulty."""
    rng = np.random.default_rng(5)
    n = 4000
    labels = rng.integers(5, size=n)
    hard = rng.random(n)
    outputs = {}
    for e in range(3):
        z = rng.normal(size=(n, 5)).astype(np.float32)
        z[np.arange(n), labels] += 3 * (1 - hard) + 0.5 * e
        outputs[f"exit-{e + 1}"] = ci.ModelOutput(logits=3 * z)
    return ci.Predictions(outputs, labels=labels), hard


def test_served_accuracy_is_that_of_the_replay_and_of_a_count_by_hand(table):
    predictions, _ = table
    found = train.served(predictions.select(slice(0, 2000)), predictions.select(slice(2000, 4000)), "50-30-20")
    assert found.settled_by_exit == pytest.approx((0.5, 0.3, 0.2), abs=0.04)
    assert found.correct.mean() == pytest.approx(float(found.accuracy))
    assert found.accuracy.low < found.accuracy < found.accuracy.high
    assert found.accuracy_by_exit[2] > found.accuracy_by_exit[0]
    assert found.accuracy_served[0] > found.accuracy_by_exit[0]  # what stops early is easy
    assert found.accuracy_served[2] < found.accuracy_by_exit[2]  # what climbs is hard
    total = sum(a * s for a, s in zip(found.accuracy_served, found.settled_by_exit, strict=True))
    assert total == pytest.approx(float(found.accuracy))


def test_temperatures_calibrate_on_what_reaches_an_exit(table):
    predictions, _ = table
    reached = train.served(predictions, predictions, "50-30-20").reached
    found = train.temperatures(predictions, reached)
    assert found["exit-1"] == pytest.approx(train.temperatures(predictions)["exit-1"])
    assert found["exit-3"] > train.temperatures(predictions)["exit-3"] > 1  # overconfident, more so on hard samples
    before = train.served(predictions, predictions, "50-30-20").calibration_by_exit
    after = train.served(predictions, predictions, "50-30-20", temperature=found).calibration_by_exit
    assert after[2] < 0.6 * before[2]


def test_the_shift_is_found_where_it_is_and_not_where_it_is_not(table):
    predictions, hard = table
    reached = train.served(predictions, predictions, "50-30-20").reached
    found = train.shift(reached, predictions.labels, hard)
    assert found.harder[0] == pytest.approx(0.5, abs=0.01)
    assert found.harder[2] > found.harder[1] > 0.55
    assert found.hardness[3][2] > found.hardness[0][2] + 0.2
    rng = np.random.default_rng(0)
    chance = np.stack([np.ones(4000, bool), rng.random(4000) < 0.3], axis=1)
    nothing = train.shift(chance, predictions.labels, hard)
    assert nothing.harder == pytest.approx((0.5, 0.5), abs=0.03)
    assert nothing.distance[1] < 0.03
    skewed = np.stack([np.ones(4000, bool), predictions.labels < 2], axis=1)
    assert train.shift(skewed, predictions.labels, hard).distance[1] == pytest.approx(0.6, abs=0.03)


def test_labels_are_needed(table):
    predictions = ci.Predictions({name: table[0][name] for name in table[0].models})
    with pytest.raises(ci.UnsupportedError, match="needs true labels"):
        train.served(predictions, predictions, "50-30-20")
    with pytest.raises(ci.UnsupportedError, match="needs true labels"):
        train.temperatures(predictions)
