"""The command line: pure JSON, one sentence for bad input, files whole or absent."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

import coinfer as ci
from coinfer._specs import default_strategies, named, parse, tune_all, untuned
from coinfer.cli import main

COMMANDS = ("demo", "compare", "replay", "tune", "validate", "info")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Predictions, their unlabelled twin, a network, a trace and a strategy, as files."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, 300)

    def probs(skill):
        z = rng.normal(size=(300, 3))
        z[np.arange(300), truth] += skill
        return (np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)).astype(np.float32)

    outputs = {name: ci.ModelOutput(probs=probs(skill)) for name, skill in (("small", 1.0), ("large", 3.0))}
    preds = ci.Predictions(outputs, labels=truth)
    net = ci.Network.chain({"device": "small", "cloud": "large"}, delay_ms=20, service_ms=[2, 10], price_usd=[0, 1e-4])
    preds.save(folder / "p.parquet")
    ci.Predictions(outputs).save(folder / "unlabelled.arrow")
    net.save(folder / "net.toml")
    ci.Trace.poisson(net, rate_rps=10, requests=500, samples=300).save(folder / "trace.parquet")
    ci.Forward(score="margin", threshold=0.5).save(folder / "s.toml")
    return folder


@pytest.fixture
def run(files, capsys, monkeypatch, tmp_path):
    """Run a command in a folder of its own, return (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        given = [str(a).replace("FILES", str(files)) for a in arguments]
        with pytest.raises(SystemExit) as stop:
            main(given)
        out = capsys.readouterr()
        return stop.value.code, out.out, out.err

    return call


def spawn(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "coinfer.cli", *arguments], capture_output=True, text=True, timeout=120, **options
    )


# Help and information


def test_help_lists_the_commands():
    done = spawn("--help")
    assert done.returncode == 0
    assert all(command in done.stdout for command in COMMANDS)


