"""Routes over the links, and the path of deployments that a request may climb from its ingress.

Delays are compared as integer nanoseconds, the unit of the replay, because sums of floats that are equal on
paper are not equal in bits and a route must not depend on that. Ties go to fewer hops, then to the smaller
name of the previous node: a network has exactly one route between two nodes.

Sparse networks use Dijkstra's algorithm per source, on demand. In a dense one (a measured delay between every
pair of sites) that would relax every link once per source; there, one all-pairs pass of the Floyd-Warshall
recurrence as NumPy row operations is an order of magnitude faster. Both yield the same table of (delay,
hops), from which the hops of a route are read back.

Thousands of devices below a few sites must not cost a table each. So the nearest deployment of a tier is found for
all nodes at once, by one search backwards from the whole tier, and a route up to a higher tier is read from a table
of the ways to its end, which all sources share.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np

from coinfer.errors import UnsupportedError

if TYPE_CHECKING:
    from coinfer.network import Deployment, Network

__all__ = ["Routes", "path"]

Hop = tuple[int, bool]
"""A link by its position in ``network.links``, and whether it is walked from its first to its second end."""

_Key = tuple[int, int]
"""Delay in nanoseconds and number of hops: compared in this order."""

_Link = tuple[int, int, Hop]
"""The node at the other end, the delay in nanoseconds, and the hop."""

_DENSE_LINKS_PER_NODE = 8
_DENSE_NODES_MAX = 1024
_UNREACHABLE = 2**61


class Routes:
    """Shortest routes between all nodes of a network, computed as they are asked for.

    Use ``network.routes``, which keeps one per network.

    Parameters
    ----------
    network : Network
        What to route on.

    Examples
    --------
    >>> from coinfer.network import Network
    >>> network = Network.chain({"device": "small", "edge": "medium", "cloud": "large"}, delay_ms=[10, 40])
    >>> network.routes.delay_ms("cloud", "device")
    50.0
    >>> network.routes.hops("cloud", "device")
    ((1, False), (0, False))
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._names = [node.name for node in network.nodes]
        count = len(self._names)
        self._in: list[list[_Link]] = [[] for _ in range(count)]
        self._links_of: list[list[_Link]] = [[] for _ in range(count)]
        for index, link in enumerate(network.links):
            delay_ns = round(link.delay_ms * 1e6)
            a, b = network.node_index(link.a), network.node_index(link.b)
            ways = [(a, b, (index, True))] if link.directed else [(a, b, (index, True)), (b, a, (index, False))]
            for start, end, hop in ways:
                self._links_of[start].append((end, delay_ns, hop))
                self._in[end].append((start, delay_ns, hop))
        self._rows: dict[int, list[_Key | None]] = {}  # by source
        self._ways: dict[int, list[_Key | None]] = {}  # by target
        self._nearest: dict[int, list[tuple[int, str] | None]] = {}
        self._steps: dict[tuple[int, int], list[tuple[int, Hop]]] = {}
        self._lasts: dict[tuple[int, int], tuple[int, Hop]] = {}
        self._all: tuple[np.ndarray, int] | None = None
        self._first_at: dict[str, Deployment] = {}
        for deployment in sorted(network.deployments, key=lambda d: d.model, reverse=True):
            self._first_at[deployment.node] = deployment
        self._dense = (
            len(network.links) > _DENSE_LINKS_PER_NODE * count
            and count <= _DENSE_NODES_MAX
            and max((delay for row in self._in for _, delay, _ in row), default=0) < _UNREACHABLE // (4 * count * count)
        )

    def delay_ms(self, a: str, b: str) -> float:
        """Return the one-way delay of the shortest route from `a` to `b`, milliseconds.

        Raises
        ------
        UnknownNameError
            If there is no such node.
        UnsupportedError
            If `b` cannot be reached from `a`.
        """
        return self._key(a, b)[0] / 1e6

    def hops(self, a: str, b: str) -> tuple[Hop, ...]:
        """Return the links from `a` to `b` in order, each with whether it is walked from first to second end.

        Raises
        ------
        UnknownNameError
            If there is no such node.
        UnsupportedError
            If `b` cannot be reached from `a`.
        """
        self._key(a, b)
        source, node = self._network.node_index(a), self._network.node_index(b)
        between = self._between(source, node) if self._upward(source, node) else None
        hops: list[Hop] = []
        while node != source:
            node, hop = self._last_hop(source, node) if between is None else between[node]
            hops.append(hop)
        return tuple(reversed(hops))

    def reaches(self, a: str, b: str) -> bool:
        """Return whether there is a route from `a` to `b`."""
        return self._key_of(self._network.node_index(a), self._network.node_index(b)) is not None

    def nearest(self, tier: int) -> list[tuple[int, str] | None]:
        """Return, for every node, the delay in nanoseconds to the nearest node of a tier that hosts a deployment.

        Ties go to the smaller name, which comes second; None where no such node can be reached.
        """
        if tier not in self._nearest:
            found: list[tuple[int, str] | None] = [None] * len(self._names)
            queue = [
                (0, name, self._network.node_index(name))
                for name in self._first_at
                if self._network.node(name).tier == tier
            ]
            heapq.heapify(queue)
            while queue:
                delay, name, node = heapq.heappop(queue)
                if found[node] is not None:
                    continue
                found[node] = delay, name
                for previous, link_delay, _ in self._in[node]:
                    if found[previous] is None:
                        heapq.heappush(queue, (delay + link_delay, name, previous))
            self._nearest[tier] = found
        return self._nearest[tier]

    def first_at(self, node: str) -> Deployment:
        """Return the deployment at a node whose model comes first by name."""
        return self._first_at[node]

    def _key(self, a: str, b: str) -> _Key:
        key = self._key_of(self._network.node_index(a), self._network.node_index(b))
        if key is None:
            msg = f"node {b!r} cannot be reached from {a!r}: no links lead there; add a [[link]] between their sides"
            raise UnsupportedError(msg)
        return key

    def _key_of(self, source: int, target: int) -> _Key | None:
        return self._to(target)[source] if self._upward(source, target) else self._row(source)[target]

    def _upward(self, source: int, target: int) -> bool:
        """Whether the route is read from the table of its end: to a higher tier there are few ends, many sources."""
        nodes = self._network.nodes
        return not self._dense and source not in self._rows and nodes[source].tier < nodes[target].tier

    def _to(self, target: int) -> list[_Key | None]:
        if target not in self._ways:
            self._ways[target] = _dijkstra(self._in, target)
        return self._ways[target]

    def _between(self, source: int, target: int) -> dict[int, tuple[int, Hop]]:
        """Return the last hop to every node on a shortest route from source to target, by the rule of `_last_hop`."""
        before: dict[int, tuple[int, Hop]] = {}
        seen, queue = {source}, [source]
        while queue:
            node = queue.pop()
            for following, hop in self._onward(node, target):
                step = node, hop
                if following not in before or self._order(step) < self._order(before[following]):
                    before[following] = step
                if following not in seen:
                    seen.add(following)
                    queue.append(following)
        return before

    def _onward(self, node: int, target: int) -> list[tuple[int, Hop]]:
        """Return the links that shortest routes to target take from a node."""
        if (node, target) not in self._steps:
            row = self._to(target)
            delay, hops = row[node] or (0, 0)
            self._steps[node, target] = [
                (following, hop)
                for following, delay_ns, hop in self._links_of[node]
                if row[following] == (delay - delay_ns, hops - 1)
            ]
        return self._steps[node, target]

    def _last_hop(self, source: int, node: int) -> tuple[int, Hop]:
        """Return the node before this one on the route from source, and the link from there."""
        if (source, node) not in self._lasts:
            row = self._row(source)
            delay, hops = row[node] or (0, 0)
            steps = (
                (previous, hop)
                for previous, delay_ns, hop in self._in[node]
                if row[previous] == (delay - delay_ns, hops - 1)
            )
            self._lasts[source, node] = min(steps, key=self._order)
        return self._lasts[source, node]

    def _order(self, step: tuple[int, Hop]) -> tuple[str, Hop]:
        return self._names[step[0]], step[1]

    def _row(self, source: int) -> list[_Key | None]:
        if source not in self._rows:
            self._rows[source] = self._row_of_all(source) if self._dense else _dijkstra(self._links_of, source)
        return self._rows[source]

    def _row_of_all(self, source: int) -> list[_Key | None]:
        if self._all is None:
            count = len(self._names)
            scale = 1 << count.bit_length()  # key = delay * scale + hops
            table = np.full((count, count), _UNREACHABLE, np.int64)
            np.fill_diagonal(table, 0)
            for node, row in enumerate(self._links_of):
                for neighbour, delay, _ in row:
                    table[node, neighbour] = min(table[node, neighbour], delay * scale + 1)
            through = np.empty_like(table)
            for middle in range(count):
                np.add(table[:, middle, None], table[None, middle, :], out=through)
                np.minimum(table, through, out=table)
            self._all = table, scale
        table, scale = self._all
        return [divmod(key, scale) if key < _UNREACHABLE else None for key in table[source].tolist()]


