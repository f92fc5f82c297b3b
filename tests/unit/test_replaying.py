from __future__ import annotations

import json

import numpy as np
import pytest

import coinfer as ci
from reference_replay import nearest_rank
from reference_replay import replay as reference

SAMPLES, REQUESTS = 400, 3000
DELAY, SERVICE, PRICE = [7.5, 31.25], [1.0, 2.5, 9.125], [0.0, 1e-6, 4.7e-5]
MODELS = ("small", "medium", "large")


def make(seed=0, confidences=64):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 5, SAMPLES)
    outputs = {}
    for model, accuracy in zip(MODELS, (0.6, 0.75, 0.9), strict=True):
        right = rng.random(SAMPLES) < accuracy
        label = np.where(right, truth, (truth + rng.integers(1, 5, SAMPLES)) % 5)
        confidence = (rng.integers(0, confidences, SAMPLES) / confidences).astype(np.float32)
        outputs[model] = ci.ModelOutput(label=label, confidence=confidence)
    return ci.Predictions(outputs, labels=truth)


@pytest.fixture(scope="module")
def preds():
    return make()


@pytest.fixture(scope="module")
def net():
    return ci.Network.chain(
        dict(zip(("device", "edge", "cloud"), MODELS, strict=True)),
        delay_ms=DELAY,
        price_usd=PRICE,
        service_ms=SERVICE,
    )


@pytest.fixture(scope="module")
def trace(net):
    return ci.Trace.poisson(net, rate_rps=100, requests=REQUESTS, samples=SAMPLES, seed=3)


def expected(preds, trace, thresholds, oracle=False, stages=3):
    return reference(
        trace.sample.tolist(),
        [preds[m].confidence.tolist() for m in MODELS[:stages]],
        [preds[m].label.tolist() for m in MODELS[:stages]],
        preds.labels.tolist(),
        thresholds,
        DELAY,
        SERVICE,
        PRICE,
        oracle,
    )


def check(run, rows):
    s = run.summary
    n = len(rows)
    assert s.requests == n
    assert s.status["answered"] == n
    assert sum(s.status.values()) == n
    assert s.accuracy == pytest.approx(sum(r["correct"] for r in rows) / n, abs=1e-15)
    assert s.goodput == s.accuracy
    latency = [r["latency_ns"] for r in rows]
    assert s.latency_us.mean == pytest.approx(sum(latency) / n / 1e3, rel=1e-12)
    for name, q in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)):
        assert getattr(s.latency_us, name) == nearest_rank(latency, q) / 1e3
    assert s.network_us == pytest.approx(sum(r["network_ns"] for r in rows) / n / 1e3, rel=1e-12)
    assert s.service_us == pytest.approx(sum(r["service_ns"] for r in rows) / n / 1e3, rel=1e-12)
    assert s.price_usd_total == pytest.approx(sum(r["pico_usd"] for r in rows) / 1e12, rel=1e-12)
    assert s.stages == pytest.approx(sum(r["stage"] + 1 for r in rows) / n, rel=1e-12)
    for stage, share in enumerate(s.settled_by_stage):
        assert share == sum(r["stage"] == stage for r in rows) / n
    o = run.outcomes()
    assert o["latency_us"].to_pylist() == [ns / 1e3 for ns in latency]
    assert o["price_usd"].to_pylist() == pytest.approx([r["pico_usd"] / 1e12 for r in rows], rel=1e-12)
    assert o["stages"].to_pylist() == [r["stage"] + 1 for r in rows]
    assert o["correct"].to_pylist() == [bool(r["correct"]) for r in rows]


@pytest.mark.parametrize("thresholds", [[0.5, 0.5], [0.0, 0.0], [2.0, 2.0], [0.25, 0.75], [2.0, -1.0]])
def test_forward_equals_the_reference(preds, net, trace, thresholds):
    run = ci.replay(trace, preds, net, ci.Forward(score="confidence", thresholds=thresholds))
    check(run, expected(preds, trace, thresholds))


def test_oracle_equals_the_reference(preds, net, trace):
    check(ci.replay(trace, preds, net, ci.SelectionOracle()), expected(preds, trace, None, oracle=True))


def test_local_is_the_first_stage_alone(preds, net, trace):
    check(ci.replay(trace, preds, net, ci.Local()), expected(preds, trace, [], stages=1))


