"""Prometheus metrics of a router, served on the loopback interface.

Names and units follow Prometheus (base units, ``_total``) and the words Triton uses for reasons. Counting must cost the
hot path next to nothing, so it is a handful of dictionary updates; gauges are read when somebody asks.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final

__all__ = ["Metrics", "serve"]

_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_HELP: Final = {
    "coinfer_requests_total": ("counter", "Requests by how they ended."),
    "coinfer_request_duration_seconds": ("histogram", "From the intended start to the answer."),
    "coinfer_hop_duration_seconds": ("histogram", "One consultation of one deployment, retries included."),
    "coinfer_attempts_total": ("counter", "Requests sent to servers."),
    "coinfer_member_failures_total": ("counter", "Consultations without an answer, by reason."),
    "coinfer_retries_total": ("counter", "Attempts after the first."),
    "coinfer_hedges_total": ("counter", "Second requests sent because the first was slow, by whether they won."),
    "coinfer_deadline_missed_total": ("counter", "Requests that ended after their deadline."),
    "coinfer_load_started_timestamp_seconds": ("gauge", "Unix time that the microseconds of the journal count from."),
    "coinfer_requests_in_flight": ("gauge", "Requests that have started and not ended."),
    "coinfer_endpoint_in_flight": ("gauge", "Requests sent to a server and not answered."),
    "coinfer_endpoint_breaker_open": ("gauge", "1 if the endpoint's breaker is open, 0.5 while it probes."),
    "coinfer_endpoint_breaker_opened_total": ("counter", "Times that the breaker opened."),
}

Gauge = tuple[str, str, float]


class Metrics:
    """Counters and histograms by label."""

    def __init__(self) -> None:
        self.counts: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._hists: dict[tuple[str, str], list[float]] = {}

    def count(self, name: str, labels: str = "", by: int = 1) -> None:
        """Add to a counter; `labels` as Prometheus writes them."""
        self.counts[name, labels] += by

    def time(self, name: str, seconds: float, labels: str = "") -> None:
        """Add to a histogram."""
        hist = self._hists.get((name, labels))
        if hist is None:
            hist = self._hists[name, labels] = [0.0] * (len(_BOUNDS_S) + 2)
        hist[bisect_left(_BOUNDS_S, seconds)] += 1
        hist[-1] += seconds

    def render(self, gauges: Iterable[Gauge] = ()) -> str:
        """Write everything in the text format of Prometheus."""
        lines: dict[str, list[str]] = defaultdict(list)
        for (name, labels), value in sorted(self.counts.items()):
            lines[name].append(f"{name}{_braces(labels)} {value}")
        for name, labels, number in gauges:
            lines[name].append(f"{name}{_braces(labels)} {number:.17g}")
        for (name, labels), hist in sorted(self._hists.items()):
            running = 0.0
            for bound, n in zip((*map(str, _BOUNDS_S), "+Inf"), hist[:-1], strict=True):
                running += n
                within = f'{labels},le="{bound}"' if labels else f'le="{bound}"'
                lines[name].append(f"{name}_bucket{{{within}}} {running:g}")
            lines[name].append(f"{name}_sum{_braces(labels)} {hist[-1]:.9g}")
            lines[name].append(f"{name}_count{_braces(labels)} {running:g}")
        text = []
        for name, found in lines.items():
            kind, what = _HELP[name]
            text += [f"# HELP {name} {what}", f"# TYPE {name} {kind}", *found]
        return "\n".join(text) + "\n"


def _braces(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


async def serve(render: Callable[[], str], host: str, port: int) -> asyncio.Server:
    """Answer ``GET /metrics``; whatever else is asked gets 404."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5.0):
                line = (await reader.readline()).decode("latin-1", "replace")
                while (await reader.readline()).strip():
                    pass
            found = line.startswith(("GET /metrics ", "GET / "))
            body = render().encode() if found else b"only /metrics is here\n"
            status = "200 OK" if found else "404 Not Found"
            head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {len(body)}\r\n"
            writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
            await writer.drain()
        except (OSError, TimeoutError, ValueError):
            pass  # whoever asked has gone; there is nobody to tell
        finally:
            writer.close()

    return await asyncio.start_server(handle, host, port)
