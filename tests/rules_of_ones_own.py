"""Rules that tests share, so that each is compiled once: an importable module, as strategy files need it."""

from __future__ import annotations

import numpy as np

import coinfer as ci

FAMILY = np.array([0, 0, 1, 1])
THRESHOLDS = np.array([0.7, 0.6], np.float32)
LIMITS = np.dtype([("limit", np.float32, (4,))])


@ci.rule.score
def family(p, label):
    total = np.float32(0)
    for k in range(len(p)):
        if FAMILY[k] == FAMILY[label]:
            total += p[k]
    return total


@ci.rule.score
def top(p, label):
    return p[label]


@ci.rule.score(input="logits")
def lead(z, label):
    second = np.float32(-np.inf)
    for k in range(len(z)):
        if k != label:
            second = max(second, z[k])
    return z[label] - second


@ci.rule.combine
def plain_mean(probs, out):
    for k in range(probs.shape[1]):
        total = 0.0
        for m in range(probs.shape[0]):
            total += probs[m, k]
        out[k] = total / probs.shape[0]


@ci.rule.combine
def heaviest(probs, weights, out):
    """Per class the largest of weight x probability."""
    for k in range(probs.shape[1]):
        out[k] = 0
        for m in range(probs.shape[0]):
            out[k] = max(out[k], weights[m] * probs[m, k])


@ci.rule.stop
def thresholds(view):
    return view.score >= THRESHOLDS[view.stage]


@ci.rule.stop(state=np.array([(np.full(4, 0.5, np.float32),)], LIMITS)[0])
def per_label(view, state):
    return view.score >= state.limit[view.label]


@ci.rule.stop(jumps=True)
def hops(view):
    if view.label < 0:
        return 2
    return 0 if view.score >= np.float32(0.8) else 2 if view.label == 1 else 1


@ci.rule.stop
def hurried(view):
    return view.remaining_us < np.float32(1000)


@ci.rule.stop(state=lambda seed: np.array([(seed,)], [("seen", np.int64)])[0])
def counting(view, state):
    state.seen += 1
    return state.seen % 2 == 0
