"""Traces in batches: nothing depends on how they are cut, memory is bounded, an interrupt leaves a valid part."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import coinfer as ci
from coinfer.streaming import stream

REQUESTS = 30_000
NET = ci.Network.chain(
    {"d": "small", "c": "large"},
    delay_ms=[5],
    service_ms=[ci.service.Exponential(1), ci.service.Exponential(3)],
    instances=[2, 2],
)
HALF = (np.arange(50) % 2).astype(np.float32)
PREDS = ci.Predictions(
    {m: ci.ModelOutput(label=np.arange(50) % 3, confidence=HALF) for m in ("small", "large")},
    labels=np.arange(50) % 4 % 3,
)
FORWARD = ci.Forward(score="confidence", thresholds=[0.5])


def parts(rows, requests=REQUESTS, **more):
    return ci.Trace.poisson_batches(NET, rate_rps=1000, requests=requests, samples=50, seed=3, rows=rows, **more)


@pytest.mark.parametrize("engine", ["feed-forward", "hops", "events"])
def test_batches_of_any_size_give_the_same(engine, tmp_path):
    whole = ci.replay(
        ci.Trace.poisson(NET, rate_rps=1000, requests=REQUESTS, samples=50, seed=3), PREDS, NET, FORWARD, engine=engine
    )
    found = []
    for rows, threads in ((1000, 1), (7777, 2), (REQUESTS, 1), (1_000_000, 2)):
        path = tmp_path / f"{rows}.parquet"
        run = stream(parts(rows), PREDS, NET, FORWARD, engine=engine, outcomes=path, threads=threads)
        found.append(run.summary.to_dict())
        assert pq.read_table(path).drop_columns(["confidence"]).equals(whole.outcomes().drop_columns(["confidence"]))
    assert all(summary == found[0] for summary in found)
    exact = whole.summary.to_dict()
    for key in ("accuracy", "status", "price_usd", "queue_us", "service_us", "stations", "settled_by_node", "goodput"):
        assert found[0][key] == exact[key]
    for q, value in found[0]["latency_us"].items():
        assert value == pytest.approx(exact["latency_us"][q], rel=0 if q == "mean" else 1 / 512)


def test_a_trace_that_ends_in_the_middle_of_a_batch_is_finished_however_it_is_cut():
    """Where priorities differ no batch is formed ahead, and where they first do is no matter of parts."""
    batching = ci.Network.chain({"d": "small"}, service_ms=4)
    (deployment,) = batching.deployments
    batching = replace(
        batching,
        deployments=(replace(deployment, instances=1, max_batch=8, preferred_batch=(2, 4), batch_delay_us=50_000),),
    )
    n = 1003
    at = np.cumsum(np.random.default_rng(4).exponential(1.2e6, n)).astype(np.int64)
    levels = np.where(np.arange(n) < 300, 0, np.arange(n) % 3).astype(np.int32)
    for priority in (None, np.full(n, 2, np.int32), levels):
        trace = ci.Trace(at, ["d"] * n, np.arange(n) % 50, priority=priority)
        whole = ci.replay(trace, PREDS, batching, ci.Local()).summary
        assert whole.status["answered"] == n
        for rows in (1, 100, n):
            cut = [trace.slice(first, min(first + rows, n)) for first in range(0, n, rows)]
            assert stream(cut, PREDS, batching, ci.Local()).summary.stations == whole.stations


SCRIPT = """
import hashlib, sys
sys.path[:0] = {path!r}
from test_streaming import FORWARD, NET, PREDS, REQUESTS, parts
import coinfer as ci
from coinfer.streaming import stream
digest = hashlib.sha256()
for engine in ("feed-forward", "hops", "events"):
    run = stream(parts(1 << 20), PREDS, NET, FORWARD, engine=engine, outcomes={out!r}, threads=2)
    digest.update(run.summary.to_json().encode() + open({out!r}, "rb").read())
print(digest.hexdigest())
"""


def test_other_processes_give_the_same_bytes(tmp_path):
    """Hashes of strings differ between the two, so nothing may hang on the order of a set."""
    script = SCRIPT.format(path=[str(Path(__file__).parent)], out=str(tmp_path / "rows.parquet"))
    first, second = (
        subprocess.check_output([sys.executable, "-c", script], env=os.environ | changed)
        for changed in ({"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2", "COINFER_CPU": "baseline"})
    )
    assert first == second


def test_an_interrupt_leaves_a_valid_part(tmp_path):
    def interrupted():
        for at, part in enumerate(parts(1000)):
            if at == 7:
                raise KeyboardInterrupt
            yield part

    run = stream(interrupted(), PREDS, NET, FORWARD, outcomes=tmp_path / "rows.parquet")
    assert run.partial
    assert run.summary.engine.endswith("partial")
    assert run.summary.requests == sum(run.summary.status.values()) == 7000
    assert pq.read_table(tmp_path / "rows.parquet").num_rows == 7000


def test_progress_says_how_fast_and_how_long():
    seen = []
    stream(parts(10_000), PREDS, NET, FORWARD, requests=REQUESTS, progress=lambda *a: seen.append(a))
    assert [done for done, _, _ in seen] == [10_000, 20_000, 30_000]
    assert seen[-1][2] == 0
    assert all(rate > 0 for _, rate, _ in seen)


def test_what_is_not_kept_is_not_given():
    run = stream(parts(1000, 5000), PREDS, NET, FORWARD)
    with pytest.raises(ci.UnsupportedError, match="keeps no outcomes"):
        run.outcomes()
    with pytest.raises(ci.UnsupportedError, match="keeps no outcomes"):
        run.by_priority()
    with pytest.raises(ci.UnsupportedError, match="cannot explain"):
        run.explain(0)
    with pytest.raises(ci.BadValueError, match="holds no requests"):
        stream([], PREDS, NET, FORWARD)
    backwards = [ci.Trace([5], ["d"], [0]), ci.Trace([4], ["d"], [0])]
    with pytest.raises(ci.BadValueError, match="request 1 arrives before"):
        stream(backwards, PREDS, NET, FORWARD)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_bad_batch_is_named_whoever_checks_it(threads):
    bad = [ci.Trace([5], ["d"], [0]), ci.Trace([6], ["d"], [50])]
    with pytest.raises(ci.BadValueError, match="asks for sample 50"):
        stream(bad, PREDS, NET, FORWARD, threads=threads)
