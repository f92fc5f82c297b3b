"""Scores, written to be read: one row at a time, in float64. The specification of ``src/coinfer/score``."""

from __future__ import annotations

import math

import numpy as np

KINDS = ("max_prob", "margin", "entropy", "energy", "logit_margin", "gini")


def score_row(row, temperature=1.0, input="logits"):
    """Return the label and every score of one row; the label is -1 and the scores are NaN where there is no answer."""
    with np.errstate(over="ignore"):
        z = [float(x) for x in np.asarray(row, np.float32)]
    temperature = float(np.float32(temperature))
    largest = max((x for x in z if not math.isnan(x)), default=math.nan)
    answered = not any(math.isnan(x) for x in z)
    if input == "probs":
        answered = answered and all(0.0 <= x < math.inf for x in z) and largest > 0.0
    if not answered:
        return -1, dict.fromkeys(KINDS, math.nan)
    result = {}
    if input == "probs" and temperature == 1.0:
        p = z
    else:
        if input == "probs":
            z = [math.log(x) if x > 0.0 else -math.inf for x in z]
        top, next_best = sorted([*z, -math.inf], reverse=True)[:2]
        # In the limit of an infinite logit, those that are largest share the mass.
        e = [float(x == top) if math.isinf(top) else math.exp((x - top) / temperature) for x in z]
        total = sum(e)
        p = [x / total for x in e]
        result["energy"] = top if math.isinf(top) else top + temperature * math.log(total)
        gap = math.inf if len(z) == 1 else 0.0 if next_best == top else top - next_best
        result["logit_margin"] = math.inf if gap > float(np.finfo(np.float32).max) else gap / temperature
    first, second = sorted([*p, 0.0], reverse=True)[:2]
    spread = -sum(x * math.log(x) for x in p if x > 0.0)
    result["max_prob"] = first
    result["margin"] = first - second
    result["entropy"] = min(max(1.0 - spread / math.log(len(p)), 0.0), 1.0) if len(p) > 1 else 1.0
    result["gini"] = sum(x * x for x in p)
    return z.index(max(z)), result


def scores(table, temperature=1.0, input="logits"):
    """Return the labels and a dict from each kind to an array of float64."""
    rows = [score_row(row, temperature, input) for row in table]
    labels = np.array([label for label, _ in rows], np.int32)
    kinds = KINDS if input == "logits" else [k for k in KINDS if k not in ("energy", "logit_margin")]
    return labels, {kind: np.array([result[kind] for _, result in rows], np.float64) for kind in kinds}
