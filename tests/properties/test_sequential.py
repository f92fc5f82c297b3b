"""Sequential ensembles on random problems: ties, weights, abstentions, members that say nothing, any number of classes.

Joint and sequential agree where the rule promises it, bulk and live agree always, and every stop is where the float64
reference stops.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import coinfer as ci
import reference_sequential as reference
from coinfer._core import plan as core
from coinfer.compiling import Compiler, outputs_of
from coinfer.sequencing import Cells, SequentialFit

ROWS = 24


@dataclass
class Problem:
    predictions: ci.Predictions
    network: ci.Network
    groups: tuple[tuple[str, ...], ...]
    weights: dict[str, float] | None
    classes: int
    quiet: dict[str, int]

    def row(self, row, groups=None):
        """Each group's answers to one row, as the reference takes them."""
        return [[self.answer(model, row) for model in group] for group in groups or self.groups]

    def answer(self, model, row):
        output = self.predictions[model]
        if output.vector is not None:
            vector = output.vector[row]
            quiet = model in self.quiet and not np.isnan(vector).any() and np.argmax(vector) == self.quiet[model]
            return -2 if quiet else vector
        label = int(output.label[row])
        return -2 if label == self.quiet.get(model) else label

    def weight_of(self, groups=None):
        return [[(self.weights or {}).get(m, 1.0) for m in group] for group in groups or self.groups]


@st.composite
def problems(draw, vectors=None, weighted=None):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    members, classes = draw(st.integers(1, 7)), draw(st.sampled_from([1, 2, 3, 5, 17]))
    vectors = draw(st.booleans()) if vectors is None else vectors
    names = [f"m{i}" for i in range(members)]
    truth = rng.integers(0, classes, ROWS)
    outputs, quiet = {}, {}
    for name in names:
        label = np.where(rng.random(ROWS) < rng.random(), truth, rng.integers(0, classes, ROWS))
        if vectors:
            probs = rng.dirichlet(np.full(classes, rng.choice([0.1, 1.0])), ROWS)
            if rng.random() < 0.5:  # the same few vectors again and again: ties of sums
                probs = np.eye(classes)[label] * 0.5 + 0.5 / classes
            probs = probs.astype(np.float32)
            probs[rng.random(ROWS) < 0.1] = np.nan
            outputs[name] = ci.ModelOutput(probs=probs)
        else:
            outputs[name] = ci.ModelOutput(label=np.where(rng.random(ROWS) < 0.1, -1, label).astype(np.int32))
        if classes > 1 and rng.random() < 0.3:
            quiet[name] = int(rng.integers(0, classes))
    weighted = draw(st.sampled_from([None, "whole", "any"])) if weighted is None else weighted or None
    weights = None
    if weighted:
        drawn = rng.integers(0, 5, members) if weighted == "whole" else rng.exponential(1.0, members)
        weights = {name: float(w) for name, w in zip(names, drawn, strict=True)}
        weights[names[0]] += 1.0
    marks = sorted({0, members, *(int(i) for i in range(1, members) if draw(st.booleans()))})
    groups = tuple(tuple(names[a:b]) for a, b in itertools.pairwise(marks))
    network = ci.Network(
        [ci.Node("n", 0)],
        [],
        [ci.Model(name, abstain=[quiet[name]] if name in quiet else []) for name in names],
        [ci.Deployment(name, "n") for name in names],
    )
    predictions = ci.Predictions(outputs, labels=truth, classes=[f"c{k}" for k in range(classes)])
    return Problem(predictions, network, groups, weights, classes, quiet)


def decisions(problem, strategy):
    """Stage, label and score where each row settles, with what the plan was compiled to."""
    compiled = Compiler(problem.predictions, problem.network).plan(strategy, "n")
    at = np.array(compiled.decisions.route)
    rows = np.arange(ROWS)
    return at, compiled.evidence.label[at, rows], compiled.evidence.score[at, rows], compiled


def live(problem, compiled, told):
    """Lead every row through a session; what a member has no answer to is told as it is, or not at all."""
    models = [d.model for stage in compiled.spec.stages for d in stage.members]
    found = []
    for row in range(ROWS):
        one = problem.predictions.select([row])
        session = core.Session(compiled.plan)
        while session.status == core.Status.open:
            for member in reversed(session.ask()):
                answer = problem.answer(models[member], row)
                if told or not ((np.ndim(answer) == 0 and answer == -1) or np.isnan(answer).any()):
                    session.tell(member, outputs_of(one, models[member]))
            session.step()
        found.append((session.stage, session.label, np.float32(session.score)))
    at, label, score = zip(*found, strict=True)
    return np.array(at), np.array(label), np.array(score)


