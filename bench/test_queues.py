"""Thirteen stations under load: our engines beside SimPy, Ciw, and loops in Python and Numba; and who drops the late.

Constant service times and one trace for all (the slow see its beginning); every peer gives the departure of every
request, compared with another's. ``python bench/table_queues.py`` prints the ratios.
"""

from __future__ import annotations

import numpy as np
import pytest

import coinfer as ci
import queue_peers as peers
from billion import SAMPLES, predictions, thirteen_stations

SLOW_REQUESTS = 20_000
GROUPS, SERVICE_NS, DEADLINE_NS = 8, 4_000_000, 20_000_000
ONE = ci.Predictions({"m": ci.ModelOutput(label=[0, 1])}, labels=[0, 1])


@pytest.fixture(scope="module")
def world(request):
    small = request.config.getoption("--benchmark-disable")
    net = thirteen_stations()
    trace = ci.Trace.poisson(net, rate_rps=8000, requests=20_000 if small else 1_000_000, samples=SAMPLES, seed=1)
    return net, predictions(), trace, hops_of(trace)


def hops_of(trace):
    """How many stations a request visits, as `predictions` make it."""
    part = trace.sample % 100
    return (1 + (part >= 60) + (part >= 85)).astype(np.int64)


def ours(engine, strategy=peers.STRATEGY):
    def run(net, preds, trace, hops):
        return ci.replay(trace, preds, net, strategy, engine=engine)

    return run


def departures(run, trace):
    return trace.arrival_ns + np.rint(run.outcomes()["latency_us"].to_numpy() * 1e3).astype(np.int64)


def groups(requests):
    """One deployment of eight instances, its requests in a hurry."""
    law = ci.service.Constant(SERVICE_NS / 1e6)
    net = ci.Network([ci.Node("here", 0)], [], [], [ci.Deployment("m", "here", instances=GROUPS, service=law)])
    trace = ci.Trace.poisson(net, rate_rps=1.1e9 * GROUPS / SERVICE_NS, requests=requests, samples=2, seed=1)
    late = np.full(requests, DEADLINE_NS / 1e3)
    return net, ci.Trace(trace.arrival_ns, trace.ingress, trace.sample, nodes=trace.nodes, deadline_us=late)


ENGINES = {name: ours(name) for name in ("feed-forward", "hops", "events")}


@pytest.mark.benchmark(group="queues: 13 stations")
@pytest.mark.parametrize("name", [*ENGINES, *peers.PEERS])
def test_thirteen_stations(benchmark, world, name):
    net, preds, trace, hops = world
    if name in peers.SLOW:
        trace, hops = trace.slice(0, SLOW_REQUESTS), hops[:SLOW_REQUESTS]
    world = net, preds, trace, hops
    expected = peers.numba_heap(*world) if name != "numba, heap of hops" else peers.numba_events(*world)
    found = benchmark.pedantic((ENGINES | peers.PEERS)[name], args=world, rounds=1 if name in peers.SLOW else 3)
    if name in ENGINES:
        found = departures(found, trace)
    assert np.array_equal(found, expected)
    benchmark.extra_info["requests"] = len(trace)


@pytest.mark.filterwarnings("ignore::coinfer.OverloadWarning")
@pytest.mark.benchmark(group="queues: deadlines, one deployment")
@pytest.mark.parametrize("name", ["hops", "events", "numba, earliest free group"])
def test_who_is_too_late_is_dropped(benchmark, world, name):
    """Eight groups are offered 1.1 times what they can do."""
    net, trace = groups(len(world[2]))
    expected = peers.earliest_free(trace.arrival_ns, DEADLINE_NS, GROUPS, SERVICE_NS)
    if name.startswith("numba"):
        benchmark.pedantic(peers.earliest_free, (trace.arrival_ns, DEADLINE_NS, GROUPS, SERVICE_NS), rounds=3)
        return
    run = benchmark.pedantic(ci.replay, (trace, ONE, net, ci.Local()), {"engine": name}, rounds=3)
    in_time = (expected >= 0) & (expected <= trace.arrival_ns + DEADLINE_NS)
    out = run.outcomes()
    assert np.array_equal(out["status"].to_numpy(zero_copy_only=False) == "answered", in_time)
    assert np.array_equal(departures(run, trace)[in_time], expected[in_time])
    load = run.summary.stations["m@here"]
    assert (load.served, load.dropped) == ((expected >= 0).sum(), (expected < 0).sum())
