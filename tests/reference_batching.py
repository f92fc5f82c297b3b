"""One station with Triton's dynamic batcher, event by event, in plain Python: the specification of batching.

Written after Triton's scheduler, independently of the engine. Where priorities or a bound of the queue forbid it, a
batch is formed when an instance is idle; otherwise up to two per instance are formed ahead, and the newest grows until
it is served. All that is there is taken once the oldest has waited for the delay; before that, what makes a preferred
size; else all if the batch can grow no further, there is no delay, or what it holds is no preferred size.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field


@dataclass
class Batcher:
    service: list[int]  # ns by size - 1
    instances: int = 1
    preferred: list[int] = field(default_factory=list)
    delay: int = 0
    queue_max: int | None = None

    def run(self, arrivals: list[int], levels: list[int] | None = None) -> tuple[list[int | None], list[int]]:
        """Give when each request starts (None: rejected), and the sizes of the batches in the order of their start."""
        levels = levels or [0] * len(arrivals)
        self.start: list[int | None] = [None] * len(arrivals)
        self.sizes: list[int] = []
        self.queue: list[tuple[int, int, int]] = []  # level, request, since
        self.formed: list[list[int]] = []
        self.busy = 0
        self.arrivals = arrivals
        self.ahead = bool(self.preferred) and self.queue_max is None and not any(levels)
        self.growing = False
        self.events: list[tuple[int, int, int]] = []  # time, kind (0 completion, 2 arrival, 3 timer), request
        for request, at in enumerate(arrivals):
            heapq.heappush(self.events, (at, 2, request))
        while self.events:
            now, kind, request = heapq.heappop(self.events)
            if kind == 0:
                self.busy -= 1
                self.dispatch(now)
            elif kind == 2:
                idle = self.busy < self.instances
                full = self.queue_max is not None and len(self.queue) >= self.queue_max
                if full and not (idle and not self.queue):
                    continue
                self.queue.append((levels[request], request, now))
                self.queue.sort()
            self.form(now)
        return self.start, self.sizes

    def room(self) -> bool:
        if self.ahead:
            return len(self.formed) < 2 * self.instances
        return self.busy + len(self.formed) < self.instances

    def form(self, now: int) -> None:
        most = len(self.service)
        sizes = self.preferred or [most]
        while self.queue and self.room():
            held = len(self.formed[-1]) if self.growing else 0
            there = min(len(self.queue), most - held)
            saturated = len(self.queue) > there
            if there == 0:
                self.growing = False
                continue
            oldest = min(since for _, _, since in self.queue[:there])
            overdue = self.delay > 0 and now - oldest >= self.delay
            fitting = [size - held for size in sizes if 0 < size - held <= there]
            if fitting and not overdue:
                count, closed = fitting[-1], self.delay == 0
            elif saturated or held + there >= sizes[-1]:
                count, closed = there, True
            elif overdue or self.delay == 0 or (held and held not in sizes):
                count, closed = there, False
            else:
                heapq.heappush(self.events, (oldest + self.delay, 3, 0))
                return
            if not held:
                self.formed.append([])
            self.formed[-1] += [request for _, request, _ in self.queue[:count]]
            del self.queue[:count]
            self.growing = self.ahead and not closed
            self.dispatch(now)

    def dispatch(self, now: int) -> None:
        while self.formed and self.busy < self.instances:
            batch = self.formed.pop(0)
            while self.delay and self.formed and now - self.arrivals[self.formed[0][0]] > self.delay:
                if len(batch) + len(self.formed[0]) > len(self.service):
                    break
                batch += self.formed.pop(0)
            self.growing = self.growing and bool(self.formed)
            for request in batch:
                self.start[request] = now
            self.sizes.append(len(batch))
            self.busy += 1
            heapq.heappush(self.events, (now + self.service[len(batch) - 1], 0, batch[0]))
