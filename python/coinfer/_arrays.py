"""Columns of other libraries as NumPy arrays, without a copy where the bytes allow it.

Accepted: NumPy arrays, torch tensors and whatever else speaks DLPack, pandas and polars columns and frames,
Arrow arrays and tables, and lists. No library is imported here: an object can only come from one that its
owner has imported already.

Three kinds of column occur in the tables. A *vector* column is float32 (N, C) with unit stride along rows, as
the engine reads it (any row stride, so a slice of columns of a larger array is still shared). A *label*
column is int32 with -1 for "none". A *number* column is float32 or float64. All results are read-only views.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer.errors import BadValueError, UnknownNameError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "as_array",
    "as_labels",
    "as_names",
    "as_numbers",
    "as_vectors",
    "check_range",
    "first_row",
    "frozen",
    "one_chunk",
]

_BLOCK = 1 << 18  # elements looked at together: stays in the second-level cache


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view of the same memory."""
    view = array.view()
    view.flags.writeable = False
    return view


def first_row(mask: NDArray[np.bool_]) -> int:
    """Return the position of the first true element."""
    return int(np.argmax(mask))


def as_array(values: Any, what: str) -> NDArray[Any]:
    """Return `values` as a NumPy array of whatever dtype it has; missing values become NaN, NaT or None."""
    if isinstance(values, np.ndarray):
        return _unmasked(values)
    library = type(values).__module__.partition(".")[0]
    try:
        if library == "pyarrow":
            return _from_arrow(values, what)
        if library == "polars":
            return _from_arrow(values.to_arrow(), what)
        if library == "pandas":
            return np.asarray(values.to_numpy())
        if library == "torch":
            tensor = values.detach().cpu()
            return np.asarray(tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.numpy())
        if isinstance(values, str | bytes) or np.isscalar(values) or values is None:
            msg = f"{what} must be an array, a column or a list, not {values!r}"
            raise BadValueError(msg)
        if hasattr(values, "__array__"):
            return np.asarray(values)
        if hasattr(values, "__dlpack__"):
            return np.from_dlpack(values)
        return np.asarray(values if isinstance(values, Sequence) else list(values))
    except BadValueError:
        raise
    except (
        TypeError,
        ValueError,
        RuntimeError,
    ) as error:  # ragged lists, tensors that cannot leave their device
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        msg = f"{what} cannot be read as an array: {first_line}"
        raise BadValueError(msg) from error


def _unmasked(array: NDArray[Any]) -> NDArray[Any]:
    """Return a plain array; masked values become NaN (of integers and floats) or None."""
    if not np.ma.isMaskedArray(array):
        return np.asarray(array)
    if not np.ma.is_masked(array):
        return np.asarray(array.data)
    kind = array.dtype if array.dtype.kind == "f" else np.float64 if array.dtype.kind in "iu" else object
    return np.asarray(np.ma.filled(array.astype(kind), None if kind is object else np.nan))


def _from_arrow(values: Any, what: str) -> NDArray[Any]:
    import pyarrow as pa

    if isinstance(values, pa.Table | pa.RecordBatch):
        if values.num_columns == 0:
            return np.empty((values.num_rows, 0), np.float32)
        return np.stack([_from_arrow(column, what) for column in values.columns], axis=1)
    values = one_chunk(values)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _rows_of_lists(values, what)
    if values.null_count and pa.types.is_integer(kind):
        return np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False))
    return np.asarray(values.to_numpy(zero_copy_only=False))


