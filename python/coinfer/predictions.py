"""Predictions: what every model says about every sample.

This table is the evidence base of everything else, and real services fill it unevenly: one returns logits,
another probabilities, a third a label and a confidence, a fourth only a label. Each model keeps the form it
came in; nothing is made up. What the table does settle is the label space: models that name their classes are
aligned by name, so that label 3 means the same class for all of them.

Vectors stay where they are (float32, unit stride along rows); alignment copies only the columns of a model
whose classes come in another order than the shared ones, because ties go to the lowest label and that rule
must not depend on the order in which one model lists its outputs.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from coinfer._arrays import as_array, as_labels, as_numbers, as_vectors, check_range, first_row, frozen
from coinfer._checks import check_mapping, check_name, check_unique
from coinfer._files import METADATA_KEY, check_metadata, encode_metadata, reading, replacing, suffix_of
from coinfer.errors import BadFileError, BadValueError, UnknownNameError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from os import PathLike

    from numpy.typing import NDArray

__all__ = ["ModelOutput", "Predictions"]

_FIELDS: Final = ("logits", "probs", "label", "confidence", "service_us", "classes")
_BLOCK = 1 << 18  # elements of a vector looked at together
_REPR_ELEMENTS_MAX = 20_000_000  # a larger vector is not scanned just to print its accuracy


class ModelOutput:
    """What one model says about N samples, in exactly one form.

    Parameters
    ----------
    logits : array-like of shape (N, C), optional
        Unnormalised scores. Infinities are allowed; a row with a NaN is "no answer".
    probs : array-like of shape (N, C), optional
        Probabilities: in [0, 1], rows sum to 1 within 1e-3. A row of NaN is "no answer".
    label : array-like of shape (N,), optional
        Integers, or class names if `classes` are given; -1 or null is "no answer".
    confidence : array-like of shape (N,), optional
        How sure the service was of `label`, higher is surer, on whatever scale; NaN where it did not say.
    classes : sequence of str, optional
        Names of the C classes, in the order of the columns (or of the integer labels).
    service_us : array-like of shape (N,), optional
        Measured service time of each sample, microseconds, >= 0.

    Attributes
    ----------
    form : {"logits", "probs", "label_confidence", "label"}
        Which form this is.
    vector : ndarray of float32, shape (N, C), or None
        The logits or probabilities, unit stride along rows; the caller's memory where its layout allows.
    label : ndarray of int32, shape (N,), or None
        The labels, for the two label forms.
    confidence, service_us : ndarray of float32, shape (N,), or None
        As given.
    classes : tuple of str or None
        As given; in the order of the columns of `vector`.
    relabel : ndarray of int32, shape (C,), or None
        Increasing map from the columns of `vector` to the classes shared by a `Predictions`; None where they
        are the same.

    Raises
    ------
    BadValueError
        If not exactly one form is given, shapes disagree, or a value is not allowed; the message names the
        first bad row.
    UnknownNameError
        If a label names a class that is not in `classes`.

    Notes
    -----
    Accepts NumPy arrays, torch tensors, pandas, polars and Arrow columns or frames, and lists. float32 arrays
    and tensors with unit stride along rows are shared, not copied; do not write to them afterwards.

    Examples
    --------
    >>> ModelOutput(probs=[[0.9, 0.1], [0.4, 0.6]], classes=["cat", "dog"])
    ModelOutput(form='probs', samples=2, classes=2)
    >>> ModelOutput(label=["dog", None], classes=["cat", "dog"]).label
    array([ 1, -1], dtype=int32)
    """

    __slots__ = ("_class_count", "classes", "confidence", "form", "label", "relabel", "service_us", "vector")

    form: str
    vector: NDArray[np.float32] | None
    label: NDArray[np.int32] | None
    confidence: NDArray[np.float32] | None
    classes: tuple[str, ...] | None
    service_us: NDArray[np.float32] | None
    relabel: NDArray[np.int32] | None
    _class_count: int | None

    def __init__(
        self,
        *,
        logits: Any = None,
        probs: Any = None,
        label: Any = None,
        confidence: Any = None,
        classes: Sequence[str] | None = None,
        service_us: Any = None,
    ) -> None:
        given = [n for n, v in (("logits", logits), ("probs", probs), ("label", label)) if v is not None]
        if len(given) != 1:
            found = f"both {' and '.join(given)}" if given else "none of them"
            msg = f"give exactly one of logits, probs, or label (with or without confidence), not {found}"
            raise BadValueError(msg)
        if confidence is not None and label is None:
            msg = f"confidence goes with label only; {given[0]} carry their own"
            raise BadValueError(msg)
        names = _class_names(classes, "classes") if classes is not None else None
        values: dict[str, Any] = dict.fromkeys(self.__slots__)
        values["classes"] = names
        values["_class_count"] = len(names) if names is not None else None
        if label is None:
            values["form"] = given[0]
            vector = as_vectors(logits if probs is None else probs, given[0])
            if names is not None and len(names) != vector.shape[1]:
                msg = f"{given[0]} have {vector.shape[1]} columns but classes has {len(names)} names"
                raise BadValueError(msg)
            if probs is not None:
                _check_probs(vector)
            values["vector"], values["_class_count"] = vector, vector.shape[1]
        else:
            values["form"] = "label" if confidence is None else "label_confidence"
            values["label"] = as_labels(label, "label", names, None if names is None else len(names))
            if confidence is not None:
                values["confidence"] = as_numbers(confidence, "confidence")
                _check_length(values["confidence"], "confidence", len(values["label"]))
                _refuse(
                    np.isinf(values["confidence"]),
                    values["confidence"],
                    "confidence",
                    "finite, or NaN where unknown",
                )
        if service_us is not None:
            rows = len(values["label"] if values["vector"] is None else values["vector"])
            time = values["service_us"] = as_numbers(service_us, "service_us")
            _check_length(time, "service_us", rows)
            _refuse(~((time >= 0) & (time < np.inf)), time, "service_us", "a finite number >= 0")
        self._fill(values)

    def _fill(self, values: Mapping[str, Any]) -> None:
        for name in self.__slots__:
            object.__setattr__(self, name, values[name])

    def _with(self, **changes: Any) -> ModelOutput:
        """Return a copy with other attributes, which are trusted."""
        copy = object.__new__(ModelOutput)
        copy._fill({**{name: getattr(self, name) for name in self.__slots__}, **changes})
        return copy

    def __setattr__(self, name: str, value: object) -> None:
        msg = f"a ModelOutput cannot be changed; build a new one instead of setting {name!r}"
        raise AttributeError(msg)

    def __delattr__(self, name: str) -> None:
        self.__setattr__(name, None)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, ({name: getattr(self, name) for name in self.__slots__},)

    def __len__(self) -> int:
        rows = self.label if self.vector is None else self.vector
        assert rows is not None
        return len(rows)

    def __repr__(self) -> str:
        classes = "" if self._class_count is None else f", classes={self._class_count}"
        return f"ModelOutput(form={self.form!r}, samples={len(self)}{classes})"

    @property
    def class_count(self) -> int | None:
        """Number of this model's classes; None if it gives labels without names."""
        return self._class_count

    def answers(self) -> NDArray[np.int32]:
        """Return the label of every sample, shape (N,): ties go to the lowest label, -1 is no answer."""
        if self.vector is None:
            assert self.label is not None
            return self.label
        result = np.empty(len(self), np.int32)
        step = max(1, _BLOCK // self.vector.shape[1])
        for start in range(0, len(self), step):
            block = self.vector[start : start + step]
            best = block.argmax(axis=1)  # the first NaN, if the row has one
            nothing = np.isnan(block[np.arange(len(block)), best])
            if self.relabel is not None:
                best = self.relabel[best]
            result[start : start + step] = np.where(nothing, -1, best)
        return result

    def select(self, rows: Any) -> ModelOutput:
        """Return the output for some samples: `rows` is a slice, an array of row numbers or a mask."""
        return self._take(_row_index(rows, len(self)))

    def _take(self, index: Any) -> ModelOutput:
        columns = ("vector", "label", "confidence", "service_us")
        taken = {name: getattr(self, name) for name in columns}
        return self._with(**{k: None if v is None else frozen(v[index]) for k, v in taken.items()})


class Predictions:
    """What every model says about every sample, with the truth where it is known.

    Parameters
    ----------
    outputs : mapping of str to ModelOutput
        The models by name, all for the same N samples in the same order.
    labels : array-like of shape (N,), optional
        True labels: integers (positions in the shared classes) or class names; -1 or null where unknown.
    classes : sequence of str, optional
        Shared class names in order. By default, where models name theirs: all names in the order in which
        they first occur.

    Attributes
    ----------
    models : tuple of str
        Model names, in the order given.
    labels : ndarray of int32, shape (N,), or None
        True labels.
    classes : tuple of str or None
        Shared class names.
    class_count : int
        Number of shared classes.

    Raises
    ------
    BadValueError
        If models differ in length, a model without class names has another number of classes than the others,
        or a label is out of range.
    UnknownNameError
        If a model or label names a class that is not in `classes`.

    Examples
    --------
    >>> predictions = Predictions(
    ...     {
    ...         "small": ModelOutput(probs=[[0.9, 0.1], [0.4, 0.6]], classes=["cat", "dog"]),
    ...         "api": ModelOutput(label=["cat", "cat"], confidence=[0.8, 0.5], classes=["dog", "cat"]),
    ...     },
    ...     labels=["cat", "dog"],
    ... )
    >>> predictions["api"].label
    array([0, 0], dtype=int32)
    >>> predictions
    Predictions: 2 samples, 2 classes, 2 models, labelled
      model  form              classes  accuracy
      small  probs                   2    1.0000
      api    label_confidence        2    0.5000
    """

    def __init__(
        self, outputs: Mapping[str, ModelOutput], labels: Any = None, classes: Sequence[str] | None = None
    ) -> None:
        outputs = check_mapping(outputs, "outputs", "model name to its ModelOutput")
        _check_outputs(outputs)
        names = _class_names(classes, "classes") if classes is not None else _union(outputs)
        count = len(names) if names is not None else _common_class_count(outputs)
        truth = None
        if labels is not None:
            truth = as_labels(labels, "labels", names, count)
            _check_length(truth, "labels", len(next(iter(outputs.values()))))
        if count is None:  # labels only, and nobody names the classes: as many as occur
            largest = [-1 if len(o) == 0 else int(np.max(o.label)) for o in outputs.values() if o.label is not None]
            count = 1 + max([0, *largest, -1 if truth is None or len(truth) == 0 else int(truth.max())])
        self._outputs = {name: _aligned(name, output, names, count) for name, output in outputs.items()}
        self._labels = truth
        self._classes = names
        self._class_count = count
        self._fingerprint: str | None = None
        self._accuracy: dict[str, float] = {}

    @property
    def models(self) -> tuple[str, ...]:
        """Model names, in the order given."""
        return tuple(self._outputs)

    @property
    def labels(self) -> NDArray[np.int32] | None:
        """True labels, -1 where unknown; None if there are none."""
        return self._labels

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Shared class names; None if nobody gave any."""
        return self._classes

    @property
    def class_count(self) -> int:
        """Number of shared classes."""
        return self._class_count

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the content in hexadecimal: equal for equal tables, whatever file they came from."""
        if self._fingerprint is None:
            self._fingerprint = _digest(self)
        return self._fingerprint

    def __len__(self) -> int:
        return len(next(iter(self._outputs.values())))

    def __getitem__(self, model: str) -> ModelOutput:
        if model not in self._outputs:
            msg = f"there is no model {model!r} in these predictions; {nearest(model, self._outputs)}"
            raise UnknownNameError(msg)
        return self._outputs[model]

    def __contains__(self, model: object) -> bool:
        return model in self._outputs

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def select(self, rows: Any) -> Predictions:
        """Return the table of some samples.

        Parameters
        ----------
        rows : slice, array of int, or array of bool with shape (N,)
            Row numbers in any order, repeated if wanted, or a mask. A slice shares memory, the others copy.

        Raises
        ------
        BadValueError
            If a row number is not in [0, N) or a mask has another length.

        Examples
        --------
        >>> len(Predictions({"m": ModelOutput(label=[0, 1, 1])}, labels=[0, 1, 0]).select([0, 2]))
        2
        """
        index = _row_index(rows, len(self))
        copy = object.__new__(Predictions)
        copy._outputs = {name: output._take(index) for name, output in self._outputs.items()}
        copy._labels = None if self._labels is None else frozen(self._labels[index])
        copy._classes, copy._class_count = self._classes, self._class_count
        copy._fingerprint, copy._accuracy = None, {}
        return copy

    def accuracy(self, model: str) -> float:
        """Return the share of labelled samples that a model gets right; no answer is wrong."""
        output = self[model]
        if self._labels is None:
            return float("nan")
        if model not in self._accuracy:
            known = self._labels >= 0
            right = (output.answers() == self._labels) & known
            total = np.count_nonzero(known)
            self._accuracy[model] = float(np.count_nonzero(right) / total) if total else float("nan")
        return self._accuracy[model]

    def __repr__(self) -> str:
        labelled = "not labelled" if self._labels is None else "labelled"
        head = (
            f"Predictions: {len(self):,} samples, {self._class_count:,} classes, {len(self._outputs)} "
            f"model{'' if len(self._outputs) == 1 else 's'}, {labelled}"
        )
        rows = [("model", "form", "classes", "accuracy")]
        for name, output in list(self._outputs.items())[:20]:
            large = output.vector is not None and output.vector.size > _REPR_ELEMENTS_MAX
            accuracy = "" if self._labels is None or large else f"{self.accuracy(name):.4f}"
            rows.append((name, output.form, str(output.class_count or ""), accuracy))
        left = [max(len(row[i]) for row in rows) for i in range(2)]
        lines = [f"  {a:<{left[0]}}  {b:<{left[1]}}  {c:>7}  {d:>8}".rstrip() for a, b, c, d in rows]
        if len(self._outputs) > 20:
            lines.append(f"  ... and {len(self._outputs) - 20} more")
        return "\n".join([head, *lines])

    # ---- files ---------------------------------------------------------------------------------------------

    def save(self, path: str | PathLike[str]) -> None:
        """Write the table; the suffix says the format: ``.parquet``, ``.arrow`` or ``.feather``, ``.npz``.

        Arrow files are written so that `open` maps them into memory without a copy; Parquet is smaller and
        portable. The file appears under its name only when it is complete.

        Raises
        ------
        BadValueError
            If the suffix is none of these.
        BadFileError
            If the file cannot be written; an old file of that name is left as it was.
        """
        path = Path(path)
        suffix = suffix_of(path, (".parquet", ".arrow", ".feather", ".npz"))
        with replacing(path) as temporary:
            if suffix == ".npz":
                with temporary.open("wb") as file:
                    np.savez(file, allow_pickle=False, **_to_arrays(self))
            else:
                _write_table(_to_table(self), temporary, suffix)

    @classmethod
    def open(
        cls, path: str | PathLike[str], *, classes: Sequence[str] | None = None, ignore_extra: bool = False
    ) -> Predictions:
        """Read a table, written by `save` or by anything that keeps to the column names.

        Columns (or keys of an ``.npz``) are ``MODEL/logits``, ``MODEL/probs``, ``MODEL/label``,
        ``MODEL/confidence``, ``MODEL/service_us``, with a dot instead of the slash if you like, and
        ``labels`` or ``label`` for the truth. See ``docs/formats.md``.

        Parameters
        ----------
        path : path
            ``.parquet``, ``.arrow``, ``.feather``, ``.npz`` or ``.csv``.
        classes : sequence of str, optional
            Shared class names of a file that does not hold them. Label columns of strings need none: their
            distinct values, sorted, are the classes.
        ignore_extra : bool, default False
            Whether to skip columns of other names rather than to refuse them.

        Raises
        ------
        BadFileError
            If the file is missing, empty, truncated, of another kind, or holds no model.
        BadValueError, UnknownNameError
            If a column is not allowed; the message starts with the file.
        """
        path = Path(path)
        suffix = suffix_of(path, (".parquet", ".arrow", ".feather", ".npz", ".csv"))
        with reading(path, f"predictions ({_KIND[suffix]})"):
            if suffix == ".npz":
                with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                    columns: dict[str, Any] = {key: archive[key] for key in archive.files}
                raw = columns.pop("coinfer", None)
                metadata = check_metadata(None if raw is None else str(raw).encode(), "predictions", _OPENERS)
            else:
                table = _read_table(path, suffix)
                table.validate(full=True)  # offsets that point outside would crash a reader, not raise
                metadata = check_metadata(
                    (table.schema.metadata or {}).get(METADATA_KEY), "predictions", _OPENERS
                )
                check_unique(table.column_names, "column")
                columns = dict(zip(table.column_names, table.columns, strict=True))
            return _from_columns(columns, metadata, classes, ignore_extra)

    @classmethod
    def from_frame(cls, frame: Any, *, classes: Sequence[str] | None = None, ignore_extra: bool = False) -> Predictions:
        """Build the table from a pandas or polars frame or an Arrow table, with the column names of `open`.

        Raises
        ------
        BadValueError, UnknownNameError
            As for `open`.

        Examples
        --------
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"a.label": [0, 1], "a.confidence": [0.9, 0.6], "label": [0, 0]})
        >>> Predictions.from_frame(frame).accuracy("a")
        0.5
        """
        library = type(frame).__module__.partition(".")[0]
        if library == "pandas":
            check_unique(map(str, frame.columns), "column")
            columns = {str(name): frame[name] for name in frame.columns}
        elif library in ("polars", "pyarrow"):
            names = frame.columns if library == "polars" else frame.column_names
            columns = {name: frame[name] for name in names}
        else:
            msg = f"from_frame takes a pandas or polars frame or an Arrow table, not {type(frame).__name__}"
            raise BadValueError(msg)
        return _from_columns(columns, {}, classes, ignore_extra)


def _restored(values: Mapping[str, Any]) -> ModelOutput:
    output = object.__new__(ModelOutput)
    output._fill(values)
    return output


def _row_index(rows: Any, count: int) -> Any:
    """Return a slice or an int64 array of rows in [0, count)."""
    if isinstance(rows, slice):
        return rows
    index = as_array(rows, "rows")
    if index.ndim == 1 and index.dtype == np.bool_:
        _check_length(index, "rows, a mask,", count)
        return np.flatnonzero(index)
    if index.ndim == 1 and index.size == 0:
        return np.empty(0, np.int64)
    if index.ndim != 1 or index.dtype.kind not in "iu":
        msg = f"rows must be a slice, a boolean mask or row numbers, not {index.dtype} of shape {index.shape}"
        raise BadValueError(msg)
    check_range(index, "rows", 0, count - 1, f"row numbers must be from 0 to {count - 1}")
    return index


def _class_names(values: Any, what: str) -> tuple[str, ...]:
    if isinstance(values, str):
        msg = f"{what} must be a list of names, not {values!r}"
        raise BadValueError(msg)
    names = tuple(str(v) if isinstance(v, np.str_) else v for v in as_array(values, what).tolist())
    if not names:
        msg = f"{what} must hold at least one name"
        raise BadValueError(msg)
    for name in names:
        check_name(name, f"{what}: each name")
    check_unique(names, f"{what}: class")
    return names


def _check_length(array: NDArray[Any], what: str, rows: int) -> None:
    if len(array) != rows:
        msg = f"{what} must have one value per sample, {rows} in all, not {len(array)}"
        raise BadValueError(msg)


def _refuse(bad: NDArray[np.bool_], array: NDArray[Any], what: str, allowed: str) -> None:
    if bad.any():
        row = first_row(bad)
        msg = f"{what}: row {row} is {array[row]}; it must be {allowed}"
        raise BadValueError(msg)


def _check_probs(vector: NDArray[np.float32]) -> None:
    """Refuse rows that are not distributions; a matrix-vector product per block sums rows at memory speed."""
    ones = np.ones(vector.shape[1], np.float32)
    step = max(1, _BLOCK // vector.shape[1])
    for start in range(0, len(vector), step):
        block = vector[start : start + step]
        with np.errstate(invalid="ignore", over="ignore"):
            sums = block @ ones
        off = ~(np.abs(sums - 1.0) <= 1e-3)  # true for NaN
        if not off.any() and block.min() >= -1e-6 and block.max() <= 1.0 + 1e-3:
            continue
        silent = np.all(np.isnan(block), axis=1)
        inside = np.all((block >= -1e-6) & (block <= 1.0 + 1e-3), axis=1)
        outside = ~inside & ~silent
        bad = (off & ~silent) | outside
        if not bad.any():
            continue
        row = first_row(bad)
        values = block[row]
        if np.isnan(values).any():
            found = "mixes NaN and numbers"
        elif outside[row]:
            worst = values[np.argmax(np.maximum(-values, values - 1.0))]
            found = f"holds {worst:g}, which is outside [0, 1]"
        else:
            found = f"sums to {sums[row]:.6g}"
        msg = (
            f"probs: row {start + row} {found}; each row must be probabilities "
            "that sum to 1 within 1e-3, or all NaN "
            "for no answer (pass unnormalised scores as logits=)"
        )
        raise BadValueError(msg)


def _check_outputs(outputs: Mapping[str, ModelOutput]) -> None:
    for name, output in outputs.items():
        check_name(name, "model name")
        _check_output(name, output)
    (first, output), *others = outputs.items()
    for name, other in others:
        if len(other) != len(output):
            msg = f"models must have the same samples: {first!r} has {len(output)} rows, {name!r} has {len(other)}"
            raise BadValueError(msg)


def _check_output(name: str, output: object) -> None:
    if not isinstance(output, ModelOutput):
        msg = f"model {name!r}: must be a ModelOutput such as ModelOutput(logits=z), not {type(output).__name__}"
        raise BadValueError(msg)


def _union(outputs: Mapping[str, ModelOutput]) -> tuple[str, ...] | None:
    names = dict.fromkeys(name for output in outputs.values() for name in output.classes or ())
    return tuple(names) or None


def _common_class_count(outputs: Mapping[str, ModelOutput]) -> int | None:
    """Return the number of columns that all vectors have, or None if there are none."""
    counts = {name: output.vector.shape[1] for name, output in outputs.items() if output.vector is not None}
    if not counts:
        return None
    (first, count), *others = counts.items()
    for name, other in others:
        if other != count:
            msg = (
                f"model {first!r} has {count} classes and {name!r} has {other}, and neither names them; "
                "give classes= to each ModelOutput to align them by name"
            )
            raise BadValueError(msg)
    return int(count)


def _aligned(name: str, output: ModelOutput, classes: tuple[str, ...] | None, count: int) -> ModelOutput:
    """Return the output in the shared label space."""
    if output.relabel is not None and output.classes is None:
        msg = f"model {name!r}: was aligned without class names and cannot be aligned again"
        raise BadValueError(msg)
    if output.classes is None:
        if output.vector is not None and output.vector.shape[1] != count:
            msg = (
                f"model {name!r}: has {output.vector.shape[1]} classes "
                f"without names where {count} are shared; "
                "give its ModelOutput classes="
            )
            raise BadValueError(msg)
        if output.label is not None:
            allowed = f"a label must be from 0 to {count - 1}, or -1 for none"
            check_range(output.label, f"model {name!r}: label", -1, count - 1, allowed)
        return output if classes is None else output._with(classes=classes, _class_count=count)
    assert classes is not None
    position = {c: i for i, c in enumerate(classes)}
    for c in output.classes:
        if c not in position:
            msg = f"model {name!r}: its class {c!r} is not among the shared classes; {nearest(c, classes)}"
            raise UnknownNameError(msg)
    to_shared = np.array([position[c] for c in output.classes], np.int32)
    if output.vector is None:
        label = output.label
        assert label is not None
        if output.classes != classes[: len(output.classes)]:
            label = frozen(np.append(to_shared, np.int32(-1))[label])
        return output._with(label=label, classes=classes, _class_count=count)
    vector, own = output.vector, output.classes
    if np.any(np.diff(to_shared) < 0):
        order = np.argsort(to_shared)
        vector = frozen(np.ascontiguousarray(vector[:, order]))
        own, to_shared = tuple(own[i] for i in order), to_shared[order]
    relabel = None if len(own) == count else frozen(to_shared)
    return output._with(vector=vector, classes=own, relabel=relabel)


# ---- columns and files -------------------------------------------------------------------------------------

_KIND: Final = {
    ".parquet": "a Parquet file",
    ".arrow": "an Arrow IPC file",
    ".feather": "an Arrow IPC file",
    ".npz": "a NumPy .npz archive",
    ".csv": "a CSV file",
}
_OPENERS: Final = {"predictions": "coinfer.Predictions.open", "trace": "coinfer.Trace.open"}


def _columns(predictions: Predictions) -> Iterator[tuple[str, NDArray[Any]]]:
    for name in predictions.models:
        output = predictions[name]
        if output.vector is not None:
            yield f"{name}/{output.form}", output.vector
        if output.label is not None:
            yield f"{name}/label", output.label
        if output.confidence is not None:
            yield f"{name}/confidence", output.confidence
        if output.service_us is not None:
            yield f"{name}/service_us", output.service_us
    if predictions.labels is not None:
        yield "labels", predictions.labels


def _metadata(predictions: Predictions) -> dict[str, Any]:
    outputs = ((name, predictions[name]) for name in predictions.models)
    return {
        "classes": predictions.classes,
        "class_count": predictions.class_count,
        "models": [
            {
                "name": name,
                "form": output.form,
                "classes": None if output.classes == predictions.classes else output.classes,
            }
            for name, output in outputs
        ],
    }


def _to_arrays(predictions: Predictions) -> dict[str, NDArray[Any]]:
    document = encode_metadata("predictions", _metadata(predictions)).decode()
    return {"coinfer": np.array(document), **dict(_columns(predictions))}


def _to_table(predictions: Predictions) -> Any:
    import pyarrow as pa

    arrays, fields = [], []
    for name, column in _columns(predictions):
        if column.ndim == 2:
            flat = pa.array(np.ascontiguousarray(column).reshape(-1))
            array = pa.FixedSizeListArray.from_arrays(flat, column.shape[1])
        else:
            array = pa.array(column)
        arrays.append(array)
        fields.append(pa.field(name, array.type))
    metadata = {METADATA_KEY: encode_metadata("predictions", _metadata(predictions))}
    return pa.table(arrays, schema=pa.schema(fields, metadata=metadata))


def _write_table(table: Any, path: Path, suffix: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if suffix == ".parquet":
        pq.write_table(table, path, compression="zstd", use_dictionary=False, row_group_size=1 << 17)
        return
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _read_table(path: Path, suffix: str) -> Any:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    if suffix == ".parquet":
        return pq.read_table(path, memory_map=True)
    if suffix == ".csv":
        nulls = pyarrow.csv.ConvertOptions(strings_can_be_null=True)
        return pyarrow.csv.read_csv(path, convert_options=nulls)
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _from_columns(
    columns: dict[str, Any], metadata: Mapping[str, Any], classes: Sequence[str] | None, ignore_extra: bool
) -> Predictions:
    if classes is None:
        classes = metadata.get("classes")
    if classes is None and "classes" in columns:
        classes = _class_names(columns["classes"], "classes")
    columns.pop("classes", None)
    if "labels" in columns and "label" in columns:
        msg = "there are columns 'labels' and 'label'; only one can be the truth"
        raise BadValueError(msg)
    labels = columns.pop("labels", columns.pop("label", None))
    models: dict[str, dict[str, Any]] = {m["name"]: {} for m in metadata.get("models", ())}
    for key, column in columns.items():
        cut = max(key.rfind("/"), key.rfind("."))
        name, field = key[:cut], key[cut + 1 :]
        if cut > 0 and field in _FIELDS:
            models.setdefault(name, {})[field] = column
        elif not ignore_extra:
            hint = nearest(field, _FIELDS) if cut > 0 else "expected MODEL/logits, MODEL/label, ..., or labels"
            msg = f"column {key!r} is not part of predictions; {hint} (ignore_extra=True skips such columns)"
            raise UnknownNameError(msg)
    if not models:
        msg = "no model found; expected columns such as MODEL/logits, MODEL/probs or MODEL/label"
        raise BadFileError(msg)
    if classes is None:
        classes = _classes_of_strings([labels, *(fields.get("label") for fields in models.values())])
    own_classes = {m["name"]: m["classes"] for m in metadata.get("models", ())}
    outputs = {}
    for name, fields in models.items():
        own = fields.pop("classes", own_classes.get(name))
        if own is None and "label" in fields:
            own = classes
        try:
            outputs[name] = ModelOutput(**fields, classes=own)
        except (BadValueError, UnknownNameError) as error:
            msg = f"model {name!r}: {error}"
            raise type(error)(msg) from None
    predictions = Predictions(outputs, labels=labels, classes=classes)
    if classes is None:  # a selection may have lost the highest labels
        predictions._class_count = max(predictions.class_count, metadata.get("class_count", 0))
    return predictions


def _classes_of_strings(columns: Sequence[Any]) -> tuple[str, ...] | None:
    """Return the sorted distinct values of the label columns that hold strings, or None if none does."""
    names: set[str] = set()
    for column in columns:
        if column is None:
            continue
        array = as_array(column, "label")
        if array.dtype.kind in "OUT":
            names.update(str(v) for v in set(array.tolist()) if isinstance(v, str))
    return tuple(sorted(names)) or None


def _digest(predictions: Predictions) -> str:
    """Hash names, forms, shapes and values, in a fixed order and byte order."""
    document = {"kind": "predictions", "rows": len(predictions), **_metadata(predictions)}
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for key, column in _columns(predictions):
        digest.update(json.dumps([key, column.shape, column.dtype.str]).encode())
        step = max(1, _BLOCK // max(1, column[:1].size))
        for start in range(0, len(column), step):
            digest.update(np.ascontiguousarray(column[start : start + step]).data)
    return digest.hexdigest()