def sequential(problem, how, stop, **more):
    weights = problem.weights
    how = {"mean": "weighted", "vote": "weighted_vote"}[how] if weights is not None else how
    return ci.Sequential(how, stop, more.pop("order", "given"), weights=weights, groups=problem.groups, **more)


@settings(max_examples=150, deadline=None)
@given(problems(), st.booleans())
def test_decided_is_lossless_row_by_row(problem, told):
    vectors = problem.predictions["m0"].vector is not None
    for how in ("vote", "mean") if vectors else ("vote",):
        at, label, score, compiled = decisions(problem, sequential(problem, how, "decided"))
        np.testing.assert_array_equal(label, compiled.evidence.label[-1])
        joint = ci.Ensemble("weighted" if how == "mean" and problem.weights else how, weights=problem.weights)
        np.testing.assert_array_equal(label, decisions(problem, joint)[1])
        for got, expected in zip(live(problem, compiled, told), (at, label, score), strict=True):
            np.testing.assert_array_equal(got, expected)
        if how == "mean":
            continue
        whole = problem.weights is None or all(w == int(w) for w in problem.weights.values())
        for row in range(ROWS if whole and not vectors else 0):
            assert at[row] == reference.decided(problem.row(row), problem.weight_of(), problem.classes)


@settings(max_examples=80, deadline=None)
@given(problems(vectors=True), st.integers(0, 5))
def test_a_decided_mean_stops_where_the_lead_exceeds_what_is_left(problem, seed):
    strategy = sequential(problem, "mean", "decided", order="random", seed=seed)
    at, label, _, compiled = decisions(problem, strategy)
    np.testing.assert_array_equal(label, compiled.evidence.label[-1])
    groups = tuple(tuple(d.model for d in stage.members) for stage in compiled.spec.stages)
    weights = problem.weight_of(groups)
    for row in range(ROWS):
        answers = problem.row(row, groups)
        sums = reference.running(answers, weights, problem.classes)
        left = [sum(sum(w) for w in weights[s + 1 :]) for s in range(len(groups))]
        exact = reference.first(answers, sums, lambda s, total: reference.lead(total) > left[s])  # noqa: B023
        slack = reference.first(answers, sums, lambda s, total: reference.lead(total) > left[s] * (1 + 1e-5) + 1e-6)  # noqa: B023
        assert exact <= at[row] <= slack


@settings(max_examples=80, deadline=None)
@given(problems(vectors=False, weighted=False), st.sampled_from([0.0, 0.01, 0.2, 0.6]), st.booleans())
def test_probable_stops_at_the_posterior(problem, delta, told):
    at, label, score, compiled = decisions(problem, sequential(problem, "vote", "probable", delta=delta))
    for row in range(ROWS):
        assert at[row] == reference.probable(problem.row(row), problem.classes, delta)
    for got, expected in zip(live(problem, compiled, told), (at, label, score), strict=True):
        np.testing.assert_array_equal(got, expected)
    bolder = decisions(problem, sequential(problem, "vote", "probable", delta=delta + 0.1))[0]
    assert np.all(bolder <= at)
    if delta == 0.0 and problem.classes > 1:
        decided = decisions(problem, sequential(problem, "vote", "decided"))[0]
        np.testing.assert_array_equal(at, decided)


@settings(max_examples=60, deadline=None)
@given(problems(vectors=False), st.lists(st.floats(-1.0, 8.0), min_size=7, max_size=7), st.booleans())
def test_thresholds_on_the_lead_stop_where_they_say_and_later_if_raised(problem, cuts, told):
    cuts = [float(np.float32(cut)) for cut in cuts[: len(problem.groups) - 1]]
    fit = SequentialFit(problem.groups, tuple(cuts), (), 0, 0, 1.0, 0.0, certified=False, heuristic=False)
    strategy = sequential(problem, "vote", "qwyc", fits={"n": fit})
    at, label, score, compiled = decisions(problem, strategy)
    for got, expected in zip(live(problem, compiled, told), (at, label, score), strict=True):
        np.testing.assert_array_equal(got, expected)
    if problem.weights is None or all(w == int(w) for w in problem.weights.values()):
        for row in range(ROWS):
            assert at[row] == reference.thresholds(problem.row(row), problem.weight_of(), problem.classes, cuts)
    raised = replace(fit, thresholds=tuple(cut + 1.0 for cut in cuts))
    assert np.all(decisions(problem, replace(strategy, fits={"n": raised}))[0] >= at)
    # At the last stage, whatever the thresholds: the joint answer.
    never = replace(fit, thresholds=tuple(np.inf for _ in cuts))
    joint = decisions(problem, ci.Ensemble("vote", weights=problem.weights))[1]
    np.testing.assert_array_equal(decisions(problem, replace(strategy, fits={"n": never}))[1], joint)


