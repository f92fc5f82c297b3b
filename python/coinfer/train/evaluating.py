"""Evaluation the way a network is used: what the served answers are worth, and how far delivery shifts the data.

The accuracy of an exit over all samples is a number that nobody experiences: under a strategy an exit answers only what
stops there. So thresholds are set on one set of samples, the strategy is replayed on another, and accuracy, calibration
and the distribution of labels and difficulty are taken over what reaches or settles at each exit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer.errors import UnsupportedError
from coinfer.report._curves import reliability
from coinfer.train.flow import Profile, scores_of, strategy_for
from coinfer.train.objective import passage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer.network import Network
    from coinfer.predictions import Predictions
    from coinfer.results import Estimate
    from coinfer.strategy import Forward

__all__ = ["Served", "Shift", "served", "shift", "temperatures"]


@dataclass(frozen=True)
class Served:
    """What a network's answers were worth under a strategy.

    Attributes
    ----------
    accuracy : Estimate
        Of served answers, with its interval.
    accuracy_by_exit : tuple of float
        Of each exit over all samples.
    accuracy_served : tuple of float
        Of each exit over the samples that it settled; NaN where it settled none.
    settled_by_exit : tuple of float
        Shares that came out.
    calibration_by_exit : tuple of float
        Expected calibration error of each exit over the samples that reach it.
    strategy : Forward
    correct : ndarray of bool, shape (N,)
        Whether each sample's served answer was right: what paired tests compare.
    right, settled, reached : ndarray of bool, shape (N, exits)
        Whether each exit is right about each sample, and whether it settles or at least sees it.
    """

    accuracy: Estimate
    accuracy_by_exit: tuple[float, ...]
    accuracy_served: tuple[float, ...]
    settled_by_exit: tuple[float, ...]
    calibration_by_exit: tuple[float, ...]
    strategy: Forward
    correct: NDArray[np.bool_]
    right: NDArray[np.bool_]
    settled: NDArray[np.bool_]
    reached: NDArray[np.bool_]


def served(
    calibrate: Predictions,
    test: Predictions,
    profile: Profile | str | Sequence[float],
    *,
    network: Network | None = None,
    score: str = "max_prob",
    temperature: Mapping[str, float] | None = None,
) -> Served:
    """Set thresholds for a profile on some samples, and say what the answers are worth on others.

    Parameters
    ----------
    calibrate, test : Predictions
        What the exits say, with true labels, as `EarlyExit.predictions` gives it.
    profile : Profile
        Share to settle at each exit; what comes out on `test` is near it, and reported.
    network : Network, optional
        Where to replay. Default: a chain.
    score : str
        What the thresholds compare.
    temperature : mapping of exit to float, optional
        See `temperatures`.
    """
    if test.labels is None:
        msg = "the worth of served answers needs true labels"
        raise UnsupportedError(msg)
    strategy = strategy_for(calibrate, profile, score=score, temperature=temperature)
    way, run = passage(test, strategy, network)
    answers = np.stack([test[name].answers() for name in test.models], axis=1)
    right = answers == test.labels[:, None]
    confidence = scores_of(test, "max_prob", temperature)
    assert run.summary.accuracy is not None
    return Served(
        accuracy=run.summary.accuracy,
        accuracy_by_exit=tuple(right.mean(axis=0).tolist()),
        accuracy_served=tuple(_mean(right[way.settled[:, e], e]) for e in range(right.shape[1])),
        settled_by_exit=tuple(way.settled.mean(axis=0).tolist()),
        calibration_by_exit=tuple(
            reliability(confidence[e][way.reached[:, e]], right[way.reached[:, e], e]).calibration_error
            for e in range(right.shape[1])
        ),
        strategy=strategy,
        correct=(right & way.settled).any(axis=1),
        right=right,
        settled=way.settled,
        reached=way.reached,
    )


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def temperatures(predictions: Predictions, reached: NDArray[np.bool_] | None = None) -> dict[str, float]:
    """Calibrate each exit on what reaches it: the temperature with the least log loss.

    Parameters
    ----------
    predictions : Predictions
        With logits and true labels; of samples that the exits were not trained on.
    reached : ndarray of bool, shape (N, exits), optional
        Which samples reach each exit; default: all. An exit that fewer than ten reach keeps temperature 1.

    References
    ----------
    Guo et al., "On calibration of modern neural networks", ICML 2017.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    if predictions.labels is None:
        msg = "calibration needs true labels"
        raise UnsupportedError(msg)
    found = {}
    for e, name in enumerate(predictions.models):
        rows = np.flatnonzero(predictions.labels >= 0 if reached is None else reached[:, e] & (predictions.labels >= 0))
        vector = predictions[name].vector
        if len(rows) < 10 or vector is None:
            found[name] = 1.0
            continue
        z = vector[rows].astype(np.float64)
        right = z[np.arange(len(rows)), predictions.labels[rows]]

        def loss(log_t: float, z: NDArray[np.float64] = z, right: NDArray[np.float64] = right) -> float:
            scale = np.exp(-log_t)
            return float(np.mean(logsumexp(scale * z, axis=1) - scale * right))

        best = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
        found[name] = float(np.exp(best.x))
    return found


