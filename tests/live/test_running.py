"""Live runs on three real Triton servers: the contract, point by point, the journal, and faults of every kind.

Each test states which promise of `coinfer.live.router` it holds the router to. Servers are started once; a test that
breaks one starts it again.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from urllib.request import urlopen

import numpy as np
import pytest

import coinfer as ci
from coinfer.errors import BadFileError, BadValueError, UnavailableError, UnknownNameError
from coinfer.live import LiveRun, LocalNetwork, Settings, collect, ladder, resume, run
from live_servers import chain, require_triton

pytestmark = pytest.mark.live

STRATEGY = ci.Forward(score="max_prob", threshold=0.9)
STATUS = {"answered": 1, "degraded": 2, "rejected": 3, "expired": 4, "failed": 5}


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    require_triton()
    with LocalNetwork(chain(), tmp_path_factory.mktemp("triton")) as local:
        yield local


@pytest.fixture(scope="module")
def data():
    return ladder.images()


@pytest.fixture(autouse=True)
def _healthy(request):
    """Leave every server up and every model well."""
    yield
    if "local" in request.fixturenames:
        local = request.getfixturevalue("local")
        for server in local.servers.values():
            server.signal(signal.SIGCONT)
            if server.pid is None:
                server.start()
        for deployment in local.network.deployments:
            local.fault(deployment.name)


def go(local, data, out, *, network=None, strategy=STRATEGY, rate=100.0, requests=200, deadline_ms=300.0, **options):
    network = network or local.network
    deadline_us = None if deadline_ms is None else deadline_ms * 1e3
    trace = ci.Trace.poisson(
        network, rate_rps=rate, requests=requests, samples=len(data.asked), seed=1, deadline_us=deadline_us
    )
    return run(network, strategy, data.asked, labels=data.asked_labels, trace=trace, out=out, **options)


def counts(result):
    return {name: n for name, n in result.summary.status.items() if n}


def check(result, *, requests=200, overrun_ms=25.0):
    """What holds for every run, whatever failed: one outcome each, no late answer, equal decisions."""
    raw = result.outcomes_raw()
    assert sorted(raw.column("request").to_pylist()) == list(range(requests)), "exactly one outcome per request"
    assert sum(counts(result).values()) == requests
    decided = result.redecide()
    assert decided.identical == decided.requests == requests, str(decided)
    if result.trace.deadline_us is not None:
        rows = raw.column("request").to_numpy()
        late_ms = (raw.column("latency_us").to_numpy() - result.trace.deadline_us[rows]) / 1e3
        assert np.quantile(late_ms, 0.999) <= overrun_ms * patience(), f"{late_ms.max():.1f} ms late"


def patience():
    """Stretch bounds on time where other work shares the processors."""
    return float(os.environ.get("COINFER_PATIENCE", "4"))


def after(seconds, action):
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer


# Healthy ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "strategy",
    [STRATEGY, ci.Local(), ci.Remote("cloud"), ci.Ensemble("mean"), ci.Ensemble("vote")],
    ids=lambda s: s.kind + getattr(s, "how", ""),
)
def test_a_healthy_run_answers_everything_and_replays_equal(local, data, tmp_path, strategy):
    result = go(local, data, tmp_path / "run", strategy=strategy, deadline_ms=2000.0, rate=60.0, requests=120)
    check(result, requests=120)
    assert result.complete
    assert counts(result) == {"answered": 120}
    from coinfer.live import page

    text = page({"this run": result}, tmp_path / "page.html").read_text()
    assert "How requests ended" in text
    assert "<td>120</td>" in text
    assert result.summary.accuracy > 0.7
    outcomes = result.outcomes()
    assert outcomes.column("request").to_pylist() == list(range(120))
    assert outcomes.column("attempts").to_numpy().min() >= 1


def test_live_decisions_are_those_of_a_replay_on_collected_predictions(local, data, tmp_path):
    predictions = collect(local.network, data.asked, labels=data.asked_labels)
    assert predictions.models == ("tree", "mlp", "ensemble")
    assert predictions.accuracy("ensemble") > 0.98
    result = go(local, data, tmp_path / "run", deadline_ms=None)
    check(result)
    replayed = ci.replay(result.trace, predictions, local.network, STRATEGY).outcomes()
    mine = result.outcomes()
    same = np.array(mine.column("answer").to_pylist()) == np.array(replayed.column("answer").to_pylist())
    assert same.mean() > 0.99, "batching may change bits of an answer, rarely the answer"
    assert np.mean(mine.column("stages").to_numpy() == replayed.column("stages").to_numpy()) > 0.99
    distance = result.against(predictions)
    assert min(distance.same_label.values()) > 0.99
    assert max(distance.largest.values()) < 1e-3


def test_http_and_grpc_give_the_same_answers(data, tmp_path):
    require_triton()
    network = chain("http")
    device, edge, cloud = network.deployments
    edge = replace(edge, tensors=replace(edge.tensors, output={str(k): f"P{k}" for k in range(10)}))
    network = replace(network, models=(), deployments=(device, edge, cloud))
    with LocalNetwork(network, tmp_path / "triton") as local:
        strategy = ci.Ensemble("mean")
        result = go(local, data, tmp_path / "run", strategy=strategy, requests=60, deadline_ms=2000.0, rate=50.0)
        check(result, requests=60)
        assert counts(result) == {"answered": 60}
        assert result.summary.accuracy > 0.9


def test_closed_loop_keeps_its_concurrency(local, data, tmp_path):
    result = run(
        local.network,
        ci.Local(),
        data.asked,
        labels=data.asked_labels,
        concurrency=4,
        requests=200,
        out=tmp_path / "run",
    )
    check(result)
    raw = result.outcomes_raw()
    begin = raw.column("started_us").to_numpy()
    end = raw.column("intended_us").to_numpy() + raw.column("latency_us").to_numpy()
    most = max(int(((begin <= t) & (end > t)).sum()) for t in begin)
    assert most == 4


def test_links_are_emulated_both_ways(local, data, tmp_path):
    fast = go(local, data, tmp_path / "a", strategy=ci.Remote("cloud"), requests=40, rate=20.0, deadline_ms=None)
    slow = go(
        local, data, tmp_path / "b", strategy=ci.Remote("cloud"), requests=40, rate=20.0, deadline_ms=None,
        settings=Settings(emulate_links=True),
    )  # fmt: skip
    added_ms = (slow.summary.latency_us.p50 - fast.summary.latency_us.p50) / 1e3
    assert 15.0 <= added_ms <= 20.0 + 10.0 * patience(), "two links, 10 ms one way"


# The contract -----------------------------------------------------------------------------------------------


def test_point_1_a_deadline_is_kept_and_nothing_starts_that_cannot_finish(local, data, tmp_path):
    result = go(
        local, data, tmp_path / "run", strategy=ci.Forward(score="max_prob", threshold=1.1), deadline_ms=18.0, rate=40.0
    )
    check(result)
    found = counts(result)
    assert found.get("degraded", 0) > 100, found
    asked = set(result.stage_times().column("deployment").to_pylist())
    times = result.stage_times()
    cloud = sum(name == "ensemble@cloud" for name in times.column("deployment").to_pylist())
    assert "tree@device" in asked
    assert cloud < 20, "20 ms do not fit into what is left of 18"


def test_points_2_and_3_the_local_answer_stands_when_the_server_above_is_killed(local, data, tmp_path):
    timer = after(0.7, local.at("cloud").kill)
    result = go(local, data, tmp_path / "run")
    timer.join()
    check(result)
    found = counts(result)
    assert found["degraded"] > 0
    assert set(found) <= {"answered", "degraded"}, "none that had a local answer is lost"


def test_point_4_a_retry_goes_to_another_replica(data, tmp_path):
    require_triton()
    network = chain(replicas=2)
    with LocalNetwork(network, tmp_path / "triton") as local:
        timer = after(0.7, local.servers[network.node("device").endpoints[0]].kill)
        result = go(local, data, tmp_path / "run", network=network, strategy=ci.Local())
        timer.join()
        check(result)
        found = counts(result)
        assert found["answered"] >= 195, found
        times = result.stage_times()
        assert max(times.column("attempts").to_pylist()) > 1, "somebody had to try twice"
        used = times.column("endpoint").to_pylist()
        assert {0, 1} <= set(used), "both replicas are used"


def test_point_5_a_hedge_wins_over_a_hanging_replica(data, tmp_path):
    require_triton()
    network = chain(replicas=2)
    with LocalNetwork(network, tmp_path / "triton") as local:
        slow = local.servers[network.node("device").endpoints[0]]
        timer = after(1.0, lambda: slow.signal(signal.SIGSTOP))
        options = {"network": network, "strategy": ci.Local(), "requests": 200, "deadline_ms": 1000.0}
        result = go(local, data, tmp_path / "run", settings=Settings(hedge=True), **options)
        timer.join()
        check(result)
        hedged = sum(result.stage_times().column("hedged").to_pylist())
        assert hedged > 0
        assert counts(result)["answered"] >= 190


def test_point_6_the_breaker_opens_and_closes_within_2_s_of_the_return(local, data, tmp_path):
    cloud, back = local.at("cloud"), []
    timers = [after(0.5, cloud.kill), after(1.5, lambda: (cloud.start(), back.append(time.time())))]
    result = go(local, data, tmp_path / "run", strategy=ci.Remote("cloud"), rate=60.0, requests=600, deadline_ms=500.0)
    for timer in timers:
        timer.join()
    check(result, requests=600)
    times = result.stage_times()
    sent = np.array(times.column("attempts").to_pylist())
    assert (sent == 0).sum() > 5, "an open breaker sends nothing"
    gauges = (tmp_path / "run/metrics-0.prom").read_text().splitlines()
    began = next(float(x.split()[1]) for x in gauges if x.startswith("coinfer_load_started_timestamp_seconds "))
    raw = result.outcomes_raw()
    since_s = raw.column("intended_us").to_numpy() / 1e6 - (back[0] - began)
    status = raw.column("status").to_numpy()[since_s >= 2.0]
    assert len(status) > 60, "it came back too late to judge"
    assert np.mean(status == STATUS["answered"]) >= 0.95, "two seconds after its return it is used as before"


def test_point_7_what_does_not_fit_is_rejected_and_counted(local, data, tmp_path):
    result = go(
        local, data, tmp_path / "run", strategy=ci.Remote("cloud"), rate=2000.0, deadline_ms=None,
        settings=Settings(in_flight_max=20),
    )  # fmt: skip
    check(result)
    found = counts(result)
    assert found["rejected"] > 50
    assert found["answered"] >= 20


def test_point_8_a_changed_journal_is_found_out(local, data, tmp_path):
    result = go(local, data, tmp_path / "run", requests=60)
    check(result, requests=60)
    import pyarrow as pa

    path = tmp_path / "run/answers-0.arrows"
    with path.open("rb") as file:
        table = pa.ipc.open_stream(file).read_all()
    vectors = [
        b"" if v is None else np.roll(np.frombuffer(v, np.float32), 1).tobytes() for v in table["vector"].to_pylist()
    ]
    changed = table.set_column(table.schema.get_field_index("vector"), "vector", pa.array(vectors, pa.binary()))
    with path.open("wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(changed)
    decided = LiveRun.open(tmp_path / "run").redecide()
    assert decided.identical < decided.requests
    assert decided.differences


# Faults -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hang", "restart", "sleep", "nan", "shape", "error"])
def test_faults_of_the_top_server_cost_no_local_answer(local, data, tmp_path, kind):
    cloud, _network = local.at("cloud"), local.network
    timers = []
    match kind:
        case "hang":
            timers = [
                after(0.5, lambda: cloud.signal(signal.SIGSTOP)),
                after(1.2, lambda: cloud.signal(signal.SIGCONT)),
            ]
        case "restart":
            timers = [after(0.4, lambda: (cloud.stop(), cloud.start()))]
        case "sleep":
            timers = [after(0.4, lambda: local.fault("ensemble@cloud", sleep_ms=600))]
        case _:
            timers = [after(0.4, lambda: local.fault("ensemble@cloud", **{kind: True}))]
    result = go(local, data, tmp_path / "run", strategy=ci.Forward(score="max_prob", threshold=0.97))
    for timer in timers:
        timer.join()
    check(result)
    found = counts(result)
    assert set(found) <= {"answered", "degraded"}, found
    assert found.get("degraded", 0) > 0, found


def test_a_full_queue_of_the_server_is_a_rejection(data, tmp_path):
    require_triton()
    network = chain(queue_max=2, max_batch=1)
    with LocalNetwork(network, tmp_path / "triton") as local:
        result = go(
            local, data, tmp_path / "run", network=network, strategy=ci.Remote("cloud"), rate=150.0, deadline_ms=500.0
        )
        check(result)
        reasons = result.stage_times().column("reason").to_pylist()
        assert reasons.count("REJECTED") > 20
        upward = ci.Forward(score="max_prob", threshold=0.999)
        result = go(local, data, tmp_path / "up", network=network, strategy=upward, rate=100.0)
        check(result)
        found = counts(result)
        assert set(found) <= {"answered", "degraded"}, found
        assert found["degraded"] > 0, found


def test_a_server_that_is_absent_at_the_start_is_used_when_it_comes(local, data, tmp_path):
    local.at("cloud").kill()
    with pytest.raises(UnavailableError, match=r"ensemble@cloud at grpc://.* cannot be reached"):
        go(local, data, tmp_path / "none")
    assert not (tmp_path / "none").exists(), "nothing was begun"
    timer = after(0.5, local.at("cloud").start)
    network = type(local.network)(
        local.network.nodes,
        local.network.links,
        tuple(ci.Model(m, classes=[str(k) for k in range(10)]) for m in ("tree", "mlp", "ensemble")),
        local.network.deployments,
        control="ingress",
    )
    result = go(local, data, tmp_path / "run", network=network, absent="wait", requests=500)
    timer.join()
    check(result, requests=500)
    where = result.outcomes().column("node").to_pylist()
    assert "cloud" not in where[:20]
    assert "cloud" in where[300:]


# Stopping and going on --------------------------------------------------------------------------------------

ROUTER = """
import sys
import numpy as np
import coinfer as ci
from coinfer.live import ladder, run
if __name__ == "__main__":
    network = ci.Network.open(sys.argv[1])
    data = ladder.images()
    trace = ci.Trace.poisson(network, rate_rps=100.0, requests=400, samples=len(data.asked), seed=1, deadline_us=300e3)
    strategy = ci.Forward(score="max_prob", threshold=0.9)
    run(network, strategy, data.asked, labels=data.asked_labels, trace=trace, out=sys.argv[2])
