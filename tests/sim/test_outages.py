"""Outages rehearsed: hand-computed cases, an independent simulator with the live router's own breaker and budget, and
what must hold whatever fails."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import simpy

import coinfer as ci
from reference_outages import Ladder, Server

MS = 10**6
SAMPLES = 64
CONFIDENCE = np.linspace(0, 1, SAMPLES, dtype=np.float32)
PREDS = ci.Predictions(
    {
        "small": ci.ModelOutput(label=np.zeros(SAMPLES, int), confidence=CONFIDENCE),
        "medium": ci.ModelOutput(label=np.ones(SAMPLES, int), confidence=CONFIDENCE[::-1]),
        "large": ci.ModelOutput(label=np.full(SAMPLES, 2), confidence=CONFIDENCE),
    },
    labels=np.full(SAMPLES, 2),
)
UNSURE = 0
"""A sample on which neither small nor medium stops at the thresholds below."""


def chain(control="path", **more):
    return ci.Network.chain(
        {"device": "small", "cloud": "large"}, delay_ms=[10], service_ms=[1, 5], instances=1, control=control, **more
    )


def replayed(net, at_ms, outages, sample=UNSURE, strategy=None, deadline_ms=None, **options):
    deadline = None if deadline_ms is None else np.full(len(at_ms), deadline_ms * 1e3)
    trace = ci.Trace(np.rint(np.array(at_ms) * MS).astype(int), ["device"] * len(at_ms), [sample] * len(at_ms),
                     deadline_us=deadline)  # fmt: skip
    strategy = strategy or ci.Forward(score="confidence", thresholds=[0.5])
    return ci.replay(trace, PREDS, net, strategy, outages=outages, **options)


def rows(run, *columns):
    return list(zip(*(run.outcomes()[c].to_pylist() for c in columns), strict=True))


@pytest.mark.parametrize("control", ["path", "ingress"])
def test_a_request_that_is_refused_tries_again_and_then_gives_what_it_has(control):
    """At 1 ms it leaves the device, whose link is down; 20 and 40 ms later, give or take a fifth, it tries again."""
    run = replayed(chain(control), [0, 100], [ci.Outage(node="cloud", from_ms=0, to_ms=40)])
    (first, second) = rows(run, "status", "answer", "stages", "latency_us", "price_usd")
    assert first[:3] == ("answered", 2, 2)
    waited = first[3] / 1e3 - (1 + 10 + 5 + 10)
    assert 0.8 * 60 <= waited <= 1.2 * 60
    assert second[3] == 26_000
    s = run.summary
    assert (s.retried, s.broken, s.fell_back) == (2, 0, 0)
    run = replayed(chain(control), [0, 100], [ci.Outage(node="cloud", from_ms=0, to_ms=1000)])
    assert [row[:3] for row in rows(run, "status", "answer", "stages")] == [("degraded", 0, 2)] * 2
    s = run.summary
    assert (s.retried, s.broken, s.fell_back) == (4, 1, 2)  # the fifth failure opens the breaker
    assert s.status["degraded"] == 2
    assert s.settled_by_model["small"] == 1


@pytest.mark.parametrize("control", ["path", "ingress"])
def test_a_server_that_goes_down_loses_whom_it_serves(control):
    """Served from 11 ms; down at 13; the news is back at 23, and what was done counts for nothing."""
    outage = [ci.Outage(deployment="large@cloud", from_ms=13, to_ms=14)]
    run = replayed(chain(control), [0, 1], outage)
    load = run.summary.stations["large@cloud"]
    assert (load.refused, load.served) == (2, 2)
    assert load.utilisation * run_span_ms(run) == pytest.approx(2 + 5 + 5)
    assert run.summary.retried == 2
    assert rows(run, "status", "service_us") == [("answered", 6000)] * 2
    alone = replayed(chain(control), [0], outage).outcomes()
    waited = alone["latency_us"][0].as_py() / 1e3 - (1 + 10 + 2 + 5 + 10)
    if control == "ingress":
        waited -= 2 * 10  # the news to the device, and the second attempt back
    assert 0.8 * 20 <= waited <= 1.2 * 20


def run_span_ms(run):
    out = run.outcomes()
    return float(np.max(out["arrival_ns"].to_numpy() / 1e6 + out["latency_us"].to_numpy() / 1e3))


def test_a_node_that_dies_under_a_request_sends_it_back_where_it_came_from():
    """Killed at 13 ms at the cloud, the device knows at 23 ms and gives its own answer: no way back from the cloud."""
    outage = [ci.Outage(node="cloud", from_ms=13, to_ms=5000)]
    (row,) = rows(replayed(chain(), [0], outage), "status", "answer", "latency_us", "node")
    assert row[:2] == ("degraded", 0)
    assert row[2] / 1e3 == pytest.approx(23 + 60, abs=12)
    (row,) = rows(replayed(chain(), [0], outage, deadline_ms=25), "status", "answer", "latency_us", "node")
    assert row == ("degraded", 0, 23_000, "cloud")  # no time for another attempt


@pytest.mark.parametrize("control", ["path", "ingress"])
def test_a_link_that_is_down_holds_answers_back_and_takes_no_requests(control):
    outage = [ci.Outage(link=("cloud", "device"), from_ms=12, to_ms=50)]
    run = replayed(chain(control), [0, 12], outage)
    first, second = rows(run, "status", "latency_us", "queue_us")
    assert first == ("answered", 60_000, 34_000)  # at the link from 16 to 50
    assert second[0] == "answered"
    assert run.summary.retried == 2
    (row,) = rows(replayed(chain(control), [0], outage, deadline_ms=40), "status", "answer", "latency_us")
    assert row == ("degraded", 0, 40_000)


@pytest.mark.parametrize("control", ["path", "ingress"])
def test_who_asks_a_silent_server_waits_as_long_as_it_can(control):
    outage = [ci.Outage(node="cloud", from_ms=0, to_ms=1000, silent=True)]
    assert rows(replayed(chain(control), [0], outage), "status", "latency_us") == [("degraded", 10_001_000)]
    late = rows(replayed(chain(control), [0], outage, deadline_ms=80), "status", "answer", "latency_us")
    assert late == [("degraded", 0, 80_000)]
    nobody = replayed(chain(control), [0], outage, strategy=ci.Remote("cloud"), deadline_ms=80)
    assert rows(nobody, "status", "answer") == [("expired", None)]


GROUP = ("a", "b", "c")


def group_world(down, control):
    """Three models on nodes of their own, a judge behind them; what is `down` is so throughout."""
    rng = np.random.default_rng(8)
    probs = {model: rng.dirichlet(np.ones(3), SAMPLES).astype(np.float32) for model in (*GROUP, "judge")}
    nodes = [ci.Node("device", 0), *(ci.Node(f"n-{m}", 1) for m in GROUP), ci.Node("n-judge", 2)]
    links = [ci.Link(("device", node.name), delay_ms=3) for node in nodes[1:]]
    deployments = [ci.Deployment(m, f"n-{m}", instances=2, service=ci.service.Constant(1)) for m in probs]
    outages = [ci.Outage(node=f"n-{m}", from_ms=0, to_ms=1e8) for m in down]
    net = ci.Network(nodes, links, [], deployments, control=control, outages=outages)
    trace = ci.Trace(np.arange(SAMPLES) * 50 * MS, ["device"] * SAMPLES, np.arange(SAMPLES))
    return probs, net, trace


@pytest.mark.parametrize("control", ["path", "ingress"])
@pytest.mark.parametrize("down", [("c",), ("a", "b"), GROUP])
@pytest.mark.parametrize("strategy", [
    ci.Ensemble("vote", models=GROUP), ci.Agreement([GROUP, ["judge"]], at_least=2),
    ci.Agreement([GROUP, ["judge"]], at_least=1),
])  # fmt: skip
def test_a_member_that_is_down_is_a_vote_that_is_missing(down, strategy, control):
    """Every request ends as it does where all stand, and that member has no answer to any sample."""
    probs, net, trace = group_world(down, control)
    labels = {m: p.argmax(1) for m, p in probs.items()}
    silent = labels | {m: np.full(SAMPLES, -1) for m in down}
    truth = labels["judge"]
    whole, found = (
        ci.replay(
            trace, ci.Predictions({m: ci.ModelOutput(label=x) for m, x in said.items()}, labels=truth), on, strategy
        )
        for said, on in ((silent, replace(net, outages=())), (labels, net))
    )
    assert found.summary.engine.startswith("events")
    assert rows(found, "answer", "stages", "model") == rows(whole, "answer", "stages", "model")
    confidence = [run.outcomes()["confidence"].to_numpy() for run in (found, whole)]
    assert np.array_equal(*confidence, equal_nan=True)
    assert found.summary.retried > 0
    assert {f"{m}@n-{m}" for m in down}.isdisjoint(found.summary.stations)  # nobody reached them


@pytest.mark.parametrize("control", ["path", "ingress"])
@pytest.mark.parametrize("how", ["mean", "logpool"])
def test_probabilities_of_a_member_that_is_down_are_left_out(how, control):
    probs, net, trace = group_world(["b"], control)
    preds = ci.Predictions({m: ci.ModelOutput(probs=p) for m, p in probs.items()}, labels=np.zeros(SAMPLES, int))
    found = ci.replay(trace, preds, net, ci.Ensemble(how, models=GROUP))
    others = ci.replay(trace, preds, replace(net, outages=()), ci.Ensemble(how, models=("a", "c")))
    assert rows(found, "answer", "confidence") == rows(others, "answer", "confidence")
    assert found.summary.status["degraded"] == SAMPLES
    assert found.summary.fell_back == SAMPLES


def test_what_is_slow_takes_a_factor_longer():
    slow = {"from_ms": 0, "to_ms": 12, "slow": 3}
    for outage, latency_us in (
        (ci.Outage(node="cloud", **slow), 36_000),
        (ci.Outage(deployment="small@device", **slow), 28_000),
        (ci.Outage(link=("device", "cloud"), **slow), 46_000),  # the way there alone
    ):
        run = replayed(chain(), [0, 100], [outage])
        assert rows(run, "status", "latency_us") == [("answered", latency_us), ("answered", 26_000)]
        assert run.summary.engine.startswith("events")
    both = [ci.Outage(node="cloud", **slow), ci.Outage(deployment="large@cloud", from_ms=5, to_ms=20, slow=0.5)]
    assert rows(replayed(chain(), [0], both), "latency_us") == [(28_500,)]


@pytest.mark.parametrize("seed", range(6))
def test_a_ladder_equals_the_reference_with_the_live_routers_breaker_and_budget(seed):
    rng = np.random.default_rng(seed)
    n, span_ms = 1500, 12_000
    arrivals = np.sort(rng.choice(span_ms * MS, n, replace=False))
    sample = rng.integers(0, SAMPLES, n)
    service_ms, up_ms, instances = (3.000017, 11.000003, 31.0), (0, 7.000001, 29.000011), (1, 2, 5)
    names = ("small@device", "medium@edge", "large@cloud")
    queue_max = (None, None, 4) if seed % 2 else (None, None, None)
    outages, windows = [], [[], [], []]
    for place in range(3):
        at = rng.uniform(0, 2000)
        while at < span_ms:
            length = rng.exponential(300 if place else 60)
            kind = rng.choice(["down", "silent", "slow"], p=[0.7, 0.05, 0.25])
            factor = float(rng.integers(2, 5)) if kind == "slow" else None
            outage = ci.Outage(
                deployment=names[place], from_ms=at, to_ms=at + length, slow=factor, silent=bool(kind == "silent")
            )
            outages.append(outage)
            edges = (round(outage.from_ms * 1e6), round(outage.to_ms * 1e6))
            windows[place].append((*edges, factor or 0, outage.silent))
            at += length + rng.exponential(1200)
    env = simpy.Environment(0)
    servers = [
        Server(env, p, instances[p], round(service_ms[p] * 1e6), round(up_ms[p] * 1e6), windows[p], queue_max[p])
        for p in range(3)
    ]
    ladder, expected = Ladder(servers, seed), {}

    def source():
        for row, at in enumerate(arrivals.tolist()):
            yield env.timeout(at - env.now)
            goes_on = (CONFIDENCE[sample[row]] < 0.7, CONFIDENCE[::-1][sample[row]] < 0.6, False)
            env.process(ladder.request(env, row, goes_on, expected))

    env.process(source())
    env.run()
    nodes = [ci.Node("device", 0), ci.Node("edge", 1), ci.Node("cloud", 2)]
    links = [ci.Link(("device", node), delay_ms=ms) for node, ms in zip(("edge", "cloud"), up_ms[1:], strict=True)]
    deployments = [
        ci.Deployment(*name.split("@"), instances=k, service=ci.service.Constant(ms), queue_max=most)
        for name, k, ms, most in zip(names, instances, service_ms, queue_max, strict=True)
    ]
    net = ci.Network(nodes, links, [], deployments, control="ingress", outages=outages)
    trace = ci.Trace(arrivals, ["device"] * n, sample)
    run = ci.replay(trace, PREDS, net, ci.Forward(score="confidence", thresholds=[0.7, 0.6]), seed=seed)
    assert rows(run, "status", "answer", "stages") == [expected[row][:3] for row in range(n)]
    latency_ns = np.rint(run.outcomes()["latency_us"].to_numpy() * 1e3).astype(int)
    assert latency_ns.tolist() == [expected[row][3] for row in range(n)]
    s = run.summary
    assert (s.retried, s.broken) == (ladder.retried, ladder.broken)
    assert s.retried > 50
    assert s.broken > 50
    assert s.fell_back == s.status["degraded"] > 50
