"""Files that are whole or absent, and errors that name them.

Writers write beside the target and rename, so a crash, a full disk or an exception leaves the old file as it
was. Readers turn whatever a decoder throws at a truncated or foreign file into one `BadFileError` that says
which file it is and what was expected.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from typing import TYPE_CHECKING, Any

from coinfer.errors import BadFileError, BadValueError, CoinferError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["METADATA_KEY", "check_metadata", "encode_metadata", "reading", "replacing", "suffix_of"]

METADATA_KEY = b"coinfer"
"""Key of the JSON document in the schema metadata of Parquet and Arrow files, and in .npz archives."""

FORMAT_VERSION = 1


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, delete it on failure.

    Raises
    ------
    BadFileError
        If the folder does not exist or cannot be written.
    """
    if not path.parent.is_dir():
        msg = f"{path}: cannot be written: there is no folder {str(path.parent)!r}"
        raise BadFileError(msg)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except CoinferError:
        raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        msg = f"{path}: cannot be written: {reason}"
        raise BadFileError(msg) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def reading(path: Path, expected: str) -> Iterator[None]:
    """Turn what a decoder raises about `path` into a `BadFileError` that says what was expected."""
    if not path.exists():
        msg = f"{path}: no such file; expected {expected}"
        raise BadFileError(msg)
    if path.is_dir():
        msg = f"{path}: is a folder; expected {expected}"
        raise BadFileError(msg)
    if path.stat().st_size == 0:
        msg = f"{path}: the file is empty; expected {expected}"
        raise BadFileError(msg)
    try:
        yield
    except CoinferError as error:
        if str(error).startswith(str(path)):
            raise
        msg = f"{path}: {error}"
        raise type(error)(msg) from None
    except Exception as error:  # decoders raise half the built-in tree: zipfile, pyarrow, numpy, tomllib, struct
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        msg = f"{path}: cannot be read as {expected}: {first_line}"
        raise BadFileError(msg) from error


def suffix_of(path: Path, allowed: tuple[str, ...]) -> str:
    """Return the lower-case suffix of `path`, which must be one of `allowed`."""
    suffix = path.suffix.lower()
    if suffix not in allowed:
        msg = f"{path}: the suffix says the format and must be one of {', '.join(allowed)}, not {suffix!r}"
        raise BadValueError(msg)
    return suffix


def encode_metadata(kind: str, content: Mapping[str, Any]) -> bytes:
    """Return the JSON document that tells a coinfer file of this `kind` from any other table."""
    return json.dumps({"format": kind, "version": FORMAT_VERSION, **content}, ensure_ascii=False).encode()


def check_metadata(raw: bytes | None, kind: str, opener: Mapping[str, str]) -> dict[str, Any]:
    """Return the decoded document, or an empty one for a foreign table.

    Raises
    ------
    BadFileError
        If the file is of another kind (the message says what opens it) or of a newer version.
    """
    if raw is None:
        return {}
    content = json.loads(raw)
    if content.get("format") != kind:
        found = str(content.get("format"))
        hint = f"; open it with {opener[found]}" if found in opener else ""
        msg = f"the file holds {found!r}, not {kind!r}{hint}"
        raise BadFileError(msg)
    if content.get("version") != FORMAT_VERSION:
        msg = f"the file has format version {content.get('version')}, this coinfer reads version {FORMAT_VERSION}"
        raise BadFileError(msg)
    return dict(content)
