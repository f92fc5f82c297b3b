"""``coinfer train demo``, small: from scratch to a report, exits that replay, and a repository for live."""

import json

import pytest

import coinfer as ci
from coinfer.cli import main

pytest.importorskip("torch")


@pytest.fixture
def coinfer(capsys):
    """Run ``coinfer train demo`` in this process, which has imported torch; give exit code, output and complaints."""

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main(["train", "demo", *map(str, arguments)])
        return left.value.code, *capsys.readouterr()

    return run


def test_the_demo_goes_from_scratch_to_a_report_and_exits_that_replay(coinfer, tmp_path):
    code, out, complaints = coinfer(
        "--rounds", 2, "--requests", 50_000, "--report", tmp_path / "r.html", "--out", tmp_path / "exits", "--json"
    )
    assert code == 0, complaints
    found = json.loads(out)
    assert set(found["weights"]) == {"equal", "serving_rate", "delivered"}
    assert [s["requests"] for s in found["replays"].values()] == [50_000, 50_000]
    page = (tmp_path / "r.html").read_text()
    assert "http://" not in page.split("<script>")[0].replace("http://www.w3.org", "")
    assert all(f'id="plot-{name}"' in page for name in ("loss", "exits", "hardness", "labels", "reliability", "front"))
    exits = tmp_path / "exits"
    network = ci.Network.open(exits / "network.toml")
    predictions = ci.Predictions.open(exits / "predictions.parquet")
    strategy = ci.Strategy.open(exits / "strategy.toml")
    trace = ci.Trace.poisson(network, rate_rps=80, requests=20_000, samples=len(predictions), seed=1)
    run = ci.replay(trace, predictions, network, strategy)
    assert len(network.ingress) == 90
    assert run.summary.settled_by_model["device-exit"] == pytest.approx(0.5, abs=0.15)
    assert (exits / "tier-3" / "cloud-exit" / "1" / "model.py").exists()


def test_bad_input_ends_with_one_sentence(coinfer):
    code, out, complaints = coinfer("--profile", "80-15-15")
    assert (code, out) == (2, "")
    assert "sums to 110 %" in complaints
    assert len(complaints.splitlines()) == 1
