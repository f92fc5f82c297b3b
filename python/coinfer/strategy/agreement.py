"""Ask a tier's small ensemble, and forward only if its members disagree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from coinfer._checks import check_number
from coinfer.combiner import Agreement as Votes
from coinfer.errors import BadValueError, UnsupportedError
from coinfer.strategy.base import Parameter, PlanSpec, StageSpec, Strategy, check_groups, nearest_deployment, only_keys

if TYPE_CHECKING:
    from coinfer.network import Deployment, Network

__all__ = ["Agreement"]


@dataclass(frozen=True)
class Agreement(Strategy):
    """A tier's models answer if one label has enough of their votes, else the next tier's are asked.

    The votes of earlier tiers do not count any more: a tier answers for itself. The last always answers, with the
    label of most votes (the lowest of equals).

    Parameters
    ----------
    groups : sequence of sequences of str, optional
        Models that are asked together, group by group, each at its nearest deployment. Default: per tier from the
        ingress upwards, every model that stands there.
    at_least : int, float, or a sequence with one of them per group but the last
        What settles: so many votes (an integer, >= 1), or such a share of the group's members (a float in (0, 1]), for
        a label that no other equals. A member that does not answer or abstains is a vote that is missing.

    References
    ----------
    Kolawole et al., "Agreement-Based Cascading for Efficient Inference", TMLR 2025 (arXiv 2407.02348), with the vote
    rule.

    Examples
    --------
    >>> import coinfer as ci
    >>> preds = ci.Predictions(
    ...     {"a": ci.ModelOutput(label=[0, 1, 1]), "b": ci.ModelOutput(label=[0, 0, 1]),
    ...      "large": ci.ModelOutput(label=[0, 1, 0])}, labels=[0, 1, 1])
    >>> net = ci.Network(
    ...     [ci.Node("device", 0), ci.Node("cloud", 1)], [ci.Link(between=("device", "cloud"), delay_ms=20)], [],
    ...     [ci.Deployment("a", "device"), ci.Deployment("b", "device"), ci.Deployment("large", "cloud")])
    >>> run = ci.replay(ci.Trace([0, 1, 2], ["device"] * 3, [0, 1, 2]), preds, net, ci.Agreement(at_least=2))
    >>> float(run.summary.accuracy), [float(share) for share in run.summary.settled_by_stage]
    (1.0, [0.6666666666666666, 0.3333333333333333])
    """

    kind: ClassVar[str] = "agreement"
    groups: tuple[tuple[str, ...], ...] | None = None
    at_least: int | float | tuple[int | float, ...] = 1.0

    def __post_init__(self) -> None:
        if self.groups is not None:
            object.__setattr__(self, "groups", check_groups(self.groups, "Agreement"))
        several = isinstance(self.at_least, Iterable) and not isinstance(self.at_least, str)
        given = list(self.at_least) if several else [self.at_least]  # type: ignore[arg-type]
        for value in given:
            if isinstance(value, int) and not isinstance(value, bool):
                check_number(value, "Agreement: at_least, in votes,", at_least=1)
            else:
                check_number(value, "Agreement: at_least, as a share,", above=0.0, at_most=1.0)
        if several:
            object.__setattr__(self, "at_least", tuple(given))

    @property
    def name(self) -> str:
        """A short label for tables and figures."""
        need = self.at_least if isinstance(self.at_least, tuple) else (self.at_least,)
        said = "/".join(str(value) if isinstance(value, int) else f"{value:.4g}" for value in need)
        groups = "" if self.groups is None else ", " + " > ".join("+".join(group) for group in self.groups)
        return f"Agreement({said}{groups})"

    def plan(self, network: Network, ingress: str) -> PlanSpec:
        """Ask group after group, until one agrees."""
        if self.groups is None:
            groups = _tiers(network, ingress, self.name)
        else:
            groups = [
                tuple(nearest_deployment(network, ingress, model, self.name) for model in group)
                for group in self.groups
            ]
        needs = self.at_least if isinstance(self.at_least, tuple) else (self.at_least,) * (len(groups) - 1)
        if len(needs) != len(groups) - 1:
            msg = (
                f"{self.name}: at_least holds {len(needs)} numbers, but there are {len(groups)} groups from "
                f"{ingress!r}: give one per group but the last, or one for all"
            )
            raise BadValueError(msg)
        stages = []
        for at, (group, need) in enumerate(zip(groups, needs, strict=False)):
            if isinstance(need, int) and need > len(group):
                msg = f"{self.name}: group {at} has {len(group)} members, of which never {need} can agree"
                raise UnsupportedError(msg)
            votes = (
                need
                if isinstance(need, int)
                else next(v for v in range(1, len(group) + 1) if v >= need * len(group) - 1e-9)
            )
            stages.append(StageSpec(group, votes / len(group)))
        sizes = tuple(len(group) for group in groups)
        return PlanSpec((*stages, StageSpec(groups[-1])), combiner=Votes(sizes))

    def parameters(self) -> tuple[str, ...]:
        """Name what may be tuned: the share that has to agree, in all groups."""
        return (Parameter("at_least", "scalar", (0.5, 0.6, 2 / 3, 0.75, 0.8, 0.9, 1.0)),)

    def to_dict(self) -> dict[str, Any]:
        """Give `kind` and parameters, as they stand in a strategy file."""
        several = isinstance(self.at_least, tuple)
        table: dict[str, Any] = {"kind": self.kind, "at_least": list(self.at_least) if several else self.at_least}  # type: ignore[arg-type]
        if self.groups is not None:
            table["groups"] = [list(group) for group in self.groups]
        return table

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Agreement:
        """Build from `to_dict`'s table, its `kind` taken off."""
        only_keys(table, ("groups", "at_least"), cls.kind)
        return cls(**table)


def _tiers(network: Network, ingress: str, name: str) -> list[tuple[Deployment, ...]]:
    """Group the nearest deployments of the models of each tier, from the ingress upwards."""
    start = network.node(ingress).tier
    groups = []
    for tier in network.tiers:
        there = [d for d in network.deployments if network.node(d.node).tier == tier]
        reached = [d for d in there if network.routes.reaches(ingress, d.node)]
        if tier >= start and reached:
            models = dict.fromkeys(d.model for d in reached)
            groups.append(tuple(nearest_deployment(network, ingress, model, name, reached) for model in models))
    if not groups:
        msg = f"{name}: no deployment can be reached from {ingress!r} in its tier or above"
        raise UnsupportedError(msg)
    return groups