@pytest.mark.parametrize("strategy", [ci.Remote("cloud"), ci.Remote(model="large")])
def test_remote_pays_the_links_and_one_model(preds, net, trace, strategy):
    s = ci.replay(trace, preds, net, strategy).summary
    assert s.latency_us.mean == s.latency_us.max == pytest.approx(2e3 * sum(DELAY) + 9125.0, rel=1e-15)
    assert s.price_usd == pytest.approx(4.7e-5, rel=1e-12)
    assert s.settled_by_node == {"device": 0.0, "edge": 0.0, "cloud": 1.0}


def test_thresholds_by_model_and_one_for_all_agree_with_the_list(preds, net, trace):
    runs = [
        ci.replay(trace, preds, net, strategy).summary.to_dict() | {"strategy": ""}
        for strategy in (
            ci.Forward(score="confidence", thresholds=[0.5, 0.5]),
            ci.Forward(score="confidence", thresholds={"small": 0.5, "medium": 0.5}),
            ci.Forward(score="confidence", threshold=0.5),
        )
    ]
    assert runs[0] == runs[1] == runs[2]


def test_vector_scores_decide_as_numpy(trace, net):
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 10, SAMPLES)
    logits = {m: rng.normal(size=(SAMPLES, 10)).astype(np.float32) * 2 for m in MODELS}
    preds = ci.Predictions({m: ci.ModelOutput(logits=z) for m, z in logits.items()}, labels=truth)
    run = ci.replay(trace, preds, net, ci.Forward(score="margin", thresholds=[0.4, 0.3]))
    scores = {m: ci.score(z, kind="margin") for m, z in logits.items()}
    stage = np.where(scores["small"] >= np.float32(0.4), 0, np.where(scores["medium"] >= np.float32(0.3), 1, 2))
    answer = np.stack([z.argmax(1) for z in logits.values()])[stage, np.arange(SAMPLES)]
    weight = np.bincount(trace.sample, minlength=SAMPLES)
    assert run.summary.accuracy == pytest.approx((weight * (answer == truth)).sum() / REQUESTS, abs=1e-15)
    assert run.summary.settled_by_stage == pytest.approx([(weight * (stage == s)).sum() / REQUESTS for s in range(3)])
    assert run.outcomes()["answer"].to_numpy().tolist() == answer[trace.sample].tolist()


def test_accuracy_interval_counts_samples_not_requests(preds, net):
    one = ci.Trace(np.arange(10_000), ["device"] * 10_000, np.arange(10_000) % 4)
    accuracy = ci.replay(one, preds, net, ci.Local()).summary.accuracy
    assert accuracy.n_effective == pytest.approx(4)
    assert accuracy.high - accuracy.low > 0.5
    assert float(accuracy) + 0 == accuracy
    skewed = ci.Trace(np.arange(4), ["device"] * 4, [0, 0, 0, 1])
    assert ci.replay(skewed, preds, net, ci.Local()).summary.accuracy.n_effective == pytest.approx(1.6)


@pytest.mark.parametrize("engine", ["count", "each"])
def test_unknown_labels_are_left_out_of_accuracy(net, engine):
    preds = make()
    labels = preds.labels.copy()
    labels[::3] = -1
    preds = ci.Predictions({m: preds[m] for m in MODELS}, labels=labels)
    deadline = np.full(REQUESTS, 1e9) if engine == "each" else None
    trace = ci.Trace(np.arange(REQUESTS), ["device"] * REQUESTS, np.arange(REQUESTS) % SAMPLES, deadline_us=deadline)
    s = ci.replay(trace, preds, net, ci.Local()).summary
    known = labels[trace.sample] >= 0
    assert ("counted" in s.engine) == (engine == "count")
    assert s.labelled == known.sum()
    assert s.accuracy == (preds["small"].label == labels)[trace.sample][known].mean()
    assert set(s.accuracy_by_class) == {"0", "1", "2", "3", "4"}
    assert s.accuracy_by_ingress["device"] == s.accuracy


def test_without_labels_there_is_no_accuracy(preds, net, trace):
    bare = ci.Predictions({m: preds[m] for m in MODELS})
    s = ci.replay(trace, bare, net, ci.Local()).summary
    assert s.accuracy is None
    assert s.goodput is None
    assert "accuracy" not in str(s)
    with pytest.raises(ci.UnsupportedError, match="true labels"):
        ci.replay(trace, bare, net, ci.SelectionOracle())


