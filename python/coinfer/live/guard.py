"""What keeps a router alive among failing servers: breaker, retry budget, estimates of a hop.

Why each is as it is. A *breaker* spares requests the wait for a server that is known to be away; it lets one probe
through, not all, because a server that comes back is weak. A *budget* bounds retries and hedges to a share of the
requests in flight, because retries of everything are how an overload becomes an outage; the floor lets a quiet router
retry at all. A *hop estimate* is the median of what was measured, so that nothing is started that cannot finish; it
goes stale, because an estimate that forbids to send would never learn that it is wrong. A *fast failure* counts as a
slow answer when replicas are compared: an endpoint that refuses everything at once must not look quick.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

__all__ = ["Breaker", "Budget", "Hop", "feasible"]


@dataclass(slots=True)
class Breaker:
    """Whether an endpoint may be asked: closed, open, or half open with one probe.

    Parameters
    ----------
    failures : int
        In a row, that open it.
    open_s, open_s_max : float
        How long it stays open the first time; doubled at each probe that fails, up to the maximum.
    """

    failures: int = 5
    open_s: float = 0.25
    open_s_max: float = 1.0
    count: int = 0
    opened: int = 0
    _wait_s: float = 0.0
    _until_s: float = -math.inf
    _probing: bool = False

    @property
    def state(self) -> str:
        """``"closed"``, ``"open"`` or ``"probing"``."""
        return "probing" if self._probing else "open" if self.count >= self.failures else "closed"

    def allows(self, now_s: float) -> bool:
        """Say whether a request may be sent now."""
        return self.count < self.failures or (not self._probing and now_s >= self._until_s)

    def sent(self) -> None:
        """Note a request; through an open breaker it is the probe."""
        if self.count >= self.failures:
            self._probing = True

    def succeeded(self) -> None:
        """Note an answer: closes."""
        self.count = 0
        self._wait_s = 0.0
        self._probing = False

    def failed(self, now_s: float) -> None:
        """Note a failure that says the endpoint, not the request, is bad."""
        was_open = self.count >= self.failures
        if was_open and not self._probing:
            return  # sent before it opened: news that is known
        self.count += 1
        if self.count >= self.failures:
            self._wait_s = min(self._wait_s * 2 or self.open_s, self.open_s_max)
            self._until_s = now_s + self._wait_s
            self._probing = False
            self.opened += 0 if was_open else 1

    def abandoned(self) -> None:
        """Note that the probe was cancelled by us: it says nothing."""
        self._probing = False


@dataclass(slots=True)
class Budget:
    """Retries and hedges in flight, at most a share of all requests in flight.

    Parameters
    ----------
    share : float
        Of the active requests.
    floor : int
        Allowed whatever is active.
    """

    share: float = 0.2
    floor: int = 3
    active: int = 0
    used: int = 0
    refused: int = 0

    def take(self) -> bool:
        """Take one, if the budget allows; give it back with `give`."""
        if self.used >= max(self.floor, self.share * self.active):
            self.refused += 1
            return False
        self.used += 1
        return True

    def give(self) -> None:
        """Give one back."""
        self.used -= 1


_WINDOW = 128
_EVERY = 16
_STALE_S = 1.0


@dataclass(slots=True)
class Hop:
    """What one deployment's answers took, over the last 128: median and 95th percentile in microseconds.

    Parameters
    ----------
    p50_us : float
        Before anything was measured.
    """

    p50_us: float = 0.0
    p95_us: float = math.inf
    _seen: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    _new: int = 0
    _at_s: float = -math.inf

    def add(self, took_us: float, now_s: float) -> None:
        """Note one answer."""
        self._seen.append(took_us)
        self._new += 1
        self._at_s = now_s
        if self._new >= _EVERY or len(self._seen) <= _EVERY:
            ranked = sorted(self._seen)
            self.p50_us = ranked[len(ranked) // 2]
            self.p95_us = ranked[len(ranked) * 95 // 100] if len(ranked) >= _EVERY else math.inf
            self._new = 0

    def least_us(self, now_s: float) -> float:
        """Say what a hop takes at least, to say whether one may start; 0, once, if nothing was heard for a second."""
        if now_s - self._at_s < _STALE_S:
            return self.p50_us
        self._at_s = now_s
        return 0.0


def feasible(remaining_us: float, hop_us: float) -> bool:
    """Say whether a stage may be entered: its median hop fits in the time that is left."""
    return remaining_us > 0 and remaining_us >= hop_us
