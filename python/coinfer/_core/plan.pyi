from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coinfer._core.rule import Stop

_Points = tuple[Sequence[float], Sequence[float]]

class Outputs:
    def __init__(
        self,
        form: str,
        vector: NDArray[np.float32] | None = None,
        label: NDArray[np.int32] | None = None,
        confidence: NDArray[np.float32] | None = None,
        relabel: NDArray[np.int32] | None = None,
    ) -> None: ...

class Combiner:
    def __init__(self, name: str, classes: int = 0, score: str = "max_prob") -> None: ...
    @property
    def state_floats(self) -> int: ...
    @property
    def memoryless(self) -> bool: ...

class Plan:
    def __init__(
        self,
        members: Sequence[tuple[Any, ...]],
        stages: Sequence[tuple[int, int, float, float, _Points | None]],
        combiner: str | Combiner,
        oracle: bool,
        classes: int = 0,
        score: str = "max_prob",
        rule: Stop | None = None,
    ) -> None: ...
    @property
    def state_independent(self) -> bool: ...
    @property
    def stages(self) -> int: ...

class Evidence:
    @property
    def stages(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def missed_rows(self) -> list[int]: ...
    @property
    def unsure_rows(self) -> list[int]: ...
    @property
    def label(self) -> NDArray[np.int32]: ...
    @property
    def score(self) -> NDArray[np.float32]: ...

class Decisions:
    @property
    def itineraries(self) -> list[list[int]]: ...
    @property
    def route(self) -> NDArray[np.uint8]: ...

class Status(Enum):
    open = 0
    answered = 1
    degraded = 2
    rejected = 3
    expired = 4
    failed = 5

class Session:
    def __init__(self, plan: Plan, uniform: float = 0.0) -> None: ...
    def ask(self) -> list[int]: ...
    def tell(self, member: int, outputs: Outputs) -> None: ...
    def step(
        self, wait_us: float = 0.0, remaining_us: float = ..., uniform: float = 0.0, can_go: bool = True
    ) -> Status: ...
    def settle(self, late: bool) -> Status: ...
    @property
    def status(self) -> Status: ...
    @property
    def stage(self) -> int: ...
    @property
    def label(self) -> int: ...
    @property
    def score(self) -> float: ...
    @property
    def visited(self) -> list[int]: ...

def gather(plan: Plan, outputs: Sequence[Outputs], threads: int = 1) -> Evidence: ...
def decide(plan: Plan, evidence: Evidence, truth: NDArray[np.int32] | None = None) -> Decisions: ...
def settle(scores: NDArray[np.float32], thresholds: NDArray[np.float32], out: NDArray[np.uint8]) -> None: ...
