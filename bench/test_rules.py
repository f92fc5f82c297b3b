"""Rules of one's own: beside the built-in rule that decides the same, and beside the same formula written in Numba."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np
import pytest

import coinfer as ci
from coinfer._core import plan as core

if TYPE_CHECKING:
    from coinfer.rule import StopRule

STAGES = 4
MEMBERS = 4
THRESHOLDS = np.array([0.9, 0.85, 0.8], np.float32)
CLASSES = 10
PER_LABEL = np.linspace(0.75, 0.95, (STAGES - 1) * CLASSES, dtype=np.float32).reshape(STAGES - 1, CLASSES)
SUPER = np.arange(CLASSES) // 2
SUPER_1000 = np.arange(1000) // 10


@ci.rule.stop
def threshold(view):
    return view.score >= THRESHOLDS[view.stage]


@ci.rule.stop
def per_label(view):
    return view.score >= PER_LABEL[view.stage, view.label]


@ci.rule.score
def family(p, label):
    """How likely the family of the label is: the sum over classes of its super-class."""
    total = np.float32(0)
    for k in range(len(p)):
        total += p[k] if SUPER_1000[k] == SUPER_1000[label] else np.float32(0)
    return total


@ci.rule.combine
def trimmed(probs, out):
    """The mean without the lowest and the highest."""
    for k in range(probs.shape[1]):
        low, high, total = probs[0, k], probs[0, k], np.float32(0)
        for m in range(probs.shape[0]):
            low, high, total = min(low, probs[m, k]), max(high, probs[m, k]), total + probs[m, k]
        out[k] = (total - low - high) / np.float32(probs.shape[0] - 2)


def plan_of(rule: StopRule | None) -> core.Plan:
    members = [(0, 0, "confidence", 1.0, 1.0, None, [])] * STAGES
    cuts = [*THRESHOLDS.tolist(), 0.0]
    stages = [(s, 1, cut, 0.0, None) for s, cut in enumerate(cuts)]
    return core.Plan(members, stages, "last", False, rule=None if rule is None else rule.build(0))


@pytest.fixture(scope="module")
def evidence(request):
    return evidence_of(20_000 if request.config.getoption("benchmark_disable") else 10_000_000)


def evidence_of(rows):
    """Four stages of labels and scores that no branch predictor can guess."""
    rng = np.random.default_rng(0)
    outputs = [
        core.Outputs(
            "label_confidence",
            None,
            rng.integers(0, CLASSES, rows, dtype=np.int32),
            rng.random(rows, dtype=np.float32),
        )
        for _ in range(STAGES)
    ]
    members = [(s, s, "confidence", 1.0, 1.0, None, []) for s in range(STAGES)]
    plan = core.Plan(members, [(s, 1, 0.5, 0.0, None) for s in range(STAGES)], "last", False)
    return core.gather(plan, outputs)


@numba.njit(error_model="numpy")
def hand_per_label(label, score, table, settled):
    stages, rows = label.shape
    for row in range(rows):
        settled[row] = stages - 1
        for s in range(stages - 1):
            if score[s, row] >= table[s, label[s, row]]:
                settled[row] = s
                break


@pytest.mark.benchmark(group="stop rule, 4 stages")
@pytest.mark.parametrize("contestant", ["built-in", "rule", "rule by label", "numba by label"])
def test_stop(benchmark, evidence, contestant):
    expected = {
        "built-in": lambda: core.decide(plan_of(None), evidence).route,
        "rule": lambda: core.decide(plan_of(threshold), evidence).route,
        "rule by label": lambda: core.decide(plan_of(per_label), evidence).route,
        "numba by label": lambda: hand(evidence),
    }
    threshold.compile()
    per_label.compile()
    result = np.asarray(benchmark.pedantic(expected[contestant], rounds=5, warmup_rounds=1))
    other = "numba by label" if "label" in contestant else "built-in"
    assert np.array_equal(result, expected[other]())
    benchmark.extra_info["rows"] = len(result)


def hand(evidence):
    settled = np.empty(evidence.rows, np.uint8)
    hand_per_label(evidence.label, evidence.score, PER_LABEL, settled)
    return settled


@numba.njit(error_model="numpy")
def hand_family(table, out):
    rows, classes = table.shape
    for row in range(rows):
        label = 0
        for k in range(1, classes):
            if table[row, k] > table[row, label]:
                label = k
        total = np.float32(0)
        for k in range(classes):
            total += table[row, k] if SUPER_1000[k] == SUPER_1000[label] else np.float32(0)
        out[row] = total


@pytest.mark.parametrize("classes", [10, 100, 1000])
@pytest.mark.parametrize("contestant", ["rule", "numba"])
def test_score(benchmark, request, classes, contestant):
    total = 200_000 if request.config.getoption("benchmark_disable") else 160_000_000
    table = np.random.default_rng(0).random((total // classes, classes), dtype=np.float32)
    family.compile()
    out = np.empty(len(table), np.float32)
    benchmark.group = f"score rule, C={classes}"
    run = {
        "rule": lambda: ci.score(table, kind=family, input="probs", out=out),
        "numba": lambda: hand_family(table, out),
    }
    benchmark.pedantic(run[contestant], rounds=3, warmup_rounds=1)
    result = out.copy()
    hand_family(table, out)
    assert np.array_equal(result, out)
    benchmark.extra_info["bytes"] = table.nbytes


@numba.njit(error_model="numpy")
def hand_trimmed(a, b, c, d, label, confidence):
    rows, classes = a.shape
    made = np.empty(classes, np.float32)
    said = np.empty((4, classes), np.float32)
    for row in range(rows):
        said[0], said[1], said[2], said[3] = a[row], b[row], c[row], d[row]
        for k in range(classes):
            low, high, total = said[0, k], said[0, k], np.float32(0)
            for m in range(4):
                low, high, total = min(low, said[m, k]), max(high, said[m, k]), total + said[m, k]
            made[k] = (total - low - high) / np.float32(2)
        best = 0
        for k in range(1, classes):
            if made[k] > made[best]:
                best = k
        label[row] = best
        confidence[row] = made[best]


@numba.njit(error_model="numpy")
def hand_trimmed_stacked(tables, label, confidence):
    members, rows, classes = tables.shape
    made = np.empty(classes, np.float32)
    for row in range(rows):
        for k in range(classes):
            low, high, total = tables[0, row, k], tables[0, row, k], np.float32(0)
            for m in range(members):
                low, high, total = min(low, tables[m, row, k]), max(high, tables[m, row, k]), total + tables[m, row, k]
            made[k] = (total - low - high) / np.float32(members - 2)
        best = 0
        for k in range(1, classes):
            if made[k] > made[best]:
                best = k
        label[row] = best
        confidence[row] = made[best]


@pytest.mark.parametrize("classes", [10, 100, 1000])
@pytest.mark.parametrize("contestant", ["rule", "numba", "numba, one table each"])
def test_combine(benchmark, request, classes, contestant):
    total = 200_000 if request.config.getoption("benchmark_disable") else 160_000_000
    tables = np.random.default_rng(0).random((MEMBERS, total // (MEMBERS * classes), classes), dtype=np.float32)
    trimmed.compile()
    rows = tables.shape[1]
    label, confidence = np.empty(rows, np.int32), np.empty(rows, np.float32)
    made = ci.Combined(label, confidence, np.empty(rows, np.float32), None, 0)
    run = {
        "rule": lambda: ci.combine(list(tables), how=trimmed, out=made),
        "numba": lambda: hand_trimmed_stacked(tables, label, confidence),
        "numba, one table each": lambda: hand_trimmed(*tables, label, confidence),
    }
    benchmark.group = f"combine rule, {MEMBERS} members, C={classes}"
    benchmark.pedantic(run[contestant], rounds=3, warmup_rounds=1)
    result = label.copy(), confidence.copy()
    hand_trimmed_stacked(tables, label, confidence)
    assert np.array_equal(result[0], label)
    assert np.array_equal(result[1], confidence)
    benchmark.extra_info["bytes"] = tables.nbytes
