"""A production arrival trace on a real backbone: load changes which strategy is best."""

from __future__ import annotations

import pytest

import table_load

pytestmark = pytest.mark.skipif(
    not (table_load.SHARED / "abilene.gml").exists(), reason="the backbone and the trace of shared/data are absent"
)


def test_the_ranking_changes_with_load_and_awareness_keeps_the_tail_finite():
    found = table_load.sweep(requests=60_000, loads=(0.2, 1.5))
    low, high = found.rates_rps
    by_rate = {rate: {name: found.at(name, rate) for name in found.strategies} for rate in (low, high)}
    best = {rate: max(runs, key=lambda name: runs[name].goodput) for rate, runs in by_rate.items()}
    assert best[low] == "cloud"
    assert best[high] == "load-aware gain"
    assert by_rate[high]["cloud"].goodput < by_rate[high]["local"].goodput
    # What is late is answered at its deadline: the tail shows in goodput, and without deadlines in p99.
    assert by_rate[high]["forward"].goodput < by_rate[low]["forward"].goodput - 0.05
    for name in ("load-aware forward", "load-aware gain"):
        assert by_rate[high][name].goodput > by_rate[low][name].goodput - 0.04
        assert max(load.offered for load in by_rate[high][name].stations.values()) < 1.1


def test_without_deadlines_plain_forwarding_drowns_and_awareness_does_not(monkeypatch):
    monkeypatch.setattr(table_load, "DEADLINE_US", None)
    found = table_load.sweep(requests=60_000, loads=(0.2, 1.5))
    low, high = found.rates_rps
    assert found.at("forward", high).latency_us.p99 > 50 * found.at("forward", low).latency_us.p99
    assert found.at("load-aware forward", high).latency_us.p99 < 2 * found.at("load-aware forward", low).latency_us.p99
