"""Combined answers of several models: mean, weighted mean, pool of logarithms, vote, boosted vote, stack.

One pass over all tables at once, because reading them is what combining costs: nothing is stored between reading and
answering. The bits of a row depend on its own values, the weights and the order of the members alone, so the same
combination as a strategy (`coinfer.Ensemble`), in bulk or one request at a time, gives equal labels and scores.

``src/coinfer/combine/pool.hpp`` states the contract in full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from coinfer import _core
from coinfer._arrays import as_array, as_labels, as_vectors
from coinfer._checks import check_number
from coinfer.combiner import HOWS, CombinerSpec, Learned
from coinfer.combiner import combiner as named
from coinfer.errors import BadValueError, UnknownNameError, UnsupportedError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Combined", "combine"]

_INPUTS: Final = ("probs", "logits")
_WEIGHTED: Final = {"weighted": "mean", "weighted_vote": "vote"}


@dataclass(frozen=True)
class Combined:
    """What several models say together.

    Attributes
    ----------
    label : ndarray of int32, shape (N,)
        The class with the largest combined probability, or most votes; the lowest of equals; -1 where no member gave an
        answer.
    confidence : ndarray of float32, shape (N,)
        Its combined probability, or its share of the votes; NaN without an answer.
    margin : ndarray of float32, shape (N,)
        How far the second class is behind.
    probs : ndarray of float32, shape (N, C), or None
        The combined probabilities, or shares of the votes, if they were asked for.
    unanswered : int
        How many rows no member answered.
    """

    label: NDArray[np.int32]
    confidence: NDArray[np.float32]
    margin: NDArray[np.float32]
    probs: NDArray[np.float32] | None
    unanswered: int

    def __len__(self) -> int:
        return len(self.label)


def combine(
    members: Sequence[Any] | Mapping[str, Any],
    how: str | CombinerSpec = "mean",
    weights: Sequence[float] | None = None,
    input: str = "probs",
    *,
    temperature: float | Sequence[float] = 1.0,
    classes: int | None = None,
    probs: bool = False,
    threads: int = 1,
    out: Combined | None = None,
) -> Combined:
    """Combine the answers of several models to the same rows.

    Parameters
    ----------
    members : sequence or mapping of array-like
        One per model, each of shape (N, C); for votes also labels of shape (N,), -1 for no answer.
    how : {"mean", "weighted", "logpool", "vote", "weighted_vote"} or a combiner that was fitted, or is one's own
        ``mean`` of the probabilities (``weighted``: with `weights`, which it demands), ``logpool``: their normalised
        geometric mean, where a zero counts as 2^-126; ``vote``: one vote per member for its label (``weighted_vote``:
        with `weights`, which it demands). `coinfer.Boost.fit` and `coinfer.Stack.fit` give combiners for the same
        members in the same order; `coinfer.rule.combine` makes one of a function.
    weights : sequence of float, optional
        One per member, >= 0, one of them above 0. Default: all equal.
    input : {"probs", "logits"}
        What vectors hold. Logits are softmaxed first.
    temperature : float or one per member, default 1
        T > 0; p = softmax(z / T). Probabilities are tempered as softmax(ln p / T).
    classes : int, optional
        Number of classes, where members give labels only. Default: as many as occur.
    probs : bool, default False
        Whether to return the combined probabilities too.
    threads : int, default 1
        How many threads may work; does not change any result.
    out : Combined, optional
        An earlier result of as many rows, whose arrays are written again: with few classes, fresh memory takes a third
        of the time.

    Returns
    -------
    Combined
        Labels and confidences. A member whose row holds a NaN (or a negative probability) is left out of that row, and
        the weights of the others count.

    Raises
    ------
    UnknownNameError
        If `how` or `input` is not known.
    BadValueError
        If members differ in shape, or a weight or temperature is not allowed.
    UnsupportedError
        If a member gives labels and `how` needs vectors, or `how` names a combiner that must be fitted first.

    Examples
    --------
    >>> import coinfer as ci
    >>> both = ci.combine([[[0.9, 0.1], [0.4, 0.6]], [[0.6, 0.4], [0.7, 0.3]]])
    >>> both.label, both.confidence
    (array([0, 0], dtype=int32), array([0.75, 0.55], dtype=float32))
    >>> ci.combine([[0, 1], [1, 1], [1, 2]], how="vote").label
    array([1, 1], dtype=int32)
    """
    chosen, how = _chosen(how)
    if input not in _INPUTS:
        msg = f"no input is called {input!r}; {nearest(str(input), _INPUTS)}"
        raise UnknownNameError(msg)
    names = [str(name) for name in members] if isinstance(members, Mapping) else []
    if isinstance(members, Mapping):
        members = list(members.values())
    if isinstance(members, str) or not hasattr(members, "__len__") or len(members) == 0:
        msg = f"members must be a list of at least one table, not {type(members).__name__} without any"
        raise BadValueError(msg)
    if how in _WEIGHTED and weights is None:
        msg = f"how={how!r} needs weights=, one per member; how={_WEIGHTED[how]!r} gives all the same"
        raise BadValueError(msg)
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 4096:
        msg = f"threads must be an integer from 1 to 4096, not {threads!r}"
        raise BadValueError(msg)
    count = len(members)
    names = names or [str(i) for i in range(count)]
    if isinstance(chosen, Learned):
        if weights is not None:
            msg = f"how={how!r} has weights of its own; leave weights= out"
            raise BadValueError(msg)
        _check_known(chosen, names)
        weights = [chosen.weights.get(name, 0.0 if chosen.weights else 1.0) for name in names]
    tables = [_member(values, chosen, how, f"member {i}") for i, values in enumerate(members)]
    class_count = _class_count(tables, classes)
    for i, table in enumerate(tables):
        if len(table) != len(tables[0]):
            msg = f"member {i} has {len(table)} rows, but member 0 has {len(tables[0])}"
            raise BadValueError(msg)
    outputs = [
        _core.plan.Outputs("label", None, table) if table.ndim == 1 else _core.plan.Outputs(input, table)
        for table in tables
    ]
    into = (None, None, None, None) if out is None else _written_again(out, tables, class_count if probs else None)
    label, confidence, margin, combined, unanswered = _core.combine.combine(
        outputs,
        check_weights(weights, count),
        _temperatures(temperature, count),
        chosen.build(class_count, names, "max_prob"),
        probs,
        threads,
        into,
    )
    return Combined(label, confidence, margin, combined, unanswered)


def _written_again(out: Combined, tables: list[NDArray[Any]], classes: int | None) -> tuple[Any, Any, Any, Any]:
    """Return the arrays of an earlier result that fit this one; probabilities only if there are `classes` to write."""
    if not isinstance(out, Combined):
        msg = f"out must be an earlier result of combine, not {type(out).__name__}"
        raise BadValueError(msg)
    rows = len(tables[0])
    probs = None if classes is None else out.probs
    for name, array, dtype, shape in (
        ("label", out.label, np.int32, (rows,)),
        ("confidence", out.confidence, np.float32, (rows,)),
        ("margin", out.margin, np.float32, (rows,)),
        *([] if probs is None else [("probs", probs, np.float32, (rows, classes))]),
    ):
        fits = isinstance(array, np.ndarray) and array.shape == shape and array.dtype == dtype
        if not fits or not array.flags.carray:
            msg = f"out.{name} must be a writeable, contiguous array of shape {shape} and dtype {np.dtype(dtype)}"
            raise BadValueError(msg)
        if any(np.may_share_memory(array, table) for table in tables):
            msg = f"out.{name} overlaps a member"
            raise BadValueError(msg)
    return out.label, out.confidence, out.margin, probs


def _chosen(how: str | CombinerSpec) -> tuple[CombinerSpec, str]:
    if isinstance(how, CombinerSpec):
        return how, how.name
    if how not in HOWS:
        msg = f"no way to combine is called {how!r}; {nearest(str(how), HOWS)}"
        raise UnknownNameError(msg)
    if how in Learned.hows:
        kind = Learned.hows[how].__name__
        msg = f"how={how!r} must be fitted first: pass how=coinfer.{kind}.fit(members, labels) of other, labelled rows"
        raise UnsupportedError(msg)
    return named(_WEIGHTED.get(how, how)), how


def _check_known(chosen: Learned, names: list[str]) -> None:
    """Refuse other members than those it was fitted for, or left out."""
    known = [*chosen.models, *getattr(chosen, "dropped", ())]
    if sorted(known) != sorted(names):
        msg = f"{chosen.how} was fitted for the members {', '.join(known)}, but is given {', '.join(names)}"
        raise UnsupportedError(msg)


def check_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    """Return one weight per member, all >= 0 and one above 0; ones if none are given."""
    if weights is None:
        return [1.0] * count
    given = as_array(weights, "weights")
    if given.shape != (count,):
        msg = f"weights must hold one number per member, {count} in all, not an array of shape {given.shape}"
        raise BadValueError(msg)
    checked = [check_number(value, f"weight {i}") for i, value in enumerate(given.tolist())]
    if not any(checked):
        msg = "weights are all 0; at least one must be above 0"
        raise BadValueError(msg)
    if max(checked) > float(np.finfo(np.float32).max):
        msg = f"weight {checked.index(max(checked))} is {max(checked):g}, which does not fit float32"
        raise BadValueError(msg)
    return checked


def _temperatures(temperature: float | Sequence[float], count: int) -> list[float]:
    values = [temperature] * count if np.ndim(temperature) == 0 else list(temperature)  # type: ignore[arg-type]
    if len(values) != count:
        msg = f"temperature must be one number, or one per member, {count} in all, not {len(values)}"
        raise BadValueError(msg)
    checked = [check_number(value, f"temperature {i}", above=0.0) for i, value in enumerate(values)]
    for i, value in enumerate(checked):
        if not 0 < np.float32(value) < np.inf:
            msg = f"temperature {i} is {value:g}; it must be finite and above 0 in float32"
            raise BadValueError(msg)
    return checked


def _member(values: Any, chosen: CombinerSpec, how: str, what: str) -> NDArray[Any]:
    array = as_array(values, what)
    if array.ndim != 1 or array.dtype == object:
        return as_vectors(array, what)
    if chosen.needs == "vectors":
        msg = f"{what} has shape {array.shape}: how={how!r} needs vectors, shape (N, C); labels can only vote"
        raise UnsupportedError(msg)
    return as_labels(array, what, None)


def _class_count(tables: list[NDArray[Any]], classes: int | None) -> int:
    widths = {i: table.shape[1] for i, table in enumerate(tables) if table.ndim == 2}
    if classes is not None and (isinstance(classes, bool) or not isinstance(classes, int) or classes < 1):
        msg = f"classes must be an integer >= 1, not {classes!r}"
        raise BadValueError(msg)
    first = next(iter(widths), None)
    count = classes if classes is not None else None if first is None else widths[first]
    for i, width in widths.items():
        if width != count:
            said = f"member {first} has {count}" if classes is None else f"classes is {classes}"
            msg = f"member {i} has {width} classes, but {said}"
            raise BadValueError(msg)
    largest = {i: int(table.max()) for i, table in enumerate(tables) if table.ndim == 1 and len(table)}
    if count is None:
        return 1 + max([0, *largest.values()])
    for i, label in largest.items():
        if label >= count:
            msg = f"member {i} holds label {label}, but there are {count} classes (0 to {count - 1})"
            raise BadValueError(msg)
    return count
