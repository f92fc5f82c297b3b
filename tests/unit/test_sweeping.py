from __future__ import annotations

import json
import re

import numpy as np
import pytest

import coinfer as ci
from coinfer.strategy import Strategy


def answers(samples=800, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, samples)
    outputs = {}
    for name, skill in (("small", 1.2), ("large", 3.5)):
        z = rng.normal(size=(samples, 4)) + skill * np.eye(4)[truth]
        outputs[name] = ci.ModelOutput(logits=z.astype(np.float32))
    return ci.Predictions(outputs, labels=truth)


def network(queues=True, instances=2):
    deployments = (
        ci.Deployment("small", "device", instances=8 if queues else None, service=ci.service.Constant(2.0)),
        ci.Deployment("large", "cloud", instances=instances if queues else None, service=ci.service.Exponential(20.0)),
    )
    return ci.Network(
        (ci.Node("device", 0), ci.Node("cloud", 1)),
        (ci.Link(("device", "cloud"), delay_ms=10.0),),
        (),
        deployments,
    )


FORWARD = ci.Forward(score="max_prob", threshold=0.8)


@pytest.fixture(scope="module")
def sweep():
    return ci.sweep_load(
        answers(),
        network(),
        {
            "here": ci.Local(),
            "forward": FORWARD,
            "aware": ci.LoadAware(FORWARD, per_ms=0.005),
        },
        rates_rps=[20.0, 100.0, 300.0],
        requests=8000,
    )


def test_load_makes_latency_and_awareness_keeps_it_finite(sweep):
    low, high = (sweep.at("forward", rate).latency_us.p99 for rate in (20.0, 300.0))
    assert high > 20 * low
    aware = sweep.at("aware", 300.0)
    assert aware.latency_us.p99 < high / 20
    assert aware.accuracy > sweep.at("here", 300.0).accuracy
    assert sweep.at("here", 300.0).latency_us.p99 == pytest.approx(2000, rel=0.5)
    assert float(sweep.at("aware", 20.0).accuracy) == pytest.approx(float(sweep.at("forward", 20.0).accuracy), abs=0.02)


def test_saturation_is_where_work_fills_the_time(sweep):
    first = sweep.saturation["forward"][0]
    assert first.place == "large@cloud"
    forwarded = 1 - sweep.at("forward", 20.0).settled_by_node["device"]
    assert first.rate_rps == pytest.approx(2 / (0.020 * forwarded), rel=0.06)
    assert sweep.saturation["here"][0].rate_rps == pytest.approx(8 / 0.002, rel=0.03)
    marks = {p.strategy: p.busiest[1] >= 1 for p in sweep.points if p.rate_rps == 300.0}
    assert marks == {"here": False, "forward": True, "aware": False}


def test_a_point_equals_the_replay_of_its_trace(sweep):
    times = ci.arrivals.scaled(ci.arrivals.poisson(1000.0, 8000), rate_rps=100.0)
    preds, net = answers(), network()
    trace = ci.Trace.from_arrivals(times, samples=len(preds), network=net, unit="ns")
    run = ci.replay(trace, preds, net, FORWARD, warmup_ms=times[800] / 1e6)
    found = sweep.at("forward", 100.0)
    assert run.summary.latency_us == found.latency_us
    assert run.summary.accuracy == found.accuracy


def test_deadlines_turn_lateness_into_lost_answers():
    found = ci.sweep_load(
        answers(), network(), {"cloud": ci.Remote("cloud")}, rates_rps=[30, 140], requests=4000, deadline_us=150_000
    )
    calm, crowded = (found.at("cloud", rate) for rate in (30, 140))
    assert calm.goodput > 0.9
    assert crowded.goodput < 0.5
    assert sum(crowded.status.values()) == crowded.requests


def test_all_is_plain_data_and_a_page(sweep, tmp_path):
    data = json.loads(json.dumps(sweep.to_dict()))
    assert len(data["points"]) == 9
    assert sweep.table().num_rows == 9
    page = sweep.report(tmp_path / "load.html", "A <title>").read_text()
    text = re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.DOTALL)
    assert "forward drowns large@cloud at 300 requests per second; at 300 aware still answers" in text
    assert "A &lt;title&gt;" in text
    assert text.count("<tr>") == 1 + 3 + 1 + 9
    assert "saturates at" in str(sweep)


def test_recorded_arrivals_keep_their_bursts():
    bursts = np.repeat(np.arange(200) * 1.0, 20)[:-19]
    calm = ci.sweep_load(answers(), network(), {"f": FORWARD}, rates_rps=[60], requests=3000)
    bursty = ci.sweep_load(answers(), network(), {"f": FORWARD}, rates_rps=[60], requests=3000, arrivals=bursts)
    assert bursty.at("f", 60).queue_us > 2 * calm.at("f", 60).queue_us


@pytest.mark.parametrize(
    "strategy", [ci.LoadAware(FORWARD, per_ms=0.01, gossip_ms=50), ci.LoadAware(ci.ExpectedGain(5.0))]
)
def test_a_load_aware_strategy_is_saved_whole(tmp_path, strategy):
    strategy.save(tmp_path / "s.toml")
    assert Strategy.open(tmp_path / "s.toml") == strategy


def test_expected_gain_weighs_waiting_itself():
    preds, net = answers(), network()
    gain = ci.ExpectedGain(600.0).fit(preds, net)
    found = ci.sweep_load(preds, net, {"gain": gain, "aware": ci.LoadAware(gain)}, rates_rps=[10, 400], requests=6000)
    assert found.at("aware", 400).latency_us.p99 < found.at("gain", 400).latency_us.p99 / 5
    objective = [
        s.latency_us.mean / 1e3 + 600 * (1 - s.accuracy) for s in (found.at("gain", 400), found.at("aware", 400))
    ]
    assert objective[1] < objective[0]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda p, n: ci.sweep_load(p, network(queues=False), {"f": FORWARD}, rates_rps=[1]),
            ci.UnsupportedError,
            "queues = true",
        ),
        (lambda p, n: ci.sweep_load(p, n, {"f": FORWARD}, rates_rps=[]), ci.BadValueError, "at least one rate"),
        (lambda p, n: ci.sweep_load(p, n, {"f": FORWARD}, rates_rps=[0]), ci.BadValueError, "rates_rps"),
        (lambda p, n: ci.sweep_load(p, n, {}, rates_rps=[1]), ci.BadValueError, "at least one strategy"),
        (lambda p, n: ci.LoadAware(FORWARD), ci.BadValueError, "give per_ms="),
        (lambda p, n: ci.LoadAware("x"), ci.BadValueError, "must be a strategy"),
        (lambda p, n: ci.LoadAware(FORWARD, per_ms=-1), ci.BadValueError, "per_ms"),
        (lambda p, n: ci.LoadAware(ci.SelectionOracle(), per_ms=1).plan(n, "device"), ci.UnsupportedError, "oracle"),
        (lambda p, n: Strategy.parse({"kind": "load_aware", "per_ms": 1}), ci.BadValueError, r"\[inner\]"),
    ],
)
def test_what_cannot_be_loaded_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call(answers(50), network())
