from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

def score(
    z: NDArray[np.floating],
    kind: str,
    temperature: float,
    input: str,
    out: NDArray[np.float32] | None,
    threads: int,
    /,
) -> NDArray[np.float32]: ...
def scores(
    z: NDArray[np.floating],
    kinds: Sequence[str],
    temperature: float,
    input: str,
    out: Mapping[str, NDArray[np.float32] | NDArray[np.int32]] | None,
    threads: int,
    results: dict[str, NDArray[Any]],
    /,
) -> int: ...
