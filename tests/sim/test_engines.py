"""Several engines, one truth: where more than one can replay, outcomes are equal row by row."""

from __future__ import annotations

import dataclasses
import itertools
import re
import warnings
from dataclasses import dataclass

import numpy as np
import pytest

import coinfer as ci
from coinfer.strategy.base import PlanSpec, StageSpec, Strategy, walk
from coinfer.streaming import stream

SAMPLES = 300
MODELS = ("small", "medium", "large")


@dataclass(frozen=True)
class Aware(Strategy):
    """Forward, with a threshold that falls as the wait ahead grows."""

    kind = "test_aware"
    threshold: float
    per_us: float
    gossip_ms: float = 0.0

    def plan(self, network, ingress):
        way = walk(network, ingress, None)
        stages = [StageSpec((d,), self.threshold, per_us=self.per_us) for d in way[:-1]]
        return PlanSpec((*stages, StageSpec((way[-1],))), gossip_ms=self.gossip_ms)

    @property
    def name(self):
        return "aware"

    def to_dict(self):
        return {}

    @classmethod
    def from_dict(cls, table):
        raise NotImplementedError


@pytest.fixture(scope="module")
def preds():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 5, SAMPLES)
    outputs = {}
    for model, accuracy in zip(MODELS, (0.6, 0.75, 0.9), strict=True):
        right = rng.random(SAMPLES) < accuracy
        label = np.where(right, truth, (truth + rng.integers(1, 5, SAMPLES)) % 5)
        label[rng.random(SAMPLES) < 0.03] = -1
        outputs[model] = ci.ModelOutput(label=label, confidence=rng.integers(0, 64, SAMPLES).astype(np.float32) / 64)
    return ci.Predictions(outputs, labels=truth)


def network(control="path", instances=2, bandwidth_mbps=None, jitter_ms=0.0, queues=None):
    """Give four devices, two edges, one cloud."""
    service = {
        "small": ci.service.Constant(2.0),
        "medium": ci.service.Exponential(4.0),
        "large": ci.service.LogNormal(6.0, 0.7),
    }
    nodes = [ci.Node(f"d{i}", 0) for i in range(4)] + [ci.Node(f"e{i}", 1) for i in range(2)] + [ci.Node("c", 2)]
    link = {"bandwidth_mbps": bandwidth_mbps, "jitter_ms": jitter_ms}
    links = [ci.Link((f"d{i}", f"e{i // 2}"), delay_ms=3 + i, **link) for i in range(4)]
    links += [ci.Link((f"e{i}", "c"), delay_ms=20 + 5 * i, **link) for i in range(2)]
    at = {"small": [f"d{i}" for i in range(4)], "medium": ["e0", "e1"], "large": ["c"]}
    deployments = [
        ci.Deployment(model, node, instances=instances, service=service[model], price_usd=1e-6)
        for model in MODELS
        for node in at[model]
    ]
    models = [ci.Model(model, request_kb=20, answer_kb=0.5) for model in MODELS]
    return ci.Network(nodes, links, models, deployments, control=control, queues=queues)


def trace_of(net, rate_rps, requests=4000, deadline_ms=None, seed=5):
    trace = ci.Trace.poisson(net, rate_rps=rate_rps, requests=requests, samples=SAMPLES, seed=seed)
    if deadline_ms is None:
        return trace
    ingress = [trace.nodes[i] for i in trace.ingress]
    return ci.Trace(trace.arrival_ns, ingress, trace.sample, deadline_us=np.full(requests, deadline_ms * 1e3))


STRATEGIES = {
    "forward": ci.Forward(score="confidence", thresholds=[0.5, 0.6]),
    "vote": ci.Ensemble("vote"),
    "oracle": ci.SelectionOracle(),
}


def same(a, b):
    """Whether two tables of outcomes are equal; a confidence that is not a number equals another."""
    confidence = [t["confidence"].to_numpy() for t in (a, b)]
    rest = [t.drop_columns(["confidence"]) for t in (a, b)]
    return rest[0].equals(rest[1]) and np.array_equal(*confidence, equal_nan=True)


@pytest.mark.parametrize("control", ["path", "ingress"])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("deadline_ms", [None, 40.0])
def test_a_network_without_queues_takes_any_engine(preds, control, strategy, deadline_ms):
    net = network(control, queues=False, bandwidth_mbps=40, jitter_ms=2)
    trace = trace_of(net, 2000, 2000, deadline_ms)
    runs = [ci.replay(trace, preds, net, STRATEGIES[strategy], engine=e) for e in ("direct", "hops", "events")]
    assert [r.summary.engine.split(":")[0] for r in runs] == ["direct", "hops", "events"]
    tables = [r.outcomes() for r in runs]
    assert same(tables[0], tables[1])
    assert same(tables[0], tables[2])
    plain = [r.summary.to_dict() | {"engine": ""} for r in runs]
    for summary in plain:
        del summary["stations"], summary["links"]
    assert plain[0] == plain[1] == plain[2]


