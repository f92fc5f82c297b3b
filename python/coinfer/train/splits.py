"""How data lies over the nodes: evenly, with skewed labels, with skewed amounts, or by difficulty.

The unequal splits are those that federated learning is usually tried on: a mix of classes per client drawn from a
Dirichlet distribution (Hsu et al. 2019, arXiv 1909.06335), amounts drawn the same way, and the biased split of
early-exit work, where devices hold easy samples and the cloud hard ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from coinfer._checks import check_integer, check_number
from coinfer.errors import BadValueError, UnknownNameError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SPLITS", "difficulty", "random", "split"]

SPLITS = ("iid", "dirichlet", "quantity", "difficulty")

Rows = list["NDArray[np.int64]"]


def random(seed: int, *key: int) -> np.random.Generator:
    """Return the generator of one purpose: counter-based, so that no draw depends on how many came before."""
    seed = check_integer(seed, "seed", at_most=2**63 - 1)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))


def split(
    kind: Literal["iid", "dirichlet", "quantity", "difficulty"],
    labels: Any,
    shares: Sequence[float],
    *,
    seed: int = 0,
    alpha: float = 0.5,
    hardness: Any = None,
    bias: float = 0.8,
) -> Rows:
    """Divide samples among clients; every sample goes to exactly one.

    Parameters
    ----------
    kind : {"iid", "dirichlet", "quantity", "difficulty"}
        ``iid``: at random. ``dirichlet``: each client has its own mix of classes, drawn with concentration `alpha`.
        ``quantity``: at random, but the amounts are drawn with concentration `alpha` around `shares`. ``difficulty``:
        the first clients get the easiest samples and the last the hardest.
    labels : array-like of int, shape (N,)
        True labels.
    shares : sequence of float
        How much each client gets, relative to the others.
    seed : int
        Same seed, same split.
    alpha : float
        Concentration; small is more unequal.
    hardness : array-like of float, shape (N,), optional
        Difficulty of each sample, needed for ``difficulty``; see `difficulty`.
    bias : float
        From 0 (at random) to 1 (strictly sorted) for ``difficulty``.

    Returns
    -------
    list of ndarray of int64
        Sorted rows of each client.

    Examples
    --------
    >>> [len(rows) for rows in split("iid", [0, 1] * 50, [3, 1])]
    [75, 25]
    """
    truth = np.asarray(labels)
    weights = np.array([check_number(share, "shares: each") for share in shares])
    if kind not in SPLITS:
        msg = f"there is no split {kind!r}; {nearest(str(kind), SPLITS)}"
        raise UnknownNameError(msg)
    if not len(weights) or weights.sum() <= 0:
        msg = "shares must not be empty or all zero"
        raise BadValueError(msg)
    check_number(alpha, "alpha", above=0.0)
    draw = random(seed, SPLITS.index(kind))
    if kind == "quantity":
        weights = weights * draw.gamma(alpha, size=len(weights))
    sizes = _sizes(weights, len(truth))
    if kind == "dirichlet":
        return _by_label(truth, sizes, alpha, draw)
    order = draw.permutation(len(truth))
    if kind == "difficulty":
        if hardness is None:
            msg = "a split by difficulty needs hardness=, such as coinfer.train.difficulty(inputs, labels)"
            raise BadValueError(msg)
        rank = np.empty(len(truth))
        rank[np.argsort(np.asarray(hardness), kind="stable")] = np.arange(len(truth)) / len(truth)
        mixed = check_number(bias, "bias", at_most=1.0) * rank + (1 - bias) * draw.random(len(truth))
        order = np.argsort(mixed, kind="stable")
    return [np.sort(rows) for rows in np.split(order, np.cumsum(sizes)[:-1])]


def _sizes(weights: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Return whole sizes in proportion to the weights (largest remainders), at least two each where possible."""
    exact = weights / weights.sum() * total
    sizes: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    sizes[np.argsort(sizes - exact, kind="stable")[: total - int(sizes.sum())]] += 1
    if total >= 2 * len(weights):
        while sizes.min() < 2:
            sizes[int(np.argmax(sizes))] -= 1
            sizes[int(np.argmin(sizes))] += 1
    return sizes


def _by_label(labels: NDArray[Any], sizes: NDArray[np.int64], alpha: float, draw: np.random.Generator) -> Rows:
    classes = np.unique(labels)
    pools = [draw.permutation(np.flatnonzero(labels == c)).tolist() for c in classes]
    chosen: Rows = []
    for size in sizes:
        mix = draw.dirichlet(np.full(len(classes), alpha))
        rows: list[int] = []
        seen: set[int] = set()
        for k in range(int(size)):
            left = np.array([len(pool) for pool in pools])
            weights = np.where(left > 0, np.maximum(mix, 1e-9), 0.0)
            others = np.array([c not in seen for c in range(len(classes))]) & (left > 0)
            if k + 1 == size and len(seen) == 1 and others.any():
                weights = weights * others  # a client with a single class would unlearn the others
            c = int(np.searchsorted(np.cumsum(weights / weights.sum()), draw.random(), side="right"))
            c = min(c, len(classes) - 1)
            while not pools[c]:
                c -= 1
            seen.add(c)
            rows.append(pools[c].pop())
        chosen.append(np.sort(np.array(rows, np.int64)))
    return chosen


def difficulty(inputs: Any, labels: Any, *, folds: int = 5, seed: int = 0, ridge: float = 10.0) -> NDArray[np.float64]:
    """Say how hard each sample is for a linear classifier that has not seen it.

    Parameters
    ----------
    inputs : array-like of float, shape (N, ...)
        Samples; flattened.
    labels : array-like of int, shape (N,)
        True labels.
    folds : int
        The classifier for each fold is fitted on the others.
    seed : int
        For the folds.
    ridge : float
        Strength of the penalty of the least-squares classifier.

    Returns
    -------
    ndarray of float64, shape (N,)
        Best score of a wrong class minus the score of the right one: larger is harder, above zero is wrong.
    """
    flat = np.asarray(inputs, np.float64).reshape(len(inputs), -1)
    flat = np.hstack([flat, np.ones((len(flat), 1))])
    truth = np.asarray(labels)
    classes, code = np.unique(truth, return_inverse=True)
    targets = np.eye(len(classes))[code]
    fold = random(seed, 100).permutation(len(flat)) % folds
    result = np.empty(len(flat))
    for k in range(folds):
        kept = fold != k
        gram = flat[kept].T @ flat[kept] + ridge * np.eye(flat.shape[1])
        scores = flat[~kept] @ np.linalg.solve(gram, flat[kept].T @ targets[kept])
        row = np.arange(len(scores))
        right = scores[row, code[~kept]].copy()
        scores[row, code[~kept]] = -np.inf
        result[~kept] = scores.max(axis=1) - right
    return result