def test_deadlines_give_the_best_answer_so_far(preds, net):
    n = SAMPLES
    device_ms, edge_ms = 1.0, 1.0 + 2.5 + 2 * DELAY[0]
    for deadline_ms, late_stage in ((device_ms, 0), (edge_ms, 1), (0.5, None)):
        trace = ci.Trace(np.arange(n), ["device"] * n, np.arange(n), deadline_us=np.full(n, deadline_ms * 1e3))
        run = ci.replay(trace, preds, net, ci.Forward(score="confidence", thresholds=[2.0, 2.0]))
        o = run.outcomes()
        assert set(o["latency_us"].to_pylist()) == {deadline_ms * 1e3}
        if late_stage is None:
            assert run.summary.status["expired"] == n
            assert o["answer"].null_count == n
            assert run.summary.accuracy is None
            assert run.summary.goodput == 0.0
        else:
            assert run.summary.status["degraded"] == n
            assert o["answer"].to_numpy().tolist() == preds[MODELS[late_stage]].label.tolist()
            assert set(o["model"].to_pylist()) == {MODELS[late_stage]}
            assert "not started" in str(run.explain(0)) or late_stage == 1
    generous = ci.Trace(np.arange(n), ["device"] * n, np.arange(n), deadline_us=np.full(n, 1e6))
    free = ci.Trace(np.arange(n), ["device"] * n, np.arange(n))
    strategy = ci.Forward(score="confidence", thresholds=[0.5, 0.5])
    a = ci.replay(generous, preds, net, strategy).summary.to_dict()
    b = ci.replay(free, preds, net, strategy).summary.to_dict()
    assert a | {"engine": ""} == b | {"engine": ""}


def test_a_model_without_an_answer_is_passed_and_the_best_so_far_stands(net):
    preds = ci.Predictions(
        {
            "small": ci.ModelOutput(label=[1, -1, -1, 1], confidence=[0.1, 0.9, 0.9, 0.1]),
            "medium": ci.ModelOutput(label=[-1, 1, -1, 0], confidence=[0.9, 0.9, 0.9, 0.9]),
            "large": ci.ModelOutput(label=[-1, 0, -1, 0], confidence=[0.9, 0.9, 0.9, 0.9]),
        },
        labels=[1, 1, 1, 1],
    )
    trace = ci.Trace([0, 1, 2, 3], ["device"] * 4, [0, 1, 2, 3])
    run = ci.replay(trace, preds, net, ci.Forward(score="confidence", thresholds=[0.5, 0.5]))
    o = run.outcomes()
    assert o["status"].to_pylist() == ["degraded", "answered", "failed", "answered"]
    assert o["answer"].to_pylist() == [1, 1, None, 0]
    assert o["model"].to_pylist() == ["small", "medium", None, "medium"]
    assert o["stages"].to_pylist() == [3, 2, 3, 2]
    assert run.summary.status == {"answered": 2, "degraded": 1, "rejected": 0, "expired": 0, "failed": 1}
    assert run.summary.settled_by_model == {"small": 0.25, "medium": 0.5, "large": 0.0}  # as `model` above
    assert run.summary.settled_by_node == {"device": 0.0, "edge": 0.5, "cloud": 0.5}
    assert run.summary.labelled == 3
    assert run.summary.accuracy == pytest.approx(2 / 3)
    assert run.summary.goodput == 0.5
    assert run.summary.unsure == {"small": 2, "medium": 2, "large": 2}


