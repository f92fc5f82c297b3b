"""What came in at the edges and went wrong inside: each of these was once a wrong number, a crash or a traceback."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

import coinfer as ci
from coinfer import service
from coinfer._core import plan as core
from coinfer.cli import main
from coinfer.compiling import Compiler
from coinfer.errors import BadValueError, UnknownNameError, UnsupportedError
from coinfer.strategy import Strategy

FORWARD = ci.Forward(score="confidence", threshold=0.5)


@pytest.fixture
def preds():
    return ci.Predictions(
        {
            "small": ci.ModelOutput(label=[0, 1, 1, 0], confidence=[0.9, 0.4, 0.8, 0.3]),
            "large": ci.ModelOutput(label=[0, 0, 1, 1], confidence=[0.9] * 4),
        },
        labels=[0, 0, 1, 1],
    )


@pytest.fixture
def trace():
    return ci.Trace([0, 1, 2, 3], ["device"] * 4, [0, 1, 2, 3])


def chain(**changes):
    given = {"delay_ms": [20], "service_ms": [1, 5]} | changes
    return ci.Network.chain({"device": "small", "cloud": "large"}, **given)


@pytest.mark.parametrize(
    "changes",
    [
        {"delay_ms": [1e13]},
        {"delay_ms": [10**400]},
        {"service_ms": [1, 1e13]},
        {"service_ms": [1, 1e300]},
        {"price_usd": [0, 1e8]},
    ],
)
def test_what_int64_cannot_add_up_is_refused(preds, trace, changes):
    with pytest.raises(BadValueError):
        ci.replay(trace, preds, chain(**changes), FORWARD)


@pytest.mark.parametrize("law", [service.Gamma, service.LogNormal])
@pytest.mark.parametrize("cv", [1e-200, 1e200])
def test_a_spread_beyond_float64_is_refused(law, cv):
    with pytest.raises(BadValueError, match="cv must be"):
        law(1.0, cv=cv)


def test_measured_times_beyond_int64_are_refused(trace):
    slow = ci.ModelOutput(label=[0] * 4, service_us=[1, 1, 1, 1e30])
    preds = ci.Predictions({"small": slow, "large": slow})
    with pytest.raises(BadValueError, match="'large@cloud': the longest measured service takes"):
        ci.replay(trace, preds, chain(service_ms=[1, service.Measured()]), ci.Remote("cloud"))


def test_link_times_and_prices_beyond_int64_are_refused(preds, trace):
    for link in ({"bandwidth_mbps": 1e-300}, {"price_usd_per_mb": 1e300}):
        net = ci.Network(
            [ci.Node("device", 0), ci.Node("cloud", 1)],
            [ci.Link(("device", "cloud"), delay_ms=1, **link)],
            [ci.Model("large", request_kb=10)],
            [ci.Deployment("large", "cloud")],
        )
        with pytest.raises(BadValueError, match="10 kB over link 'device' -- 'cloud'"):
            ci.replay(trace, preds, net, ci.Remote("cloud"))


@pytest.mark.parametrize("threshold", [1e39, 10**400])
def test_a_threshold_beyond_float32_is_never_met(preds, trace, threshold):
    assert ci.replay(trace, preds, chain(), ci.Forward("confidence", threshold=threshold)).summary.stages == 2


def classes_in_another_order(form):
    small = {
        "label": ci.ModelOutput(label=["b", "a"], classes=["b", "a"]),
        "probs": ci.ModelOutput(probs=[[0.9, 0.1], [0.2, 0.8]], classes=["b", "a"]),
    }[form]
    return ci.Predictions({"small": small}, labels=["b", "a"], classes=["a", "b", "c"])


def alone(**model):
    return ci.Network([ci.Node("device", 0)], [], [ci.Model("small", **model)], [ci.Deployment("small", "device")])


@pytest.mark.parametrize("form", ["label", "probs"])
def test_a_number_that_abstains_counts_in_the_order_that_the_model_declares(form):
    trace = ci.Trace([0, 0], "device", [0, 1])
    net = alone(classes=["b", "a"], abstain=[0])
    assert ci.replay(trace, classes_in_another_order(form), net, ci.Local()).outcomes()["correct"].to_pylist() == [
        False,
        True,
    ]


def test_a_number_that_abstains_must_have_a_meaning(preds):
    trace = ci.Trace([0], "device", [0])
    with pytest.raises(BadValueError, match="give the class by name"):
        ci.replay(trace, classes_in_another_order("probs"), alone(abstain=[2]), ci.Local())
    with pytest.raises(BadValueError, match="abstains by label 7, but the predictions have 2 classes"):
        ci.replay(trace, preds, alone(abstain=[7]), ci.Local())
    with pytest.raises(UnknownNameError, match="abstains by class 'x'"):
        ci.replay(trace, classes_in_another_order("label"), alone(classes=["x", "a"], abstain=[0]), ci.Local())


@pytest.mark.parametrize(
    "table",
    [
        {"kind": ["forward"]},
        {"kind": "forward", "models": 5},
        {"kind": "forward", "models": [5]},
        {"kind": "expected_gain", "alpha": 5, "models": 5},
        {"kind": "expected_gain", "alpha": 5, "models": "small"},
        {"kind": "expected_gain", "alpha": 5, "horizon": True},
        {"kind": "expected_gain", "alpha": 5, "rule": 5},
        {"kind": "expected_gain", "alpha": 5, "rule": [5]},
    ],
)
def test_a_strategy_table_of_the_wrong_types_is_refused_by_name(table):
    with pytest.raises((BadValueError, UnknownNameError), match=r"^s\.toml: "):
        Strategy.parse(table, "s.toml")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stage": 1}, "stage 0 is next"),
        ({"cut": [0.5, 0.0]}, "cut must ascend"),
        ({"cut": [], "value": []}, "cut must ascend"),
        ({"value": [1.0]}, "one value for each cut"),
    ],
)
def test_a_fitted_rule_that_cannot_be_read_is_refused(change, said):
    row = {"ingress": "device", "stage": 0, "threshold": 0.0, "cut": [0.0, 0.5], "value": [1.0, 2.0]} | change
    with pytest.raises(BadValueError, match=said):
        Strategy.parse({"kind": "expected_gain", "alpha": 5, "rule": [row]})


def test_a_horizon_beyond_the_path_costs_nothing(preds):
    far = ci.ExpectedGain(50, score="confidence", horizon=10**12).fit(preds, chain())
    assert far.rules == ci.ExpectedGain(50, score="confidence").fit(preds, chain()).rules


@pytest.mark.parametrize(
    "call",
    [
        lambda t, p: ci.replay(t, p, chain(), "local"),
        lambda t, p: ci.replay(t, p, chain(), ci.Local),
        lambda t, p: ci.replay(t, p, chain(), FORWARD, threads=-1),
        lambda t, p: ci.replay(t, p, chain(), FORWARD, threads="2"),
        lambda t, p: ci.compare(t, p, chain(), [FORWARD]),
        lambda t, p: ci.compare(t, p, chain(), {"a": FORWARD}, threads=2**40),
        lambda t, p: ci.tune(FORWARD, p, chain(), split=0.5),
        lambda t, p: ci.tune(FORWARD, p, chain(), split=(None, 0.5)),
        lambda t, p: ci.tune(FORWARD, p, chain(), subject_to=5),
        lambda t, p: ci.replay(t, p, chain(), FORWARD).explain("a"),
        lambda t, p: ci.replay(t, p, chain(), FORWARD).explain(1.0),
    ],
)
def test_arguments_of_the_wrong_type_are_refused_in_words(preds, trace, call):
    with pytest.raises(BadValueError):
        call(trace, preds)


def test_an_explanation_of_a_numpy_row_is_plain(preds, trace):
    assert type(ci.replay(trace, preds, chain(), FORWARD).explain(np.int64(1)).to_dict()["request"]) is int


def test_an_explanation_says_what_a_curve_was_read_as(preds, trace):
    fitted = ci.ExpectedGain(50, score="confidence").fit(preds, chain())
    run = ci.replay(trace, preds, chain(), fitted)
    assert "confidence 0.9; read as 0 >= threshold -0.9: settles" in str(run.explain(0))
    assert "confidence 0.4; read as -1 < threshold -0.9: goes on" in str(run.explain(1))


def test_a_held_out_half_without_labels_has_no_accuracy():
    preds = ci.Predictions(
        {m: ci.ModelOutput(label=[0, 1] * 10, confidence=[0.9, 0.4] * 10) for m in ("small", "large")},
        labels=[0] + [-1] * 19,
    )
    for seed in range(10):
        try:
            tuned = ci.tune(ci.Forward(score="confidence"), preds, chain(), seed=seed)
        except UnsupportedError:  # the one label is held out
            continue
        assert "unknown" in str(tuned)
        return
    pytest.fail("the label was never among those to choose on")


def test_outputs_without_what_their_form_promises_are_refused():
    with pytest.raises(ValueError, match="lack their confidence"):
        core.Outputs("label_confidence", None, np.zeros(1, np.int32))
    with pytest.raises(ValueError, match="at least one class"):
        core.Outputs("probs", np.zeros((1, 0), np.float32))


def test_a_session_outlives_what_it_was_told():
    plan = core.Plan([(0, 0, "confidence", 1.0, 1.0, None, [])], [(0, 1, 0.5, 0.0, None)], "last", False)
    session = core.Session(plan)
    told = core.Outputs("probs", np.array([[0.25, 0.75]], np.float32), None, None, np.array([3, 5], np.int32))
    session.tell(0, told)
    del told
    _ = [np.full(2, 7, np.int32) for _ in range(100)]
    session.step()
    assert session.label == 5


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code, capsys.readouterr()


def test_json_holds_no_number_that_json_lacks(tmp_path, capsys):
    silent = ci.ModelOutput(label=[-1, 1, 1, 0], confidence=[np.nan, 0.4, 0.8, 0.3])
    preds = ci.Predictions({"small": silent, "large": silent}, labels=[0, -1, 1, 1])
    preds.save(tmp_path / "p.npz")
    chain().save(tmp_path / "n.toml")
    where = (tmp_path / "p.npz", "--network", tmp_path / "n.toml", "--json")
    code, said = run(capsys, "tune", *where, "--score", "confidence", "--no-split", "--minimise", "stages")
    assert code == 0
    assert json.loads(said.out)["chosen"]["threshold"] == "-inf"
    ci.Trace([0], "device", [0]).save(tmp_path / "t.parquet")
    replay = ("replay", *where, "--strategy", "forward:confidence:0.5", "--trace", tmp_path / "t.parquet")
    code, said = run(capsys, *replay, "--explain", "0")
    assert code == 0
    assert json.loads(said.out)["explanation"]["steps"][0]["score"] is None


def test_predictions_in_csv_are_validated(tmp_path, capsys):
    (tmp_path / "p.csv").write_text("small.label,labels\n0,1\n1,1\n")
    code, said = run(capsys, "validate", tmp_path / "p.csv")
    assert code == 0
    assert "predictions" in said.out


def test_deadlines_of_any_size_raise_no_warning(preds):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace = ci.Trace([0] * 4, ["device"] * 4, [0] * 4, deadline_us=[1e300, 1e-4, np.inf, 5e4])
        status = ci.replay(trace, preds, chain(), ci.Remote("cloud")).summary.status
    assert (status["answered"], status["expired"]) == (3, 1)


def test_arrivals_beyond_int64_are_refused():
    with pytest.raises(BadValueError, match="at 1e-300 requests per second"):
        ci.Trace.poisson(chain(), rate_rps=1e-300, requests=10, samples=1)


def test_a_comparison_of_models_that_stand_nowhere_is_refused_in_one_sentence(tmp_path, capsys):
    ci.Predictions({"other": ci.ModelOutput(label=[0, 1])}, labels=[0, 1]).save(tmp_path / "p.npz")
    chain().save(tmp_path / "n.toml")
    strategy = ("--strategy", "forward:confidence")
    code, said = run(capsys, "compare", tmp_path / "p.npz", "--network", tmp_path / "n.toml", *strategy)
    assert (code, said.out) == (2, "")
    assert "no model of the network has predictions; known: 'other'" in said.err


def test_ingress_nodes_with_their_own_deployments_share_evidence_and_decisions(preds):
    nodes = [ci.Node(f"d{i}", 0) for i in range(200)]
    net = ci.Network(
        [*nodes, ci.Node("cloud", 1)],
        [ci.Link((node.name, "cloud"), delay_ms=1) for node in nodes],
        [],
        [*(ci.Deployment("small", node.name) for node in nodes), ci.Deployment("large", "cloud")],
    )
    compiler = Compiler(preds, net)
    made = [
        compiler.plan(ci.Forward("confidence", threshold=cut), node.name) for cut in (0.2, 0.5, 0.7) for node in nodes
    ]
    assert len({id(plan.plan) for plan in made}) == 600
    assert len({id(plan.evidence) for plan in made}) == 1
    assert len({id(plan.decisions) for plan in made}) == 3
