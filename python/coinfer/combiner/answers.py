"""What a combiner learns from: the answers of several models to the same labelled samples.

The members' vectors and labels are read by the engine, the same way as when the combiner is applied, so that what was
learned fits what will be seen: temperatures, label sets, rows without an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer import _core
from coinfer._arrays import as_array, as_labels, as_vectors
from coinfer.errors import BadValueError, UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Answers"]


@dataclass(frozen=True)
class Answers:
    """The answers of several models to labelled samples.

    Attributes
    ----------
    models : tuple of str
    outputs : tuple of engine outputs
        One per model, over the same rows.
    truth : ndarray of int32, shape (N,)
        True labels; -1 where unknown.
    classes : int
    class_names : tuple of str or None
    silent : ndarray of bool, shape (M, N), or None
        Where a model declined to answer ("I don't know"), which its outputs alone do not tell.
    """

    models: tuple[str, ...]
    outputs: tuple[Any, ...]
    truth: NDArray[np.int32]
    classes: int
    class_names: tuple[str, ...] | None = None
    silent: NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, members: Sequence[Any] | Mapping[str, Any], labels: Any, input: str, classes: int | None) -> Answers:
        """Take tables of shape (N, C), or labels of shape (N,); models are numbered unless they are named."""
        tables = dict(members) if isinstance(members, Mapping) else {str(i): m for i, m in enumerate(members)}
        if not tables:
            msg = "there must be at least one member"
            raise BadValueError(msg)
        arrays: dict[str, NDArray[Any]] = {}
        for name, values in tables.items():
            array = as_array(values, f"member {name}")
            vectors = array.ndim != 1 or array.dtype == object
            arrays[name] = as_vectors(array, f"member {name}") if vectors else as_labels(array, f"member {name}", None)
        truth = as_labels(as_array(labels, "labels"), "labels", None)
        for name, array in arrays.items():
            if len(array) != len(truth):
                msg = f"member {name} has {len(array)} rows, but there are {len(truth)} labels"
                raise BadValueError(msg)
        widths = {array.shape[1] for array in arrays.values() if array.ndim == 2} | ({classes} if classes else set())
        if len(widths) > 1:
            msg = f"members differ in their number of classes: {', '.join(map(str, sorted(widths)))}"
            raise BadValueError(msg)
        labelled = [truth, *(array for array in arrays.values() if array.ndim == 1)]
        most = 1 + max(int(array.max(initial=0)) for array in labelled)
        count = widths.pop() if widths else most
        if most > count:
            msg = f"a label is {most - 1}, but there are {count} classes (0 to {count - 1})"
            raise BadValueError(msg)
        outputs = tuple(
            _core.plan.Outputs("label", None, array) if array.ndim == 1 else _core.plan.Outputs(input, array)
            for array in arrays.values()
        )
        return cls(tuple(arrays), outputs, truth, count)

    def labels(self) -> NDArray[np.int32]:
        """Give every model's labels, shape (M, N); -1 where it gave none."""
        vote = _core.plan.Combiner("vote", self.classes)
        said = np.stack([_core.combine.combine([o], [1.0], [1.0], vote, False)[0] for o in self.outputs])
        if self.silent is not None:
            said[self.silent] = -1
        return said

    def vectors(self) -> NDArray[np.float32]:
        """Give every model's probabilities, shape (M, N, C); NaN where it gave none."""
        mean = _core.plan.Combiner("mean", self.classes)
        tables = [_core.combine.combine([o], [1.0], [1.0], mean, True)[3] for o in self.outputs]
        said = np.stack([table for table in tables if table is not None])
        if self.silent is not None:
            said[self.silent] = np.nan
        return said

    def check_labelled(self, how: str) -> None:
        """Refuse to learn without labels."""
        if not np.any(self.truth >= 0):
            msg = f"{how} is fitted on the true labels of the samples, but these have none"
            raise UnsupportedError(msg)
