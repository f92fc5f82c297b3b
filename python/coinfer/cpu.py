"""Instruction sets: which implementations of the kernels this machine runs, and how to choose one.

All implementations give the same bits, so the choice is a matter of speed, of testing, and of finding out why two
machines differ. The widest set is used unless the environment variable ``COINFER_CPU`` or `use` says otherwise; a
name that this machine lacks is an error, never a fallback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from coinfer import _core
from coinfer.errors import UnknownNameError, nearest

__all__ = ["force", "implementation", "implementations", "use"]


def implementations() -> list[str]:
    """List the implementations that this build holds and this CPU runs, slowest first.

    Examples
    --------
    >>> import coinfer
    >>> coinfer.cpu.implementations()[0]
    'baseline'
    """
    return _core.cpu.implementations()


def implementation() -> str:
    """Name the implementation in use.

    Raises
    ------
    UnknownNameError
        If ``COINFER_CPU`` names one that this CPU or build lacks.
    """
    try:
        return _core.cpu.implementation()
    except ValueError as error:
        raise UnknownNameError(str(error)) from None


def force(name: str) -> None:
    """Use one implementation from now on, in every thread of this process.

    Parameters
    ----------
    name : str
        One of `implementations`, or ``auto`` for the choice that is made without `force`.

    Raises
    ------
    UnknownNameError
        If this CPU or build lacks it.
    """
    known = [*implementations(), "auto"]
    if name not in known:
        message = f"no implementation is called {name!r} on this machine; {nearest(name, known)}"
        raise UnknownNameError(message)
    _core.cpu.force(name)


@contextmanager
def use(name: str) -> Iterator[None]:
    """Use one implementation inside a ``with`` block; process-wide, like `force`.

    Examples
    --------
    >>> import coinfer
    >>> with coinfer.cpu.use("baseline"):
    ...     coinfer.cpu.implementation()
    'baseline'
    """
    before = _core.cpu.forced()
    force(name)
    try:
        yield
    finally:
        _core.cpu.force(before)
