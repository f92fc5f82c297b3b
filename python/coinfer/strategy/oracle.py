"""The bound on choosing one member's answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from coinfer.paths import path
from coinfer.strategy.base import PlanSpec, StageSpec, Strategy, only_keys

if TYPE_CHECKING:
    from coinfer.network import Network

__all__ = ["SelectionOracle"]


@dataclass(frozen=True)
class SelectionOracle(Strategy):
    """Stop at the first right answer along the path, else at the first stage.

    It knows the true labels, so it can only be replayed. No strategy that *selects* one member's answer along the
    same path is more accurate, nor as accurate with fewer stages; combinations such as a mean or a stack may exceed
    it.
    """

    kind: ClassVar[str] = "oracle"

    @property
    def name(self) -> str:
        """A short label for tables and figures."""
        return "SelectionOracle"

    def plan(self, network: Network, ingress: str) -> PlanSpec:
        """Walk the path, knowing."""
        return PlanSpec(tuple(StageSpec((deployment,)) for deployment in path(network, ingress)), oracle=True)

    def to_dict(self) -> dict[str, Any]:
        """Give `kind`, as it stands in a strategy file."""
        return {"kind": self.kind}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> SelectionOracle:
        """Build from `to_dict`'s table, its `kind` taken off."""
        only_keys(table, (), cls.kind)
        return cls()
