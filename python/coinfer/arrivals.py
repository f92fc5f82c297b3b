"""Arrival processes: when requests come, before it is known where they enter and what they ask.

Every process here is a Poisson process of rate 1 seen through a clock: with L(t) the requests expected up to time t,
the k-th arrival is where L reaches the k-th point of that process (Cinlar 1975, time change). Processes of one seed
share these points, so strategies and rates can be compared on common random numbers. Results are int64 nanoseconds,
ascending, ready for ``Trace.from_arrivals(times, unit="ns", ...)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer._arrivals import arrivals_ns, read_minutes
from coinfer._checks import check_integer, check_list, check_number
from coinfer._drawing import generator
from coinfer._files import reading
from coinfer.errors import BadValueError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from numpy.typing import NDArray

__all__ = ["Burstiness", "burstiness", "diurnal", "mmpp", "per_minute", "poisson", "profile", "scaled"]


def poisson(rate_rps: float, requests: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Draw a Poisson process.

    Parameters
    ----------
    rate_rps : float
        Requests per second, > 0.
    requests : int
        How many.
    seed : int
        Same seed, same process.

    Returns
    -------
    ndarray of int64, shape (requests,)
        Nanoseconds, ascending.
    """
    rate = check_number(rate_rps, "poisson: rate_rps", above=0.0)
    return _whole(_points(requests, seed, "poisson") / rate, "poisson")


