"""Topologies that people have: backbones in GML or GraphML, matrices of round-trip times, networkx graphs.

A topology is nodes and delays, nothing more. `Topology.network` places models on it and gives the `Network` that
everything else takes; routing (shortest delay) is the network's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from coinfer._checks import check_mapping, check_name, check_number, check_unique
from coinfer._files import reading
from coinfer.errors import BadValueError, UnknownNameError, UnsupportedError, nearest
from coinfer.network import Deployment, Link, Model, Network, Node
from coinfer.service import Constant, Law

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["KM_PER_MS", "Topology"]

KM_PER_MS: Final = 299.792458 / 1.4682
"""How far light goes in a millisecond in single-mode fibre (group index 1.4682 at 1,550 nm)."""

_EARTH_KM: Final = 6371.0088  # mean radius (IUGG)
_LATITUDE: Final = ("Latitude", "latitude", "lat")
_LONGITUDE: Final = ("Longitude", "longitude", "lon", "lng")


@dataclass(frozen=True)
class Topology:
    """Named nodes, and the one-way delay of each link in milliseconds; links work both ways unless `directed`.

    Examples
    --------
    >>> import numpy as np
    >>> pops = Topology.from_rtt(np.array([[0.0, 8.0], [8.0, 0.0]]), names=["Paris", "Nice"])
    >>> net = pops.network({"small": "Nice", "large": "Paris"}, service_ms={"small": 2, "large": 20})
    >>> net.ingress, net.links[0].delay_ms
    (('Nice',), 4.0)
    """

    nodes: tuple[str, ...]
    links: tuple[tuple[str, str, float], ...]
    directed: bool = False

    @classmethod
    def open(
        cls, path: str | PathLike[str], *, delay: str | None = None, unit: str = "ms", stretch: float = 1.0
    ) -> Topology:
        """Read a GML or GraphML file, for example of the Internet Topology Zoo.

        Parameters
        ----------
        path : path
            ``.gml`` or ``.graphml``; nodes are named by their label where they have one.
        delay : str, optional
            The attribute of an edge that holds its one-way delay. Default: the great-circle distance between the
            coordinates of its ends (``Latitude``, ``Longitude``) at the speed of light in fibre.
        unit : {"s", "ms", "us", "km"}
            Of that attribute; ``km`` is a length of fibre.
        stretch : float
            How much longer a cable is than the great circle, >= 1.

        Raises
        ------
        BadFileError
            If the file cannot be read.
        BadValueError
            If a node has no coordinates, or an edge no delay; the message names it.
        """
        import networkx as nx

        path = Path(path)
        readers = {".gml": lambda p: nx.read_gml(p, label=None), ".graphml": nx.read_graphml}
        suffix = path.suffix.lower()
        if suffix not in readers:
            msg = f"{path}: a topology is a .gml or .graphml file; give other graphs to Topology.from_graph"
            raise BadValueError(msg)
        with reading(path, "a graph"):
            graph = readers[suffix](str(path))
        return cls.from_graph(graph, delay=delay, unit=unit, stretch=stretch)

    @classmethod
    def from_graph(cls, graph: Any, *, delay: str | None = None, unit: str = "ms", stretch: float = 1.0) -> Topology:
        """Take over a networkx graph. Of parallel edges the fastest counts; loops lead nowhere and are left out.

        Parameters, errors
            As for `open`.

        Examples
        --------
        >>> import networkx as nx
        >>> graph = nx.Graph()
        >>> graph.add_edge("a", "b", length=408.4)
        >>> [round(ms, 3) for _, _, ms in Topology.from_graph(graph, delay="length", unit="km").links]
        [2.0]
        """
        per_unit = {"s": 1e3, "ms": 1.0, "us": 1e-3, "km": 1.0 / KM_PER_MS}
        if unit not in per_unit:
            msg = f"unknown unit {unit!r} of delay; {nearest(str(unit), per_unit)}"
            raise UnknownNameError(msg)
        stretch = check_number(stretch, "stretch", at_least=1.0)
        names = {key: _label(key, data) for key, data in graph.nodes(data=True)}
        check_unique(names.values(), "topology: node")
        best: dict[tuple[str, str], float] = {}
        for a, b, data in graph.edges(data=True):
            if a == b:
                continue
            place = f"topology: edge {names[a]!r} -- {names[b]!r}"
            if delay is None:
                ms = stretch * _distance_km(names[a], graph.nodes[a], names[b], graph.nodes[b]) / KM_PER_MS
            elif delay in data:
                ms = check_number(_number(data[delay]), f"{place}: {delay}") * per_unit[unit]
            else:
                msg = f"{place} has no attribute {delay!r}; {nearest(delay, data)}"
                raise BadValueError(msg)
            ends = (names[a], names[b])
            if not graph.is_directed() and (ends[1], ends[0]) in best:
                ends = (ends[1], ends[0])
            best[ends] = min(ms, best.get(ends, math.inf))
        links = tuple((a, b, ms) for (a, b), ms in best.items())
        return cls(tuple(names.values()), links, bool(graph.is_directed()))

    @classmethod
    def from_rtt(cls, rtt_ms: Any, names: Sequence[str] | None = None) -> Topology:
        """Take a matrix of round-trip times: every pair of nodes is a link of half of it.

        Parameters
        ----------
        rtt_ms : array-like of shape (N, N)
            Milliseconds. Where the two directions differ, their mean counts. The diagonal is not read; NaN means that
            there is no link.
        names : sequence of str, optional
            Default: ``host0``, ``host1``, ...
        """
        rtt = np.asarray(rtt_ms, np.float64)
        if rtt.ndim != 2 or rtt.shape[0] != rtt.shape[1] or not len(rtt):
            msg = f"rtt_ms must be a square matrix, not of shape {rtt.shape}"
            raise BadValueError(msg)
        hosts = [f"host{i}" for i in range(len(rtt))] if names is None else [str(name) for name in names]
        if len(hosts) != len(rtt):
            msg = f"{len(hosts)} names were given for {len(rtt)} hosts"
            raise BadValueError(msg)
        hosts = [check_name(host, "topology: node", forbidden="@") for host in hosts]
        check_unique(hosts, "topology: node")
        off = ~np.eye(len(rtt), dtype=bool)
        bad = off & ~np.isnan(rtt) & ~((rtt >= 0) & np.isfinite(rtt))
        if bad.any():
            a, b = (int(i) for i in np.argwhere(bad)[0])
            msg = f"rtt_ms[{a}, {b}] is {rtt[a, b]}; a round trip takes a finite time >= 0, or NaN where there is none"
            raise BadValueError(msg)
        there, back = rtt, rtt.T
        both = np.where(np.isnan(there), back, np.where(np.isnan(back), there, (there + back) / 2))
        links = [
            (hosts[a], hosts[b], float(both[a, b]) / 2)
            for a, b in zip(*np.triu_indices(len(rtt), 1), strict=True)
            if not np.isnan(both[a, b])
        ]
        return cls(tuple(hosts), tuple(links))

    def select(self, nodes: Iterable[str]) -> Topology:
        """Keep some nodes and the links between them."""
        kept = tuple(nodes)
        for name in kept:
            self._check(name, "select")
        return Topology(kept, tuple(link for link in self.links if link[0] in kept and link[1] in kept), self.directed)

    def network(
        self,
        models: Mapping[str, str | Iterable[str]],
        *,
        service_ms: Mapping[str, float | Law] | float = 0.0,
        price_usd: Mapping[str, float] | float = 0.0,
        instances: Mapping[str, int] | int = 1,
        request_kb: float = 0.0,
        answer_kb: float = 0.0,
        ingress: Iterable[str] | None = None,
        bandwidth_mbps: float | None = None,
        control: str = "path",
    ) -> Network:
        """Place models on the nodes.

        Parameters
        ----------
        models : mapping of model to node(s)
            In tiers, lowest first. A node that hosts several models is laid out as one node per model, the further ones
            named ``node/model``, with links of 0 ms between them. Nodes without a model only pass requests on.
        service_ms : number, `coinfer.service` law, or mapping of model to either
        price_usd, instances
            For all models, or by model.
        request_kb, answer_kb : float
            Size of a request and of an answer, for every model.
        ingress : iterable of str, optional
            Where requests enter. Default: the nodes that host the first model.
        bandwidth_mbps : float, optional
            Of every link.
        control : {"path", "ingress"}
            As for `Network`.

        Returns
        -------
        Network

        Raises
        ------
        UnknownNameError, BadValueError
            If a node does not exist or a value is not allowed.
        """
        placed = {
            str(model): [where] if isinstance(where, str) else list(where)
            for model, where in check_mapping(models, "models", "model to the nodes where it stands").items()
        }
        tier_of: dict[str, int] = {}
        deployments: list[Deployment] = []
        extra: list[Link] = []
        for tier, (model, where) in enumerate(placed.items()):
            if not where:
                msg = f"model {model!r} is placed nowhere; name at least one node"
                raise BadValueError(msg)
            for node in where:
                self._check(node, f"model {model!r}")
                host = node
                if node in tier_of:
                    host = f"{node}/{model}"
                    extra.append(Link((node, host), delay_ms=0.0))
                tier_of[host] = tier
                service = _of(service_ms, model, "service_ms")
                deployments.append(
                    Deployment(
                        model,
                        host,
                        instances=int(_of(instances, model, "instances")),
                        price_usd=_of(price_usd, model, "price_usd"),
                        service=service if isinstance(service, Law) else Constant(service),
                    )
                )
        entries = list(next(iter(placed.values()))) if ingress is None else list(ingress)
        for name in entries:
            self._check(name, "ingress")
        entering = set(entries)
        names = [*self.nodes, *(host for host in tier_of if host not in self.nodes)]
        nodes = [Node(name, tier_of.get(name, 0), ingress=name in entering) for name in names]
        links = [
            Link((a, b), delay_ms=ms, bandwidth_mbps=bandwidth_mbps, directed=self.directed) for a, b, ms in self.links
        ]
        sizes = [Model(model, request_kb=request_kb, answer_kb=answer_kb) for model in placed]
        return Network(tuple(nodes), (*links, *extra), tuple(sizes), tuple(deployments), control=control)

    def _check(self, name: str, what: str) -> None:
        if name not in self.nodes:
            msg = f"{what}: the topology has no node {name!r}; {nearest(str(name), self.nodes)}"
            raise UnknownNameError(msg)

    def __str__(self) -> str:
        delays = sorted(ms for _, _, ms in self.links)
        span = f", {delays[0]:.3g} to {delays[-1]:.3g} ms" if delays else ""
        return f"Topology: {len(self.nodes)} nodes, {len(self.links)} links{span}"


def _of(values: Any, model: str, what: str) -> Any:
    if not isinstance(values, Mapping):
        return values
    if model not in values:
        msg = f"{what} names no model {model!r}; {nearest(model, values)}"
        raise UnknownNameError(msg)
    return values[model]


def _label(key: Any, data: Mapping[str, Any]) -> str:
    return check_name(str(data.get("label", key)).strip(), "topology: node", forbidden="@")


def _number(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _distance_km(name_a: str, a: Mapping[str, Any], name_b: str, b: Mapping[str, Any]) -> float:
    """Give the great-circle distance (haversine)."""
    (lat_a, lon_a), (lat_b, lon_b) = _position(name_a, a), _position(name_b, b)
    h = math.sin((lat_b - lat_a) / 2) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2
    return 2 * _EARTH_KM * math.asin(min(1.0, math.sqrt(h)))


def _position(name: str, data: Mapping[str, Any]) -> tuple[float, float]:
    found = []
    for keys, limit in ((_LATITUDE, 90.0), (_LONGITUDE, 360.0)):
        value = next((_number(data[key]) for key in keys if key in data), None)
        if value is None:
            msg = (
                f"topology: node {name!r} has no {keys[0]}, so the delay of its links is unknown; give delay= the name "
                "of an edge attribute"
            )
            raise UnsupportedError(msg)
        found.append(
            math.radians(check_number(value, f"topology: node {name!r}: {keys[0]}", at_least=-limit, at_most=limit))
        )
    return found[0], found[1]
