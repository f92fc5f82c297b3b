"""What holds for every combiner, whatever the models say: order, absence, label-only models, bulk and single rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import coinfer as ci

POOLS = ("mean", "weighted", "logpool")
VOTES = ("vote", "weighted_vote", "boost")


@st.composite
def answers(draw):
    """Tables and labels of a few models over a few rows, some of them missing, with true labels."""
    classes, members, rows = draw(st.integers(1, 20)), draw(st.integers(1, 6)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tables = []
    for _ in range(members):
        table = (
            rng.choice([0.0, 0.25, 0.5, 1.0], (rows, classes)) if draw(st.booleans()) else rng.random((rows, classes))
        )
        table = (table + 1e-3) / (table + 1e-3).sum(axis=1, keepdims=True)
        table[rng.random(rows) < draw(st.sampled_from([0.0, 0.1, 0.5]))] = np.nan
        tables.append(table.astype(np.float32))
    weights = [draw(st.sampled_from([0.25, 1.0, 2.0, 0.3])) for _ in range(members)]
    return tables, weights, rng.integers(0, classes, rows), classes


def labels_of(tables):
    gone = [np.isnan(t[:, 0]) for t in tables]
    return [
        np.where(g, -1, np.nan_to_num(t).argmax(axis=1)).astype(np.int32) for t, g in zip(tables, gone, strict=True)
    ]


def chosen(how, tables, weights, truth, classes):
    """Members, combiner and weights as `coinfer.combine` takes them."""
    members = tables if how in POOLS else labels_of(tables)
    if how != "boost":
        return members, how, weights if "weighted" in how else None
    try:
        return members, ci.Boost.fit(members, truth, classes=max(classes, 2)), None
    except ci.UnsupportedError:  # nobody is better than chance
        return members, "vote", None


@pytest.mark.parametrize("how", POOLS + VOTES)
@given(drawn=answers())
@settings(max_examples=12, deadline=None)
def test_joint_is_one_by_one_and_absence_is_absence(how, drawn):
    tables, weights, truth, classes = drawn
    members, combiner, weights = chosen(how, tables, weights, truth, classes)
    classes = max(classes, 2) if how == "boost" else classes
    joint = ci.combine(members, combiner, weights, classes=classes)
    whole = ci.combine(members, combiner, weights, classes=classes, probs=True)
    np.testing.assert_array_equal(joint.label, whole.label)
    np.testing.assert_array_equal(joint.confidence, whole.confidence)
    asked = [True] * len(members)
    if isinstance(combiner, ci.Boost):
        asked = [str(i) in combiner.models for i in range(len(members))]
    gone = np.array([np.isnan(t[:, 0]) for t, here in zip(tables, asked, strict=True) if here]).all(axis=0)
    np.testing.assert_array_equal(joint.label == -1, gone)
    np.testing.assert_array_equal(np.isnan(joint.confidence), gone)
    row = len(truth) // 2
    alone = ci.combine([m[row : row + 1] for m in members], combiner, weights, classes=classes)
    np.testing.assert_array_equal(alone.label[0], joint.label[row])
    np.testing.assert_array_equal(alone.confidence[0], joint.confidence[row])


@pytest.mark.parametrize("how", POOLS + VOTES)
@given(drawn=answers(), seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_the_order_of_models_matters_to_nobody(how, drawn, seed):
    tables, weights, truth, classes = drawn
    order = np.random.default_rng(seed).permutation(len(tables))
    members, combiner, weights = chosen(how, tables, weights, truth, classes)
    names = [f"m{i}" for i in range(len(members))]
    classes = max(classes, 2) if how == "boost" else classes
    if isinstance(combiner, ci.Boost):
        combiner = ci.Boost(
            tuple((f"m{name}", weight) for name, weight in combiner.picked), tuple(f"m{n}" for n in combiner.dropped)
        )
    one = ci.combine(dict(zip(names, members, strict=True)), combiner, weights, classes=classes)
    other = ci.combine(
        {names[i]: members[i] for i in order},
        combiner,
        None if weights is None else [weights[i] for i in order],
        classes=classes,
    )
    clear = ~(one.margin < 1e-5)
    np.testing.assert_array_equal(one.label[clear], other.label[clear])
    np.testing.assert_allclose(one.confidence, other.confidence, atol=1e-6)


@pytest.mark.parametrize("how", POOLS + VOTES)
@given(drawn=answers())
@settings(max_examples=8, deadline=None)
def test_a_member_that_never_answers_might_as_well_not_be_there(how, drawn):
    tables, weights, truth, classes = drawn
    members, combiner, weights = chosen(how, tables, weights, truth, classes)
    if isinstance(combiner, ci.Boost):
        combiner, weights = "weighted_vote", [combiner.weights.get(str(i), 0.0) for i in range(len(members))]
        classes = max(classes, 2)
    silent = np.full_like(members[0], np.nan if how in POOLS else -1)
    without = ci.combine(members, combiner, weights, classes=classes)
    beside = ci.combine([silent, *members], combiner, None if weights is None else [5.0, *weights], classes=classes)
    np.testing.assert_array_equal(without.label, beside.label)
    np.testing.assert_array_equal(without.confidence, beside.confidence)
