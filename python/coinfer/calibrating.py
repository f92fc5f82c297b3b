"""What a score is worth: the probability, or any expected value, that goes with it.

Isotonic regression by pool-adjacent-violators: the best monotone step function through the data (Ayer et al. 1955).
Equal scores are pooled first, so a service that reports a handful of distinct confidences is handled as what it is.

Models that were trained apart are sure in different ways: .9 of one may mean what .7 of another does. `calibrate`
learns per model what its confidence is worth, and `Calibrated` (strategy/calibrated.py) puts that in front of any
strategy: the engine reads each model through its temperature or its curve, in replay and live alike.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from coinfer._checks import check_number
from coinfer._core import sweep
from coinfer.errors import BadValueError, UnknownNameError, UnsupportedError, nearest
from coinfer.predictions import ModelOutput, Predictions
from coinfer.scoring import score as score_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from coinfer.strategy.base import Steps

__all__ = ["METHODS", "Calibration", "calibrate", "isotonic", "step"]

METHODS: Final = ("temperature", "isotonic")
TEMPERATURES: Final = (0.01, 100.0)
"""Where temperature scaling looks: beyond, every answer is certain or none is."""

_BLOCK_FLOATS = 1 << 18
_LEAST_PROB = np.float32(2.0**-126)


def isotonic(score: ArrayLike, target: ArrayLike, direction: Literal["rising", "falling"] = "rising") -> Steps:
    """Fit the monotone step function of a score that is closest to a target in squares.

    Parameters
    ----------
    score : array_like of float, shape (N,)
        NaN scores are left out.
    target : array_like of float, shape (N,)
        For example 1 where the answer is right and 0 where it is wrong.
    direction : {"rising", "falling"}
        How the target goes with the score.

    Returns
    -------
    tuple of tuple of float
        Cuts, ascending from -inf, and values. Cuts lie midway between adjacent scores where float32 allows.

    Raises
    ------
    BadValueError
        If lengths differ, a target is not finite, or no score is a number.

    References
    ----------
    Ayer, Brunk, Ewing, Reid, Silverman, "An empirical distribution function for sampling with incomplete information",
    Ann. Math. Stat. 1955.

    Examples
    --------
    >>> isotonic([0.1, 0.2, 0.2, 0.9], [0, 1, 0, 1])
    ((-inf, 0.15000000596046448, 0.550000011920929), (0.0, 0.5, 1.0))
    """
    from scipy.optimize import isotonic_regression

    x = np.asarray(score, np.float32)
    y = np.asarray(target, np.float64)
    if x.shape != y.shape or x.ndim != 1:
        msg = f"score and target must be of one length, not of shapes {x.shape} and {y.shape}"
        raise BadValueError(msg)
    known = ~np.isnan(x)
    if not known.any():
        msg = "isotonic needs at least one score that is a number"
        raise BadValueError(msg)
    if not np.isfinite(y[known]).all():
        msg = f"target: row {int(np.flatnonzero(known & ~np.isfinite(y))[0])} is not a finite number"
        raise BadValueError(msg)
    values, group = np.unique(x[known], return_inverse=True)
    weight = np.bincount(group).astype(np.float64)
    mean = np.bincount(group, y[known]) / weight
    fitted = isotonic_regression(mean, weights=weight, increasing=direction == "rising")
    firsts = fitted.blocks[:-1]
    cuts = [-np.inf, *(sweep.midway(float(values[at - 1]), float(values[at])) for at in firsts[1:])]
    return tuple(map(float, cuts)), tuple(map(float, fitted.x[firsts]))


def step(curve: Steps, score: ArrayLike) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Read a step function off at every score; NaN stays NaN."""
    cuts, values = (np.asarray(part, np.float64) for part in curve)
    x = np.asarray(score, np.float64)
    at = np.maximum(np.searchsorted(cuts, x, side="right") - 1, 0)
    return np.where(np.isnan(x), np.nan, values[at])


