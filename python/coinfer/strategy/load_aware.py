"""Any strategy, made aware of queues: the longer the wait ahead, the less sure an answer has to be.

A wrapper and not an option of each strategy: it changes one number per stage, which the engine compares already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from coinfer._checks import check_number
from coinfer.errors import BadValueError, UnsupportedError
from coinfer.strategy.base import Parameter, PlanSpec, Strategy, only_keys
from coinfer.strategy.expected_gain import ExpectedGain

if TYPE_CHECKING:
    from coinfer.network import Network
    from coinfer.predictions import Predictions

__all__ = ["LoadAware"]

_PER_MS = (0.0, *(float(f"{10 ** (at / 3):.2g}") for at in range(-12, 1)))
"""What tune tries: from no look at the queue to one that lets anything pass after a millisecond."""


@dataclass(frozen=True)
class LoadAware(Strategy):
    """Lower the thresholds of a strategy by `per_ms` for each millisecond of estimated wait ahead.

    The wait ahead at the next stage is the work in its queue and in service over its instances, as known when the
    request decides. Replaying it needs queues (see `Network.queues`).

    Parameters
    ----------
    inner : Strategy
        What decides: compares a score with thresholds (`Forward`, `Sequential`), or weighs costs (`ExpectedGain`).
    per_ms : float, optional
        In units of the score, >= 0. ExpectedGain supplies its own, 1 / alpha: waiting costs what any delay costs.
    gossip_ms : float
        How old knowledge of queues may be: they are known as they stood at the last multiple of this period. 0: always
        up to date.

    Examples
    --------
    >>> LoadAware(ExpectedGain(500.0)).name
    'LoadAware(ExpectedGain(500 ms))'
    """

    kind: ClassVar[str] = "load_aware"
    inner: Strategy
    per_ms: float | None = None
    gossip_ms: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Strategy) or isinstance(self.inner, LoadAware):
            msg = f"LoadAware: inner must be a strategy that is not aware of load yet, not {self.inner!r}"
            raise BadValueError(msg)
        if self.per_ms is not None:
            object.__setattr__(self, "per_ms", check_number(self.per_ms, "LoadAware: per_ms"))
        elif not isinstance(self.inner, ExpectedGain):
            msg = (
                f"LoadAware: give per_ms=, how much a millisecond of wait lowers the thresholds of {self.inner.name}; "
                "only ExpectedGain weighs waiting by itself"
            )
            raise BadValueError(msg)
        object.__setattr__(self, "gossip_ms", check_number(self.gossip_ms, "LoadAware: gossip_ms"))

    @property
    def name(self) -> str:
        """A short label for tables and figures."""
        slope = "" if self.per_ms is None else f", {self.per_ms:g} per ms"
        stale = f", gossip {self.gossip_ms:g} ms" if self.gossip_ms else ""
        return f"LoadAware({self.inner.name}{slope}{stale})"

    @property
    def fitted(self) -> bool:
        """Whether what is inside has learned all it needs."""
        return self.inner.fitted

    def fit(self, predictions: Predictions, network: Network) -> LoadAware:
        """Fit what is inside."""
        return replace(self, inner=self.inner.fit(predictions, network))

    def plan(self, network: Network, ingress: str) -> PlanSpec:
        """Lay out the plan of what is inside, its thresholds falling with the wait ahead."""
        spec = self.inner.plan(network, ingress)
        if spec.oracle:
            msg = f"{self.name}: the oracle compares nothing, so load cannot change what it decides"
            raise UnsupportedError(msg)
        if self.per_ms is not None:
            per_us = self.per_ms / 1e3
        else:
            assert isinstance(self.inner, ExpectedGain)
            per_us = 1e-3 / self.inner.alpha
        stages = [replace(stage, per_us=per_us) for stage in spec.stages[:-1]]
        return replace(spec, stages=(*stages, spec.stages[-1]), gossip_ms=self.gossip_ms)

    def parameters(self) -> tuple[str, ...]:
        """Name what may be tuned, on a trace: what is inside but its thresholds, and a `per_ms` that was given."""
        inside = tuple(p for p in self.inner.parameters() if isinstance(p, Parameter) and p.kind != "cut")
        return inside if self.per_ms is None else (*inside, Parameter("per_ms", "scalar", _PER_MS))

    def with_parameters(self, **values: Any) -> LoadAware:
        """Give the same strategy with another `per_ms`, or other values inside."""
        own = {name: values.pop(name) for name in ("per_ms",) if name in values}
        return replace(self, inner=self.inner.with_parameters(**values) if values else self.inner, **own)

    def to_dict(self) -> dict[str, Any]:
        """Give `kind` and parameters, as they stand in a strategy file."""
        table: dict[str, Any] = {"kind": self.kind}
        if self.per_ms is not None:
            table["per_ms"] = self.per_ms
        if self.gossip_ms:
            table["gossip_ms"] = self.gossip_ms
        return table | {"inner": self.inner.to_dict()}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> LoadAware:
        """Build from `to_dict`'s table, its `kind` taken off."""
        only_keys(table, ("per_ms", "gossip_ms", "inner"), cls.kind)
        return cls(Strategy.inside(table, cls.kind), table.get("per_ms"), table.get("gossip_ms", 0.0))
