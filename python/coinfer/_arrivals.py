"""Arrival times: of any unit as nanoseconds, and out of the files in which services have published theirs."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from coinfer._arrays import as_array, as_numbers, first_row
from coinfer._checks import check_number
from coinfer.errors import BadFileError, BadValueError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["arrivals_ns", "read_published"]

_NS: Final = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


def arrivals_ns(times: Any, unit: str) -> NDArray[np.int64]:
    """Return times in `unit` (or dates, counted from the first) as nanoseconds, refusing the first bad row."""
    array = as_array(times, "times")
    if array.ndim != 1:
        msg = f"times must have one value per request, shape (N,), not {array.shape}"
        raise BadValueError(msg)
    if unit not in _NS:
        msg = f"unit must be one of {', '.join(map(repr, _NS))}, not {unit!r}"
        raise BadValueError(msg)
    if array.dtype.kind == "M":
        bad = np.isnat(array)
        instants = array.astype("datetime64[ns]").astype(np.int64)
        result = instants - (instants.min() if len(instants) else 0)
    elif array.dtype.kind in "iu":
        bad = (array < 0) | (array > (2**63 - 1) // _NS[unit])
        result = array.astype(np.int64) * _NS[unit]
    else:
        numbers = as_numbers(array, "times", np.float64)
        bad = ~((numbers >= 0) & (numbers < 2**63 / _NS[unit]))
        result = np.rint(np.where(bad, 0.0, numbers) * _NS[unit]).astype(np.int64)
    if bad.any():
        row = first_row(bad)
        msg = f"times: row {row} is {array[row]}; a time must be a finite number >= 0 that fits 64-bit nanoseconds"
        raise BadValueError(msg)
    return result


def read_published(path: Path) -> NDArray[np.int64]:
    """Return the arrival times of a published trace in nanoseconds, in the order of the file."""
    return _read_jsonl(path) if path.suffix.lower() == ".jsonl" else _read_csv(path)


def _read_csv(path: Path) -> NDArray[np.int64]:
    import pyarrow as pa
    import pyarrow.csv

    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        header, first = next(lines, []), next(lines, [])
    zoned = "TIMESTAMP" in header and re.search(
        r"(Z|[+-]\d\d:?\d\d)$", dict(zip(header, first, strict=False)).get("TIMESTAMP", "")
    )
    if "TIMESTAMP" in header:
        column, kind = ["TIMESTAMP"], pa.timestamp("ns", "UTC" if zoned else None)
    elif {"end_timestamp", "duration"} <= set(header):
        column, kind = ["end_timestamp", "duration"], pa.float64()
    elif "Timestamp" in header:
        column, kind = ["Timestamp"], pa.float64()
    else:
        msg = (
            f"the columns {', '.join(header[:8])} are of no known trace; expected TIMESTAMP (Azure LLM), "
            "end_timestamp and duration (Azure Functions 2021) or Timestamp (BurstGPT)"
        )
        raise BadFileError(msg)
    options = pyarrow.csv.ConvertOptions(include_columns=column, column_types=dict.fromkeys(column, kind))
    table = pyarrow.csv.read_csv(path, convert_options=options)
    columns = [as_array(table.column(name), name) for name in column]
    for name, values in zip(column, columns, strict=True):
        if np.isnat(values).any() if values.dtype.kind == "M" else np.isnan(values).any():
            msg = f"column {name!r} has an empty value; every row needs a time"
            raise BadFileError(msg)
    if column == ["TIMESTAMP"]:
        return columns[0].astype(np.int64)
    seconds = columns[0] - columns[1] if len(columns) == 2 else columns[0]
    return np.rint(seconds * 1e9).astype(np.int64)


def _read_jsonl(path: Path) -> NDArray[np.int64]:
    times = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            entry = json.loads(line)
            if not isinstance(entry, dict) or "timestamp" not in entry:
                msg = f"line {number} has no 'timestamp' (milliseconds, as in the Mooncake traces)"
                raise BadFileError(msg)
            times.append(check_number(entry["timestamp"], f"line {number}: timestamp"))
    return np.rint(np.array(times, np.float64) * 1e6).astype(np.int64)