def _dijkstra(links: list[list[_Link]], source: int) -> list[_Key | None]:
    """Return the key of every node from source, or with the links turned round the key from every node to it."""
    row: list[_Key | None] = [None] * len(links)
    queue: list[tuple[int, int, int]] = [(0, 0, source)]
    row[source] = (0, 0)
    while queue:
        delay, hops, node = heapq.heappop(queue)
        if row[node] != (delay, hops):
            continue
        hops += 1
        for neighbour, link_delay, _ in links[node]:
            key = (delay + link_delay, hops)
            known = row[neighbour]
            if known is None or key < known:
                row[neighbour] = key
                heapq.heappush(queue, (*key, neighbour))
    return row


def path(network: Network, ingress: str) -> tuple[Deployment, ...]:
    """Return the deployments that a request may climb through: the nearest one of each tier.

    Parameters
    ----------
    network : Network
        The network.
    ingress : str
        The node where the request enters.

    Returns
    -------
    tuple of Deployment
        From the ingress's own tier upward; in each tier the deployment at the reachable node with the
        smallest delay, ties by node, then model name. Tiers without a reachable deployment are skipped.

    Raises
    ------
    UnknownNameError
        If there is no such node.
    UnsupportedError
        If no deployment can be reached.

    Examples
    --------
    >>> from coinfer.network import Network
    >>> network = Network.chain({"device": "small", "edge": "medium", "cloud": "large"}, delay_ms=[10, 40])
    >>> [deployment.name for deployment in path(network, "edge")]
    ['medium@edge', 'large@cloud']
    """
    start, index = network.node(ingress), network.node_index(ingress)
    best = []
    for tier in network.tiers:
        found = network.routes.nearest(tier)[index] if tier >= start.tier else None
        if found is not None:
            best.append(network.routes.first_at(found[1]))
    if not best:
        msg = (
            f"node {ingress!r}: no deployment can be reached from there in its tier ({start.tier}) or above; "
            "add a deployment or a link"
        )
        raise UnsupportedError(msg)
    return tuple(best)
