"""A network file from measurement, and from what perf_analyzer exported; predictions from servers."""

import json

import numpy as np
import pytest

import coinfer as ci
from coinfer import service
from coinfer.errors import BadFileError, UnavailableError
from coinfer.live import LocalNetwork, collect, ladder, profile
from coinfer.live.profiling import Measured, _law, imported
from live_servers import chain, require_triton

CSV = """Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,Server Compute Input,\
Server Compute Infer,Server Compute Output,Client Recv,p50 latency
4,400,10,200,5000,40,9000,60,5,14000
1,100,10,200,50,30,8000,70,5,9000
"""


def network():
    return ci.Network.chain({"device": "small", "cloud": "large"}, delay_ms=[5], service_ms=[1, 2])


def measured(batch, mean_ms, cv=0.01):
    return Measured("m@n", batch, 1, 100, mean_ms, 0.01 * mean_ms, cv, mean_ms, mean_ms, 1.0)


def test_the_law_is_linear_over_batches_constant_or_lognormal_alone():
    law = _law([measured(b, 3.0 + 0.5 * b) for b in (1, 2, 4, 8)])
    assert isinstance(law, service.Linear)
    assert (law.base_ms, law.per_item_ms) == pytest.approx((3.0, 0.5))
    assert _law([measured(1, 4.0), measured(8, 3.9)]).per_item_ms == 0.0
    assert _law([measured(b, 2.0 * b - 0.1) for b in (1, 2, 4)]).base_ms == 0.0
    assert _law([measured(1, 4.0)]) == service.Constant(4.0)
    assert _law([measured(1, 4.0, cv=0.4)]) == service.LogNormal(4.0, 0.4)


def test_exports_of_perf_analyzer_are_read_at_their_lowest_load(tmp_path):
    (tmp_path / "a.csv").write_text(CSV)
    assert imported(network(), "large@cloud", tmp_path / "a.csv").deployment("large@cloud").service == service.Constant(
        8.1
    )
    took_ms = [10.0, 12.0, 8.0]
    requests = [{"timestamp": 1e9 * n, "response_timestamps": [1e9 * n + 1e6 * ms]} for n, ms in enumerate(took_ms)]
    slow = [{"timestamp": 0, "response_timestamps": [int(9e9)]}]
    said = {"experiments": [
        {"experiment": {"mode": "concurrency", "value": 8}, "requests": slow},
        {"experiment": {"mode": "concurrency", "value": 1}, "requests": requests},
    ]}  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(said))
    law = imported(network(), "large@cloud", tmp_path / "a.json").deployment("large@cloud").service
    assert isinstance(law, service.LogNormal)
    assert law.mean_ms == pytest.approx(10.0)
    assert law.cv == pytest.approx(np.std(took_ms) / 10.0)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "a,b\n1,2\n", "lacks the columns Concurrency"),
        ("a.csv", "", "is empty"),
        ("a.json", "{}", "holds no experiments"),
        ("a.json", '{"experiments": [{"requests": []}]}', "holds no answered requests"),
        ("a.json", "{", "cannot be read as an export of perf_analyzer"),
    ],
)
def test_other_files_are_refused(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(BadFileError, match=says):
        imported(network(), "large@cloud", tmp_path / name)


@pytest.mark.live
def test_profile_and_collect_on_real_servers_give_what_a_replay_needs(tmp_path):
    from coinfer.cli import main

    require_triton()
    net, data = chain(), ladder.images()
    with pytest.raises(UnavailableError, match="cannot be reached"):
        collect(net, data.asked)
    with LocalNetwork(net, tmp_path / "triton"):
        found = profile(net, data.asked, batches=(1, 4, 8), concurrency=(1, 4), precision=0.2, seconds=0.5)
        for name, pad_ms in (("tree@device", 4.0), ("mlp@edge", 8.0), ("ensemble@cloud", 20.0)):
            law = found.network.deployment(name).service
            assert isinstance(law, service.Linear)
            assert law.mean_ms >= 0.9 * pad_ms
            assert found.network.deployment(name).max_batch == 8
        assert found.network.model("mlp").request_kb == pytest.approx(0.256)
        assert found.network.model("mlp").answer_kb == pytest.approx(0.04)
        assert {(m.batch, m.concurrency) for m in found.measured} == {(1, 1), (1, 4), (4, 1), (8, 1)}
        assert "tree@device" in str(found)
        net.save(tmp_path / "network.toml")
        np.savez(tmp_path / "inputs.npz", inputs=data.asked[:100], labels=data.asked_labels[:100])
        common = [str(tmp_path / "inputs.npz"), "--network", str(tmp_path / "network.toml")]
        for command in (
            ["collect", *common, "--out", str(tmp_path / "predictions.parquet")],
            [
                *("profile", *common, "--out", str(tmp_path / "profiled.toml"), "--seconds", "0.2"),
                *("--precision", "0.5", "--table"),
            ],
        ):
            with pytest.raises(SystemExit) as ended:
                main(command)
            assert ended.value.code == 0
    predictions = ci.Predictions.open(tmp_path / "predictions.parquet")
    assert len(predictions) == 100
    assert predictions.accuracy("ensemble") > 0.95
    profiled = ci.Network.open(tmp_path / "profiled.toml")
    law = profiled.deployment("mlp@edge").service
    assert law.batch == (1, 2, 4, 8)
    assert min(law.at(8)) >= 7.0
    trace = ci.Trace.poisson(profiled, rate_rps=20, requests=200, samples=100)
    run = ci.replay(trace, predictions, profiled, ci.Forward(score="max_prob", threshold=0.9))
    assert run.summary.latency_us.p50 >= 3.5e3


def test_profile_without_a_server_says_what_it_needs(capsys):
    from coinfer.cli import main

    for command, says in (
        (["profile"], "which network?"),
        (["live"], "which samples?"),
        (["triton", "up", "x.toml"], "x.toml"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == 2
        assert says in capsys.readouterr().err
