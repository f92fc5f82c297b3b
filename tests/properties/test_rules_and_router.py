"""What holds for rules of one's own and for the Router, whatever the models say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import coinfer as ci
import rules_of_ones_own as own
from coinfer.compiling import Compiler

few = settings(max_examples=15, deadline=None)


@st.composite
def tables(draw, members=3, fewest=1, most=12):
    """Probabilities of some models, rows of which may be missing, with true labels."""
    count, rows = draw(st.integers(fewest, most)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    made = []
    for _ in range(members):
        table = rng.dirichlet(np.ones(count) * 0.5, rows).astype(np.float32)
        if draw(st.booleans()):  # ties
            table = (np.rint(table * 4) + 1).astype(np.float32)
            table /= table.sum(axis=1, keepdims=True)
        table[rng.random(rows) < draw(st.sampled_from([0.0, 0.2, 1.0]))] = np.nan
        made.append(table)
    return made, rng.integers(0, count, rows)


def network(models, delays=(5.0, 20.0)):
    places = dict(zip(("device", "edge", "cloud"), models, strict=False))
    return ci.Network.chain(places, delay_ms=list(delays[: len(places) - 1]), service_ms=[1.0, 2.0, 4.0][: len(places)])


def stages(strategy, preds, net):
    """The stage where each sample settles."""
    n = len(preds)
    outcomes = ci.replay(ci.Trace(np.arange(n), ["device"] * n, np.arange(n)), preds, net, strategy).outcomes()
    return outcomes["stages"].to_numpy(), outcomes


# Rules ------------------------------------------------------------------------------------------------------


@given(drawn=tables())
@few
def test_symmetric_combiners_do_not_care_about_the_order_and_absence_is_absence(drawn):
    members, _ = drawn
    turned = [members[2], members[0], members[1]]
    largest, again = (ci.combine(each, own.heaviest, probs=True) for each in (members, turned))
    np.testing.assert_array_equal(largest.label, again.label)
    np.testing.assert_array_equal(largest.probs, again.probs)
    mean, again = (ci.combine(each, own.plain_mean, probs=True) for each in (members, turned))
    np.testing.assert_allclose(mean.probs, again.probs, rtol=1e-6)
    built_in, known = ci.combine(members, "mean", probs=True), mean.label >= 0
    np.testing.assert_array_equal(known, built_in.label >= 0)
    np.testing.assert_allclose(mean.probs[known], built_in.probs[known], rtol=1e-6)
    silent = np.full_like(members[0], np.nan)
    without = ci.combine(members[:2], own.heaviest, probs=True)
    beside = ci.combine([*members[:2], silent], own.heaviest, probs=True)
    np.testing.assert_array_equal(without.label, beside.label)
    np.testing.assert_array_equal(without.probs, beside.probs)


@given(drawn=tables(members=1))
@few
def test_a_score_rule_is_its_formula_for_any_number_of_classes(drawn):
    ((table,), _) = drawn
    scores = ci.score(table, own.top, input="probs")
    np.testing.assert_array_equal(scores, np.where(np.isnan(table[:, 0]), np.nan, table.max(axis=1)))
    rows = np.concatenate([ci.score(table[i : i + 1], own.top, input="probs") for i in range(len(table))])
    np.testing.assert_array_equal(rows, scores)


@given(drawn=tables(fewest=2, most=6), cuts=st.tuples(st.floats(0, 1), st.floats(0, 1)))
@few
def test_a_higher_threshold_never_settles_earlier(drawn, cuts):
    members, truth = drawn
    preds = ci.Predictions({m: ci.ModelOutput(probs=t) for m, t in zip("abc", members, strict=True)}, labels=truth)
    net = network("abc")
    low, high = (stages(ci.Forward(own.top, threshold=cut), preds, net)[0] for cut in sorted(cuts))
    assert np.all(low <= high)
    built_in = stages(ci.Forward("max_prob", threshold=min(cuts)), preds, net)[0]
    np.testing.assert_array_equal(low, built_in)
    stop = stages(ci.Forward(own.top, stop=own.thresholds), preds, net)[0]
    plain = stages(ci.Forward(own.top, thresholds=own.THRESHOLDS), preds, net)[0]
    np.testing.assert_array_equal(stop, plain)


def test_rules_that_look_at_vectors_refuse_labels_by_name():
    preds = ci.Predictions({m: ci.ModelOutput(label=[0, 1]) for m in "ab"}, labels=[0, 1])
    with pytest.raises(ci.UnsupportedError, match="model 'a' gives labels only"):
        Compiler(preds, network("ab")).plan(ci.Forward(own.top, threshold=0.5), "device")
    with pytest.raises(ci.UnsupportedError, match="'a' gives labels only"):
        Compiler(preds, network("ab")).plan(ci.Ensemble(own.plain_mean), "device")
    # A stop rule of one's own may look at labels alone.
    assert stages(ci.Forward("confidence", stop=own.hurried), preds, network("ab"))[0].tolist() == [2, 2]


# Router -----------------------------------------------------------------------------------------------------


def answered(members, truth, classes, labels_only=()):
    outputs = {}
    for name, table in zip("abc", members, strict=True):
        gone = np.isnan(table[:, 0])
        label = np.where(gone, -1, np.nan_to_num(table).argmax(axis=1))
        outputs[name] = ci.ModelOutput(label=label) if name in labels_only else ci.ModelOutput(probs=table)
    return ci.Predictions(outputs, labels=truth, classes=[f"k{i}" for i in range(classes)])


@given(drawn=tables(fewest=2, most=6), alphas=st.tuples(st.floats(0.37, 300.0), st.floats(0.37, 300.0)))
@few
def test_a_dearer_mistake_never_costs_more_mistakes_where_the_router_learned(drawn, alphas):
    members, truth = drawn
    preds, net = answered(members, truth, members[0].shape[1]), network("abc")
    found = []
    for alpha in sorted(alphas):
        router = ci.Router("a", alpha=alpha, min_samples=1).fit(preds, net)
        outcomes = stages(router, preds, net)[1]
        wrong = len(preds) - sum(filter(None, outcomes["correct"].to_pylist()))
        found.append((wrong, outcomes["latency_us"].to_numpy().sum() / 1e3))
    (wrong, latency), (less_wrong, more_latency) = found
    assert less_wrong <= wrong
    assert more_latency >= latency * (1 - 1e-9)
    small, large = sorted(alphas)
    assert latency + small * wrong <= more_latency + small * less_wrong + 1e-6
    assert more_latency + large * less_wrong <= latency + large * wrong + 1e-6


@given(drawn=tables(fewest=2, most=6), seed=st.integers(0, 99))
@few
def test_the_router_does_not_care_what_classes_are_called(drawn, seed):
    members, truth = drawn
    classes = members[0].shape[1]
    names = np.random.default_rng(seed).permutation(classes)
    # Near ties go to the lowest label, which another order would break otherwise.
    members = [np.where(np.isnan(t), np.nan, t + np.arange(classes, 0, -1) * 1e-4).astype(np.float32) for t in members]
    members = [t / t.sum(axis=1, keepdims=True) for t in members]
    turned = [t[:, np.argsort(names)] for t in members]
    net = network("abc")
    router = ci.Router("a", alpha=77.7, min_samples=2)
    plain, renamed = answered(members, truth, classes), answered(turned, names[truth], classes)
    first, second = router.fit(plain, net), router.fit(renamed, net)
    assert [first.tables["device"].cut[k] for k in np.argsort(names)] == list(second.tables["device"].cut[:classes])
    np.testing.assert_array_equal(stages(first, plain, net)[0], stages(second, renamed, net)[0])


@given(drawn=tables(most=6))
@few
def test_a_router_routes_by_label_alone_and_past_models_that_say_nothing(drawn):
    members, truth = drawn
    members[1] = np.full_like(members[1], np.nan)
    classes = members[0].shape[1]
    preds, net = answered(members, truth, classes, labels_only="abc"), network("abc")
    router = ci.Router("a", alpha=50.0, min_samples=1).fit(preds, net)
    assert set(router.tables["device"].cut) <= {-np.inf, np.inf}
    _, outcomes = stages(router, preds, net)
    gone = np.isnan(members[0][:, 0])
    settled = np.array(outcomes["stages"].to_pylist())
    assert np.all(settled[gone] >= 2)
    assert "b" not in outcomes["model"].to_pylist()
    with pytest.raises(ci.UnknownNameError, match="no model 'c'"):
        Compiler(preds, network("ab")).plan(router, "device")