def one_chunk(column: Any) -> Any:
    """Return an Arrow array; a column of one chunk is not copied."""
    import pyarrow as pa

    if not isinstance(column, pa.ChunkedArray):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _rows_of_lists(values: Any, what: str) -> NDArray[Any]:
    """Return the (N, C) array of a column of lists of one length; a null list becomes a row of NaN."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = len(values)
    if pa.types.is_fixed_size_list(values.type):
        width = values.type.list_size
        flat = values.values.slice(values.offset * width, rows * width)
        holes = values.null_count > 0
    else:
        lengths = pc.list_value_length(values)
        known = lengths.drop_null()
        width = known[0].as_py() if len(known) else 0
        wrong = pc.fill_null(pc.not_equal(lengths, width), False).to_numpy(zero_copy_only=False)
        if wrong.any():
            row = first_row(wrong)
            msg = f"{what}: row {row} has {lengths[row].as_py()} values where the rows before have {width}"
            raise BadValueError(msg)
        holes = values.null_count > 0
        if holes:
            values = pc.fill_null(values, pa.scalar([np.nan] * width, values.type))
            holes = False
        flat = values.flatten()
    array = np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(rows, width)
    if holes:
        array = array.astype(np.float32)
        array[values.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return array


def as_vectors(values: Any, what: str) -> NDArray[np.float32]:
    """Return a float32 (N, C) array with unit stride along rows, sharing memory if `values` already is one.

    Raises
    ------
    BadValueError
        If the shape is not (N, C) with C >= 1, or the values are not real numbers that fit float32.
    """
    array = as_array(values, what)
    if array.ndim == 1 and array.dtype == object and len(array):  # a pandas column of lists
        import pyarrow as pa

        with contextlib.suppress(pa.ArrowException, TypeError):  # what is no list is refused below
            array = _rows_of_lists(pa.array(array, pa.list_(pa.float32()), from_pandas=True), what)
    if array.ndim != 2 or array.shape[1] == 0:
        msg = f"{what} must have shape (samples, classes) with at least one class, not {array.shape}"
        raise BadValueError(msg)
    if array.dtype == object:
        array = _numbers_of_objects(array, what)
    if array.dtype.kind not in "fiu":
        msg = f"{what} must be real numbers, not {array.dtype}"
        raise BadValueError(msg)
    unit_stride = array.strides[1] == array.itemsize or array.shape[1] == 1
    if array.dtype == np.float32 and array.dtype.isnative and unit_stride and array.flags.aligned:
        if array.shape[1] == 1 and array.strides[1] != 4:
            array = np.lib.stride_tricks.as_strided(array, strides=(array.strides[0], 4))
        return frozen(array)
    return frozen(_as_float32(array, what))


def as_numbers(values: Any, what: str, dtype: type[np.floating[Any]] = np.float32) -> NDArray[Any]:
    """Return a contiguous 1-D array of `dtype`; missing values become NaN."""
    array = _column(values, what)
    if array.dtype == object:
        array = _numbers_of_objects(array, what)
    if array.dtype.kind not in "fiu":
        msg = f"{what} must be real numbers, not {array.dtype}"
        raise BadValueError(msg)
    if dtype is np.float32 and array.dtype != np.float32:
        return frozen(_as_float32(array, what))
    return frozen(np.ascontiguousarray(array, dtype))


def as_labels(values: Any, what: str, classes: Sequence[str] | None, count: int | None = None) -> NDArray[np.int32]:
    """Return int32 labels; -1, null and NaN mean none. Strings are looked up in `classes`.

    Parameters
    ----------
    values : array-like
        Integers, whole floats (as pandas makes of integers with nulls), or class names.
    what : str
        Words that name the column in errors.
    classes : sequence of str or None
        The class names, if known.
    count : int, optional
        Number of classes, to check the range.
    """
    array = _column(values, what)
    if array.dtype.kind in "OUST":
        present = array[~_missing(array)] if array.dtype == object else array
        if present.size == 0 or isinstance(present.flat[0], str):
            return frozen(_look_up(array, what, classes))
        array = _numbers_of_objects(array, what)
    if array.dtype.kind == "f":
        unknown = np.isnan(array)
        whole = np.where(unknown, -1.0, array)
        bad = (whole != np.floor(whole)) | (np.abs(whole) >= 2**31)
        if bad.any():
            row = first_row(bad)
            msg = f"{what}: row {row} is {array[row]!s}; a label must be a whole number, or -1 or null for none"
            raise BadValueError(msg)
        array = whole.astype(np.int64)
    elif array.dtype.kind not in "iub":
        msg = f"{what} must be integers or class names, not {array.dtype}"
        raise BadValueError(msg)
    check_range(array, what, -1, 2**31 - 1 if count is None else count - 1, _label_bound(classes, count))
    if array.dtype == np.int32 and array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative:
        return frozen(array)
    return frozen(array.astype(np.int32))


def as_names(values: Any, what: str) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Return a column of names as (codes, distinct names in the order in which they first occur)."""
    import pyarrow as pa

    library = type(values).__module__.partition(".")[0]
    try:
        column = values.to_arrow() if library == "polars" else values
        if not isinstance(column, pa.Array | pa.ChunkedArray):
            column = pa.array(column, from_pandas=library == "pandas")
        column = one_chunk(column)
        if pa.types.is_string_view(column.type):  # what polars hands over; has no dictionary encoder
            column = column.cast(pa.large_string())
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        codes = column.indices
        names = tuple(column.dictionary.to_pylist())
    except (pa.ArrowException, TypeError, ValueError) as error:
        msg = f"{what} must be names: {str(error).splitlines()[0]}"
        raise BadValueError(msg) from error
    if codes.null_count:
        row = first_row(codes.is_null().to_numpy(zero_copy_only=False))
        msg = f"{what}: row {row} is null; every row needs a name"
        raise BadValueError(msg)
    if not all(isinstance(name, str) for name in names):
        msg = f"{what} must be names (strings), not {column.type.value_type}"
        raise BadValueError(msg)
    rows = np.asarray(codes.to_numpy(zero_copy_only=False)).astype(np.int32, copy=False)
    distinct = tuple(dict.fromkeys(names))
    if len(distinct) < len(names):  # dictionaries of other writers may hold a name twice
        rows = np.array([distinct.index(name) for name in names], np.int32)[rows]
    return rows, distinct


