"""Faults on real servers, again and again: what each costs, and whether the router keeps its promises.

`make soak-faults` runs every kind 20 times with 2,000 requests (under an hour; `--rounds 0:2`, `--rounds 2:4` and so on
do it in pieces); `make soak` instead keeps the router saturated and watches memory, tasks, sockets and counters. Every
trial must have exactly one outcome per request, lose none that had a local answer, replay to equal decisions, and
answer as much as before within two seconds of the server's return; the deadline overrun is taken over all trials.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import coinfer as ci
from coinfer import service
from coinfer.live import LiveRun, LocalNetwork, ladder, resume, run
from live import network

KINDS = ("kill", "hang", "restart", "overflow", "sleep", "nan", "shape", "absent", "router")
RATE = 200.0
DEADLINE_MS = 300.0
OVERRUN_MS = 25.0
BACK_S = 2.0
WINDOW_S = 0.5
STRATEGY = ci.Forward(score="max_prob", threshold=0.97)
CLASSES = [str(k) for k in range(10)]
FOLDER = Path("build/live_faults")


def faulty_network(kind: str) -> ci.Network:
    """Make the chain, padded to 4, 8 and 20 ms; where queues shall overflow, the cloud takes one at a time."""
    net = network()
    pads = {"tree": 4.0, "mlp": 8.0, "ensemble": 20.0}
    deployments = [replace(d, service=service.Linear(pads[d.model], 0.0)) for d in net.deployments]
    if kind == "overflow":
        deployments[-1] = replace(deployments[-1], max_batch=1, queue_max=1, service=service.Linear(60.0, 0.0))
    models = tuple(ci.Model(d.model, classes=CLASSES) for d in deployments)
    return replace(net, deployments=tuple(deployments), models=models)


def load(net: ci.Network, folder: Path, requests: int, seed: int) -> LiveRun:
    """Send the requests of one trial."""
    data = ladder.images()
    trace = ci.Trace.poisson(
        net, rate_rps=RATE, requests=requests, samples=len(data.asked), seed=seed, deadline_us=DEADLINE_MS * 1e3
    )
    return run(
        net, STRATEGY, data.asked, labels=data.asked_labels, trace=trace, out=folder, absent="wait", seed=seed
    )  # fmt: skip


def killed_load(net: ci.Network, folder: Path, requests: int, seed: int) -> LiveRun:
    """Send them from a process that is killed on the way, at another moment for each seed, and go on here."""
    net.save(folder.with_suffix(".toml"))
    router = subprocess.Popen(
        [sys.executable, __file__, "--load", str(folder), f"--requests={requests}", f"--seed={seed}"]
    )
    while router.poll() is None and not (folder / "outcomes-0.arrows").exists():
        time.sleep(0.01)
    time.sleep((0.1 + 0.8 * (seed % 20) / 20) * requests / RATE)
    router.kill()
    router.wait()
    return resume(folder, ladder.images().asked)


def trial(local: LocalNetwork, kind: str, folder: Path, requests: int, seed: int) -> dict[str, Any]:
    """Break the top server in the middle of a run, or the router."""
    net, cloud = local.network, local.at("cloud")
    span_s = requests / RATE
    begin_s, end_s = (0.1 if kind == "restart" else 0.2) * span_s, 0.35 * span_s  # Triton takes seconds to stop
    back: list[float] = []
    died: list[float] = []
    ended = threading.Event()

    def after(delay_s: float, *actions: Callable[[], object], returns: bool = False) -> threading.Timer:
        def act() -> None:
            for action in actions:
                action()
            if returns:
                back.append(time.time())

        return threading.Timer(delay_s, act)

    def model(**fault: Any) -> list[threading.Timer]:
        break_it, heal_it = partial(local.fault, "ensemble@cloud", **fault), partial(local.fault, "ensemble@cloud")
        return [after(begin_s, break_it), after(end_s, heal_it, returns=True)]

    def revive() -> None:
        """Start the server again whenever it dies of having hung, as whatever looks after a server would."""
        while not ended.wait(0.02):
            if cloud.pid is None:
                cloud.start()
                died.append(time.time())

    timers = {
        "kill": lambda: [after(begin_s, cloud.kill), after(end_s, cloud.start, returns=True)],
        "hang": lambda: [
            after(begin_s, lambda: cloud.signal(signal.SIGSTOP)),
            after(end_s, lambda: cloud.signal(signal.SIGCONT), returns=True),
            after(end_s, revive),
        ],
        "restart": lambda: [after(begin_s, cloud.stop, cloud.start, returns=True)],
        "overflow": list,
        "sleep": lambda: model(sleep_ms=600.0),
        "nan": lambda: model(nan=True),
        "shape": lambda: model(shape=True),
        "absent": lambda: [after(begin_s, cloud.start, returns=True)],
        "router": list,
    }[kind]()
    if kind == "absent":
        cloud.kill()
    for timer in timers:
        timer.start()
    result = (killed_load if kind == "router" else load)(net, folder, requests, seed)
    ended.set()
    for timer in timers:
        timer.join()
    if cloud.pid is None:
        cloud.start()  # the next run begins with a server that is there
    raw = result.outcomes_raw().sort_by("request")
    late_ms = raw.column("latency_us").to_numpy() / 1e3 - DEADLINE_MS
    status = {k: v for k, v in result.summary.status.items() if v}
    found = {
        "kind": kind,
        "requests": requests,
        "one_outcome_each": raw.column("request").to_pylist() == list(range(requests)),
        "identical": result.redecide().identical,
        "status": status,
        "lost": lost(result),
        "resent": sum(raw.column("resent").to_pylist()),
        "late_ms": late_ms[late_ms > 0.0].tolist(),
    }
    if back:
        found["died"] = len(died)
        back += died
        at_s = raw.column("intended_us").to_numpy() / 1e6
        full = raw.column("status").to_numpy() == 1
        back_s = max(back) - load_started(folder)
        found["too_late"] = back_s > float(at_s[-1]) - BACK_S - 1.0  # came back when little of the run was left
        if not found["too_late"]:
            found |= recovery(at_s, full, None if kind == "absent" else begin_s, back_s)
    return found


def lost(result: LiveRun) -> int:
    """Count requests that ended without an answer although a member had given one in time."""
    raw, times = result.outcomes_raw(), result.stage_times()
    answered = times.column("request").to_numpy()[[r is None for r in times.column("reason").to_pylist()]]
    without = raw.column("request").to_numpy()[raw.column("status").to_numpy() > 2]
    return len(np.intersect1d(answered, without))


def recovery(at_s: Any, full: Any, fault_s: float | None, back_s: float) -> dict[str, Any]:
    """Compare what was answered in full before the fault, and after the server's return.

    `back_in_s` is when the first half second ended, from the return on, in which as large a share was answered in full
    (95 % of it, at least) as before the fault; `after` is that share from `BACK_S` after the return to the end.
    """

    def share(begin_s: float, end_s: float) -> float:
        return float(full[(at_s >= begin_s) & (at_s < end_s)].mean())

    before = 1.0 if fault_s is None else share(0.0, fault_s - DEADLINE_MS / 1e3)
    starts = np.arange(back_s, at_s[-1] - WINDOW_S, 0.05)
    good = [start for start in starts if share(start, start + WINDOW_S) >= 0.95 * before]
    return {
        "before": before,
        "after": share(back_s + BACK_S, np.inf),
        "back_in_s": float(good[0]) + WINDOW_S - back_s if good else None,
    }


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def load_started(folder: Path) -> float:
    """Read when the clock of a run's journal began."""
    lines = (folder / "metrics-0.prom").read_text("utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith("coinfer_load_started_timestamp_seconds "))
    return float(line.split()[1])


def faults(kinds: list[str], rounds: range, requests: int) -> None:
    """Run every kind once per round, and write what was found, one file each."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for group in (["overflow"], [kind for kind in KINDS if kind != "overflow"]):
            wanted = [kind for kind in group if kind in kinds]
            if not wanted:
                continue
            with LocalNetwork(faulty_network(wanted[0])) as local:
                for n, kind in itertools.product(rounds, wanted):
                    found = trial(local, kind, Path(scratch) / f"{kind}-{n}", requests, n)
                    (FOLDER / f"{kind}-{n}.json").write_text(json.dumps(found), "utf-8")


def table() -> int:
    """Print one line per kind over all runs on file, and say in the exit code whether all promises were kept."""
    say(
        f"{'fault':<9} {'runs':>4} {'requests':>8} {'answered':>9} {'degraded':>9} {'none':>5} {'lost':>5} "
        f"{'equal':>8} {'overrun p99.9 ms':>17} {'worst':>7} {'back in s':>9} {'after/before':>12}"
    )
    everything, good = [], True
    for kind in KINDS:
        found = [json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob(f"{kind}-*.json"))]
        if not found:
            continue
        total, gone, equal = (sum(each[k] for each in found) for k in ("requests", "lost", "identical"))
        late = np.zeros(total)
        some = [ms for each in found for ms in each["late_ms"]]
        late[: len(some)] = some
        everything.append(late)
        back = [np.inf if each["back_in_s"] is None else each["back_in_s"] for each in found if "back_in_s" in each]
        kept = [each["after"] / each["before"] for each in found if "after" in each]
        answered, degraded = (sum(each["status"].get(k, 0) for each in found) for k in ("answered", "degraded"))
        good &= gone == 0 and equal == total and all(each["one_outcome_each"] for each in found)
        good &= max(back, default=0.0) <= BACK_S and min(kept, default=1.0) >= 0.95
        say(
            f"{kind:<9} {len(found):>4} {total:>8,} {answered:>9,} {degraded:>9,} {total - answered - degraded:>5} "
            f"{gone:>5} {equal / total:>8.2%} {np.quantile(late, 0.999):>17.1f} {late.max():>7.1f} "
            + (f"{max(back):>9.2f} {min(kept):>12.1%}" if back else f"{'-':>9} {'-':>12}")
        )
        if late_back := sum(each.get("too_late", False) for each in found):
            say(f"{'':<9} in {late_back} of {len(found)} runs the server came back too late to be judged")
        if again := sum(each.get("resent", 0) for each in found):
            say(f"{'':<9} the router was killed: {again} requests without an outcome were sent again")
        if died := sum(each.get("died", 0) for each in found):
            say(f"{'':<9} in {died} of {len(found)} runs the server died when it went on, and was started again")
    late = np.concatenate(everything)
    overrun = float(np.quantile(late, 0.999))
    say(f"deadline overrun over all {len(late):,} requests: p99.9 {overrun:.1f} ms, worst {late.max():.1f} ms")
    return 0 if good and overrun <= OVERRUN_MS else 1


def soak(seconds: float) -> int:
    """Keep the router saturated; memory must stay flat, nothing may leak, counters must add up."""
    data, began = ladder.images(), time.monotonic()
    seen: dict[str, list[float]] = {"at_s": [], "rss_mb": [], "tasks": [], "sockets": [], "files": [], "threads": []}

    def look(*progress: object) -> None:
        del progress
        rss_mb, *others = resources()
        now = (time.monotonic() - began, rss_mb, len(asyncio.all_tasks()), *others)
        for name, value in zip(seen, now, strict=True):
            seen[name].append(value)

    with LocalNetwork(faulty_network("none"), pad=False) as local, tempfile.TemporaryDirectory() as scratch:
        # gRPC keeps a thread and a few files for the life of the process: a first run, so that they are there before.
        run(local.network, ci.Local(), data.asked, concurrency=16, requests=100, out=Path(scratch) / "first")
        before = resources()
        stop = threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGTERM))
        stop.start()
        result = run(
            local.network, ci.Forward(score="max_prob", threshold=0.9), data.asked, labels=data.asked_labels,
            concurrency=16, requests=int(seconds * 2500),  # more than can be served; the end comes by SIGTERM
            out=Path(scratch) / "run", progress=look, deadline_ms=2000.0, warm_up=0,
        )  # fmt: skip
        stop.join()
        after = resources()
        metrics = (Path(scratch) / "run/metrics-0.prom").read_text("utf-8").splitlines()
        raw = result.outcomes_raw()
        decided, status = result.redecide(), sum(result.summary.status.values())
        consulted = len(result.stage_times())
    ended, attempts = len(raw), int(raw.column("attempts").to_numpy().sum())

    def total(name: str) -> int:
        return int(sum(float(line.rpartition(" ")[2]) for line in metrics if line.startswith(name)))

    say(f"{ended:,} requests in {seconds:g} s ({ended / seconds:,.0f}/s), {decided.identical:,} decided again, equal")
    warm = np.array(seen.pop("at_s")) > 0.2 * seconds
    spread = {}
    for name, values in seen.items():
        quarters = np.array_split(np.array(values)[warm], 4)
        first, last = quarters[0].mean(), quarters[-1].mean()
        spread[name] = last - first
        say(f"{name:<8} {min(values):8.1f} to {max(values):8.1f}; first quarter {first:8.1f}, last {last:8.1f}")
    say(f"sockets, files, threads before {before[1:]}, after {after[1:]}")
    sums = {
        "outcomes": (ended, status, total("coinfer_requests_total"), total("coinfer_request_duration_seconds_count")),
        "consultations": (consulted, total("coinfer_hop_duration_seconds_count")),
        "attempts": (attempts, total("coinfer_attempts_total")),
        "in flight at the end": (0, total("coinfer_requests_in_flight"), total("coinfer_endpoint_in_flight")),
    }
    for name, values in sums.items():
        say(f"{name}: {' = '.join(f'{v:,}' for v in values)}")
    kept = {
        "memory is flat": spread["rss_mb"] < 10.0,
        "no task, socket, file or thread is left over while it runs": all(
            abs(spread[name]) < 1.0 for name in ("tasks", "sockets", "files", "threads")
        ),
        "nor after it": all(b <= a for a, b in zip(before[1:], after[1:], strict=True)),
        "counters add up": all(len(set(values)) == 1 for values in sums.values()),
        "decisions are equal": decided.identical == ended,
    }
    for name, holds in kept.items():
        say(f"{'yes' if holds else 'NO ':<4}{name}")
    return 0 if all(kept.values()) else 1


def resources() -> tuple[float, int, int, int]:
    """Measure this process: resident MB, sockets, open files, threads."""
    rss_mb = int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    links = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the folder itself was open for the list only
            links.append(str(link.readlink()))
    return rss_mb, sum(link.startswith("socket:") for link in links), len(links), threading.active_count()


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", metavar="FROM:TO", help="only these of the 20 rounds; the table is of all on file")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument("--soak", type=float, metavar="SECONDS")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)  # what the router that is killed does
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.load:
        load(ci.Network.open(given.load.with_suffix(".toml")), given.load, given.requests, given.seed)
        return 0
    if given.soak:
        return soak(given.soak)
    if given.rounds is None:
        shutil.rmtree(FOLDER, ignore_errors=True)
    first, _, last = (given.rounds or "0:20").partition(":")
    faults(given.kind or list(KINDS), range(int(first), int(last)), given.requests)
    return table()


if __name__ == "__main__":
    sys.exit(main())