@dataclass(frozen=True)
class Calibration:
    """How to read each model's confidence, as learned from samples with true labels.

    Attributes
    ----------
    method : {"temperature", "isotonic"}
    temperature : mapping of model to float
        Its logits are divided by this. Models that are not named are read as they are.
    curves : mapping of model to (cuts, values)
        Step function from its confidence (the largest probability of a model that gives vectors) to the probability
        that the answer is right.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017 (temperature); Zadrozny and
    Elkan, "Transforming classifier scores into accurate multiclass probability estimates", KDD 2002 (isotonic).
    """

    method: str
    temperature: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Steps] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            msg = f"unknown method of calibration {self.method!r}; {nearest(str(self.method), METHODS)}"
            raise UnknownNameError(msg)
        other = "curves" if self.method == "temperature" else "temperature"
        if getattr(self, other):
            msg = f"a calibration by {self.method} has no {other}"
            raise BadValueError(msg)
        low, high = TEMPERATURES
        for model, value in self.temperature.items():
            check_number(value, f"temperature of model {model!r}", at_least=low, at_most=high)

    @property
    def models(self) -> tuple[str, ...]:
        """Which models are read through it."""
        return tuple(self.temperature) or tuple(self.curves)

    def apply(self, predictions: Predictions) -> Predictions:
        """Give the predictions as they look when read through this calibration.

        Parameters
        ----------
        predictions : Predictions
            Models that the calibration does not know keep what they said.

        Returns
        -------
        Predictions
            By temperature, new logits or probabilities. By isotonic curves, labels with calibrated confidences: a curve
            says how likely the answer is right, and nothing about the other classes, so vectors cannot be kept.
        """
        outputs = {}
        for name in predictions.models:
            output = predictions[name]
            if name in self.temperature:
                outputs[name] = _tempered(output, self.temperature[name])
            elif name in self.curves:
                confidence = step(self.curves[name], _confidence(name, output)).astype(np.float32)
                outputs[name] = ModelOutput(
                    label=output.answers(),
                    confidence=confidence,
                    classes=predictions.classes,
                    service_us=output.service_us,
                )
            else:
                outputs[name] = output
        return Predictions(outputs, labels=predictions.labels, classes=predictions.classes)

    def to_dict(self) -> dict[str, Any]:
        """Give plain data, as it stands in a strategy file."""
        table: dict[str, Any] = {"method": self.method}
        if self.temperature:
            table["temperature"] = dict(self.temperature)
        if self.curves:
            table["curve"] = [
                {"model": model, "cut": list(cut), "value": list(value)} for model, (cut, value) in self.curves.items()
            ]
        return table

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Calibration:
        """Build from `to_dict`'s table."""
        temperature = table.get("temperature", {})
        if not isinstance(temperature, Mapping):
            msg = f"temperature must be a table of model to number, not {temperature!r}"
            raise BadValueError(msg)
        rows = table.get("curve", [])
        curves: dict[str, Steps] = {}
        for at, row in enumerate(rows if isinstance(rows, list) else [rows]):
            try:
                model, cut, value = str(row["model"]), tuple(map(float, row["cut"])), tuple(map(float, row["value"]))
            except (KeyError, TypeError, ValueError) as error:
                msg = f"[[curve]] {at} must have model, cut and value: {error}"
                raise BadValueError(msg) from None
            if not cut or len(cut) != len(value) or any(not a < b for a, b in itertools.pairwise(cut)):
                msg = f"[[curve]] {at} of model {model!r}: cut must ascend, with one value for each cut"
                raise BadValueError(msg)
            curves[model] = (cut, value)
        return cls(str(table.get("method")), {str(m): float(t) for m, t in temperature.items()}, curves)

    def __str__(self) -> str:
        if self.temperature:
            return "temperatures " + ", ".join(f"{model} {value:.3g}" for model, value in self.temperature.items())
        return "isotonic curves of " + ", ".join(f"{m} ({len(cut)} steps)" for m, (cut, _) in self.curves.items())


