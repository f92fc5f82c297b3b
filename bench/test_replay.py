"""Decisions, replay and tuning against NumPy and Numba, on the same inputs in the same run.

Every contestant's result is compared with ours before its time counts. The number of rows follows COINFER_BENCH_ROWS
(default ten million, past every cache); with ``--benchmark-disable`` the same checks run on small inputs.
"""

from __future__ import annotations

import os

import numba
import numpy as np
import pytest

import coinfer as ci
from coinfer._core import plan as core


@pytest.fixture(scope="module")
def rows(request):
    small = request.config.getoption("benchmark_disable")
    return int(os.environ.get("COINFER_BENCH_ROWS", 50_000 if small else 10_000_000))


# Decisions: where every sample settles, one threshold per stage.

THRESHOLDS = np.array([0.7, 0.6, 0.5], np.float32)


@pytest.fixture(scope="module")
def scores(rows):
    return np.random.default_rng(0).random((4, rows), np.float32)


def decide_numpy_chunked(scores, out):
    step = 65_536
    for first in range(0, scores.shape[1], step):
        part = scores[:, first : first + step]
        settled = np.full(part.shape[1], 3, np.uint8)
        for stage in (2, 1, 0):
            settled[part[stage] >= THRESHOLDS[stage]] = stage
        out[first : first + step] = settled


@numba.njit(cache=False)
def decide_numba_loop(scores, thresholds, out):
    for row in range(scores.shape[1]):
        stage = 0
        while stage < 3 and not scores[stage, row] >= thresholds[stage]:
            stage += 1
        out[row] = stage


def decide_numba(scores, out):
    decide_numba_loop(scores, THRESHOLDS, out)


def decide_coinfer(scores, out):
    core.settle(scores, THRESHOLDS, out)


@pytest.mark.parametrize("isa", ci.cpu.implementations())
@pytest.mark.benchmark(group="decisions, 4 stages")
def test_decide(benchmark, scores, isa):
    out = np.empty(scores.shape[1], np.uint8)
    with ci.cpu.use(isa):
        benchmark.pedantic(decide_coinfer, (scores, out), rounds=7, warmup_rounds=1)
    peer = np.empty_like(out)
    decide_numpy_chunked(scores, peer)
    assert np.array_equal(out, peer)
    benchmark.extra_info["rows"] = scores.shape[1]


@pytest.mark.parametrize("peer", [decide_numpy_chunked, decide_numba])
@pytest.mark.benchmark(group="decisions, 4 stages")
def test_decide_peer(benchmark, scores, peer):
    out = np.empty(scores.shape[1], np.uint8)
    benchmark.pedantic(peer, (scores, out), rounds=3, warmup_rounds=1)
    ours = np.empty_like(out)
    decide_coinfer(scores, ours)
    assert np.array_equal(out, ours)
    benchmark.extra_info["rows"] = scores.shape[1]


# Replay: a trace over a three-tier chain, summary only; evidence is gathered inside the call.

STRATEGY = ci.Forward(score="confidence", thresholds=[0.7, 0.6])