@pytest.mark.parametrize("control", ["path", "ingress"])
def test_a_request_that_meets_nobody_takes_as_long_as_without_queues(preds, control):
    queued = network(control, bandwidth_mbps=40, jitter_ms=2)
    alone = network(control, bandwidth_mbps=40, jitter_ms=2, queues=False)
    n = 500
    for deadline in (None, np.full(n, 40e3)):
        trace = ci.Trace(np.arange(n) * 10**10, ["d1"] * n, np.arange(n) % SAMPLES, deadline_us=deadline)
        for name in ("forward", "oracle"):  # the messages of a group meet each other on the first link
            strategy = STRATEGIES[name]
            direct = ci.replay(trace, preds, alone, strategy)
            for engine in ("hops", "events"):
                run = ci.replay(trace, preds, queued, strategy, engine=engine)
                assert same(run.outcomes(), direct.outcomes())
                assert run.summary.queue_us == 0


@pytest.mark.filterwarnings("ignore::coinfer.OverloadWarning")
@pytest.mark.parametrize(
    ("control", "bandwidth_mbps", "jitter_ms", "deadline_ms"),
    list(itertools.product(["path", "ingress"], [None, 60], [0, 2], [None, 60])),
)
def test_hops_equal_events(preds, control, bandwidth_mbps, jitter_ms, deadline_ms):
    net = network(control, bandwidth_mbps=bandwidth_mbps, jitter_ms=jitter_ms)
    trace = trace_of(net, 500, deadline_ms=deadline_ms)
    for strategy in (*STRATEGIES.values(), Aware(0.6, 1e-5), Aware(0.6, 1e-5, gossip_ms=50)):
        hops, events = (ci.replay(trace, preds, net, strategy, engine=e) for e in ("hops", "events"))
        assert same(hops.outcomes(), events.outcomes())
        assert hops.summary.queue_us > 0
        a, b = hops.summary.to_dict(), events.summary.to_dict()
        for key in ("served", "dropped", "utilisation", "offered", "wait_us_mean", "wait_us_max"):
            assert {n: s[key] for n, s in a["stations"].items()} == {n: s[key] for n, s in b["stations"].items()}
        assert a["links"] == b["links"]
        assert sum(a["status"].values()) == len(trace)


@pytest.mark.filterwarnings("ignore::coinfer.OverloadWarning")
@pytest.mark.parametrize("control", ["path", "ingress"])
@pytest.mark.parametrize("instances", [1, 2, 3, 4, 8])
def test_feed_forward_equals_the_others(preds, control, instances):
    net = network(control, instances=instances, jitter_ms=instances % 2)
    trace = trace_of(net, 120 * instances, 20_000)
    for strategy in (STRATEGIES["forward"], STRATEGIES["oracle"], ci.Remote("c")):
        runs = [
            ci.replay(trace, preds, net, strategy, engine=e, warmup_ms=500) for e in ("feed-forward", "hops", "events")
        ]
        assert runs[0].summary.queue_us > 0 or instances == 8  # hardly anybody waits for eight
        assert same(runs[0].outcomes(), runs[1].outcomes())
        summaries = [run.summary.to_dict() | {"engine": ""} for run in runs]
        assert summaries[0] == summaries[1]
        for summary in summaries:
            for load in summary["stations"].values():
                del load["waiting_max"]
        assert summaries[0] == summaries[2]
    assert ci.replay(trace, preds, net, STRATEGIES["forward"]).summary.engine == "feed-forward: station by station"


@pytest.mark.filterwarnings("ignore::coinfer.OverloadWarning")
def test_ties_are_settled_alike(preds):
    """Everything at whole milliseconds, many at the same time."""
    net = ci.Network.chain(
        {"d": "small", "e": "medium", "c": "large"}, delay_ms=[1, 1], service_ms=[1, 1, 2], instances=[2, 2, 1]
    )
    rng = np.random.default_rng(0)
    at = np.sort(rng.integers(0, 2000, 1500)) * 10**6
    trace = ci.Trace(
        at, ["d"] * len(at), rng.integers(0, SAMPLES, len(at)), deadline_us=rng.choice([3e3, 9e3], len(at))
    )
    for strategy in (*STRATEGIES.values(), Aware(0.7, 1e-4), Aware(0.7, 1e-4, gossip_ms=4)):
        hops, events = (ci.replay(trace, preds, net, strategy, engine=e) for e in ("hops", "events"))
        assert same(hops.outcomes(), events.outcomes())
    bare = ci.Trace(at, ["d"] * len(at), trace.sample)
    forward, events = (ci.replay(bare, preds, net, STRATEGIES["forward"], engine=e) for e in ("feed-forward", "events"))
    assert same(forward.outcomes(), events.outcomes())


