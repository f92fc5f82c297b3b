"""The exceptions of coinfer.

One tree, so that ``except coinfer.CoinferError`` is enough; each branch is also the built-in exception that
it is (`ValueError`, `KeyError`, `OSError`), so code that knows nothing of coinfer handles it too. A message
is a sentence that says what was wrong, where, and what is allowed.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "BadFileError",
    "BadValueError",
    "CoinferError",
    "LiveError",
    "OverloadWarning",
    "QueueFullError",
    "QueueWarning",
    "ServerError",
    "TimedOutError",
    "UnavailableError",
    "UnknownNameError",
    "UnsupportedError",
    "nearest",
]


class CoinferError(Exception):
    """Root of everything that coinfer raises on purpose."""


class QueueWarning(UserWarning):
    """A latency or a load was asked for as if nobody waited, in a network where requests wait for each other."""


class OverloadWarning(UserWarning):
    """A deployment or link is offered more work than it can do: its queue grows as long as requests come."""


class BadValueError(CoinferError, ValueError):
    """A value, shape or dtype is not allowed where it stands."""


class UnknownNameError(CoinferError, KeyError):
    """A model, node, class, key or implementation of that name does not exist."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class BadFileError(CoinferError, OSError):
    """A file is missing, truncated, or does not hold what its kind demands."""


class UnsupportedError(CoinferError, ValueError):
    """What was asked needs something that the models, the CPU or this build does not have."""


class LiveError(CoinferError, RuntimeError):
    """A server did not give the answer it was asked for; the branches say what may be done about it."""

    reason = "OTHER"


class UnavailableError(LiveError, ConnectionError):
    """Nobody answers there, or the server is shutting down: worth trying elsewhere."""

    reason = "UNAVAILABLE"


class QueueFullError(LiveError):
    """The server's queue is full, or our own bound on what is in flight: worth trying elsewhere, later."""

    reason = "REJECTED"


class TimedOutError(LiveError, TimeoutError):
    """The answer did not come in the time that was left."""

    reason = "TIMEOUT"


class ServerError(LiveError):
    """The server answered with an error, or with something that is no answer: trying again will not help."""

    reason = "BACKEND"


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which names are allowed, the one that was probably meant first.

    Parameters
    ----------
    name : str
        What was given.
    known : iterable of str
        What is allowed.

    Returns
    -------
    str
        A clause to end an error message with, for example ``"did you mean 'cloud'? known: 'cloud', 'edge'"``.
    """
    names = [str(k) for k in known]
    close = difflib.get_close_matches(str(name), names, n=1)
    listed = ", ".join(repr(n) for n in names[:20]) + (", ..." if len(names) > 20 else "")
    listed = f"known: {listed}" if names else "none are known here"
    return f"did you mean {close[0]!r}? {listed}" if close else listed
