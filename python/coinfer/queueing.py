"""Replay with queues: which engine a strategy needs on a network, and what stations and links did under load.

Four engines give the same outcome for every request that more than one of them can replay:

``direct``
    Nobody waits: a network without queues and decisions that depend on the sample alone.
``feed-forward``
    First come, first served, decisions that depend on the sample alone, and an order in which requests visit
    deployments: one after the other, a window of the trace at a time. No groups, deadlines or queues at links.
``hops``
    First come, first served; decisions may look at queues. One event per visit of a deployment.
``events``
    The truth: batches, priorities, bounded queues and outages too.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coinfer._core import sim
from coinfer.errors import BadValueError, OverloadWarning, UnsupportedError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer.compiling import CompiledPlan, Compiler
    from coinfer.network import Network

__all__ = ["ENGINES", "Load", "Queued", "choose"]

ENGINES = ("auto", "direct", "feed-forward", "hops", "events")
_PART = 1 << 20
_TOO_FEW = 1000


@dataclass(frozen=True, slots=True)
class Load:
    """What one deployment, or one direction of a link, did.

    Attributes
    ----------
    served, rejected, dropped, refused : int
        Requests served (messages sent); turned away at a full queue; taken from the queue after their deadline; turned
        away or lost in an outage.
    utilisation : float
        Share of the time, from the first arrival to the last answer, that its instances worked.
    offered : float
        Work that arrived over the work that can be done in the time of the arrivals; at 1 and above the queue grows
        without end. Where it batches, as if every batch were full.
    wait_us_mean, wait_us_max : float
        In its queue, of requests served.
    waiting_max : int
        Most requests in its queue at one time (0 where the engine keeps no queue: see `Queued`).
    batch_mean : float
        Requests per batch.
    batches : tuple of int
        Batches of 1, 2, ... requests.
    """

    served: int
    rejected: int
    dropped: int
    refused: int
    utilisation: float
    offered: float
    wait_us_mean: float
    wait_us_max: float
    waiting_max: int
    batch_mean: float
    batches: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain data."""
        out = {name: getattr(self, name) for name in self.__slots__}
        return out | {"batches": list(self.batches)}


def choose(
    engine: str,
    compiler: Compiler,
    plans: Sequence[CompiledPlan],
    lanes: Sequence[sim.Lane],
    columns: Mapping[str, Any],
    *,
    direct: bool = True,
) -> str:
    """Name the engine for plans on a network: the fastest that can, or the one asked for if it can.

    Raises
    ------
    UnknownNameError, UnsupportedError
        If there is no such engine, or it cannot do what plans or network need; the message says what.
    """
    if engine not in ENGINES:
        msg = f"there is no engine {engine!r}; {nearest(str(engine), ENGINES)}"
        raise BadValueError(msg)
    network = compiler.network
    need: dict[str, str] = {}  # engine -> why it will not do
    if not direct:
        need["direct"] = "it comes in batches"
    if network.queueing:
        need["direct"] = "requests wait for each other in this network (see Network.queues)"
    elif any(plan.queue_dependent for plan in plans):
        need["direct"] = "its decisions depend on queues"
    elif columns.get("deadline_ns") is not None and any(plan.spec.in_time for plan in plans):
        need["direct"] = "its decisions depend on deadlines"
    if network.queueing:
        busy = [d for d in network.deployments if d.max_batch > 1 or d.queue_max is not None]
        if busy:
            need["hops"] = f"deployment {busy[0].name!r} batches or bounds its queue"
        elif columns.get("priority") is not None:
            need["hops"] = "requests differ in priority"
    if network.outages:
        why = f"{network.outages[0].what} is out for a time"
        need |= dict.fromkeys(("direct", "hops"), why)
    if "hops" in need:
        need["feed-forward"] = need["hops"]
    elif columns.get("deadline_ns") is not None:
        need["feed-forward"] = "requests have deadlines"
    elif not sim.Queues.feeds_forward(lanes, compiler.stations):
        need["feed-forward"] = (
            "it needs decisions that depend on the sample alone, stages of one member, links without a queue, and an "
            "order in which requests visit deployments"
        )
    if engine == "auto":
        return next(name for name in ENGINES[1:] if name not in need)
    if engine in need:
        msg = f"the engine {engine!r} cannot replay this: {need[engine]}; use engine='auto'"
        raise UnsupportedError(msg)
    return engine