"""


def started(local, tmp_path):
    local.network.save(tmp_path / "network.toml")
    command = [sys.executable, "-c", ROUTER, str(tmp_path / "network.toml"), str(tmp_path / "run")]
    process = subprocess.Popen(command)
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        outcomes = tmp_path / "run/outcomes-0.arrows"
        if outcomes.exists() and outcomes.stat().st_size > 3000:
            return process
        time.sleep(0.02)
    process.kill()
    pytest.fail("the router did not get going")


def executed(server, model):
    """Ask a server how many requests of a model it has executed."""
    with urlopen(f"http://127.0.0.1:{server.http_port}/v2/models/{model}/stats", timeout=5) as reply:
        return json.load(reply)["model_stats"][0]["inference_count"]


def test_after_kill_9_the_rest_is_sent_again_and_every_request_has_one_outcome(local, data, tmp_path):
    device, warm_up = local.at("device"), 3
    already = executed(device, "tree")
    process = started(local, tmp_path)
    time.sleep(0.4)
    process.kill()
    process.wait()
    before = LiveRun.open(tmp_path / "run")
    had = len(before.outcomes_raw())
    assert 0 < had < 400
    result = resume(tmp_path / "run", data.asked)
    check(result, requests=400)
    assert result.segments == 2
    assert result.complete
    resent = sum(result.outcomes().column("resent").to_pylist())
    assert 0 < resent < 400 - had, "only what had begun may have been sent before"
    assert executed(device, "tree") - already <= 400 + 2 * warm_up + resent, "and of that all is marked"
    assert resume(tmp_path / "run", data.asked).segments == 2, "nothing is left to do"
    with pytest.raises(BadValueError, match="other samples"):
        resume(tmp_path / "run", data.asked[:10])


def test_sigterm_drains_and_leaves_a_readable_run(local, data, tmp_path):
    process = started(local, tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    result = LiveRun.open(tmp_path / "run")
    ended = len(result.outcomes_raw())
    assert 0 < ended < 400
    assert result.redecide().identical == ended
    begun = result.started()
    assert len(begun) == ended, "what was started has ended"
    assert resume(tmp_path / "run", data.asked).complete


# Watching ---------------------------------------------------------------------------------------------------


def test_a_shadow_decides_and_sends_nothing(local, data, tmp_path):
    result = go(local, data, tmp_path / "run", shadow=ci.Forward(score="max_prob", threshold=0.5), deadline_ms=2000.0)
    check(result)
    steps = result.table("steps", 0).to_pylist()
    last = {row["request"]: row for row in steps if row["kind"] == "step"}
    assert all(row["shadow_status"] == 1 for row in last.values()), "a laxer threshold is always decided on the way"
    alone = go(local, data, tmp_path / "alone", deadline_ms=2000.0)
    sent = [r.outcomes().column("attempts").to_numpy().sum() for r in (result, alone)]
    assert abs(int(sent[0]) - int(sent[1])) < 20, "no attempts are made for a shadow"


def test_audits_ask_the_last_stage_about_a_share(local, data, tmp_path):
    result = go(local, data, tmp_path / "run", settings=Settings(audit=0.3), deadline_ms=2000.0)
    check(result)
    audits = result.table("audits", 0).to_pylist()
    assert 30 <= len(audits) <= 90
    assert {row["propensity"] for row in audits} == {0.3}
    truth = [data.asked_labels[result.trace.sample[row["request"]]] for row in audits]
    assert np.mean([row["label"] == t for row, t in zip(audits, truth, strict=True)]) > 0.9


def test_metrics_add_up(local, data, tmp_path):
    from coinfer.live.triton import free_ports

    (port,) = free_ports(1)
    seen = []

    def scrape():
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
            seen.append(reply.read().decode())

    timer = after(1.0, scrape)
    go(local, data, tmp_path / "run", metrics=f":{port}")
    timer.join()
    text = seen[0]
    last = (tmp_path / "run/metrics-0.prom").read_text().splitlines()
    assert sum(float(x.split()[-1]) for x in last if x.startswith("coinfer_requests_total{")) == 200
    assert "coinfer_requests_in_flight 0" in last
    for name in ("coinfer_requests_total", "coinfer_attempts_total", "coinfer_endpoint_breaker_open"):
        assert f"# TYPE {name}" in text
    done = sum(float(x.split()[-1]) for x in text.splitlines() if x.startswith("coinfer_requests_total{"))
    (timed,) = (
        float(x.split()[-1]) for x in text.splitlines() if x.startswith("coinfer_request_duration_seconds_count")
    )
    assert 0 < done == timed < 200


def test_nothing_is_left_behind(local, data, tmp_path):
    def open_files():
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    go(local, data, tmp_path / "a", requests=50)
    files, threads = open_files(), threading.active_count()
    for n in range(3):
        go(local, data, tmp_path / f"b{n}", requests=50)
    assert open_files() <= files + 2
    assert threading.active_count() <= threads + 1


# Bad input --------------------------------------------------------------------------------------------------


def test_bad_input_is_refused_before_any_load(local, data, tmp_path):
    network = local.network
    out = tmp_path / "run"

    def with_deployment(**changes):
        tensors = replace(network.deployments[0].tensors, **changes)
        return replace(
            network, deployments=(replace(network.deployments[0], tensors=tensors), *network.deployments[1:])
        )

    cases = [
        (with_deployment(model="forest"), data.asked, UnknownNameError, "is there but serves no model 'forest'"),
        (with_deployment(input="IMG"), data.asked, UnknownNameError, "no input 'IMG'"),
        (with_deployment(output="PROB"), data.asked, UnknownNameError, "no output 'PROB'; did you mean 'PROBS'"),
        (network, data.asked[:, :60], BadValueError, r"shape \[any, 64\], but one sample has shape \[60\]"),
        (network, data.asked.astype(complex), BadValueError, "must be an array of numbers"),
        (network, {"other": data.asked}, UnknownNameError, "hold nothing for 'tree@device'"),
    ]
    for net, rows, error, says in cases:
        with pytest.raises(error, match=says):
            run(net, STRATEGY, rows, concurrency=1, out=out)
    with pytest.raises(BadValueError, match="deadline_ms must be a finite number > 0"):
        run(network, STRATEGY, data.asked, concurrency=1, deadline_ms=0.0, out=out)
    with pytest.raises(BadValueError, match='write control = "ingress"'):
        run(ci.Network.chain({"a": "tree"}), STRATEGY, data.asked, concurrency=1, out=out)
    with pytest.raises(BadValueError, match="give a trace"):
        run(network, STRATEGY, data.asked, out=out)
    assert not out.exists()
    run(network, ci.Local(), data.asked, labels=data.asked_labels, concurrency=1, requests=5, out=out)
    with pytest.raises(BadFileError, match="holds a run already"):
        run(network, ci.Local(), data.asked, concurrency=2, requests=5, out=out)

    def damaged(name, change, says):
        whole = (out / name).read_bytes()
        (out / name).write_bytes(change(whole))
        with pytest.raises(BadFileError, match=says):
            LiveRun.open(out).redecide()
        (out / name).write_bytes(whole)

    row = np.int64([0, 1, 2, 3]).tobytes()  # the column of requests
    damaged("outcomes-0.arrows", lambda held: held.replace(row, row[:-8] + b"\xff" * 8), r"column 'request' holds -1")
    damaged("steps-0.arrows", lambda held: held.replace(b"openstep", b"\xff" * 8), r"damaged after 0 rows: .*UTF8")
    damaged("manifest.json", lambda held: held.replace(b'"seed"', b'"seeds"'), r"is damaged: 'seed' holds None")
    damaged("labels.npy", lambda held: b"", "cannot be read as labels")
    (out / "outcomes-0.arrows").write_bytes(b"not arrow at all")
    with pytest.raises(BadFileError, match=r"outcomes-0\.arrows: cannot be read as a journal"):
        LiveRun.open(out).outcomes_raw()
    (out / "manifest.json").write_text("{")
    with pytest.raises(BadFileError, match="is not the manifest of a live run"):
        LiveRun.open(out)
    with pytest.raises(BadFileError, match="is not the folder of a live run"):
        LiveRun.open(tmp_path / "nothing")


def test_the_command_line_runs_resumes_and_replays(local, data, tmp_path):
    from coinfer.cli import main

    local.network.save(tmp_path / "network.toml")
    np.savez(tmp_path / "inputs.npz", inputs=data.asked, labels=data.asked_labels)

    def coinfer(*arguments):
        from contextlib import redirect_stdout
        from io import StringIO

        said = StringIO()
        with redirect_stdout(said), pytest.raises(SystemExit) as ended:
            main([str(a) for a in arguments])
        return ended.value.code, said.getvalue()

    common = (tmp_path / "inputs.npz", "--network", tmp_path / "network.toml", "--strategy", "forward:max_prob:0.9")
    code, said = coinfer("live", *common, "--rate", 100, "--requests", 60, "--out", tmp_path / "run", "--json")
    assert code == 0
    assert json.loads(said)["complete"] is True
    code, said = coinfer("replay", "--from", tmp_path / "run", "--json")
    assert (code, json.loads(said)["identical"]) == (0, 60)
    assert coinfer("live", *common, "--concurrency", 1, "--deadline-ms", 0, "--out", tmp_path / "x")[0] == 2
    assert coinfer("replay", "--from", tmp_path / "x")[0] == 2


def test_inside_a_running_loop_it_says_so(local, data, tmp_path):
    async def inside():
        with pytest.raises(BadValueError, match="event loop of its own"):
            run(local.network, ci.Local(), data.asked, concurrency=1, out=tmp_path / "run")

    asyncio.run(inside())
