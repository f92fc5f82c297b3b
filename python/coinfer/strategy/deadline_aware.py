"""Any strategy, made aware of deadlines: no stage is started that cannot finish in time.

What a stage takes at least is its own median: the way to its host, its slowest member's median service and the way back
to the ingress, as if it met nobody. The live router keeps the same rule with the medians that it measures. A request
that is stopped gives the best answer so far at once (``degraded``), instead of paying for one that comes too late.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from coinfer.errors import BadValueError
from coinfer.strategy.base import PlanSpec, Strategy, only_keys

if TYPE_CHECKING:
    from coinfer.network import Network
    from coinfer.predictions import Predictions

__all__ = ["DeadlineAware"]


@dataclass(frozen=True)
class DeadlineAware(Strategy):
    """Let a strategy start no stage that cannot finish before the request's deadline.

    Without deadlines it is the strategy inside.

    Parameters
    ----------
    inner : Strategy
        What decides otherwise.

    Examples
    --------
    >>> from coinfer import Forward
    >>> DeadlineAware(Forward(threshold=0.9)).name
    'DeadlineAware(Forward(max_prob, 0.9))'
    """

    kind: ClassVar[str] = "deadline_aware"
    inner: Strategy

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Strategy) or isinstance(self.inner, DeadlineAware):
            msg = f"DeadlineAware: inner must be a strategy that is not aware of deadlines yet, not {self.inner!r}"
            raise BadValueError(msg)

    @property
    def name(self) -> str:
        """A short label for tables and figures."""
        return f"DeadlineAware({self.inner.name})"

    @property
    def fitted(self) -> bool:
        """Whether what is inside has learned all it needs."""
        return self.inner.fitted

    def fit(self, predictions: Predictions, network: Network) -> DeadlineAware:
        """Fit what is inside."""
        return replace(self, inner=self.inner.fit(predictions, network))

    def plan(self, network: Network, ingress: str) -> PlanSpec:
        """Lay out the plan of what is inside, to be stopped in time."""
        return replace(self.inner.plan(network, ingress), in_time=True)

    def parameters(self) -> tuple[str, ...]:
        """Name what may be tuned inside."""
        return self.inner.parameters()

    def with_parameters(self, **values: Any) -> DeadlineAware:
        """Give the same strategy with other values inside."""
        return replace(self, inner=self.inner.with_parameters(**values))

    def to_dict(self) -> dict[str, Any]:
        """Give `kind` and what is inside, as they stand in a strategy file."""
        return {"kind": self.kind, "inner": self.inner.to_dict()}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> DeadlineAware:
        """Build from `to_dict`'s table, its `kind` taken off."""
        only_keys(table, ("inner",), cls.kind)
        return cls(Strategy.inside(table, cls.kind))
