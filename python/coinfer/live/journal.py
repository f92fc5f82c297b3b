"""The journal of a live run: what the stepper was fed, in the order in which it was fed.

A run is a folder. ``manifest.json`` says what ran; ``network.toml``, ``strategy.toml`` and ``trace.arrow`` are what it
ran on. Each start of the router writes one *segment* of four Arrow IPC streams: ``answers`` (what members said, bit
by bit, and how long each took), ``steps`` (every call of the stepper with its arguments and what it decided),
``outcomes`` (one row per request) and ``audits`` (answers asked for beside the plan). Streams are appended to at least
every second, so a router that is killed loses at most that; a reader takes every whole batch and stops at a torn end.
The byte of a request in ``begun-N.u8``, a file mapped into memory, is set before anything is sent for it, so that a
killed router leaves no doubt about what it may have sent.

Steps stand in the order of execution across requests, because a rule that learns has one state for all of them.
"""

from __future__ import annotations

import json
import mmap
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from coinfer._files import replacing
from coinfer.errors import BadFileError, BadValueError

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["FLUSH_S", "Journal", "read_begun", "read_manifest", "read_table", "segments"]

FLUSH_S: Final = 0.5
_VERSION: Final = 1
_BEGUN: Final = "begun-{}.u8"
STREAMS: Final = ("answers", "steps", "outcomes", "audits")


def _schemas() -> dict[str, pa.Schema]:
    import pyarrow as pa

    def fields(**types: Any) -> pa.Schema:
        return pa.schema(list(types.items()))

    return {
        # One row per member that was asked: `vector` are the bits of its float32 answer; no `reason` if it answered.
        "answers": fields(
            request=pa.int64(),
            stage=pa.uint8(),
            member=pa.uint32(),
            endpoint=pa.uint16(),
            attempts=pa.uint8(),
            hedged=pa.bool_(),
            sent_us=pa.float64(),
            took_us=pa.float64(),
            reason=pa.string(),
            vector=pa.binary(),
            label=pa.int32(),
            confidence=pa.float32(),
        ),
        # kind: open (a session was made), step, settle (ended from outside). `breakers`: a bit per next member.
        "steps": fields(
            request=pa.int64(),
            kind=pa.string(),
            stage=pa.uint8(),
            wait_us=pa.float64(),
            remaining_us=pa.float64(),
            uniform=pa.float64(),
            hop_us=pa.float64(),
            breakers=pa.uint64(),
            late=pa.bool_(),
            status=pa.uint8(),
            label=pa.int32(),
            score=pa.float32(),
            shadow_status=pa.uint8(),
            shadow_label=pa.int32(),
        ),
        "outcomes": fields(
            request=pa.int64(),
            sample=pa.int32(),
            ingress=pa.int32(),
            status=pa.uint8(),
            label=pa.int32(),
            score=pa.float32(),
            stage=pa.uint8(),
            answered_by=pa.uint8(),
            stages=pa.uint8(),
            intended_us=pa.float64(),
            started_us=pa.float64(),
            latency_us=pa.float64(),
            attempts=pa.uint16(),
            price_usd=pa.float64(),
            resent=pa.bool_(),
        ),
        "audits": fields(
            request=pa.int64(),
            propensity=pa.float64(),
            member=pa.uint32(),
            reason=pa.string(),
            label=pa.int32(),
            vector=pa.binary(),
        ),
    }


class Journal:
    """Append-only writer of one segment.

    Parameters
    ----------
    folder : path
        The run.
    segment : int
        Number of this start of the router.
    requests : int
        Of the whole run.

    Attributes
    ----------
    answers, steps, outcomes, audits : list of tuple
        Rows that wait to be flushed, in the order of the schema's columns; append to them.
    """

    def __init__(self, folder: Path, segment: int, requests: int) -> None:
        import pyarrow as pa

        self._schemas = _schemas()
        self._files: dict[str, Any] = {}
        self._writers: dict[str, Any] = {}
        try:
            for name in STREAMS:
                self._files[name] = (folder / f"{name}-{segment}.arrows").open("xb")
                self._writers[name] = pa.ipc.new_stream(self._files[name], self._schemas[name])
            with (folder / _BEGUN.format(segment)).open("x+b") as begun:
                begun.write(bytes(requests))  # a full disk is found out here, not when a byte is set
                begun.flush()
                self._begun = mmap.mmap(begun.fileno(), requests)
        except OSError as error:
            msg = f"{folder}: the journal cannot be written: {error.strerror}"
            raise BadFileError(msg) from error
        self.answers: list[tuple[Any, ...]] = []
        self.steps: list[tuple[Any, ...]] = []
        self.outcomes: list[tuple[Any, ...]] = []
        self.audits: list[tuple[Any, ...]] = []
        self.flushed_s = time.monotonic()

    def begin(self, row: int) -> None:
        """Put on record, at once, that a request is about to be sent."""
        self._begun[row] = 1

    def flush(self) -> None:
        """Hand everything that waits to the operating system.

        Outcomes go last: a request whose outcome is on record has all its steps on record.
        """
        import pyarrow as pa

        for name in ("answers", "steps", "audits", "outcomes"):
            rows: list[tuple[Any, ...]] = getattr(self, name)
            if rows:
                schema = self._schemas[name]
                columns = [
                    pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), schema, strict=True)
                ]
                self._writers[name].write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
                rows.clear()
            self._files[name].flush()
        self.flushed_s = time.monotonic()

    def close(self) -> None:
        """Flush, end the streams, and close the files."""
        self.flush()
        for name in STREAMS:
            self._writers[name].close()
            self._files[name].close()
        self._begun.close()


