"""One station with Triton's dynamic batcher, event by event, in plain Python: the specification of batching.

Written after the documentation of Triton's scheduler and its queue policy, independently of the engine. A batch is
formed when an instance is idle: the largest preferred size that is there; else all that is there once no more may be
added, the oldest has waited for the delay, or there is no delay.
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

    def form(self, now: int) -> None:
        most = self.preferred[-1] if self.preferred else len(self.service)
        sizes = self.preferred or [most]
        while self.queue and self.busy < self.instances:
            there = self.queue[:most]
            oldest = min(since for _, _, since in there)
            overdue = self.delay > 0 and now - oldest >= self.delay
            fitting = [size for size in sizes if size <= len(there)]
            if fitting and not overdue:
                count = fitting[-1]
            elif len(there) == most or overdue or self.delay == 0:
                count = len(there)
            else:
                heapq.heappush(self.events, (oldest + self.delay, 3, 0))
                return
            self.formed.append([request for _, request, _ in self.queue[:count]])
            del self.queue[:count]
            self.dispatch(now)

    def dispatch(self, now: int) -> None:
        while self.formed and self.busy < self.instances:
            batch = self.formed.pop(0)
            for request in batch:
                self.start[request] = now
            self.sizes.append(len(batch))
            self.busy += 1
            heapq.heappush(self.events, (now + self.service[len(batch) - 1], 0, batch[0]))
