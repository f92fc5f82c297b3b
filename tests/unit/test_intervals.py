from __future__ import annotations

import numpy as np
import pytest

import coinfer as ci
import reference_tuning as reference


def world(n, seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 5, n)
    sure = rng.random(n).astype(np.float32)
    outputs = {
        "small": ci.ModelOutput(label=np.where(rng.random(n) < 0.8, truth, (truth + 1) % 5), confidence=sure),
        "large": ci.ModelOutput(label=np.where(rng.random(n) < 0.9, truth, (truth + 1) % 5), confidence=sure),
    }
    net = ci.Network.chain({"device": "small", "cloud": "large"}, delay_ms=[20], service_ms=[1, 5], price_usd=[0, 1e-4])
    return ci.Predictions(outputs, labels=truth), net


def once(n):
    return ci.Trace(np.arange(n), ["device"] * n, np.arange(n))


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    covered = {"price_usd": 0, "latency_us_p50": 0}
    for seed in range(60):
        preds, net = world(200, seed)
        found = ci.replay(once(200), preds, net, ci.Forward("confidence", threshold=0.4)).intervals(seed)
        covered["price_usd"] += found["price_usd"].low <= 0.4e-4 <= found["price_usd"].high
        covered["latency_us_p50"] += found["latency_us_p50"].low <= 1000 <= found["latency_us_p50"].high
    assert covered["price_usd"] >= 50
    assert covered["latency_us_p50"] >= 50


def test_a_million_requests_over_few_samples_are_few_observations():
    preds, net = world(100, 1)
    trace = ci.Trace.poisson(net, rate_rps=100, requests=100_000, samples=100, seed=0)
    many = ci.replay(trace, preds, net, ci.Forward("confidence", threshold=0.5)).intervals()
    few = ci.replay(once(100), preds, net, ci.Forward("confidence", threshold=0.5)).intervals()
    width = many["price_usd"].high - many["price_usd"].low
    assert width == pytest.approx(few["price_usd"].high - few["price_usd"].low, rel=0.3)
    assert many["price_usd"].n_effective == pytest.approx(100, rel=0.02)


def test_counted_and_walked_requests_give_the_same_intervals():
    preds, net = world(300, 2)
    trace = ci.Trace(np.arange(300), ["device"] * 300, np.arange(300), deadline_us=np.full(300, 1e9))
    run = ci.replay(trace, preds, net, ci.Forward("confidence", threshold=0.5))
    plain = ci.replay(once(300), preds, net, ci.Forward("confidence", threshold=0.5))
    assert run.intervals() == plain.intervals()


def test_paired_tests_are_mcnemar_where_samples_count_alike():
    preds, net = world(400, 3)
    table = ci.compare(once(400), preds, net, {"local": ci.Local(), "cloud": ci.Remote("cloud")})
    small, large = preds["small"].label == preds.labels, preds["large"].label == preds.labels
    found = table.paired("local", "cloud")
    assert found.difference == pytest.approx(small.mean() - large.mean())
    assert found.low < found.difference < found.high
    assert found.p_value == pytest.approx(
        reference.mcnemar(int((small & ~large).sum()), int((large & ~small).sum())), rel=1e-9
    )
    assert found.samples == int((small != large).sum())


def test_the_table_marks_differences_that_are_noise():
    preds, net = world(900, 5)
    same = {"cloud": ci.Remote("cloud"), "nearly": ci.Forward("confidence", threshold=0.98), "local": ci.Local()}
    table = ci.compare(once(900), preds, net, same)
    assert table.as_good_as_best() == {"cloud", "nearly"}
    rows = {row["strategy"]: row for row in table.table().to_pylist()}
    assert rows["nearly"]["as_accurate_as_best"]
    assert not rows["local"]["as_accurate_as_best"]
    assert rows["nearly"]["price_usd_low"] <= rows["nearly"]["price_usd"] <= rows["nearly"]["price_usd_high"]
    assert " =" in str(table)
