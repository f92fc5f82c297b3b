"""Flow: how many requests each exit serves, and the thresholds that make it so.

Requests enter at the lowest tier and climb while the answer is not sure enough. A serving profile such as 80-15-5 says
which share of all requests is settled at each tier. Given the scores of the exits on samples, the thresholds follow
one after the other: the first exit keeps the surest 80 % of everything, the second the surest 15 / 20 of what reaches
it, and the last takes the rest. Ties are never split, because no threshold can.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer._checks import check_list, check_number
from coinfer.errors import BadValueError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer.network import Network
    from coinfer.predictions import Predictions
    from coinfer.strategy import Forward

__all__ = ["PROFILES", "Profile", "scores_of", "serving_rates", "strategy_for", "thresholds_for"]

PROFILES = ("80-15-5", "65-25-10", "50-30-20", "33-33-33", "20-30-50", "10-25-65", "5-15-80")
"""Serving profiles over device, edge and cloud, from most at the device to most in the cloud."""


@dataclass(frozen=True)
class Profile:
    """Which share of all requests is settled at each tier, lowest first.

    Parameters
    ----------
    shares : str or sequence of float
        ``"80-15-5"``, or shares that sum to one. In a string, parts are percent; thirds may be written 33-33-33.

    Raises
    ------
    BadValueError
        If the shares do not sum to one, or one is negative.

    Examples
    --------
    >>> Profile("80-15-5").shares
    (0.8, 0.15, 0.05)
    >>> Profile("80-15-10")
    Traceback (most recent call last):
    ...
    coinfer.errors.BadValueError: serving profile '80-15-10' sums to 105 %; the shares of all tiers must sum to 100 %
    """

    shares: tuple[float, ...]

    def __init__(self, shares: str | Sequence[float] | Profile) -> None:
        if isinstance(shares, Profile):
            values = shares.shares
        elif isinstance(shares, str):
            try:
                parts = [float(part) for part in shares.split("-")]
            except ValueError:
                msg = f"serving profile {shares!r} must be percentages joined by '-', such as '80-15-5'"
                raise BadValueError(msg) from None
            rounded = len(set(parts)) == 1 and 0 <= 100 - sum(parts) < len(parts)  # 33-33-33 means thirds
            if (abs(sum(parts) - 100) > 1e-6 and not rounded) or any(not 0 <= part <= 100 for part in parts):
                msg = f"serving profile {shares!r} sums to {sum(parts):g} %; the shares of all tiers must sum to 100 %"
                raise BadValueError(msg)
            values = tuple(part / sum(parts) for part in parts)
        else:
            given = check_list(shares, "serving profile", "shares")
            values = tuple(check_number(share, "serving profile: each share", at_most=1.0) for share in given)
            if not values or abs(sum(values) - 1) > 1e-6:
                msg = f"serving profile {list(values)} sums to {sum(values):g}; the shares of all tiers must sum to one"
                raise BadValueError(msg)
        object.__setattr__(self, "shares", values)

    def __len__(self) -> int:
        return len(self.shares)

    def __str__(self) -> str:
        return "-".join(f"{100 * share:.3g}" for share in self.shares)

    def of(self, exits: int) -> tuple[float, ...]:
        """Return the shares, which must be as many as there are exits."""
        if len(self.shares) != exits:
            msg = f"serving profile {self} has {len(self.shares)} shares, but the network has {exits} exits"
            raise BadValueError(msg)
        return self.shares


def serving_rates(
    network: Network, arrivals_rps: float | Mapping[str, float], profile: Profile | str | Sequence[float]
) -> dict[str, float]:
    """Work out how many requests per second each node settles.

    Parameters
    ----------
    network : Network
        Whose ingress nodes the requests enter; every request climbs the path from there.
    arrivals_rps : float or mapping of node to float
        Requests per second at each ingress node; one number: in all, spread evenly.
    profile : Profile
        Shares settled per stage of the path.

    Returns
    -------
    dict of str to float
        Requests per second settled, by node.

    Examples
    --------
    >>> from coinfer.network import Network
    >>> net = Network.chain({"device": "a", "edge": "b", "cloud": "c"}, delay_ms=[1, 1])
    >>> {node: round(rate, 6) for node, rate in serving_rates(net, 100, "80-15-5").items()}
    {'device': 80.0, 'edge': 15.0, 'cloud': 5.0}
    """
    from coinfer.paths import path

    if not isinstance(arrivals_rps, Mapping):
        each = check_number(arrivals_rps, "arrivals_rps") / len(network.ingress)
        arrivals_rps = dict.fromkeys(network.ingress, each)
    rates = {node.name: 0.0 for node in network.nodes}
    for node, rate in arrivals_rps.items():
        network.node(node)
        way = path(network, node)
        for deployment, share in zip(way, Profile(profile).of(len(way)), strict=True):
            rates[deployment.node] += check_number(rate, f"arrivals_rps of {node!r}") * share
    return rates


def scores_of(
    predictions: Predictions, score: str = "max_prob", temperature: Mapping[str, float] | None = None
) -> NDArray[np.float32]:
    """Return the score of every model about every sample, shape (models, N)."""
    from coinfer.scoring import score as kernel

    kind = "max_prob" if score == "confidence" else score
    rows = []
    for model in predictions.models:
        output = predictions[model]
        softened = 1.0 if temperature is None else temperature.get(model, 1.0)
        rows.append(kernel(output.vector, kind=kind, input=output.form, temperature=softened))
    return np.stack(rows)


def thresholds_for(scores: Any, profile: Profile | str | Sequence[float], weights: Any = None) -> tuple[float, ...]:
    """Find the thresholds that settle these shares of the samples, by quantiles of what reaches each exit.

    Parameters
    ----------
    scores : array-like of float, shape (exits, N)
        Score of each exit about each sample; NaN is never sure enough.
    profile : Profile
        Share to settle at each exit.
    weights : array-like of float, shape (N,), optional
        How often each sample is asked for; default: all alike.

    Returns
    -------
    tuple of float
        One per exit but the last, midway between adjacent distinct scores; ``inf`` and ``-inf`` for nothing and
        everything.

    Examples
    --------
    >>> thresholds_for([[0.9, 0.8, 0.7, 0.6], [0, 0, 0, 0]], [0.5, 0.5])
    (0.75,)
    """
    table = np.asarray(scores, np.float64)
    if table.ndim != 2 or table.shape[1] == 0:
        msg = f"scores must have shape (exits, samples) with at least one sample, not {table.shape}"
        raise BadValueError(msg)
    shares = Profile(profile).of(len(table))
    mass = np.ones(table.shape[1]) if weights is None else np.asarray(weights, np.float64)
    mass = mass / mass.sum()
    reaching = np.ones(table.shape[1], bool)
    found = []
    for exit_, share in enumerate(shares[:-1]):
        held = np.where(np.isnan(table[exit_]), -np.inf, table[exit_])
        cut = _cut(held[reaching], mass[reaching], share)
        found.append(cut)
        reaching &= ~(table[exit_] >= cut)
    return tuple(found)


def _cut(scores: NDArray[np.float64], mass: NDArray[np.float64], share: float) -> float:
    """Return the threshold whose tail holds as near to `share` of the mass as whole ties allow."""
    values, group = np.unique(scores, return_inverse=True)
    tail = np.append(np.cumsum(np.bincount(group, mass, len(values))[::-1])[::-1], 0.0)  # mass at or above each value
    tail[:-1][~np.isfinite(values)] = np.inf  # a sample without a score cannot be kept
    best = int(np.argmin(np.abs(tail - share)))
    if best == len(values):
        return math.inf
    if best == 0:
        return -math.inf
    below, above = np.float32(values[best - 1]), np.float32(values[best])
    middle = np.float32((float(below) + float(above)) / 2) if np.isfinite(below) else above
    return float(middle if below < middle <= above else above)


def strategy_for(
    predictions: Predictions,
    profile: Profile | str | Sequence[float],
    *,
    score: str = "max_prob",
    weights: Any = None,
    temperature: Mapping[str, float] | None = None,
) -> Forward:
    """Return the forwarding strategy that settles these shares of these samples.

    Parameters
    ----------
    predictions : Predictions
        What the exits say, cheapest first, as `EarlyExit.predictions` gives it.
    profile : Profile
        Share to settle at each exit.
    score : str
        What the thresholds compare.
    weights : array-like of float, shape (N,), optional
        How often each sample is asked for.
    temperature : mapping of model to float, optional
        See `coinfer.train.temperatures`.
    """
    from coinfer.strategy import Forward

    cuts = thresholds_for(scores_of(predictions, score, temperature), profile, weights)
    by_model = dict(zip(predictions.models, cuts, strict=False))
    return Forward(score=score, thresholds=by_model, temperature=1.0 if temperature is None else temperature)
