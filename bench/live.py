"""`make live`: four strategies on three real Triton servers, beside what replay says about them.

The models of the digits ladder are padded by sleeping to 10, 20 and 50 ms, so that two cores can carry three servers.
First the network is profiled and the predictions are collected, both from the servers. Then every strategy gets the
same requests, live and in replay. Two things are compared and kept apart: replaying a run's *journal* must give every
decision and answer again, bit by bit; replaying the *trace* on the profiled network predicts latency, which can only be
close.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import coinfer as ci
from coinfer import service
from coinfer.live import LiveRun, LocalNetwork, Settings, collect, ladder, page, profile, run
from coinfer.live.triton import free_ports

PADS_MS = {"device": ("tree", 10.0, 0.0), "edge": ("mlp", 20.0, 1e-6), "cloud": ("ensemble", 50.0, 4e-5)}
STRATEGIES: dict[str, ci.Strategy] = {
    "local": ci.Local(),
    "forward 0.9": ci.Forward(score="max_prob", threshold=0.9),
    "mean of all": ci.Ensemble("mean"),
    "cloud": ci.Remote("cloud"),
}


def network() -> ci.Network:
    """Make device, edge and cloud on free ports."""
    ports = free_ports(3)
    nodes = tuple(
        ci.Node(name, tier, triton=f"grpc://127.0.0.1:{port}")
        for tier, (name, port) in enumerate(zip(PADS_MS, ports, strict=True))
    )
    deployments = tuple(
        ci.Deployment(
            model,
            node,
            max_batch=8,
            price_usd=price,
            service=service.Linear(pad, 0.0),
            tensors={"input": "IMAGE", "output": "PROBS", "form": "probs"},  # type: ignore[arg-type]
        )
        for node, (model, pad, price) in PADS_MS.items()
    )
    links = (ci.Link(("device", "edge"), delay_ms=2.0), ci.Link(("edge", "cloud"), delay_ms=8.0))
    return ci.Network(nodes, links, (), deployments, control="ingress")


def main() -> int:
    """Run it all; the exit code says whether every decision came out the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=80.0)
    parser.add_argument("--out", type=Path, default=Path("build/live"))
    parser.add_argument("--report", type=Path, default=Path("report-live.html"))
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    net, data = network(), ladder.images()
    rows: list[dict[str, Any]] = []
    runs: dict[str, LiveRun] = {}
    say = sys.stdout.write
    with LocalNetwork(net) as local:
        for node in net.nodes:
            say(f"{node.name:<8} {node.endpoints[0]}  pid {local.at(node.name).pid}\n")
        found = profile(net, data.asked, concurrency=(1,), seconds=3.0)
        say(f"\n{found}\n\n")
        found.network.save(options.out / "network.toml")
        predictions = collect(net, data.asked, labels=data.asked_labels)
        predictions.save(options.out / "predictions.parquet")
        # What the servers are asked is what is replayed: the profiled laws, the same links and the same requests.
        profiled = replace(found.network, links=net.links)
        trace = ci.Trace.poisson(
            net, rate_rps=options.rate, requests=options.requests, samples=len(data.asked), seed=0, deadline_us=1e6
        )
        for name, strategy in STRATEGIES.items():
            folder = options.out / name.replace(" ", "-")
            result = run(
                net, strategy, data.asked, labels=data.asked_labels, trace=trace, out=folder,
                settings=Settings(emulate_links=True), progress=progress(name),
            )  # fmt: skip
            runs[name] = result
            rows.append(row(name, result, trace, predictions, profiled, strategy))
    (options.out / "live.json").write_text(json.dumps(rows, indent=2) + "\n")
    say("\r\x1b[K" + table(rows) + "\n")
    replayed = ci.compare(trace, predictions, profiled, STRATEGIES)
    page(runs, options.report, replayed.runs, title="Live runs beside their replay")
    say(f"\nRuns: {options.out}\nReport: {options.report}\n")
    return 0 if all(r["identical"] == r["requests"] == options.requests for r in rows) else 1


def row(
    name: str,
    result: Any,
    trace: ci.Trace,
    predictions: ci.Predictions,
    profiled: ci.Network,
    strategy: ci.Strategy,
) -> dict[str, Any]:
    """Put a live run beside its replays."""
    decided = result.redecide()
    live = result.summary
    replayed = ci.replay(trace, predictions, profiled, strategy).summary
    distance = result.against(predictions)
    late = result.outcomes().column("late_us").to_numpy()
    return {
        "strategy": name,
        "requests": live.requests,
        "identical": decided.identical,
        "differences": list(decided.differences),
        "status": {k: v for k, v in live.status.items() if v},
        "accuracy": [float(live.accuracy or 0), float(replayed.accuracy or 0)],
        "p50_ms": [live.latency_us.p50 / 1e3, replayed.latency_us.p50 / 1e3],
        "p99_ms": [live.latency_us.p99 / 1e3, replayed.latency_us.p99 / 1e3],
        "stages": [live.stages, replayed.stages],
        "started_late_ms_p99": float(np.quantile(late, 0.99)) / 1e3,
        "same_label": dict(distance.same_label),
        "largest_difference": dict(distance.largest),
        "engine": replayed.engine,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Lay the rows out, live beside replay."""
    head = (
        f"{'':<14} {'same decisions':>16}   {'accuracy':^17}   {'p50 ms':^24}   {'p99 ms':^24}\n"
        f"{'strategy':<14} {'and answers':>16}   {'live':>8} {'replay':>8}   {'live':>7} {'replay':>7} {'off':>8}   "
        f"{'live':>7} {'replay':>7} {'off':>8}"
    )
    lines = [head]
    for r in rows:
        off = [f"{b / a - 1:+.1%}" for a, b in (r["p50_ms"], r["p99_ms"])]
        lines.append(
            f"{r['strategy']:<14} {r['identical']:>7,} of {r['requests']:>5,}   "
            f"{r['accuracy'][0]:>8.4f} {r['accuracy'][1]:>8.4f}   "
            f"{r['p50_ms'][0]:>7.2f} {r['p50_ms'][1]:>7.2f} {off[0]:>8}   "
            f"{r['p99_ms'][0]:>7.2f} {r['p99_ms'][1]:>7.2f} {off[1]:>8}"
        )
    return "\n".join(lines)


def progress(name: str) -> Any:
    """Show how a run goes, on a terminal."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int, line: str) -> None:
        sys.stderr.write(f"\r\x1b[K{name}: {done:,} of {total:,}, {line}")
        sys.stderr.flush()

    return show


if __name__ == "__main__":
    sys.exit(main())
