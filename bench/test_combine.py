"""Combining four tables of probabilities against NumPy and Numba, on the same inputs in the same run.

Every contestant's labels are compared with ours before its time counts. Tables hold 640 MB together
(COINFER_BENCH_BYTES changes that); with ``--benchmark-disable`` the same checks run on small inputs. The floor is a
plain vector read of the same bytes.
"""

from __future__ import annotations

import os

import numba
import numpy as np
import pytest

import coinfer as ci
from coinfer._core import cpu

MEMBERS = 4
CLASSES = (2, 10, 100, 1000)
read_floor = getattr(cpu, "read_floor", None)


@pytest.fixture(scope="module", params=CLASSES, ids=lambda c: f"C={c}")
def tables(request):
    small = request.config.getoption("benchmark_disable")
    total = int(os.environ.get("COINFER_BENCH_BYTES", 1_000_000 if small else 640_000_000))
    classes = request.param
    rows = total // (4 * MEMBERS * classes)
    whole = np.empty((MEMBERS, rows, classes), np.float32)
    rng = np.random.default_rng(classes)
    for table in whole:
        rng.random(out=table, dtype=np.float32)
        table **= 4
        table /= table.sum(axis=1, keepdims=True)
    return whole


def numpy_whole(tables, how):
    if how == "mean":
        combined = tables.mean(axis=0)
    else:
        combined = np.log(np.maximum(tables, np.float32(2.0**-126))).mean(axis=0)
        combined -= combined.max(axis=1, keepdims=True)
        np.exp(combined, out=combined)
        combined /= combined.sum(axis=1, keepdims=True)
    return combined.argmax(axis=1).astype(np.int32), combined.max(axis=1)


def numpy_chunked(tables, how):
    rows, classes = tables.shape[1:]
    label, confidence = np.empty(rows, np.int32), np.empty(rows, np.float32)
    step = max(1, (1 << 20) // (4 * MEMBERS * classes))
    for first in range(0, rows, step):
        part = slice(first, first + step)
        label[part], confidence[part] = numpy_whole(tables[:, part], how)
    return label, confidence


@numba.njit(cache=False, fastmath=False)
def _numba_rows(tables, pool, label, confidence):
    members, rows, classes = tables.shape
    combined = np.empty(classes, np.float64)
    for row in range(rows):
        combined[:] = 0.0
        for m in range(members):
            for k in range(classes):
                p = tables[m, row, k]
                combined[k] += np.log(max(p, np.float32(2.0**-126))) if pool else p
        best = 0
        for k in range(1, classes):
            if combined[k] > combined[best]:
                best = k
        label[row] = best
        if pool:
            mass = 0.0
            for k in range(classes):
                mass += np.exp((combined[k] - combined[best]) / members)
            confidence[row] = 1.0 / mass
        else:
            confidence[row] = combined[best] / members


def numba_loop(tables, how):
    rows = tables.shape[1]
    label, confidence = np.empty(rows, np.int32), np.empty(rows, np.float32)
    _numba_rows(tables, how == "logpool", label, confidence)
    return label, confidence


def coinfer(tables, how):
    combined = ci.combine(list(tables), how)
    return combined.label, combined.confidence


def check(result, tables, how):
    label, confidence = result
    ours = ci.combine(list(tables), how)
    clear = ours.margin > 1e-5
    assert np.array_equal(label[clear], ours.label[clear])
    np.testing.assert_allclose(confidence, ours.confidence, atol=1e-5)


@pytest.mark.parametrize("how", ["mean", "logpool"])
@pytest.mark.parametrize("isa", ci.cpu.implementations()[1:] or ci.cpu.implementations())
def test_combine(benchmark, tables, how, isa):
    benchmark.group = f"combine, {how}, {MEMBERS} members, C={tables.shape[2]}"
    with ci.cpu.use(isa):
        result = benchmark.pedantic(coinfer, (tables, how), rounds=5, warmup_rounds=1)
    check(result, tables, how)
    benchmark.extra_info["bytes"] = tables.nbytes


@pytest.mark.parametrize("how", ["mean", "logpool"])
@pytest.mark.parametrize("peer", [numpy_chunked, numpy_whole, numba_loop])
def test_combine_peer(benchmark, tables, how, peer):
    benchmark.group = f"combine, {how}, {MEMBERS} members, C={tables.shape[2]}"
    check(benchmark.pedantic(peer, (tables, how), rounds=2, warmup_rounds=1), tables, how)
    benchmark.extra_info["bytes"] = tables.nbytes


@pytest.mark.skipif(read_floor is None, reason="this build does not measure the speed of reading")
@pytest.mark.parametrize("how", ["mean", "logpool"])
def test_floor(benchmark, tables, how):
    benchmark.group = f"combine, {how}, {MEMBERS} members, C={tables.shape[2]}"
    benchmark.pedantic(read_floor, (tables.reshape(-1),), rounds=5, warmup_rounds=1)
    benchmark.extra_info["bytes"] = tables.nbytes


@pytest.mark.benchmark(group="vote, 10 label-only members")
@pytest.mark.parametrize("contestant", ["coinfer", "bincount by row", "numba"])
def test_vote(benchmark, request, contestant):
    rows = 20_000 if request.config.getoption("benchmark_disable") else 1_000_000
    labels = np.random.default_rng(0).integers(0, 10, (10, rows), dtype=np.int32)
    ours = ci.combine(list(labels), "vote", classes=10).label

    @numba.njit(cache=False)
    def loop(said):
        out = np.empty(said.shape[1], np.int32)
        counts = np.empty(10, np.int64)
        for row in range(said.shape[1]):
            counts[:] = 0
            for m in range(said.shape[0]):
                counts[said[m, row]] += 1
            out[row] = np.argmax(counts)
        return out

    run = {
        "coinfer": lambda: ci.combine(list(labels), "vote", classes=10).label,
        # The logic of scikit-learn's VotingClassifier(voting="hard").predict.
        "bincount by row": lambda: np.apply_along_axis(lambda r: np.argmax(np.bincount(r)), 1, labels.T),
        "numba": lambda: loop(labels),
    }[contestant]
    slow = contestant == "bincount by row"
    assert np.array_equal(benchmark.pedantic(run, rounds=1 if slow else 3, warmup_rounds=0 if slow else 1), ours)
