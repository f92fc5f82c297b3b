"""The router: one request after another through the stepper, over real servers, within its deadline.

What is decided is decided by `coinfer._core.plan.Session`, the same compiled code as in replay; this file only fetches
the answers it asks for and tells it how much time is left. It keeps eight promises (DESIGN: the live contract):

1. One absolute deadline per request on the monotonic clock; every hop gets what remains; no stage is entered whose
   median hop does not fit.
2. Exactly one outcome per request.
3. A failed or late stage never costs the answer that is held already: it is returned, marked ``degraded``.
4. Retries only where another attempt can help (nobody there, queue full), another replica first, out of a budget.
5. Hedges only if asked for, after the measured 95th percentile, out of the same budget; losers are cancelled and
   counted.
6. A breaker per endpoint; a fast failure counts as a slow answer when replicas are compared.
7. Everything that queues is bounded; what does not fit is a counted rejection.
8. Every input of the stepper is journalled.

One event loop, one thread: at the rates at which Python can talk to servers at all, locks would only add failure modes.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from coinfer._core import plan as core
from coinfer.errors import LiveError, QueueFullError, TimedOutError, UnavailableError
from coinfer.live.guard import Breaker, Budget, Hop, feasible
from coinfer.live.metrics import Gauge, Metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer.live.connector import Answer, Asking, Connection
    from coinfer.live.journal import Journal
    from coinfer.live.planning import Plan, Reading

__all__ = ["Endpoint", "Lane", "Member", "Pool", "Router", "Settings", "Work"]

log = logging.getLogger("coinfer.live")

_OPEN: Final = core.Status.open
_INF: Final = math.inf
_ATTEMPTS_MAX: Final = 3
_BACKOFF_S: Final = 0.02
_PENALTY_US: Final = 1e6
_UNIFORMS: Final = 4096


@dataclass(frozen=True, slots=True)
class Settings:
    """How a router behaves; what it decides is the strategy's.

    Attributes
    ----------
    hop_timeout_s : float
        Longest that one consultation may take, where no deadline is nearer.
    in_flight_max : int
        Requests in flight; one more is rejected.
    endpoint_in_flight_max : int
        Requests in flight at one endpoint; one more counts as a full queue.
    retry_share : float
        Retries and hedges in flight, as a share of the requests in flight; at least three.
    hedge : bool
        Send a second request where the first is slower than the 95th percentile.
    hedge_cancel : bool
        Cancel the loser; old servers can crash when many requests are cancelled.
    emulate_links : bool
        Wait for the delays that the network's links state, so that a whole network can be tried on one machine.
    traceparent : bool
        Send a W3C ``traceparent`` with each request.
    audit : float
        Share of requests for which the members of the last stage are also asked, after the outcome.
    """

    hop_timeout_s: float = 10.0
    in_flight_max: int = 1024
    endpoint_in_flight_max: int = 512
    retry_share: float = 0.2
    hedge: bool = False
    hedge_cancel: bool = True
    emulate_links: bool = False
    traceparent: bool = False
    audit: float = 0.0


@dataclass(slots=True, eq=False)
class Endpoint:
    """One replica of one deployment: where to send, and how it has been doing."""

    index: int
    url: str
    connection: Connection
    asking: Asking | None = None
    rows: memoryview = field(default=memoryview(b""), repr=False)
    row_bytes: int = 0
    breaker: Breaker = field(default_factory=Breaker)
    in_flight: int = 0
    took_us: float = 0.0
    penalty_us: float = 0.0
    penalty_s: float = -_INF

    def cost(self, now_s: float) -> float:
        """Compare replicas: expected microseconds, more where more is queued or a failure is fresh."""
        penalty = self.penalty_us * 0.5 ** (now_s - self.penalty_s) if self.penalty_us else 0.0
        return (self.took_us + penalty + 1.0) * (self.in_flight + 1)

    def charge(self, now_s: float) -> None:
        """Charge a failure as a slow answer."""
        self.penalty_us, self.penalty_s = _PENALTY_US, now_s


@dataclass(slots=True, eq=False)
class Pool:
    """All replicas of one deployment."""

    name: str
    endpoints: list[Endpoint]
    reading: Reading
    hop: Hop
    at_once: int
    price_usd: float
    labels: str

    def pick(self, now_s: float, draw: random.Random, tried: Endpoint | None = None) -> Endpoint | None:
        """Choose a replica: the better of two drawn at random, not the one just tried if there is another."""
        if len(self.endpoints) == 1:
            only = self.endpoints[0]
            return only if only.asking is not None and only.breaker.allows(now_s) else None
        able = [e for e in self.endpoints if e.asking is not None and e.breaker.allows(now_s)]
        if len(able) > 1 and tried in able:
            able.remove(tried)
        if len(able) < 2:
            return able[0] if able else None
        a, b = draw.sample(able, 2)
        return a if a.cost(now_s) <= b.cost(now_s) else b

    def wait_us(self) -> float:
        """Estimate the wait of a request that came now."""
        queued = min((e.in_flight for e in self.endpoints), default=0)
        return queued / self.at_once * self.hop.p50_us

    @property
    def blocked(self) -> bool:
        """Whether no replica may be asked now."""
        now_s = time.monotonic()
        return not any(e.asking is not None and e.breaker.allows(now_s) for e in self.endpoints)


@dataclass(slots=True, eq=False)
class Member:
    """A member of a plan as seen from its ingress: its pool, and the way there and back."""

    pool: Pool
    up_s: float
    down_s: float
    price_usd: float


@dataclass(slots=True, eq=False)
class Lane:
    """One ingress node: its plan, its members, and the plan that only watches."""

    plan: Plan
    members: list[Member]
    shadow: Plan | None = None
    ahead: list[list[Member]] = field(default_factory=list)

    def __post_init__(self) -> None:
        first = self.plan.first
        self.ahead = [self.members[a:b] for a, b in itertools.pairwise(first)]


@dataclass(slots=True, eq=False)
class Work:
    """Requests as arrays: what is asked, where, when, and by when."""

    sample: NDArray[np.int32]
    ingress: NDArray[np.int32]
    arrival_s: NDArray[np.float64]
    deadline_s: NDArray[np.float64] | None
    seed: int


@dataclass(slots=True)
class Said:
    """What became of consulting one member."""

    answer: Answer | None
    reason: str | None
    endpoint: int
    attempts: int
    hedged: bool
    sent_s: float
    took_s: float


class Router:
    """Requests in, outcomes out.

    Parameters
    ----------
    lanes : sequence of Lane
        By ingress node of the work.
    work : Work
        All requests of the run.
    journal : Journal
    settings : Settings
    metrics : Metrics, optional

    Attributes
    ----------
    done : int
        Outcomes so far.
    stopping : bool
        Set it, and no further request is started.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        work: Work,
        journal: Journal,
        settings: Settings,
        metrics: Metrics | None = None,
        resent: frozenset[int] = frozenset(),
    ) -> None:
        self.lanes = list(lanes)
        self.work = work
        self.journal = journal
        self.settings = settings
        self.metrics = metrics or Metrics()
        self.budget = Budget(settings.retry_share)
        self.resent = resent
        self.done = 0
        self.stopping = False
        self.start_s = 0.0
        self.recent: list[tuple[float, float, int, int]] = []
        """(finished, latency, status, stages) of recent requests, for whoever shows progress; emptied there."""
        self._draw = random.Random(work.seed)
        self._asides: set[asyncio.Task[None]] = set()
        self._hedges: set[asyncio.Task[Answer]] = set()
        self._uniforms: dict[int, NDArray[np.float64]] = {}
        pools = {id(m.pool): m.pool for lane in lanes for m in lane.members}
        self.pools = list(pools.values())
        self._status_labels = {int(s.value): f'outcome="{s.name}"' for s in core.Status.__members__.values()}

    # Load ---------------------------------------------------------------------------------------------------

    async def open_loop(self, rows: Sequence[int]) -> None:
        """Start each request at its time, however many are in flight: latency counts from when it should start."""
        tasks: set[asyncio.Task[None]] = set()
        arrival_s = self.work.arrival_s
        first_s = float(arrival_s[rows[0]]) if len(rows) else 0.0
        self.start_s = time.monotonic() + 0.005 - first_s
        for n, row in enumerate(rows):
            intended_s = self.start_s + float(arrival_s[row])
            left_s = intended_s - time.monotonic()
            if left_s > 0:
                await self._sleep_unless_stopping(left_s)
            elif n % 16 == 0:
                await asyncio.sleep(0)
            if self.stopping:
                break
            if self.budget.active >= self.settings.in_flight_max:
                self._reject(row, intended_s)
                continue
            task = asyncio.ensure_future(self.request(row, intended_s))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        while tasks:
            await asyncio.wait(tasks)
        await self.finish()

    async def closed_loop(self, rows: Sequence[int], concurrency: int) -> None:
        """Keep that many requests in flight: each starts when one before it has ended."""
        self.start_s = time.monotonic()
        each = iter(rows)

        async def worker() -> None:
            for row in each:
                if self.stopping:
                    return
                await self.request(row, time.monotonic())

        await asyncio.gather(*(worker() for _ in range(concurrency)))
        await self.finish()

    async def finish(self) -> None:
        """Wait for audits and cancelled hedges: no task outlives the run."""
        while self._asides or self._hedges:
            await asyncio.wait([*self._asides, *self._hedges])

    async def _sleep_unless_stopping(self, left_s: float) -> None:
        while left_s > 0.25:
            until_s = time.monotonic() + left_s
            await asyncio.sleep(0.25)
            if self.stopping:
                return
            left_s = until_s - time.monotonic()
        await asyncio.sleep(max(left_s, 0.0))

    # One request --------------------------------------------------------------------------------------------

    async def request(self, row: int, intended_s: float) -> None:
        """Lead one request to its one outcome."""
        work, journal = self.work, self.journal
        lane = self.lanes[work.ingress[row]]
        sample = int(work.sample[row])
        deadline_s = _INF if work.deadline_s is None else intended_s + float(work.deadline_s[row])
        started_s = time.monotonic()
        journal.begin(row)
        self.budget.active += 1
        uniform = self._uniform(row)
        attempts = stages = 0
        price_usd = 0.0
        heard: dict[str, Answer | None] = {}
        by = 0
        session = core.Session(lane.plan.plan, uniform[0])
        stage = session.stage
        hop_us = self._hop_us(lane, stage, started_s)
        remaining_us = (deadline_s - started_s) * 1e6
        steps = journal.steps
        steps.append((row, "open", stage, 0.0, remaining_us, uniform[0], hop_us, 0, False, 0, -1, 0.0, None, None))
        shadow = None if lane.shadow is None else _Shadow(lane.shadow, uniform)
        status = _OPEN
        try:
            while feasible(remaining_us, hop_us):
                asked = session.ask()
                stages += 1
                at = stage
                until_s = min(deadline_s, time.monotonic() + self.settings.hop_timeout_s)
                if len(asked) == 1:
                    said = [await self._consult(lane.members[asked[0]], row, sample, until_s)]
                else:
                    members = [lane.members[m] for m in asked]
                    said = await asyncio.gather(*(self._consult(m, row, sample, until_s) for m in members))
                for m, one in zip(asked, said, strict=True):
                    member = lane.members[m]
                    attempts += one.attempts
                    if one.attempts:
                        price_usd += member.price_usd
                    self._tell(session, member, m, one, row, stage)
                    heard[member.pool.name] = one.answer
                    if one.answer is not None and one.answer.there:
                        by = at
                now_s = time.monotonic()
                remaining_us = (deadline_s - now_s) * 1e6
                ahead = lane.ahead[stage + 1] if stage + 1 < len(lane.ahead) else ()
                wait_us = max((m.pool.wait_us() for m in ahead), default=0.0)
                breakers = sum(1 << i for i, m in enumerate(ahead) if m.pool.blocked)
                draw = uniform[min(stage + 1, len(uniform) - 1)]
                status = session.step(wait_us, remaining_us, draw)
                told: tuple[int | None, int | None] = None, None
                if shadow is not None:
                    shadow.hear(lane.members, heard)
                    told = shadow.status, shadow.label
                fields = status.value, session.label, session.score
                going = status == _OPEN
                hop_us = self._hop_us(lane, session.stage, now_s) if going else 0.0
                steps.append((row, "step", stage, wait_us, remaining_us, draw, hop_us, breakers, False, *fields, *told))
                stage = session.stage
                if not going:
                    break
            if status == _OPEN:
                status = session.settle(True)
                steps.append(
                    (
                        row,
                        "settle",
                        stage,
                        0.0,
                        remaining_us,
                        0.0,
                        hop_us,
                        0,
                        True,
                        status.value,
                        session.label,
                        session.score,
                        None,
                        None,
                    )
                )
        finally:
            self.budget.active -= 1
        now_s = time.monotonic()
        self._end(row, sample, status.value, session, by, stages, intended_s, started_s, now_s, attempts, price_usd)
        if now_s > deadline_s:
            self.metrics.count("coinfer_deadline_missed_total")
        if self.settings.audit > 0.0 and uniform[-1] < self.settings.audit:
            self._aside(self._audit(lane, row, sample, heard))

    def _tell(self, session: core.Session, member: Member, at: int, said: Said, row: int, stage: int) -> None:
        answer = said.answer
        vector, label, confidence = None, -1, math.nan
        if answer is not None:
            session.tell(at, member.pool.reading.outputs(answer.vector, answer.label, answer.confidence))
            label, confidence = answer.label, answer.confidence
            vector = None if answer.vector is None else answer.vector.tobytes()
        sent_us = (said.sent_s - self.start_s) * 1e6
        self.journal.answers.append(
            (
                row,
                stage,
                at,
                said.endpoint,
                said.attempts,
                said.hedged,
                sent_us,
                said.took_s * 1e6,
                said.reason,
                vector,
                label,
                confidence,
            )
        )
        labels = member.pool.labels
        self.metrics.time("coinfer_hop_duration_seconds", said.took_s, labels)
        if said.reason is not None:
            self.metrics.count("coinfer_member_failures_total", f'{labels},reason="{said.reason}"')

    def _end(
        self,
        row: int,
        sample: int,
        status: int,
        session: core.Session | None,
        by: int,
        stages: int,
        intended_s: float,
        started_s: float,
        now_s: float,
        attempts: int,
        price_usd: float,
    ) -> None:
        label, score, stage = (-1, math.nan, 0) if session is None else (session.label, session.score, session.stage)
        latency_s = now_s - intended_s
        self.journal.outcomes.append(
            (
                row,
                sample,
                self.work.ingress[row],
                status,
                label,
                score,
                stage,
                by,
                stages,
                (intended_s - self.start_s) * 1e6,
                (started_s - self.start_s) * 1e6,
                latency_s * 1e6,
                attempts,
                price_usd,
                row in self.resent,
            )
        )
        self.metrics.count("coinfer_requests_total", self._status_labels[status])
        self.metrics.time("coinfer_request_duration_seconds", latency_s)
        self.recent.append((now_s, latency_s, status, stages))
        self.done += 1

    def _reject(self, row: int, intended_s: float) -> None:
        now_s = time.monotonic()
        self._end(row, int(self.work.sample[row]), 3, None, 0, 0, intended_s, now_s, now_s, 0, 0.0)

    def _hop_us(self, lane: Lane, stage: int, now_s: float) -> float:
        """What a stage takes at least: the longest median of its members, way included."""
        return max(m.pool.hop.least_us(now_s) + (m.up_s + m.down_s) * 1e6 for m in lane.ahead[stage])

    def _uniform(self, row: int) -> list[float]:
        """Draws of one request: before the first stage, after each stage, and last the one for the audit."""
        block, at = divmod(row, _UNIFORMS)
        if block not in self._uniforms:
            if len(self._uniforms) > 4:
                self._uniforms.clear()
            width = max(len(lane.ahead) for lane in self.lanes) + 2
            key = np.random.Philox(key=[self.work.seed, 0x11FE], counter=[0, 0, 0, block])
            self._uniforms[block] = np.random.Generator(key).random((_UNIFORMS, width))
        return self._uniforms[block][at].tolist()  # type: ignore[no-any-return]

    # One member ---------------------------------------------------------------------------------------------

    async def _consult(self, member: Member, row: int, sample: int, until_s: float) -> Said:
        """Ask one member until it has answered, failed, or run out of time."""
        pool, settings = member.pool, self.settings
        links = settings.emulate_links
        sent_s = time.monotonic()
        if links and member.up_s > 0.0:
            await asyncio.sleep(min(member.up_s, max(until_s - sent_s, 0.0)))
        attempts, hedged, borrowed = 0, False, False
        reason, answer, endpoint = "UNAVAILABLE", None, None
        try:
            while True:
                now_s = time.monotonic()
                left_s = until_s - now_s - (member.down_s if links else 0.0)
                if left_s <= 0.0:
                    reason = "TIMEOUT"
                    break
                endpoint = pool.pick(now_s, self._draw, endpoint)
                if endpoint is None:
                    break
                retry = False
                if endpoint.in_flight >= settings.endpoint_in_flight_max:
                    reason, retry = "REJECTED", True
                else:
                    attempts += 1
                    try:
                        if settings.hedge and pool.hop.p95_us < left_s * 1e6:
                            answer, endpoint, hedged = await self._hedged(pool, endpoint, row, sample, left_s)
                        else:
                            answer = await self._send(pool, endpoint, row, sample, left_s)
                    except LiveError as error:
                        reason = error.reason
                        retry = isinstance(error, UnavailableError | QueueFullError)
                        log.debug("request %d: %s", row, error)
                    else:
                        break
                if not retry or attempts >= _ATTEMPTS_MAX or (borrowed := borrowed or self.budget.take()) is False:
                    break
                pause_s = 0.0
                if len(pool.endpoints) == 1:
                    pause_s = _BACKOFF_S * 2 ** max(attempts - 1, 0) * self._draw.uniform(0.8, 1.2)
                if time.monotonic() + pause_s + pool.hop.p50_us / 1e6 >= until_s:
                    break
                self.metrics.count("coinfer_retries_total", pool.labels)
                await asyncio.sleep(pause_s)
        finally:
            if borrowed:
                self.budget.give()
        now_s = time.monotonic()
        if answer is not None:
            pool.hop.add((now_s - sent_s - (member.up_s if links else 0.0)) * 1e6, now_s)
            if links and member.down_s > 0.0:
                await asyncio.sleep(member.down_s)
                now_s = time.monotonic()
        return Said(
            answer,
            None if answer is not None else reason,
            0 if endpoint is None else endpoint.index,
            attempts,
            hedged,
            sent_s,
            now_s - sent_s,
        )

    async def _send(self, pool: Pool, endpoint: Endpoint, row: int, sample: int, left_s: float) -> Answer:
        """Send one request to one endpoint, and note how that went."""
        asking = endpoint.asking
        assert asking is not None
        size = endpoint.row_bytes
        headers: tuple[tuple[str, str], ...] = ()
        if self.settings.traceparent:
            trace = f"{self.work.seed & 0xFFFFFFFFFFFFFFFF:016x}{row + 1:016x}"
            headers = (("traceparent", f"00-{trace}-{self._draw.getrandbits(64) | 1:016x}-01"),)
        endpoint.in_flight += 1
        endpoint.breaker.sent()
        began_s = time.monotonic()
        self.metrics.counts["coinfer_attempts_total", pool.labels] += 1
        try:
            answer = await endpoint.connection.infer(
                asking, endpoint.rows[sample * size : (sample + 1) * size], left_s, headers
            )
        except LiveError as error:
            now_s = time.monotonic()
            endpoint.charge(now_s)
            if isinstance(error, UnavailableError):
                endpoint.breaker.failed(now_s)
            elif isinstance(error, TimedOutError):
                # Only a wait that should have been long enough says that the server hangs.
                if (now_s - began_s) * 1e6 >= 2.0 * pool.hop.p50_us:
                    endpoint.breaker.failed(now_s)
                else:
                    endpoint.breaker.abandoned()
            else:
                endpoint.breaker.succeeded()  # it is there, and answers
            raise
        except asyncio.CancelledError:
            endpoint.breaker.abandoned()
            raise
        finally:
            endpoint.in_flight -= 1
        endpoint.breaker.succeeded()
        endpoint.took_us += ((time.monotonic() - began_s) * 1e6 - endpoint.took_us) * 0.2
        return answer

    async def _hedged(
        self, pool: Pool, endpoint: Endpoint, row: int, sample: int, left_s: float
    ) -> tuple[Answer, Endpoint, bool]:
        """Send, and send once more if the answer takes longer than nineteen of twenty do; the first answer wins."""
        until_s = time.monotonic() + left_s
        first = asyncio.ensure_future(self._send(pool, endpoint, row, sample, left_s))
        await asyncio.wait([first], timeout=pool.hop.p95_us / 1e6)
        other = None if first.done() else pool.pick(time.monotonic(), self._draw, endpoint)
        if other is None or not self.budget.take():
            return await first, endpoint, False
        second = asyncio.ensure_future(self._send(pool, other, row, sample, until_s - time.monotonic()))
        both = {first: endpoint, second: other}
        try:
            waiting = set(both)
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                good = next((t for t in done if not t.cancelled() and t.exception() is None), None)
                if good is None and waiting:
                    continue
                winner = good or first
                self.metrics.count("coinfer_hedges_total", f'{pool.labels},won="{str(winner is second).lower()}"')
                return winner.result(), both[winner], True
        finally:
            self.budget.give()
            for task in both:
                if not task.done():
                    if self.settings.hedge_cancel:
                        task.cancel()
                    self._hedges.add(task)
                    task.add_done_callback(self._forget)
                elif not task.cancelled():
                    task.exception()  # the loser's error is counted where it was raised
        raise AssertionError

    def _forget(self, task: asyncio.Task[Answer]) -> None:
        self._hedges.discard(task)
        if not task.cancelled():
            task.exception()

    # Beside the plan ----------------------------------------------------------------------------------------

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._asides) >= self.settings.in_flight_max:
            work.close()
            return
        task = asyncio.ensure_future(work)
        self._asides.add(task)
        task.add_done_callback(self._asides.discard)

    async def _audit(self, lane: Lane, row: int, sample: int, heard: dict[str, Answer | None]) -> None:
        """Ask the last stage's members about a request that may have ended before them."""
        first = lane.plan.first
        for at in range(first[-2], first[-1]):
            member = lane.members[at]
            answer, reason = heard.get(member.pool.name), None
            if answer is None:
                said = await self._consult(member, row, sample, time.monotonic() + self.settings.hop_timeout_s)
                answer, reason = said.answer, said.reason
            vector = None if answer is None or answer.vector is None else answer.vector.tobytes()
            label = -1 if answer is None else top(answer, member.pool.reading)
            self.journal.audits.append((row, self.settings.audit, at, reason, label, vector))

    # Watching -----------------------------------------------------------------------------------------------

    def gauges(self) -> list[Gauge]:
        """Read what is not a counter."""
        started_s = time.time() - time.monotonic() + self.start_s
        found: list[Gauge] = [
            ("coinfer_load_started_timestamp_seconds", "", started_s),
            ("coinfer_requests_in_flight", "", self.budget.active),
        ]
        for pool in self.pools:
            for endpoint in pool.endpoints:
                labels = f'{pool.labels},endpoint="{endpoint.url}"'
                state = {"closed": 0.0, "open": 1.0, "probing": 0.5}[endpoint.breaker.state]
                found.append(("coinfer_endpoint_in_flight", labels, endpoint.in_flight))
                found.append(("coinfer_endpoint_breaker_open", labels, state))
                found.append(("coinfer_endpoint_breaker_opened_total", labels, endpoint.breaker.opened))
        return found

    async def warm_up(self, rounds: int) -> None:
        """Ask every deployment a few times, so that the first request pays for nothing and hops have an estimate."""

        async def one(pool: Pool, endpoint: Endpoint) -> None:
            for n in range(rounds):
                began_s = time.monotonic()
                try:
                    await self._send(pool, endpoint, -1, n % len(self.work.sample), self.settings.hop_timeout_s)
                except LiveError as error:
                    log.warning("warm-up of %s at %s: %s", pool.name, endpoint.url, error)
                    return
                if n:
                    pool.hop.add((time.monotonic() - began_s) * 1e6, time.monotonic())

        ready: list[Awaitable[None]] = [one(p, e) for p in self.pools for e in p.endpoints if e.asking is not None]
        await asyncio.gather(*ready)


