from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .plan import Outputs

def combine(
    outputs: Sequence[Outputs],
    weights: Sequence[float],
    temperatures: Sequence[float],
    how: str,
    classes: int,
    probs: bool,
    threads: int = 1,
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32] | None, int]: ...