def test_an_abstention_is_never_settled_on_while_a_stage_remains_and_never_right():
    nodes = [ci.Node("device", 0), ci.Node("cloud", 1)]
    net = ci.Network(
        nodes,
        [ci.Link(between=("device", "cloud"), delay_ms=1.0)],
        [ci.Model("small", abstain=("unknown",)), ci.Model("large", abstain=("unknown",))],
        [ci.Deployment("small", "device"), ci.Deployment("large", "cloud")],
    )
    classes = ("yes", "no", "unknown")
    preds = ci.Predictions(
        {
            "small": ci.ModelOutput(
                label=["unknown", "yes", "unknown"], confidence=[0.99, 0.99, 0.99], classes=classes
            ),
            "large": ci.ModelOutput(label=["no", "no", "unknown"], confidence=[0.5, 0.5, 0.5], classes=classes),
        },
        labels=["no", "yes", "unknown"],
        classes=classes,
    )
    trace = ci.Trace([0, 1, 2], ["device"] * 3, [0, 1, 2])
    run = ci.replay(trace, preds, net, ci.Forward(score="confidence", thresholds=[0.5]))
    o = run.outcomes()
    assert o["answer_name"].to_pylist() == ["no", "yes", "unknown"]
    assert o["stages"].to_pylist() == [2, 1, 2]
    assert o["correct"].to_pylist() == [True, True, False]
    assert "abstains" in str(run.explain(0))


def test_controls_differ_in_the_ways_they_travel(preds):
    tiers = dict(zip(("device", "edge", "cloud"), MODELS, strict=True))
    trace = ci.Trace([0], ["device"], [0])
    always_on = ci.Forward(score="confidence", thresholds=[2.0, 2.0])
    latency = {}
    for control in ("path", "ingress"):
        net = ci.Network.chain(tiers, delay_ms=[10, 40], service_ms=[1, 2, 3], control=control)
        latency[control] = ci.replay(trace, preds, net, always_on).summary.latency_us.mean
    assert latency == {"path": (50 * 2 + 6) * 1e3, "ingress": (10 * 2 + 50 * 2 + 6) * 1e3}


def test_links_take_time_and_money_for_the_payload(preds):
    net = ci.Network(
        [ci.Node("device", 0), ci.Node("cloud", 1)],
        [ci.Link(between=("device", "cloud"), delay_ms=5.0, bandwidth_mbps=8.0, price_usd_per_mb=0.01)],
        [ci.Model("large", request_kb=100.0, answer_kb=1.0)],
        [ci.Deployment("large", "cloud", price_usd=1e-4)],
    )
    s = ci.replay(ci.Trace([0], ["device"], [0]), preds, net, ci.Remote("cloud")).summary
    assert s.latency_us.mean == 5e3 + 100e3 + 5e3 + 1e3  # 100 kB at 8 Mbit/s take 100 ms
    assert s.price_usd == pytest.approx(1e-4 + 0.1 * 0.01 + 0.001 * 0.01, rel=1e-12)


def test_measured_service_times_come_from_the_predictions(preds):
    times = np.linspace(100, 900, SAMPLES).astype(np.float32)
    measured = ci.Predictions(
        {"small": ci.ModelOutput(label=preds["small"].label, service_us=times), "large": preds["large"]},
        labels=preds.labels,
    )
    net = ci.Network.chain(
        {"device": "small", "cloud": "large"}, delay_ms=[1.0], service_ms=[ci.service.Measured(scale=2.0), 1.0]
    )
    trace = ci.Trace(np.arange(SAMPLES), ["device"] * SAMPLES, np.arange(SAMPLES))
    run = ci.replay(trace, measured, net, ci.Local())
    assert run.outcomes()["service_us"].to_pylist() == (np.rint(2.0 * times.astype(np.float64) * 1e3) / 1e3).tolist()
    with pytest.raises(ci.UnsupportedError, match=r"'small@device'.*no service_us"):
        ci.replay(trace, preds, net, ci.Local())


@pytest.mark.parametrize(
    ("law", "mean_ms", "cv"),
    [
        (ci.service.Exponential(4.0), 4.0, 1.0),
        (ci.service.LogNormal(4.0, 0.5), 4.0, 0.5),
        (ci.service.Gamma(4.0, 2.0), 4.0, 2.0),
        (ci.service.Gamma(4.0, 0.25), 4.0, 0.25),
        (ci.service.Linear(3.0, 1.0), 4.0, 0.0),
    ],
)
def test_service_laws_have_their_moments(preds, law, mean_ms, cv):
    net = ci.Network.chain({"device": "small"}, service_ms=[law])
    trace = ci.Trace.poisson(net, rate_rps=1, requests=200_000, samples=SAMPLES, seed=0)
    us = ci.replay(trace, preds, net, ci.Local(), seed=1).outcomes()["service_us"].to_numpy()
    assert us.mean() / 1e3 == pytest.approx(mean_ms, rel=5 * cv / np.sqrt(len(us)) + 1e-9)
    assert us.std() / us.mean() == pytest.approx(cv, rel=0.05, abs=1e-9)


