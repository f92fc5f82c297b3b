"""A network file from measurement: how long each deployment takes, how it batches, how large its messages are.

What is measured is what a replay needs: the time from sending a batch of b to having its answer, with nobody else
there. It holds the server's own work and what the connection adds; queueing is left to the replay, which has the
arrivals. A deployment that batches gets the law ``linear`` fitted over batch sizes; one that does not, ``constant`` or
``lognormal``, by its coefficient of variation; or each gets a ``table`` of what was measured. Measuring goes on until
the mean is known within a few percent.

Where somebody has measured already, `imported` reads what perf_analyzer exported.
"""

from __future__ import annotations

import asyncio
import csv
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer import service as laws
from coinfer._checks import check_number
from coinfer._files import reading, suffix_of
from coinfer.errors import BadFileError
from coinfer.live.running import Fleet, columns_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer.live.router import Endpoint
    from coinfer.network import Deployment, Network

__all__ = ["Measured", "Profile", "imported", "profile"]

_CV_CONSTANT = 0.05
_LEAST = 10
_QUANTILES = 20


@dataclass(frozen=True, slots=True)
class Measured:
    """One setting of one deployment: what a request of `batch` rows took with `concurrency` in flight."""

    deployment: str
    batch: int
    concurrency: int
    requests: int
    mean_ms: float
    half_width_ms: float
    """Of the 95 % interval of the mean."""
    cv: float
    p50_ms: float
    p99_ms: float
    rows_per_s: float
    quantiles_ms: tuple[float, ...] = ()
    """Equally likely times."""


