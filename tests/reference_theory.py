"""What queueing theory says: mean waits in milliseconds, from rates per millisecond.

References
----------
Kleinrock, "Queueing Systems", volume 1, 1975 (M/M/k, Pollaczek-Khinchine, networks of queues); Cobham, "Priority
assignment in waiting line problems", Operations Research 1954.
"""

from __future__ import annotations

import math


def mmk(rate: float, mean: float, k: int) -> float:
    """Give the mean wait of M/M/k: Erlang's C."""
    a = rate * mean
    tail = a**k / math.factorial(k) * k / (k - a)
    wait = tail / (sum(a**i / math.factorial(i) for i in range(k)) + tail)
    return wait * mean / (k - a)


def mg1(rate: float, mean: float, cv: float) -> float:
    """Give the mean wait of M/G/1: Pollaczek and Khinchine."""
    return rate * mean * mean * (1 + cv * cv) / 2 / (1 - rate * mean)


def priority_mm1(rates: list[float], mean: float) -> list[float]:
    """Give the mean wait per class of M/M/1 with priorities, not pre-emptive: Cobham."""
    residual = sum(rates) * mean * mean
    waits, done = [], 0.0
    for rate in rates:
        before, done = done, done + rate * mean
        waits.append(residual / (1 - before) / (1 - done))
    return waits


def mm1_sojourn_quantile(rate: float, mean: float, q: float) -> float:
    """Give a quantile of the time in M/M/1, which is exponential."""
    return -math.log(1 - q) / (1 / mean - rate)
