"""Forward if the expected gain in accuracy is worth the extra delay and price: the trade-off of delivery networks.

One number, alpha, says how many milliseconds a wrong answer is worth. Everything else is estimated: at each stage,
from the score, how likely the answer in hand is wrong, and what going on would cost on average, if later stages
decide by the same rule. Both are isotonic in the score; their difference need not be, so the rule is a curve and
not a threshold.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from coinfer.errors import BadValueError, UnknownNameError, UnsupportedError, nearest
from coinfer.strategy.base import (
    Parameter,
    PlanSpec,
    StageSpec,
    Steps,
    Strategy,
    check_models,
    check_score,
    only_keys,
    score_reference,
    walk,
)

if TYPE_CHECKING:
    from coinfer.network import Network
    from coinfer.predictions import Predictions
    from coinfer.rule import ScoreRule

__all__ = ["ExpectedGain"]

_ALWAYS_ON: tuple[Steps, float] = (((-math.inf,), (-math.inf,)), 0.0)


@dataclass(frozen=True)
class ExpectedGain(Strategy):
    """Minimise latency_ms + ms_per_usd x price + alpha x (1 - accuracy), as expected from the score.

    Parameters
    ----------
    alpha : float
        Milliseconds that a wrong answer is worth, > 0.
    ms_per_usd : float
        Milliseconds that a dollar is worth, >= 0.
    score : str or ScoreRule
        As for `Forward`.
    horizon : int, optional
        How many stages ahead to look; 1 is the myopic rule. Default: to the end of the path.
    models : sequence of str, optional
        Walk only past these models.
    rules : mapping, optional
        Per ingress node, per stage but the last: ``(curve, threshold)``. What `fit` finds; not written by hand.

    Notes
    -----
    A request goes on iff ``P(wrong now | score) - E[later cost | score] / alpha > extra cost / alpha``, where the
    later cost is that of the decisions fitted for the later stages (backwards induction) and the extra cost is the
    delay and price of reaching the next stage, links both ways included. The left side is minus the curve of the
    stage, the right side minus its threshold.

    References
    ----------
    Si Salem, Castellano, Neglia, Pianese, Araldo, "Toward inference delivery networks", IEEE/ACM ToN 2024.

    Examples
    --------
    >>> import coinfer as ci
    >>> preds = ci.Predictions(
    ...     {"small": ci.ModelOutput(label=[0, 1, 1, 0], confidence=[0.9, 0.4, 0.8, 0.3]),
    ...      "large": ci.ModelOutput(label=[0, 0, 1, 1], confidence=[0.9, 0.9, 0.9, 0.9])}, labels=[0, 0, 1, 1])
    >>> net = ci.Network.chain({"device": "small", "cloud": "large"}, delay_ms=[20], service_ms=[1, 5])
    >>> trace = ci.Trace([0, 1, 2, 3], ["device"] * 4, [0, 1, 2, 3])
    >>> for alpha in (40, 50):
    ...     fitted = ci.ExpectedGain(alpha, score="confidence").fit(preds, net)
    ...     float(ci.replay(trace, preds, net, fitted).summary.accuracy)
    0.5
    1.0
    """

    kind: ClassVar[str] = "expected_gain"
    alpha: float
    ms_per_usd: float = 0.0
    score: str | ScoreRule = "max_prob"
    horizon: int | None = None
    models: tuple[str, ...] | None = None
    rules: Mapping[str, tuple[tuple[Steps, float], ...]] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "score", check_score(self.score))
        if not (_is_number(self.alpha) and self.alpha > 0):
            msg = f"ExpectedGain: alpha must be a positive number of milliseconds, not {self.alpha!r}"
            raise BadValueError(msg)
        if not (_is_number(self.ms_per_usd) and self.ms_per_usd >= 0):
            msg = f"ExpectedGain: ms_per_usd must be a number of milliseconds, at least 0, not {self.ms_per_usd!r}"
            raise BadValueError(msg)
        whole = isinstance(self.horizon, int) and not isinstance(self.horizon, bool)
        if self.horizon is not None and (not whole or self.horizon < 1):
            msg = f"ExpectedGain: horizon must be a whole number of stages, at least 1, or None, not {self.horizon!r}"
            raise BadValueError(msg)
        if self.models is not None:
            object.__setattr__(self, "models", check_models(self.models, "ExpectedGain"))

    @property
    def name(self) -> str:
        """A short label for tables and figures."""
        myopic = f", horizon {self.horizon}" if self.horizon is not None else ""
        return f"ExpectedGain({self.alpha:g} ms{myopic})"

    @property
    def fitted(self) -> bool:
        """Whether the rule is estimated."""
        return self.rules is not None

    def fit(self, predictions: Predictions, network: Network) -> ExpectedGain:
        """Estimate the rule for every ingress node of a network.

        Parameters
        ----------
        predictions : Predictions
            With true labels; replay on other samples than these.
        network : Network
            Mean times and prices are taken from here.

        Returns
        -------
        ExpectedGain
            The same strategy, ready to replay.
        """
        from coinfer.compiling import Compiler

        if predictions.labels is None or not np.any(predictions.labels >= 0):
            msg = "ExpectedGain is fitted on the true labels of the samples, but these predictions have none"
            raise UnsupportedError(msg)
        compiler = Compiler(predictions, network)
        rules: dict[str, tuple[tuple[Steps, float], ...]] = {}
        known: dict[object, tuple[tuple[Steps, float], ...]] = {}
        for ingress in network.ingress:
            spec = PlanSpec(tuple(StageSpec((d,), 0.0) for d in walk(network, ingress, self.models)), self.score)
            evidence = compiler.compile(spec, ingress).evidence
            latency_ns, pico_usd = compiler.settling(spec, ingress)
            cost_ms = np.array([np.mean(ns) for ns in latency_ns]) / 1e6 + self.ms_per_usd * np.array(pico_usd) / 1e12
            key = (tuple(d.model for stage in spec.stages for d in stage.members), cost_ms.tobytes())
            if key not in known:
                labelled = predictions.labels >= 0
                wrong = (evidence.label != predictions.labels)[:, labelled].astype(np.float64)
                known[key] = self._rules(wrong, evidence.score[:, labelled], np.diff(cost_ms))
            rules[ingress] = known[key]
        return replace(self, rules=rules)

    def _rules(self, wrong: Any, score: Any, extra_ms: Any) -> tuple[tuple[Steps, float], ...]:
        """Fit from the last stage backwards, by what samples would lose from the next stage on."""
        from coinfer.calibrating import isotonic, step

        stages = len(wrong)
        ahead = stages if self.horizon is None else min(self.horizon, stages)
        rules: list[tuple[Steps, float]] = []
        later = [self.alpha * wrong[-1]] * (ahead + 1)  # [h][sample]: ms, when looking at most h stages ahead
        for stage in range(stages - 2, -1, -1):
            here = [self.alpha * wrong[stage]]
            rule = _ALWAYS_ON
            for look in range(1, ahead + 1):
                onward = later[look - 1]
                if not np.isnan(score[stage]).all():
                    risk = isotonic(score[stage], wrong[stage], "falling")
                    loss = isotonic(score[stage], onward, "falling")
                    cuts = np.union1d(risk[0], loss[0])
                    gain = step(risk, cuts) - step(loss, cuts) / self.alpha
                    rule = (tuple(cuts.tolist()), tuple((-gain).tolist())), float(-extra_ms[stage] / self.alpha)
                stop = step(rule[0], score[stage]).astype(np.float32) >= np.float32(rule[1])
                here.append(np.where(stop, here[0], extra_ms[stage] + onward))
            rules.append(rule)
            later = here
        return tuple(reversed(rules))

    def plan(self, network: Network, ingress: str) -> PlanSpec:
        """Walk the path, stopping where going on is not worth it."""
        if self.rules is None:
            msg = f"{self.name} is not fitted yet: use ExpectedGain(...).fit(predictions, network)"
            raise UnsupportedError(msg)
        if ingress not in self.rules:
            msg = f"{self.name} was not fitted for ingress {ingress!r}; {nearest(ingress, self.rules)}"
            raise UnknownNameError(msg)
        way, rules = walk(network, ingress, self.models), self.rules[ingress]
        if len(rules) != len(way) - 1:
            msg = f"{self.name} was fitted for {len(rules) + 1} stages, but the path from {ingress!r} has {len(way)}"
            raise UnsupportedError(msg)
        stages = [StageSpec((d,), threshold, curve) for d, (curve, threshold) in zip(way, rules, strict=False)]
        return PlanSpec((*stages, StageSpec((way[-1],), -math.inf)), self.score)

    def parameters(self) -> tuple[str, ...]:
        """Name what may be tuned: alpha, from a millisecond to a quarter of an hour per wrong answer."""
        return (Parameter("alpha", "scalar", (float(f"{value:.4g}") for value in np.geomspace(1, 1e6, 37))),)

    def with_parameters(self, **values: Any) -> ExpectedGain:
        """Give the same strategy for another alpha, to be fitted."""
        return replace(self, rules=None, **values)

    def to_dict(self) -> dict[str, Any]:
        """Give `kind` and parameters, as in a strategy file; what was fitted stands in `[[rule]]` tables."""
        table: dict[str, Any] = {
            "kind": self.kind,
            "alpha": self.alpha,
            "ms_per_usd": self.ms_per_usd,
            "score": score_reference(self.score),
        }
        if self.horizon is not None:
            table["horizon"] = self.horizon
        if self.models is not None:
            table["models"] = list(self.models)
        if self.rules is not None:
            table["rule"] = [
                {"ingress": ingress, "stage": at, "threshold": threshold, "cut": list(cut), "value": list(value)}
                for ingress, stages in self.rules.items()
                for at, ((cut, value), threshold) in enumerate(stages)
            ]
        return table

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> ExpectedGain:
        """Build from `to_dict`'s table, its `kind` taken off."""
        only_keys(table, ("alpha", "ms_per_usd", "score", "horizon", "models", "rule"), cls.kind)
        given = dict(table)
        if "alpha" not in given:
            msg = "a strategy of kind 'expected_gain' needs alpha, the milliseconds that a wrong answer is worth"
            raise BadValueError(msg)
        rows = given.pop("rule", None)
        if rows is not None:
            rules: dict[str, list[tuple[Steps, float]]] = {}
            if not isinstance(rows, list):
                msg = f"rule must be an array of tables, written [[rule]], not {rows!r}"
                raise BadValueError(msg)
            for at, row in enumerate(rows):
                try:
                    ingress, stage, threshold = str(row["ingress"]), row["stage"], float(row["threshold"])
                    cut, value = tuple(map(float, row["cut"])), tuple(map(float, row["value"]))
                except (KeyError, TypeError, ValueError) as error:
                    msg = f"[[rule]] {at} must have ingress, stage, threshold, cut and value: {error}"
                    raise BadValueError(msg) from None
                known = rules.setdefault(ingress, [])
                if stage != len(known):
                    msg = f"[[rule]] {at} is for stage {stage!r} of ingress {ingress!r}, but stage {len(known)} is next"
                    raise BadValueError(msg)
                if not cut or len(cut) != len(value) or any(not a < b for a, b in itertools.pairwise(cut)):
                    msg = f"[[rule]] {at}: cut must ascend, with one value for each cut"
                    raise BadValueError(msg)
                known.append(((cut, value), threshold))
            given["rules"] = {ingress: tuple(stages) for ingress, stages in rules.items()}
        return cls(**given)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)
