"""Tuning on a trace, where requests wait for each other."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

import coinfer as ci
from coinfer.cli import main
from coinfer.compiling import Compiler
from coinfer.tuning.waiting import Waiting

N = 1200
BOUND = 60_000
WISHES = ["accuracy >= 0.7", f"latency_us_p95 <= {BOUND}"]


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, N)
    sure = rng.random(N).astype(np.float32)
    small = np.where(rng.random(N) < 0.4 + 0.6 * sure, truth, (truth + 1) % 5)
    large = np.where(rng.random(N) < 0.95, truth, (truth + 1) % 5)
    preds = ci.Predictions(
        {
            "small": ci.ModelOutput(label=small, confidence=sure),
            "large": ci.ModelOutput(label=large, confidence=np.ones(N, np.float32)),
        },
        labels=truth,
    )
    net = ci.Network(
        [ci.Node("device", 0), ci.Node("cloud", 1)],
        [ci.Link(between=("device", "cloud"), delay_ms=5.0)],
        [],
        [
            ci.Deployment("small", "device", instances=4, service=ci.service.Constant(1.0)),
            ci.Deployment("large", "cloud", instances=1, service=ci.service.Exponential(10.0), price_usd=1e-4),
        ],
    )
    trace = ci.Trace.poisson(net, rate_rps=150, requests=6000, samples=N, seed=1)
    return preds, net, trace


def replayed(world, strategy, trace=None):
    preds, net, whole = world
    return ci.replay(trace or whole, preds, net, strategy).summary


def test_the_bound_is_met_with_queues_and_would_not_be_without_looking_at_them(world):
    preds, net, trace = world
    goal = {"minimise": "accuracy", "subject_to": WISHES, "split": None}
    with pytest.warns(ci.QueueWarning, match="as if nobody waited: give trace="):
        blind = ci.tune(ci.Forward("confidence"), preds, net, **goal)
    assert "as if nobody waited" in str(blind)
    tuned = ci.tune(ci.Forward("confidence"), preds, net, trace=trace, **goal)
    assert tuned.feasible
    assert tuned.warning == ""
    summary = replayed(world, tuned.strategy)
    assert summary.latency_us.p95 == tuned.chosen["latency_us_p95"] <= BOUND
    assert summary.latency_us.mean == tuned.measured["latency_us_mean"]
    assert tuned.measured["latency_us_p95"].low <= summary.latency_us.p95 <= tuned.measured["latency_us_p95"].high
    with pytest.warns(ci.OverloadWarning):
        assert replayed(world, blind.strategy).latency_us.p95 > BOUND


def test_no_point_of_the_front_is_better_than_what_the_search_found(world):
    preds, net, trace = world
    goal = {"minimise": "accuracy", "subject_to": WISHES, "split": None}
    tuned = ci.tune(ci.Forward("confidence"), preds, net, trace=trace, **goal)
    thresholds = np.array(tuned.front["threshold"])
    accuracy = np.array(tuned.front["accuracy"])
    better = thresholds[accuracy > tuned.chosen["accuracy"]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        some = better[:: max(1, len(better) // 40)]
        assert all(replayed(world, ci.Forward("confidence", threshold=t)).latency_us.p95 > BOUND for t in some)
    assert list(tuned.trail) == sorted(tuned.trail, reverse=True)
    known = tuned.front.filter(tuned.front["replayed"])
    assert known.num_rows == tuned.under_load.candidates < tuned.front.num_rows
    assert known["latency_us_p95"].null_count == 0
    assert tuned.front["latency_us_p95"].null_count == tuned.front.num_rows - known.num_rows


def test_parts_of_the_split_keep_the_load_and_ask_about_their_own_samples(world):
    preds, net, trace = world
    waiting = Waiting(Compiler(preds, net), trace, ["load[cloud]"], seed=3)
    rows = np.arange(0, N, 3, dtype=np.uint32)
    part = waiting.about(rows)
    assert np.array_equal(part.arrival_ns - part.arrival_ns[0], trace.arrival_ns - trace.arrival_ns[0])
    assert set(part.sample) <= set(rows)
    kept = np.isin(trace.sample, rows)
    assert np.array_equal(part.sample[kept], trace.sample[kept])
    again = waiting.anew(part, rows, 0)
    assert len(again) == len(trace)
    assert set(again.sample) <= set(rows)
    assert 0.8 < again.duration_s / trace.duration_s < 1.25
    assert waiting.once(ci.Forward("confidence", threshold=0.2), rows)["load[cloud]"] == pytest.approx(0.3, abs=0.06)


def test_deadlines_goodput_and_load_can_be_asked_for(world):
    preds, net, trace = world
    late = ci.Trace(trace.arrival_ns, "device", trace.sample, deadline_us=40_000.0)
    wishes = ["deadline_missed <= 0.05", "load[cloud] <= 0.7"]
    tuned = ci.tune(ci.Forward("confidence"), preds, net, minimise="goodput", subject_to=wishes, trace=late, split=None)
    assert tuned.feasible
    summary = replayed(world, tuned.strategy, late)
    assert tuned.chosen["goodput"] == summary.goodput
    assert tuned.chosen["deadline_missed"] == 1 - summary.status["answered"] / summary.requests <= 0.05
    assert tuned.chosen["load[cloud]"] == summary.utilisation_by_node["cloud"] <= 0.7
    with pytest.raises(ci.BadValueError, match="give trace="):
        ci.tune(ci.Forward("confidence"), preds, net, minimise="goodput")
    with pytest.raises(ci.BadValueError, match="not both"):
        ci.tune(ci.Forward("confidence"), preds, net, trace=late, ingress="device")
    with pytest.raises(ci.BadValueError, match=r"must be a coinfer\.Trace"):
        ci.tune(ci.Forward("confidence"), preds, net, trace="late.parquet")


def test_what_looks_at_queues_is_tuned_by_replay_alone(world):
    preds, net, trace = world
    template = ci.LoadAware(ci.Forward("confidence", threshold=0.6), per_ms=0.001)
    tuned = ci.tune(
        template, preds, net, minimise="accuracy", subject_to=f"latency_us_p95 <= {BOUND}", trace=trace, split=None
    )
    assert tuned.feasible
    assert tuned.strategy.per_ms in tuned.front["per_ms"].to_pylist()
    summary = replayed(world, tuned.strategy)
    assert (
        tuned.measured["accuracy"]
        == summary.accuracy
        == max(row["accuracy"] for row in tuned.front.to_pylist() if row["feasible"])
    )
    with pytest.raises(ci.UnsupportedError, match="depends on queues"), pytest.warns(ci.QueueWarning):
        ci.tune(template, preds, net, minimise="latency_us_mean")


def test_a_certificate_covers_what_samples_decide_and_the_rest_is_called_an_estimate(world, tmp_path, capsys):
    preds, net, trace = world
    preds.save(tmp_path / "p.npz")
    net.save(tmp_path / "n.toml")
    trace.save(tmp_path / "t.parquet")
    (tmp_path / "problem.toml").write_text(
        f"""
        predictions = "p.npz"
        network = "n.toml"
        trace = "t.parquet"
        subject_to = ["accuracy >= 0.7", "latency_us_p95 <= {BOUND}"]
        confidence = 0.9
        [strategy]
        kind = "forward"
        score = "confidence"
        """
    )
    with pytest.raises(SystemExit) as stopped:
        main(["tune", "--problem", str(tmp_path / "problem.toml"), "--report", str(tmp_path / "r.html"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert stopped.value.code == 0
    assert [g["constraint"] for g in found["certificate"]["guarantee"]] == ["accuracy >= 0.7"]
    assert found["under_load"]["requests"] == 6000
    assert found["under_load"]["quantities"] == ["latency_us_mean", "latency_us_p95"]
    assert found["measured"]["latency_us_p95"]["low"] < found["measured"]["latency_us_p95"]["high"]
    assert "estimates on this trace, not certified" in (tmp_path / "r.html").read_text()


def test_paths_that_differ_are_tuned_together(world):
    preds, _, _ = world
    net = ci.Network(
        [ci.Node("a", 0), ci.Node("b", 0), ci.Node("c", 1)],
        [ci.Link(between=("a", "c"), delay_ms=5.0), ci.Link(between=("b", "c"), delay_ms=15.0)],
        [],
        [
            ci.Deployment("small", "a", instances=1, service=ci.service.Constant(1.0)),
            ci.Deployment("small", "b", instances=1, service=ci.service.Constant(3.0)),
            ci.Deployment("large", "c", instances=1, service=ci.service.Exponential(10.0)),
        ],
    )
    trace = ci.Trace.poisson(net, rate_rps=100, requests=4000, samples=N, seed=1)
    tuned = ci.tune(
        ci.Forward("confidence"),
        preds,
        net,
        minimise="accuracy",
        subject_to="latency_us_p95 <= 50000",
        trace=trace,
        split=None,
    )
    assert tuned.feasible
    assert ci.replay(trace, preds, net, tuned.strategy).summary.latency_us.p95 == tuned.chosen["latency_us_p95"]
