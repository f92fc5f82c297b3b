"""Arrival times: of any unit as nanoseconds, and out of the files in which services have published theirs."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from coinfer._arrays import as_array, as_numbers, first_row
from coinfer._checks import check_integer, check_number
from coinfer.errors import BadFileError, BadValueError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["arrivals_ns", "read_minutes", "read_published"]

_INT64: Final = 2**63 - 1
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
        bad = (array < 0) | (array > _INT64 // _NS[unit])
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


def read_published(path: Path, experiment: int | None) -> NDArray[np.int64]:
    """Return the arrival times of a published trace in nanoseconds, in the order of the file."""
    if path.suffix.lower() == ".json":
        return _read_profile(path, experiment)
    if experiment is not None:
        msg = "experiment= chooses in a profile export of perf_analyzer (.json); this file has one list of arrivals"
        raise BadValueError(msg)
    return _read_jsonl(path) if path.suffix.lower() == ".jsonl" else _read_csv(path)


def read_minutes(path: Path) -> NDArray[np.int64]:
    """Return the invocations per minute in a file of Azure Functions 2019, summed over functions."""
    import pyarrow as pa
    import pyarrow.csv

    with path.open(newline="", encoding="utf-8-sig") as file:
        header = next(csv.reader(file), [])
    minutes = [name for name in header if name.isdecimal()]
    if "HashFunction" not in header or not minutes:
        msg = f"the columns {', '.join(header[:8])} are not those of Azure Functions 2019: HashFunction, ..., 1, 2, ..."
        raise BadFileError(msg)
    options = pyarrow.csv.ConvertOptions(include_columns=minutes, column_types=dict.fromkeys(minutes, pa.int64()))
    total = np.zeros(len(minutes), np.int64)
    with pyarrow.csv.open_csv(path, convert_options=options) as batches:
        for batch in batches:
            total += np.array([as_array(column, "counts").sum() for column in batch.columns], np.int64)
    return total


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
    elif "HashFunction" in header:
        msg = "Azure Functions 2019 counts by the minute; coinfer.arrivals.per_minute reads it, for arrivals.profile"
        raise BadFileError(msg)
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
    """Mooncake (``timestamp``, ms) or AIPerf (``metadata.request_start_ns``; cancelled requests came, too)."""
    times = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            entry = json.loads(line)
            fields = entry if isinstance(entry, dict) else {}
            metadata = fields.get("metadata")
            if isinstance(metadata, dict) and "request_start_ns" in metadata:
                times.append(
                    check_integer(metadata["request_start_ns"], f"line {number}: request_start_ns", at_most=_INT64)
                )
            elif "timestamp" in fields:
                times.append(round(check_number(fields["timestamp"], f"line {number}: timestamp") * 1e6))
            else:
                msg = (
                    f"line {number} has neither 'timestamp' (milliseconds, as in the Mooncake traces) nor "
                    "'metadata.request_start_ns' (AIPerf)"
                )
                raise BadFileError(msg)
    return np.array(times, np.int64)


def _read_profile(path: Path, experiment: int | None) -> NDArray[np.int64]:
    # perf_analyzer copies output tensors into strings byte by byte: often not UTF-8. Latin-1 takes any byte.
    document = json.loads(path.read_text(encoding="latin-1"), strict=False)
    experiments = document.get("experiments") if isinstance(document, dict) else None
    if not experiments:
        msg = "has no 'experiments'; expected what perf_analyzer --profile-export-file writes"
        raise BadFileError(msg)
    if experiment is None and len(experiments) > 1:
        kinds = (
            f"{number} ({e['experiment']['mode']} {e['experiment']['value']:g})" for number, e in enumerate(experiments)
        )
        msg = f"holds {len(experiments)} experiments; say which: experiment = {', '.join(kinds)}"
        raise BadValueError(msg)
    chosen = check_integer(experiment or 0, "experiment", at_most=len(experiments) - 1)
    return np.array([request["timestamp"] for request in experiments[chosen]["requests"]], np.int64)
