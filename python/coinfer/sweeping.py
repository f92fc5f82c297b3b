"""Load: what strategies give as more and more requests come, until a queue grows without end.

Forwarding moves load, and load makes latency: a strategy that looks best alone can drown the cloud. Every strategy is
replayed at every rate on the same samples with arrivals of one shape, compressed in time, so that curves differ by what
strategies decide and by nothing else.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coinfer import arrivals as processes
from coinfer._checks import check_integer, check_list, check_number
from coinfer.compiling import Compiler
from coinfer.errors import BadValueError, OverloadWarning, UnsupportedError
from coinfer.replaying import Requests, Run, check_draws
from coinfer.trace import Trace

if TYPE_CHECKING:
    from os import PathLike
    from pathlib import Path

    import pyarrow as pa

    from coinfer.network import Network
    from coinfer.predictions import Predictions
    from coinfer.results import Summary
    from coinfer.strategy.base import Strategy

__all__ = ["LoadSweep", "Point", "Saturation", "sweep_load"]


@dataclass(frozen=True)
class Point:
    """One strategy at one rate."""

    strategy: str
    rate_rps: float
    summary: Summary

    @property
    def busiest(self) -> tuple[str, float]:
        """The deployment or link that is offered most of what it can do, and how much of it (1: all)."""
        loads = {**self.summary.stations, **self.summary.links}
        if not loads:
            return "", 0.0
        name = max(loads, key=lambda n: loads[n].offered)
        return name, loads[name].offered


@dataclass(frozen=True)
class Saturation:
    """Where a strategy's load first exceeds what a place can do.

    Attributes
    ----------
    place : str
        The deployment or link.
    rate_rps : float
        The rate at which its work fills its time, for the decisions taken at the lowest rate of the sweep.
    """

    place: str
    rate_rps: float


@dataclass(frozen=True)
class LoadSweep:
    """What strategies gave at each rate.

    Attributes
    ----------
    points : tuple of Point
        Strategy by strategy, rates ascending.
    rates_rps : tuple of float
    saturation : mapping of strategy to tuple of Saturation
        Every place that the strategy uses, the first to saturate first.
    """

    points: tuple[Point, ...]
    rates_rps: tuple[float, ...]
    saturation: Mapping[str, tuple[Saturation, ...]]
    network: Network
    samples: int
    requests: int

    @property
    def strategies(self) -> tuple[str, ...]:
        """Names, in the order given."""
        return tuple(self.saturation)

    def at(self, strategy: str, rate_rps: float) -> Summary:
        """Give the summary of one strategy at one of the rates."""
        for point in self.points:
            if point.strategy == strategy and math.isclose(point.rate_rps, rate_rps):
                return point.summary
        msg = f"{strategy!r} was not replayed at {rate_rps:g} requests per second"
        raise BadValueError(msg)

    def table(self) -> pa.Table:
        """Give one row per strategy and rate: accuracy, goodput, latency, price, the busiest place, ends."""
        import pyarrow as pa

        return pa.Table.from_pylist([_row(point) for point in self.points])

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain data, ready for JSON."""
        return {
            "requests": self.requests,
            "samples": self.samples,
            "rates_rps": list(self.rates_rps),
            "points": [_row(point) for point in self.points],
            "saturation": {
                name: [{"place": s.place, "rate_rps": s.rate_rps} for s in places]
                for name, places in self.saturation.items()
            },
        }

    def report(self, path: str | PathLike[str], title: str | None = None) -> Path:
        """Write latency, goodput and use against load as one self-contained HTML file."""
        from coinfer.report import write_load

        return write_load(self, path, title or "Strategies under load")

    def __str__(self) -> str:
        width = max(len("strategy"), *(len(name) for name in self.strategies))
        lines = [
            f"{'strategy':<{width}}  {'rps':>9}  accuracy  goodput  {'p50 ms':>9}  {'p99 ms':>9}  USD / 1,000  busiest"
        ]
        for point in self.points:
            s, (place, offered) = point.summary, point.busiest
            accuracy = "-" if s.accuracy is None else f"{s.accuracy:.4f}"
            goodput = "-" if s.goodput is None else f"{s.goodput:.4f}"
            over = "  drowns" if offered >= 1 else ""
            lines.append(
                f"{point.strategy:<{width}}  {point.rate_rps:9,.0f}  {accuracy:>8}  {goodput:>7}  "
                f"{s.latency_us.p50 / 1e3:9,.1f}  {s.latency_us.p99 / 1e3:9,.1f}  {1e3 * s.price_usd:11.4f}  "
                f"{place} {offered:.0%}{over}"
            )
        for name, places in self.saturation.items():
            if places:
                lines.append(f"{name}: {places[0].place} saturates at {places[0].rate_rps:,.0f} requests per second")
        return "\n".join(lines)


