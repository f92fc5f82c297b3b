"""What combining means, in float64 NumPy, row by row where that is clearer: the specification of `coinfer.combine`.

Written to be read, not to be fast. A member's answers are probabilities of shape (N, C), or labels of shape (N,).
"""

from __future__ import annotations

import numpy as np

FLOOR = 2.0**-126  # what a zero counts as in a pool of logarithms


def softmax(logits, temperature=1.0):
    """Probabilities of logits; infinite logits share the mass."""
    z = np.asarray(logits, np.float64)
    top = z.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        e = np.where(np.isinf(top), z == top, np.exp((z - np.where(np.isinf(top), 0, top)) / temperature))
    return e / e.sum(axis=1, keepdims=True)


def temper(probs, temperature):
    """softmax(ln p / T)."""
    p = np.asarray(probs, np.float64)
    with np.errstate(divide="ignore"):
        return softmax(np.log(p), temperature)


def answers(member):
    """Which rows hold an answer."""
    member = np.asarray(member)
    if member.ndim == 1:
        return member >= 0
    with np.errstate(invalid="ignore"):
        return np.all((member >= 0) & (member < np.inf), axis=1)


def spread(probs, relabel, classes):
    """Probabilities over the shared classes; those that the member does not know have none."""
    wide = np.zeros((len(probs), classes), np.float64)
    wide[:, relabel] = probs
    return wide


def combine(members, how="mean", weights=None, classes=None):
    """Label, confidence, margin and combined probabilities of every row; -1 and NaN where nobody answered."""
    members = [np.asarray(m) for m in members]
    weights = [1.0] * len(members) if weights is None else list(weights)
    classes = classes or next(m.shape[1] for m in members if m.ndim == 2)
    rows = len(members[0])
    probs = np.full((rows, classes), np.nan)
    label = np.full(rows, -1)
    there = [answers(m) for m in members]
    for row in range(rows):
        present = [(m[row], w) for m, w, ok in zip(members, weights, there, strict=True) if ok[row]]
        total = sum(w for _, w in present)
        if total == 0:
            continue
        sums = np.zeros(classes)
        for said, w in present:
            if how == "vote":
                sums[said if np.ndim(said) == 0 else np.argmax(said)] += w
            elif how == "logpool":
                sums += w * np.log2(np.maximum(said.astype(np.float64), FLOOR))
            else:
                sums += w * said.astype(np.float64)
        label[row] = np.argmax(sums)  # the lowest of equals
        combined = sums / total
        if how == "logpool":
            combined = np.exp2(combined - combined.max())
            combined /= combined.sum()
        probs[row] = combined
    top = -np.sort(-probs, axis=1)
    margin = top[:, 0] - (top[:, 1] if classes > 1 else 0)
    return label, top[:, 0], margin, probs


def samme(members, truth, classes):
    """Order and weights of boosting over a fixed pool: Zhu et al. 2009, Algorithm 2, each model once at most."""
    n = len(truth)
    w = np.full(n, 1 / n)
    order, weights = [], []
    for _ in members:
        errors = {}
        for m, said in enumerate(members):
            if m not in order:
                there = said >= 0
                errors[m] = w[there & (said != truth)].sum() / w[there].sum()
        m = min(errors, key=lambda m: (round(errors[m], 12), m))  # equal up to rounding: the first
        e = max(errors[m], 1 / (2 * n))
        if e >= 1 - 1 / classes - 1e-10:
            break
        a = np.log((1 - e) / e) + np.log(classes - 1)
        order.append(m)
        weights.append(a)
        w[(members[m] >= 0) & (members[m] != truth)] *= np.exp(a)
        w /= w.sum()
    return order, weights


def stack(members, coefficient, intercept, logs, floor=2.0**-20):
    """Label, confidence and probabilities of a logistic model over all members' (log-)probabilities."""
    x = np.concatenate([np.asarray(m, np.float64) for m in members], axis=1)
    if logs:
        x = np.log2(np.maximum(x, floor))
    probs = softmax(x @ coefficient.reshape(len(intercept), -1).T + intercept)
    return probs.argmax(axis=1), probs.max(axis=1), probs
