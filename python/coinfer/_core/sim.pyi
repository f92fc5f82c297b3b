from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coinfer._core.plan import Decisions, Evidence, Plan

_Leg = tuple[int, int, list[tuple[int, float]]]

class Lane:
    def __init__(
        self,
        plan: Plan,
        evidence: Evidence,
        decisions: Decisions,
        enter: Sequence[_Leg],
        back: Sequence[_Leg],
        members: Sequence[tuple[_Leg, _Leg, tuple[str, float, float, Any], int]],
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

def philox(counter: Sequence[int], key: Sequence[int]) -> list[int]: ...
