"""Batches against an independent event-by-event simulator."""

from __future__ import annotations

import collections

import numpy as np
import pytest

import coinfer as ci
from reference_batching import Batcher

REQUESTS = 3000
LINE = ci.service.Linear(2.0, 0.25)
ONE = ci.Predictions({"m": ci.ModelOutput(label=[0, 1])}, labels=[0, 1])


def replayed(arrivals, levels=None, service=LINE, **deployment):
    node = ci.Node("here", 0)
    net = ci.Network([node], [], [], [ci.Deployment("m", "here", service=service, **deployment)])
    trace = ci.Trace(
        arrivals, ["here"] * len(arrivals), np.arange(len(arrivals)) % 2, priority=None if levels is None else levels
    )
    return ci.replay(trace, ONE, net, ci.Local())


@pytest.mark.filterwarnings("ignore::coinfer.OverloadWarning")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("instances", "max_batch", "preferred", "delay_us", "queue_max", "classes"),
    [
        (1, 8, (), 0, None, 1),
        (1, 8, (), 3000, None, 1),
        (1, 8, (4, 8), 3000, None, 1),
        (2, 8, (2, 6), 1000, None, 1),
        (2, 4, (3,), 0, 5, 1),
        (1, 8, (4,), 2500, 6, 3),
        (3, 16, (4, 8), 500, 0, 1),
        (1, 1, (), 0, 3, 2),
    ],
)
def test_batches_equal_the_reference(seed, instances, max_batch, preferred, delay_us, queue_max, classes):
    rng = np.random.default_rng(seed)
    rate = [0.3, 0.9, 2.0, 4.0][seed]  # from idle to drowning, requests per ms
    arrivals = np.cumsum(rng.exponential(1e6 / rate, REQUESTS)).astype(np.int64)
    if seed % 2:
        arrivals = arrivals // 10**6 * 10**6  # ties
    levels = rng.integers(1, classes + 1, REQUESTS).astype(np.int32) if classes > 1 else None
    run = replayed(
        arrivals,
        levels,
        instances=instances,
        max_batch=max_batch,
        preferred_batch=preferred,
        batch_delay_us=delay_us,
        queue_max=queue_max,
    )
    service = [round((2.0 + 0.25 * size) * 1e6) for size in range(1, max_batch + 1)]
    batcher = Batcher(service, instances, list(preferred), round(delay_us * 1e3), queue_max)
    start, sizes = batcher.run(arrivals.tolist(), None if levels is None else levels.tolist())
    out = run.outcomes()
    waited = [
        None if at is None else (at - arrived) / 1e3 for at, arrived in zip(start, arrivals.tolist(), strict=True)
    ]
    assert out["status"].to_pylist() == ["rejected" if at is None else "answered" for at in start]
    assert [w for w, s in zip(out["queue_us"].to_pylist(), start, strict=True) if s is not None] == [
        w for w in waited if w is not None
    ]
    load = run.summary.stations["m@here"]
    count = collections.Counter(sizes)
    assert load.batches == tuple(count[size] for size in range(1, max_batch + 1))
    assert load.rejected == start.count(None) == run.summary.status["rejected"]
    assert run.summary.engine.startswith("events")


def test_a_trace_that_ends_in_the_middle_of_a_batch_is_finished():
    run = replayed([0, 10, 20], instances=1, max_batch=8, preferred_batch=(8,), batch_delay_us=50_000)
    load = run.summary.stations["m@here"]
    assert run.summary.status["answered"] == 3
    assert load.batches == (0, 0, 1, 0, 0, 0, 0, 0)
    assert run.outcomes()["queue_us"].to_pylist() == [50_000.0, 49_999.99, 49_999.98]


def test_a_measured_table_serves_each_size_as_measured():
    """A table that holds a line is that line; one with several times per size draws each of them as often."""
    arrivals = np.cumsum(np.random.default_rng(1).exponential(6e5, REQUESTS)).astype(np.int64)
    line = ci.service.Table([1, 3, 8], [2.25, 2.75, 4.0])
    setting = {"max_batch": 8, "batch_delay_us": 2000}
    tables = [replayed(arrivals, service=law, **setting).outcomes() for law in (line, LINE)]
    assert tables[0].drop_columns(["confidence"]).equals(tables[1].drop_columns(["confidence"]))
    seen = ci.service.Table([1, 4], [[1, 2, 3, 4], [5, 6, 7, 8]])
    for max_batch in (1, 4):
        rows = replayed(np.arange(2000) * 10**10, service=seen, instances=1, max_batch=max_batch).outcomes()
        found = np.unique(rows["service_us"].to_numpy(), return_counts=True)
        assert found[0].tolist() == [1000, 2000, 3000, 4000]
        assert np.abs(found[1] - 500).max() < 100
    burst = replayed([0] * 4, service=seen, instances=1, max_batch=4, batch_delay_us=10).summary
    assert burst.service_us in (5000, 6000, 7000, 8000)
    assert burst.stations["m@here"].batches == (0, 0, 0, 1)
    with pytest.raises(ci.BadValueError, match="'m@here': service law 'table' was measured up to batches of 4"):
        replayed(arrivals, service=seen, max_batch=5)
