"""What is minimised: a weighted sum of the losses of the exits, and which weights are right for a network.

The loss is sum over exits of Lambda_e F_e. Kaplan et al. (arXiv 2405.04249) show that matching Lambda to the serving
rates removes a bias from the objective, but lets rarely trained exits (few clients can compute them) add variance:
their bound on the true error has a generalisation, a bias and an optimisation term. `balanced` is our reading of that
trade-off, with the gradient noise measured on the clients instead of bounded:

    minimise over Lambda on the simplex:  M |Lambda - rates|_1 / 2  +  eta sum_e Lambda_e^2 v_e / k_e

with M the largest loss of an exit minus the smallest (the first term then bounds how far the objective is from the
served loss, whatever the sign of the difference), v_e the variance of one minibatch gradient of F_e, k_e how many such
gradients the mean over clients is worth, and eta the learning rate, divided by 1 - momentum (the second term is the
drop in the objective that noise undoes in one step, at the largest stable step). All of it is measured every few
rounds, for the price of leaving the serving rates is the spread of the losses *now*: early on, exits that few clients
train are far behind only because they are rarely trained, and a price taken then holds the weights at the serving
rates for good.

`delivered` goes further than a weight per exit. Under a strategy, exit e is never asked about the samples that stopped
before it, so its loss should be taken over those that reach it. A replay of the network as it is says which; the
weights of the samples are those of the next rounds, on top of balanced weights of the exits. Where few samples reach
an exit, its weight may not rest on them alone: importance weights have variance too, so their effective share has a
floor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from coinfer._checks import check_integer, check_list, check_number
from coinfer.errors import BadValueError, UnknownNameError, nearest
from coinfer.train.flow import Profile, strategy_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer.network import Network
    from coinfer.predictions import Predictions
    from coinfer.replaying import Run
    from coinfer.strategy.base import Strategy
    from coinfer.train.costs import ExitCost

__all__ = ["WEIGHTS", "Delivered", "Delivery", "Noise", "balance", "deliver", "follow", "passage", "weights_for"]

WEIGHTS = ("equal", "serving_rate", "compute", "balanced", "delivered")
"""Strategies for the weights of the exits, by name."""


@dataclass(frozen=True)
class Delivered:
    """How the weights of `delivered` follow the strategy.

    Parameters
    ----------
    on : {"reached", "settled"}
        Which samples count for an exit: those that reach it, or only those that it settles.
    shares : {"balanced", "serving_rate"}
        Weights of the exits, on top of which those of the samples are.
    score : str
        What the thresholds compare.
    folds : int
        Confidences on training samples are overfit, so that too many would seem settled early: this many networks are
        trained beside the real one, each without one fold, and say what the strategy does with that fold's samples.
    start, every : int
        First round after which the weights follow the strategy, and how many rounds lie between updates.
    damping : float
        Share of the old weights that is kept, in [0, 1).
    floor : float
        Least share of each exit's weight that stays spread over all samples, in [0, 1]; at 1 no sample counts more than
        another.
    effective : float
        Least effective share of the samples, in (0, 1]: (sum w)^2 / (n sum w^2). Where few samples count for an exit,
        the weight that stays spread over all is raised until its samples are worth that many: with the weight on a few,
        an exit learns those few by heart.
    tolerance : float
        The weights are at their fixed point when a new replay would move less than this share of their mass; they are
        then left alone.
    strategy : callable, optional
        ``strategy(predictions, profile)`` gives the strategy whose delivery counts. Default:
        `coinfer.train.strategy_for`, which finds the thresholds anew each time so that the profile is kept.
    """

    on: Literal["reached", "settled"] = "reached"
    shares: Literal["balanced", "serving_rate"] = "balanced"
    score: str = "max_prob"
    folds: int = 2
    start: int = 4
    every: int = 3
    damping: float = 0.5
    floor: float = 0.0
    effective: float = 0.5
    tolerance: float = 0.02
    strategy: Callable[[Predictions, Profile], Strategy] | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("on", ("reached", "settled")), ("shares", ("balanced", "serving_rate"))):
            if getattr(self, name) not in allowed:
                msg = f"{name} cannot be {getattr(self, name)!r}; {nearest(str(getattr(self, name)), allowed)}"
                raise UnknownNameError(msg)
        check_integer(self.folds, "folds", at_least=2)
        check_integer(self.start, "start", at_least=1)
        check_integer(self.every, "every", at_least=1)
        check_number(self.floor, "floor", at_most=1.0)
        check_number(self.effective, "effective", above=0.0, at_most=1.0)
        check_number(self.tolerance, "tolerance", at_most=1.0)
        if not 0 <= check_number(self.damping, "damping") < 1:
            msg = f"damping must be in [0, 1), not {self.damping}"
            raise BadValueError(msg)


@dataclass(frozen=True)
class Delivery:
    """Where a strategy settles each sample, and which exits it reaches.

    Attributes
    ----------
    settled, reached : ndarray of bool, shape (N, exits)
    thresholds : tuple of float
        Of the strategy, where it has them.
    """

    settled: NDArray[np.bool_]
    reached: NDArray[np.bool_]
    thresholds: tuple[float, ...]


@dataclass(frozen=True)
class Noise:
    """Gradient noise as measured on the clients.

    Attributes
    ----------
    loss : tuple of float
        Mean loss of each exit.
    variance : tuple of float
        Variance of the gradient of one minibatch, summed over the parameters.
    averaged : tuple of float
        How many gradients the mean over the clients that compute the exit is worth: (sum of n_c)^2 / sum of n_c^2.
    """

    loss: tuple[float, ...]
    variance: tuple[float, ...]
    averaged: tuple[float, ...]


def weights_for(
    name: str | Sequence[float],
    exits: int,
    *,
    profile: Profile | str | Sequence[float] | None = None,
    costs: Sequence[ExitCost] | None = None,
    noise: Noise | None = None,
    learning_rate: float = 0.1,
) -> tuple[float, ...]:
    """Return the weights of the exits, which sum to one.

    Parameters
    ----------
    name : str or sequence of float
        ``equal``, ``serving_rate``, ``compute``, ``balanced``, ``delivered`` (its weights per exit are the serving
        rates), or the weights themselves.
    exits : int
        How many.
    profile : Profile, optional
        Needed for all but ``equal`` and ``compute``.
    costs : sequence of ExitCost, optional
        Needed for ``compute``.
    noise : Noise, optional
        Needed for ``balanced``.
    learning_rate : float
        For ``balanced``.

    Examples
    --------
    >>> weights_for("serving_rate", 3, profile="80-15-5")
    (0.8, 0.15, 0.05)
    """
    if not isinstance(name, str):
        given = [check_number(w, "weights: each") for w in check_list(name, "weights", "numbers")]
        if len(given) != exits or sum(given) <= 0:
            msg = f"weights must be one number per exit, {exits} in all and not all zero, not {given}"
            raise BadValueError(msg)
        return _simplex(given)
    if name not in WEIGHTS:
        msg = f"there are no weights {name!r}; {nearest(name, WEIGHTS)}"
        raise UnknownNameError(msg)
    if name == "equal":
        return _simplex([1.0] * exits)
    if name == "compute":
        if costs is None:
            msg = "weights by compute need costs="
            raise BadValueError(msg)
        return _simplex([float(cost.multiply_adds) for cost in costs])
    if profile is None:
        msg = f"weights {name!r} follow the serving rates: give profile=, such as '80-15-5'"
        raise BadValueError(msg)
    rates = Profile(profile).of(exits)
    if name != "balanced":
        return rates
    if noise is None:
        msg = "balanced weights need noise=, as measured on the clients"
        raise BadValueError(msg)
    return balance(rates, noise, learning_rate)


def _simplex(values: Sequence[float]) -> tuple[float, ...]:
    total = sum(values)
    return tuple(value / total for value in values)


def balance(rates: Sequence[float], noise: Noise, learning_rate: float) -> tuple[float, ...]:
    """Trade the bias of not matching the serving rates against gradient noise; see the formula above.

    Solved exactly: for E exits this is a convex problem in 2 E variables.

    Examples
    --------
    >>> quiet = Noise(loss=(2.0, 1.0), variance=(0.1, 0.1), averaged=(10, 1))
    >>> balance((0.2, 0.8), quiet, 0.1)
    (0.2, 0.8)
    >>> loud = Noise(loss=(2.0, 1.0), variance=(100.0, 100.0), averaged=(10, 1))
    >>> [round(weight, 3) for weight in balance((0.2, 0.8), loud, 0.1)]
    [0.864, 0.136]
    """
    target = np.asarray(rates, np.float64)
    price = (max(noise.loss) - min(noise.loss)) / 2
    curve = learning_rate * np.asarray(noise.variance) / np.maximum(noise.averaged, 1)

    def at(level: float) -> NDArray[np.float64]:
        # Stationary: 2 curve L - level is within [-price, price], at an end where L is not the target.
        low = (level - price) / (2 * np.maximum(curve, 1e-300))
        high = (level + price) / (2 * np.maximum(curve, 1e-300))
        clipped: NDArray[np.float64] = np.maximum(np.clip(target, low, high), 0.0)
        return clipped

    below, above = -price, price + 2 * float(np.max(curve)) + 1.0
    if at(price).sum() == 1.0 and np.allclose(at(price), target):
        return tuple(target.tolist())
    for _ in range(200):  # the sum grows with the level: bisection
        middle = (below + above) / 2
        below, above = (middle, above) if at(middle).sum() < 1 else (below, middle)
    found = at(above)
    if np.abs(found - target).sum() < 1e-9:
        return tuple(target.tolist())
    return _simplex(found.tolist())


def deliver(
    logits: Sequence[NDArray[np.float32]],
    names: Sequence[str],
    profile: Profile,
    settings: Delivered,
    network: Network | None = None,
) -> Delivery:
    """Replay the network as it is: one request per sample, through the strategy.

    Parameters
    ----------
    logits : sequence of ndarray, shape (N, C) each
        What each exit says about each sample.
    names : sequence of str
        Of the exits.
    profile : Profile
        Shares to settle.
    settings : Delivered
        The strategy and its score.
    network : Network, optional
        Where the exits are deployed. Default: a chain.
    """
    from coinfer.predictions import ModelOutput, Predictions

    predictions = Predictions({name: ModelOutput(logits=z) for name, z in zip(names, logits, strict=True)})
    if settings.strategy is not None:
        strategy = settings.strategy(predictions, profile)
    else:
        strategy = strategy_for(predictions, profile, score=settings.score)
    return passage(predictions, strategy, network)[0]


def passage(predictions: Predictions, strategy: Strategy, network: Network | None = None) -> tuple[Delivery, Run]:
    """Send one request per sample through a strategy; say where each is settled and what it reaches, and the replay.

    Parameters
    ----------
    predictions : Predictions
        One model per exit, in order.
    strategy : Strategy
        Any that can be replayed.
    network : Network, optional
        Where the exits are deployed; samples enter at its ingress nodes in turn. Default: a chain.
    """
    from coinfer.network import Network
    from coinfer.replaying import replay
    from coinfer.trace import Trace

    n, names = len(predictions), predictions.models
    if network is None:
        network = Network.chain({f"tier-{e}": name for e, name in enumerate(names)}, delay_ms=[1.0] * (len(names) - 1))
    entries = network.ingress
    trace = Trace(np.arange(n), np.arange(n) % len(entries), np.arange(n), nodes=entries)
    run = replay(trace, predictions, network, strategy)
    position = {name: e for e, name in enumerate(names)}
    settled = np.zeros((n, len(names)), bool)
    at = np.array([position[name] for name in run.outcomes().column("model").to_pylist()])
    settled[np.arange(n), at] = True
    reached = at[:, None] >= np.arange(len(names))
    cuts = getattr(strategy, "thresholds", None)
    values = tuple(cuts.values()) if isinstance(cuts, dict) else tuple(cuts or ())
    return Delivery(settled, reached, tuple(float(v) for v in values)), run


def follow(old: Any, delivery: Delivery, shares: Sequence[float], settings: Delivered) -> tuple[Any, float]:
    """Return weights (N, exits) moved towards a delivery, and the share of their mass that a full move would shift."""
    rates = np.asarray(shares, np.float64)
    counting = delivery.settled if settings.on == "settled" else delivery.reached
    share = np.maximum(counting.mean(axis=0), 1e-12)
    # With a part m of the weight on that share of the samples, sum w^2 / n is 1 + m^2 (1 / share - 1).
    most = np.sqrt((1 / settings.effective - 1) / np.maximum(1 / share - 1, 1e-12))
    moving = np.minimum(1 - settings.floor, most)
    target = rates * (1 + moving * (counting / share - 1))
    moved = float(np.abs(target - old).sum() / 2 / len(target))
    return settings.damping * old + (1 - settings.damping) * target, moved