class _Shadow:
    """A second plan that decides on the answers that were fetched for the first; nothing is sent for it."""

    __slots__ = ("_names", "_session", "_stopped", "_uniform")

    def __init__(self, plan: Plan, uniform: list[float]) -> None:
        self._session = core.Session(plan.plan, uniform[0])
        self._names = [d.name for d in plan.members]
        self._uniform = uniform
        self._stopped = False

    def hear(self, members: list[Member], heard: dict[str, Answer | None]) -> None:
        """Go on as far as the answers reach."""
        readings = {m.pool.name: m.pool.reading for m in members}
        while self._session.status == _OPEN and all(self._names[m] in heard for m in self._session.ask()):
            for m in self._session.ask():
                answer = heard[self._names[m]]
                if answer is not None:
                    reading = readings[self._names[m]]
                    self._session.tell(m, reading.outputs(answer.vector, answer.label, answer.confidence))
            at = min(self._session.stage + 1, len(self._uniform) - 1)
            self._session.step(0.0, _INF, self._uniform[at])

    @property
    def status(self) -> int:
        """How it ended; 0 if it would have asked for more than there is."""
        return int(self._session.status.value)

    @property
    def label(self) -> int:
        """Its answer so far."""
        return self._session.label


def top(answer: Answer, reading: Reading) -> int:
    """Give the label of an answer, in the shared classes; -1 if it is none."""
    if answer.vector is None:
        return answer.label if reading.labels is None or answer.label < 0 else int(reading.labels[answer.label])
    vector = answer.vector if reading.order is None else answer.vector[reading.order]
    best = int(np.argmax(vector))
    if math.isnan(float(vector[best])):
        return -1
    return best if reading.relabel is None else int(reading.relabel[best])


Progress = Callable[[str, int, int], object]
