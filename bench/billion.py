"""A billion requests through thirteen stations, streamed from a generated trace: time, and peak memory.

``python bench/billion.py [REQUESTS]``; `make billion` runs it whole. Constant service times: what is measured is
queueing, not the drawing of random numbers. Arrivals, ingress nodes and samples are drawn, in a second thread.
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np

import coinfer as ci
from coinfer.streaming import stream

SAMPLES = 10_000


def thirteen_stations(law: type = ci.service.Constant) -> ci.Network:
    """Ten edges (k=2), two regions (k=8), one cloud (k=32)."""
    nodes = [ci.Node(f"e{i}", 0) for i in range(10)] + [ci.Node(f"r{i}", 1) for i in range(2)] + [ci.Node("c", 2)]
    links = [ci.Link((f"e{i}", f"r{i // 5}"), delay_ms=10) for i in range(10)]
    links += [ci.Link((f"r{i}", "c"), delay_ms=40) for i in range(2)]
    at = {"small": [f"e{i}" for i in range(10)], "medium": ["r0", "r1"], "large": ["c"]}
    k = {"small": 2, "medium": 8, "large": 32}
    mean_ms = {"small": 2.0, "medium": 4.0, "large": 4.0}
    deployments = [
        ci.Deployment(model, node, instances=k[model], service=law(mean_ms[model]))
        for model, where in at.items()
        for node in where
    ]
    return ci.Network(nodes, links, [], deployments)


def predictions() -> ci.Predictions:
    """Of 100 samples, 40 go on from the edge and 15 of these from the region."""
    part = np.arange(SAMPLES) % 100
    labels = np.arange(SAMPLES) % 10
    sure = {"small": part < 60, "medium": part < 85, "large": part >= 0}
    outputs = {m: ci.ModelOutput(label=labels, confidence=s.astype(np.float32)) for m, s in sure.items()}
    return ci.Predictions(outputs, labels=labels)


def main() -> None:
    """Stream, and print one line."""
    requests = int(float(sys.argv[1])) if len(sys.argv) > 1 else 10**9
    net, preds = thirteen_stations(), predictions()
    began = time.perf_counter()
    batches = ci.Trace.poisson_batches(net, rate_rps=8000, requests=requests, samples=SAMPLES, seed=1)
    run = stream(batches, preds, net, ci.Forward(score="confidence", thresholds=[0.5, 0.5]), threads=2)
    took = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    sys.stdout.write(f"{run}\n")
    sys.stdout.write(
        f"{requests:,} requests in {took:.1f} s: {requests / took / 1e6:.1f} M/s, peak memory {peak:.2f} GiB\n"
    )


if __name__ == "__main__":
    main()
