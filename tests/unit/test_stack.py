"""Stacking: what is fitted, how it is applied natively, and what happens when somebody is missing."""

from __future__ import annotations

import numpy as np
import pytest

import coinfer as ci
import reference_combining as reference
from coinfer._core import plan as core
from coinfer.compiling import Compiler
from coinfer.strategy import Strategy

FAST = {"regularisation": 1.0, "folds": 0}


def tables(classes, members=3, rows=300, seed=0):
    """Models that are right more often than not, with noise of their own, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, rows)
    made = []
    for m in range(members):
        z = rng.normal(0, 1, (rows, classes)) + (1.5 - 0.3 * m) * np.eye(classes)[truth]
        made.append(reference.softmax(2 * z).astype(np.float32))
    return made, truth


def network(models):
    placed = [ci.Deployment(m, "n", service=ci.service.Constant(mean_ms=1.0)) for m in models]
    return ci.Network([ci.Node("n", 0)], [], [], placed)


def trace(rows):
    return ci.Trace(np.arange(rows) * 1000, ["n"] * rows, np.arange(rows))


@pytest.mark.parametrize("features", ["log_probs", "probs"])
@pytest.mark.parametrize("classes", [2, 3, 10, 16, 17, 40])
def test_equals_the_reference_on_every_instruction_set_and_row_by_row(features, classes):
    members, truth = tables(classes, rows=max(300, 12 * classes))
    stack = ci.Stack.fit(members, truth, features=features, missing="none", **FAST)
    label, confidence, probs = reference.stack(
        members, stack.coefficient[0], stack.intercept[0], features == "log_probs"
    )
    first = None
    for isa in ci.cpu.implementations():
        with ci.cpu.use(isa):
            got = ci.combine(members, stack, probs=True)
            np.testing.assert_array_equal(got.label, label)
            np.testing.assert_allclose(got.confidence, confidence, atol=2e-6)
            np.testing.assert_allclose(got.probs, probs, atol=2e-6)
            first = first or got
            np.testing.assert_array_equal(got.probs, first.probs)
            for row in range(0, 40, 3):
                alone = ci.combine([m[row : row + 1] for m in members], stack, probs=True)
                np.testing.assert_array_equal(alone.probs[0], got.probs[row])
                assert alone.label[0] == got.label[row]


@pytest.mark.parametrize("classes", [2, 4])
def test_labels_equal_scikit_learn(classes):
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.ensemble import StackingClassifier

    members, truth = tables(classes, rows=3000, seed=5)
    fit, held = slice(0, 1000), slice(1000, None)

    class Given(ClassifierMixin, BaseEstimator):
        """An estimator that looks up what a model said about row number X[:, 0]."""

        def __init__(self, at=0):
            self.at = at

        def fit(self, X, y):
            self.classes_ = np.unique(y)
            return self

        def predict_proba(self, X):
            return members[self.at][X[:, 0].astype(int)]

    rows = np.arange(3000)[:, None]
    given = [(str(i), Given(i).fit(rows, truth)) for i in range(len(members))]
    theirs = StackingClassifier(given, cv="prefit").fit(rows[fit], truth[fit])
    stack = ci.Stack.fit([m[fit] for m in members], truth[fit], features="probs", missing="none", **FAST)
    ours = ci.combine([m[held] for m in members], stack)
    if classes == 2:
        # Theirs drops the first of two columns: another penalty, so the labels agree but at the boundary.
        assert np.mean(ours.label == theirs.predict(rows[held])) > 0.99
    else:
        np.testing.assert_array_equal(ours.label, theirs.predict(rows[held]))


def test_permuting_the_members_permutes_the_fit():
    members, truth = tables(4)
    one = ci.Stack.fit(members, truth, **FAST)
    other = ci.Stack.fit(members[::-1], truth, **FAST)
    np.testing.assert_allclose(one.coefficient[0], other.coefficient[0][:, ::-1], atol=2e-3)
    agree = ci.combine(members, one).label == ci.combine(members[::-1], other).label
    assert agree.mean() > 0.99


def test_a_missing_member_has_a_fit_of_its_own_and_is_never_a_vote_for_class_0():
    members, truth = tables(4, seed=2)
    stack = ci.Stack.fit(members, truth, missing="one", **FAST)
    holes = [m.copy() for m in members]
    holes[1][:] = np.nan
    got = ci.combine(holes, stack, probs=True)
    without = ci.Stack.fit([members[0], members[2]], truth, missing="none", **FAST)
    expected = ci.combine([members[0], members[2]], without, probs=True)
    np.testing.assert_array_equal(got.label, expected.label)
    np.testing.assert_allclose(got.probs, expected.probs, atol=1e-6)
    # Two of three: no fit, so no answer; never class 0.
    holes[0][::2] = np.nan
    partly = ci.combine(holes, stack)
    assert (partly.label[::2] == -1).all()
    assert np.isnan(partly.confidence[::2]).all()
    np.testing.assert_array_equal(partly.label[1::2], got.label[1::2])
    assert partly.unanswered == 150


def test_which_absences_have_a_fit_is_chosen():
    members, truth = tables(3)
    none, any_ = (ci.Stack.fit(members, truth, missing=m, **FAST) for m in ("none", "any"))
    assert len(none.there) == 1
    assert len(any_.there) == 7
    only = [np.full_like(m, np.nan) for m in members]
    only[2] = members[2]
    assert (ci.combine(only, none).label == -1).all()
    assert np.mean(ci.combine(only, any_).label == truth) > 0.5
    nobody = [np.full_like(m, np.nan) for m in members]
    assert (ci.combine(nobody, any_).label == -1).all()


def test_the_penalty_is_chosen_out_of_fold_and_the_estimate_is_honest():
    members, truth = tables(3, rows=1200, seed=7)
    fit, held = slice(0, 600), slice(600, None)
    stack = ci.Stack.fit([m[fit] for m in members], truth[fit], folds=3, missing="none")
    assert stack.regularisation in (0.1, 1.0, 10.0)
    accuracy = np.mean(ci.combine([m[held] for m in members], stack).label == truth[held])
    assert abs(stack.accuracy - accuracy) < 0.06
    again = ci.Stack.fit([m[fit] for m in members], truth[fit], folds=3, missing="none")
    assert again == stack
    alone = max(np.mean(m[held].argmax(1) == truth[held]) for m in members)
    assert accuracy > alone


def test_session_bulk_and_combine_agree_in_every_bit(tmp_path):
    members, truth = tables(5, rows=400, seed=4)
    members[1][7] = np.nan
    members[0][8] = members[2][8] = np.nan
    models = {
        "m0": ci.ModelOutput(probs=members[0]),
        "m1": ci.ModelOutput(logits=np.log(members[1])),
        "m2": ci.ModelOutput(probs=members[2]),
    }
    predictions = ci.Predictions(models, labels=truth)
    net = network(("m2", "m0", "m1"))  # the plan's order is the network's, not the table's
    learned = ci.Stack.fit(dict(zip(models, members, strict=True)), truth, **FAST)
    strategy = ci.Ensemble("stack", models=("m0", "m1", "m2"), learned=learned)
    strategy.save(tmp_path / "s.toml")
    run = ci.replay(trace(400), predictions, net, Strategy.open(tmp_path / "s.toml"))
    outcomes = run.outcomes()
    status = outcomes["status"].to_pylist()
    assert (status[6], status[7], status[8]) == ("answered", "degraded", "failed")
    compiled = Compiler(predictions, net).plan(strategy, "n")
    plan, label, score = compiled.plan, compiled.evidence.label[0], compiled.evidence.score[0]
    answer = outcomes["answer"].to_numpy(zero_copy_only=False)
    np.testing.assert_array_equal(np.where(np.isnan(answer), -1, answer), label)
    for row in range(400):
        session = core.Session(plan)
        for member in reversed(session.ask()):
            form = "logits" if member == 1 else "probs"
            vector = models["m1"].vector if member == 1 else members[member]
            session.tell(member, core.Outputs(form, np.ascontiguousarray(vector[row : row + 1])))
        session.step()
        assert session.label == label[row]
        assert np.float32(session.score) == score[row] or np.isnan(score[row])


def test_fitted_as_a_strategy_its_arrays_stand_beside_the_file(tmp_path):
    members, truth = tables(5, rows=600, seed=3)
    predictions = ci.Predictions({f"m{i}": ci.ModelOutput(probs=m) for i, m in enumerate(members)}, labels=truth)
    net = network(predictions.models)
    fitted = ci.Ensemble("stack").fit(predictions.select(np.arange(0, 600, 2)), net)
    file = tmp_path / "stack.toml"
    fitted.save(file)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["stack.npz", "stack.toml"]
    assert file.stat().st_size < 1000
    opened = Strategy.open(file)
    assert opened == fitted
    np.testing.assert_array_equal(opened.learned.coefficient, fitted.learned.coefficient)
    held = predictions.select(np.arange(1, 600, 2))
    run = ci.replay(trace(300), held, net, opened)
    assert run.summary.accuracy > max(held.accuracy(m) for m in held.models)
    joint = ci.combine(
        [m[1::2] for m in members], ci.Stack.from_dict(opened.to_dict()["learned"] | {"model": list("012")})
    )
    np.testing.assert_array_equal(run.outcomes()["answer"].to_numpy(), joint.label)
    other = ci.Ensemble("stack", learned=ci.Stack.fit({"m0": members[0], "m1": members[1]}, truth, **FAST))
    other.save(tmp_path / "other.toml")
    (tmp_path / "other.npz").replace(tmp_path / "stack.npz")
    with pytest.raises(ci.BadFileError, match=r"stack\.npz: is not the file that stack\.toml was written with"):
        Strategy.open(file)
    (tmp_path / "stack.npz").unlink()
    with pytest.raises(ci.BadFileError, match=r"stack\.npz: no such file"):
        Strategy.open(file)


def test_models_of_other_label_sets_are_aligned_by_name_or_refused():
    members, truth = tables(4, members=2, rows=500, seed=9)
    names = ["a", "b", "c", "d"]
    narrow = members[1][:, [1, 2, 3]] / members[1][:, [1, 2, 3]].sum(axis=1, keepdims=True)
    predictions = ci.Predictions(
        {
            "wide": ci.ModelOutput(probs=members[0], classes=names),
            "narrow": ci.ModelOutput(probs=narrow.astype(np.float32), classes=["b", "c", "d"]),
        },
        labels=truth,
        classes=names,
    )
    net = network(predictions.models)
    learned = ci.Ensemble("stack").fit(predictions, net).learned
    fitted = ci.Ensemble("stack", learned=learned)
    spread = reference.spread(predictions["narrow"].vector, [1, 2, 3], 4)
    expected = reference.stack(
        [members[0], spread], fitted.learned.coefficient[0], fitted.learned.intercept[0], logs=True
    )
    got = ci.replay(trace(500), predictions, net, fitted).outcomes()["answer"].to_numpy()
    np.testing.assert_array_equal(got, expected[0])
    renamed = ci.Predictions(
        {
            "wide": ci.ModelOutput(probs=members[0], classes=["a", "b", "c", "e"]),
            "narrow": ci.ModelOutput(probs=members[1], classes=["a", "b", "c", "e"]),
        }
    )
    with pytest.raises(ci.UnsupportedError, match=r"fitted for the classes 'a', 'b', 'c', 'd', but .* 'e'"):
        ci.replay(trace(500), renamed, net, fitted)


def test_what_cannot_be_fitted_or_applied_is_named():
    members, truth = tables(3)
    with pytest.raises(ci.UnsupportedError, match=r"must be fitted first: pass how=coinfer\.Stack\.fit"):
        ci.combine(members, "stack")
    with pytest.raises(ci.UnsupportedError, match="true labels"):
        ci.Stack.fit(members, np.full(300, -1))
    with pytest.raises(ci.UnsupportedError, match="at least two classes"):
        ci.Stack.fit(members, np.zeros(300, int), **FAST)
    with pytest.raises(ci.UnknownNameError, match="did you mean 'log_probs'"):
        ci.Stack.fit(members, truth, features="logprobs")
    with pytest.raises(ci.UnknownNameError, match="missing must be one of none, one, any"):
        ci.Stack.fit(members, truth, missing="all")
    with pytest.raises(ci.BadValueError, match="folds must be 0 or at least 2"):
        ci.Stack.fit(members, truth, folds=0)
    stack = ci.Stack.fit(members, truth, **FAST)
    with pytest.raises(ci.UnsupportedError, match="was fitted for the members 0, 1, 2"):
        ci.combine(members[:2], stack)
    wide, _ = tables(4)
    with pytest.raises(ci.UnsupportedError, match="fitted for 3 classes"):
        ci.combine(wide, stack)
    with pytest.raises(ci.UnsupportedError, match="labels can only vote"):
        ci.combine([m.argmax(axis=1) for m in members], stack, classes=3)
    labels = ci.Predictions({"a": ci.ModelOutput(label=truth), "b": ci.ModelOutput(probs=members[0])}, labels=truth)
    with pytest.raises(ci.UnsupportedError, match="model 'a' gives labels only, but 'stack' combines"):
        ci.Ensemble("stack").fit(labels, network(labels.models))
    predictions = ci.Predictions({f"m{i}": ci.ModelOutput(probs=m) for i, m in enumerate(members)}, labels=truth)
    with pytest.raises(ci.UnsupportedError, match="is not fitted yet"):
        ci.replay(trace(300), predictions, network(predictions.models), ci.Ensemble("stack"))
    with pytest.raises(ci.BadValueError, match="finds weights of its own"):
        ci.Ensemble("stack", weights={"m0": 1.0})
    with pytest.raises(ci.BadValueError, match="do not fit the models"):
        ci.Stack.from_dict(stack.to_dict() | {"there": ["11"]})


def test_a_class_that_the_fitting_set_lacks_is_never_answered():
    members, truth = tables(4, rows=800)
    truth = np.where(truth == 2, -1, truth)
    stack = ci.Stack.fit(members, truth, missing="none", **FAST)
    assert not np.any(ci.combine(members, stack).label == 2)
