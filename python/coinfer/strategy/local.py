"""Answer where the request arrives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from coinfer.errors import UnsupportedError
from coinfer.strategy.base import PlanSpec, StageSpec, Strategy, only_keys

if TYPE_CHECKING:
    from coinfer.network import Network

__all__ = ["Local"]


@dataclass(frozen=True)
class Local(Strategy):
    """Answer at the ingress node, never forward: the baseline of every comparison.

    Parameters
    ----------
    model : str, optional
        Which model, where several stand at the ingress node. Default: the only one.
    """

    kind: ClassVar[str] = "local"
    model: str | None = None

    @property
    def name(self) -> str:
        """A short label for tables and figures."""
        return "Local" if self.model is None else f"Local({self.model})"

    def plan(self, network: Network, ingress: str) -> PlanSpec:
        """Consult the model at the ingress node, and stop."""
        here = [d for d in network.deployments_at(ingress) if self.model in (None, d.model)]
        if not here:
            what = f"model {self.model!r}" if self.model is not None else "a model"
            msg = f"Local needs {what} at every ingress node, but node {ingress!r} has none"
            raise UnsupportedError(msg)
        if len(here) > 1:
            names = ", ".join(repr(d.model) for d in here)
            msg = f"several models stand at node {ingress!r}: say which, Local(model=...) with one of {names}"
            raise UnsupportedError(msg)
        return PlanSpec((StageSpec((here[0],)),))

    def to_dict(self) -> dict[str, Any]:
        """Give `kind` and parameters, as they stand in a strategy file."""
        return {"kind": self.kind, **({"model": self.model} if self.model is not None else {})}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Local:
        """Build from `to_dict`'s table, its `kind` taken off."""
        only_keys(table, ("model",), cls.kind)
        return cls(**table)
