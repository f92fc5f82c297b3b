"""Rules of one's own: they decide, score and combine as their Python functions say, in bulk and live alike."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys

import numpy as np
import pytest

import coinfer as ci
import rules_of_ones_own as own
from coinfer._core import plan as core
from coinfer.compiling import Compiler
from coinfer.rule import View


def tables(members, rows, classes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.dirichlet(np.ones(classes) * 0.4, rows).astype(np.float32) for _ in range(members)]


@pytest.fixture(scope="module")
def setting():
    """Three models on a path, with gaps: NaN rows, and one model that abstains."""
    made = tables(3, 700, 4)
    made[0][::50] = np.nan
    made[1][::70] = np.nan
    truth = np.random.default_rng(1).integers(0, 4, 700)
    predictions = ci.Predictions({m: ci.ModelOutput(probs=t) for m, t in zip("abc", made, strict=True)}, labels=truth)
    places = {"device": "a", "edge": "b", "cloud": "c"}
    network = ci.Network.chain(places, delay_ms=[5, 20], service_ms=[1, 2, 4], price_usd=[0, 1e-5, 1e-4])
    network = ci.Network(
        network.nodes,
        network.links,
        [ci.Model("a"), ci.Model("b", abstain=[3]), ci.Model("c")],
        network.deployments,
    )
    trace = ci.Trace(np.arange(700) * 1000, ["device"] * 700, np.arange(700))
    return predictions, network, trace, made


def test_a_score_gives_what_its_function_gives():
    (p,) = tables(1, 300, 4)
    p[7] = np.nan
    expected = [np.nan if i == 7 else own.family(row, int(np.argmax(row))) for i, row in enumerate(p)]
    scores = ci.score(p, kind=own.family, input="probs")
    np.testing.assert_array_equal(scores, np.array(expected, np.float32))
    out = np.empty(300, np.float32)
    assert ci.score(p, own.family, input="probs", out=out) is out
    np.testing.assert_array_equal(out, scores)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_scores_of_ones_own_are_the_built_in_ones_on_logits(temperature):
    z = np.random.default_rng(0).normal(size=(5000, 7)).astype(np.float32) * 3
    strided = np.repeat(z, 2, axis=0)[::2]
    for given in (z, strided):
        np.testing.assert_allclose(
            ci.score(given, own.top, temperature), ci.score(z, "max_prob", temperature), rtol=1e-6, atol=1e-6
        )
        np.testing.assert_allclose(
            ci.score(given, own.lead, temperature), ci.score(z, "logit_margin", temperature), rtol=1e-6, atol=1e-6
        )
    one_by_one = np.concatenate([ci.score(z[i : i + 1], own.top, temperature) for i in range(40)])
    np.testing.assert_array_equal(one_by_one, ci.score(z, own.top, temperature, threads=3)[:40])
    with pytest.raises(ci.UnsupportedError, match="lead needs logits, but input is 'probs'"):
        ci.score(z, own.lead, input="probs")


@pytest.mark.parametrize(("members", "rows", "classes"), [(3, 500, 4), (5, 33, 1), (4, 1, 7), (18, 40, 5), (3, 0, 4)])
def test_a_combiner_sees_the_members_that_answered(members, rows, classes):
    said = tables(members, rows, classes) if classes > 1 else [np.ones((rows, 1), np.float32)] * members
    said = [
        np.ascontiguousarray(t).reshape(rows, classes).copy() if rows else np.zeros((0, classes), np.float32)
        for t in said
    ]
    if rows > 1:
        said[1][::7] = np.nan
        said[0][3] = -1
        said[2][5] = -0.0
        for table in said:
            table[11] = np.nan
    weights = np.arange(members) + 0.5
    got = ci.combine(said, own.heaviest, weights=weights, probs=True)
    expected = np.zeros((rows, classes), np.float32)
    labels = np.full(rows, -1)
    for row in range(rows):
        there = [m for m in range(members) if np.all(said[m][row] >= 0)]
        if there:
            p = np.array([said[m][row] for m in there])
            own.heaviest(p, weights[there].astype(np.float32), expected[row])
            labels[row] = np.argmax(expected[row]) if expected[row].max() > 0 else -1
    np.testing.assert_array_equal(got.label, labels)
    np.testing.assert_array_equal(got.probs[labels >= 0], expected[labels >= 0])
    assert got.unanswered == np.sum(labels < 0)
    np.testing.assert_array_equal(got.confidence[labels >= 0], expected.max(axis=1, initial=0)[labels >= 0])


def test_a_mean_of_ones_own_is_the_mean():
    said = tables(4, 3000, 10)
    ours, theirs = ci.combine(said, own.plain_mean, threads=2), ci.combine(said, "mean")
    np.testing.assert_array_equal(ours.label, theirs.label)
    np.testing.assert_allclose(ours.confidence, theirs.confidence, rtol=1e-6)
    logits = [np.log(t + 1e-6) for t in said]
    np.testing.assert_allclose(
        ci.combine(logits, own.plain_mean, input="logits").margin,
        ci.combine(logits, "mean", input="logits").margin,
        atol=1e-6,
    )


def test_a_stop_rule_decides_like_thresholds(setting):
    predictions, network, trace, _ = setting
    ours = ci.replay(trace, predictions, network, ci.Forward("max_prob", stop=own.thresholds))
    theirs = ci.replay(trace, predictions, network, ci.Forward("max_prob", thresholds=[0.7, 0.6]))
    assert ours.outcomes().equals(theirs.outcomes())
    assert 1 < ours.summary.stages < 3
    assert "thresholds: settles" in str(ours.explain(int(np.argmax(np.array(ours.outcomes()["stages"]) == 1))))


def strategies():
    limits = np.array([(np.linspace(0.3, 0.9, 4).astype(np.float32),)], own.LIMITS)[0]
    return {
        "rule": ci.Forward("max_prob", stop=own.thresholds),
        "state": ci.Forward(own.family, stop=own.per_label.using(limits)),
        "jumps": ci.Forward("max_prob", stop=own.hops),
        "score": ci.Forward(own.family, threshold=0.9),
        "combiner": ci.Ensemble(own.heaviest, weights={"a": 1, "b": 2, "c": 3}),
    }


@pytest.mark.parametrize("name", strategies())
def test_live_equals_replay(setting, name):
    """Every sample through a Session, one row at a time, against the bulk decisions."""
    predictions, network, _, made = setting
    compiled = Compiler(predictions, network).plan(strategies()[name], "device")
    evidence, decisions = compiled.evidence, compiled.decisions
    members = list(itertools.chain.from_iterable(s.members for s in compiled.spec.stages))
    table = {m: made["abc".index(d.model)] for m, d in enumerate(members)}
    seen = set()
    for row in range(len(predictions)):
        session = core.Session(compiled.plan)
        while session.status == core.Status.open:
            for member in session.ask():
                session.tell(member, core.Outputs("probs", table[member][row : row + 1]))
            session.step()
        way = decisions.itineraries[decisions.route[row]]
        seen.add(tuple(way))
        assert session.visited == way
        assert session.label in (evidence.label[way[-1], row], *(evidence.label[s, row] for s in way))
        np.testing.assert_array_equal(session.score, evidence.score[way[-1], row])
    assert name == "combiner" or len(seen) > 1
    assert name != "jumps" or (0, 2) in seen


def test_decisions_of_a_rule_are_those_of_its_python_function(setting):
    predictions, network, _, _ = setting
    compiled = Compiler(predictions, network).plan(ci.Forward("max_prob", stop=own.hops), "device")
    label, score = compiled.evidence.label, compiled.evidence.score
    for row in range(len(predictions)):
        way = [0]
        while way[-1] < 2:
            steps = own.hops(View(way[-1], score[way[-1], row], label[way[-1], row]))
            steps = max(steps, int(label[way[-1], row] < 0))
            if steps == 0:
                break
            way.append(min(way[-1] + steps, 2))
        assert compiled.decisions.itineraries[compiled.decisions.route[row]] == way


def test_a_state_belongs_to_its_strategy_and_the_code_is_shared(setting):
    predictions, network, trace, _ = setting
    shares = []
    for limit in (0.2, 0.95):
        state = np.array([(np.full(4, limit, np.float32),)], own.LIMITS)[0]
        strategy = ci.Forward("max_prob", stop=own.per_label.using(state))
        shares.append(ci.replay(trace, predictions, network, strategy).summary.settled_by_stage[0])
    assert shares[0] > 0.9 > 0.6 > shares[1]
    assert len(own.per_label._shared) == 1


def test_scores_of_ones_own_are_tuned(setting):
    predictions, network, _, _ = setting
    tuned = ci.tune(ci.Forward(own.top), predictions, network, minimise="price_usd", subject_to=["accuracy >= 0.1"])
    named = ci.tune(ci.Forward("max_prob"), predictions, network, minimise="price_usd", subject_to=["accuracy >= 0.1"])
    assert tuned.chosen["accuracy"] == named.chosen["accuracy"]
    assert tuned.strategy.threshold == pytest.approx(named.strategy.threshold)


def test_saved_by_reference(tmp_path):
    for name, strategy in strategies().items():
        if name != "state":
            strategy.save(tmp_path / f"{name}.toml")
            assert ci.Strategy.open(tmp_path / f"{name}.toml") == strategy
    assert 'stop = "rules_of_ones_own:thresholds"' in (tmp_path / "rule.toml").read_text()
    assert pickle.loads(pickle.dumps(own.family)) is own.family
    with pytest.raises(ci.UnsupportedError, match=r"'per_label' cannot be saved: .* no top-level name"):
        strategies()["state"].save(tmp_path / "state.toml")
    (tmp_path / "wrong.toml").write_text('kind = "forward"\nscore = "rules_of_ones_own:famly"\nthreshold = 0.5\n')
    with pytest.raises(ci.UnknownNameError, match=r"has no score rule 'famly'; did you mean 'family'"):
        ci.Strategy.open(tmp_path / "wrong.toml")
    (tmp_path / "lost.toml").write_text('kind = "ensemble"\nhow = "no_such_module:x"\n')
    with pytest.raises(ci.UnknownNameError, match="module 'no_such_module' cannot be imported"):
        ci.Strategy.open(tmp_path / "lost.toml")


def bad_attribute(view):
    x = 1
    return view.nothing + x


def bad_raise(view):
    if view.score < 0:
        raise ValueError
    return True


def bad_memory(view):
    x = np.empty(3)
    return x[0] > view.score


def bad_type(view):
    return "yes"


def bad_write(p, label):
    p[0] = 1
    return p[0]


def bad_return(probs, out):
    return 1


@pytest.mark.parametrize(
    ("make", "function", "offset", "problem"),
    [
        (ci.rule.stop, bad_attribute, 2, "Unknown attribute 'nothing'"),
        (ci.rule.stop, bad_raise, 2, "`raise ValueError`.: a rule must not raise"),
        (ci.rule.stop, bad_memory, 0, "must not allocate memory"),
        (ci.rule.stop, bad_type, 0, "returns whether to stop, or how many stages"),
        (ci.rule.score, bad_write, 1, "may not write into what it is given"),
        (ci.rule.combine, bad_return, 0, "writes into its last argument and returns nothing"),
    ],
)
def test_what_does_not_compile_names_the_line(make, function, offset, problem):
    with pytest.raises(ci.UnsupportedError, match=problem) as error:
        make(function).compile()
    assert f"{__file__}:{function.__code__.co_firstlineno + offset}" in str(error.value)


def test_signatures_and_states_are_checked_at_once():
    with pytest.raises(ci.BadValueError, match=r"a score rule takes \(vector, label\), not \(view\)"):
        ci.rule.score(bad_raise)
    with pytest.raises(ci.BadValueError, match="takes a state, but state= gives none"):
        ci.rule.stop(bad_write)
    with pytest.raises(ci.BadValueError, match="one NumPy record"):
        ci.rule.stop(state=3)(bad_write)
    with pytest.raises(ci.BadValueError, match="must be a plain Python function"):
        ci.rule.combine(print)
    with pytest.raises(ci.BadValueError, match="in the place of thresholds"):
        ci.Forward(threshold=0.5, stop=own.thresholds)


def test_a_rule_that_looks_at_the_moment_is_not_decided_per_sample():
    assert not own.thresholds.per_request
    assert not own.per_label.per_request
    assert own.hurried.per_request
    assert own.counting.per_request
    assert core.Plan(
        [(0, 0, "confidence", 1.0, 1.0, None, [])], [(0, 1, 0.5, 0.0, None)], "last", False
    ).state_independent


def test_a_model_without_vectors_is_named(setting):
    _, network, _, _ = setting
    bare = ci.Predictions({m: ci.ModelOutput(label=[0, 1], confidence=[0.5, 0.5]) for m in "abc"}, classes=list("wxyz"))
    with pytest.raises(ci.UnsupportedError, match="model 'a' gives label and confidence, but score 'family' needs a"):
        Compiler(bare, network).plan(ci.Forward(own.family, threshold=0.5), "device")
    with pytest.raises(ci.UnsupportedError, match="but 'heaviest' combines probabilities"):
        Compiler(bare, network).plan(ci.Ensemble(own.heaviest), "device")


def test_numba_is_imported_by_the_first_rule_that_is_used_only():
    code = (
        "import sys, coinfer as ci\n"
        "@ci.rule.stop\ndef sure(view): return view.score > 0.5\n"
        "ci.Forward(stop=sure)\nprint('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "False\n"


def test_scores_takes_rules_among_its_kinds():
    z = np.random.default_rng(2).normal(size=(200, 5)).astype(np.float32)
    z[3] = np.nan
    found = ci.scores(z, kinds=["label", "margin", own.lead])
    assert list(found) == ["label", "margin", own.lead]
    np.testing.assert_array_equal(found[own.lead], ci.score(z, own.lead))
    np.testing.assert_array_equal(found["margin"], ci.score(z, "margin"))
    alone = ci.scores(z, kinds=[own.lead])
    assert list(alone) == [own.lead]
    assert alone.unanswered == found.unanswered == 1
    out = {kind: np.empty(200, np.float32) for kind in ("margin", own.lead)}
    assert ci.scores(z, kinds=["margin", own.lead], out=out)[own.lead] is out[own.lead]
    np.testing.assert_array_equal(out["margin"], found["margin"])
    with pytest.raises(ci.BadValueError, match="each of kinds"):
        ci.scores(z, kinds=["margin", own.lead], out={"margin": out["margin"]})
