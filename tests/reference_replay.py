"""Replay, written to be read: one request at a time, in Python integers. The specification of the direct engine.

Covers `Forward`, `Local`, `Remote` and the oracle on chains with one model per tier and constant times; states what a
request costs and where it ends without sharing a line with the engine.
"""

from __future__ import annotations

import math


def settle(scores, labels, thresholds, truth=None, oracle=False):
    """Return the stage where a sample settles; scores and labels are one value per stage."""
    last = len(scores) - 1
    if oracle:
        right = [stage for stage in range(last + 1) if labels[stage] == truth]
        return right[0] if right else 0
    for stage in range(last):
        if scores[stage] >= thresholds[stage]:
            return stage
    return last


def times_ns(delay_ms, service_ms, stage):
    """Return (network, service) nanoseconds of settling at a stage of a chain: up hop by hop, back all at once."""
    up = [round(ms * 1e6) for ms in delay_ms[:stage]]
    served = [round(ms * 1e6) for ms in service_ms[: stage + 1]]
    return 2 * sum(up), sum(served)


def replay(samples, scores, labels, truth, thresholds, delay_ms, service_ms, price_usd, oracle=False):
    """Return per-request dicts: stage, latency_ns, network_ns, service_ns, pico_usd, correct."""
    out = []
    for sample in samples:
        stage = settle([s[sample] for s in scores], [y[sample] for y in labels], thresholds, truth[sample], oracle)
        network_ns, service_ns = times_ns(delay_ms, service_ms, stage)
        out.append(
            {
                "stage": stage,
                "network_ns": network_ns,
                "service_ns": service_ns,
                "latency_ns": network_ns + service_ns,
                "pico_usd": sum(round(p * 1e12) for p in price_usd[: stage + 1]),
                "correct": int(labels[stage][sample] == truth[sample]),
            }
        )
    return out


def nearest_rank(values, q):
    """Return the smallest value that at least a share q does not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(q * len(ordered)), 1) - 1]
