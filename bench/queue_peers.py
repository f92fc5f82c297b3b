"""The contestants of `test_queues`: thirteen stations, as users of other simulators and of Numba would write them.

Each takes (net, preds, trace, hops), where hops says how many stations a request visits, and gives the departure of
every request in nanoseconds. Constant service times, so that what is compared is queueing.
"""

from __future__ import annotations

import heapq

import ciw
import numba
import numpy as np
import simpy

import coinfer as ci

K = np.array([2] * 10 + [8, 8] + [32])
SERVICE = np.array([2_000_000] * 10 + [4_000_000] * 3)
DELAY = np.array([0, 10_000_000, 40_000_000])
STRATEGY = ci.Forward(score="confidence", thresholds=[0.5, 0.5])


def heap_of_hops(arrival, ingress, hops, free, service, delay):
    """One event per hop, the free times of a station in a heap of their own."""
    left = [0] * len(arrival)
    agenda = []
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


def python_heap(net, preds, trace, hops):
    free = [[0] * k for k in K.tolist()]
    columns = (trace.arrival_ns.tolist(), trace.ingress.tolist(), hops.tolist())
    return np.array(heap_of_hops(*columns, free, SERVICE.tolist(), DELAY.tolist()))


@numba.njit
def rings_of_hops(arrival, ingress, hops, k, service, delay):
    """The same as Numba likes it, the free times of a station a ring.

    Services that all take equally long end in the order in which they began.
    """
    left = np.empty(len(arrival), np.int64)
    free = np.zeros((len(k), k.max()), np.int64)
    head = np.zeros(len(k), np.int64)
    agenda = [(arrival[0], 0, 0)]
    agenda.pop()
    row = 0
    while row < len(arrival) or len(agenda) > 0:
        if len(agenda) > 0 and (row == len(arrival) or agenda[0][0] < arrival[row]):
            at, who, hop = heapq.heappop(agenda)
        else:
            at, who, hop = arrival[row], row, 0
            row += 1
        station = ingress[who] if hop == 0 else 10 + ingress[who] // 5 if hop == 1 else 12
        done = max(at, free[station, head[station]]) + service[station]
        free[station, head[station]] = done
        head[station] = 0 if head[station] + 1 == k[station] else head[station] + 1
        if hop + 1 < hops[who]:
            heapq.heappush(agenda, (done + delay[hop + 1], who, hop + 1))
        else:
            left[who] = done + (0 if hop == 0 else delay[1] if hop == 1 else delay[1] + delay[2])
    return left


def numba_heap(net, preds, trace, hops):
    return rings_of_hops(trace.arrival_ns, trace.ingress.astype(np.int64), hops, K, SERVICE, DELAY)


@numba.njit
def list_of_events(arrival, ingress, hops, k, service, delay):
    """An event loop as a simulator has it: arrivals and completions in one heap, a line of requests per station."""
    left = np.empty(len(arrival), np.int64)
    waits = np.empty(len(arrival), np.int64)  # [request]: who is behind it in its line
    head, tail = np.full(len(k), -1), np.full(len(k), -1)
    busy = np.zeros(len(k), np.int64)
    agenda = [(arrival[0], 1, 0, 0)]
    agenda.pop()
    row = 0
    while row < len(arrival) or len(agenda) > 0:
        if len(agenda) > 0 and (row == len(arrival) or agenda[0][0] <= arrival[row]):
            at, kind, who, hop = heapq.heappop(agenda)
        else:
            at, kind, who, hop = arrival[row], 1, row, 0
            row += 1
        station = ingress[who] if hop == 0 else 10 + ingress[who] // 5 if hop == 1 else 12
        if kind == 1:
            if busy[station] < k[station]:
                busy[station] += 1
                heapq.heappush(agenda, (at + service[station], 0, who, hop))
            else:
                waits[who] = -1
                if head[station] < 0:
                    head[station] = who
                else:
                    waits[tail[station]] = who
                tail[station] = who
            continue
        following = head[station]
        if following < 0:
            busy[station] -= 1
        else:
            head[station] = waits[following]
            heapq.heappush(agenda, (at + service[station], 0, following, hop))
        if hop + 1 < hops[who]:
            heapq.heappush(agenda, (at + delay[hop + 1], 1, who, hop + 1))
        else:
            left[who] = at + (0 if hop == 0 else delay[1] if hop == 1 else delay[1] + delay[2])
    return left


def numba_events(net, preds, trace, hops):
    return list_of_events(trace.arrival_ns, trace.ingress.astype(np.int64), hops, K, SERVICE, DELAY)


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


def ciw_nodes(net, preds, trace, hops):
    """Ways between stations are nodes with any number of servers; nanoseconds are floats, and stay whole."""
    rows = [np.flatnonzero(trace.ingress == i) for i in range(10)]
    gaps = [np.diff(trace.arrival_ns[there], prepend=0).astype(float).tolist() for there in rows]
    order = [iter(there.tolist()) for there in rows]

    def route(individual, _):
        ingress = individual.starting_node - 1
        individual.row = next(order[ingress])
        return [14, 11 + ingress // 5, 15, 13][: 2 * (int(hops[individual.row]) - 1)]

    network = ciw.create_network(
        arrival_distributions=[*(ciw.dists.Sequential([*gap, float("inf")]) for gap in gaps), *[None] * 5],
        service_distributions=[ciw.dists.Deterministic(float(t)) for t in (*SERVICE, *DELAY[1:])],
        number_of_servers=[*K.tolist(), float("inf"), float("inf")],
        routing=ciw.routing.ProcessBased(route),
    )
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_time(float(trace.arrival_ns[-1]) + 60e9)
    left = np.empty(len(trace), np.int64)
    for individual in simulation.nodes[-1].all_individuals:
        left[individual.row] = int(individual.data_records[-1].exit_date)
    return left + np.cumsum(DELAY)[hops - 1]


@numba.njit
def earliest_free(arrival, deadline, k, service):
    """The rule of AlpaServe's simulator: the group that is free first takes a request, or drops it if that is too late.

    Gives the end of every request, or -1.
    """
    free = np.zeros(k, np.int64)
    left = np.empty(len(arrival), np.int64)
    for row in range(len(arrival)):
        group = 0
        for i in range(1, k):
            if free[i] < free[group]:
                group = i
        start = max(arrival[row], free[group])
        if start > arrival[row] and start >= arrival[row] + deadline:
            left[row] = -1
        else:
            left[row] = free[group] = start + service
    return left


PEERS = {
    "numba, heap of hops": numba_heap,
    "numba, list of events": numba_events,
    "python, heap of hops": python_heap,
    "simpy": simpy_processes,
    "ciw": ciw_nodes,
}
SLOW = ("python, heap of hops", "simpy", "ciw")
