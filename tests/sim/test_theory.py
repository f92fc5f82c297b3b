"""Stations against closed forms: means, one distribution, utilisation, Little's law.

Every figure is the mean over independent seeds (fixed), so it has a t interval; the intervals hold for the whole family
of comparisons at 99 % (Bonferroni). The same family rejects a service time that is 1 % too long.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from scipy import stats

import coinfer as ci
from reference_theory import mg1, mm1_sojourn_quantile, mmk, priority_mm1

SEEDS, REQUESTS, WARMUP = 12, 60_000, 10_000
LOADS = (0.5, 0.8, 0.95)
FAMILY = 0.99
LABELS = np.zeros(64, np.int64)

Comparison = tuple[str, list[float], float]  # what, one estimate per seed, theory


def predictions(models):
    """Half of the samples are sure, so half of the requests go on: as good as a coin."""
    confidence = (np.arange(64) % 2).astype(np.float32)
    return ci.Predictions({m: ci.ModelOutput(label=LABELS, confidence=confidence) for m in models}, labels=LABELS)


def runs(net, strategy, rate_rps, preds, classes=False):
    """Replay the same network under independent seeds; with `classes`, in two classes of priority."""
    for seed in range(SEEDS):
        trace = ci.Trace.poisson(net, rate_rps=rate_rps, requests=REQUESTS, samples=64, seed=1000 + seed)
        if classes:
            priority = np.random.default_rng(seed).integers(1, 3, REQUESTS)
            trace = ci.Trace(trace.arrival_ns, trace.ingress, trace.sample, priority=priority, nodes=trace.nodes)
        warmup_ms = WARMUP / rate_rps * 1e3
        yield trace, ci.replay(trace, preds, net, strategy, seed=77 + seed, warmup_ms=warmup_ms), warmup_ms


def station(law, k):
    return ci.Network.chain({"here": "m"}, service_ms=law, instances=k)


def single(planted: float) -> list[Comparison]:
    """One station: M/M/1, M/M/3, M/D/1, and M/G/1 with a gamma and a log-normal law, at three loads."""
    preds = predictions(["m"])
    mean = planted
    cases = [
        ("M/M/1", ci.service.Exponential(mean), 1, lambda rate: mmk(rate, 1, 1)),
        ("M/M/3", ci.service.Exponential(3 * mean), 3, lambda rate: mmk(rate, 3, 3)),
        ("M/D/1", ci.service.Constant(mean), 1, lambda rate: mg1(rate, 1, 0)),
        ("M/G/1 gamma", ci.service.Gamma(mean, 0.5), 1, lambda rate: mg1(rate, 1, 0.5)),
        ("M/G/1 log-normal", ci.service.LogNormal(mean, 1.2), 1, lambda rate: mg1(rate, 1, 1.2)),
    ]
    found: list[Comparison] = []
    for name, law, k, theory in cases:
        for load in LOADS:
            net = station(law, k)
            wait, busy, service, sojourn, seen = [], [], [], [], []
            for trace, run, warmup_ms in runs(net, ci.Local(), load * 1e3, preds):
                s = run.summary
                wait.append(s.queue_us / 1e3)
                busy.append(s.utilisation_by_node["here"])
                service.append(s.service_us / 1e3)
                if name == "M/M/1":
                    sojourn.append(run.latency_quantiles([0.5, 0.9, 0.99]) / 1e3)
                    seen.append(_seen(trace, run, warmup_ms) - load * s.latency_us.mean / 1e3)
            found.append((f"{name} at {load}: wait", wait, theory(load)))
            found.append((f"{name} at {load}: utilisation", busy, load))
            found.append((f"{name} at {load}: service", service, float(k)))
            for i, q in enumerate((0.5, 0.9, 0.99)):
                if sojourn:
                    column = [row[i] for row in sojourn]
                    found.append((f"{name} at {load}: p{100 * q:g}", column, mm1_sojourn_quantile(load, 1, q)))
            if seen:
                found.append((f"{name} at {load}: Little's law", seen, 0.0))
    return found


def _seen(trace, run, warmup_ms):
    """Mean number that an arrival finds: by Little's law and PASTA, rate x time in the system."""
    out = run.outcomes()
    left = np.sort(trace.arrival_ns + np.rint(out["latency_us"].to_numpy() * 1e3).astype(np.int64))
    found = np.arange(len(trace)) - np.searchsorted(left, trace.arrival_ns, side="right")
    return float(found[trace.arrival_ns >= warmup_ms * 1e6].mean())