# What a manifest must hold to be read again; versions and the like are for people.
_MANIFEST: Final[dict[str, Any]] = {
    "strategy": str,
    "shadow": dict | None,
    "servers": dict,
    "seed": int,
    "settings": dict,
    "concurrency": int | None,
    "inputs": str,
    "shapes": dict,
    "members": dict,
}


def segments(folder: Path) -> int:
    """Count the starts of the router that left a journal."""
    return len(list(folder.glob("outcomes-*.arrows")))


def read_table(folder: Path, name: str, segment: int) -> pa.Table:
    """Read one stream of one segment, as far as it is whole.

    Raises
    ------
    BadFileError
        If the file is missing, damaged or no journal. A torn end is not an error: that is what a crash leaves.
    """
    import pyarrow as pa

    path = folder / f"{name}-{segment}.arrows"
    schema = _schemas()[name]
    try:
        source = path.open("rb")
    except OSError as error:
        msg = f"{path}: cannot be read as a journal of a live run: {error.strerror}"
        raise BadFileError(msg) from error
    batches: list[pa.RecordBatch] = []
    with source:
        if not path.stat().st_size:
            return schema.empty_table()
        try:
            reader = pa.ipc.open_stream(source)
        except (OSError, pa.ArrowInvalid) as error:
            if path.stat().st_size < 4096 and not batches and _torn(path):
                return schema.empty_table()
            msg = f"{path}: cannot be read as a journal of a live run: {str(error).splitlines()[0]}"
            raise BadFileError(msg) from error
        if not reader.schema.equals(schema):
            msg = f"{path}: its columns are not those of a journal's {name}; was it written by another version?"
            raise BadFileError(msg)
        while True:
            batch = None
            try:
                batch = reader.read_next_batch()
                batch.validate(full=True)
            except StopIteration:
                break
            except (OSError, pa.ArrowInvalid) as error:
                if source.tell() == path.stat().st_size and batch is None:
                    break
                msg = f"{path}: is damaged after {sum(map(len, batches)):,} rows: {str(error).splitlines()[0]}"
                raise BadFileError(msg) from error
            batches.append(batch)
    return pa.Table.from_batches(batches, schema)


def read_begun(folder: Path, segment: int) -> NDArray[np.int64]:
    """Read which requests a segment began.

    Raises
    ------
    BadFileError
        If the file is missing.
    """
    path = folder / _BEGUN.format(segment)
    try:
        return np.flatnonzero(np.fromfile(path, np.uint8))
    except OSError as error:
        msg = f"{path}: cannot be read as a journal of a live run: {error.strerror}"
        raise BadFileError(msg) from error


def _torn(path: Path) -> bool:
    """Say whether a file is the beginning of a stream whose schema was not written out."""
    return b"\xff\xff\xff\xff".startswith(path.read_bytes()[:4])


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Write ``manifest.json``, atomically."""
    with replacing(folder / "manifest.json") as part:
        text = json.dumps({"format": "live run", "version": _VERSION, **content}, indent=2, ensure_ascii=False)
        part.write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check ``manifest.json``.

    Raises
    ------
    BadFileError
        If the folder is no live run, or one of a newer version.
    """
    path = Path(folder) / "manifest.json"
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        msg = f"{folder}: is not the folder of a live run: {path.name} cannot be read ({error.strerror})"
        raise BadFileError(msg) from error
    except (ValueError, UnicodeDecodeError) as error:
        msg = f"{path}: is not the manifest of a live run: {error}"
        raise BadFileError(msg) from error
    if not isinstance(content, dict) or content.get("format") != "live run":
        msg = f"{path}: is not the manifest of a live run"
        raise BadFileError(msg)
    if content.get("version") != _VERSION:
        msg = f"{path}: has version {content.get('version')}, this coinfer reads version {_VERSION}"
        raise BadFileError(msg)
    for key, kinds in _MANIFEST.items():
        if not isinstance(content.get(key), kinds):
            msg = f"{path}: is damaged: {key!r} holds {content.get(key)!r}"
            raise BadFileError(msg)
    return content


def each_row(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Walk a table row by row, as tuples in the order of its columns."""
    columns = [column.to_pylist() for column in table.columns]
    return zip(*columns, strict=True) if columns else iter(())


def check_segments(folder: Path) -> int:
    """Give the number of segments, refusing a run that has none."""
    found = segments(folder)
    if not found:
        msg = f"{folder}: holds no journal: no outcomes-0.arrows"
        raise BadValueError(msg)
    return found
