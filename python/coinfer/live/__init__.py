"""The same strategy against real inference servers, within deadlines, while servers fail; the proof is a journal.

Names are imported when they are first used: the command line knows this package without paying for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coinfer.live.collecting import collect
    from coinfer.live.picturing import page
    from coinfer.live.profiling import profile
    from coinfer.live.result import Distance, LiveRun, Redecided
    from coinfer.live.router import Settings
    from coinfer.live.running import resume, run
    from coinfer.live.triton import LocalNetwork

__all__ = [
    "Distance",
    "LiveRun",
    "LocalNetwork",
    "Redecided",
    "Settings",
    "collect",
    "page",
    "profile",
    "resume",
    "run",
]

_HOMES = {
    "collect": "collecting",
    "page": "picturing",
    "profile": "profiling",
    "Distance": "result",
    "LiveRun": "result",
    "Redecided": "result",
    "Settings": "router",
    "resume": "running",
    "run": "running",
    "LocalNetwork": "triton",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
