"""Print the tables of docs/PERFORMANCE.md about queues.

Departures of all contestants are compared in `test_queues`; here they are timed. They take turns on one trace (the slow
on its beginning), one thread, and the least CPU time of all turns counts. Ours is `coinfer.replay`, with its
summary. COINFER_BENCH_REQUESTS sets the length of the trace (default 2 million), COINFER_BENCH_TURNS how many turns
there are (default 3).
"""

from __future__ import annotations

import os
import sys
import warnings

import numpy as np

import coinfer as ci
import queue_peers as peers
import test_queues as queues
from billion import SAMPLES, predictions, thirteen_stations
from table_score import cpu_name, least


def row(*cells):
    sys.stdout.write(f"| {' | '.join(map(str, cells))} |\n")


def table(contestants, lengths, turns):
    """Print million requests per second of each, and what they are to each of ours."""
    took = least(contestants, turns)
    rate = {name: lengths[name] / seconds / 1e6 for name, seconds in took.items()}
    ours = [name for name in contestants if name in queues.ENGINES]
    row("", "requests", "M requests/s", *(f"{name} is so many times as fast" for name in ours))
    row(*["---"] * (3 + len(ours)))
    for name, speed in rate.items():
        row(name, f"{lengths[name]:,}", f"{speed:.3g}", *(f"{rate[engine] / speed:.3g}" for engine in ours))
    sys.stdout.write("\n")


def stations(requests, turns, law):
    """Thirteen stations; with random service times ours alone, as no peer draws as we do."""
    net, preds = thirteen_stations(law), predictions()
    trace = ci.Trace.poisson(net, rate_rps=8000, requests=requests, samples=SAMPLES, seed=1)
    contestants, lengths = {}, {}
    for name, run in (queues.ENGINES | (peers.PEERS if law is ci.service.Constant else {})).items():
        lengths[name] = queues.SLOW_REQUESTS if name in peers.SLOW else requests
        part = trace.slice(0, lengths[name])
        world = net, preds, part, queues.hops_of(part)
        if name.startswith("numba"):
            run(*world)  # compiles
        contestants[name] = (run, *world)
    table(contestants, lengths, turns)


def aware(requests, turns):
    """The same stations where decisions look at queues."""
    net, preds = thirteen_stations(), predictions()
    trace = ci.Trace.poisson(net, rate_rps=8000, requests=requests, samples=SAMPLES, seed=1)
    world = net, preds, trace, None
    strategy = ci.LoadAware(peers.STRATEGY, per_ms=0.01)
    contestants = {name: (queues.ours(name, strategy), *world) for name in ("hops", "events")}
    table(contestants, dict.fromkeys(contestants, requests), turns)


def crowded(requests, turns):
    """The same stations with three priorities, deadlines of 200 ms, and batches of up to eight above the edge."""
    net, preds = thirteen_stations(), predictions()
    trace = ci.Trace.poisson(net, rate_rps=8000, requests=requests, samples=SAMPLES, seed=1)
    levels = {"priority": (np.arange(requests) % 3).astype(np.int32)}
    late = {"deadline_us": np.full(requests, 200_000.0)}
    rows = {"priorities": (net, levels), "deadlines": (net, late), "batches": (batched(net), {})}
    rows["all three"] = (batched(net), levels | late)
    contestants = {}
    for name, (network, columns) in rows.items():
        part = ci.Trace(trace.arrival_ns, trace.ingress, trace.sample, nodes=trace.nodes, **columns)
        contestants[f"events, {name}"] = (queues.ours("events"), network, preds, part, None)
    table(contestants, dict.fromkeys(contestants, requests), turns)


def batched(net):
    """Regions and cloud wait up to a millisecond for batches of eight."""
    many = {"max_batch": 8, "batch_delay_us": 1000.0}
    deployments = [
        ci.Deployment(d.model, d.node, instances=d.instances, service=d.service, **({} if d.model == "small" else many))
        for d in net.deployments
    ]
    return ci.Network(net.nodes, net.links, [], deployments)


def deadlines(requests, turns):
    """One deployment of eight instances, who is too late is dropped."""
    net, trace = queues.groups(requests)
    rule = (peers.earliest_free, trace.arrival_ns, queues.DEADLINE_NS, queues.GROUPS, queues.SERVICE_NS)
    rule[0](*rule[1:])
    contestants = {
        name: (lambda engine: ci.replay(trace, queues.ONE, net, ci.Local(), engine=engine), name)
        for name in ("hops", "events")
    }
    contestants["numba, earliest free group"] = rule
    table(contestants, dict.fromkeys(contestants, requests), turns)


if __name__ == "__main__":
    requests = int(float(os.environ.get("COINFER_BENCH_REQUESTS", "2e6")))
    turns = int(os.environ.get("COINFER_BENCH_TURNS", "3"))
    sys.stdout.write(f"{cpu_name()}, one thread\n\n")
    warnings.simplefilter("ignore", ci.OverloadWarning)
    stations(requests, turns, ci.service.Constant)
    stations(requests, turns, ci.service.Exponential)
    aware(requests, turns)
    crowded(requests, turns)
    deadlines(requests, turns)
