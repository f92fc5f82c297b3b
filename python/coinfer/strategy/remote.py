"""Answer at one named node, whatever the request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from coinfer.errors import BadValueError, UnsupportedError
from coinfer.strategy.base import PlanSpec, StageSpec, Strategy, only_keys

if TYPE_CHECKING:
    from coinfer.network import Network

__all__ = ["Remote"]


@dataclass(frozen=True)
class Remote(Strategy):
    """Send every request to one node: cloud-only inference, the other baseline.

    Parameters
    ----------
    node : str
        Where to answer.
    model : str, optional
        Which model, where several stand at that node. Default: the only one.
    """

    kind: ClassVar[str] = "remote"
    node: str = ""
    model: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.node, str) or not self.node:
            msg = f"Remote needs the name of a node, not {self.node!r}"
            raise BadValueError(msg)

    @property
    def name(self) -> str:
        """A short label for tables and figures."""
        return f"Remote({self.node})" if self.model is None else f"Remote({self.node}, {self.model})"

    def plan(self, network: Network, ingress: str) -> PlanSpec:
        """Consult the model at the named node, and stop."""
        network.node(self.node)
        there = [d for d in network.deployments if d.node == self.node]
        if self.model is not None:
            network.model(self.model)
            there = [d for d in there if d.model == self.model]
        if len(there) != 1:
            names = ", ".join(repr(d.model) for d in there)
            said = (
                f"several models stand there: say which, model= one of {names}"
                if there
                else "no such model stands there"
            )
            msg = f"Remote({self.node!r}): {said}"
            raise UnsupportedError(msg)
        return PlanSpec((StageSpec((there[0],)),))

    def to_dict(self) -> dict[str, Any]:
        """Give `kind` and parameters, as they stand in a strategy file."""
        return {
            "kind": self.kind,
            "node": self.node,
            **({"model": self.model} if self.model is not None else {}),
        }

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Remote:
        """Build from `to_dict`'s table, its `kind` taken off."""
        only_keys(table, ("node", "model"), cls.kind)
        return cls(**table)