def test_help_does_not_import_what_it_does_not_need():
    code = (
        "import sys; sys.argv = ['coinfer', '--help']\n"
        "try:\n    from coinfer.cli import main; main()\n"
        "finally:\n    heavy = {'sklearn', 'plotly', 'pandas', 'torch', 'scipy', 'numba'} & set(sys.modules)\n"
        "    print('HEAVY', sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "HEAVY []" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_json(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert "--json" in out


def test_no_arguments_show_the_help(run):
    code, out, _ = run()
    assert code == 0
    assert "Usage: coinfer" in out


def test_the_version_is_printed(run):
    assert run("--version") == (0, f"coinfer {ci.__version__}\n", "")


def test_info_says_what_runs_here(run):
    code, out, _ = run("info", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["coinfer"] == ci.__version__
    assert found["implementations"] == ci.cpu.implementations()
    assert found["threads"] >= 1
    assert set(found["extras"]) == {"triton", "train", "flower"}
    assert "implementation" in run("info")[1]


# The demo


def test_demo_compares_at_least_six_strategies_and_writes_a_report(run, tmp_path):
    code, out, err = run("demo", "--requests", "2000", "--json")
    found = json.loads(out)
    assert code == 0
    assert err == ""
    assert len(found["strategies"]) >= 6
    assert found["finding"].endswith(".")
    assert found["about"]["arrivals"].startswith("synthetic")
    assert (tmp_path / "report.html").stat().st_size > 1_000_000
    best = found["strategies"]["Remote(cloud)"]
    assert best["accuracy"]["value"] > 0.95
    assert best["accuracy"]["n_effective"] < 900, "only the half that nothing was fitted to"
    assert found["strategies"]["SelectionOracle"]["accuracy"]["value"] >= best["accuracy"]["value"]


def test_demo_prints_plain_text_when_nobody_watches(run):
    code, out, _ = run("demo", "--requests", "500", "--report", "r.html")
    assert code == 0
    assert "\x1b" not in out
    assert "Remote(cloud)" in out
    assert "Report: r.html" in out
    assert "synthetic" in out


# compare, replay, tune


def test_compare_tunes_on_one_half_and_measures_on_the_other(run, tmp_path):
    code, out, _ = run(
        "compare", "FILES/p.parquet", "--network", "FILES/net.toml", "--requests", 2000, "--report", "r.html", "--json"
    )
    found = json.loads(out)
    assert code == 0
    names = list(found["strategies"])
    assert names[:5] == ["Local", "Remote(cloud)", "Forward(max_prob)", "Forward(margin)", "Forward(entropy)"]
    assert names[5].startswith("ExpectedGain(")
    assert names[6:] == ["SelectionOracle"]
    assert "150 samples" in found["about"]["tuning"]
    assert found["strategies"]["Local"]["accuracy"]["n_effective"] <= 150
    assert (tmp_path / "r.html").exists()


def test_compare_replays_a_given_trace_with_given_strategies(run):
    code, out, _ = run(
        *("compare", "FILES/p.parquet", "--network", "FILES/net.toml", "--trace", "FILES/trace.parquet"),
        *("--strategy", "local", "--strategy", "mine=forward:margin:0.4", "--strategy", "FILES/s.toml", "--json"),
    )
    found = json.loads(out)
    assert code == 0
    assert list(found["strategies"]) == ["Local", "mine", "Forward(margin, 0.5)"]
    assert found["strategies"]["mine"]["requests"] == 500
    assert "thresholds" not in found["about"]


def test_compare_says_that_tuning_on_the_trace_flatters(run):
    code, out, _ = run(
        *("compare", "FILES/p.parquet", "--network", "FILES/net.toml", "--trace", "FILES/trace.parquet"),
        *("--strategy", "forward:margin", "--json"),
    )
    assert code == 0
    assert "very samples" in json.loads(out)["about"]["tuning"]


def test_compare_without_labels_leaves_out_what_needs_them(run):
    code, out, _ = run("compare", "FILES/unlabelled.arrow", "--network", "FILES/net.toml", "--requests", 100, "--json")
    found = json.loads(out)
    assert code == 0
    assert list(found["strategies"]) == ["Local", "Remote(cloud)"]
    assert found["strategies"]["Local"]["accuracy"] is None


def test_replay_gives_what_the_library_gives(run, files):
    arguments = ("replay", "FILES/p.parquet", "--network", "FILES/net.toml", "--trace", "FILES/trace.parquet")
    code, out, _ = run(*arguments, "--strategy", "forward:max_prob:0.8", "--seed", 5, "--json")
    expected = ci.replay(
        ci.Trace.open(files / "trace.parquet"),
        ci.Predictions.open(files / "p.parquet"),
        ci.Network.open(files / "net.toml"),
        ci.Forward(score="max_prob", threshold=0.8),
        seed=5,
    )
    assert code == 0
    assert json.loads(out) == json.loads(expected.summary.to_json())


def test_replay_writes_outcomes_and_explains(run, tmp_path):
    arguments = ("replay", "FILES/p.parquet", "--network", "FILES/net.toml", "--requests", 300)
    code, out, _ = run(*arguments, "--strategy", "forward:max_prob:0.8", "--outcomes", "o.parquet", "--explain", 7)
    assert code == 0
    assert pq.read_table(tmp_path / "o.parquet").num_rows == 300
    assert "request 7: sample" in out
    code, out, _ = run(*arguments, "--strategy", "local", "--explain", 7, "--json")
    assert json.loads(out)["explanation"]["request"] == 7


def test_tuned_strategy_can_be_saved_and_replayed(run, tmp_path):
    code, out, _ = run(
        *("tune", "FILES/p.parquet", "--network", "FILES/net.toml", "--score", "margin"),
        *("--subject-to", "accuracy >= 0.8", "--save", "s.toml", "--front", "f.parquet", "--json"),
    )
    found = json.loads(out)
    assert code == 0
    assert found["held_out"] is True
    front = pq.read_table(tmp_path / "f.parquet")
    assert front.num_rows == found["points"]
    assert {"threshold", "accuracy", "price_usd", "on_front"} <= set(front.column_names)
    code, out, _ = run(
        "replay", "FILES/p.parquet", "--network", "FILES/net.toml", "--strategy", "s.toml", "--requests", 100, "--json"
    )
    assert code == 0
    assert json.loads(out)["requests"] == 100


# validate


def test_validate_tells_every_kind_of_file(run):
    names = ("p.parquet", "unlabelled.arrow", "net.toml", "trace.parquet", "s.toml")
    code, out, _ = run("validate", *(f"FILES/{name}" for name in names), "--json")
    found = json.loads(out)
    assert code == 0
    assert found["valid"] is True
    assert [f["kind"] for f in found["files"]] == ["predictions", "predictions", "network", "trace", "strategy"]
    assert "300 samples" in found["files"][0]["holds"]
    assert "500 requests" in run("validate", "FILES/trace.parquet")[1]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("n.toml", b"[[node]]\nname = 'a'\ntier = 0\nspeed = 3\n", "speed"),
        ("broken.toml", b"[[node", "TOML"),
        ("odd.toml", b"kind = 'forwards'\n", "forward"),
        ("t.parquet", b"PAR1 not really", "t.parquet"),
        ("a.arrow", b"nothing", "a.arrow"),
        ("z.npz", b"", "z.npz"),
        ("x.csv", b"1,2\n", "column '1'"),
        ("x.txt", b"1,2\n", "suffix"),
    ],
)
def test_validate_refuses_in_one_sentence(run, tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    code, out, err = run("validate", name)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert said in err
    code, out, _ = run("validate", name, "--json")
    assert code == 2
    assert json.loads(out)["valid"] is False


def test_validate_goes_on_after_a_bad_file(run):
    code, out, err = run("validate", "missing.toml", "FILES/net.toml")
    assert code == 2
    assert "missing.toml: no such file" in err
    assert "network" in out


# Bad input

REPLAY = ("replay", "FILES/p.parquet", "--network", "FILES/net.toml", "--strategy")
BASE = ("compare", "FILES/p.parquet", "--network", "FILES/net.toml", "--report", "r.html", "--requests", 100)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("frobnicate",), "frobnicate"),
        (("compare",), "PREDICTIONS"),
        (("demo", "--requests", "0"), "requests"),
        (("demo", "--requests", "many"), "integer"),
        (("demo", "--report", "no/such/folder/r.html"), "no folder"),
        (("compare", "missing.parquet", "--network", "FILES/net.toml"), "missing.parquet"),
        (("compare", "FILES/p.parquet", "--network", "FILES/p.parquet"), "p.parquet"),
        (("compare", "FILES/net.toml", "--network", "FILES/net.toml"), "net.toml"),
        ((*BASE, "--strategy", "remote:clod"), "did you mean 'cloud'"),
        ((*BASE, "--strategy", "forwards"), "did you mean 'forward'"),
        ((*BASE, "--strategy", "forward:margn:0.5"), "did you mean 'margin'"),
        ((*BASE, "--strategy", "forward:margin:high"), "high"),
        ((*BASE, "--strategy", "forward:margin:0.1,0.2,0.3"), "3 thresholds"),
        ((*BASE, "--strategy", "local", "--strategy", "local"), "two strategies"),
        ((*BASE, "--strategy", "nowhere.toml"), "nowhere.toml"),
        ((*BASE, "--rate", "-1"), "rate"),
        ((*BASE, "--trace", "FILES/p.parquet"), "p.parquet"),
        ((*REPLAY, "forward:margin"), "not ready to run"),
        (
            (*REPLAY, "local", "--outcomes", "o.csv"),
            "o.csv",
        ),
        (
            (*REPLAY, "local", "--requests", 10, "--explain", 10, "--outcomes", "o.parquet"),
            "request 10",
        ),
        (
            ("tune", "FILES/p.parquet", "--network", "FILES/net.toml", "--subject-to", "accuracy = 1"),
            "accuracy >= 0.95",
        ),
        (("tune", "FILES/p.parquet", "--network", "FILES/net.toml", "--minimise", "cost"), "price_usd"),
        (("tune", "FILES/unlabelled.arrow", "--network", "FILES/net.toml", "--subject-to", "accuracy > 0"), "labels"),
        (
            ("compare", "FILES/unlabelled.arrow", "--network", "FILES/net.toml", "--strategy", "forward:margin"),
            "labels",
        ),
    ],
)
def test_bad_input_ends_with_one_sentence_and_no_file(run, tmp_path, arguments, said):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("coinfer: ")
    assert said in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_forced_cpu_that_is_not_there_is_refused():
    done = spawn("info", "--json", env={**os.environ, "COINFER_CPU": "abacus"})
    assert done.returncode == 2
    assert done.stdout == ""
    assert "abacus" in done.stderr
    assert "Traceback" not in done.stderr