@dataclass(frozen=True)
class Shift:
    """How the samples that reach, or settle at, each exit differ from all samples.

    Attributes
    ----------
    labels : ndarray of float64, shape (1 + exits, C)
        Share of each class: in all samples, then among those that reach exit 1, 2, ...
    distance : tuple of float
        Total variation distance of those shares from all samples, per exit.
    hardness : ndarray of float64, shape (1 + exits, 5)
        Quantiles 10, 25, 50, 75 and 90 % of the difficulty, as a rank from 0 (easiest) to 1.
    harder : tuple of float
        Probability that a sample that reaches the exit is harder than one drawn from all; one half is no shift.
    """

    labels: NDArray[np.float64]
    distance: tuple[float, ...]
    hardness: NDArray[np.float64]
    harder: tuple[float, ...]


def shift(reached: NDArray[np.bool_], labels: Any, hardness: Any) -> Shift:
    """Measure the shift that a strategy makes.

    Parameters
    ----------
    reached : ndarray of bool, shape (N, exits)
        Which samples reach (or, as you like, settle at) each exit: `Served.reached`, `Delivery.reached`.
    labels : array-like of int, shape (N,)
        True labels.
    hardness : array-like of float, shape (N,)
        Difficulty of each sample that does not depend on the network, such as `coinfer.train.difficulty`.

    Examples
    --------
    >>> found = shift(np.array([[1, 0], [1, 0], [1, 1], [1, 1]], bool), [0, 1, 1, 1], [0.1, 0.2, 0.3, 0.4])
    >>> found.distance, found.harder
    ((0.0, 0.25), (0.5, 0.75))
    """
    truth = np.asarray(labels)
    rank = np.argsort(np.argsort(np.asarray(hardness), kind="stable"), kind="stable") / max(len(truth) - 1, 1)
    classes = int(truth.max()) + 1
    shares, quantiles, harder = [], [], []
    for mask in [np.ones(len(truth), bool), *reached.T]:
        counts = np.bincount(truth[mask], minlength=classes)
        shares.append(counts / max(counts.sum(), 1))
        quantiles.append(np.quantile(rank[mask], [0.1, 0.25, 0.5, 0.75, 0.9]) if mask.any() else np.full(5, np.nan))
        harder.append(_mean((np.searchsorted(np.sort(rank), rank[mask]) + 0.5) / len(rank)))
    table = np.stack(shares)
    return Shift(
        labels=table,
        distance=tuple((np.abs(table[1:] - table[0]).sum(axis=1) / 2).tolist()),
        hardness=np.stack(quantiles),
        harder=tuple(harder[1:]),
    )