def mmpp(rates_rps: Sequence[float], dwell_s: Sequence[float], requests: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Draw a Markov-modulated Poisson process: calm and busy spells that come and go at random.

    Parameters
    ----------
    rates_rps : sequence of float
        Requests per second in each state, >= 0, not all 0.
    dwell_s : sequence of float
        Mean time in each state, seconds, > 0; exponential. From each state every other one is equally likely.
    requests, seed
        As for `poisson`.

    Returns
    -------
    ndarray of int64, shape (requests,)
        It starts in a state drawn from the long-run shares of time.

    References
    ----------
    Fischer and Meier-Hellstern, "The Markov-modulated Poisson process (MMPP) cookbook", Performance Evaluation 1993.

    Examples
    --------
    >>> calm, busy = poisson(100, 20_000), mmpp([50, 950], [1.0, 0.0588], 20_000)  # both 100 per second
    >>> burstiness(busy).cv > 1.2 * burstiness(calm).cv
    True
    """
    rates = np.array([check_number(r, "mmpp: rate_rps") for r in check_list(rates_rps, "mmpp: rates_rps", "numbers")])
    dwell = np.array(
        [check_number(d, "mmpp: dwell_s", above=0.0) for d in check_list(dwell_s, "mmpp: dwell_s", "numbers")]
    )
    states = len(rates)
    if states != len(dwell) or states < 2 or not rates.any():
        given = f"{rates_rps} and {dwell_s}"
        msg = f"mmpp: give at least two states, each a rate and a dwell time, not all rates 0; got {given}"
        raise BadValueError(msg)
    points = _points(requests, seed, "mmpp")
    if not len(points):
        return _whole(points, "mmpp")
    rng = generator(seed, "arrivals", 1)
    # Every other state is equally likely next, so the chain of states visits all alike: time shares go with the dwell.
    state = int(np.searchsorted(np.cumsum(dwell) / dwell.sum(), rng.random(), side="right"))
    instants, expected = [np.zeros(1)], [np.zeros(1)]
    reached = 0.0
    while reached <= points[-1]:
        steps = 1024
        jumps = rng.integers(1, states, steps)
        path = (state + np.concatenate([[0], np.cumsum(jumps)])) % states
        spell = rng.standard_exponential(steps) * dwell[path[:-1]]
        instants.append(instants[-1][-1] + np.cumsum(spell))
        expected.append(expected[-1][-1] + np.cumsum(spell * rates[path[:-1]]))
        state, reached = int(path[-1]), float(expected[-1][-1])
    return _whole(_invert(points, np.concatenate(expected), np.concatenate(instants)), "mmpp")


def profile(rates_rps: Sequence[float], step_s: float, requests: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Draw a Poisson process whose rate follows a profile that repeats, for example 24 hourly rates.

    Parameters
    ----------
    rates_rps : sequence of float
        Requests per second in each step, >= 0, not all 0.
    step_s : float
        Length of a step, seconds, > 0.
    requests, seed
        As for `poisson`.
    """
    rates = np.array(
        [check_number(r, "profile: rate_rps") for r in check_list(rates_rps, "profile: rates_rps", "numbers")]
    )
    step = check_number(step_s, "profile: step_s", above=0.0)
    if not rates.any():
        msg = f"profile: at least one rate must be above 0, not {rates_rps!r}"
        raise BadValueError(msg)
    points = _points(requests, seed, "profile")
    expected = np.concatenate([[0.0], np.cumsum(rates * step)])
    rounds, rest = np.divmod(points, expected[-1])
    within = _invert(rest, expected, np.arange(len(expected), dtype=np.float64) * step)
    return _whole(rounds * step * len(rates) + within, "profile")


def per_minute(path: str | PathLike[str]) -> NDArray[np.int64]:
    """Read how many requests came in each minute of a day of Azure Functions 2019, over all its functions.

    A day has hundreds of millions of invocations and no times within the minute, so it is a rate to draw from
    rather than a list of arrivals: ``profile(per_minute(path) / 60 * scale, 60.0, requests)``.

    Returns
    -------
    ndarray of int64, shape (M,)
        Requests in each of the M minutes that the file has columns for.

    Raises
    ------
    BadFileError
        If the file is missing, or is not ``HashOwner, HashApp, HashFunction, Trigger, 1, 2, ..., 1440``.
    """
    path = Path(path)
    with reading(path, "a day of Azure Functions 2019 (CSV)"):
        return read_minutes(path)


def diurnal(
    mean_rps: float, peak_to_mean: float, requests: int, *, period_s: float = 86_400.0, seed: int = 0
) -> NDArray[np.int64]:
    """Draw a Poisson process whose rate follows a sine, lowest at the start of each period.

    Parameters
    ----------
    mean_rps : float
        Requests per second on average, > 0.
    peak_to_mean : float
        The highest rate, as a multiple of the mean: 1 (constant) to 2 (silent at the lowest).
    requests, seed
        As for `poisson`.
    period_s : float
        Seconds from low to low.
    """
    mean = check_number(mean_rps, "diurnal: mean_rps", above=0.0)
    swing = check_number(peak_to_mean, "diurnal: peak_to_mean", at_least=1.0, at_most=2.0) - 1.0
    period = check_number(period_s, "diurnal: period_s", above=0.0)
    points = _points(requests, seed, "diurnal") / (mean * period)  # in expected periods
    # Periods x with x - swing sin(2 pi x) / 2 pi = point: bisection to the last bit, as at swing 1 the slope can be 0.
    low = points - swing / (2 * np.pi) - 1e-9
    high = points + swing / (2 * np.pi) + 1e-9
    for _ in range(64):
        middle = 0.5 * (low + high)
        above = middle - swing * np.sin(2 * np.pi * middle) / (2 * np.pi) > points
        high = np.where(above, middle, high)
        low = np.where(above, low, middle)
    return _whole(np.maximum(high, 0.0) * period, "diurnal")


def scaled(
    times: Any,
    *,
    rate_rps: float | None = None,
    factor: float | None = None,
    requests: int | None = None,
    unit: str = "ns",
) -> NDArray[np.int64]:
    """Run recorded arrivals faster or slower, with their burstiness kept.

    All gaps are divided by one factor, so their coefficient of variation and their correlations stay as recorded.

    Parameters
    ----------
    times : array-like, shape (N,)
        Recorded arrivals, N >= 2, as for `Trace.from_arrivals`.
    rate_rps : float, optional
        Mean rate wanted, requests per second.
    factor : float, optional
        Or how many times as fast. Exactly one of the two.
    requests : int, optional
        How many. The recording is cut, or repeated from its start after one mean gap. Default: as many as recorded.
    unit : {"s", "ms", "us", "ns"}
        Unit of `times`.

    Returns
    -------
    ndarray of int64
        From 0, ascending.

    Examples
    --------
    >>> scaled([0.0, 1.0, 1.5, 4.0], factor=2, requests=6, unit="s").tolist()[-2:]
    [2666666667, 3166666667]
    """
    arrival = np.sort(arrivals_ns(times, unit))
    span = float(arrival[-1] - arrival[0]) if len(arrival) > 1 else 0.0
    if span <= 0:
        msg = f"scaled: there must be at least two recorded arrivals at different times, not {len(arrival)}"
        raise BadValueError(msg)
    if (rate_rps is None) == (factor is None):
        msg = "scaled: give either rate_rps= or factor="
        raise BadValueError(msg)
    gap = span / (len(arrival) - 1)
    if rate_rps is not None:
        faster = check_number(rate_rps, "scaled: rate_rps", above=0.0) * gap / 1e9
    else:
        faster = check_number(factor, "scaled: factor", above=0.0)
    count = len(arrival) if requests is None else check_integer(requests, "scaled: requests", at_most=2**40)
    rounds, row = np.divmod(np.arange(count), len(arrival))
    recorded = (arrival - arrival[0]).astype(np.float64)[row] + rounds * (span + gap)
    return _whole(recorded / faster / 1e9, "scaled")


@dataclass(frozen=True)
class Burstiness:
    """How bursty arrivals are.

    Attributes
    ----------
    rate_rps : float
        Mean rate.
    cv : float
        Coefficient of variation of the gaps: 1 for Poisson, 0 for a metronome.
    dispersion : float
        Index of dispersion for counts: variance by mean of the number of requests in windows of a hundred mean gaps. 1
        for Poisson at any window; above it, bursts last longer than single gaps show.
    """

    rate_rps: float
    cv: float
    dispersion: float


def burstiness(times: Any, unit: str = "ns") -> Burstiness:
    """Measure how bursty arrivals are.

    Parameters
    ----------
    times : array-like, shape (N,)
        Ascending, N >= 3.
    unit : {"s", "ms", "us", "ns"}

    Returns
    -------
    Burstiness
        `dispersion` is NaN below a thousand arrivals.

    References
    ----------
    Gusella, "Characterizing the variability of arrival processes with indexes of dispersion", IEEE JSAC 1991.
    """
    arrival = arrivals_ns(times, unit)
    gaps = np.diff(arrival).astype(np.float64)
    if len(gaps) < 2 or (gaps < 0).any() or not gaps.any():
        msg = f"burstiness needs at least three ascending arrivals at different times, not {len(arrival)}"
        raise BadValueError(msg)
    window = 100 * gaps.mean()
    windows = int((arrival[-1] - arrival[0]) // window)
    dispersion = float("nan")
    if windows >= 10:
        counts = np.bincount(((arrival - arrival[0]) // window).astype(np.int64))[:windows]
        dispersion = float(counts.var(ddof=1) / counts.mean())
    return Burstiness(1e9 / gaps.mean(), float(gaps.std() / gaps.mean()), dispersion)


def _points(requests: int, seed: int, what: str) -> NDArray[np.float64]:
    count = check_integer(requests, f"{what}: requests", at_most=2**40)
    return np.cumsum(generator(seed, "arrivals").standard_exponential(count))


def _invert(
    points: NDArray[np.float64], expected: NDArray[np.float64], instants: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Find the instant at which each number of requests is expected: linear between, and never while the rate is 0."""
    at = np.clip(np.searchsorted(expected, points, side="left"), 1, len(expected) - 1)
    rise = expected[at] - expected[at - 1]
    share = np.where(rise > 0, (points - expected[at - 1]) / np.where(rise > 0, rise, 1.0), 0.0)
    return instants[at - 1] + share * (instants[at] - instants[at - 1])


def _whole(seconds: NDArray[np.float64], what: str) -> NDArray[np.int64]:
    if len(seconds) and not seconds[-1] < 2**63 / 1e9:
        msg = f"{what}: {len(seconds)} requests at this rate take longer than int64 counts nanoseconds"
        raise BadValueError(msg)
    return np.rint(seconds * 1e9).astype(np.int64)
