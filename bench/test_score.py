"""Label, max_prob, margin and entropy of logits in one pass, beside NumPy, SciPy, Torch, Numba and the memory.

Every contestant's result is compared with ours before it is timed. The table has COINFER_BENCH_BYTES bytes (default 640
million, past every cache; one million with ``--benchmark-disable``). ``python bench/table_score.py`` prints the ratios.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

import coinfer as ci
import scoring_peers as peers
from coinfer import _core

CLASSES = [2, 10, 33, 100, 1000]


@pytest.fixture(scope="module")
def memory(request):
    small = request.config.getoption("benchmark_disable")
    size = int(float(os.environ.get("COINFER_BENCH_BYTES", 1e6 if small else 640e6)))
    return np.random.default_rng(0).standard_normal(size // 4, np.float32) * np.float32(3)


@pytest.fixture(params=CLASSES)
def table(request, memory):
    request.node.add_marker(pytest.mark.benchmark(group=f"score, {request.param} classes"))
    rows = memory.size // request.param
    return memory[: rows * request.param].reshape(rows, request.param)


def measure(benchmark, run, table, rounds):
    peers.check(run, table[:3000])
    out = peers.results(len(table))
    group = f"score, {table.shape[1]} classes"
    benchmark.group = group
    benchmark.pedantic(run, (table, out), rounds=rounds, warmup_rounds=1 if rounds > 1 else 0)
    benchmark.extra_info["rows"] = len(table)


@pytest.mark.parametrize("isa", ci.cpu.implementations())
def test_score(benchmark, table, isa):
    try:
        measure(benchmark, peers.coinfer(isa), table, 1 if isa == "baseline" else 5)
    finally:
        ci.cpu.force("auto")


@pytest.mark.parametrize("peer", peers.PEERS)
def test_score_peer(benchmark, table, peer):
    measure(benchmark, peers.PEERS[peer], table, 1)


def test_read_floor(benchmark, table):
    benchmark.group = f"score, {table.shape[1]} classes"
    benchmark.pedantic(_core.cpu.read_floor, (table.reshape(-1),), rounds=5, warmup_rounds=1)


def test_read_write_floor(benchmark, memory):
    benchmark.group = "score, 2 classes"
    out = peers.aligned(2 * memory.size)
    benchmark.pedantic(_core.cpu.read_write_floor, (memory, out), rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("rows", [1, 8, 64])
@pytest.mark.parametrize("how", ["score", "scores", "numpy"])
def test_one_small_call(benchmark, rows, how):
    benchmark.group = f"score, one call, {rows} x 10"
    z = np.random.default_rng(rows).standard_normal((rows, 10), np.float32)
    call = {"score": ci.score, "scores": ci.scores, "numpy": peers.with_numpy}[how]
    peers.check(peers.whole(peers.with_numpy), z)
    benchmark(call, z)
