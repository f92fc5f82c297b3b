"""Print the tables of docs/tuning.md about tuning with queues.

First: do intervals of replayed quantities cover what they estimate? Samples, arrivals and service times are drawn anew
each time; the truth is one replay of 8 million requests about 400,000 samples. Second: what blind tuning gives under
load, and what tuning on a trace gives, by the rate of requests.
"""

from __future__ import annotations

import sys
import time
import warnings

import numpy as np

import coinfer as ci
from coinfer.compiling import Compiler
from coinfer.tuning.waiting import Waiting

DRAWS = 100


def network(instances=1):
    return ci.Network(
        [ci.Node("device", 0), ci.Node("cloud", 1)],
        [ci.Link(between=("device", "cloud"), delay_ms=5.0)],
        [],
        [
            ci.Deployment("small", "device", instances=4, service=ci.service.Constant(2.0)),
            ci.Deployment("large", "cloud", instances=instances, service=ci.service.Exponential(10.0), price_usd=1e-4),
        ],
    )


def answers(samples, seed):
    rng = np.random.default_rng(seed)
    truth, sure = rng.integers(0, 5, samples), rng.random(samples).astype(np.float32)
    small = np.where(rng.random(samples) < 0.4 + 0.6 * sure, truth, (truth + 1) % 5)
    large = np.where(rng.random(samples) < 0.95, truth, (truth + 1) % 5)
    outputs = {"small": ci.ModelOutput(label=small, confidence=sure), "large": ci.ModelOutput(label=large)}
    return ci.Predictions(outputs, labels=truth)


def measured(load, samples, requests, seed, *, interval=True):
    """Replay the cascade that forwards 40 %, with 95 % intervals."""
    preds, net = answers(samples, seed), network()
    trace = ci.Trace.poisson(net, rate_rps=load * 100 / 0.4, requests=requests, samples=samples, seed=seed)
    waiting = Waiting(Compiler(preds, net), trace, ["latency_us_p99", "load[cloud]"], seed)
    strategy, rows = ci.Forward("confidence", threshold=0.4), np.arange(samples, dtype=np.uint32)
    return waiting.measure(strategy, rows, 1)[0] if interval else waiting.once(strategy, rows)


def line(cells):
    sys.stdout.write(f"| {' | '.join(map(str, cells))} |\n")


def coverage():
    line(("load", "samples", "requests", "mean latency", "p99", "load of the cloud"))
    line(["---"] * 6)
    for load, samples, requests in ((0.7, 500, 20_000), (0.9, 500, 20_000), (0.8, 20_000, 20_000)):
        truth = measured(load, 400_000, 8_000_000, 1, interval=False)
        hits = dict.fromkeys(truth, 0)
        for seed in range(DRAWS):
            for name, value in measured(load, samples, requests, seed).items():
                hits[name] += value.low <= truth[name] <= value.high
        line([load, f"{samples:,}", f"{requests:,}", *(f"{100 * count / DRAWS:.0f} %" for count in hits.values())])


def rates():
    preds, net = answers(10_000, 0), network()
    wishes = {"minimise": "accuracy", "subject_to": ["latency_us_p99 <= 80000"]}
    line(
        ("requests per second", "blind: p99 ms", "accuracy", "on the trace: p99 ms", "accuracy", "replayed", "seconds")
    )
    line(["---"] * 7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for rate in (50, 100, 150, 200):
            trace = ci.Trace.poisson(net, rate_rps=rate, requests=200_000, samples=len(preds), seed=1)
            blind = ci.tune(ci.Forward("confidence"), preds, net, **wishes).strategy
            started = time.perf_counter()
            tuned = ci.tune(ci.Forward("confidence"), preds, net, **wishes, trace=trace)
            took = time.perf_counter() - started
            before = ci.replay(trace, preds, net, blind).summary
            p99 = tuned.measured["latency_us_p99"]
            line(
                [
                    rate,
                    f"{before.latency_us.p99 / 1e3:,.1f}",
                    f"{before.accuracy:.4f}",
                    f"{p99 / 1e3:.1f} ({p99.low / 1e3:.1f} to {p99.high / 1e3:.1f})",
                    f"{tuned.measured['accuracy']:.4f}",
                    tuned.under_load.candidates,
                    f"{took:.1f}",
                ]
            )


if __name__ == "__main__":
    coverage()
    sys.stdout.write("\n")
    rates()
