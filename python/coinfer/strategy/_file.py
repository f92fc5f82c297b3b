"""Strategy files: TOML that people read, with long arrays beside it.

A list of more than 64 numbers moves to an `.npz` of the same name, and the TOML holds the hash of that file: a strategy
whose arrays were exchanged, lost or half written is refused, never replayed with other numbers than were fitted.
"""

from __future__ import annotations

import hashlib
import io
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from coinfer._files import reading, replacing
from coinfer.errors import BadFileError

__all__ = ["read_table", "write_table"]

_LONG = 64
_ARRAYS = "arrays"


def write_table(path: Path, table: Mapping[str, Any]) -> None:
    """Write a strategy's table: the arrays first, then the TOML that names them, each atomically."""
    import tomlkit

    arrays: dict[str, Any] = {}
    short = _without_long(table, "", arrays)
    beside = path.with_suffix(".npz")
    if arrays:
        raw = io.BytesIO()
        np.savez(raw, **arrays)
        with replacing(beside) as temporary:
            temporary.write_bytes(raw.getvalue())
        short[_ARRAYS] = {"file": beside.name, "sha256": hashlib.sha256(raw.getvalue()).hexdigest()}
    with replacing(path) as temporary:
        temporary.write_text(tomlkit.dumps(short), encoding="utf-8")


def read_table(path: Path) -> dict[str, Any]:
    """Read a strategy's table, its long arrays as lists again.

    Raises
    ------
    BadFileError
        If a file cannot be read, or the arrays are not those that the TOML was written with.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: cannot be read as a strategy file: {error}"
        raise BadFileError(msg) from error
    except tomllib.TOMLDecodeError as error:
        msg = f"{path}: is not valid TOML: {error}"
        raise BadFileError(msg) from error
    named = table.pop(_ARRAYS, None)
    if named is None:
        return table
    if (
        not isinstance(named, dict)
        or set(named) != {"file", "sha256"}
        or Path(str(named["file"])).name != named["file"]
    ):
        msg = f"{path}: the table [{_ARRAYS}] must hold file, the name of a file in the same folder, and sha256"
        raise BadFileError(msg)
    beside = path.with_name(named["file"])
    with reading(beside, "the arrays of a strategy (.npz)"):
        raw = beside.read_bytes()
        if hashlib.sha256(raw).hexdigest() != named["sha256"]:
            msg = f"{beside}: is not the file that {path.name} was written with (its SHA-256 differs)"
            raise BadFileError(msg)
        with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
            for name in archive.files:
                _put_back(table, name.split("/"), archive[name].tolist())
    return table


def _without_long(value: Any, name: str, arrays: dict[str, Any]) -> Any:
    """Copy a table; move long lists of numbers to `arrays`, under their path."""
    if isinstance(value, Mapping):
        inner = {key: _without_long(each, f"{name}/{key}".lstrip("/"), arrays) for key, each in value.items()}
        return {key: each for key, each in inner.items() if each is not None}
    if isinstance(value, list | tuple):
        if len(value) > _LONG and all(type(each) is float for each in value):
            arrays[name] = np.array(value, np.float64)
            return None
        return [_without_long(each, f"{name}/{at}", arrays) for at, each in enumerate(value)]
    return value


def _put_back(table: Any, path: list[str], value: list[float]) -> None:
    for key in path[:-1]:
        table = table[int(key)] if isinstance(table, list) else table.setdefault(key, {})
    table[path[-1]] = value
