"""Traces in batches: nothing depends on how they are cut, memory is bounded, an interrupt leaves a valid part."""

from __future__ import annotations

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
    for rows, threads in ((1000, 1), (7777, 2), (REQUESTS, 1)):
        path = tmp_path / f"{rows}.parquet"
        run = stream(parts(rows), PREDS, NET, FORWARD, engine=engine, outcomes=path, threads=threads)
        found.append(run.summary.to_dict())
        assert pq.read_table(path).drop_columns(["confidence"]).equals(whole.outcomes().drop_columns(["confidence"]))
    assert found[0] == found[1] == found[2]
    exact = whole.summary.to_dict()
    for key in ("accuracy", "status", "price_usd", "queue_us", "service_us", "stations", "settled_by_node", "goodput"):
        assert found[0][key] == exact[key]
    for q, value in found[0]["latency_us"].items():
        assert value == pytest.approx(exact["latency_us"][q], rel=0 if q == "mean" else 1 / 512)


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
    with pytest.raises(ci.UnsupportedError, match="cannot explain"):
        run.explain(0)
    with pytest.raises(ci.BadValueError, match="holds no requests"):
        stream([], PREDS, NET, FORWARD)
    backwards = [ci.Trace([5], ["d"], [0]), ci.Trace([4], ["d"], [0])]
    with pytest.raises(ci.BadValueError, match="request 1 arrives before"):
        stream(backwards, PREDS, NET, FORWARD)