def test_jitter_is_exponential_and_keyed_by_link_and_request(preds):
    net = ci.Network(
        [ci.Node("device", 0), ci.Node("cloud", 1)],
        [ci.Link(between=("device", "cloud"), delay_ms=5.0, jitter_ms=2.0)],
        [],
        [ci.Deployment("large", "cloud")],
    )
    trace = ci.Trace.poisson(net, rate_rps=1, requests=100_000, samples=SAMPLES, seed=0)
    us = ci.replay(trace, preds, net, ci.Remote("cloud"), seed=1).outcomes()["network_us"].to_numpy()
    assert us.min() >= 1e4
    assert us.mean() == pytest.approx(1e4 + 4e3, rel=0.01)
    assert us.std() == pytest.approx(2e3 * np.sqrt(2), rel=0.02)


def test_a_result_is_a_pure_function_of_its_inputs(preds):
    net = ci.Network.chain(
        dict(zip(("device", "edge", "cloud"), MODELS, strict=True)),
        delay_ms=DELAY,
        service_ms=[ci.service.Exponential(1.0), ci.service.LogNormal(2.0, 0.5), 5.0],
    )
    trace = ci.Trace.poisson(net, rate_rps=100, requests=300_000, samples=SAMPLES, seed=3)
    strategy = ci.Forward(score="confidence", threshold=0.5)
    whole = ci.replay(trace, preds, net, strategy, seed=9)
    assert ci.replay(trace, preds, net, strategy, seed=9, threads=2).summary == whole.summary
    assert ci.replay(trace, preds, net, strategy, seed=10).summary != whole.summary
    table = whole.outcomes()
    assert whole.outcomes(1000, 2000).equals(table.slice(1000, 1000))
    assert table["latency_us"].to_numpy().mean() == pytest.approx(whole.summary.latency_us.mean, rel=1e-12)
    # Draws are keyed by request and deployment: a strategy that asks the first model alone sees the same times there.
    local = ci.replay(trace, preds, net, ci.Local(), seed=9).outcomes()
    first = table["stages"].to_numpy() == 1
    assert local["service_us"].to_numpy()[first].tolist() == table["service_us"].to_numpy()[first].tolist()


def test_large_tables_are_counted_by_code_with_the_same_result(preds, net):
    few = ci.Trace.poisson(net, rate_rps=100, requests=5000, samples=SAMPLES, seed=3)
    wide = make(seed=2)
    repeated = wide.select(np.tile(np.arange(SAMPLES), 400))
    strategy = ci.Forward(score="confidence", threshold=0.5)
    a = ci.replay(few, wide, net, strategy).summary.to_dict()
    b = ci.replay(few, repeated, net, strategy).summary.to_dict()
    assert "counted" in a.pop("engine")
    assert "request by request" in b.pop("engine")
    assert a.pop("unsure") == b.pop("unsure")
    assert a == b


def test_explain_names_every_input_and_reason(preds, net, trace):
    run = ci.replay(trace, preds, net, ci.Forward(score="confidence", thresholds=[0.5, 0.5]))
    for i in (0, 17, REQUESTS - 1):
        told = run.explain(i)
        row = run.outcomes(i, i + 1).to_pylist()[0]
        assert len(told.steps) == row["stages"]
        assert told.steps[-1]["settles"]
        assert told.outcome["latency_us"] == row["latency_us"]
        assert told.steps[0]["score"] == preds["small"].confidence[trace.sample[i]]
        assert json.dumps(told.to_dict())
        assert f"request {i}" in str(told)
    with pytest.raises(ci.BadValueError, match=f"0 to {REQUESTS - 1}"):
        run.explain(REQUESTS)


def test_quantiles_are_exact(preds, net, trace):
    run = ci.replay(trace, preds, net, ci.Forward(score="confidence", thresholds=[0.5, 0.5]))
    latency = run.outcomes()["latency_us"].to_numpy()
    q = np.linspace(0, 1, 101)
    assert run.latency_quantiles(q).tolist() == np.quantile(latency, q, method="inverted_cdf").tolist()
    with pytest.raises(ci.BadValueError, match="between 0 and 1"):
        run.latency_quantiles(1.5)