def calibrate(
    predictions: Predictions, method: str = "temperature", *, models: Iterable[str] | None = None
) -> Calibration:
    """Learn what each model's confidence is worth.

    Parameters
    ----------
    predictions : Predictions
        With true labels. Use other samples than those on which you will measure.
    method : {"temperature", "isotonic"}
        One temperature per model, by least negative log-likelihood (needs logits or probabilities; changes how sure
        answers are, never the answers), or a step function from confidence to the probability of being right (needs a
        confidence or a vector).
    models : iterable of str, optional
        Only these. Default: all.

    Returns
    -------
    Calibration

    Raises
    ------
    UnsupportedError
        If there are no labels, or a model does not give what the method needs; the message names it.

    Examples
    --------
    >>> import numpy as np, coinfer as ci
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.integers(0, 3, 4000)
    >>> honest = rng.normal(size=(4000, 3)) + 2 * np.eye(3)[truth]  # log-odds are 2 x the logits here
    >>> preds = ci.Predictions({"shy": ci.ModelOutput(logits=honest)}, labels=truth)
    >>> round(ci.calibrate(preds).temperature["shy"], 1)
    0.5
    """
    if method not in METHODS:
        msg = f"unknown method of calibration {method!r}; {nearest(str(method), METHODS)}"
        raise UnknownNameError(msg)
    labels = predictions.labels
    if labels is None or not np.any(labels >= 0):
        msg = "calibrate learns from the true labels of the samples, but these predictions have none"
        raise UnsupportedError(msg)
    chosen = predictions.models if models is None else tuple(models)
    if method == "temperature":
        return Calibration(method, {m: _temperature(m, predictions[m], labels) for m in chosen})
    curves = {}
    for name in chosen:
        output = predictions[name]
        known = labels >= 0
        right = (output.answers() == labels)[known].astype(np.float64)
        confidence = _confidence(name, output)[known]
        if np.isnan(confidence).all():
            msg = f"model {name!r} gives no confidence for any labelled sample: there is nothing to calibrate"
            raise UnsupportedError(msg)
        curves[name] = isotonic(confidence, right)
    return Calibration(method, curves=curves)


def _confidence(name: str, output: ModelOutput) -> NDArray[np.float32]:
    if output.vector is not None:
        return score_of(output.vector, kind="max_prob", input=output.form)
    if output.confidence is None:
        msg = f"model {name!r} gives labels only: it has no confidence to calibrate; leave it out with models="
        raise UnsupportedError(msg)
    return output.confidence


def _temperature(name: str, output: ModelOutput, labels: NDArray[np.int32]) -> float:
    """Minimise the mean of logsumexp(z / T) - z[truth] / T; the engine's energy is T logsumexp(z / T)."""
    from scipy.optimize import minimize_scalar

    if output.vector is None:
        msg = (
            f"model {name!r} gives no vector, so it has no temperature; use method='isotonic', or leave it out with "
            "models="
        )
        raise UnsupportedError(msg)
    truth = labels
    if output.relabel is not None:  # A sample whose class the model does not know says nothing about its temperature.
        own = np.full(int(max(labels.max(), output.relabel.max())) + 2, -1, np.int32)
        own[output.relabel] = np.arange(len(output.relabel), dtype=np.int32)
        truth = np.where(labels >= 0, own[labels], -1)
    usable = (truth >= 0) & ~np.isnan(output.vector).any(axis=1)
    z = output.vector[usable]
    # Impossible is very unlikely: -inf for one true class would make every temperature as bad as any other.
    z = np.log(np.maximum(z, _LEAST_PROB)) if output.form == "probs" else np.maximum(z, np.float32(-1e30))
    if not len(z):
        msg = f"model {name!r} answers no labelled sample: there is nothing to calibrate"
        raise UnsupportedError(msg)
    said = float(z[np.arange(len(z)), truth[usable]].astype(np.float64).mean())

    def loss(log_temperature: float) -> float:
        t = math.exp(log_temperature)
        energy = score_of(z, kind="energy", temperature=t)
        return (float(energy.mean(dtype=np.float64)) - said) / t

    bounds = math.log(TEMPERATURES[0]), math.log(TEMPERATURES[1])
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-5})
    return float(np.float32(math.exp(float(found.x))))


def _tempered(output: ModelOutput, temperature: float) -> ModelOutput:
    assert output.vector is not None
    t = np.float32(temperature)
    if output.form == "logits":
        return output._with(vector=output.vector / t)
    vector: NDArray[np.float32] = np.empty_like(output.vector)
    rows = max(1, _BLOCK_FLOATS // output.vector.shape[1])
    for first in range(0, len(vector), rows):
        log_p = np.log(np.maximum(output.vector[first : first + rows], _LEAST_PROB)) / t
        log_p -= log_p.max(axis=1, keepdims=True)
        np.exp(log_p, out=log_p)
        vector[first : first + rows] = log_p / log_p.sum(axis=1, keepdims=True)
    return output._with(vector=vector)
