"""The contestants of `test_score`: label, max_prob, margin and entropy of logits, as their users would write it.

Each takes (z, out), where out holds the four result arrays. "Chunked" means temporaries of 1 MiB, which stay in the
cache: whole-array NumPy mostly measures page faults.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import scipy.special
import scipy.stats
import torch

import coinfer as ci

torch.set_num_threads(1)

KINDS = ("label", "max_prob", "margin", "entropy")
CHUNK_BYTES = 1 << 20


def results(rows):
    """Four arrays whose pages exist."""
    return {kind: np.zeros(rows, np.int32 if kind == "label" else np.float32) for kind in KINDS}


def coinfer(isa):
    def run(z, out):
        ci.cpu.force(isa)
        ci.scores(z, KINDS, out=out)

    return run


def in_chunks(function):
    def run(z, out):
        step = max(1, CHUNK_BYTES // (4 * z.shape[1]))
        for first in range(0, len(z), step):
            part = slice(first, first + step)
            for kind, values in zip(KINDS, function(z[part]), strict=True):
                out[kind][part] = values

    return run


def whole(function):
    def run(z, out):
        for kind, values in zip(KINDS, function(z), strict=True):
            out[kind][:] = values

    return run


def with_numpy(z):
    classes = z.shape[1]
    t = z - z.max(axis=1, keepdims=True)
    e = np.exp(t)
    total = e.sum(axis=1)
    two = np.partition(e, classes - 2, axis=1)[:, classes - 2 :]
    spread = np.log(total) - (e * t).sum(axis=1) / total
    return (
        z.argmax(axis=1),
        two[:, 1] / total,
        (two[:, 1] - two[:, 0]) / total,
        1 - spread / np.float32(math.log(classes)),
    )


def with_scipy(z):
    classes = z.shape[1]
    p = scipy.special.softmax(z, axis=1)
    two = np.partition(p, classes - 2, axis=1)[:, classes - 2 :]
    return z.argmax(axis=1), two[:, 1], two[:, 1] - two[:, 0], 1 - scipy.special.entr(p).sum(axis=1) / math.log(classes)


def with_torch(z):
    t = torch.from_numpy(z)
    logp = torch.log_softmax(t, dim=1)
    p = logp.exp()
    two, labels = p.topk(2, dim=1)
    spread = -(p * logp).sum(dim=1)
    return (
        labels[:, 0].numpy(),
        two[:, 0].numpy(),
        (two[:, 0] - two[:, 1]).numpy(),
        (1 - spread / math.log(z.shape[1])).numpy(),
    )


@numba.njit(nogil=True)
def _numba_loop(z, label, max_prob, margin, entropy):
    per_log = np.float32(1 / math.log(z.shape[1]))
    for row in range(z.shape[0]):
        best = 0
        top, second = z[row, 0], np.float32(-np.inf)
        for j in range(1, z.shape[1]):
            x = z[row, j]
            if x > top:
                second, top, best = top, x, j
            elif x > second:
                second = x
        total, weighted = np.float32(0), np.float32(0)
        for j in range(z.shape[1]):
            t = z[row, j] - top
            e = np.exp(t)
            total += e
            weighted += e * t
        label[row] = best
        max_prob[row] = np.float32(1) / total
        margin[row] = (np.float32(1) - np.exp(second - top)) / total
        entropy[row] = np.float32(1) - (np.log(total) - weighted / total) * per_log


def with_numba(z, out):
    _numba_loop(z, *(out[kind] for kind in KINDS))


PEERS = {
    "numpy, chunked": in_chunks(with_numpy),
    "numpy, whole": whole(with_numpy),
    "scipy, chunked": in_chunks(with_scipy),
    "torch, chunked": in_chunks(with_torch),
    "numba, one thread, no fastmath": with_numba,
}


def check(run, z):
    """Fail unless a contestant's results on z are right."""
    found, expected = results(len(z)), results(len(z))
    run(z, found)
    ci.scores(z, KINDS, out=expected)
    assert np.array_equal(found["label"], expected["label"])
    for kind in KINDS[1:]:
        assert np.allclose(found[kind], expected[kind], rtol=0, atol=1e-5), kind


def aligned(count):
    """Floats that start at a cache line."""
    memory = np.zeros(count + 16, np.float32)
    return memory[-(memory.ctypes.data // 4) % 16 :][:count]
