"""Serve where the request stands if the answer is sure enough, else forward it along the path."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from coinfer._checks import check_list
from coinfer.errors import BadValueError, UnsupportedError
from coinfer.rule import ScoreRule, StopRule, find
from coinfer.strategy.base import (
    Parameter,
    PlanSpec,
    StageSpec,
    Strategy,
    check_models,
    check_score,
    only_keys,
    score_reference,
    thresholds_along,
    walk,
)

if TYPE_CHECKING:
    from coinfer.network import Network

__all__ = ["ANY", "EACH", "Forward"]

ANY: Final = "any"
"""Leave it to `coinfer.tune` which tiers to leave out."""

EACH: Final = "each"
"""Leave it to `coinfer.tune` to find a threshold for each stage."""


@dataclass(frozen=True)
class Forward(Strategy):
    """Serve iff score >= threshold of the stage, else forward to the next deployment on the path.

    Parameters
    ----------
    score : str or ScoreRule
        ``"confidence"`` (as the service reports it; the largest probability of a model that reports vectors), or a
        kind of `coinfer.score` or a rule of one's own, which need vectors from every model but the last.
    thresholds : sequence of float, mapping of model to float, or "each", optional
        One per stage but the last, in path order, where all paths have equal length; keyed by model otherwise.
        ``"each"`` lets `coinfer.tune` find one for each stage, instead of one for all.
    threshold : float, optional
        One for all stages, instead of `thresholds`.
    models : sequence of str or "any", optional
        Walk only past these models. Default: every tier's nearest deployment. ``"any"`` lets `coinfer.tune` choose.
    temperature : float or mapping of model to float
        Softens (> 1) or sharpens (< 1) probabilities before they are scored.
    by_ingress : mapping of ingress to sequence of float, optional
        Thresholds for the requests that enter there, one per stage but the last, instead of `thresholds`.
    stop : StopRule, optional
        A rule of one's own (`coinfer.rule.stop`) instead of thresholds.

    Notes
    -----
    Without thresholds the strategy is a template that `coinfer.tune` fills in; replaying it is an error.

    References
    ----------
    Si Salem et al., "Towards inference delivery networks", IEEE/ACM ToN 2024; Wang et al., "IDK cascades", UAI 2018
    (arXiv 1706.00885).
    """

    kind: ClassVar[str] = "forward"
    score: str | ScoreRule = "max_prob"
    thresholds: tuple[float, ...] | Mapping[str, float] | Literal["each"] | None = None
    threshold: float | None = None
    models: tuple[str, ...] | Literal["any"] | None = None
    temperature: float | Mapping[str, float] = 1.0
    by_ingress: Mapping[str, tuple[float, ...]] | None = None
    stop: StopRule | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "score", check_score(self.score))
        self._check_stop()
        if self.thresholds is not None and self.threshold is not None:
            msg = "give thresholds (one per stage) or threshold (one for all stages), not both"
            raise BadValueError(msg)
        if self.thresholds is not None and not (isinstance(self.thresholds, str) and self.thresholds == EACH):
            if isinstance(self.thresholds, Mapping):
                checked: tuple[float, ...] | dict[str, float] = {
                    str(model): _number(value, f"threshold of model {model!r}")
                    for model, value in self.thresholds.items()
                }
            elif isinstance(self.thresholds, Sequence | _arrays()) and not isinstance(self.thresholds, str):
                checked = tuple(
                    _number(value, f"threshold {i} of {self.thresholds!r}") for i, value in enumerate(self.thresholds)
                )
            else:
                msg = (
                    f"thresholds must be a sequence of numbers, a mapping of model to number, or {EACH!r}, "
                    f"not {self.thresholds!r}"
                )
                raise BadValueError(msg)
            object.__setattr__(self, "thresholds", checked)
        if self.threshold is not None:
            object.__setattr__(self, "threshold", _number(self.threshold, "threshold"))
        if self.by_ingress is not None:
            object.__setattr__(self, "by_ingress", _by_ingress(self.by_ingress))
        if self.models is not None and self.models != ANY:
            object.__setattr__(self, "models", check_models(self.models, f"Forward (or models={ANY!r})"))
        for where, value in _temperatures(self.temperature).items():
            if not (_number(value, f"temperature{where}") > 0 and math.isfinite(value)):
                msg = f"temperature{where} must be a positive number, not {value!r}"
                raise BadValueError(msg)

    def _check_stop(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", find(self.stop, StopRule))
        if self.stop is None:
            return
        if not isinstance(self.stop, StopRule):
            msg = f"Forward: stop must be a rule made by coinfer.rule.stop, not {self.stop!r}"
            raise BadValueError(msg)
        if (self.threshold, self.thresholds, self.by_ingress) != (None, None, None) or self.models == ANY:
            msg = f"Forward: stop={self.stop.name} decides in the place of thresholds; give one of the two"
            raise BadValueError(msg)

    @property
    def name(self) -> str:
        """A short label for tables and figures."""
        if self.stop is not None:
            said = f", {self.stop.name}"
        elif self.threshold is not None:
            said = f", {self.threshold:.4g}"
        elif self.thresholds is None:
            said = "" if self.by_ingress is None else f", {len(self.by_ingress)} paths"
        elif isinstance(self.thresholds, str):
            said = f", {self.thresholds}"
        elif isinstance(self.thresholds, Mapping):
            said = ", " + "/".join(f"{model} {value:.4g}" for model, value in self.thresholds.items())
        else:
            said = ", " + "/".join(f"{value:.4g}" for value in self.thresholds)
        past = "" if self.models is None else ", any tiers" if self.models == ANY else f", {' > '.join(self.models)}"
        return f"Forward({self.score}{said}{past})"

    def parameters(self) -> tuple[str, ...]:
        """Name what `coinfer.tune` may move."""
        if self.stop is not None:
            return ()
        cut = Parameter("thresholds", "cut") if self.thresholds == EACH else Parameter("threshold", "cut", shared=True)
        return (cut, Parameter("models", "subset")) if self.models == ANY else (cut,)

    def with_parameters(self, **values: Any) -> Forward:
        """Give the same strategy with other thresholds, or past other models."""
        cut = values.keys() & {"threshold", "thresholds"}
        cleared: dict[str, Any] = {"threshold": None, "thresholds": None, "by_ingress": None} if cut else {}
        thresholds = values.get("thresholds")
        if isinstance(thresholds, Mapping) and not any(isinstance(v, Real) for v in thresholds.values()):
            values["by_ingress"] = values.pop("thresholds")
        return replace(self, **{**cleared, **values})

    def at(self, threshold: float) -> Forward:
        """Give the same strategy with one threshold for all stages."""
        return replace(self, thresholds=None, threshold=threshold)

    def plan(self, network: Network, ingress: str) -> PlanSpec:
        """Walk the path, stopping where the score is high enough."""
        if self.models == ANY:
            msg = f"{self.name} does not say which models to walk past: name them, or let coinfer.tune choose"
            raise UnsupportedError(msg)
        way = walk(network, ingress, self.models)
        if self.stop is not None:
            stages = tuple(StageSpec((d,)) for d in way)
            return PlanSpec(stages, self.score, self._temperature_of(d.model for d in way), stop=self.stop)
        if self.by_ingress is not None and ingress in self.by_ingress:
            cuts = list(thresholds_along(self.by_ingress[ingress], way, ingress))
        elif self.threshold is not None:
            cuts = [self.threshold] * (len(way) - 1)
        elif self.thresholds is not None and not isinstance(self.thresholds, str):
            cuts = list(thresholds_along(self.thresholds, way, ingress))
        else:
            msg = f"{self.name} has no thresholds yet: give thresholds= or threshold=, or let coinfer.tune find them"
            raise UnsupportedError(msg)
        stages = tuple(StageSpec((d,), cut) for d, cut in zip(way, [*cuts, -math.inf], strict=True))
        return PlanSpec(stages, self.score, self._temperature_of(d.model for d in way))

    def _temperature_of(self, models: Any) -> dict[str, float]:
        if isinstance(self.temperature, Mapping):
            return {model: float(self.temperature.get(model, 1.0)) for model in models}
        return dict.fromkeys(models, float(self.temperature))

    def to_dict(self) -> dict[str, Any]:
        """Give `kind` and parameters, as in a strategy file; thresholds keyed by model stand in `[threshold]`."""
        table: dict[str, Any] = {"kind": self.kind, "score": score_reference(self.score)}
        if self.models is not None:
            table["models"] = self.models if self.models == ANY else list(self.models)
        if self.temperature != 1.0:
            table["temperature"] = dict(self.temperature) if isinstance(self.temperature, Mapping) else self.temperature
        if isinstance(self.thresholds, Mapping):
            table["threshold"] = dict(self.thresholds)
        elif self.thresholds is not None:
            table["thresholds"] = EACH if self.thresholds == EACH else list(self.thresholds)
        elif self.threshold is not None:
            table["threshold"] = self.threshold
        if self.by_ingress is not None:
            table["by_ingress"] = {ingress: list(cuts) for ingress, cuts in self.by_ingress.items()}
        if self.stop is not None:
            table["stop"] = self.stop.reference
        return table

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Forward:
        """Build from `to_dict`'s table, its `kind` taken off."""
        only_keys(table, ("score", "thresholds", "threshold", "models", "temperature", "by_ingress", "stop"), cls.kind)
        given = dict(table)
        if isinstance(given.get("threshold"), Mapping):
            given["thresholds"] = given.pop("threshold")
        return cls(**given)


def _arrays() -> type:
    import numpy as np

    return np.ndarray


def _number(value: object, what: str) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    except OverflowError:
        number = math.inf if value > 0 else -math.inf  # type: ignore[operator]  # a huge int
    if math.isnan(number) or isinstance(value, str | bool):
        msg = f"{what} must be a number, not {value!r}"
        raise BadValueError(msg)
    return number


def _by_ingress(given: object) -> dict[str, tuple[float, ...]]:
    if not isinstance(given, Mapping) or any(isinstance(cuts, str) for cuts in given.values()):
        msg = f"by_ingress must map ingress nodes to sequences of numbers, not {given!r}"
        raise BadValueError(msg)
    return {
        str(ingress): tuple(
            _number(cut, f"threshold {i} of ingress {ingress!r}")
            for i, cut in enumerate(check_list(cuts, f"thresholds of ingress {ingress!r}", "numbers"))
        )
        for ingress, cuts in given.items()
    }


def _temperatures(temperature: float | Mapping[str, float]) -> dict[str, float]:
    if isinstance(temperature, Mapping):
        return {f" of model {model!r}": value for model, value in temperature.items()}
    return {"": temperature}