class Queued:
    """One strategy on one trace, with queues.

    Outcomes per request are not kept. They are a pure function of what went in, so they are worked out again when
    asked for.
    """

    def __init__(
        self,
        compiler: Compiler,
        lanes: Sequence[sim.Lane],
        seed: int,
        engine: str,
        warmup_ns: int = 0,
        gossip_ns: int = 0,
    ) -> None:
        self.engine = engine
        self.network = compiler.network
        self._compiler = compiler
        self._lanes = lanes
        self._seed = seed
        self.warmup_ns = warmup_ns
        self._gossip_ns = gossip_ns

    def start(
        self, *, rows: bool = False, first: int = 0, last: int = 2**63, exact: bool = True, expected: int = 0
    ) -> sim.Queues:
        """Give an engine with nothing in it yet.

        `rows`: it keeps outcomes; not `exact`: a sketch of latencies; `expected`: so many requests, perhaps.
        """
        predictions = self._compiler.predictions
        return sim.Queues(
            self._lanes,
            predictions.labels,
            predictions.class_count,
            self._seed,
            self._compiler.stations,
            2 * len(self.network.links),
            self._compiler.outputs,
            self.engine,
            rows,
            first,
            last,
            self.warmup_ns,
            self._gossip_ns,
            exact,
            self._compiler.outages,
            expected,
        )

    def run(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Replay all requests and give the tally, with `stations` and `links` by name."""
        queues = self.start(expected=len(columns["sample"]))
        for _ in _pushed(queues, columns):
            pass
        queues.finish()
        return self.tally(queues)

    def tally(self, queues: sim.Queues) -> dict[str, Any]:
        """Give the sums so far, with `stations` and `links` by name."""
        tally = queues.tally()
        if not len(tally["latencies_ns"]):
            tally["nearest_ranks"] = queues.nearest_ranks
        tally["stations"] = self._stations(queues)
        tally["links"] = self._links(queues)
        tally["rescue"] = queues.rescue()
        return tally

    def outcomes(self, columns: Mapping[str, Any], start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Replay again and give what happened to requests start to stop."""
        queues = self.start(rows=True, first=start, last=stop)
        for _ in _pushed(queues, columns):
            pass
        queues.finish()
        return queues.take()

    def parts(self, columns: Mapping[str, Any]) -> Iterator[dict[str, NDArray[Any]]]:
        """Replay again and give what happened to all requests, part after part in the order of the trace."""
        queues = self.start(rows=True)
        for _ in _pushed(queues, columns):
            yield queues.take()
        queues.finish()
        yield queues.take()

    def _stations(self, queues: sim.Queues) -> dict[str, Load]:
        loads = {}
        rows = self._compiler.stations
        for deployment, row, load in zip(self.network.deployments, rows, queues.stations(), strict=True):
            instances, max_batch, _, _, _, _, mean_ns = row
            known = load["served"] + load["rejected"] + load["dropped"] + load["refused"]
            if known == 0:
                continue
            each = mean_ns / max_batch if max_batch > 1 else load["busy_ns"] / max(load["served"], 1)
            loads[deployment.name] = _load(load, each * known, instances, queues)
        return loads

    def _links(self, queues: sim.Queues) -> dict[str, Load]:
        loads = {}
        for at, load in enumerate(queues.links()):
            link = self.network.links[at // 2]
            ends = (link.a, link.b) if at % 2 == 0 else (link.b, link.a)
            if load["served"]:
                loads[" -> ".join(ends)] = _load(load, float(load["busy_ns"]), 1, queues)
        return loads


def warn_of_overload(strategy: str, stations: Mapping[str, Load], links: Mapping[str, Load], network: Network) -> None:
    """Warn of every station and link that cannot keep up with what arrives and does not turn it away."""
    bounded = {d.name for d in network.deployments if d.queue_max is not None}
    for kind, loads in (("deployment", stations), ("link", links)):
        for name, load in loads.items():
            if load.offered >= 1 and load.served + load.dropped >= _TOO_FEW and name not in bounded:
                msg = (
                    f"{strategy}: {kind} {name!r} is offered {load.offered:.3g} times the work it can do, so its queue "
                    "grows as long as the trace lasts; latencies say more about the length of the trace than about "
                    "the network"
                )
                warnings.warn(msg, OverloadWarning, stacklevel=4)


def _pushed(queues: sim.Queues, columns: Mapping[str, Any]) -> Iterator[None]:
    """Push all requests, part after part."""
    total = len(columns["sample"])
    for first in range(0, total, _PART):  # so that Ctrl-C is heard
        part: dict[str, Any] = {
            name: None if values is None else values[first : first + _PART] for name, values in columns.items()
        }
        queues.push(**part, first=first)
        yield


def _load(load: dict[str, Any], work: float, instances: int, queues: sim.Queues) -> Load:
    served = load["served"]
    span = queues.span_ns * max(instances, 1)
    arriving = queues.arrivals_ns * max(instances, 1)
    return Load(
        served=served,
        rejected=load["rejected"],
        dropped=load["dropped"],
        refused=load["refused"],
        utilisation=load["busy_ns"] / span if span and instances else 0.0,
        offered=work / arriving if arriving and instances else 0.0,
        wait_us_mean=load["wait_ns"] / served / 1e3 if served else 0.0,
        wait_us_max=load["wait_ns_max"] / 1e3,
        waiting_max=load["waiting_max"],
        batch_mean=served / load["batches"] if load["batches"] else 1.0,
        batches=tuple(load["batch_size"]),
    )
