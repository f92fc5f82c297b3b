"""All pairs of thresholds of a three-tier cascade, against NumPy evaluating pair after pair on the same scores.

NumPy cannot be given all 65,536 pairs over ten million samples, so it evaluates a few and its time is multiplied: the
extrapolation is linear, and it is one, in `extra_info`. Its sums are compared with the grid's before any time counts.
"""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from coinfer._core import plan as core
from coinfer._core import sweep

LEVELS = 256
PAIRS_OF_NUMPY = 4


@pytest.fixture(scope="module")
def cascade(request):
    small = request.config.getoption("benchmark_disable")
    rows = int(os.environ.get("COINFER_BENCH_ROWS", 50_000 if small else 10_000_000))
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 10, rows).astype(np.int32)
    outputs = []
    for accuracy in (0.7, 0.85, 0.95):
        label = np.where(rng.random(rows) < accuracy, truth, (truth + 1) % 10).astype(np.int32)
        outputs.append(core.Outputs("label_confidence", None, label, rng.beta(4, 1, rows).astype(np.float32), None))
    members = [(i, i, "confidence", 1.0, 1.0, None, []) for i in range(3)]
    plan = core.Plan(members, [(i, 1, 0.5, 0.0, None) for i in range(3)], "last", False, 10)
    evidence = core.gather(plan, outputs, 2)
    right = np.ascontiguousarray(evidence.label == truth).view(np.uint8)
    some = np.arange(0, rows, max(1, rows // 100_000), dtype=np.uint32)
    levels = [sweep.levels(evidence, stage, LEVELS, some) for stage in (0, 1)]
    return evidence, right, levels


def numpy_pair(scores, right, first, second):
    stage = np.where(scores[0] >= first, 0, np.where(scores[1] >= second, 1, 2))
    hits = np.where(stage == 0, right[0], np.where(stage == 1, right[1], right[2]))
    return np.bincount(stage, minlength=3), int(hits.sum())


@pytest.mark.benchmark(group="all pairs of thresholds, 3 tiers")
def test_every_pair_in_one_pass(benchmark, cascade):
    evidence, right, levels = cascade
    flat = right.reshape(-1)
    settled, (hits,) = benchmark.pedantic(sweep.grid, (evidence, levels, [flat]), rounds=5, warmup_rounds=1)
    pairs = len(levels[0]) * len(levels[1])
    assert settled.shape == (3, pairs)
    rng = np.random.default_rng(1)
    started = time.perf_counter()
    for at in rng.integers(0, pairs, PAIRS_OF_NUMPY):
        first, second = levels[0][at // len(levels[1])], levels[1][at % len(levels[1])]
        counts, total = numpy_pair(evidence.score, right, first, second)
        assert np.array_equal(settled[:, at], counts)
        assert hits[at] == total
    each = (time.perf_counter() - started) / PAIRS_OF_NUMPY
    benchmark.extra_info |= {
        "rows": evidence.rows,
        "pairs": pairs,
        "numpy_seconds_per_pair": each,
        "numpy_seconds_extrapolated": each * pairs,
    }


@pytest.mark.benchmark(group="all pairs of thresholds, 3 tiers")
def test_numpy_one_pair(benchmark, cascade):
    evidence, right, levels = cascade
    counts, _ = benchmark.pedantic(numpy_pair, (evidence.score, right, levels[0][99], levels[1][99]), rounds=3)
    assert counts.sum() == evidence.rows


@pytest.mark.benchmark(group="the best pair, exactly")
def test_exact_pair(benchmark, cascade):
    evidence, right, levels = cascade
    rows = np.arange(min(evidence.rows, 1_000_000), dtype=np.uint32)
    cost = np.array([1, 2, 10], np.int64)
    flat = right.reshape(-1)
    bound = int(0.9 * len(rows))
    found = benchmark.pedantic(sweep.cheapest_pair, (evidence, cost, flat, bound, [], rows), rounds=2)
    settled, (hits,) = sweep.grid(evidence, levels, [flat], rows)
    on_grid = (cost @ settled)[hits >= bound].min()
    assert found[4]
    assert found[2] <= on_grid
    benchmark.extra_info |= {"rows": len(rows), "gap_of_the_grid": float(on_grid / found[2] - 1)}