def sweep_load(
    predictions: Predictions,
    network: Network,
    strategies: Mapping[str, Strategy],
    *,
    rates_rps: Iterable[float],
    requests: int = 50_000,
    arrivals: Any = None,
    deadline_us: float | None = None,
    ingress: Any = None,
    warmup: float = 0.1,
    seed: int = 0,
    threads: int = 1,
    progress: Callable[[str, int, int], object] | None = None,
) -> LoadSweep:
    """Replay strategies at several rates, with queues.

    Parameters
    ----------
    predictions : Predictions
    network : Network
        With queues (``queues = true``, or deployments that say their `instances`).
    strategies : mapping of str to Strategy
        Ready to replay.
    rates_rps : iterable of float
        Requests per second, over all ingress nodes.
    requests : int
        Per replay. Queues above saturation grow with it; below, more of them make quantiles surer.
    arrivals : array-like, optional
        Recorded arrivals, seconds, whose burstiness is kept at every rate (see `coinfer.arrivals.scaled`). Default:
        a Poisson process.
    deadline_us : float, optional
        Of every request; then goodput is what is right in time.
    ingress : str, sequence or mapping, optional
        As for `Trace.from_arrivals`.
    warmup : float
        Share of the requests at the start that is served but not counted.
    seed, threads : int
        As for `coinfer.replay`.
    progress : callable, optional
        Called as ``progress(what, done, total)``.

    Returns
    -------
    LoadSweep

    Raises
    ------
    UnsupportedError
        If nobody waits in the network.
    """
    check_draws(seed, threads)
    rates = sorted({check_number(r, "rates_rps", above=0.0) for r in check_list(rates_rps, "rates_rps", "numbers")})
    count = check_integer(requests, "requests", at_least=10)
    share = check_number(warmup, "warmup", at_most=0.9)
    if not rates:
        msg = "sweep_load needs at least one rate"
        raise BadValueError(msg)
    if not strategies:
        msg = "sweep_load needs at least one strategy, as a mapping of name to strategy"
        raise BadValueError(msg)
    if not network.queueing:
        msg = (
            "nobody waits in this network, so load changes nothing: say queues = true, or how many instances each "
            "deployment has"
        )
        raise UnsupportedError(msg)
    recorded = processes.poisson(1000.0, count, seed=seed) if arrivals is None else arrivals
    unit = "ns" if arrivals is None else "s"
    compiler = Compiler(predictions, network, threads)
    found: dict[str, list[Point]] = {name: [] for name in strategies}
    done, total = 0, len(rates) * len(strategies)
    for rate in rates:
        times = processes.scaled(recorded, rate_rps=rate, requests=count, unit=unit)
        trace = Trace.from_arrivals(
            times,
            samples=len(predictions),
            network=network,
            ingress=ingress,
            unit="ns",
            seed=seed,
            deadline_us=deadline_us,
        )
        prepared = Requests(trace, predictions, network, threads)
        warmup_ms = float(times[int(share * count)]) / 1e6 if share else 0.0
        for name, strategy in strategies.items():
            if progress is not None:
                progress(f"{name} at {rate:,.0f} per second", done, total)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", OverloadWarning)  # the sweep itself says where that is
                run = Run(prepared, compiler, strategy, seed, name, warmup_ms=warmup_ms)
            found[name].append(Point(name, rate, run.summary))
            done += 1
    if progress is not None:
        progress("", total, total)
    return LoadSweep(
        points=tuple(point for points in found.values() for point in points),
        rates_rps=tuple(rates),
        saturation={name: _saturation(points[0]) for name, points in found.items()},
        network=network,
        samples=len(predictions),
        requests=count,
    )


def _saturation(lowest: Point) -> tuple[Saturation, ...]:
    loads = {**lowest.summary.stations, **lowest.summary.links}
    places = [Saturation(name, lowest.rate_rps / load.offered) for name, load in loads.items() if load.offered > 0]
    return tuple(sorted(places, key=lambda s: s.rate_rps))


def _row(point: Point) -> dict[str, Any]:
    s, (place, offered) = point.summary, point.busiest
    return {
        "strategy": point.strategy,
        "rate_rps": point.rate_rps,
        "accuracy": None if s.accuracy is None else float(s.accuracy),
        "goodput": s.goodput,
        "latency_us_mean": s.latency_us.mean,
        "latency_us_p50": s.latency_us.p50,
        "latency_us_p95": s.latency_us.p95,
        "latency_us_p99": s.latency_us.p99,
        "queue_us_mean": s.queue_us,
        "price_usd": s.price_usd,
        "stages": s.stages,
        "busiest": place,
        "offered": offered,
        **{f"share_{name}": n / s.requests for name, n in s.status.items()},
        **{f"utilisation_{node}": share for node, share in s.utilisation_by_node.items()},
    }
