from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coinfer._core.plan import Decisions, Evidence, Outputs, Plan

_Leg = tuple[int, int, list[tuple[int, float]], list[tuple[int, int, int, float]]]
_StationRow = tuple[int, int, list[int], int, int | None, list[int], float]
_OutageRow = tuple[int, int, int, float, bool, bool]

class Lane:
    def __init__(
        self,
        plan: Plan,
        evidence: Evidence,
        decisions: Decisions | None,
        enter: Sequence[_Leg],
        back: Sequence[_Leg],
        members: Sequence[tuple[_Leg, _Leg, tuple[str, float, float, Any], int, int]],
        least: Sequence[int] = (),
    ) -> None: ...

class Census:
    def __init__(self, lanes: int, samples: int) -> None: ...
    def push(self, lane: NDArray[np.int32], sample: NDArray[np.int32], threads: int = 1) -> None: ...
    @property
    def counts(self) -> NDArray[np.uint64]: ...

class Replay:
    def __init__(self, lanes: Sequence[Lane], labels: NDArray[np.int32] | None, classes: int, seed: int) -> None: ...
    @property
    def deterministic(self) -> bool: ...
    def run_census(self, census: Census) -> dict[str, Any]: ...
    def run(
        self,
        lane: NDArray[np.int32],
        sample: NDArray[np.int32],
        deadline_ns: NDArray[np.int64] | None = None,
        threads: int = 1,
    ) -> dict[str, Any]: ...
    def outcomes(
        self,
        lane: NDArray[np.int32],
        sample: NDArray[np.int32],
        deadline_ns: NDArray[np.int64] | None = None,
        first: int = 0,
        threads: int = 1,
    ) -> dict[str, NDArray[Any]]: ...

class Queues:
    def __init__(
        self,
        lanes: Sequence[Lane],
        labels: NDArray[np.int32] | None,
        classes: int,
        seed: int,
        stations: Sequence[_StationRow],
        links: int,
        outputs: Sequence[Outputs],
        engine: str,
        rows: bool = False,
        row_first: int = 0,
        row_last: int = ...,
        warmup_ns: int = 0,
        gossip_ns: int = 0,
        exact: bool = True,
        outages: Sequence[_OutageRow] = (),
        expected: int = 0,
    ) -> None: ...
    @staticmethod
    def feeds_forward(lanes: Sequence[Lane], stations: Sequence[_StationRow]) -> bool: ...
    def push(
        self,
        arrival_ns: NDArray[np.int64],
        lane: NDArray[np.int32],
        sample: NDArray[np.int32],
        deadline_ns: NDArray[np.int64] | None = None,
        priority: NDArray[np.int32] | None = None,
        first: int = 0,
    ) -> None: ...
    def finish(self) -> None: ...
    def tally(self) -> dict[str, Any]: ...
    def nearest_ranks(self, shares: NDArray[np.float64]) -> NDArray[np.int64]: ...
    def stations(self) -> list[dict[str, Any]]: ...
    def links(self) -> list[dict[str, Any]]: ...
    def rescue(self) -> dict[str, int]: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def span_ns(self) -> int: ...
    @property
    def arrivals_ns(self) -> int: ...
    def take(self) -> dict[str, NDArray[Any]]: ...

def philox(counter: Sequence[int], key: Sequence[int]) -> list[int]: ...
