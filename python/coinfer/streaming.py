"""Replay of traces that do not fit memory: batches in, sums and (if asked for) rows out.

What is held is a batch, what is under way in the network, and a sketch of the latencies: buckets that grow with
them, so that a quantile is within 0.2 % of the exact one. How a trace is cut into batches changes nothing. After Ctrl-C
what has arrived is served to its end and summed up, and the summary says that it is partial.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from coinfer._checks import check_number
from coinfer.compiling import Compiler
from coinfer.errors import BadValueError, UnsupportedError
from coinfer.queueing import Queued, choose
from coinfer.replaying import DOES, Explanation, Requests, Run, check_draws

if TYPE_CHECKING:
    from os import PathLike

    from coinfer._core import sim
    from coinfer.network import Network
    from coinfer.predictions import Predictions
    from coinfer.strategy.base import Strategy
    from coinfer.trace import Trace

__all__ = ["Streamed", "stream"]

Progress = Callable[[int, float, float | None], object]


class Streamed(Run):
    """A replay of which only sums are kept.

    Attributes
    ----------
    summary : Summary
        Quantiles of the latency are within 0.2 %; the engine says ``partial`` if the replay was interrupted.
    partial : bool
        Whether it was interrupted (Ctrl-C), so that later requests are missing.
    """

    partial: bool

    def __init__(
        self,
        batches: Iterable[Trace],
        compiler: Compiler,
        strategy: Strategy,
        *,
        seed: int,
        engine: str,
        warmup_ms: float,
        outcomes: Path | None,
        requests: int | None,
        progress: Progress | None,
        ahead: bool,
    ) -> None:
        source = iter(batches)
        first = next((batch for batch in source if len(batch)), None)
        if first is None:
            msg = "the trace holds no requests; at least one is needed"
            raise BadValueError(msg)
        nodes = tuple(dict.fromkeys((*compiler.network.ingress, *first.nodes)))
        lanes = self._lay_out(compiler, strategy, nodes, seed)
        columns = _columns(first, compiler, nodes)
        following: Iterator[dict[str, Any]] = (_columns(batch, compiler, nodes) for batch in source if len(batch))
        if ahead:
            following = _ahead(following)
        chosen = choose(engine, compiler, self._plans, lanes, columns)
        if chosen == "direct":
            chosen = choose("auto", compiler, self._plans, lanes, columns, direct=False)
        gossip_ns = round(max(p.spec.gossip_ms for p in self._plans) * 1e6)
        queued = Queued(compiler, lanes, seed, chosen, round(warmup_ms * 1e6), gossip_ns)
        queues = queued.start(rows=outcomes is not None, exact=False)
        self.partial = False
        rows = None if outcomes is None else _Rows(self, outcomes)
        try:
            done, last, began = 0, 0, time.perf_counter()
            try:
                while True:
                    if int(columns["arrival_ns"][0]) < last:
                        msg = f"arrival_ns: request {done} arrives before the one before it, which is in another batch"
                        raise BadValueError(msg)
                    last = int(columns["arrival_ns"][-1])
                    queues.push(**columns, first=done)
                    done += len(columns["sample"])
                    if rows is not None:
                        rows.write(queues, columns)
                    if progress is not None:
                        rate = done / max(time.perf_counter() - began, 1e-9)
                        progress(done, rate, None if requests is None else max(requests - done, 0) / rate)
                    after = next(following, None)
                    if after is None:
                        break
                    columns = after
            except KeyboardInterrupt:
                self.partial = True
            queues.finish()
            if rows is not None:
                rows.write(queues, None)
        finally:
            if rows is not None:
                rows.close()
        tally = queued.tally(queues)
        if tally["requests"] == 0:
            msg = f"no request arrives after the warm-up of {warmup_ms:g} ms; the trace ends before"
            raise BadValueError(msg)
        self._conclude(tally, f"{chosen}: {DOES[chosen]}, streamed" + (", partial" if self.partial else ""), None)

    def outcomes(self, start: int = 0, stop: int | None = None) -> NoReturn:
        """Refuse: what happened to each request was not kept; give `stream` a file to write it to."""
        msg = "a streamed replay keeps no outcomes; give outcomes='outcomes.parquet' to write them while it runs"
        raise UnsupportedError(msg)

    def by_priority(self) -> NoReturn:
        """Refuse, as `outcomes` does."""
        self.outcomes()

    def rows(self) -> list[tuple[str, str]]:
        """Give what `print` shows; without intervals of what would need every request's outcome."""
        return self.summary.rows()

    def explain(self, request: int) -> Explanation:
        """Refuse: the trace was not kept."""
        msg = "a streamed replay keeps no requests, so it cannot explain them; replay that part of the trace"
        raise UnsupportedError(msg)


