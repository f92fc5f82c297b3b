"""Certificates: what a tuned strategy is guaranteed to keep, and with which probability.

Learn-then-Test: thresholds are chosen among candidates that come, with their order, from one part of the samples; on
another part each candidate is tested against "some risk is larger than allowed". With probability >= 1 - delta over
the draw of the second part, no candidate that is accepted breaks its bounds. Tests are exact or valid at any sample
size: binomial for shares of samples, betting for a paired loss in {-1, 0, 1}, Hoeffding-Bentkus for other bounded
quantities. What depends on queues is never certified.

References: Angelopoulos, Bates, Candes, Jordan, Lei, "Learn then Test", AoAS 2025 (arXiv 2110.01052); Waudby-Smith and
Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024; Bates et al., "Distribution-free,
risk-controlling prediction sets", JACM 2021 (Hoeffding-Bentkus).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer._core import sweep
from coinfer.errors import BadValueError
from coinfer.intervals import at_most
from coinfer.tuning.constraint import Constraint, subject_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from coinfer._core import plan as core

__all__ = ["Certificate", "Guarantee", "ShiftWarning", "certifiable", "p_value"]

_BINS = 24
_SHIFT_P = 1e-3
_SHIFT_DISTANCE = 0.05


class ShiftWarning(UserWarning):
    """A certified strategy is used where its scores are clearly distributed otherwise than where it was certified."""


def certifiable(constraint: Constraint) -> bool:
    """Say whether a constraint bounds, from the right side, a quantity that samples alone decide."""
    about = subject_of(constraint.quantity)
    what = about[0] if about else constraint.quantity
    if what in ("accuracy", "recall"):
        return constraint.at_least
    return what in ("accuracy_loss", "disagreement", "forwarded_share", "price_usd", "stages") and (
        not constraint.at_least
    )


def p_value(
    losses: ArrayLike,
    bound: float,
    kind: str = "binary",
    *,
    delta: float = 0.05,
    low: float = 0.0,
    most: float = 1.0,
) -> tuple[float, str]:
    """Test "the mean loss is larger than `bound`"; a small value speaks for the bound.

    Parameters
    ----------
    losses : array_like of float, shape (n,)
        In random order.
    bound : float
        What the mean should not exceed.
    kind : {"binary", "paired", "bounded"}
        What a loss can be, which must not be read off those that were seen. 0 or 1: exact binomial. -1, 0 or 1:
        betting on (loss + 1) / 2. Anything between `low` and `most`: Hoeffding-Bentkus.
    delta : float
        The level that betting aims at; the value is valid at every level.

    Returns
    -------
    tuple
        The p-value, and the method in words.

    Examples
    --------
    >>> p, method = p_value([0] * 95 + [1] * 5, 0.1)
    >>> round(p, 4), method
    (0.0576, 'exact binomial')
    """
    x = np.asarray(losses, np.float64)
    if len(x) == 0:
        return 1.0, "none: no samples"
    if kind == "binary":
        return (0.0 if bound >= 1 else float(at_most(round(float(x.sum())), len(x), bound))), "exact binomial"
    if kind == "paired":
        if not -1 < bound < 1:
            return float(bound < 1), "betting"
        return float(sweep.betting(x.astype(np.int8)[None, :], bound, delta)[0]), "betting"
    scaled = (x - low) / (most - low)
    return _hoeffding_bentkus(float(scaled.mean()), len(x), (bound - low) / (most - low)), "Hoeffding-Bentkus"


def _hoeffding_bentkus(mean: float, n: int, bound: float) -> float:
    if bound >= 1:
        return 0.0
    if bound <= 0 or mean >= bound:
        return 1.0
    hoeffding = math.exp(-n * _divergence(mean, bound))
    bentkus = math.e * float(at_most(math.ceil(n * mean - 1e-9), n, bound))
    return min(1.0, hoeffding, bentkus)


def _divergence(a: float, b: float) -> float:
    """Kullback-Leibler divergence of Bernoulli(a) from Bernoulli(b)."""
    first = a * math.log(a / b) if a > 0 else 0.0
    return first + ((1 - a) * math.log((1 - a) / (1 - b)) if a < 1 else 0.0)


@dataclass(frozen=True, slots=True)
class Guarantee:
    """One bound: the constraint, what was observed on the calibration samples, and the evidence."""

    constraint: str
    observed: float
    n: int
    method: str
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain data."""
        return {
            "constraint": self.constraint,
            "observed": self.observed,
            "n": self.n,
            "method": self.method,
            "p_value": self.p_value,
        }