def networks(planted: float) -> list[Comparison]:
    """Tandem and Jackson: every station as if it stood alone."""
    mean, exponential = planted, ci.service.Exponential
    models = ["a", "b", "c"]
    preds = predictions(models)
    found: list[Comparison] = []
    for load in LOADS:
        tandem = ci.Network.chain({"x": "a", "y": "b"}, delay_ms=3, service_ms=exponential(mean), instances=1)
        waits: dict[str, list[float]] = {}
        for _, run, _ in runs(tandem, ci.Forward(score="confidence", thresholds=[2.0]), load * 1e3, preds):
            for name, s in run.summary.stations.items():
                waits.setdefault(name, []).append(s.wait_us_mean / 1e3)
        found += [(f"tandem at {load}: {name}", w, mmk(load, 1, 1)) for name, w in waits.items()]
        # Three devices (M/M/1), half of their requests go on to an edge (M/M/2).
        nodes = [ci.Node(f"d{i}", 0) for i in range(3)] + [ci.Node("e", 1)]
        links = [ci.Link((f"d{i}", "e"), delay_ms=1 + i, jitter_ms=i) for i in range(3)]
        stations = [ci.Deployment("a", f"d{i}", instances=1, service=exponential(mean)) for i in range(3)]
        stations.append(ci.Deployment("b", "e", instances=2, service=exponential(4 / 3 * mean)))
        jackson = ci.Network(nodes, links, [], stations)
        waits = {}
        for _, run, _ in runs(jackson, ci.Forward(score="confidence", thresholds=[0.5]), 3e3 * load, preds):
            for name, s in run.summary.stations.items():
                waits.setdefault(name, []).append(s.wait_us_mean / 1e3)
        for name, w in waits.items():
            theory = mmk(1.5 * load, 4 / 3, 2) if name == "b@e" else mmk(load, 1, 1)
            found.append((f"Jackson at {load}: {name}", w, theory))
    return found


def priorities(planted: float) -> list[Comparison]:
    """Two classes at M/M/1, the first served first."""
    preds = predictions(["m"])
    found: list[Comparison] = []
    for load in LOADS:
        net = station(ci.service.Exponential(planted), 1)
        waits: list[list[float]] = [[], []]
        for trace, run, warmup_ms in runs(net, ci.Local(), load * 1e3, preds, classes=True):
            assert run.summary.engine.startswith("events")
            wait = run.outcomes()["queue_us"].to_numpy() / 1e3
            late = trace.arrival_ns >= warmup_ms * 1e6
            for level in (0, 1):
                waits[level].append(float(wait[late & (trace.priority == level + 1)].mean()))
        theory = priority_mm1([load / 2, load / 2], 1)
        found += [(f"priority {i + 1} at {load}", waits[i], theory[i]) for i in (0, 1)]
    return found


@cache
def family(planted: float = 1.0) -> list[Comparison]:
    return single(planted) + networks(planted) + priorities(planted)


def outside(found: list[Comparison]) -> list[str]:
    """Name the comparisons whose interval does not hold the theory."""
    quantile = float(stats.t.ppf(1 - (1 - FAMILY) / len(found) / 2, SEEDS - 1))
    missed = []
    for what, estimates, theory in found:
        mean, error = float(np.mean(estimates)), float(np.std(estimates, ddof=1)) / math.sqrt(SEEDS)
        if abs(mean - theory) > quantile * error + 1e-6:  # times are whole nanoseconds
            missed.append(f"{what}: {mean:.5f} +- {quantile * error:.5f}, theory {theory:.5f}")
    return missed


pytestmark = pytest.mark.filterwarnings("ignore::coinfer.OverloadWarning")


def test_stations_and_networks_agree_with_theory():
    found = family()
    assert len(found) >= 60
    assert outside(found) == []


def test_a_service_time_one_percent_too_long_is_rejected():
    missed = outside(single(1.01))
    assert any("M/M/1" in what for what in missed)
    assert any("M/D/1" in what for what in missed)
    assert any("M/G/1" in what for what in missed)
