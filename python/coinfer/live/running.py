"""Run a strategy against real servers, and go on with a run that was cut off.

Everything that can be known to be wrong is said before the first request of the load: the control of the network, an
endpoint that nobody answers at, a model, tensor, shape or type that does not fit, a score that a model's answers do
not allow, a folder that holds a run already.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import logging
import os
import platform
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer._checks import check_integer, check_number
from coinfer.errors import BadFileError, BadValueError, LiveError, UnavailableError, UnknownNameError, nearest
from coinfer.live.connector import Facts, ask_of, connect
from coinfer.live.guard import Hop
from coinfer.live.journal import FLUSH_S, Journal, read_manifest, segments, write_manifest
from coinfer.live.metrics import Metrics, serve
from coinfer.live.planning import Shape, plans, readings
from coinfer.live.result import LiveRun
from coinfer.live.router import Endpoint, Lane, Member, Pool, Router, Settings, Work

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer.live.connector import Connection
    from coinfer.live.planning import Plan
    from coinfer.network import Deployment, Network
    from coinfer.strategy.base import Strategy
    from coinfer.trace import Trace

__all__ = ["Fleet", "inputs_of", "resume", "run"]

log = logging.getLogger("coinfer.live")

Inputs = Any
Progress = Callable[[int, int, str], object]

_ABSENT = ("refuse", "wait")
_RETRY_ABSENT_S = 0.25


def run(
    network: Network,
    strategy: Strategy,
    inputs: Inputs,
    *,
    out: str | os.PathLike[str],
    trace: Trace | None = None,
    requests: int | None = None,
    concurrency: int | None = None,
    deadline_ms: float | None = None,
    labels: Any = None,
    settings: Settings | None = None,
    shadow: Strategy | None = None,
    absent: str = "refuse",
    warm_up: int = 3,
    metrics: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> LiveRun:
    """Run a strategy against the servers of a network.

    Parameters
    ----------
    network : Network
        With ``control = "ingress"``, a `triton` endpoint at every node that hosts a consulted model, and `tensors` in
        its deployments.
    strategy : Strategy
        What is replayed and tuned, unchanged.
    inputs : ndarray of shape (N, ...), or mapping of str to ndarray
        The samples. A mapping gives deployments (``"model@node"``), models or tensors of that name their own; what
        ``"inputs"`` holds is for all others.
    out : path
        Folder of the run; must not hold one.
    trace : Trace, optional
        Requests at their times (open loop; latency counts from the intended start). With `concurrency`, its times are
        not looked at.
    requests : int, optional
        Without a trace: how many, walking through the samples in order. Default: one per sample.
    concurrency : int, optional
        Closed loop: that many requests in flight. Required without a trace.
    deadline_ms : float, optional
        For all requests, > 0; instead of the trace's.
    labels : array-like of shape (N,), optional
        True labels, for accuracy.
    settings : Settings, optional
        Timeouts, bounds, hedging, audit.
    shadow : Strategy, optional
        A second strategy that decides on the same answers; nothing is sent for it.
    absent : {"refuse", "wait"}
        What to do about an endpoint that nobody answers at: refuse to start, or start and use it when it comes.
    warm_up : int
        Requests to each endpoint before the load.
    metrics : str, optional
        ``host:port`` (or ``:port`` on the loopback interface) that serves Prometheus metrics.
    seed : int
        For draws of rules, audits and jitter.
    progress : callable, optional
        Called about twice a second as ``progress(done, total, line)``.

    Returns
    -------
    LiveRun
        Complete unless SIGINT or SIGTERM asked to stop: then what was in flight has ended, and `resume` does the rest.

    Raises
    ------
    CoinferError
        If something does not fit; no request of the load has been sent then.
    """
    from coinfer.strategy.base import Strategy as Base

    if not isinstance(strategy, Base):
        msg = f"strategy must be a strategy such as coinfer.Forward(threshold=0.9), not {strategy!r}"
        raise BadValueError(msg)
    if network.control != "ingress":
        msg = (
            'a live router decides at the ingress, but this network has control = "path": write control = "ingress" to '
            "run it and to replay it under the same control"
        )
        raise BadValueError(msg)
    if absent not in _ABSENT:
        msg = f"absent must be 'refuse' or 'wait', not {absent!r}"
        raise BadValueError(msg)
    columns, samples = columns_of(inputs)
    settings = settings or Settings()
    trace = _trace(network, trace, requests, concurrency, deadline_ms, samples)
    if concurrency is not None:
        check_integer(concurrency, "concurrency", at_least=1, at_most=4096)
    truth = labels_of(labels, samples)
    folder = Path(out)
    if segments(folder) or (folder / "manifest.json").exists():
        msg = f"{folder}: holds a run already; give another folder, or go on with it (coinfer live --resume)"
        raise BadFileError(msg)
    check_integer(warm_up, "warm_up")
    check_integer(seed, "seed", at_most=2**63 - 1)
    session = _Session(network, strategy, shadow, columns, trace, settings, absent, warm_up, metrics, seed, progress)
    session.prepare = lambda: _write_inputs(folder, session, truth, concurrency)
    session.run(folder, 0, np.arange(len(trace)), concurrency, frozenset())
    return LiveRun.open(folder)


def resume(
    folder: str | os.PathLike[str],
    inputs: Inputs,
    *,
    absent: str = "refuse",
    warm_up: int = 3,
    metrics: str | None = None,
    progress: Progress | None = None,
) -> LiveRun:
    """Go on with a run that was stopped or killed: requests without a journalled outcome are sent again.

    Parameters
    ----------
    folder : path
        Of the run.
    inputs
        The same samples.
    absent, warm_up, metrics, progress
        As for `run`.

    Returns
    -------
    LiveRun
        Every request has exactly one outcome; those that may have been sent before are marked ``resent``.
    """
    from coinfer.strategy import Strategy

    folder = Path(folder)
    manifest = read_manifest(folder)
    before = LiveRun.open(folder)
    columns, _ = columns_of(inputs)
    if _fingerprint(columns) != manifest["inputs"]:
        msg = f"{folder}: was run on other samples than these; a run is resumed with the inputs that it began with"
        raise BadValueError(msg)
    ended = before.outcomes_raw().column("request").to_numpy()
    rows = np.setdiff1d(np.arange(len(before.trace)), ended)
    started = before.started()
    if len(rows) == 0:
        return before
    shadow = None if manifest["shadow"] is None else Strategy.parse(manifest["shadow"])
    session = _Session(
        before.network,
        before.strategy,
        shadow,
        columns,
        before.trace,
        Settings(**manifest["settings"]),
        absent,
        warm_up,
        metrics,
        manifest["seed"],
        progress,
    )
    session.run(folder, segments(folder), rows, manifest["concurrency"], frozenset(map(int, rows)) & started)
    return LiveRun.open(folder)


class Fleet:
    """Connections to every endpoint of some deployments, checked against the samples.

    Parameters
    ----------
    network : Network
    deployments : sequence of Deployment
    columns : mapping of str to ndarray
        The samples, as `inputs_of` reads them.
    absent : {"refuse", "wait"}
    """

    def __init__(
        self, network: Network, deployments: Sequence[Deployment], columns: Mapping[str, NDArray[Any]], absent: str
    ) -> None:
        self.network = network
        self.deployments = list(dict.fromkeys(deployments))
        self.columns = columns
        self.connections: dict[str, Connection] = {}
        self.endpoints: dict[str, list[Endpoint]] = {}
        self.servers: dict[str, str] = {}
        self._absent = absent
        self._wire: dict[tuple[int, str], tuple[memoryview, int]] = {}
        self._missing: list[tuple[Deployment, Endpoint]] = []
        self._task: asyncio.Task[None] | None = None
        for deployment in self.deployments:
            node = network.node(deployment.node)
            if not node.endpoints:
                msg = (
                    f"node {node.name!r} hosts {deployment.model!r} but has no endpoint; add triton = "
                    '"grpc://host:port" to it'
                )
                raise BadValueError(msg)
            if deployment.tensors is None:
                ask_of(deployment, Facts({}, {}), np.zeros((0,)), f"deployment {deployment.name!r}")
            inputs_of(deployment, columns)

    async def open(self) -> dict[str, Shape]:
        """Connect, check everything, and return the shape of each model's answers."""
        for deployment in self.deployments:
            node = self.network.node(deployment.node)
            self.endpoints[deployment.name] = []
            for index, url in enumerate(node.endpoints):
                if url not in self.connections:
                    self.connections[url] = connect(node, url)
                endpoint = Endpoint(index, url, self.connections[url])
                self.endpoints[deployment.name].append(endpoint)
                try:
                    await self._describe(deployment, endpoint)
                except UnavailableError as error:
                    if self._absent == "refuse":
                        msg = f"{deployment.name} at {url} cannot be reached: {_reason(error)}"
                        raise UnavailableError(msg) from error
                    log.warning("%s at %s cannot be reached; it is used when it comes", deployment.name, url)
                    self._missing.append((deployment, endpoint))
        shapes: dict[str, Shape] = {}
        for deployment in self.deployments:
            form = deployment.tensors.form if deployment.tensors else "probs"
            known = [e.asking.classes for e in self.endpoints[deployment.name] if e.asking is not None]
            classes = next((c for c in known if c is not None), None)
            there = shapes.get(deployment.model)
            if there is not None and there.form != form:
                msg = f"model {deployment.model!r} answers with {there.form} at one node and with {form} at another"
                raise BadValueError(msg)
            if there is None or there.classes is None:
                shapes[deployment.model] = Shape(form, classes)
        return shapes

    def start(self) -> None:
        """Look for endpoints that are absent, until they are there."""
        if self._missing:
            self._task = asyncio.ensure_future(self._look())

    async def close(self) -> None:
        """Close all connections."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for connection in self.connections.values():
            await connection.close()

    async def _describe(self, deployment: Deployment, endpoint: Endpoint) -> None:
        tensors = deployment.tensors
        assert tensors is not None
        place = f"{deployment.name} at {endpoint.url}"
        if endpoint.url not in self.servers:
            self.servers[endpoint.url] = await endpoint.connection.server()
        facts = await self._model(endpoint, tensors.model or deployment.model, tensors.version or "", place)
        inputs = inputs_of(deployment, self.columns)
        asking = ask_of(deployment, facts, inputs, place)
        asking.frame = endpoint.connection.frame(asking)
        key = (id(inputs), asking.datatype)
        if key not in self._wire:
            self._wire[key] = asking.rows(inputs)
        endpoint.rows, endpoint.row_bytes = self._wire[key]
        endpoint.asking = asking

    async def _model(self, endpoint: Endpoint, model: str, version: str, place: str) -> Facts:
        try:
            return await endpoint.connection.describe(model, version)
        except UnavailableError:
            # A server that is there but does not know the model says UNAVAILABLE, too.
            if await _answers(endpoint.connection):
                msg = f"{place}: the server is there but serves no model {model!r}{_version(version)}"
                raise UnknownNameError(msg) from None
            raise
        except LiveError as error:
            msg = f"{place}: the server is there but serves no model {model!r}{_version(version)}: {error}"
            raise UnknownNameError(msg) from error

    async def _look(self) -> None:
        while self._missing:
            await asyncio.sleep(_RETRY_ABSENT_S)
            for item in list(self._missing):
                deployment, endpoint = item
                try:
                    await self._describe(deployment, endpoint)
                except UnavailableError:
                    continue
                except Exception as error:
                    log.error("%s at %s came, but cannot be used: %s", deployment.name, endpoint.url, error)
                    self._missing.remove(item)
                else:
                    log.info("%s at %s has come", deployment.name, endpoint.url)
                    self._missing.remove(item)


async def _answers(connection: Connection) -> bool:
    try:
        await connection.server()
    except LiveError:
        return False
    return True


def _version(version: str) -> str:
    return f", version {version}" if version else ""


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


class _Session:
    """One start of the router."""

    def __init__(
        self,
        network: Network,
        strategy: Strategy,
        shadow: Strategy | None,
        columns: Mapping[str, NDArray[Any]],
        trace: Trace,
        settings: Settings,
        absent: str,
        warm_up: int,
        metrics: str | None,
        seed: int,
        progress: Progress | None,
    ) -> None:
        self.network = network
        self.strategy = strategy
        self.shadow = shadow
        self.columns = columns
        self.trace = trace
        self.settings = settings
        self.seed = seed
        self.shapes: dict[str, Shape] = {}
        self.servers: dict[str, str] = {}
        self.prepare: Callable[[], None] | None = None
        self._warm_up = warm_up
        self._metrics = None if metrics is None else _address(metrics)
        self._progress = progress
        check_number(settings.audit, "settings: audit", at_most=1.0)
        check_number(settings.hop_timeout_s, "settings: hop_timeout_s", above=0.0)
        check_integer(settings.in_flight_max, "settings: in_flight_max", at_least=1)
        asked: list[Deployment] = []
        for node in trace.nodes:
            network.node(node)
            for plan in (strategy, shadow):
                if plan is not None:
                    asked += [d for stage in plan.plan(network, node).stages for d in stage.members]
        self.fleet = Fleet(network, asked, columns, absent)

    def run(
        self, folder: Path, segment: int, rows: NDArray[np.int64], concurrency: int | None, resent: frozenset[int]
    ) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            msg = "coinfer.live.run starts an event loop of its own; inside one, call it with asyncio.to_thread"
            raise BadValueError(msg)
        # What exists now outlives the run: a full collection among requests would look at all of it for nothing.
        gc.freeze()
        try:
            with asyncio.Runner(loop_factory=self._loop) as runner:
                runner.run(self._run(folder, segment, rows, concurrency, resent))
        finally:
            gc.unfreeze()

    def _loop(self) -> asyncio.AbstractEventLoop:
        """Make a loop whose timers are exact to microseconds: epoll, the default, rounds up to milliseconds."""
        web = any(url.startswith("http") for node in self.network.nodes for url in node.endpoints)
        return asyncio.SelectorEventLoop(selectors.DefaultSelector() if web else selectors.SelectSelector())

    async def _run(
        self, folder: Path, segment: int, rows: NDArray[np.int64], concurrency: int | None, resent: frozenset[int]
    ) -> None:
        server = None
        try:
            self.shapes = await self.fleet.open()
            self.servers = self.fleet.servers
            made, lanes = self._lanes()
            del made
            if self.prepare is not None:
                self.prepare()
            journal = Journal(folder, segment, len(self.trace))
            work = Work(
                self.trace.sample,
                self.trace.ingress,
                self.trace.arrival_ns / 1e9,
                None if self.trace.deadline_us is None else self.trace.deadline_us / 1e6,
                self.seed,
            )
            router = Router(lanes, work, journal, self.settings, Metrics(), resent)
            try:
                if self._metrics is not None:
                    server = await serve(lambda: router.metrics.render(router.gauges()), *self._metrics)
                await router.warm_up(self._warm_up)
                self.fleet.start()
                with _signals(router):
                    ticker = asyncio.ensure_future(self._tick(router, len(rows)))
                    try:
                        if concurrency is None:
                            await router.open_loop(rows.tolist())
                        else:
                            await router.closed_loop(rows.tolist(), concurrency)
                    finally:
                        ticker.cancel()
            finally:
                journal.close()
                (folder / f"metrics-{segment}.prom").write_text(router.metrics.render(router.gauges()), "utf-8")
        finally:
            if server is not None:
                server.close()
            await self.fleet.close()

    def _lanes(self) -> tuple[list[Plan], list[Lane]]:
        made, compiler = plans(self.strategy, self.shapes, self.network, self.trace.nodes)
        watching: list[Plan | None] = [None] * len(made)
        if self.shadow is not None:
            watching = list(plans(self.shadow, self.shapes, self.network, self.trace.nodes)[0])
        read = readings(self.shapes, self.network)
        pools = {
            d.name: Pool(
                d.name,
                self.fleet.endpoints[d.name],
                read[d.model],
                Hop(0.0 if np.isnan(d.service_ms_mean) else d.service_ms_mean * 1e3),
                (d.instances or 1) * d.max_batch,
                d.price_usd,
                f'node="{d.node}",model="{d.model}"',
            )
            for d in self.fleet.deployments
        }
        lanes = []
        for plan, shadow in zip(made, watching, strict=True):
            members = []
            for deployment in plan.members:
                model = self.network.model(deployment.model)
                up = compiler.leg(plan.ingress, deployment.node, model.request_kb)
                down = compiler.leg(deployment.node, plan.ingress, model.answer_kb)
                price = deployment.price_usd + (up[1] + down[1]) / 1e12
                links = 1e-9 if self.settings.emulate_links else 0.0
                members.append(Member(pools[deployment.name], up[0] * links, down[0] * links, price))
            lanes.append(Lane(plan, members, shadow))
        return made, lanes

    async def _tick(self, router: Router, total: int) -> None:
        shown_s = time.monotonic()
        while True:
            await asyncio.sleep(FLUSH_S / 2)
            now_s = time.monotonic()
            if now_s - router.journal.flushed_s >= FLUSH_S:
                router.journal.flush()
            if self._progress is not None and now_s - shown_s >= 0.5:
                self._progress(router.done, total, _line(router, now_s - shown_s))
                shown_s = now_s
            if len(router.recent) > 100_000 or self._progress is not None:
                router.recent.clear()


def _line(router: Router, span_s: float) -> str:
    """Say in one line how it goes: rate, p50 and p99, share forwarded, errors."""
    recent = router.recent
    if not recent:
        return f"0/s, {router.budget.active} in flight"
    took = np.array([each[1] for each in recent]) * 1e3
    forwarded = sum(each[3] > 1 for each in recent) / len(recent)
    bad = sum(each[2] != 1 for each in recent)
    return (
        f"{len(recent) / span_s:,.0f}/s, p50 {np.quantile(took, 0.5):.1f} ms, p99 {np.quantile(took, 0.99):.1f} ms, "
        f"{forwarded:.0%} forwarded, {bad} not answered"
    )


@contextlib.contextmanager
def _signals(router: Router) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the load: what is in flight ends by itself."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        log.warning("asked to stop: %d requests in flight are waited for", router.budget.active)
        router.stopping = True

    caught = []
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stop)
            caught.append(number)
        except (ValueError, RuntimeError, NotImplementedError):  # not in the main thread: the caller's signals stay his
            break
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)


# What a run is given ----------------------------------------------------------------------------------------


def inputs_of(deployment: Deployment, columns: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Give the samples as one deployment takes them: its own, its model's, its tensor's, or the common ones."""
    tensor = "" if deployment.tensors is None else deployment.tensors.input
    for key in (deployment.name, deployment.model, tensor, "inputs"):
        if key in columns:
            return columns[key]
    msg = f"the inputs hold nothing for {deployment.name!r} and no 'inputs'; {nearest(deployment.name, columns)}"
    raise UnknownNameError(msg)