class _Rows:
    """Writes outcomes in the order of the trace, one row group each time some are known."""

    def __init__(self, run: Streamed, path: Path) -> None:
        self._run = run
        self._path = path
        self._writer: Any = None
        self._waiting: list[tuple[Any, Any, Any]] = []
        self._done = 0

    def write(self, queues: sim.Queues, columns: dict[str, Any] | None) -> None:
        import pyarrow.parquet as pq

        if columns is not None:
            self._waiting.append((columns["arrival_ns"], columns["lane"], columns["sample"]))
        found = queues.take()
        count = len(found["status"])
        if count == 0:
            return
        joined = [np.concatenate(parts) for parts in zip(*self._waiting, strict=True)]
        table = self._run._table(found, self._done, *(part[:count] for part in joined))
        arrival, lane, sample = (part[count:] for part in joined)
        self._waiting = [(arrival, lane, sample)]
        self._done += count
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def stream(
    batches: Iterable[Trace] | str | PathLike[str],
    predictions: Predictions,
    network: Network,
    strategy: Strategy,
    *,
    seed: int = 0,
    threads: int = 1,
    engine: str = "auto",
    warmup_ms: float = 0.0,
    outcomes: str | PathLike[str] | None = None,
    requests: int | None = None,
    progress: Progress | None = None,
) -> Streamed:
    """Replay a strategy on a trace that comes in batches, in bounded memory.

    Parameters
    ----------
    batches : iterable of Trace, or path
        Parts of one trace, in order, such as `Trace.poisson_batches` or `Trace.batches` give; or a trace file.
    predictions, network, strategy, seed, engine, warmup_ms
        As for `coinfer.replay`.
    threads : int
        With two or more, the next batch is made or read, and checked, while this one is replayed. Does not change any
        result.
    outcomes : path, optional
        Parquet file to write one row per request to, as `Run.outcomes` gives them.
    requests : int, optional
        How many will come, if known: for `progress`.
    progress : callable, optional
        Called after each batch as ``progress(done, requests_per_second, seconds_left)``.

    Returns
    -------
    Streamed
        With `.summary`; its latency quantiles are within 0.2 %.

    Examples
    --------
    >>> import coinfer as ci
    >>> from coinfer.streaming import stream
    >>> preds = ci.Predictions({"m": ci.ModelOutput(label=[0, 1])}, labels=[0, 1])
    >>> net = ci.Network.chain({"here": "m"}, service_ms=ci.service.Exponential(1), instances=2)
    >>> parts = ci.Trace.poisson_batches(net, rate_rps=1000, requests=100_000, samples=2, rows=10_000)
    >>> stream(parts, preds, net, ci.Local()).summary.requests
    100000
    """
    check_draws(seed, threads)
    warmup_ms = check_number(warmup_ms, "warmup_ms")
    if isinstance(batches, str | os.PathLike):
        from coinfer.trace import Trace

        batches = Trace.batches(batches)
    compiler = Compiler(predictions, network, threads)
    return Streamed(
        batches,
        compiler,
        strategy,
        seed=seed,
        engine=engine,
        warmup_ms=warmup_ms,
        outcomes=None if outcomes is None else Path(outcomes),
        requests=requests,
        progress=progress,
        ahead=threads > 1,
    )


def _columns(batch: Trace, compiler: Compiler, nodes: tuple[str, ...]) -> dict[str, Any]:
    """Check a batch as a whole trace is, and number its ingress nodes as the lanes are."""
    columns: dict[str, Any] = Requests(batch, compiler.predictions, compiler.network).columns()
    if batch.nodes != nodes:
        unknown = [node for node in batch.nodes if node not in nodes]
        if unknown:
            msg = f"node {unknown[0]!r} is no ingress of the network and was not in the first batch of the trace"
            raise BadValueError(msg)
        columns["lane"] = np.array([nodes.index(node) for node in batch.nodes], np.int32)[columns["lane"]]
    if batch.priority is not None:  # equal in this batch, perhaps not in the next
        columns["priority"] = np.ascontiguousarray(batch.priority, np.int32)
    return columns


def _ahead(batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Make batches in a thread of their own, two ahead at most."""
    ready: queue.Queue[Any] = queue.Queue(maxsize=2)
    closed = threading.Event()

    def put(item: object) -> bool:
        while not closed.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for batch in batches:
                if not put(batch):
                    return
            put(None)
        except BaseException as error:
            put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        closed.set()
