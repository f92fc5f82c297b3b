"""Checks of single values whose messages say what was given, where, and what is allowed.

Tables check whole arrays at once and do that themselves; here are the few checks that every configuration
object needs: a finite number in a range, an integer in a range, a name. Each takes the words that name the
place, returns the value in its canonical type, and refuses what Python would let through (`True` as a number,
NaN as a delay).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from coinfer.errors import BadValueError, UnknownNameError, nearest

__all__ = [
    "MILLISECONDS_MAX",
    "check_integer",
    "check_keys",
    "check_list",
    "check_mapping",
    "check_name",
    "check_number",
    "check_unique",
]


MILLISECONDS_MAX = 1e9
"""The longest time that a network may state, eleven days, so that sums over a path fit int64 nanoseconds."""


def check_number(
    value: object, what: str, *, at_least: float = 0.0, above: float | None = None, at_most: float = math.inf
) -> float:
    """Return `value` as a finite float in [`at_least`, `at_most`] (or strictly greater than `above`)."""
    bound = f"> {above:g}" if above is not None else f">= {at_least:g}"
    if isinstance(value, bool) or not isinstance(value, Real):
        msg = f"{what} must be a finite number {bound}, not {value!r}"
        raise BadValueError(msg)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or (number <= above if above is not None else number < at_least):
        msg = f"{what} must be a finite number {bound}, not {number:g}"
        raise BadValueError(msg)
    if number > at_most:
        msg = f"{what} must be at most {at_most:g}, not {number:g}"
        raise BadValueError(msg)
    return number + 0.0  # -0.0 becomes 0.0, so that equal networks are written alike


def check_integer(value: object, what: str, *, at_least: int = 0, at_most: int = 2**31 - 1) -> int:
    """Return `value` as an int in [`at_least`, `at_most`]."""
    allowed = f"an integer from {at_least} to {at_most}" if at_most < 2**31 - 1 else f"an integer >= {at_least}"
    try:
        if isinstance(value, bool):
            raise TypeError
        integer = operator.index(value)  # type: ignore[arg-type]  # anything may come in; TypeError is caught
    except TypeError:
        msg = f"{what} must be {allowed}, not {value!r}"
        raise BadValueError(msg) from None
    if not at_least <= integer <= at_most:
        msg = f"{what} must be {allowed}, not {integer}"
        raise BadValueError(msg)
    return integer


def check_name(value: object, what: str, *, forbidden: str = "") -> str:
    """Return `value` as a non-empty, printable string without any of the `forbidden` characters."""
    if not isinstance(value, str) or not value or not value.isprintable() or value != value.strip():
        msg = f"{what} must be a non-empty string of printable characters without outer spaces, not {value!r}"
        raise BadValueError(msg)
    for character in forbidden:
        if character in value:
            msg = f"{what} must not contain {character!r}, but is {value!r}"
            raise BadValueError(msg)
    return str(value)


def check_list(value: object, what: str, of: str) -> list[Any]:
    """Return the items of a list or other iterable; a string is one item, not many."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        msg = f"{what} must be a list of {of}, not {value!r}"
        raise BadValueError(msg)
    return list(value)


def check_mapping(value: object, what: str, of: str) -> dict[Any, Any]:
    """Return the items of a mapping that has at least one."""
    if not isinstance(value, Mapping) or not value:
        msg = f"{what} must map at least one {of}, not {value!r}"
        raise BadValueError(msg)
    return dict(value)


def check_unique(names: Iterable[str], what: str) -> None:
    """Refuse a name that occurs twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            msg = f"{what} {name!r} occurs twice; names must be unique"
            raise BadValueError(msg)
        seen.add(name)


def check_keys(table: Mapping[str, Any], allowed: tuple[str, ...], required: tuple[str, ...], where: str) -> None:
    """Refuse a table with a key that is not allowed, naming the nearest one, or without a required one."""
    for key in table:
        if key not in allowed:
            msg = f"{where}: unknown key {key!r}; {nearest(key, allowed)}"
            raise UnknownNameError(msg)
    for key in required:
        if key not in table:
            msg = f"{where}: key {key!r} is missing; required: {', '.join(map(repr, required))}"
            raise BadValueError(msg)