def columns_of(inputs: Inputs) -> tuple[dict[str, NDArray[Any]], int]:
    given = inputs if isinstance(inputs, Mapping) else {"inputs": inputs}
    if not given:
        msg = "the inputs are empty; give an array of samples"
        raise BadValueError(msg)
    columns: dict[str, NDArray[Any]] = {}
    rows: int | None = None
    for name, value in given.items():
        array = np.asarray(value)
        if array.ndim == 0 or array.dtype.kind not in "fiub":
            msg = (
                f"inputs {name!r} must be an array of numbers with one sample per row, not {array.dtype} {array.shape}"
            )
            raise BadValueError(msg)
        if rows is not None and len(array) != rows:
            msg = f"inputs {name!r} has {len(array)} samples, but the others have {rows}"
            raise BadValueError(msg)
        rows = len(array)
        columns[str(name)] = np.ascontiguousarray(array)
    if not rows:
        msg = "the inputs hold no samples"
        raise BadValueError(msg)
    return columns, rows


def labels_of(labels: Any, samples: int) -> NDArray[np.int64] | None:
    if labels is None:
        return None
    truth = np.asarray(labels)
    if truth.shape != (samples,) or truth.dtype.kind not in "iu":
        msg = f"labels must be {samples} integers, one per sample, not {truth.dtype} of shape {truth.shape}"
        raise BadValueError(msg)
    return truth.astype(np.int64)