def test_interrupt_ends_with_130_and_leaves_no_file(tmp_path):
    code = (
        "import os, signal, threading; from coinfer import demo; from coinfer.cli import main\n"
        "threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "main(['demo', '--requests', '60000000'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


# Specs


@pytest.mark.parametrize(
    ("spec", "name", "strategy"),
    [
        ("local", "Local", ci.Local()),
        ("local:small", "Local(small)", ci.Local("small")),
        ("remote:cloud", "Remote(cloud)", ci.Remote("cloud")),
        ("remote:cloud:large", "Remote(cloud, large)", ci.Remote("cloud", "large")),
        ("forward", "Forward(max_prob)", ci.Forward()),
        ("forward:margin", "Forward(margin)", ci.Forward(score="margin")),
        ("forward:margin:0.5", "Forward(margin, 0.5)", ci.Forward(score="margin", threshold=0.5)),
        ("a=forward:margin:0.5,0.25", "a", ci.Forward(score="margin", thresholds=(0.5, 0.25))),
        ("gain:500", "ExpectedGain(500 ms)", ci.ExpectedGain(500.0)),
        ("gain:500,2e6", "ExpectedGain(500 ms)", ci.ExpectedGain(500.0, 2e6)),
        ("oracle", "SelectionOracle", ci.SelectionOracle()),
    ],
)
def test_specs_read_as_strategies(spec, name, strategy):
    assert parse(spec) == (name, strategy)


def test_defaults_cover_every_tier_of_the_demo_network_and_tuning_fills_them():
    preds, net = ci.datasets.digits(), ci.datasets.demo_network()
    templates = default_strategies(preds, net)
    assert list(templates) == [
        "Local",
        "Remote(logistic)",
        "Remote(region)",
        "Remote(cloud)",
        "Forward(max_prob)",
        "Forward(margin)",
        "Forward(entropy)",
        "Forward(max_prob, any tiers)",
        "ExpectedGain(1000 ms)",
        "SelectionOracle",
    ]
    tuned = tune_all(templates, preds, net, seed=0)
    assert [name for name, s in templates.items() if untuned(s)] == [
        n for n in templates if n.startswith(("Forward", "Expected"))
    ]
    assert not any(untuned(s) for s in tuned.values())


def test_defaults_use_reported_confidence_where_there_are_no_vectors():
    net = ci.Network.chain({"device": "a", "cloud": "b"}, delay_ms=1)
    outputs = {name: ci.ModelOutput(label=[0, 1], confidence=[0.5, 0.9]) for name in "ab"}
    assert "Forward(confidence)" in default_strategies(ci.Predictions(outputs, labels=[0, 1]), net)
    plain = {name: ci.ModelOutput(label=[0, 1]) for name in "ab"}
    only = default_strategies(ci.Predictions(plain, labels=[0, 1]), net)
    assert list(only) == ["Local", "Remote(cloud)", "SelectionOracle"]


def test_two_strategies_of_one_name_are_refused():
    with pytest.raises(ci.BadValueError, match="two strategies are called 'Local'"):
        named(["local", "local"])
