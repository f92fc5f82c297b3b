from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .plan import Combiner, Outputs

def combine(
    outputs: Sequence[Outputs],
    weights: Sequence[float],
    temperatures: Sequence[float],
    combiner: Combiner,
    probs: bool,
    threads: int = 1,
    out: tuple[
        NDArray[np.int32] | None,
        NDArray[np.float32] | None,
        NDArray[np.float32] | None,
        NDArray[np.float32] | None,
    ] = ...,
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32] | None, int]: ...
def stack(
    models: Sequence[tuple[int, NDArray[np.float64], NDArray[np.float64]]],
    members: int,
    classes: int,
    logs: bool,
    floor: float,
    score: str = "max_prob",
) -> Combiner: ...
