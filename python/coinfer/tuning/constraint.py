"""Objectives and constraints in words: ``"accuracy >= 0.95"``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coinfer._checks import check_list
from coinfer.errors import BadValueError, UnknownNameError, nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["QUANTITIES", "Constraint"]

QUANTITIES = ("accuracy", "latency_us_mean", "price_usd", "forwarded_share", "stages")
"""What can be minimised or bounded: shares, microseconds, USD per request, stages per request."""

_FORM = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(>=|<=|>|<)\s*([-+0-9.eE_]+)\s*")
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True, slots=True)
class Constraint:
    """A bound on one quantity.

    Examples
    --------
    >>> Constraint.parse("accuracy >= 0.95")
    Constraint(quantity='accuracy', relation='>=', bound=0.95)
    """

    quantity: str
    relation: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Read ``"quantity >= number"``, with any of >=, <=, >, <."""
        match = _FORM.fullmatch(text) if isinstance(text, str) else None
        try:
            bound = float(match[3]) if match else None
        except ValueError:
            bound = None
        if match is None or bound is None:
            msg = f"constraint {text!r} is not of the form 'accuracy >= 0.95': a quantity, one of >= <= > <, a number"
            raise BadValueError(msg)
        return cls(known_quantity(match[1]), match[2], bound)

    @classmethod
    def parse_all(cls, texts: str | Iterable[str]) -> tuple[Constraint, ...]:
        """Read several; a single text is one constraint."""
        return tuple(cls.parse(text) for text in ([texts] if isinstance(texts, str) else _listed(texts)))

    def holds(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Say where the bound is met."""
        met: NDArray[np.bool_] = _OPERATORS[self.relation](values, self.bound)
        return met

    def excess(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give by how much the bound is missed, 0 where it is met."""
        import numpy as np

        missed = self.bound - values if self.relation in (">=", ">") else values - self.bound
        return np.maximum(missed, 0.0)

    def __str__(self) -> str:
        return f"{self.quantity} {self.relation} {self.bound:g}"


def _listed(texts: object) -> list[str]:
    return check_list(texts, "subject_to", "constraints such as 'accuracy >= 0.95'")


def known_quantity(name: str) -> str:
    """Give the name back if it can be tuned for."""
    if name not in QUANTITIES:
        msg = f"unknown quantity {name!r}; {nearest(name, QUANTITIES)}"
        raise UnknownNameError(msg)
    return name
