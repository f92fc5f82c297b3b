"""Service-time laws: how long a deployment works on one batch.

A law is a small frozen object with the parameters that a person would quote: a mean in milliseconds, and a
coefficient of variation (standard deviation / mean) where the law has one. The engine draws from it; nothing
here is random. The same laws are written in a network file as an inline table, ``service = {law = "linear",
base_ms = 2, per_item_ms = 0.3}``, which `parse` reads and ``to_dict`` writes.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from coinfer._checks import MILLISECONDS_MAX, check_integer, check_keys, check_list, check_name, check_number
from coinfer.errors import BadValueError, UnknownNameError, nearest

__all__ = ["Constant", "Exponential", "Gamma", "Law", "Linear", "LogNormal", "Measured", "Table", "parse"]


_CV_MIN, _CV_MAX = 1e-9, 1e9


@dataclass(frozen=True, slots=True)
class _Law:
    """What all laws share: their name in files and how they are written there."""

    law: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the inline table that stands for this law in a network file.

        Examples
        --------
        >>> Linear(base_ms=2, per_item_ms=0.3).to_dict()
        {'law': 'linear', 'base_ms': 2.0, 'per_item_ms': 0.3}
        """
        return {"law": self.law, **asdict(self)}

    def _check(self, field: str, *, above: float | None = None, at_most: float = MILLISECONDS_MAX) -> None:
        value = check_number(getattr(self, field), f"service law {self.law!r}: {field}", above=above, at_most=at_most)
        object.__setattr__(self, field, value)

    def _check_cv(self) -> None:
        """Beyond these bounds float64 holds neither the shape of a gamma nor the tail of a log-normal."""
        self._check("cv", above=0.0, at_most=_CV_MAX)
        object.__setattr__(self, "cv", check_number(self.cv, f"service law {self.law!r}: cv", at_least=_CV_MIN))  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Constant(_Law):
    """Every batch takes `mean_ms`, whatever its size.

    Parameters
    ----------
    mean_ms : float
        Milliseconds, from 0 to 1e9.

    Raises
    ------
    BadValueError
        If the mean is negative or not finite.
    """

    law: ClassVar[str] = "constant"
    mean_ms: float

    def __post_init__(self) -> None:
        self._check("mean_ms")


@dataclass(frozen=True, slots=True)
class Linear(_Law):
    """A batch of b requests takes ``base_ms + per_item_ms * b``: what a GPU does below saturation.

    Parameters
    ----------
    base_ms, per_item_ms : float
        Milliseconds, from 0 to 1e9.
    """

    law: ClassVar[str] = "linear"
    base_ms: float
    per_item_ms: float

    def __post_init__(self) -> None:
        self._check("base_ms")
        self._check("per_item_ms")

    @property
    def mean_ms(self) -> float:
        """Milliseconds for a batch of one."""
        return self.base_ms + self.per_item_ms


@dataclass(frozen=True, slots=True)
class Exponential(_Law):
    """Exponentially distributed (coefficient of variation 1), the law of the M/M/k textbook queues.

    Parameters
    ----------
    mean_ms : float
        Milliseconds, from 0 to 1e9.
    """

    law: ClassVar[str] = "exponential"
    mean_ms: float

    def __post_init__(self) -> None:
        self._check("mean_ms")


@dataclass(frozen=True, slots=True)
class LogNormal(_Law):
    """Log-normally distributed: a long right tail, as measured services usually have.

    Parameters
    ----------
    mean_ms : float
        Mean of the service time itself (not of its logarithm), milliseconds, >= 0.
    cv : float
        Standard deviation / mean, from 1e-9 to 1e9.
    """

    law: ClassVar[str] = "lognormal"
    mean_ms: float
    cv: float

    def __post_init__(self) -> None:
        self._check("mean_ms")
        self._check_cv()


@dataclass(frozen=True, slots=True)
class Gamma(_Law):
    """Gamma distributed: from nearly constant (small cv) through exponential (cv = 1) to bursty.

    Parameters
    ----------
    mean_ms : float
        Milliseconds, from 0 to 1e9.
    cv : float
        Standard deviation / mean, from 1e-9 to 1e9.
    """

    law: ClassVar[str] = "gamma"
    mean_ms: float
    cv: float

    def __post_init__(self) -> None:
        self._check("mean_ms")
        self._check_cv()


@dataclass(frozen=True, slots=True)
class Measured(_Law):
    """As measured per sample: `scale` times the ``service_us`` of the model's row in the Predictions.

    Only for deployments that serve one request at a time (``max_batch = 1``), since a row says nothing about
    batches.

    Parameters
    ----------
    scale : float, default 1.0
        Factor for hardware that is faster or slower than where it was measured, > 0.
    """

    law: ClassVar[str] = "measured"
    scale: float = 1.0

    def __post_init__(self) -> None:
        self._check("scale", above=0.0)

    @property
    def mean_ms(self) -> float:
        """NaN: the mean is a property of the Predictions, not of the law."""
        return math.nan


