"""What a score is worth: the probability, or any expected value, that goes with it.

Isotonic regression by pool-adjacent-violators: the best monotone step function through the data (Ayer et al. 1955).
Equal scores are pooled first, so a service that reports a handful of distinct confidences is handled as what it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from coinfer._core import sweep
from coinfer.errors import BadValueError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from coinfer.strategy.base import Steps

__all__ = ["isotonic", "step"]


def isotonic(score: ArrayLike, target: ArrayLike, direction: Literal["rising", "falling"] = "rising") -> Steps:
    """Fit the monotone step function of a score that is closest to a target in squares.

    Parameters
    ----------
    score : array_like of float, shape (N,)
        NaN scores are left out.
    target : array_like of float, shape (N,)
        For example 1 where the answer is right and 0 where it is wrong.
    direction : {"rising", "falling"}
        How the target goes with the score.

    Returns
    -------
    tuple of tuple of float
        Cuts, ascending from -inf, and values. Cuts lie midway between adjacent scores where float32 allows.

    Raises
    ------
    BadValueError
        If lengths differ, a target is not finite, or no score is a number.

    References
    ----------
    Ayer, Brunk, Ewing, Reid, Silverman, "An empirical distribution function for sampling with incomplete information",
    Ann. Math. Stat. 1955.

    Examples
    --------
    >>> isotonic([0.1, 0.2, 0.2, 0.9], [0, 1, 0, 1])
    ((-inf, 0.15000000596046448, 0.550000011920929), (0.0, 0.5, 1.0))
    """
    from scipy.optimize import isotonic_regression

    x = np.asarray(score, np.float32)
    y = np.asarray(target, np.float64)
    if x.shape != y.shape or x.ndim != 1:
        msg = f"score and target must be of one length, not of shapes {x.shape} and {y.shape}"
        raise BadValueError(msg)
    known = ~np.isnan(x)
    if not known.any():
        msg = "isotonic needs at least one score that is a number"
        raise BadValueError(msg)
    if not np.isfinite(y[known]).all():
        msg = f"target: row {int(np.flatnonzero(known & ~np.isfinite(y))[0])} is not a finite number"
        raise BadValueError(msg)
    values, group = np.unique(x[known], return_inverse=True)
    weight = np.bincount(group).astype(np.float64)
    mean = np.bincount(group, y[known]) / weight
    fitted = isotonic_regression(mean, weights=weight, increasing=direction == "rising")
    firsts = fitted.blocks[:-1]
    cuts = [-np.inf, *(sweep.midway(float(values[at - 1]), float(values[at])) for at in firsts[1:])]
    return tuple(map(float, cuts)), tuple(map(float, fitted.x[firsts]))


def step(curve: Steps, score: ArrayLike) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Read a step function off at every score; NaN stays NaN."""
    cuts, values = (np.asarray(part, np.float64) for part in curve)
    x = np.asarray(score, np.float64)
    at = np.maximum(np.searchsorted(cuts, x, side="right") - 1, 0)
    return np.where(np.isnan(x), np.nan, values[at])
