"""Ask several models at once and combine what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from coinfer._checks import check_number
from coinfer.errors import BadValueError, UnknownNameError, UnsupportedError, nearest
from coinfer.strategy.base import Parameter, PlanSpec, StageSpec, Strategy, only_keys

if TYPE_CHECKING:
    from coinfer.network import Deployment, Network

__all__ = ["HOWS", "Ensemble"]

HOWS: Final = ("mean", "weighted", "logpool", "vote")


@dataclass(frozen=True)
class Ensemble(Strategy):
    """Consult the nearest deployment of every model in parallel: the slowest sets the latency, all are paid.

    Parameters
    ----------
    how : {"mean", "weighted", "logpool", "vote"}
        As for `coinfer.combine`; all but ``vote`` need probabilities or logits from every model.
    weights : mapping of model to float, optional
        One per model that is asked, >= 0; ``weighted`` demands them. Default: all equal.
    models : sequence of str, optional
        Ask these, in this order. Default: every deployed model, in the order of the network.

    References
    ----------
    Breiman, "Bagging predictors", Machine Learning 1996; Genest and Zidek, "Combining probability distributions",
    Statistical Science 1986 (the logarithmic pool).

    Examples
    --------
    >>> Ensemble("weighted", weights={"small": 1, "large": 3}).name
    'Ensemble(weighted, small 1/large 3)'
    """

    kind: ClassVar[str] = "ensemble"
    how: str = "mean"
    weights: Mapping[str, float] | None = None
    models: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.how not in HOWS:
            msg = f"Ensemble: unknown how {self.how!r}; {nearest(str(self.how), HOWS)}"
            raise UnknownNameError(msg)
        if self.models is not None:
            if isinstance(self.models, str) or not isinstance(self.models, Sequence) or not self.models:
                msg = f"Ensemble: models must be a sequence of at least one model name, not {self.models!r}"
                raise BadValueError(msg)
            names = tuple(str(model) for model in self.models)
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                msg = f"Ensemble: models names {twice!r} twice; give it a weight instead"
                raise BadValueError(msg)
            object.__setattr__(self, "models", names)
        if self.weights is not None:
            if not isinstance(self.weights, Mapping):
                msg = f"Ensemble: weights must be a mapping of model to number, not {self.weights!r}"
                raise BadValueError(msg)
            checked = {str(m): check_number(w, f"Ensemble: weight of model {m!r}") for m, w in self.weights.items()}
            if not any(checked.values()):
                msg = "Ensemble: weights are all 0; at least one must be above 0"
                raise BadValueError(msg)
            object.__setattr__(self, "weights", checked)
        elif self.how == "weighted":
            msg = "Ensemble: how='weighted' needs weights=, keyed by model; how='mean' gives all the same"
            raise BadValueError(msg)

    @property
    def name(self) -> str:
        """A short label for tables and figures."""
        said = [self.how]
        if self.weights is not None:
            said.append("/".join(f"{model} {weight:g}" for model, weight in self.weights.items()))
        elif self.models is not None:
            said.append(" + ".join(self.models))
        return f"Ensemble({', '.join(said)})"

    def plan(self, network: Network, ingress: str) -> PlanSpec:
        """Ask all of them, and stop."""
        names = self.models or tuple(dict.fromkeys(d.model for d in network.deployments))
        members = tuple(self._nearest(network, ingress, model) for model in names)
        if len(members) > 255:
            msg = f"{self.name}: {len(members)} models would be asked, but a group holds at most 255; use models="
            raise UnsupportedError(msg)
        weights = {}
        if self.weights is not None:
            for model in self.weights:
                if model not in names:
                    msg = f"{self.name}: model {model!r} has a weight but is not asked; {nearest(model, names)}"
                    raise UnknownNameError(msg)
            for model in names:
                if model not in self.weights:
                    msg = f"{self.name}: model {model!r} has no weight; weights are keyed by model, one for each"
                    raise UnsupportedError(msg)
                weights[model] = self.weights[model]
        combiner = "mean" if self.how == "weighted" else self.how
        return PlanSpec((StageSpec(members),), combiner=combiner, weights=weights)

    def parameters(self) -> tuple[str, ...]:
        """Name what may be tuned: the weights."""
        return (Parameter("weights", "weights", self.models or ()),)

    def _nearest(self, network: Network, ingress: str, model: str) -> Deployment:
        network.model(model)
        there = [d for d in network.deployments if d.model == model and network.routes.reaches(ingress, d.node)]
        if not there:
            msg = f"{self.name}: model {model!r} stands nowhere that can be reached from {ingress!r}"
            raise UnsupportedError(msg)
        return min(there, key=lambda d: (network.routes.delay_ms(ingress, d.node), d.node))

    def to_dict(self) -> dict[str, Any]:
        """Give `kind` and parameters, as they stand in a strategy file."""
        table: dict[str, Any] = {"kind": self.kind, "how": self.how}
        if self.models is not None:
            table["models"] = list(self.models)
        if self.weights is not None:
            table["weights"] = dict(self.weights)
        return table

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Ensemble:
        """Build from `to_dict`'s table, its `kind` taken off."""
        only_keys(table, ("how", "weights", "models"), cls.kind)
        return cls(**table)