def check_range(array: NDArray[Any], what: str, low: int, high: int, allowed: str) -> None:
    """Refuse an integer array with a value outside [`low`, `high`], naming the first such row."""
    if array.size and (array.min() < low or array.max() > high):
        row = first_row((array < low) | (array > high))
        msg = f"{what}: row {row} is {array[row]}; {allowed}"
        raise BadValueError(msg)


def _label_bound(classes: Sequence[str] | None, count: int | None) -> str:
    if count is None:
        return "a label must be at least 0, or -1 for none"
    named = f" ({classes[0]!r} to {classes[-1]!r})" if classes else ""
    return f"a label must be from 0 to {count - 1}{named}, or -1 for none"


def _column(values: Any, what: str) -> NDArray[Any]:
    array = as_array(values, what)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        msg = f"{what} must have one value per row, shape (N,), not {array.shape}"
        raise BadValueError(msg)
    return array


def _as_float32(array: NDArray[Any], what: str) -> NDArray[np.float32]:
    """Convert by blocks of rows, so that the check for overflow never makes a temporary of full size."""
    if array.dtype.kind != "f" or array.itemsize <= 4:
        return np.ascontiguousarray(array, np.float32)
    result = np.empty(array.shape, np.float32)
    step = max(1, _BLOCK // max(1, array[:1].size))
    with np.errstate(over="raise"):
        for start in range(0, len(array), step):
            try:
                result[start : start + step] = array[start : start + step]
            except FloatingPointError:
                large = np.abs(array[start : start + step]) > np.finfo(np.float32).max
                large &= np.isfinite(array[start : start + step])
                row = start + first_row(large.reshape(len(large), -1).any(axis=1))
                msg = f"{what}: row {row} has a value that does not fit float32"
                raise BadValueError(msg) from None
    return result


def _missing(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where an object array holds None, NaN or another library's missing value."""
    return np.fromiter(
        (item is None or type(item).__name__ in ("NAType", "NaTType") or item != item for item in array.flat),
        np.bool_,
        array.size,
    ).reshape(array.shape)


def _numbers_of_objects(array: NDArray[Any], what: str) -> NDArray[np.float64]:
    missing = _missing(array)
    try:
        return np.where(missing, np.nan, array).astype(np.float64)
    except (TypeError, ValueError) as error:
        msg = f"{what} must be numbers: {error}"
        raise BadValueError(msg) from None


def _look_up(array: NDArray[Any], what: str, classes: Sequence[str] | None) -> NDArray[np.int32]:
    import pyarrow as pa

    if classes is None:
        msg = f"{what} holds class names, so classes= must list the names in order"
        raise BadValueError(msg)
    column = pa.array(array, pa.string(), from_pandas=True).dictionary_encode()
    names = column.dictionary.to_pylist()
    position = {name: index for index, name in enumerate(classes)}
    codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    for code, name in enumerate(names):
        if name not in position:
            row = first_row(codes == code)
            msg = f"{what}: row {row}: there is no class {name!r}; {nearest(name, classes)}"
            raise UnknownNameError(msg)
    table = np.array([*(position[name] for name in names), -1], np.int32)
    return np.asarray(table[codes])
