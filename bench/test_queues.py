"""Thirteen stations under load: our engines beside SimPy, a heap of hops in Python, the same in Numba.

Constant service times and one trace for all; every peer gives the departure of every request, compared with another's.
"""

from __future__ import annotations

import heapq

import numba
import numpy as np
import pytest
import simpy

import coinfer as ci
from billion import SAMPLES, predictions, thirteen_stations

K = np.array([2] * 10 + [8, 8] + [32])
SERVICE = np.array([2_000_000] * 10 + [4_000_000] * 3)
DELAY = np.array([0, 10_000_000, 40_000_000])
STRATEGY = ci.Forward(score="confidence", thresholds=[0.5, 0.5])


@pytest.fixture(scope="module")
def world(request):
    small = request.config.getoption("--benchmark-disable")
    net = thirteen_stations()
    trace = ci.Trace.poisson(net, rate_rps=8000, requests=20_000 if small else 1_000_000, samples=SAMPLES, seed=1)
    part = trace.sample % 100
    hops = 1 + (part >= 60) + (part >= 85)
    return net, predictions(), trace, hops.astype(np.int64)


def heap_of_hops(arrival, ingress, hops, free, service, delay):
    """One event per hop, the free times of a station in a heap of their own."""
    left = np.empty(len(arrival), np.int64)
    agenda = [(arrival[0], 0, 0)]
    agenda.pop()
    row = 0
    while row < len(arrival) or agenda:
        if agenda and (row == len(arrival) or agenda[0][0] < arrival[row]):
            at, who, hop = heapq.heappop(agenda)
        else:
            at, who, hop = arrival[row], row, 0
            row += 1
        station = ingress[who] if hop == 0 else 10 + ingress[who] // 5 if hop == 1 else 12
        start = max(at, free[station][0])
        done = start + service[station]
        heapq.heapreplace(free[station], done)
        if hop + 1 < hops[who]:
            heapq.heappush(agenda, (done + delay[hop + 1], who, hop + 1))
        else:
            left[who] = done + (0 if hop == 0 else delay[1] if hop == 1 else delay[1] + delay[2])
    return left


compiled = numba.njit(heap_of_hops)


def python_heap(net, preds, trace, hops):
    free = [[0] * k for k in K.tolist()]
    columns = (trace.arrival_ns.tolist(), trace.ingress.tolist(), hops.tolist())
    return heap_of_hops(*columns, free, SERVICE.tolist(), DELAY.tolist())


def numba_heap(net, preds, trace, hops):
    free = numba.typed.List([numba.typed.List(np.zeros(k, np.int64)) for k in K])
    return compiled(trace.arrival_ns, trace.ingress.astype(np.int64), hops, free, SERVICE, DELAY)


def simpy_processes(net, preds, trace, hops):
    env = simpy.Environment()
    stations = [simpy.Resource(env, int(k)) for k in K]
    left = np.empty(len(trace), np.int64)

    def request(row, ingress, count):
        for hop in range(count):
            if hop:
                yield env.timeout(int(DELAY[hop]))
            station = ingress if hop == 0 else 10 + ingress // 5 if hop == 1 else 12
            with stations[station].request() as turn:
                yield turn
                yield env.timeout(int(SERVICE[station]))
        left[row] = env.now + int(DELAY[:count].sum())

    def source():
        for row in range(len(trace)):
            yield env.timeout(int(trace.arrival_ns[row]) - env.now)
            env.process(request(row, int(trace.ingress[row]), int(hops[row])))

    env.process(source())
    env.run()
    return left


def ours(engine):
    def run(net, preds, trace, hops):
        return ci.replay(trace, preds, net, STRATEGY, engine=engine)

    return run


ENGINES = {"feed-forward": ours("feed-forward"), "hops": ours("hops"), "events": ours("events")}
PEERS = {"numba, heap of hops": numba_heap, "python, heap of hops": python_heap, "simpy": simpy_processes}


@pytest.mark.benchmark(group="queues: 13 stations")
@pytest.mark.parametrize("name", [*ENGINES, *PEERS])
def test_thirteen_stations(benchmark, world, name):
    trace = world[2]
    expected = python_heap(*world) if name != "python, heap of hops" else numba_heap(*world)
    call = (ENGINES | PEERS)[name]
    found = benchmark.pedantic(call, args=world, rounds=1 if name in ("simpy", "python, heap of hops") else 3)
    if name in ENGINES:
        found = trace.arrival_ns + np.rint(found.outcomes()["latency_us"].to_numpy() * 1e3).astype(np.int64)
    assert np.array_equal(found, expected)
