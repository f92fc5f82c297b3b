"""Poisson traces: drawn by coinfer, and by NumPy in pieces that stay in the cache.

Each draws the next piece of one trace, again and again: arrivals, ingress nodes and samples, into memory that is warm.
Both give the same numbers, or no time counts.
"""

from __future__ import annotations

import numpy as np
import pytest

import coinfer as ci
from billion import thirteen_stations

ROWS, SAMPLES, RATE = 1 << 16, 10_000, 8000.0
NET = thirteen_stations()
NODES = len(NET.ingress)


def streams():
    return [np.random.Generator(np.random.Philox(np.random.SeedSequence(0, spawn_key=(i,)))) for i in range(3)]


def by_coinfer():
    batches = ci.Trace.poisson_batches(NET, rate_rps=RATE, requests=2**40, samples=SAMPLES, rows=ROWS)

    def draw():
        batch = next(batches)
        return batch.arrival_ns, batch.ingress, batch.sample

    return draw


def by_numpy():
    gaps, places, picks = streams()
    times, arrival, now = np.empty(ROWS), np.empty(ROWS, np.int64), 0.0

    def draw():
        nonlocal now
        gaps.standard_exponential(out=times)
        np.multiply(times, 1e9 / RATE, out=times)
        times[0] += now
        np.cumsum(times, out=times)
        now = times[-1]
        np.rint(times, out=times)
        np.copyto(arrival, times, casting="unsafe")
        return arrival, *(r.integers(n, size=ROWS, dtype=np.int32) for r, n in ((places, NODES), (picks, SAMPLES)))

    return draw


@pytest.mark.benchmark(group="draw 65,536 requests")
@pytest.mark.parametrize("contestant", [by_coinfer, by_numpy])
def test_poisson(benchmark, contestant):
    mine, theirs = by_coinfer(), contestant()
    for _ in range(3):
        for expected, found in zip(mine(), theirs(), strict=True):
            np.testing.assert_array_equal(found, expected)
    benchmark(theirs)
