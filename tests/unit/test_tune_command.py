from __future__ import annotations

import json

import numpy as np
import pytest

import coinfer as ci
from coinfer.cli import main

PROBLEM = """
predictions = "p.npz"
network = "n.toml"
minimise = "price_usd"
subject_to = ["accuracy_loss[large] <= {loss}", "latency_us_p99 <= 80000"]
confidence = 0.9
seed = 1

[strategy]
kind = "forward"
score = "confidence"
"""


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    n = 4000
    truth = rng.integers(0, 5, n)
    sure = rng.random(n).astype(np.float32)
    small = np.where(rng.random(n) < 0.4 + 0.6 * sure, truth, (truth + 1) % 5)
    large = np.where(rng.random(n) < 0.95, truth, (truth + 1) % 5)
    ci.Predictions(
        {
            "small": ci.ModelOutput(label=small, confidence=sure),
            "large": ci.ModelOutput(label=large, confidence=np.ones(n, np.float32)),
        },
        labels=truth,
    ).save(tmp_path / "p.npz")
    ci.Network.chain({"device": "small", "cloud": "large"}, delay_ms=[20], service_ms=[1, 5], price_usd=[0, 1e-4]).save(
        tmp_path / "n.toml"
    )
    return tmp_path


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    out = capsys.readouterr()
    return stopped.value.code, out.out, out.err


def test_a_problem_file_is_solved_certified_drawn_and_saved(folder, capsys):
    (folder / "problem.toml").write_text(PROBLEM.format(loss=0.05))
    report, saved = folder / "r.html", folder / "s.toml"
    code, out, _ = run(capsys, "tune", "--problem", folder / "problem.toml", "--report", report, "--save", saved)
    assert code == 0
    assert "With 0.9 confidence, on data like the 1,600 samples it was checked on, at most 5 points of accuracy" in out
    assert ci.Strategy.open(saved).certificate.n == 1600
    page = report.read_text()
    assert "With 0.9 confidence" in page
    assert '"name":"chosen"' in page
    assert "cdn.plot.ly" not in page.split("</script>")[-1]
    code, out, _ = run(capsys, "tune", "--problem", folder / "problem.toml", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["certified"] is True
    assert found["samples"] == {"fit": 1600, "calibrate": 1600, "measured": 800}


def test_what_cannot_be_met_exits_with_one_and_shows_the_nearest_point(folder, capsys):
    (folder / "problem.toml").write_text(PROBLEM.format(loss=0.05))
    code, out, _ = run(capsys, "tune", "--problem", folder / "problem.toml", "--subject-to", "accuracy >= 0.999")
    assert code == 1
    assert "INFEASIBLE, this is the nearest point; 'accuracy >= 0.999' cannot be met" in out


def test_a_bad_problem_file_is_refused_in_a_sentence(folder, capsys):
    for text, words in (
        ("minimize = 'price_usd'", "unknown key 'minimize'"),
        ("[strategy]\nkind = 'forword'", "did you mean 'forward'"),
        ("strategy = 3", "strategy must be a table"),
        ("x = ", "is not valid TOML"),
        ("minimise = 'price_usd'", "tune needs PREDICTIONS"),
    ):
        (folder / "problem.toml").write_text(text)
        code, _, error = run(capsys, "tune", "--problem", folder / "problem.toml")
        assert code == 2
        assert words in error


def test_sensitivity_says_what_is_kept_and_what_tuning_again_would_give(folder):
    preds, net = ci.Predictions.open(folder / "p.npz"), ci.Network.open(folder / "n.toml")
    found = ci.sensitivity(
        ci.Forward("confidence"), preds, net, minimise="latency_us_mean", subject_to=["accuracy >= 0.85"], seed=1
    )
    rows = {(row["what"], row["factor"]): row for row in found.table.to_pylist()}
    assert len(rows) == 6
    assert rows["delays", 1.0]["latency_us_mean_kept"] == pytest.approx(found.tuned.chosen["latency_us_mean"])
    assert rows["delays", 2.0]["latency_us_mean_kept"] > rows["delays", 1.0]["latency_us_mean_kept"]
    assert rows["prices", 2.0]["price_usd_kept"] == pytest.approx(2 * rows["prices", 1.0]["price_usd_kept"])
    assert all(row["latency_us_mean_again"] <= row["latency_us_mean_kept"] * (1 + 1e-12) for row in rows.values())
    assert len(found.figure().data) == 4
    with pytest.raises(ci.UnknownNameError, match="delays"):
        ci.sensitivity(ci.Forward("confidence"), preds, net, what=["delay"])


@pytest.mark.parametrize("quantity", ["recall[2]", "disagreement[large]", "accuracy_loss[large]", "load[cloud]"])
def test_other_quantities_are_what_replay_says(folder, quantity):
    preds, net = ci.Predictions.open(folder / "p.npz"), ci.Network.open(folder / "n.toml")
    relation = ">= 0.7" if quantity.startswith("recall") else "<= 0.2"
    tuned = ci.tune(
        ci.Forward("confidence"), preds, net, subject_to=[f"{quantity} {relation}"], split=None, rate_rps=100
    )
    n = len(preds)
    trace = ci.Trace(np.arange(n), ["device"] * n, np.arange(n))
    outcomes = ci.replay(trace, preds, net, tuned.strategy).outcomes().to_pandas()
    truth, large = preds.labels, preds["large"].label
    expected = {
        "recall[2]": lambda o: (o.answer == truth)[truth == 2].mean(),
        "disagreement[large]": lambda o: (o.answer != large).mean(),
        "accuracy_loss[large]": lambda o: (large == truth).mean() - (o.answer == truth).mean(),
        "load[cloud]": lambda o: 100 * 0.005 * (o.stages == 2).mean(),
    }[quantity](outcomes)
    assert tuned.feasible
    assert tuned.chosen[quantity] == pytest.approx(expected, rel=1e-9)
    assert tuned.measured[quantity] == pytest.approx(expected, rel=1e-9)


def test_a_latency_quantile_can_be_bounded_and_minimised(folder):
    preds, net = ci.Predictions.open(folder / "p.npz"), ci.Network.open(folder / "n.toml")
    tuned = ci.tune(
        ci.Forward("confidence"), preds, net, minimise="latency_us_p60", subject_to="accuracy >= 0.8", split=None
    )
    n = len(preds)
    trace = ci.Trace(np.arange(n), ["device"] * n, np.arange(n))
    run = ci.replay(trace, preds, net, tuned.strategy)
    assert tuned.measured["latency_us_p60"] == float(run.latency_quantiles(0.6))
    assert set(np.unique(tuned.front["latency_us_p60"])) == {1000.0, 46000.0}


def test_weights_and_scalars_are_tuned_too(folder):
    preds, net = ci.Predictions.open(folder / "p.npz"), ci.Network.open(folder / "n.toml")
    vote = ci.tune(ci.Ensemble("vote"), preds, net, minimise="accuracy", split=None)
    assert vote.chosen["accuracy"] == pytest.approx(preds.accuracy("large"))
    assert vote.strategy.weights["large"] > vote.strategy.weights["small"]
    gain = ci.tune(
        ci.ExpectedGain(1.0, score="confidence"), preds, net, minimise="latency_us_mean", subject_to="accuracy >= 0.9"
    )
    assert gain.feasible
    assert gain.strategy.fitted
    assert gain.front.num_rows == 37
    assert gain.chosen["alpha"] == gain.strategy.alpha