@settings(max_examples=60, deadline=None)
@given(problems(vectors=False, weighted=False), st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.3]))
def test_bounds_by_cell_stop_where_they_say(problem, seed, delta):
    rng = np.random.default_rng(seed)
    cells = []
    for _ in problem.groups[1:]:
        starts = np.unique(rng.integers(0, 6, rng.integers(1, 5))).astype(float)
        bounds = rng.choice([0.01, 0.1, 0.5], len(starts))
        none = (0,) * len(starts)
        cells.append(Cells(tuple(starts.tolist()), none, none, tuple(bounds.tolist())))
    fit = SequentialFit(problem.groups, (), tuple(cells), 0, 0, 1.0, 0.0, certified=False, heuristic=False)
    at = decisions(problem, sequential(problem, "vote", "empirical", delta=delta, fits={"n": fit}))[0]
    plain = [(cell.lead, cell.high) for cell in cells]
    for row in range(ROWS):
        expected = reference.empirical(problem.row(row), problem.weight_of(), problem.classes, plain, delta)
        assert at[row] == expected


@settings(max_examples=80, deadline=None)
@given(problems(vectors=False, weighted=False), st.integers(1, 3), st.booleans(), st.randoms(use_true_random=False))
def test_agreement_lets_a_group_answer_for_itself(problem, votes, told, random):
    needs = tuple(min(votes, len(group)) for group in problem.groups[:-1])
    strategy = ci.Agreement(problem.groups, needs)
    at, label, score, compiled = decisions(problem, strategy)
    for got, expected in zip(live(problem, compiled, told), (at, label, score), strict=True):
        np.testing.assert_array_equal(got, expected)
    for row in range(ROWS):
        answers = problem.row(row)
        assert at[row] == reference.agreement(answers, problem.classes, needs)
        counts = np.bincount([a for a in answers[at[row]] if a >= 0], minlength=problem.classes)
        if counts.max() > 0:
            assert label[row] == counts.argmax()
            alone = np.count_nonzero(counts == counts.max()) == 1
            assert score[row] == (np.float32(counts.max() / len(answers[at[row]])) if alone else 0.0)
    # The order within a group means nothing; asking for more stops no earlier.
    mixed = tuple(tuple(random.sample(group, len(group))) for group in problem.groups)
    again = decisions(problem, ci.Agreement(mixed, needs))
    np.testing.assert_array_equal(again[0], at)
    np.testing.assert_array_equal(again[2], score)
    assert np.all(decisions(problem, ci.Agreement(problem.groups, 1.0))[0] >= at)


@settings(max_examples=60, deadline=None)
@given(problems(vectors=False, weighted=False), st.randoms(use_true_random=False))
def test_voters_of_one_group_and_names_of_classes_are_exchangeable(problem, random):
    at, _, score, _ = decisions(problem, sequential(problem, "vote", "probable", delta=0.1))
    mixed = replace(problem, groups=tuple(tuple(random.sample(group, len(group))) for group in problem.groups))
    again = decisions(mixed, sequential(mixed, "vote", "probable", delta=0.1))
    np.testing.assert_array_equal(again[0], at)
    np.testing.assert_array_equal(again[2], score)


def test_a_problem_can_fail():
    """The power of the above: a threshold one vote too low changes decisions."""
    labels = {"a": [0], "b": [0], "c": [1], "d": [1], "e": [1]}
    predictions = ci.Predictions({m: ci.ModelOutput(label=np.array(y, np.int32)) for m, y in labels.items()})
    network = ci.Network([ci.Node("n", 0)], [], [], [ci.Deployment(m, "n") for m in labels])
    groups = tuple((m,) for m in labels)
    fit = SequentialFit(groups, (4.0, 2.0, 3.0, 2.0), (), 0, 0, 1.0, 0.0, certified=False, heuristic=False)
    low = ci.Sequential("vote", "qwyc", fits={"n": fit})
    compiled = Compiler(predictions, network).plan(low, "n")
    assert compiled.evidence.label[compiled.decisions.route[0], 0] == 0
    assert compiled.evidence.label[-1, 0] == 1
    with pytest.raises(ci.UnsupportedError, match="not fitted"):
        ci.Sequential("vote", "qwyc").plan(network, "n")
