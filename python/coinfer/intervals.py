"""How far to trust what a replay found: intervals whose unit is the sample, and paired tests between strategies.

A sample brings all its requests along, so sums are formed per sample first. Without queues the intervals come from the
cluster bootstrap (`src/coinfer/sweep/bootstrap.hpp`): of means directly; of a quantile by the share of requests below
it, read off the distribution at both ends of that share's interval (Woodruff 1952). With queues, requests are not
independent however they are grouped: there, what twenty batches in time say about latencies is added, as variances
are, to what the samples say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer._core import sweep
from coinfer.errors import UnsupportedError
from coinfer.results import Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer.replaying import Run

__all__ = ["Paired", "PerSample", "at_most", "intervals", "paired", "per_sample", "upper_bound"]

_REPLICATES = 400
_BATCHES = 20
_CHUNK = 1 << 20
_QUANTILES = (0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class PerSample:
    """Sums over the requests of each sample: [sample], `below` [quantile][sample]."""

    requests: NDArray[np.float64]
    labelled: NDArray[np.float64]
    right: NDArray[np.float64]
    latency_us: NDArray[np.float64]
    price_usd: NDArray[np.float64]
    below: NDArray[np.float64]


def per_sample(run: Run) -> PerSample:
    """Add requests up by sample."""
    count = len(run.predictions)
    cuts = run.latency_quantiles(_QUANTILES)
    sums = np.zeros((5 + len(_QUANTILES), count))
    for sample, weight, latency_us, price_usd, correct in run.by_request(_CHUNK):
        known = correct >= 0
        rows = [np.ones(len(sample)), known, correct == 1, latency_us, price_usd]
        rows += [latency_us <= cut * (1 + 1e-12) for cut in cuts]
        for at, row in enumerate(rows):
            sums[at] += np.bincount(sample, weights=row * weight, minlength=count)
    return PerSample(sums[0], sums[1], sums[2], sums[3], sums[4], sums[5:])


def intervals(run: Run, seed: int = 0) -> dict[str, Estimate]:
    """Give accuracy, mean price, mean latency and its quantiles, each with a 95 % interval.

    Parameters
    ----------
    run : Run
    seed : int
        For the bootstrap, whose draws are counter-based.

    Returns
    -------
    dict of str to Estimate
        ``accuracy`` (Wilson), ``price_usd``, ``latency_us_mean``, ``latency_us_p50`` to ``latency_us_p99``.
    """
    summary = run.summary
    sums = run.per_sample
    asked = sums.requests > 0
    n = float(sums.requests.sum() ** 2 / np.square(sums.requests).sum())
    tops = np.ascontiguousarray(np.stack([sums.price_usd, sums.latency_us, *sums.below])[:, asked])
    bottoms = np.ascontiguousarray(np.broadcast_to(sums.requests[asked], tops.shape))
    draws = sweep.bootstrap(tops, bottoms, _REPLICATES, seed)
    low, high = np.quantile(draws, [0.025, 0.975], axis=1)
    found: dict[str, Estimate] = {}
    if summary.accuracy is not None:
        found["accuracy"] = summary.accuracy
    found["price_usd"] = _around(summary.price_usd, float(low[0]), float(high[0]), n)
    found["latency_us_mean"] = _around(summary.latency_us.mean, float(low[1]), float(high[1]), n)
    reached = sums.below.sum(axis=1) / sums.requests.sum()
    for at, q in enumerate(_QUANTILES):
        # A share that could be as large (small) means that the quantile could be as low (high).
        shares = np.clip([q - (high[2 + at] - reached[at]), q + (reached[at] - low[2 + at])], 0.0, 1.0)
        ends = run.latency_quantiles(shares)
        value = float(run.latency_quantiles(q))
        found[f"latency_us_p{round(100 * q)}"] = _around(value, float(ends[0]), float(ends[1]), n)
    return found | _batched(run, found) if run.queued else found


def _around(value: float, low: float, high: float, n: float) -> Estimate:
    return Estimate(value, min(low, value), max(high, value), n)


def _batched(run: Run, found: dict[str, Estimate]) -> dict[str, Estimate]:
    """Widen intervals of latencies by what batches in time say."""
    from scipy.stats import t

    latency = np.concatenate([part[2] for part in run.by_request(_CHUNK)])
    batches = [each for each in np.array_split(latency, _BATCHES) if len(each)]
    width = float(t.ppf(0.975, max(len(batches) - 1, 1))) / math.sqrt(len(batches))
    said = {"latency_us_mean": [float(np.mean(each)) for each in batches]}
    for q in _QUANTILES:
        said[f"latency_us_p{round(100 * q)}"] = [float(np.quantile(each, q)) for each in batches]
    least, wider = float(run.latency_quantiles(0.0)), {}
    for name, each in said.items():
        half = width * float(np.std(each, ddof=1)) if len(each) > 1 else math.inf
        known = found[name]
        low, high = math.hypot(known - known.low, half), math.hypot(known.high - known, half)
        wider[name] = Estimate(float(known), max(known - low, least), known + high, known.n_effective)
    return wider


@dataclass(frozen=True, slots=True)
class Paired:
    """Accuracy of one strategy minus that of another, on the same requests.

    Attributes
    ----------
    difference, low, high : float
        And its 95 % interval.
    p_value : float
        Of "there is no difference", two-sided: exact McNemar where every sample counts alike, else cluster-robust.
    samples : int
        Samples on which the two differ.
    """

    difference: float
    low: float
    high: float
    p_value: float
    samples: int

    @property
    def noise(self) -> bool:
        """Whether the difference may well be chance, at 5 %."""
        return not self.p_value <= 0.05


def paired(first: Run, second: Run) -> Paired:
    """Compare the accuracy of two runs of one trace, sample by sample."""
    a, b = first.per_sample, second.per_sample
    total = float(a.labelled.sum())
    if total == 0 or float(b.labelled.sum()) == 0:
        msg = "accuracies can be compared only where samples have true labels"
        raise UnsupportedError(msg)
    mean = float(a.right.sum() / total - b.right.sum() / b.labelled.sum())
    gaps = (a.right - a.labelled * (a.right.sum() / total)) / total
    gaps = gaps - (b.right - b.labelled * (b.right.sum() / b.labelled.sum())) / b.labelled.sum()
    spread = math.sqrt(float(np.square(gaps).sum()))
    moved = a.right - b.right
    differing = moved[moved != 0]
    p = _exact(differing) if len(np.unique(np.abs(differing))) <= 1 else _robust(mean, spread)
    half = 1.959963984540054 * spread
    return Paired(mean, mean - half, mean + half, p, len(differing))


def _exact(differing: NDArray[np.float64]) -> float:
    from scipy.stats import binomtest

    if len(differing) == 0:
        return 1.0
    return float(binomtest(int((differing > 0).sum()), len(differing), 0.5).pvalue)


def _robust(mean: float, spread: float) -> float:
    return math.erfc(abs(mean) / spread / math.sqrt(2)) if spread > 0 else float(mean == 0)


def at_most(events: Any, trials: Any, share: Any) -> Any:
    """Give the probability that at most `events` of `trials` happen, if each does with probability `share`, exactly.

    That is the p-value of "the probability is `share` or more"; `upper_bound` turns it round.
    """
    from scipy.special import bdtr

    return bdtr(events, trials, np.clip(share, 0.0, 1.0))


def upper_bound(events: Any, trials: Any, confidence: float) -> Any:
    """Give the exact one-sided upper bound on a probability of which `events` were seen in `trials`.

    The largest share of which `at_most` is 1 - confidence or more.

    References
    ----------
    Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial", Biometrika
    1934.

    Examples
    --------
    >>> high = float(upper_bound(0, 300, 0.95))  # the rule of three: about 3 / n
    >>> round(high, 4), round(float(at_most(0, 300, high)), 4)
    (0.0099, 0.05)
    """
    from scipy.special import bdtri

    events, trials = np.asarray(events, np.int64), np.asarray(trials, np.int64)
    seen = events < trials
    high = bdtri(np.where(seen, events, 0), np.where(seen, trials, 1), 1 - confidence)
    return np.where(seen, high, 1.0)
