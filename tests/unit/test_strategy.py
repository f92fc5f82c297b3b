from __future__ import annotations

import pytest

import coinfer as ci
from coinfer.strategy import Strategy

EVERY = [
    ci.Local(),
    ci.Local("small"),
    ci.Remote("cloud"),
    ci.Remote("cloud", "large"),
    ci.Remote(model="large"),
    ci.SelectionOracle(),
    ci.Ensemble(),
    ci.Ensemble("weighted", weights={"small": 1.0, "large": 2.5}),
    ci.Ensemble("vote", models=("small", "large")),
    ci.Ensemble("weighted_vote", weights={"small": 1.0, "large": 2.5}),
    ci.Ensemble("boost"),
    ci.Ensemble("boost", learned=ci.Boost((("small", 1.5), ("large", 0.25)), ("medium",))),
    ci.Ensemble("stack", models=("small", "large")),
    ci.Agreement(),
    ci.Agreement((("small", "medium"), ("large",)), at_least=[2]),
    ci.Sequential(),
    ci.Sequential("vote", "probable", "random", 0.001, seed=3, models=("small", "large")),
    ci.Sequential("weighted", "qwyc", "learned", weights={"small": 1.0, "large": 2.5}, ms_per_usd=2.0),
    ci.Sequential("mean", groups=(("small", "medium"), ("large",)), order="given"),
    ci.Forward(score="confidence", threshold=0.25),
    ci.Forward(score="margin", thresholds=[0.5, 0.75]),
    ci.Forward(thresholds={"small": 0.5, "medium": 0.1}, temperature={"small": 2.0}),
    ci.Forward(score="entropy", models="any"),
    ci.Forward(models=("small", "large"), threshold=float("inf"), temperature=1.5),
]


@pytest.mark.parametrize("strategy", EVERY, ids=str)
def test_a_saved_strategy_comes_back_equal(tmp_path, strategy):
    file = tmp_path / "strategy.toml"
    strategy.save(file)
    assert Strategy.open(file) == strategy
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", ci.UnknownNameError, "has no key 'kind'"),
        ("kind = 'foward'", ci.UnknownNameError, "did you mean 'forward'"),
        ("kind = 'forward'\nscor = 'margin'", ci.UnknownNameError, r"unknown key 'scor'"),
        ("kind = 'forward'\nthreshold = 'high'", ci.BadValueError, "must be a number"),
        ("kind = 'remote'", ci.BadValueError, "needs the name"),
        ("kind = 'local'\nnode = 'x'", ci.UnknownNameError, "unknown key 'node'"),
        ("kind = [", ci.BadFileError, "not valid TOML"),
    ],
)
def test_a_bad_strategy_file_is_named(tmp_path, text, error, words):
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(error, match=words) as caught:
        Strategy.open(file)
    assert "bad.toml" in str(caught.value)


def test_a_missing_strategy_file_is_named(tmp_path):
    with pytest.raises(ci.BadFileError, match=r"none\.toml"):
        Strategy.open(tmp_path / "none.toml")


def test_several_models_at_a_node_must_be_told_apart():
    net = ci.Network([ci.Node("n", 0)], [], [], [ci.Deployment("a", "n"), ci.Deployment("b", "n")])
    with pytest.raises(ci.UnsupportedError, match="'a', 'b'"):
        ci.Local().plan(net, "n")
    assert ci.Local("b").plan(net, "n").stages[0].members[0].model == "b"
    with pytest.raises(ci.UnsupportedError, match="'a', 'b'"):
        ci.Remote("n").plan(net, "n")
    with pytest.raises(ci.UnknownNameError, match="ab"):
        ci.Remote("n", "ab").plan(net, "n")


def test_the_nearest_deployment_of_a_model_is_asked():
    net = ci.Network(
        [ci.Node("d", 0), ci.Node("near", 1), ci.Node("far", 1), ci.Node("island", 1)],
        [ci.Link(between=("d", "near"), delay_ms=1.0), ci.Link(between=("d", "far"), delay_ms=9.0)],
        [],
        [ci.Deployment("m", "far"), ci.Deployment("m", "near"), ci.Deployment("x", "island")],
    )
    assert ci.Remote(model="m").plan(net, "d").stages[0].members[0].node == "near"
    with pytest.raises(ci.UnsupportedError, match="cannot be reached from 'd'"):
        ci.Remote(model="x").plan(net, "d")