def test_a_wait_ahead_keeps_requests_from_a_full_cloud(preds):
    net = ci.Network.chain({"d": "small", "c": "large"}, delay_ms=[5], service_ms=[0.1, 10], instances=[8, 1])
    trace = ci.Trace.poisson(net, rate_rps=150, requests=5000, samples=SAMPLES, seed=2)
    with pytest.warns(ci.OverloadWarning, match=r"deployment 'large@c' is offered 1\.\d+ times"):
        plain = ci.replay(trace, preds, net, ci.Forward(score="confidence", thresholds=[0.95]))
    aware = ci.replay(trace, preds, net, Aware(0.95, 2e-5))
    stale = ci.replay(trace, preds, net, Aware(0.95, 2e-5, gossip_ms=500))
    assert aware.summary.engine.startswith("hops")
    assert aware.summary.latency_us.p99 < 0.1 * plain.summary.latency_us.p99
    assert aware.summary.latency_us.p99 < stale.summary.latency_us.p99
    assert aware.summary.utilisation_by_node["c"] < 1


@pytest.mark.parametrize("engine", ["hops", "events"])
def test_what_cannot_keep_up_is_named_with_the_work_it_is_offered(preds, engine):
    """The edge is offered 250 x 5 ms of work a second; the link to it 250 x 20 kB x 8 over 25 Mbit/s."""
    nodes = [ci.Node("d", 0), ci.Node("e", 1)]
    link = ci.Link(("d", "e"), delay_ms=5, bandwidth_mbps=25)
    models = [ci.Model("medium", request_kb=20, answer_kb=0.5)]

    def warned(mbps, service_ms):
        deployment = ci.Deployment("medium", "e", instances=1, service=ci.service.Constant(service_ms))
        net = ci.Network(nodes, [dataclasses.replace(link, bandwidth_mbps=mbps)], models, [deployment])
        trace = ci.Trace.poisson(net, rate_rps=250, requests=20_000, samples=SAMPLES, seed=2, ingress="d")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ci.replay(trace, preds, net, ci.Remote("e"), engine=engine)
            stream([trace], preds, net, ci.Remote("e"), engine=engine)
        assert {w.category for w in caught} <= {ci.OverloadWarning}
        assert len(caught) in (0, 2)
        return {str(w.message).split(" times")[0] for w in caught}

    (message,) = warned(None, 5)
    assert re.fullmatch(r"Remote\(e\): deployment 'medium@e' is offered 1\.2[3-7]", message)
    (message,) = warned(25, 1)
    assert re.fullmatch(r"Remote\(e\): link 'd -> e' is offered 1\.[56]\d?", message)
    assert not warned(100, 1)


def test_choice_of_engine_is_explained(preds):
    net = network()
    trace = trace_of(net, 100, 100)
    with pytest.raises(ci.UnsupportedError, match="'direct' cannot replay this: requests wait for each other"):
        ci.replay(trace, preds, net, ci.Local(), engine="direct")
    with pytest.raises(ci.BadValueError, match="did you mean 'events'"):
        ci.replay(trace, preds, net, ci.Local(), engine="event")
    alone = network(queues=False)
    with pytest.raises(ci.UnsupportedError, match="its decisions depend on queues"):
        ci.replay(trace, preds, alone, Aware(0.5, 1e-6), engine="direct")
    assert ci.replay(trace, preds, alone, Aware(0.5, 1e-6)).summary.engine.startswith("hops")


@pytest.mark.filterwarnings("ignore::coinfer.OverloadWarning")
def test_what_each_priority_got_adds_up_to_the_summary(preds):
    net = network(instances=1)
    plain = trace_of(net, 350)
    ingress = [plain.nodes[i] for i in plain.ingress]
    priority = np.arange(len(plain)) % 3  # 0 after 1 and 2
    trace = ci.Trace(plain.arrival_ns, ingress, plain.sample, priority=priority, deadline_us=300e3)
    run = ci.replay(trace, preds, net, ci.Remote("c"), warmup_ms=1000)
    levels = run.by_priority()
    assert list(levels) == [1, 2, 0]
    assert levels[1].queue_us < levels[2].queue_us < levels[0].queue_us
    assert levels[1].goodput > levels[2].goodput > levels[0].goodput
    s = run.summary
    assert sum(level.requests for level in levels.values()) == s.requests
    assert sum(level.requests * level.latency_us.mean for level in levels.values()) == pytest.approx(
        s.requests * s.latency_us.mean
    )
    assert {k: sum(level.status[k] for level in levels.values()) for k in s.status} == s.status
    (alone,) = ci.replay(plain, preds, net, ci.Remote("c")).by_priority().items()
    whole = ci.replay(plain, preds, net, ci.Remote("c")).summary
    assert alone[0] == 0
    assert alone[1].latency_us == whole.latency_us
    assert (alone[1].accuracy, alone[1].goodput) == (float(whole.accuracy), whole.goodput)


