from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coinfer._core.plan import Evidence

def cuts(
    evidence: Evidence,
    quantities: Sequence[NDArray[np.int64] | NDArray[np.uint8]],
    rows: NDArray[np.uint32] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64], list[NDArray[np.int64]]]: ...
def midway(low: float, high: float) -> float: ...