def _trace(
    network: Network,
    trace: Trace | None,
    requests: int | None,
    concurrency: int | None,
    deadline_ms: float | None,
    samples: int,
) -> Trace:
    from coinfer.trace import Trace as Table

    deadline_us = None
    if deadline_ms is not None:
        deadline_us = check_number(deadline_ms, "deadline_ms", above=0.0) * 1e3
    if trace is None:
        if concurrency is None:
            msg = "give a trace (open loop) or concurrency (closed loop)"
            raise BadValueError(msg)
        count = samples if requests is None else check_integer(requests, "requests", at_least=1)
        nodes = network.ingress
        return Table(
            np.zeros(count, np.int64),
            np.arange(count, dtype=np.int32) % len(nodes),
            np.arange(count, dtype=np.int32) % samples,
            deadline_us=deadline_us,
            nodes=nodes,
        )
    if requests is not None:
        trace = trace.slice(0, check_integer(requests, "requests", at_least=1))
    if len(trace) == 0:
        msg = "the trace holds no requests; at least one is needed"
        raise BadValueError(msg)
    if int(trace.sample.max()) >= samples:
        row = int(np.argmax(trace.sample >= samples))
        msg = (
            f"request {row} of the trace asks for sample {int(trace.sample[row])}, but the inputs hold {samples} "
            f"samples (0 to {samples - 1})"
        )
        raise BadValueError(msg)
    if deadline_us is not None:
        return Table(trace.arrival_ns, trace.ingress, trace.sample, deadline_us=deadline_us, nodes=trace.nodes)
    return trace


