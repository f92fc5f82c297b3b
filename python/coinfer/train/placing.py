"""Where exits and data stand: trees of nodes, exits deployed on tiers, nodes as the clients of federated training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from coinfer._checks import check_integer, check_list, check_name, check_number
from coinfer.errors import BadValueError, UnknownNameError, nearest
from coinfer.network import Deployment, Link, Model, Network, Node
from coinfer.service import Constant

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer.train.costs import ExitCost
    from coinfer.train.exits import EarlyExit

__all__ = ["Client", "clients", "deploy", "sends_features", "tree"]

Split = Literal["smaller", "always", "never"]


def tree(
    counts: Sequence[int] = (90, 9, 1),
    *,
    tiers: Sequence[str] = ("device", "edge", "cloud"),
    delay_ms: Sequence[float] = (5.0, 30.0),
    bandwidth_mbps: Sequence[float] = (20.0, 1000.0),
) -> tuple[tuple[Node, ...], tuple[Link, ...]]:
    """Lay out a tree: so many nodes per tier, each joined to one of the tier above, evenly.

    Parameters
    ----------
    counts : sequence of int
        Nodes per tier, lowest first.
    tiers : sequence of str
        Names of the tiers; nodes are called ``device-01`` and so on, or by the tier alone where it has one node.
    delay_ms, bandwidth_mbps : sequence of float
        Of the links upward from each tier but the last.

    Returns
    -------
    tuple
        Nodes and links, as `deploy` takes them.

    Examples
    --------
    >>> nodes, links = tree((4, 2, 1))
    >>> [node.name for node in nodes]
    ['device-1', 'device-2', 'device-3', 'device-4', 'edge-1', 'edge-2', 'cloud']
    >>> links[0].between
    ('device-1', 'edge-1')
    """
    sizes = [check_integer(count, "counts: each", at_least=1) for count in check_list(counts, "counts", "integers")]
    if not (len(sizes) == len(tiers) and len(delay_ms) == len(bandwidth_mbps) == len(sizes) - 1):
        msg = (
            f"a tree of {len(sizes)} tiers needs as many names and one link delay and bandwidth less, not "
            f"{len(tiers)} names, {len(delay_ms)} delays and {len(bandwidth_mbps)} bandwidths"
        )
        raise BadValueError(msg)
    names = [
        [tier] if count == 1 else [f"{tier}-{i:0{len(str(count))}d}" for i in range(1, count + 1)]
        for tier, count in zip(tiers, sizes, strict=True)
    ]
    nodes = tuple(Node(name, tier) for tier, level in enumerate(names) for name in level)
    links = tuple(
        Link((name, above[i * len(above) // len(level)]), delay_ms=delay, bandwidth_mbps=rate)
        for level, above, delay, rate in zip(names, names[1:], delay_ms, bandwidth_mbps, strict=False)
        for i, name in enumerate(level)
    )
    return nodes, links


def sends_features(costs: Sequence[ExitCost], exit_: int, split: Split) -> bool:
    """Say whether exit number `exit_` (from 0) gets the features of the exit below instead of the input."""
    if split not in ("smaller", "always", "never"):
        msg = f"there is no split {split!r}; {nearest(str(split), ('smaller', 'always', 'never'))}"
        raise UnknownNameError(msg)
    if exit_ == 0 or split == "never":
        return False
    return split == "always" or costs[exit_ - 1].features_kb < costs[exit_].input_kb


def deploy(
    model: EarlyExit,
    nodes: Sequence[Node],
    links: Sequence[Link],
    *,
    split: Split = "smaller",
    service_ms: Sequence[float] | None = None,
    price_usd: Sequence[float] | None = None,
    control: str = "path",
) -> Network:
    """Put exit e on every node of tier e.

    Parameters
    ----------
    model : EarlyExit
        At most as many exits as there are tiers; a network with fewer exits leaves the highest tiers empty.
    nodes, links : sequences
        Of a `tree`, or of any `Network`.
    split : {"smaller", "always", "never"}
        Whether a tier gets the features of the tier below instead of the input: where they are smaller, always, or
        never. It decides the size of a request at the tier, and what the tier has to compute.
    service_ms : sequence of float, optional
        Service time per exit. Default: measured here.
    price_usd : sequence of float, optional
        Price of one request per exit.
    control : {"path", "ingress"}
        As in `Network`.

    Returns
    -------
    Network
        Models by the names of the exits, sizes and service times from `EarlyExit.costs`.

    Raises
    ------
    BadValueError
        If there are more exits than tiers.
    """
    tiers = sorted({node.tier for node in nodes})
    if len(model) > len(tiers):
        msg = (
            f"{len(model)} exits outnumber the {len(tiers)} tiers of the network: exit e stands on tier e, so "
            f"{', '.join(model.names[len(tiers) :])} would stand nowhere"
        )
        raise BadValueError(msg)
    costs = model.costs()
    sent = [sends_features(costs, e, split) for e in range(len(model))]
    if service_ms is None:
        # A tier that gets the input computes all blocks from the beginning.
        measured = [cost.own_time_us / 1e3 for cost in costs]
        service_ms = [measured[e] if sent[e] or e == 0 else sum(measured[: e + 1]) for e in range(len(model))]
    for what, given in (("service_ms", service_ms), ("price_usd", price_usd)):
        if given is not None and len(given) != len(model):
            msg = f"{what} must have one value per exit, {len(model)} in all, not {len(given)}"
            raise BadValueError(msg)
    models = tuple(
        Model(
            name,
            classes=model.classes,
            request_kb=costs[e - 1].features_kb if sent[e] else costs[e].input_kb,
            answer_kb=4 * model.class_count / 1e3,
        )
        for e, name in enumerate(model.names)
    )
    deployments = tuple(
        Deployment(
            name,
            node.name,
            service=Constant(check_number(service_ms[e], f"service_ms of {name!r}")),
            price_usd=0.0 if price_usd is None else price_usd[e],
        )
        for e, name in enumerate(model.names)
        for node in nodes
        if node.tier == tiers[e]
    )
    return Network(tuple(nodes), tuple(links), models, deployments, control=control)


@dataclass(frozen=True)
class Client:
    """A node that trains: its rows of the data, and how deep it can compute.

    Parameters
    ----------
    name : str
        The node.
    rows : array-like of int
        Which samples are there.
    depth : int
        Exits 1 to `depth` are trained here.
    """

    name: str
    rows: NDArray[np.int64]
    depth: int

    def __post_init__(self) -> None:
        check_name(self.name, "client name")
        rows = np.asarray(self.rows)
        if rows.ndim != 1 or (len(rows) and rows.dtype.kind not in "iu"):
            msg = f"client {self.name!r}: rows must be a list of row numbers"
            raise BadValueError(msg)
        object.__setattr__(self, "rows", rows.astype(np.int64))
        object.__setattr__(self, "depth", check_integer(self.depth, f"client {self.name!r}: depth", at_least=1))


def clients(network: Network, rows: Mapping[str, Any] | Sequence[Any]) -> tuple[Client, ...]:
    """Make the nodes of a network the clients of federated training: a node trains exits up to its tier.

    Parameters
    ----------
    network : Network
        As `deploy` returns it.
    rows : mapping of node to rows, or sequence of rows
        Which samples are at each node; a sequence goes by the order of ``network.nodes``. Nodes that are not named
        take no part.
    """
    if not isinstance(rows, Mapping):
        if len(rows) != len(network.nodes):
            msg = f"rows are given for {len(rows)} nodes, but the network has {len(network.nodes)}"
            raise BadValueError(msg)
        rows = {node.name: each for node, each in zip(network.nodes, rows, strict=True)}
    level = {tier: position + 1 for position, tier in enumerate(network.tiers)}
    exits = len(network.models)
    return tuple(Client(name, each, min(level[network.node(name).tier], exits)) for name, each in rows.items())