def test_a_quantile_is_the_rank_that_its_share_names(preds, net):
    """0.55 * 20 is 11.000000000000002 in float64; the rank is 11 all the same."""
    for n in (20, 25, 100, 128, 1000):
        trace = ci.Trace(np.arange(n) * 1000, ["device"] * n, np.zeros(n, np.int32))
        run = ci.replay(trace, preds, net, ci.Local())
        run._latencies_ns, run._latency_ranks = np.arange(1, n + 1) * 1000, np.arange(1, n + 1, dtype=np.uint64)
        ranks = np.arange(1, n + 1)
        assert np.array_equal(run.latency_quantiles(ranks / n), ranks)
        assert np.array_equal(run.latency_quantiles([k / n for k in ranks]), ranks)


def test_compare_shares_and_orders(preds, net, trace):
    strategies = {"local": ci.Local(), "cloud": ci.Remote("cloud"), "f": ci.Forward(score="confidence", threshold=0.5)}
    seen = []
    both = ci.compare(
        trace, preds, net, strategies | {"oracle": ci.SelectionOracle()}, progress=lambda *a: seen.append(a)
    )
    assert list(both.runs) == ["local", "cloud", "f", "oracle"]
    assert seen == [("local", 0, 4), ("cloud", 1, 4), ("f", 2, 4), ("oracle", 3, 4), ("", 4, 4)]
    for name, strategy in strategies.items():
        alone = ci.replay(trace, preds, net, strategy).summary.to_dict()
        assert both[name].summary.to_dict() | {"strategy": ""} == alone | {"strategy": ""}
    assert "oracle" not in both.pareto("latency")
    assert both.pareto("price")[0] == "local"
    assert both.table().num_rows == 4
    assert json.dumps(both.to_dict())
    assert "local" in str(both)
    with pytest.raises(ci.UnknownNameError, match="did you mean 'local'"):
        both["locl"]
    with pytest.raises(ci.BadValueError, match="at least one"):
        ci.compare(trace, preds, net, {})


def test_many_ingress_nodes_share_decisions_and_differ_in_cost(preds):
    nodes = [ci.Node(f"d{i}", 0) for i in range(3)] + [ci.Node("cloud", 1)]
    links = [ci.Link(between=(f"d{i}", "cloud"), delay_ms=10.0 * (i + 1)) for i in range(3)]
    deployments = [ci.Deployment("small", f"d{i}") for i in range(3)] + [ci.Deployment("large", "cloud")]
    net = ci.Network(nodes, links, [], deployments)
    trace = ci.Trace.poisson(net, rate_rps=10, requests=3000, samples=SAMPLES, seed=1)
    run = ci.replay(trace, preds, net, ci.Forward(score="confidence", thresholds=[0.5]))
    o = run.outcomes()
    for i in range(3):
        mine = np.array(o["ingress"].to_pylist()) == f"d{i}"
        sent = o["stages"].to_numpy()[mine] == 2
        assert set(o["latency_us"].to_numpy()[mine][sent]) == {20e3 * (i + 1)}
        node = np.array(o["node"].to_pylist())[mine]
        assert set(node[~sent]) == {f"d{i}"}
        assert set(node[sent]) == {"cloud"}
    assert sum(run.summary.settled_by_node.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (
            lambda p, n, t: ci.replay(t, p, n, ci.Forward(score="margin", threshold=0.5)),
            ci.UnsupportedError,
            "'small'.*needs a vector",
        ),
        (lambda p, n, t: ci.replay(t, p, n, ci.Forward(score="confidence")), ci.UnsupportedError, "no thresholds yet"),
        (
            lambda p, n, t: ci.replay(t, p, n, ci.Forward(score="confidence", thresholds=[0.5])),
            ci.BadValueError,
            "needs 2",
        ),
        (
            lambda p, n, t: ci.replay(t, p, n, ci.Forward(score="confidence", thresholds={"small": 0.5})),
            ci.UnknownNameError,
            "'medium'",
        ),
        (lambda p, n, t: ci.replay(t, p, n, ci.Remote("clod")), ci.UnknownNameError, "did you mean 'cloud'"),
        (lambda p, n, t: ci.replay(t, p, n, ci.Remote(model="hughe")), ci.UnknownNameError, "hughe"),
        (lambda p, n, t: ci.replay(t, p.select(np.arange(10)), n, ci.Local()), ci.BadValueError, "hold 10 samples"),
        (lambda p, n, t: ci.replay(t.slice(0, 0), p, n, ci.Local()), ci.BadValueError, "no requests"),
        (lambda p, n, t: ci.replay(t, p, n, ci.Local(), seed=-1), ci.BadValueError, "seed"),
        (lambda p, n, t: ci.replay(t, p, n, ci.Local("large")), ci.UnsupportedError, "'device' has none"),
        (lambda p, n, t: ci.replay(ci.Trace([0], ["moon"], [0]), p, n, ci.Local()), ci.UnknownNameError, "moon"),
        (
            lambda p, n, t: ci.replay(t, ci.Predictions({"small": p["small"]}), n, ci.Remote("cloud")),
            ci.UnknownNameError,
            "'large' is deployed at 'cloud'",
        ),
        (lambda p, n, t: ci.Forward(score="margn"), ci.UnknownNameError, "did you mean 'margin'"),
        (lambda p, n, t: ci.Forward(thresholds=[0.5], threshold=0.5), ci.BadValueError, "not both"),
        (lambda p, n, t: ci.Forward(thresholds=["x"]), ci.BadValueError, "must be a number, not 'x'"),
        (lambda p, n, t: ci.Forward(threshold=float("nan")), ci.BadValueError, "must be a number"),
        (lambda p, n, t: ci.Forward(threshold=0.5, temperature=0), ci.BadValueError, "positive"),
        (lambda p, n, t: ci.Remote(), ci.BadValueError, "needs the name"),
    ],
)
def test_bad_input_is_a_sentence_that_says_where(preds, net, trace, act, error, words):
    with pytest.raises(error, match=words):
        act(preds, net, trace)


