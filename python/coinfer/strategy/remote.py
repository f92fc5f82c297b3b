"""Answer at one place, whatever the request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from coinfer.errors import BadValueError, UnsupportedError
from coinfer.strategy.base import PlanSpec, StageSpec, Strategy, only_keys

if TYPE_CHECKING:
    from coinfer.network import Deployment, Network

__all__ = ["Remote"]


@dataclass(frozen=True)
class Remote(Strategy):
    """Send every request to one node, or to the nearest deployment of one model: the cloud-only baseline.

    Parameters
    ----------
    node : str, optional
        Where to answer. Default: wherever `model` stands nearest (by delay, then by name).
    model : str, optional
        Which model to ask. Default: the only one at `node`.

    Examples
    --------
    >>> Remote("cloud").name, Remote(model="large").name
    ('Remote(cloud)', 'Remote(large)')
    """

    kind: ClassVar[str] = "remote"
    node: str | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        for key, value in (("node", self.node), ("model", self.model)):
            if value is not None and (not isinstance(value, str) or not value):
                msg = f"Remote: {key} must be a name, not {value!r}"
                raise BadValueError(msg)
        if self.node is None and self.model is None:
            msg = "Remote needs the name of a node or of a model"
            raise BadValueError(msg)

    @property
    def name(self) -> str:
        """A short label for tables and figures."""
        return f"Remote({', '.join(name for name in (self.node, self.model) if name is not None)})"

    def plan(self, network: Network, ingress: str) -> PlanSpec:
        """Consult that one model, and stop."""
        return PlanSpec((StageSpec((self._deployment(network, ingress),)),))

    def _deployment(self, network: Network, ingress: str) -> Deployment:
        among = network.deployments if self.node is None else network.deployments_at(self.node)
        if self.model is not None:
            network.model(self.model)
        there = [d for d in among if self.model in (None, d.model)]
        if self.node is None:
            there = [d for d in there if network.routes.reaches(ingress, d.node)]
            there = sorted(there, key=lambda d: (network.routes.delay_ms(ingress, d.node), d.node))[:1]
        if len(there) == 1:
            return there[0]
        if there:
            said = f"several models stand there: say which, model= one of {', '.join(repr(d.model) for d in there)}"
        else:
            said = "no such model stands there" if self.node is not None else f"it cannot be reached from {ingress!r}"
        msg = f"{self.name}: {said}"
        raise UnsupportedError(msg)

    def to_dict(self) -> dict[str, Any]:
        """Give `kind` and parameters, as they stand in a strategy file."""
        named = {"node": self.node, "model": self.model}
        return {"kind": self.kind, **{key: value for key, value in named.items() if value is not None}}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Remote:
        """Build from `to_dict`'s table, its `kind` taken off."""
        only_keys(table, ("node", "model"), cls.kind)
        return cls(**table)
