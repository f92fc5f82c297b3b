"""A ladder of servers that fail, as SimPy processes: the specification of replays with outages.

Breaker and budget are the live router's own objects (`coinfer.live.guard`), told nanoseconds instead of seconds; a
consultation is written after its `Router._consult`. Covers chains asked by their ingress, one member per stage,
constant times, no jitter.
"""

from __future__ import annotations

from coinfer._core import sim
from coinfer.live.guard import Breaker, Budget

SECOND = 10**9


def uniform(seed, request, place, draw):
    """Draw as the engine does for the pause before a retry: stream 3."""
    folded = (seed >> 32) ^ (3 * 0x9E3779B9 & 0xFFFFFFFF)
    bits = sim.philox([request & 0xFFFFFFFF, request >> 32, place, draw], [seed & 0xFFFFFFFF, folded])
    return ((((bits[0] << 32) | bits[1]) >> 11) + 0.5) * 2.0**-53


class Down(Exception):
    """The server refused, or went down with the request."""


class Full(Exception):
    """The queue was full."""


class Silent(Exception):
    """Nothing will come back."""


class Server:
    """One deployment: instances, a queue, and windows (from, to, factor or 0, silent) in ns."""

    def __init__(self, env, place, instances, service, up, windows, queue_max=None):
        self.env, self.place, self.service, self.up, self.windows = env, place, service, up, windows
        self.instances, self.queue_max = instances, queue_max
        self.breaker = Breaker(open_s=SECOND // 4, open_s_max=SECOND)
        self.queue, self.working = [], {}
        for start, _, factor, silent in windows:
            if factor == 0:
                env.process(self.strike(start, silent))

    def window(self):
        return next((w for w in self.windows if w[0] <= self.env.now < w[1]), None)

    def strike(self, start, silent):
        yield self.env.timeout(start)
        lost = [*self.working, *self.queue]
        self.working, self.queue = {}, []
        for asked in lost:
            asked.fail(Silent() if silent else Down())

    def ask(self):
        asked = self.env.event()
        window = self.window()
        if window is not None and window[2] == 0:
            asked.fail(Silent() if window[3] else Down())
        elif len(self.working) < self.instances:
            self.begin(asked)
        elif self.queue_max is not None and len(self.queue) >= self.queue_max:
            asked.fail(Full())
        else:
            self.queue.append(asked)
        return asked

    def begin(self, asked):
        window = self.window()
        takes = self.service if window is None else round(self.service * window[2])
        self.working[asked] = takes
        self.env.process(self.work(asked, takes))

    def work(self, asked, takes):
        yield self.env.timeout(takes)
        if asked not in self.working:
            return
        del self.working[asked]
        if self.queue:
            self.begin(self.queue.pop(0))
        asked.succeed()


class Ladder:
    """Requests over servers, each with what the live router does about failures."""

    def __init__(self, servers, seed):
        self.servers, self.seed = servers, seed
        self.budget = Budget()
        self.retried = self.broken = 0

    def consult(self, env, request, server, until):
        """Ask one server until it has answered (True), or failed (a reason)."""
        attempts, borrowed, reason = 0, False, "UNAVAILABLE"
        try:
            while True:
                if not server.breaker.allows(env.now):
                    self.broken += 1
                    return reason
                server.breaker.sent()
                attempts += 1
                sent = env.now
                yield env.timeout(server.up)
                try:
                    yield server.ask()
                    yield env.timeout(server.up)
                    server.breaker.succeeded()
                    return True
                except Silent:
                    yield env.timeout(until - env.now)
                    if env.now - sent >= 2 * server.service:
                        server.breaker.failed(env.now)
                    else:
                        server.breaker.abandoned()
                    return "TIMEOUT"
                except Down:
                    yield env.timeout(server.up)
                    server.breaker.failed(env.now)
                    reason = "UNAVAILABLE"
                except Full:
                    yield env.timeout(server.up)
                    server.breaker.succeeded()
                    reason = "REJECTED"
                if attempts >= 3 or not (borrowed := borrowed or self.budget.take()):
                    return reason
                pause = 0.8 + 0.4 * uniform(self.seed, request, server.place, attempts)
                pause = round(SECOND // 50 * 2 ** (attempts - 1) * pause)
                if env.now + pause + server.service >= until:
                    return reason
                self.retried += 1
                yield env.timeout(pause)
        finally:
            if borrowed:
                self.budget.give()

    def request(self, env, request, goes_on, out):
        """Lead one request up the ladder; `goes_on` says for each stage whether its answer is not sure enough."""
        self.budget.active += 1
        began, answered, missing = env.now, None, False
        reasons = []
        for stage, server in enumerate(self.servers):
            said = yield from self.consult(env, request, server, env.now + 10 * SECOND)
            missing = said is not True
            if missing:
                reasons.append(said)
            else:
                answered = stage
                if not goes_on[stage]:
                    break
        self.budget.active -= 1
        status = "degraded" if missing else "answered"
        if answered is None:
            status = "rejected" if set(reasons) == {"REJECTED"} else "failed"
        out[request] = (status, answered, stage + 1, env.now - began)