def _address(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > 65535:
        msg = f"metrics must be host:port or :port, not {text!r}"
        raise BadValueError(msg)
    return host or "127.0.0.1", int(port)


def _fingerprint(columns: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(columns):
        array = columns[name]
        digest.update(f"{name} {array.dtype} {array.shape};".encode())
        digest.update(array.data.cast("B"))
    return digest.hexdigest()


def _write_inputs(folder: Path, session: _Session, labels: NDArray[np.int64] | None, concurrency: int | None) -> None:
    """Write what the run is about, manifest last; nothing of it changes afterwards."""
    import importlib.metadata

    import coinfer
    from coinfer.strategy import Strategy

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{folder}: cannot be made: {error.strerror}"
        raise BadFileError(msg) from error
    session.network.save(folder / "network.toml")
    session.strategy.save(folder / "strategy.toml")
    Strategy.open(folder / "strategy.toml")
    session.trace.save(folder / "trace.arrow")
    if labels is not None:
        np.save(folder / "labels.npy", labels, allow_pickle=False)
    versions = {"coinfer": coinfer.__version__, "python": platform.python_version(), "numpy": np.__version__}
    for package in ("tritonclient", "grpcio"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    write_manifest(
        folder,
        {
            "versions": versions,
            "implementation": coinfer.cpu.implementation(),
            "servers": session.servers,
            "strategy": session.strategy.name,
            "shadow": None if session.shadow is None else session.shadow.to_dict(),
            "seed": session.seed,
            "settings": asdict(session.settings),
            "concurrency": concurrency,
            "inputs": _fingerprint(session.columns),
            "shapes": {name: asdict(shape) for name, shape in session.shapes.items()},
            "members": {
                node: [d.name for stage in session.strategy.plan(session.network, node).stages for d in stage.members]
                for node in session.trace.nodes
            },
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "command": sys.argv[:1],
        },
    )
