"""Ask several models at once and combine what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from coinfer._checks import check_number
from coinfer.combiner import HOWS, Answers, Learned
from coinfer.errors import BadValueError, UnknownNameError, UnsupportedError, nearest
from coinfer.rule import CombineRule, find
from coinfer.strategy.base import Parameter, PlanSpec, StageSpec, Strategy, nearest_deployment, only_keys

if TYPE_CHECKING:
    from coinfer.network import Deployment, Network
    from coinfer.predictions import Predictions

__all__ = ["Ensemble"]

_SAME = {"weighted": "mean", "weighted_vote": "vote"}
"""With weights, which these demand."""


@dataclass(frozen=True)
class Ensemble(Strategy):
    """Consult the nearest deployment of every model in parallel: the slowest sets the latency, all are paid.

    Parameters
    ----------
    how : {"mean", "weighted", "logpool", "vote", "weighted_vote", "boost", "stack"}
        As for `coinfer.combine`; votes (and ``boost``, a vote whose weights are found) work on labels alone, all others
        need probabilities or logits from every model. ``boost`` and ``stack`` must be fitted before they are replayed.
    weights : mapping of model to float, optional
        One per model that is asked, >= 0; ``weighted`` and ``weighted_vote`` demand them. Default: all equal.
    models : sequence of str, optional
        Ask these, in this order. Default: every deployed model, in the order of the network.
    learned : coinfer.Boost or coinfer.Stack, optional
        What `fit` finds, or was fitted by hand.

    Notes
    -----
    ``boost`` asks only the models that it picked (`learned.models`), so a model that is worse than chance on what the
    others get wrong costs nothing. ``stack`` gives no answer (status ``failed``) to a request that another set of
    members answered than it has a fit for: by default all of them, or all but one.

    References
    ----------
    Breiman, "Bagging predictors", Machine Learning 1996; Genest and Zidek, "Combining probability distributions",
    Statistical Science 1986 (the logarithmic pool). For boost and stack see `coinfer.Boost` and `coinfer.Stack`.

    Examples
    --------
    >>> Ensemble("weighted", weights={"small": 1, "large": 3}).name
    'Ensemble(weighted, small 1/large 3)'
    """

    kind: ClassVar[str] = "ensemble"
    how: str | CombineRule = "mean"
    weights: Mapping[str, float] | None = None
    models: tuple[str, ...] | None = None
    learned: Learned | None = None

    def __post_init__(self) -> None:
        if isinstance(self.how, str) and ":" in self.how:
            object.__setattr__(self, "how", find(self.how, CombineRule))
        if not isinstance(self.how, CombineRule) and self.how not in HOWS:
            msg = f"Ensemble: unknown how {self.how!r}; {nearest(str(self.how), HOWS)}"
            raise UnknownNameError(msg)
        learns = self.how in Learned.hows
        if self.learned is not None and (not isinstance(self.learned, Learned) or self.learned.how != self.how):
            msg = f"Ensemble: learned must be what how={self.how!r} was fitted to, not {self.learned!r}"
            raise BadValueError(msg)
        if learns and self.weights is not None:
            msg = f"Ensemble: how={self.how!r} finds weights of its own; leave weights= out"
            raise BadValueError(msg)
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
        elif self.how in _SAME:
            msg = (
                f"Ensemble: how={self.how!r} needs weights=, keyed by model; how={_SAME[self.how]!r} gives all the same"
            )
            raise BadValueError(msg)

    @property
    def name(self) -> str:
        """A short label for tables and figures."""
        said = [str(self.how)]
        if self.weights is not None:
            said.append("/".join(f"{model} {weight:g}" for model, weight in self.weights.items()))
        elif self.models is not None:
            said.append(" + ".join(self.models))
        return f"Ensemble({', '.join(said)})"

    @property
    def fitted(self) -> bool:
        """Whether nothing is left to learn."""
        return self.how not in Learned.hows or self.learned is not None

    def fit(self, predictions: Predictions, network: Network) -> Ensemble:
        """Learn what ``boost`` or ``stack`` must know; other ways to combine have nothing to learn.

        Parameters
        ----------
        predictions : Predictions
            With true labels, of samples that no model was trained on; replay on other samples than these.
        network : Network
            Says which models are asked, and by which classes they abstain.
        """
        if self.how not in Learned.hows:
            return self
        from coinfer.compiling import Compiler, outputs_of

        compiler = Compiler(predictions, network)
        asked = self._asked(network, network.ingress[0], self._names(network))
        for deployment in asked:
            compiler.check_combined(deployment.model, Learned.hows[self.how].requires, self.how)
        label = [compiler.compile(PlanSpec((StageSpec((d,)),)), network.ingress[0]).evidence.label[0] for d in asked]
        truth = predictions.labels
        answers = Answers(
            tuple(d.model for d in asked),
            tuple(outputs_of(predictions, d.model) for d in asked),
            np.full(len(predictions), -1, np.int32) if truth is None else np.asarray(truth, np.int32),
            predictions.class_count,
            predictions.classes,
            np.stack(label) < 0,
        )
        return replace(self, learned=Learned.hows[self.how].learn(answers))

    def plan(self, network: Network, ingress: str) -> PlanSpec:
        """Ask all of them, and stop."""
        if not self.fitted:
            msg = f"{self.name} is not fitted yet: use Ensemble({self.how!r}).fit(predictions, network)"
            raise UnsupportedError(msg)
        names = self._names(network) if self.learned is None else self.learned.models
        members = self._asked(network, ingress, names)
        if self.learned is not None:
            return PlanSpec((StageSpec(members),), combiner=self.learned, weights=self.learned.weights)
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
        return PlanSpec((StageSpec(members),), combiner=_SAME.get(str(self.how), self.how), weights=weights)

    def _names(self, network: Network) -> tuple[str, ...]:
        return self.models or tuple(dict.fromkeys(d.model for d in network.deployments))

    def _asked(self, network: Network, ingress: str, names: tuple[str, ...]) -> tuple[Deployment, ...]:
        members = tuple(nearest_deployment(network, ingress, model, self.name) for model in names)
        if len(members) > 255:
            msg = f"{self.name}: {len(members)} models would be asked, but a group holds at most 255; use models="
            raise UnsupportedError(msg)
        return members

    def parameters(self) -> tuple[str, ...]:
        """Name what may be tuned: the weights."""
        return (Parameter("weights", "weights", self.models or self.weights or ()),)

    def to_dict(self) -> dict[str, Any]:
        """Give `kind` and parameters, as they stand in a strategy file."""
        table: dict[str, Any] = {
            "kind": self.kind,
            "how": self.how.reference if isinstance(self.how, CombineRule) else self.how,
        }
        if self.models is not None:
            table["models"] = list(self.models)
        if self.weights is not None:
            table["weights"] = dict(self.weights)
        if self.learned is not None:
            table["learned"] = self.learned.to_dict()
        return table

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Ensemble:
        """Build from `to_dict`'s table, its `kind` taken off."""
        only_keys(table, ("how", "weights", "models", "learned"), cls.kind)
        given = dict(table)
        if "learned" in given:
            how = given.get("how")
            if how not in Learned.hows or not isinstance(given["learned"], Mapping):
                msg = f"the table [learned] belongs to how = {' or '.join(map(repr, Learned.hows))}, not {how!r}"
                raise BadValueError(msg)
            given["learned"] = Learned.hows[how].from_dict(given["learned"])
        return cls(**given)