@pytest.fixture(scope="module")
def world(rows):
    rng = np.random.default_rng(1)
    samples = max(rows // 10, 1000)
    truth = rng.integers(0, 10, samples).astype(np.int32)
    outputs = {}
    for name, accuracy in (("small", 0.7), ("medium", 0.85), ("large", 0.95)):
        right = rng.random(samples) < accuracy
        label = np.where(right, truth, (truth + 1) % 10).astype(np.int32)
        outputs[name] = ci.ModelOutput(label=label, confidence=rng.random(samples, np.float32))
    preds = ci.Predictions(outputs, labels=truth)
    net = ci.Network.chain(
        {"device": "small", "edge": "medium", "cloud": "large"},
        delay_ms=[10, 40],
        price_usd=[0, 1e-6, 1e-4],
        service_ms=[2, 5, 20],
    )
    return ci.Trace.poisson(net, rate_rps=1000, requests=rows, samples=samples, seed=0), preds, net


def replay_coinfer(trace, preds, net):
    s = ci.replay(trace, preds, net, STRATEGY).summary
    return float(s.accuracy), s.latency_us.mean, s.price_usd, s.latency_us.p99


def replay_numpy(trace, preds, net):
    """The same summary with whole-array NumPy: decisions per sample, lookups per request."""
    del net
    first = preds["small"].confidence >= np.float32(0.7)
    second = preds["medium"].confidence >= np.float32(0.6)
    stage = np.where(first, 0, np.where(second, 1, 2))
    label = np.stack([preds[m].label for m in preds.models])[stage, np.arange(len(preds))]
    settled = stage[trace.sample]
    latency = np.array([2.0, 27.0, 127.0])[settled] * 1e3
    price = np.array([0.0, 1e-6, 1.01e-4])[settled]
    right = (label == preds.labels)[trace.sample]
    return right.mean(), latency.mean(), price.mean(), np.quantile(latency, 0.99, method="inverted_cdf")


@pytest.mark.benchmark(group="replay, 3 tiers, summary")
@pytest.mark.parametrize("contestant", [replay_coinfer, replay_numpy])
def test_replay(benchmark, world, contestant):
    result = benchmark.pedantic(contestant, world, rounds=5, warmup_rounds=1)
    assert result == pytest.approx(replay_coinfer(*world), rel=1e-9)
    benchmark.extra_info["rows"] = len(world[0])


# The same with a deadline or a random service time per request: no two outcomes are shared, each request is delivered.


@pytest.fixture(scope="module", params=["deadlines", "random service times"])
def single(request, world):
    trace, preds, net = world
    if request.param == "deadlines":
        deadline_us = np.random.default_rng(2).integers(1_000, 200_000, len(trace))
        trace = ci.Trace(trace.arrival_ns, trace.ingress, trace.sample, deadline_us=deadline_us, nodes=trace.nodes)
    else:
        net = ci.Network.chain(
            {"device": "small", "edge": "medium", "cloud": "large"},
            delay_ms=[10, 40],
            price_usd=[0, 1e-6, 1e-4],
            service_ms=[ci.service.Exponential(mean_ms=mean) for mean in (2, 5, 20)],
        )
    return request.param, trace, preds, net


@numba.njit(cache=False)
def deliver_numba_loop(sample, deadline_ns, score, label, truth, ends):
    delay = (0, 10_000_000, 40_000_000)
    back = (0, 10_000_000, 50_000_000)
    service = (2_000_000, 5_000_000, 20_000_000)
    price = (0, 1_000_000, 100_000_000)
    random = len(deadline_ns) == 0
    latency_sum, pico_usd, right, ended = 0, 0, 0, 0
    for request in range(len(sample)):
        row = sample[request]
        deadline = np.int64(2**62) if random else deadline_ns[request]
        now, consulted, in_time, late = 0, 0, 0, False
        for stage in range(3):
            arrives = now + delay[stage]
            if arrives >= deadline:
                late = True
                break
            takes = np.int64(np.random.exponential(service[stage])) if random else service[stage]  # noqa: NPY002
            now = arrives + takes
            pico_usd += price[stage]
            consulted += 1
            if now + back[stage] <= deadline:
                in_time = consulted
            if stage == 2 or score[stage, row] >= THRESHOLDS[stage]:
                break
        if consulted > 0:
            now += back[consulted - 1]
        if late or now > deadline:
            now, consulted = deadline, in_time
        latency_sum += now
        ends[request] = now  # the quantiles need every latency
        if consulted > 0:
            ended += 1
            right += label[consulted - 1, row] == truth[row]
    return right / ended, latency_sum / len(sample) / 1e3, pico_usd / len(sample) / 1e12


def deliver_numba(trace, preds, net):
    del net
    score = np.stack([preds[m].confidence for m in preds.models])
    label = np.stack([preds[m].label for m in preds.models])
    deadline_ns = np.empty(0, np.int64) if trace.deadline_us is None else trace.deadline_us.astype(np.int64) * 1000
    ends = np.empty(len(trace), np.int64)
    means = deliver_numba_loop(trace.sample, deadline_ns, score, label, preds.labels, ends)
    return *means, np.partition(ends, int(np.ceil(0.99 * len(ends))) - 1)[int(np.ceil(0.99 * len(ends))) - 1] / 1e3


@pytest.mark.parametrize("contestant", [replay_coinfer, deliver_numba])
def test_deliver_each_request(benchmark, single, contestant):
    how, trace, preds, net = single
    benchmark.group = f"replay, 3 tiers, request by request, {how}"
    result = benchmark.pedantic(contestant, (trace, preds, net), rounds=3, warmup_rounds=1)
    # Draws differ, so random times agree in the mean only.
    within = 1e-9 if how == "deadlines" else 10 / len(trace) ** 0.5
    assert result == pytest.approx(replay_coinfer(trace, preds, net), rel=within)
    benchmark.extra_info["rows"] = len(trace)


# Tuning: every operating point of one threshold.


def front_coinfer(preds, net):
    front = ci.tune(ci.Forward(score="confidence", models=("small", "large")), preds, net, split=None).front
    return front["accuracy"].to_numpy(), front["forwarded_share"].to_numpy()


def front_numpy(preds, net):
    del net
    score = preds["small"].confidence
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    cut = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) + 1
    gain = (preds["small"].label == preds.labels).astype(np.int64) - (preds["large"].label == preds.labels)
    base = np.count_nonzero(preds["large"].label == preds.labels)
    right = base + np.concatenate([[0], np.cumsum(gain[order])[cut - 1]])
    served = np.concatenate([[0], cut])
    return right / len(score), (len(score) - served) / len(score)


@pytest.mark.benchmark(group="tuning, all operating points of one threshold")
@pytest.mark.parametrize("contestant", [front_coinfer, front_numpy])
def test_tune(benchmark, world, contestant):
    _, preds, net = world
    accuracy, forwarded = benchmark.pedantic(contestant, (preds, net), rounds=3, warmup_rounds=1)
    expected = front_coinfer(preds, net)
    assert np.array_equal(accuracy, expected[0])
    assert np.array_equal(forwarded, expected[1])
    benchmark.extra_info["rows"] = len(preds)