@dataclass(frozen=True, slots=True)
class Table(_Law):
    """As measured per batch size: one time for each, or several times that were seen.

    Between two sizes that were measured, times are interpolated linearly: the mean, or where several times were seen,
    quantile by quantile. Which of them a batch takes is drawn.

    Parameters
    ----------
    batch : sequence of int
        Sizes that were measured, ascending, from 1 to at least the deployment's `max_batch`.
    ms : sequence of float, or of sequences of float
        Milliseconds for each, from 0 to 1e9; or the times that were seen, in any order.

    Examples
    --------
    >>> law = Table(batch=[1, 4], ms=[[2, 3], [5, 9]])
    >>> law.at(1), law.at(2), law.mean_ms
    ((2.0, 3.0), (3.0, 5.0), 2.5)
    """

    law: ClassVar[str] = "table"
    batch: tuple[int, ...]
    ms: tuple[float, ...] | tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        place = f"service law {self.law!r}"
        batch = tuple(
            check_integer(size, f"{place}: batch", at_least=1)
            for size in check_list(self.batch, f"{place}: batch", "sizes")
        )
        if not batch or batch[0] != 1 or any(a >= b for a, b in itertools.pairwise(batch)):
            msg = f"{place}: batch must hold ascending sizes, the first of them 1, not {list(batch)}"
            raise BadValueError(msg)
        given = check_list(self.ms, f"{place}: ms", "times")
        if len(given) != len(batch):
            msg = f"{place}: ms must hold an entry for each of the {len(batch)} sizes in batch, not {len(given)}"
            raise BadValueError(msg)
        several = isinstance(given[0], Iterable)
        ms = tuple(
            self._times(times, f"{place}: ms of batch {size}")
            if several
            else check_number(times, f"{place}: ms of batch {size}", at_most=MILLISECONDS_MAX)
            for size, times in zip(batch, given, strict=True)
        )
        object.__setattr__(self, "batch", batch)
        object.__setattr__(self, "ms", ms)

    @staticmethod
    def _times(given: object, what: str) -> tuple[float, ...]:
        times = check_list(given, what, "times")
        if not times:
            msg = f"{what} must hold at least one time"
            raise BadValueError(msg)
        return tuple(sorted(check_number(time, what, at_most=MILLISECONDS_MAX) for time in times))

    @property
    def mean_ms(self) -> float:
        """Mean milliseconds for a batch of one."""
        return math.fsum(self.at(1)) / len(self.at(1))

    def at(self, size: int) -> tuple[float, ...]:
        """Give the times, in milliseconds and equally likely, that a batch of `size` (1 to the largest) may take."""
        seen = [times if isinstance(times, tuple) else (times,) for times in self.ms]
        count = max(map(len, seen))
        above = bisect.bisect_left(self.batch, size)
        below = above - (self.batch[above] > size)
        share = (size - self.batch[below]) / max(self.batch[above] - self.batch[below], 1)
        return tuple(
            a + share * (b - a) for a, b in zip(*(_spread(seen[i], count) for i in (below, above)), strict=True)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the inline table that stands for this law in a network file."""
        ms = [list(times) if isinstance(times, tuple) else times for times in self.ms]
        return {"law": self.law, "batch": list(self.batch), "ms": ms}


def _spread(times: tuple[float, ...], count: int) -> list[float]:
    """Give `count` equally likely values of times that are sorted."""
    return [times[(2 * i + 1) * len(times) // (2 * count)] for i in range(count)]


Law = Constant | Linear | Exponential | LogNormal | Gamma | Measured | Table

_LAWS: dict[str, type[Law]] = {
    cls.law: cls for cls in (Constant, Linear, Exponential, LogNormal, Gamma, Measured, Table)
}


def parse(table: object, where: str) -> Law:
    """Read a law from the inline table of a network file.

    Parameters
    ----------
    table : mapping
        ``{"law": NAME, ...parameters}`` with NAME one of constant, linear, exponential, lognormal, gamma,
        measured, table.
    where : str
        Words for error messages, such as ``"network.toml: deployment 'large@cloud': service"``.

    Returns
    -------
    Law
        The typed law.

    Raises
    ------
    UnknownNameError
        If there is no such law or the law has no such parameter; the message names the nearest one.
    BadValueError
        If a parameter is missing or out of range, or `table` is not a table.

    Examples
    --------
    >>> parse({"law": "gamma", "mean_ms": 5, "cv": 0.5}, "here")
    Gamma(mean_ms=5.0, cv=0.5)
    """
    if not isinstance(table, Mapping):
        msg = f'{where}: must be a table such as {{law = "constant", mean_ms = 2}}, not {table!r}'
        raise BadValueError(msg)
    if "law" not in table:
        msg = f"{where}: key 'law' is missing; it is one of {', '.join(map(repr, _LAWS))}"
        raise BadValueError(msg)
    name = check_name(table["law"], f"{where}: law")
    if name not in _LAWS:
        msg = f"{where}: there is no service law {name!r}; {nearest(name, _LAWS)}"
        raise UnknownNameError(msg)
    law = _LAWS[name]
    keys = tuple(field.name for field in fields(law))
    required = tuple(key for key in keys if key != "scale")
    check_keys(table, ("law", *keys), required, f"{where} ({name})")
    try:
        return law(**{key: table[key] for key in keys if key in table})
    except BadValueError as error:
        msg = f"{where}: {error}"
        raise BadValueError(msg) from None
