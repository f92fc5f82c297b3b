"""Routes over the links, and the path of deployments that a request may climb from its ingress.

Delays are compared as integer nanoseconds, the unit of the replay, because sums of floats that are equal on
paper are not equal in bits and a route must not depend on that. Ties go to fewer hops, then to the smaller
name of the previous node: a network has exactly one route between two nodes.

Sparse networks use Dijkstra's algorithm per source, on demand. In a dense one (a measured delay between every
pair of sites) that would relax every link once per source; there, one all-pairs pass of the Floyd-Warshall
recurrence as NumPy row operations is an order of magnitude faster. Both yield the same table of (delay,
hops), from which the hops of a route are read back.
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
        self._out: list[list[tuple[int, int]]] = [[] for _ in range(count)]  # (neighbour, delay_ns)
        self._in: list[list[tuple[int, int, Hop]]] = [[] for _ in range(count)]  # (neighbour, delay_ns, hop)
        for index, link in enumerate(network.links):
            delay_ns = round(link.delay_ms * 1e6)
            a, b = network.node_index(link.a), network.node_index(link.b)
            self._out[a].append((b, delay_ns))
            self._in[b].append((a, delay_ns, (index, True)))
            if not link.directed:
                self._out[b].append((a, delay_ns))
                self._in[a].append((b, delay_ns, (index, False)))
        self._rows: dict[int, list[_Key | None]] = {}
        self._all: tuple[np.ndarray, int] | None = None
        self._dense = (
            len(network.links) > _DENSE_LINKS_PER_NODE * count
            and count <= _DENSE_NODES_MAX
            and max((delay for row in self._out for _, delay in row), default=0) < _UNREACHABLE // (4 * count * count)
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
        row = self._row(source)
        hops: list[Hop] = []
        while node != source:
            key = row[node]
            assert key is not None
            node, hop = min(
                (
                    (previous, hop)
                    for previous, delay_ns, hop in self._in[node]
                    if row[previous] == (key[0] - delay_ns, key[1] - 1)
                ),
                key=lambda step: (self._names[step[0]], step[1]),
            )
            hops.append(hop)
        return tuple(reversed(hops))

    def reaches(self, a: str, b: str) -> bool:
        """Return whether there is a route from `a` to `b`."""
        return self._row(self._network.node_index(a))[self._network.node_index(b)] is not None

    def _key(self, a: str, b: str) -> _Key:
        key = self._row(self._network.node_index(a))[self._network.node_index(b)]
        if key is None:
            msg = f"node {b!r} cannot be reached from {a!r}: no links lead there; add a [[link]] between their sides"
            raise UnsupportedError(msg)
        return key

    def _row(self, source: int) -> list[_Key | None]:
        if source not in self._rows:
            self._rows[source] = self._row_of_all(source) if self._dense else self._dijkstra(source)
        return self._rows[source]

    def _dijkstra(self, source: int) -> list[_Key | None]:
        row: list[_Key | None] = [None] * len(self._names)
        queue: list[tuple[int, int, int]] = [(0, 0, source)]
        row[source] = (0, 0)
        while queue:
            delay, hops, node = heapq.heappop(queue)
            if row[node] != (delay, hops):
                continue
            hops += 1
            for neighbour, link_delay in self._out[node]:
                key = (delay + link_delay, hops)
                known = row[neighbour]
                if known is None or key < known:
                    row[neighbour] = key
                    heapq.heappush(queue, (*key, neighbour))
        return row

    def _row_of_all(self, source: int) -> list[_Key | None]:
        if self._all is None:
            count = len(self._names)
            scale = 1 << count.bit_length()  # key = delay * scale + hops
            table = np.full((count, count), _UNREACHABLE, np.int64)
            np.fill_diagonal(table, 0)
            for node, row in enumerate(self._out):
                for neighbour, delay in row:
                    table[node, neighbour] = min(table[node, neighbour], delay * scale + 1)
            through = np.empty_like(table)
            for middle in range(count):
                np.add(table[:, middle, None], table[None, middle, :], out=through)
                np.minimum(table, through, out=table)
            self._all = table, scale
        table, scale = self._all
        return [divmod(key, scale) if key < _UNREACHABLE else None for key in table[source].tolist()]


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
    start = network.node(ingress)
    row = network.routes._row(network.node_index(ingress))
    best: dict[int, tuple[tuple[int, str, str], Deployment]] = {}
    for deployment in network.deployments:
        index = network.node_index(deployment.node)
        tier, key = network.nodes[index].tier, row[index]
        if tier < start.tier or key is None:
            continue
        rank = (key[0], deployment.node, deployment.model)
        if tier not in best or rank < best[tier][0]:
            best[tier] = rank, deployment
    if not best:
        msg = (
            f"node {ingress!r}: no deployment can be reached from there in its tier ({start.tier}) or above; "
            "add a deployment or a link"
        )
        raise UnsupportedError(msg)
    return tuple(best[tier][1] for tier in sorted(best))