@pytest.mark.filterwarnings("ignore::coinfer.OverloadWarning")
def test_warm_up_is_served_but_not_counted(preds):
    net = network(instances=1)
    trace = trace_of(net, 300)
    strategy = ci.Forward(score="confidence", thresholds=[0.5, 0.6])
    whole = ci.replay(trace, preds, net, strategy)
    late = ci.replay(trace, preds, net, strategy, warmup_ms=5000)
    counted = trace.arrival_ns >= 5000 * 10**6
    assert late.summary.requests == counted.sum() == sum(late.summary.status.values())
    latency = whole.outcomes()["latency_us"].to_numpy()
    assert late.summary.latency_us.mean == pytest.approx(latency[counted].mean(), rel=1e-12)
    assert same(late.outcomes(), whole.outcomes())
    with pytest.raises(ci.BadValueError, match="no request arrives after the warm-up of 1e\\+09 ms"):
        ci.replay(trace, preds, net, strategy, warmup_ms=1e9)


@pytest.mark.parametrize("control", ["path", "ingress"])
def test_who_is_aware_of_deadlines_starts_nothing_that_cannot_finish(preds, control):
    """By hand: 1 ms here, then 10 there, a median of 5 ln 2 and 10 back; with 0.5 ms less it stops after 1 ms."""
    law = ci.service.Exponential(5)
    net = ci.Network.chain({"d": "small", "c": "large"}, delay_ms=[10], service_ms=[1, law], control=control)
    sample = int(np.argmax((preds["small"].confidence < 0.5) & (preds["small"].label >= 0)))
    least_ms = 1 + 20 + 5 * np.log(2)
    trace = ci.Trace(
        [0, 10**9, 2 * 10**9], ["d"] * 3, [sample] * 3, deadline_us=[least_ms * 1e3 - 500, least_ms * 1e3 + 500, 500]
    )
    forward = ci.Forward(score="confidence", thresholds=[0.5])
    run = ci.replay(trace, preds, net, ci.DeadlineAware(forward))
    out = run.outcomes()
    assert out["stages"].to_pylist() == [1, 2, 0]
    assert out["status"].to_pylist()[0::2] == ["degraded", "expired"]
    assert out["latency_us"].to_pylist()[0::2] == [1000, 0]
    assert out["price_usd"].to_pylist() == [0, 0, 0]
    assert "not started: the deadline came first" in str(run.explain(0))
    assert run.summary.engine.startswith("hops")
    assert ci.replay(trace, preds, net, forward).outcomes()["stages"].to_pylist() == [2, 2, 1]
    with pytest.raises(ci.UnsupportedError, match="its decisions depend on deadlines"):
        ci.replay(trace, preds, net, ci.DeadlineAware(forward), engine="direct")
    endless = ci.Trace(trace.arrival_ns, ["d"] * 3, trace.sample)
    assert same(*(ci.replay(endless, preds, net, s).outcomes() for s in (forward, ci.DeadlineAware(forward))))


@pytest.mark.filterwarnings("ignore::coinfer.OverloadWarning")
@pytest.mark.parametrize("control", ["path", "ingress"])
def test_stopping_in_time_is_one_rule_in_all_engines_and_saves_work(preds, control, tmp_path):
    net = network(control, bandwidth_mbps=60, jitter_ms=2)
    trace = trace_of(net, 500, deadline_ms=90)
    for inner in (*STRATEGIES.values(), ci.LoadAware(STRATEGIES["forward"], per_ms=0.01)):
        strategy = ci.DeadlineAware(inner)
        hops, events = (ci.replay(trace, preds, net, strategy, engine=e) for e in ("hops", "events"))
        assert same(hops.outcomes(), events.outcomes())
        plain = ci.replay(trace, preds, net, inner).summary
        assert hops.summary.stages <= plain.stages
        assert hops.summary.latency_us.mean <= plain.latency_us.mean
    assert hops.summary.stages < plain.stages
    strategy.save(tmp_path / "s.toml")
    assert ci.Strategy.open(tmp_path / "s.toml") == strategy
