"""Objectives and constraints in words: ``"accuracy >= 0.95"``, ``"latency_us_p99 <= 80000"``."""

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

__all__ = [
    "ON_A_TRACE",
    "QUANTITIES",
    "Constraint",
    "depends_on_load",
    "known_quantity",
    "more_is_better",
    "quantile_of",
    "subject_of",
]

QUANTITIES = ("accuracy", "latency_us_mean", "price_usd", "forwarded_share", "stages")
"""What can be minimised or bounded: shares, microseconds, USD per request, stages per request."""

ON_A_TRACE = ("goodput", "deadline_missed")
"""Shares of the requests of a trace: right within the deadline; cut short by it, by a full queue or by a failure."""

ABOUT = ("recall", "accuracy_loss", "disagreement", "load")
"""The same about a class (recall), a model (loss of accuracy against it, disagreement with it) or a node (load)."""

_QUANTILE = re.compile(r"latency_us_p(\d{1,2}(?:\.\d+)?)")
_ABOUT = re.compile(r"([a-z_]+)\[([^\[\]]+)\]")
_FORM = re.compile(r"\s*([A-Za-z_][\w.]*(?:\[[^\[\]]+\])?)\s*(>=|<=|>|<)\s*([-+0-9.eE_]+)\s*")
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
    >>> Constraint.parse("accuracy_loss[cloud-model] <= 0.005").quantity
    'accuracy_loss[cloud-model]'
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

        return np.maximum(self.beyond(values), 0.0)

    def beyond(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give how far values lie on the wrong side of the bound; below 0 on the right one."""
        return self.bound - values if self.at_least else values - self.bound

    @property
    def at_least(self) -> bool:
        """Whether more is better."""
        return self.relation in (">=", ">")

    @property
    def scale(self) -> float:
        """What a miss is measured in, so that misses of different quantities compare."""
        return max(abs(self.bound), 1e-12)

    def __str__(self) -> str:
        return f"{self.quantity} {self.relation} {self.bound:g}"


def _listed(texts: object) -> list[str]:
    return check_list(texts, "subject_to", "constraints such as 'accuracy >= 0.95'")


def quantile_of(quantity: str) -> float | None:
    """Give the share of ``latency_us_p99``, 0.99; None for what is no quantile."""
    match = _QUANTILE.fullmatch(quantity)
    return float(match[1]) / 100 if match else None


def subject_of(quantity: str) -> tuple[str, str] | None:
    """Take ``recall[cat]`` apart; None for what is about nothing in particular."""
    match = _ABOUT.fullmatch(quantity)
    return (match[1], match[2]) if match else None


def depends_on_load(quantity: str) -> bool:
    """Say whether a quantity depends on how requests wait for each other."""
    return quantity.startswith(("latency_us_", "load[")) or quantity in ON_A_TRACE


def more_is_better(quantity: str) -> bool:
    """Say whether more of a quantity is better."""
    return quantity in ("accuracy", "goodput") or quantity.startswith("recall[")


def known_quantity(name: str) -> str:
    """Give the name back if it can be tuned for."""
    if isinstance(name, str):
        about = subject_of(name)
        quantile = quantile_of(name)
        if (
            name in (*QUANTITIES, *ON_A_TRACE)
            or (about and about[0] in ABOUT)
            or (quantile is not None and quantile > 0)
        ):
            return name
    allowed = (*QUANTITIES, *ON_A_TRACE, "latency_us_p99", *(f"{each}[...]" for each in ABOUT))
    msg = f"unknown quantity {name!r}; {nearest(str(name), allowed)}"
    raise UnknownNameError(msg)