@pytest.mark.parametrize("endless", [np.inf, np.nan, 1e17])
def test_a_request_without_a_deadline_may_stand_beside_one_that_has_one(preds, net, endless):
    trace = ci.Trace([0, 0], ["device"] * 2, [0, 0], deadline_us=[endless, 1e6])
    run = ci.replay(trace, preds, net, ci.Remote("cloud"))
    assert run.summary.status["answered"] == 2
    assert run.outcomes()["latency_us"].to_pylist() == [2e3 * sum(DELAY) + 9125.0] * 2


def test_an_answer_that_jitter_holds_up_past_the_deadline_is_not_given(preds):
    net = ci.Network(
        [ci.Node("device", 0), ci.Node("cloud", 1)],
        [ci.Link(("device", "cloud"), delay_ms=1, jitter_ms=20)],
        [],
        [ci.Deployment("large", "cloud")],
    )
    times = np.zeros(500, np.int64)
    samples = np.arange(500) % SAMPLES
    free = ci.replay(ci.Trace(times, "device", samples), preds, net, ci.Remote("cloud")).outcomes()
    in_time = free["latency_us"].to_numpy() <= 30_000
    assert 0.2 < in_time.mean() < 0.8
    trace = ci.Trace(times, "device", samples, deadline_us=30_000)
    run = ci.replay(trace, preds, net, ci.Remote("cloud"))
    assert run.summary.status["answered"] == in_time.sum()
    assert run.summary.status["expired"] == (~in_time).sum()
    assert run.outcomes()["answer"].is_null().to_numpy().tolist() == (~in_time).tolist()


def test_a_large_answer_that_is_never_sent_makes_nothing_late(preds):
    # The edge could not send its answer back in time, but it forwards, and the cloud's answer is small.
    net = ci.Network(
        [ci.Node("device", 0), ci.Node("edge", 1), ci.Node("cloud", 2)],
        [ci.Link(("device", "edge"), delay_ms=1, bandwidth_mbps=8), ci.Link(("edge", "cloud"), delay_ms=1)],
        [ci.Model("medium", answer_kb=1000), ci.Model("large")],
        [ci.Deployment("medium", "edge"), ci.Deployment("large", "cloud")],
    )
    trace = ci.Trace([0], "device", [0], deadline_us=100_000)
    run = ci.replay(trace, preds, net, ci.Forward(score="confidence", threshold=2.0))
    assert run.summary.status["answered"] == 1
    assert run.summary.latency_us.max == 4_000
