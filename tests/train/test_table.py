"""Served accuracy on MNIST-10k, small: three profiles, three seeds, both splits, every weighting and both baselines."""

from pathlib import Path

import numpy as np
import pytest

import train_table
from coinfer import train

pytest.importorskip("torch")

DATA = Path(__file__).parents[3] / "shared" / "data" / "mnist10k.npz"


@pytest.fixture(scope="module")
def table():
    if not DATA.exists():
        pytest.skip(f"needs {DATA.name} in ../shared/data")
    settings = train.Settings(
        rounds=9, batch=60, learning_rate=0.2, momentum=0.5, method="fedadam", server_learning_rate=0.04, device="cpu"
    )
    plan = train_table.Plan(
        profiles=("80-15-5", "33-33-33", "5-15-80"), seeds=3, training=480, calibration=800, test=2000,
        widths=(12, 24, 32), settings=settings,
    )  # fmt: skip
    return plan, train_table.run(plan, *train_table.load(DATA))


def mean(table, strategy, profile, split):
    return train_table.accuracies(table[1], split, profile, strategy).mean()


def test_every_cell_is_there_and_learned_something(table):
    plan, records = table
    assert len(records) == 2 * 3 * 3 * len(train_table.STRATEGIES)
    assert np.mean([r["accuracy"] for r in records]) > 0.3  # chance is 0.1
    for r in records:
        wanted = train.Profile(r["profile"]).shares
        assert np.abs(np.subtract(r["settled"], wanted)).max() < 0.08
    page = train_table.markdown(records, plan, 1.0)
    assert page.count("| 80-15-5 |") == 6  # accuracies, paired differences and the cloud exit, for two splits
    assert page.count("| mean |") == 2


@pytest.mark.parametrize("split", train_table.SPLITS)
def test_matching_the_serving_rates_beats_equal_weights_where_devices_serve_most(table, split):
    difference = train_table.paired(table[1], split, "80-15-5", "serving_rate", "equal")
    assert difference["mean"] > 0
    assert difference["p"] < 0.05


@pytest.mark.parametrize("split", train_table.SPLITS)
def test_the_balanced_rule_stays_within_twelve_points_of_the_best_weights_per_exit(table, split):
    for profile in table[0].profiles:
        best = max(mean(table, s, profile, split) for s in ("equal", "serving_rate", "compute"))
        assert mean(table, "balanced", profile, split) > best - 0.12


def test_paired_differences_are_those_of_the_records(table):
    found = train_table.paired(table[1], "iid", "80-15-5", "delivered", "equal")
    assert found["mean"] == pytest.approx(
        mean(table, "delivered", "80-15-5", "iid") - mean(table, "equal", "80-15-5", "iid")
    )
    assert train_table.paired(table[1], "iid", "80-15-5", "equal", "equal")["p"] == 1.0