@dataclass(frozen=True)
class Certificate:
    """What is guaranteed: with probability >= 1 - delta over the calibration draw, all `guarantees` hold.

    Attributes
    ----------
    guarantees : tuple of Guarantee
    delta : float
    n : int
        Calibration samples.
    procedure : str
        ``"fixed-sequence"`` or ``"bonferroni"``, and how many candidates were tested.
    fingerprint : str
        Of the calibration samples: `Predictions.fingerprint`.
    scores : tuple of (edges, counts)
        Per stage, how the calibration samples' scores were distributed, to tell data that are unlike them.
    """

    guarantees: tuple[Guarantee, ...]
    delta: float
    n: int
    procedure: str
    fingerprint: str
    scores: tuple[tuple[tuple[float, ...], tuple[int, ...]], ...] = ()

    @property
    def sentence(self) -> str:
        """Say it to somebody who has to decide."""
        kept = " and ".join(_in_words(Constraint.parse(g.constraint)) for g in self.guarantees)
        methods = sorted({g.method for g in self.guarantees})
        return (
            f"With {1 - self.delta:.4g} confidence, on data like the {self.n:,} samples it was checked on, {kept} "
            f"({', '.join(methods)}; {self.procedure})."
        )

    def __str__(self) -> str:
        return self.sentence

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain data: the ``[certificate]`` of a strategy file."""
        return {
            "sentence": self.sentence,
            "delta": self.delta,
            "n": self.n,
            "procedure": self.procedure,
            "fingerprint": self.fingerprint,
            "guarantee": [g.to_dict() for g in self.guarantees],
            "score": [{"edge": list(edges), "count": list(counts)} for edges, counts in self.scores],
        }

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Certificate:
        """Build from `to_dict`'s table.

        Raises
        ------
        BadValueError
            If something is missing, or not what it should be.
        """
        try:
            guarantees = tuple(
                Guarantee(
                    str(Constraint.parse(g["constraint"])),
                    float(g["observed"]),
                    int(g["n"]),
                    str(g["method"]),
                    float(g["p_value"]),
                )
                for g in table["guarantee"]
            )
            scores = tuple(
                (tuple(float(v) for v in each["edge"]), tuple(int(v) for v in each["count"]))
                for each in table.get("score", ())
            )
            made = cls(
                guarantees,
                float(table["delta"]),
                int(table["n"]),
                str(table["procedure"]),
                str(table["fingerprint"]),
                scores,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            msg = f"[certificate] must be as coinfer.tune wrote it: {error}"
            raise BadValueError(msg) from error
        if not 0 < made.delta < 1 or any(len(counts) != len(edges) + 2 for edges, counts in scores):
            msg = "[certificate] must be as coinfer.tune wrote it: delta or score are not"
            raise BadValueError(msg)
        return made

    def shifts(self, evidence: core.Evidence, rows: NDArray[Any] | None = None) -> list[str]:
        """Name, in a sentence each, the stages whose scores are clearly distributed otherwise than at calibration.

        A two-sample chi-squared test per stage on quantile bins, at 0.001 in all, and a distance of at least 0.05
        between the distribution functions: with many samples the smallest difference is significant.
        """
        from scipy.stats import chi2_contingency

        found = []
        for stage, (edges, before) in enumerate(self.scores):
            if stage >= evidence.stages:
                break
            now = binned(evidence.score[stage] if rows is None else evidence.score[stage][rows], edges)
            table = np.array([before, now], np.float64)
            table = table[:, table.sum(axis=0) > 0]
            if table.shape[1] < 2 or not table.sum(axis=1).all():
                continue
            p = float(chi2_contingency(table).pvalue)
            shares = np.cumsum(table / table.sum(axis=1, keepdims=True), axis=1)
            distance = float(np.abs(shares[0] - shares[1]).max())
            if p < _SHIFT_P / len(self.scores) and distance >= _SHIFT_DISTANCE:
                found.append(
                    f"the scores at stage {stage} are distributed otherwise than on the certificate's samples "
                    f"(distance {distance:.2f}, p = {p:.1g})"
                )
        return found

    def check(self, evidence: core.Evidence, fingerprint: str) -> None:
        """Warn, as `ShiftWarning`, if data are clearly unlike those that the certificate rests on."""
        if fingerprint == self.fingerprint:
            return
        found = self.shifts(evidence)
        if found:
            warnings.warn(f"the certificate may not hold here: {'; '.join(found)}", ShiftWarning, stacklevel=3)


def edges_of(scores: NDArray[np.float32]) -> tuple[float, ...]:
    """Give the edges of at most 24 bins of about equal share, between distinct scores."""
    known = np.sort(scores[~np.isnan(scores)])
    if len(known) == 0:
        return ()
    at = np.unique(known[np.linspace(0, len(known) - 1, _BINS + 1).astype(np.int64)][1:-1])
    return tuple(float(v) for v in at if np.isfinite(v))


def binned(scores: NDArray[np.float32], edges: Sequence[float]) -> tuple[int, ...]:
    """Count scores per bin (a score on an edge belongs above it), and those that are NaN."""
    known = scores[~np.isnan(scores)]
    counts = np.bincount(np.searchsorted(np.array(edges), known, side="right"), minlength=len(edges) + 1)
    return (*(int(c) for c in counts), len(scores) - len(known))


def _in_words(constraint: Constraint) -> str:
    about = subject_of(constraint.quantity)
    what, whom = about if about else (constraint.quantity, "")
    bound = constraint.bound
    words = {
        "accuracy": f"at least {bound:.2%} of the answers are right",
        "recall": f"at least {bound:.2%} of the samples of class {whom} are answered right",
        "accuracy_loss": f"at most {100 * bound:.3g} points of accuracy are lost against always asking {whom}",
        "disagreement": f"at most {bound:.2%} of the answers differ from those of {whom}",
        "forwarded_share": f"at most {bound:.2%} of the requests are forwarded",
        "price_usd": f"a request costs at most {bound:.4g} USD on average",
        "stages": f"a request takes at most {bound:.4g} stages on average",
    }
    return words.get(what, str(constraint))
