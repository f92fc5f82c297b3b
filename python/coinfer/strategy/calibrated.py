"""Any strategy, with each model read through what its confidence is worth.

A wrapper and not an option of each strategy: calibration changes how a model is read, before any strategy looks at it,
so one place serves them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from coinfer.calibrating import METHODS, Calibration, calibrate
from coinfer.errors import BadValueError, UnknownNameError, UnsupportedError, nearest
from coinfer.strategy.base import PlanSpec, Strategy, only_keys

if TYPE_CHECKING:
    from coinfer.network import Network
    from coinfer.predictions import Predictions

__all__ = ["Calibrated"]


@dataclass(frozen=True)
class Calibrated(Strategy):
    """Run a strategy on calibrated confidences.

    Parameters
    ----------
    inner : Strategy
        What decides. With ``method="isotonic"`` it must compare the reported confidence (``score="confidence"``) of one
        model at a time, because a curve says nothing about the other classes.
    method : {"temperature", "isotonic"}
        As for `coinfer.calibrate`.
    calibration : Calibration, optional
        What was learned, by `fit` or by `coinfer.calibrate`.

    Examples
    --------
    >>> import coinfer as ci
    >>> preds = ci.Predictions(
    ...     {"small": ci.ModelOutput(label=[0, 1, 1, 0], confidence=[0.9, 0.4, 0.8, 0.3]),
    ...      "large": ci.ModelOutput(label=[0, 0, 1, 1], confidence=[0.9, 0.9, 0.9, 0.9])}, labels=[0, 0, 1, 1])
    >>> net = ci.Network.chain({"device": "small", "cloud": "large"}, delay_ms=[20], service_ms=[1, 5])
    >>> fitted = ci.Calibrated(ci.Forward("confidence", threshold=0.5), "isotonic").fit(preds, net)
    >>> fitted.calibration.curves["small"]
    ((-inf, 0.6000000238418579), (0.0, 1.0))
    """

    kind: ClassVar[str] = "calibrated"
    inner: Strategy
    method: str = "temperature"
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Strategy):
            msg = f"Calibrated: inner must be a strategy, not {self.inner!r}"
            raise BadValueError(msg)
        if isinstance(self.inner, Calibrated):
            msg = "Calibrated: inner is calibrated already"
            raise BadValueError(msg)
        if self.method not in METHODS:
            msg = f"Calibrated: unknown method {self.method!r}; {nearest(str(self.method), METHODS)}"
            raise UnknownNameError(msg)
        if self.calibration is not None:
            object.__setattr__(self, "method", self.calibration.method)

    @property
    def name(self) -> str:
        """A short label for tables and figures."""
        return f"{self.inner.name}, {self.method}"

    @property
    def fitted(self) -> bool:
        """Whether models are calibrated and nothing is left to learn inside."""
        return self.calibration is not None and self.inner.fitted

    def fit(self, predictions: Predictions, network: Network) -> Calibrated:
        """Calibrate the deployed models, then fit what is inside on what they then say.

        Parameters
        ----------
        predictions : Predictions
            With true labels; replay on other samples than these.
        network : Network
            Models that are not deployed are left alone.
        """
        deployed = {d.model for d in network.deployments}
        models = [m for m in predictions.models if m in deployed]
        calibration = self.calibration or calibrate(predictions, self.method, models=models)
        inner = self.inner.fit(calibration.apply(predictions), network)
        return replace(self, inner=inner, calibration=calibration)

    def plan(self, network: Network, ingress: str) -> PlanSpec:
        """Lay out the plan of what is inside, its models read through the calibration."""
        if self.calibration is None:
            msg = f"{self.name} is not calibrated yet: use Calibrated(...).fit(predictions, network)"
            raise UnsupportedError(msg)
        spec = self.inner.plan(network, ingress)
        if self.method == "isotonic" and (spec.combiner != "last" or spec.score != "confidence"):
            msg = (
                f"{self.name}: isotonic curves map a model's confidence, so {self.inner.name} must compare "
                "score='confidence' of one model at a time; use method='temperature'"
            )
            raise UnsupportedError(msg)
        if spec.temperature and self.calibration.temperature and any(t != 1.0 for t in spec.temperature.values()):
            msg = f"{self.name}: {self.inner.name} has temperatures of its own; give them in one place"
            raise UnsupportedError(msg)
        return replace(
            spec,
            temperature=self.calibration.temperature or spec.temperature,
            calibration=self.calibration.curves,
        )

    def parameters(self) -> tuple[str, ...]:
        """Name what may be tuned: what may be tuned inside."""
        return self.inner.parameters()

    def with_parameters(self, **values: Any) -> Calibrated:
        """Give the same strategy with other values for what is inside; the calibration stays."""
        return replace(self, inner=self.inner.with_parameters(**values))

    def to_dict(self) -> dict[str, Any]:
        """Give `kind` and parameters, as they stand in a strategy file."""
        learned = {"method": self.method} if self.calibration is None else self.calibration.to_dict()
        return {"kind": self.kind, **learned, "inner": self.inner.to_dict()}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Calibrated:
        """Build from `to_dict`'s table, its `kind` taken off."""
        only_keys(table, ("method", "temperature", "curve", "inner"), cls.kind)
        inner = table.get("inner")
        if not isinstance(inner, Mapping):
            msg = f"a strategy of kind {cls.kind!r} needs a table [inner] with the strategy that it calibrates"
            raise BadValueError(msg)
        learned = "temperature" in table or "curve" in table
        return cls(
            Strategy.parse(inner, where="inner"),
            str(table.get("method", "temperature")),
            Calibration.from_dict(table) if learned else None,
        )
