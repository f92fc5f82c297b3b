from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coinfer._core.plan import Evidence

_Quantity = NDArray[np.int64] | NDArray[np.uint8]
_Points = tuple[NDArray[np.float32], NDArray[np.int64], list[NDArray[np.int64]]]
_Sums = tuple[NDArray[np.int64], list[NDArray[np.int64]]]
_Pair = tuple[float, float, int, int, bool]

def cuts(evidence: Evidence, quantities: Sequence[_Quantity], rows: NDArray[np.uint32] | None = None) -> _Points: ...
def line(
    evidence: Evidence,
    thresholds: NDArray[np.float32],
    stage: int,
    quantities: Sequence[_Quantity],
    rows: NDArray[np.uint32] | None = None,
) -> _Points: ...
def levels(
    evidence: Evidence, stage: int, count: int, rows: NDArray[np.uint32] | None = None
) -> NDArray[np.float32]: ...
def grid(
    evidence: Evidence,
    thresholds: Sequence[NDArray[np.float32]],
    quantities: Sequence[_Quantity],
    rows: NDArray[np.uint32] | None = None,
    threads: int = 1,
) -> _Sums: ...
def vectors(
    evidence: Evidence,
    thresholds: NDArray[np.float32],
    quantities: Sequence[_Quantity],
    rows: NDArray[np.uint32] | None = None,
    threads: int = 1,
) -> _Sums: ...
def quantiles(
    evidence: Evidence,
    thresholds: NDArray[np.float32],
    values: NDArray[np.int64],
    reach: int,
    rows: NDArray[np.uint32] | None = None,
    threads: int = 1,
) -> NDArray[np.int64]: ...
def cheapest_pair(
    evidence: Evidence,
    cost: _Quantity,
    gain: _Quantity,
    at_least: int,
    limits: Sequence[tuple[_Quantity, int]] = (),
    rows: NDArray[np.uint32] | None = None,
) -> _Pair: ...
def surest_pair(
    evidence: Evidence,
    cost: _Quantity,
    gain: _Quantity,
    limits: Sequence[tuple[_Quantity, int]] = (),
    rows: NDArray[np.uint32] | None = None,
) -> _Pair: ...
def betting(losses: NDArray[np.int8], bound: float, delta: float, threads: int = 1) -> NDArray[np.float64]: ...
def bootstrap(
    tops: NDArray[np.float64], bottoms: NDArray[np.float64], replicates: int, seed: int, threads: int = 1
) -> NDArray[np.float64]: ...
def midway(low: float, high: float) -> float: ...