@dataclass(frozen=True)
class Profile:
    """What `profile` found: the network with what was measured in it, and every measurement."""

    network: Network
    measured: tuple[Measured, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give the measurements, and the law of each deployment, as plain data."""
        return {
            "service": {d.name: d.service.to_dict() for d in self.network.deployments},
            "measured": [asdict(each) for each in self.measured],
        }

    def __str__(self) -> str:
        head = f"{'deployment':<20} {'batch':>5} {'at once':>7} {'mean ms':>9} {'+-':>6} {'p99 ms':>9} {'rows/s':>9}"
        lines = [head]
        for m in self.measured:
            lines.append(
                f"{m.deployment:<20} {m.batch:>5} {m.concurrency:>7} {m.mean_ms:>9.2f} {m.half_width_ms:>6.2f} "
                f"{m.p99_ms:>9.2f} {m.rows_per_s:>9,.0f}"
            )
        lines += [f"{d.name}: {d.service}" for d in self.network.deployments]
        return "\n".join(lines)


def profile(
    network: Network,
    inputs: Any,
    *,
    batches: Sequence[int] = (1, 2, 4, 8),
    concurrency: Sequence[int] = (1, 4),
    precision: float = 0.03,
    seconds: float = 4.0,
    table: bool = False,
    progress: Callable[[int, int, str], object] | None = None,
) -> Profile:
    """Measure every deployment on its server.

    Parameters
    ----------
    network : Network
        With endpoints and tensors.
    inputs : ndarray of shape (N, ...), or mapping of str to ndarray
        Samples to ask about.
    batches : sequence of int
        Rows per request; those that a model allows.
    concurrency : sequence of int
        Requests in flight. The law comes from 1; the others are reported.
    precision : float
        Measure until the 95 % interval of the mean is that share of it on either side...
    seconds : float
        ... or for so long.
    table : bool
        Give each deployment the law `service.Table` of what was measured, and measure its largest batch too.
    progress : callable, optional
        Called as ``progress(done, total, what)``.

    Returns
    -------
    Profile
        Its `.network` is to be saved.
    """
    columns, _ = columns_of(inputs)
    check_number(precision, "precision", above=0.0, at_most=1.0)
    check_number(seconds, "seconds", above=0.0)
    batches = sorted({1, *batches})
    return asyncio.run(_profile(network, columns, batches, concurrency, precision, seconds, table, progress))


async def _profile(
    network: Network,
    columns: dict[str, NDArray[Any]],
    batches: list[int],
    concurrency: Sequence[int],
    precision: float,
    seconds: float,
    table: bool,
    progress: Callable[[int, int, str], object] | None,
) -> Profile:
    fleet = Fleet(network, network.deployments, columns, "refuse")
    measured: list[Measured] = []
    made = []
    sizes: dict[str, tuple[float, float]] = {}
    try:
        await fleet.open()
        for n, deployment in enumerate(network.deployments):
            endpoint = fleet.endpoints[deployment.name][0]
            asking = endpoint.asking
            assert asking is not None
            served = await endpoint.connection.batching(asking.model, asking.version)
            at_once = [b for b in batches if b <= served.max_batch]
            if table and at_once[-1] < served.max_batch:
                at_once.append(served.max_batch)
            found = []
            for batch in at_once:
                for many in sorted({1, *concurrency}) if batch == 1 else [1]:
                    if progress is not None:
                        progress(n, len(network.deployments), f"{deployment.name}: batch {batch}, {many} at once")
                    found.append(await _measure(deployment, endpoint, batch, many, precision, seconds))
            measured += found
            alone = [m for m in found if m.concurrency == 1]
            law = _table(alone) if table else _law(alone)
            made.append(replace(deployment, service=law, **asdict(served)))
            answer_kb = 4 * (asking.classes or 1) / 1e3
            sizes[deployment.model] = (endpoint.row_bytes / 1e3, answer_kb)
    finally:
        await fleet.close()
    models = tuple(
        replace(m, request_kb=sizes[m.name][0], answer_kb=sizes[m.name][1]) if m.name in sizes else m
        for m in network.models
    )
    return Profile(replace(network, models=models, deployments=tuple(made)), tuple(measured))


async def _measure(
    deployment: Deployment, endpoint: Endpoint, batch: int, concurrency: int, precision: float, seconds: float
) -> Measured:
    asking, size = endpoint.asking, endpoint.row_bytes
    assert asking is not None
    samples = len(endpoint.rows) // max(size, 1)
    took: list[float] = []

    async def once(at: int) -> float:
        first = at * batch % max(samples - batch + 1, 1)
        rows = endpoint.rows[first * size : (first + batch) * size]
        began_s = time.perf_counter()
        if batch == 1:
            await endpoint.connection.infer(asking, rows, 60.0)
        else:
            await endpoint.connection.infer_many(asking, rows, batch, 60.0)
        return time.perf_counter() - began_s

    for at in range(3):  # warm-up
        await once(at)
    began_s = time.perf_counter()

    def enough() -> bool:
        if len(took) < _LEAST * concurrency:
            return False
        if time.perf_counter() - began_s > seconds:
            return True
        return _half_width(took) <= precision * float(np.mean(took))

    async def worker(first: int) -> None:
        at = first
        while not enough():
            took.append(await once(at))
            at += concurrency

    await asyncio.gather(*(worker(w) for w in range(concurrency)))
    span_s = time.perf_counter() - began_s
    ms = np.array(took) * 1e3
    mean = float(ms.mean())
    return Measured(
        deployment.name,
        batch,
        concurrency,
        len(ms),
        mean,
        _half_width(took) * 1e3,
        float(ms.std() / mean) if mean > 0 else 0.0,
        float(np.quantile(ms, 0.5)),
        float(np.quantile(ms, 0.99)),
        len(ms) * batch / span_s,
        tuple(float(q) for q in np.quantile(ms, (np.arange(_QUANTILES) + 0.5) / _QUANTILES)),
    )


def _half_width(took: Sequence[float]) -> float:
    return 1.96 * float(np.std(took)) / math.sqrt(len(took))


def _law(found: Sequence[Measured]) -> laws.Law:
    """Choose and fit the law of one deployment from what it took alone."""
    if len(found) == 1:
        return _spread(found[0].mean_ms, found[0].cv)
    batch = np.array([m.batch for m in found], np.float64)
    mean = np.array([m.mean_ms for m in found])
    weight = 1.0 / np.maximum([m.half_width_ms for m in found], 0.01 * mean)
    each, base = np.polyfit(batch, mean, 1, w=weight)
    if each <= 0:
        return laws.Linear(float(np.average(mean, weights=weight**2)), 0.0)
    if base <= 0:
        return laws.Linear(0.0, float((mean * batch * weight**2).sum() / (batch**2 * weight**2).sum()))
    return laws.Linear(float(base), float(each))


def _table(found: Sequence[Measured]) -> laws.Law:
    """Keep what was measured alone, size by size."""
    return laws.Table(tuple(m.batch for m in found), tuple(m.quantiles_ms for m in found))


def _spread(mean_ms: float, cv: float) -> laws.Law:
    return laws.Constant(mean_ms) if cv <= _CV_CONSTANT else laws.LogNormal(mean_ms, cv)


def imported(network: Network, deployment: str, path: str | Path) -> Network:
    """Take the service law of a deployment from what perf_analyzer exported.

    Parameters
    ----------
    network : Network
    deployment : str
        ``"model@node"``.
    path : path
        ``.csv`` (``-f``: the server's compute times) or ``.json`` (``--profile-export-file``: every request).

    Returns
    -------
    Network
        The same with that law, from the export's lowest concurrency.

    Raises
    ------
    BadFileError
        If the file is no export of perf_analyzer.
    """
    path = Path(path)
    suffix = suffix_of(path, (".csv", ".json"))
    with reading(path, "an export of perf_analyzer (.csv or .json)"):
        mean_ms, cv = (_from_csv if suffix == ".csv" else _from_json)(path)
    law = _spread(mean_ms, cv)
    found = network.deployment(deployment)
    changed = replace(found, service=law)
    return replace(network, deployments=tuple(changed if d is found else d for d in network.deployments))


_COMPUTE = ("Server Compute Input", "Server Compute Infer", "Server Compute Output")


def _from_csv(path: Path) -> tuple[float, float]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    load = next((key for key in ("Concurrency", "Request Rate") if rows and key in rows[0]), None)
    if load is None or any(column not in rows[0] for column in _COMPUTE):
        msg = f"{path}: lacks the columns Concurrency (or Request Rate) and {', '.join(_COMPUTE)}"
        raise BadFileError(msg)
    row = min(rows, key=lambda r: float(r[load]))
    return sum(float(row[column]) for column in _COMPUTE) / 1e3, 0.0


def _from_json(path: Path) -> tuple[float, float]:
    said = json.loads(path.read_text("utf-8"))
    experiments = said.get("experiments") if isinstance(said, dict) else None
    if not experiments:
        msg = f"{path}: holds no experiments"
        raise BadFileError(msg)
    lowest = min(experiments, key=lambda e: float(e.get("experiment", {}).get("value", 0)))
    took = [
        (max(request["response_timestamps"]) - request["timestamp"]) / 1e6
        for request in lowest.get("requests", ())
        if request.get("response_timestamps")
    ]
    if not took:
        msg = f"{path}: its experiment at the lowest load holds no answered requests"
        raise BadFileError(msg)
    return float(np.mean(took)), float(np.std(took) / np.mean(took))
