"""A plan's combiner: named, or a description that knows how to build one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import coinfer as ci
from coinfer._core import plan as core
from coinfer.combiner import CombinerSpec, combiner
from coinfer.compiling import Compiler
from coinfer.strategy import PlanSpec, StageSpec


@dataclass(frozen=True)
class Asked(CombinerSpec):
    """A mean that remembers what it was built for."""

    name = "asked"
    needs = "vectors"
    seen: tuple[object, ...] = ()

    def build(self, classes, members, score):
        asked.append((classes, tuple(members), score))
        return core.Combiner("mean", classes, score)


asked: list[object] = []


def network(*models):
    return ci.Network([ci.Node("n", 0)], [], [], [ci.Deployment(m, "n") for m in models])


def test_a_description_is_built_for_its_plan_and_shares_evidence_by_key():
    rng = np.random.default_rng(0)
    tables = [rng.dirichlet(np.ones(3), 50).astype(np.float32) for _ in range(2)]
    predictions = ci.Predictions({m: ci.ModelOutput(probs=t) for m, t in zip("ab", tables, strict=True)})
    net = network("a", "b")
    compiler = Compiler(predictions, net)
    stages = (StageSpec(tuple(net.deployments)),)
    asked.clear()
    first = compiler.compile(PlanSpec(stages, combiner=Asked()), "n")
    again = compiler.compile(PlanSpec(stages, combiner=Asked()), "n")
    other = compiler.compile(PlanSpec(stages, combiner=Asked(seen=(1,))), "n")
    named = compiler.compile(PlanSpec(stages, combiner="mean"), "n")
    assert asked[0] == (3, ("a", "b"), "max_prob")
    assert first.evidence is again.evidence
    assert first.evidence is not other.evidence
    np.testing.assert_array_equal(first.evidence.label, named.evidence.label)
    np.testing.assert_array_equal(first.evidence.score, named.evidence.score)


def test_what_a_description_needs_is_checked_by_model():
    predictions = ci.Predictions({"soft": ci.ModelOutput(probs=[[0.5, 0.5]]), "hard": ci.ModelOutput(label=[0])})
    net = network("soft", "hard")
    stages = (StageSpec(tuple(net.deployments)),)
    with pytest.raises(ci.UnsupportedError, match="'hard' gives labels only, but 'asked' combines"):
        Compiler(predictions, net).compile(PlanSpec(stages, combiner=Asked()), "n")


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ci.UnknownNameError, match="did you mean 'vote'"):
        combiner("votes")
    assert combiner("vote").needs == "labels"
