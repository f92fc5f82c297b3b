"""Outages: when a node, a link or a deployment is down or slow, so that a failure can be rehearsed before it happens.

An outage is a fact about the network, like a delay, and stands in its file (``[[outage]]``). What requests do about it
are the rules of live runs (`coinfer.live.guard`), with the same defaults, in simulated time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coinfer._checks import MILLISECONDS_MAX, check_list, check_name, check_number
from coinfer.errors import BadValueError, UnknownNameError, nearest

if TYPE_CHECKING:
    from coinfer.network import Network

__all__ = ["Outage", "rows"]

OutageRow = tuple[int, int, int, float, bool, bool]
"""Place (deployments, then directed links), from and to in ns, factor (0: down), silent, whether its node is out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """From `from_ms` until before `to_ms`, something is down or slow.

    A deployment that is down refuses requests and loses those that wait or are served. A link that is down takes no
    requests; answers wait there until it is up again. A node that is down is all its deployments and all its links.

    Parameters
    ----------
    node, deployment : str, optional
        What: a node, or a deployment ``"model@node"``...
    link : (str, str), optional
        ... or the link between two nodes, in both directions.
    from_ms, to_ms : float
        Milliseconds on the clock of the trace, 0 <= `from_ms` < `to_ms` <= 1e9.
    slow : float, optional
        It is not down, but takes so many times as long, > 0; of a node, its deployments do. What starts in that time
        is slow to its end.
    silent : bool, default False
        Requests are not refused but lost: whoever sent one waits until its deadline, 10 s at most.

    Raises
    ------
    BadValueError
        If it is not one of node, link and deployment, or a value is not allowed.

    Examples
    --------
    >>> Outage(node="cloud", from_ms=60_000, to_ms=90_000)
    Outage(node='cloud', from_ms=60000.0, to_ms=90000.0)
    """

    node: str | None = None
    link: tuple[str, str] | None = None
    deployment: str | None = None
    from_ms: float
    to_ms: float
    slow: float | None = None
    silent: bool = field(default=False)

    def __post_init__(self) -> None:
        given = [key for key in ("node", "link", "deployment") if getattr(self, key) is not None]
        if len(given) != 1:
            msg = "outage: say what is out by one of node, link and deployment" + (
                f", not by {' and '.join(given)}" if given else ""
            )
            raise BadValueError(msg)
        if self.link is not None:
            ends = tuple(check_name(end, "outage: link") for end in check_list(self.link, "outage: link", "two nodes"))
            if len(ends) != 2:
                msg = f"outage: link must be two node names, not {list(ends)}"
                raise BadValueError(msg)
            object.__setattr__(self, "link", ends)
        else:
            check_name(self.node or self.deployment, f"outage: {given[0]}")
        for key in ("from_ms", "to_ms"):
            value = check_number(getattr(self, key), f"outage of {self.what}: {key}", at_most=MILLISECONDS_MAX)
            object.__setattr__(self, key, value)
        if not self.from_ms < self.to_ms:
            msg = f"outage of {self.what}: from_ms must be less than to_ms, not {self.from_ms:g} and {self.to_ms:g}"
            raise BadValueError(msg)
        if self.slow is not None:
            slow = check_number(self.slow, f"outage of {self.what}: slow", above=0.0, at_most=1e6)
            object.__setattr__(self, "slow", slow)
        if type(self.silent) is not bool or (self.silent and self.slow is not None):
            msg = f"outage of {self.what}: silent must be true or false, and goes with what is down, not with slow"
            raise BadValueError(msg)

    @property
    def what(self) -> str:
        """Words for what is out, such as ``"node 'cloud'"``."""
        if self.link is not None:
            return f"link {self.link[0]!r} -- {self.link[1]!r}"
        return f"node {self.node!r}" if self.node is not None else f"deployment {self.deployment!r}"

    def __repr__(self) -> str:
        keys = ("node", "link", "deployment", "from_ms", "to_ms", "slow", "silent")
        shown = ((key, getattr(self, key)) for key in keys)
        return f"Outage({', '.join(f'{key}={value!r}' for key, value in shown if value not in (None, False))})"

    def check(self, network: Network) -> None:
        """Refuse an outage of something that the network does not have; the message names the nearest there is."""
        if self.node is not None:
            network.node(self.node)
        elif self.deployment is not None:
            network.deployment(self.deployment)
        elif not list(self._links(network)):
            known = [" -- ".join(link.between) for link in network.links]
            msg = f"there is no {self.what}; {nearest(' -- '.join(self.link or ()), known)}"
            raise UnknownNameError(msg)

    def _links(self, network: Network) -> Iterator[int]:
        """Give the directed links that are out: 2 x link, and one more for the way from b to a."""
        for at, link in enumerate(network.links):
            of_node = self.node is not None and self.slow is None and self.node in link.between
            if of_node or (self.link is not None and set(self.link) == set(link.between)):
                yield from ((2 * at,) if link.directed else (2 * at, 2 * at + 1))

    def places(self, network: Network) -> Iterator[int]:
        """Give what is out, by number: deployments, then directed links."""
        for at, deployment in enumerate(network.deployments):
            if self.node == deployment.node or self.deployment == deployment.name:
                yield at
        for link in self._links(network):
            yield len(network.deployments) + link


def rows(outages: Iterable[Outage], network: Network) -> list[OutageRow]:
    """Lay outages out by place, ascending and apart: what is down is down, and slownesses multiply."""
    by_place: dict[int, list[Outage]] = {}
    for outage in outages:
        for place in outage.places(network):
            by_place.setdefault(place, []).append(outage)
    found: list[OutageRow] = []
    for place, there in sorted(by_place.items()):
        spans = [(round(o.from_ms * 1e6), round(o.to_ms * 1e6), o) for o in there]
        for low, high in itertools.pairwise(sorted({time for span in spans for time in span[:2]})):
            active = [o for start, stop, o in spans if start <= low and high <= stop]
            down = [o for o in active if o.slow is None]
            factor = 1.0
            for o in active:
                factor *= o.slow or 0.0
            if active and factor != 1.0:
                silent, whole = any(o.silent for o in down), any(o.node is not None for o in down)
                found.append((place, low, high, factor, silent, whole))
    return found
