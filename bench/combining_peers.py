"""Ten models, one answer: coinfer beside scikit-learn's and DESlib's static combiners, on the same inputs.

The peers get estimators that look up what each model said about a row, so that their time is that of combining. Run as
a script with the name of a contestant, this prints the seconds it takes, the memory that it needs on top of its inputs,
and a digest of its labels: `table_combine.py` does that in a fresh process for each.

DESlib's StackedClassifier is not among them: DESlib 0.3.7, the newest, calls a method that scikit-learn 1.6 removed.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
import warnings

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression

import coinfer as ci
from coinfer._core import cpu

MEMBERS = 10
CLASSES = 10
FITTED = 2_000
WEIGHTS = [1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0]


class Given(ClassifierMixin, BaseEstimator):
    """A model whose answers are known: row X[i, 0] of a table."""

    def __init__(self, table=None):
        self.table = table

    def __sklearn_clone__(self):
        return self

    def fit(self, X, y=None):
        self.classes_ = np.arange(CLASSES)
        self.n_features_in_ = 1
        return self

    def predict_proba(self, X):
        first, last = int(X[0, 0]), int(X[-1, 0]) + 1
        return self.table[first:last]

    def predict(self, X):
        return self.predict_proba(X).argmax(axis=1)


class Inputs:
    """Tables of ten models, their labels, and fitted combiners."""

    def __init__(self, rows, fit=True):
        rng = np.random.default_rng(0)
        self.truth = rng.integers(0, CLASSES, rows)
        self.tables = []
        for m in range(MEMBERS):
            table = rng.random((rows, CLASSES), dtype=np.float32)
            table **= 4
            table[np.arange(rows), self.truth] += np.float32(0.2 + 0.05 * m)
            table /= table.sum(axis=1, keepdims=True)
            self.tables.append(table)
        self.labels = [table.argmax(axis=1).astype(np.int32) for table in self.tables]
        self.rows = np.arange(rows, dtype=np.float64)[:, None]
        self.given = [(str(m), Given(table).fit(None)) for m, table in enumerate(self.tables)]
        if fit:
            part = slice(0, FITTED)
            self.stacking = StackingClassifier(self.given, cv="prefit", final_estimator=LogisticRegression())
            self.stacking.fit(self.rows[part], self.truth[part])
            head = [table[part] for table in self.tables]
            self.stack = ci.Stack.fit(
                head, self.truth[part], features="probs", regularisation=1.0, folds=0, missing="none"
            )

    def voting(self, voting, weights=None):
        voter = VotingClassifier(self.given, voting=voting, weights=weights)
        return voter.fit(self.rows[:FITTED], self.truth[:FITTED])


def deslib_rule(name, inputs):
    from deslib.util import aggregation

    return getattr(aggregation, name)([model for _, model in inputs.given], inputs.rows)


def deslib_weighted(inputs):
    from deslib.util import aggregation

    weights = np.broadcast_to(WEIGHTS, (len(inputs.rows), MEMBERS))
    labels = np.arange(CLASSES)
    return aggregation.weighted_majority_voting_rule(np.stack(inputs.labels, axis=1), weights, labels)


def prepared(contestant, inputs):
    """Give a function of no arguments that combines, with everything that is not combining done."""
    group, _, who = contestant.partition("/")
    if who.startswith("coinfer"):
        how = {"mean": "mean", "vote": "vote", "weighted_vote": "weighted_vote", "product": "logpool"}
        members = inputs.labels if "vote" in group else inputs.tables
        weights = WEIGHTS if group == "weighted_vote" else None
        chosen = inputs.stack if group == "stack" else how[group]
        threads = 2 if who.endswith("two threads") else 1
        return lambda: ci.combine(members, chosen, weights, classes=CLASSES, threads=threads).label
    if who == "scikit-learn":
        if group == "stack":
            return lambda: inputs.stacking.predict(inputs.rows)
        voter = inputs.voting("soft" if group == "mean" else "hard", WEIGHTS if group == "weighted_vote" else None)
        return lambda: voter.predict(inputs.rows)
    if group == "weighted_vote":
        return lambda: deslib_weighted(inputs)
    rule = {"mean": "average_combiner", "vote": "majority_voting", "product": "product_combiner"}[group]
    return lambda: deslib_rule(rule, inputs)


CONTESTANTS = (
    "mean/coinfer",
    "mean/coinfer, two threads",
    "mean/scikit-learn",
    "mean/DESlib",
    "product/coinfer",
    "product/coinfer, two threads",
    "product/DESlib",
    "vote/coinfer",
    "vote/coinfer, two threads",
    "vote/scikit-learn",
    "vote/DESlib",
    "weighted_vote/coinfer",
    "weighted_vote/coinfer, two threads",
    "weighted_vote/scikit-learn",
    "weighted_vote/DESlib",
    "stack/coinfer",
    "stack/coinfer, two threads",
    "stack/scikit-learn",
)


def timed(run):
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def main(contestant, rows):
    warnings.simplefilter("ignore")
    inputs = Inputs(rows)
    run = prepared(contestant, inputs)
    read = inputs.labels if "vote" in contestant else inputs.tables
    floor = min(
        sum(timed(lambda m=m: cpu.read_floor(m.reshape(-1).view(np.float32)))[0] for m in read) for _ in range(5)
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(5):
        spent, label = timed(run)
        seconds.append(spent)
        if sum(seconds) > 10:
            break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    digest = hashlib.sha256(np.asarray(label, np.int32).tobytes()).hexdigest()
    sys.stdout.write(json.dumps({"seconds": min(seconds), "floor": floor, "peak_mb": peak / 1024, "labels": digest}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
