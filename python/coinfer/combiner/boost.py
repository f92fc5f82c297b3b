"""Boosting over a fixed pool: in which order to take models that were trained apart, and what each vote weighs.

Boosting as published trains each next model on the samples that the ones before got wrong. In a delivery network the
models are there already, so each round picks, from those that are left, the one with the lowest error on the samples
as they are weighted now (Zhu et al. call the multi-class form SAMME). What comes out is a weighted vote.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer._checks import check_keys, check_number
from coinfer._core import plan as core
from coinfer.combiner.answers import Answers
from coinfer.combiner.base import Learned
from coinfer.errors import BadValueError, UnsupportedError

if TYPE_CHECKING:
    from coinfer._core.plan import Combiner

__all__ = ["Boost"]


_EQUAL = 1e-9  # what differs by rounding alone: errors that are equal, a vote that is worth nothing


@dataclass(frozen=True)
class Boost(Learned):
    """The weights and the order that boosting finds.

    Parameters
    ----------
    picked : tuple of (str, float)
        Model and weight, in the order in which boosting picked them: what `fit` finds.
    dropped : tuple of str
        Models that no round would take, because they are no better than chance on what the others get wrong. Their
        weight is zero and they are not asked.

    Notes
    -----
    With sample weights w (equal at first, summing to 1) and K classes, each round takes the model that is left with the
    lowest weighted error e (the first of equals), gives it the weight ``a = ln((1 - e) / e) + ln(K - 1)`` and
    multiplies the weights of the samples that it gets wrong by exp(a). It ends when no model is left or the best one's
    weight would not be above zero, that is, when ``e >= 1 - 1/K`` (up to 1e-9). Each model is taken once at most. An
    error of less than 1/(2N) counts as 1/(2N), so that a model without fault gets a finite weight. A sample that a
    model did not answer counts neither for nor against it: its error is taken over the samples that it answered.

    References
    ----------
    Zhu, Zou, Rosset, Hastie, "Multi-class AdaBoost", Statistics and Its Interface 2009 (Algorithm 2, equation 1).

    Examples
    --------
    >>> truth = [0, 1, 2, 0, 1, 2]
    >>> boost = Boost.fit([[0, 1, 2, 0, 1, 0], [0, 1, 1, 1, 1, 2], [1, 2, 0, 1, 2, 0]], truth)
    >>> boost.models, boost.dropped
    (('0', '1'), ('2',))
    """

    how = "boost"
    requires = "labels"
    picked: tuple[tuple[str, float], ...]
    dropped: tuple[str, ...] = ()

    @property
    def models(self) -> tuple[str, ...]:
        """Models to ask, in the order in which boosting picked them."""
        return tuple(model for model, _ in self.picked)

    @property
    def weights(self) -> Mapping[str, float]:
        """Weight per model."""
        return dict(self.picked)

    @property
    def key(self) -> str:
        """A vote: what it weighs stands in the plan's members."""
        return "vote"

    @classmethod
    def fit(cls, members: Sequence[Any] | Mapping[str, Any], labels: Any, *, classes: int | None = None) -> Boost:
        """Learn weights from labelled rows.

        Parameters
        ----------
        members : sequence or mapping of array-like
            One per model: labels of shape (N,), or vectors of shape (N, C).
        labels : array-like of int, shape (N,)
            True labels; -1 where unknown.
        classes : int, optional
            Number of classes. Default: the width of the vectors, or as many as occur.
        """
        return cls.learn(Answers.of(members, labels, "probs", classes))

    @classmethod
    def learn(cls, answers: Answers) -> Boost:
        """Learn weights from labelled samples."""
        answers.check_labelled("boost")
        if answers.classes < 2:
            msg = "boost needs at least two classes"
            raise UnsupportedError(msg)
        labelled = answers.truth >= 0
        said, truth = answers.labels()[:, labelled], answers.truth[labelled]
        there, wrong = said >= 0, said != truth
        rows = len(truth)
        weight = np.full(rows, 1.0 / rows)
        left = list(range(len(said)))
        picked: list[tuple[str, float]] = []
        while left:
            error = np.array([_error(weight, there[model], wrong[model]) for model in left])
            at = int(np.argmax(error <= error.min() + _EQUAL))
            e = max(float(error[at]), 0.5 / rows)
            vote = math.log((1 - e) / e) + math.log(answers.classes - 1) if e < 1 else -math.inf
            if vote <= _EQUAL:
                break
            model = left.pop(at)
            picked.append((answers.models[model], vote))
            weight = np.where(there[model] & wrong[model], weight * math.exp(vote), weight)
            weight /= weight.sum()
        if not picked:
            msg = "boost finds no model that is better than chance on these samples"
            raise UnsupportedError(msg)
        return cls(tuple(picked), tuple(answers.models[model] for model in left))

    def build(self, classes: int, members: Sequence[str], score: str) -> Combiner:
        """Make the engine's combiner."""
        return core.Combiner("vote", classes, score)

    def to_dict(self) -> dict[str, Any]:
        """Give what was learned, as in a strategy file."""
        return {"model": self.models, "weight": [w for _, w in self.picked], "dropped": list(self.dropped)}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Boost:
        """Build from `to_dict`'s table."""
        check_keys(table, ("model", "weight", "dropped"), ("model", "weight"), "boost")
        if len(table["model"]) != len(table["weight"]) or len(set(table["model"])) < len(table["model"]):
            msg = "boost: model and weight must be lists of the same length, and no model may occur twice"
            raise BadValueError(msg)
        weights = [check_number(w, f"boost: weight {i}", above=0.0) for i, w in enumerate(table["weight"])]
        picked = tuple(zip(map(str, table["model"]), weights, strict=True))
        return cls(picked, tuple(map(str, table.get("dropped", ()))))


def _error(weight: Any, there: Any, wrong: Any) -> float:
    mass = float(weight[there].sum())
    return float(weight[there & wrong].sum()) / mass if mass > 0 else 1.0
