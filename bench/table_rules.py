"""Print the table of custom rules of docs/PERFORMANCE.md.

Each stands beside the built-in rule that decides the same, or beside the same formula written in Numba by hand, for
combiners the faster of two ways. Results are compared first; contestants take turns, and the least CPU time of all
turns counts. COINFER_BENCH_BYTES sets the size of tables (default 160 million), COINFER_BENCH_TURNS how many turns
there are.
"""

from __future__ import annotations

import os
import sys

import numpy as np

import coinfer as ci
import test_rules as rules
from coinfer._core import plan as core
from table_score import cpu_name, least


def stops(rows):
    """Four stages: a threshold each, and a threshold for each label."""
    evidence = rules.evidence_of(rows)
    yield (
        "stop, a threshold per stage",
        "built in",
        lambda: core.decide(rules.plan_of(rules.threshold), evidence).route,
        [lambda: core.decide(rules.plan_of(None), evidence).route],
        rows,
    )
    yield (
        "stop, a threshold per stage and label",
        "Numba",
        lambda: core.decide(rules.plan_of(rules.per_label), evidence).route,
        [lambda: rules.hand(evidence)],
        rows,
    )


def scores(floats, classes):
    """The probability of the label's family."""
    rows = floats // classes
    table = np.random.default_rng(0).random((rows, classes), np.float32)
    ours, theirs = np.empty(rows, np.float32), np.empty(rows, np.float32)

    def by_hand():
        rules.hand_family(table, theirs)
        return theirs

    yield (
        f"score, {classes} classes",
        "Numba",
        lambda: ci.score(table, kind=rules.family, input="probs", out=ours),
        [by_hand],
        rows,
    )


def combiners(floats, classes):
    """The trimmed mean of four models."""
    rows = floats // (rules.MEMBERS * classes)
    tables = np.random.default_rng(0).random((rules.MEMBERS, rows, classes), np.float32)
    out = ci.combine(list(tables))
    label, confidence = np.empty(rows, np.int32), np.empty(rows, np.float32)

    def stacked():
        rules.hand_trimmed_stacked(tables, label, confidence)
        return label

    def apart():
        rules.hand_trimmed(*tables, label, confidence)
        return label

    yield (
        f"combiner, 4 models, {classes} classes",
        "Numba",
        lambda: ci.combine(list(tables), how=rules.trimmed, out=out).label,
        [stacked, apart],
        rows,
    )


def main():
    floats = int(float(os.environ.get("COINFER_BENCH_BYTES", 160e6))) // 4
    turns = int(os.environ.get("COINFER_BENCH_TURNS", 7))
    write = sys.stdout.write
    write(f"{cpu_name()}, {os.cpu_count()} cores, one thread; {4 * floats / 1e6:.0f} MB\n\n")
    write("| rule | coinfer, ns per row | the same | ns per row | ratio |\n|---|---|---|---|---|\n")
    groups = [stops(floats // 4), *(make(floats, c) for make in (scores, combiners) for c in (10, 100, 1000))]
    for name, peer, ours, theirs, rows in (row for group in groups for row in group):
        for their in theirs:
            if not np.array_equal(ours(), their()):
                sys.exit(f"{name}: results differ")
        best = least({"ours": (ours,)} | {str(i): (their,) for i, their in enumerate(theirs)}, turns)
        mine = best.pop("ours") / rows * 1e9
        other = min(best.values()) / rows * 1e9
        write(f"| {name} | {mine:.2f} | {peer} | {other:.2f} | {mine / other:.2f} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
