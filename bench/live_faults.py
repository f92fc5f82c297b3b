"""Faults on real servers, again and again: what each costs, and whether the router keeps its promises.

`make soak-faults` runs every kind 20 times with 2,000 requests (under an hour); `make soak` instead keeps the router
saturated and watches memory, sockets and counters. Every trial must have exactly one outcome per request, lose none
that had a local answer, and replay to equal decisions; the deadline overrun is taken over all trials.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import coinfer as ci
from coinfer import service
from coinfer.live import LocalNetwork, ladder, run
from live import network

KINDS = ("kill", "hang", "restart", "overflow", "sleep", "nan", "shape", "absent")
RATE = 100.0
DEADLINE_MS = 300.0
STRATEGY = ci.Forward(score="max_prob", threshold=0.97)
CLASSES = [str(k) for k in range(10)]


def faulty_network(kind: str) -> ci.Network:
    """Make the chain, padded to 4, 8 and 20 ms; where queues shall overflow, the cloud takes one at a time."""
    net = network()
    pads = {"tree": 4.0, "mlp": 8.0, "ensemble": 20.0}
    deployments = [replace(d, service=service.Linear(pads[d.model], 0.0)) for d in net.deployments]
    if kind == "overflow":
        deployments[-1] = replace(deployments[-1], max_batch=1, queue_max=1, service=service.Linear(60.0, 0.0))
    models = tuple(ci.Model(d.model, classes=CLASSES) for d in deployments)
    return replace(net, deployments=tuple(deployments), models=models)


def trial(local: LocalNetwork, kind: str, folder: Path, requests: int, seed: int) -> dict[str, Any]:
    """Break the top server in the middle of a run."""
    data, net, cloud = ladder.images(), local.network, local.at("cloud")
    span = requests / RATE
    begin, end = 0.3 * span, 0.5 * span
    marks: dict[str, float] = {}

    def mark(name: str, action: Callable[[], object]) -> Callable[[], None]:
        def act() -> None:
            action()
            marks[name] = time.monotonic()

        return act

    faults: dict[str, list[tuple[float, Callable[[], object]]]] = {
        "kill": [(begin, cloud.kill), (end, mark("back", cloud.start))],
        "hang": [
            (begin, lambda: cloud.signal(signal.SIGSTOP)),
            (end, mark("back", lambda: cloud.signal(signal.SIGCONT))),
        ],
        "restart": [(begin, mark("back", lambda: (cloud.stop(), cloud.start())))],
        "overflow": [],
        "sleep": [
            (begin, lambda: local.fault("ensemble@cloud", sleep_ms=600.0)),
            (end, mark("back", lambda: heal(local))),
        ],
        "nan": [(begin, lambda: local.fault("ensemble@cloud", nan=True)), (end, mark("back", lambda: heal(local)))],
        "shape": [(begin, lambda: local.fault("ensemble@cloud", shape=True)), (end, mark("back", lambda: heal(local)))],
        "absent": [(end, mark("back", cloud.start))],
    }
    if kind == "absent":
        cloud.kill()
    timers = [threading.Timer(after, action) for after, action in faults[kind]]
    trace = ci.Trace.poisson(
        net, rate_rps=RATE, requests=requests, samples=len(data.asked), seed=seed, deadline_us=DEADLINE_MS * 1e3
    )
    for timer in timers:
        timer.start()
    result = run(
        net, STRATEGY, data.asked, labels=data.asked_labels, trace=trace, out=folder, absent="wait", seed=seed
    )  # fmt: skip
    for timer in timers:
        timer.join()
    raw = result.outcomes_raw().sort_by("request")
    late_ms = raw.column("latency_us").to_numpy() / 1e3 - DEADLINE_MS
    decided = result.redecide()
    status = {k: v for k, v in result.summary.status.items() if v}
    times = result.stage_times()
    answered = np.array([n == "ensemble@cloud" and r is None for n, r in zip(
        times.column("deployment").to_pylist(), times.column("reason").to_pylist(), strict=True)])  # fmt: skip
    # The journal's clock starts with the load; the last request was due at a known time on it.
    ended = (times.column("sent_us").to_numpy() + times.column("took_us").to_numpy())[answered] / 1e6
    recovery = None
    if "back" in marks and kind != "nan":
        back = marks["back"] - STARTED.get(str(folder), marks["back"])
        after = ended[ended > back]
        recovery = float(after.min() - back) if len(after) and back > 0 else None
    return {
        "kind": kind,
        "requests": requests,
        "one_outcome_each": raw.column("request").to_pylist() == list(range(requests)),
        "identical": decided.identical,
        "status": status,
        "lost": status.get("failed", 0) + status.get("expired", 0),
        "late_ms": np.maximum(late_ms, 0.0).tolist(),
        "recovery_s": recovery,
    }


STARTED: dict[str, float] = {}


def heal(local: LocalNetwork) -> None:
    """Make the top model well again."""
    local.fault("ensemble@cloud")


def faults(kinds: list[str], trials: int, requests: int) -> int:
    """Run every kind, print the table, and say in the exit code whether all promises were kept."""
    import coinfer.live.router as router

    # The time at which a run's load begins, on this process's clock, to place server events on the journal's.
    inner = router.Router.open_loop

    async def noted(self: Any, rows: Any) -> None:
        STARTED[str(Path(self.journal._files["steps"].name).parent)] = time.monotonic() + 0.005
        await inner(self, rows)

    router.Router.open_loop = noted  # type: ignore[method-assign]
    head = f"{'fault':<9} {'runs':>4} {'requests':>8} {'answered':>9} {'degraded':>9} {'lost':>5} {'equal':>8} "
    head += f"{'overrun p99.9 ms':>17} {'worst':>7} {'back in s':>9}"
    sys.stdout.write(head + "\n")
    everything: list[float] = []
    good = True
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for kind in kinds:
            found = []
            with LocalNetwork(faulty_network(kind)) as local:
                for n in range(trials):
                    found.append(trial(local, kind, Path(scratch) / f"{kind}-{n}", requests, n))
                    for server in local.servers.values():
                        server.signal(signal.SIGCONT)
                        if server.pid is None:
                            server.start()
                    heal(local)
            late = [ms for each in found for ms in each.pop("late_ms")]
            everything += late
            back = [each["recovery_s"] for each in found if each["recovery_s"] is not None]
            total = sum(each["requests"] for each in found)
            lost = sum(each["lost"] for each in found)
            equal = sum(each["identical"] for each in found)
            good &= lost == 0 and equal == total and all(each["one_outcome_each"] for each in found)
            counts = [sum(each["status"].get(k, 0) for each in found) for k in ("answered", "degraded")]
            line = (
                f"{kind:<9} {trials:>4} {total:>8,} {counts[0]:>9,} {counts[1]:>9,} {lost:>5} {equal / total:>8.2%} "
                f"{np.quantile(late, 0.999):>17.1f} {max(late):>7.1f} {max(back) if back else float('nan'):>9.2f}"
            )
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
            rows += found
    overrun = float(np.quantile(everything, 0.999))
    sys.stdout.write(f"deadline overrun over all runs: p99.9 {overrun:.1f} ms, worst {max(everything):.1f} ms\n")
    Path("build").mkdir(exist_ok=True)
    Path("build/live_faults.json").write_text(json.dumps(rows, indent=2))
    return 0 if good and overrun <= 25.0 else 1


def soak(seconds: float) -> int:
    """Keep the router saturated; memory must stay flat, nothing may leak, counters must add up."""
    data = ladder.images()
    net = faulty_network("none")
    samples: list[tuple[float, float, int, int]] = []
    began = time.monotonic()

    def look(done: int, total: int, line: str) -> None:
        del total, line
        with Path("/proc/self/statm").open() as file:
            rss_mb = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
        files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        samples.append((time.monotonic() - began, rss_mb, files, done + 0 * len(asyncio.all_tasks())))

    with LocalNetwork(net, pad=False) as local, tempfile.TemporaryDirectory() as folder:
        del local
        requests = int(seconds * 2500)  # more than can be served; the end comes by SIGTERM
        stop = threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGTERM))
        stop.start()
        result = run(
            net, ci.Forward(score="max_prob", threshold=0.9), data.asked, labels=data.asked_labels, concurrency=16,
            requests=requests, out=Path(folder) / "run", progress=look, deadline_ms=2000.0,
        )  # fmt: skip
        stop.cancel()
        ended = len(result.outcomes_raw())
        status = sum(result.summary.status.values())
        decided = result.redecide()
    warm = [s for s in samples if s[0] > 0.2 * seconds]
    first, last = np.mean([s[1] for s in warm[: len(warm) // 4]]), np.mean([s[1] for s in warm[-len(warm) // 4 :]])
    files = {s[2] for s in warm}
    sys.stdout.write(
        f"{ended:,} requests in {seconds:g} s ({ended / seconds:,.0f}/s); RSS {first:.0f} -> {last:.0f} MB; open files "
        f"{min(files)} to {max(files)}; outcomes {ended:,} = statuses {status:,}; equal {decided.identical:,}\n"
    )
    flat = last - first < 0.05 * first + 10.0
    return 0 if flat and ended == status == decided.identical and max(files) - min(files) <= 4 else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument("--soak", type=float, metavar="SECONDS")
    given = parser.parse_args()
    if given.soak:
        sys.exit(soak(given.soak))
    sys.exit(faults(given.kind or list(KINDS), given.trials, given.requests))
