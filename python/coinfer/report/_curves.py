"""How well a model knows when it is right: risk against coverage, and confidence against accuracy.

Both are properties of the predictions alone, over samples and not requests, so they say what any strategy
that stops on confidence has to work with. Tied confidences are never split: a threshold cannot separate them,
so a curve through the middle of a tie would show operating points that do not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coinfer.results import wilson

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BINS", "Reliability", "RiskCoverage", "reliability", "risk_coverage"]

BINS = 15  # equal-width bins of Guo et al., "On calibration of modern neural networks" (ICML 2017)


@dataclass(frozen=True)
class RiskCoverage:
    """Share of wrong answers among those at least as confident as each distinct confidence, surest first."""

    coverage: list[float]
    risk: list[float]
    threshold: list[float]


@dataclass(frozen=True)
class Reliability:
    """Mean confidence and accuracy of the occupied bins, with 95 % intervals, and their weighted gap."""

    confidence: list[float]
    accuracy: list[float]
    low: list[float]
    high: list[float]
    share: list[float]
    calibration_error: float


def risk_coverage(confidence: NDArray[np.float32], right: NDArray[np.bool_], points: int = 400) -> RiskCoverage:
    """Say for every threshold that exists how much is kept and how much of that is wrong.

    Parameters
    ----------
    confidence : ndarray of float32, shape (n,)
        Higher is surer; NaN is least sure.
    right : ndarray of bool, shape (n,)
        Whether the answer was correct.
    points : int
        Most points to return; the curve is thinned evenly in coverage beyond that, both ends kept.

    Returns
    -------
    RiskCoverage
        Coverages rising to 1. Empty where n is 0.

    Examples
    --------
    >>> import numpy as np
    >>> curve = risk_coverage(np.float32([0.9, 0.5, 0.5, 0.2]), np.array([True, True, False, False]))
    >>> curve.coverage, curve.risk
    ([0.25, 0.75, 1.0], [0.0, 0.3333333333333333, 0.5])
    """
    n = len(confidence)
    if n == 0:
        return RiskCoverage([], [], [])
    surest = np.where(np.isnan(confidence), -np.inf, confidence).astype(np.float64)
    order = np.argsort(-surest, kind="stable")
    ranked = surest[order]
    wrong = np.cumsum(~right[order])
    last_of_tie = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    if len(last_of_tie) > points:
        targets = np.linspace(last_of_tie[0], last_of_tie[-1], points)
        last_of_tie = np.unique(last_of_tie[np.searchsorted(last_of_tie, targets)])
    kept = last_of_tie + 1.0
    return RiskCoverage((kept / n).tolist(), (wrong[last_of_tie] / kept).tolist(), ranked[last_of_tie].tolist())


def reliability(confidence: NDArray[np.float32], right: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Compare stated confidence with accuracy in equal-width bins over [0, 1].

    Parameters
    ----------
    confidence : ndarray of float32, shape (n,)
        In [0, 1]; rows with NaN are left out.
    right : ndarray of bool, shape (n,)
        Whether the answer was correct.
    bins : int
        Number of bins.

    Returns
    -------
    Reliability
        One entry for each bin that holds a sample; ``calibration_error`` is the expected calibration error,
        the mean over samples of the distance of the two in their bin.
    """
    stated = ~np.isnan(confidence)
    confidence, right = confidence[stated].astype(np.float64), right[stated]
    if not len(confidence):
        return Reliability([], [], [], [], [], float("nan"))
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.intp) - 1, 0, bins - 1)
    held = np.bincount(bin_of, minlength=bins).astype(np.float64)
    hits = np.bincount(bin_of, weights=right.astype(np.float64), minlength=bins)
    mass = np.bincount(bin_of, weights=confidence, minlength=bins)
    used = held > 0
    mean, accuracy, share = mass[used] / held[used], hits[used] / held[used], held[used] / held.sum()
    bounds = [wilson(float(a), float(n)) for a, n in zip(accuracy, held[used], strict=True)]
    return Reliability(
        confidence=mean.tolist(),
        accuracy=accuracy.tolist(),
        low=[low for low, _ in bounds],
        high=[high for _, high in bounds],
        share=share.tolist(),
        calibration_error=float(np.sum(share * np.abs(mean - accuracy))),
    )
