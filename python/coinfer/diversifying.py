"""What models bring to each other: how alike their errors are, and what each adds at each place in the order.

An ensemble is worth its price only where its members err on different samples. These are properties of the answers
alone, over samples and not requests, so they say what any combination has to work with before one is tried.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer._checks import check_integer
from coinfer.errors import BadValueError, UnsupportedError
from coinfer.results import Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer.predictions import Predictions

__all__ = ["Diversity", "Step", "diversity"]


@dataclass(frozen=True)
class Step:
    """One model joining those before it in the order.

    Attributes
    ----------
    model : str
    accuracy : float
        Its own.
    vote : float
        Accuracy of the plurality vote (ties to the lowest label) of all models up to this one.
    vote_gain : float
        What it added to that.
    covered : float
        Share of samples that some model up to this one gets right: what perfect selection could reach.
    covered_gain : float
        What it added to that.
    """

    model: str
    accuracy: float
    vote: float
    vote_gain: float
    covered: float
    covered_gain: float


@dataclass(frozen=True)
class Diversity:
    """How alike the errors of models are, and what each brings.

    Attributes
    ----------
    models : tuple of str
        In the order given; rows and columns of every matrix.
    samples : int
        Those with a true label.
    accuracy : mapping of model to Estimate
    only : mapping of model to Estimate
        Share of samples that this model alone gets right.
    any_right, all_right : float
        Share of samples that at least one, and that every, model gets right.
    correlation : ndarray of float64, shape (M, M)
        Pearson correlation (phi) of being wrong; NaN where a model is always or never right.
    q_statistic : ndarray of float64, shape (M, M)
        (N11 N00 - N01 N10) / (N11 N00 + N01 N10), with Nab the number of samples that the first gets right (a = 1) or
        wrong (a = 0) and the second likewise (b). 0 for independent errors, below 0 for complementary ones; NaN where
        the denominator is 0.
    double_fault : ndarray of float64, shape (M, M)
        Share of samples that both get wrong.
    steps : tuple of Step
        Joining one by one in the order given.
    vote_gain, covered_gain : ndarray of float64, shape (M, M)
        [model, place]: what the model adds to the accuracy of the vote, and to the share covered, if it joins at that
        place (0 is first), on average over `orders` random orders in which it stands there.
    orders : int
        How many random orders, each also turned so that every model takes every place equally often.

    References
    ----------
    Kuncheva and Whitaker, "Measures of diversity in classifier ensembles and their relationship with the ensemble
    accuracy", Machine Learning 2003.
    """

    models: tuple[str, ...]
    samples: int
    accuracy: Mapping[str, Estimate]
    only: Mapping[str, Estimate]
    any_right: float
    all_right: float
    correlation: NDArray[np.float64]
    q_statistic: NDArray[np.float64]
    double_fault: NDArray[np.float64]
    steps: tuple[Step, ...]
    vote_gain: NDArray[np.float64]
    covered_gain: NDArray[np.float64]
    orders: int

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain data, ready for JSON; NaN becomes None."""

        def plain(matrix: NDArray[np.float64]) -> list[list[float | None]]:
            return [[None if np.isnan(v) else float(v) for v in row] for row in matrix]

        return {
            "models": list(self.models),
            "samples": self.samples,
            "accuracy": {m: e.to_dict() for m, e in self.accuracy.items()},
            "only": {m: e.to_dict() for m, e in self.only.items()},
            "any_right": self.any_right,
            "all_right": self.all_right,
            **{name: plain(getattr(self, name)) for name in ("correlation", "q_statistic", "double_fault")},
            "steps": [{field: getattr(s, field) for field in s.__dataclass_fields__} for s in self.steps],
            **{name: plain(getattr(self, name)) for name in ("vote_gain", "covered_gain")},
            "orders": self.orders,
        }

    def __str__(self) -> str:
        width = max(len("model"), *(len(m) for m in self.models))
        head = f"{'model':<{width}}  accuracy  only it  joins: vote   gain  covered   gain  errors most alike"
        lines = [
            f"{self.samples:,} samples: some model is right on {self.any_right:.4f}, all are on {self.all_right:.4f}"
        ]
        lines.append(head)
        for at, s in enumerate(self.steps):
            others = np.delete(np.arange(len(self.models)), at)
            alike = "-"
            if len(others) and not np.isnan(self.correlation[at, others]).all():
                other = others[np.nanargmax(self.correlation[at, others])]
                alike = f"{self.models[other]} ({self.correlation[at, other]:.2f})"
            lines.append(
                f"{s.model:<{width}}  {s.accuracy:8.4f}  {self.only[s.model]:7.4f}  {s.vote:11.4f} {s.vote_gain:+.4f}"
                f"  {s.covered:.4f} {s.covered_gain:+.4f}  {alike}"
            )
        return "\n".join(lines)


def diversity(
    predictions: Predictions, models: Iterable[str] | None = None, *, orders: int = 16, seed: int = 0
) -> Diversity:
    """Say how alike the errors of models are, and what each brings at each place in the order.

    Parameters
    ----------
    predictions : Predictions
        With true labels; a model without an answer is wrong there and casts no vote.
    models : iterable of str, optional
        These, in this order. Default: all, in the order of the predictions.
    orders : int
        Random orders for what a model adds at each place; each is used in all M rotations, which is exact in that every
        model takes every place equally often. Time grows with samples x models^2 x orders.
    seed : int
        For the orders.

    Returns
    -------
    Diversity

    Raises
    ------
    UnsupportedError
        If no sample has a true label.

    Examples
    --------
    >>> import coinfer as ci
    >>> preds = ci.Predictions(
    ...     {"a": ci.ModelOutput(label=[0, 0, 1, 1]), "b": ci.ModelOutput(label=[0, 1, 0, 1])}, labels=[0, 0, 0, 0])
    >>> found = ci.diversity(preds)
    >>> found.any_right, float(found.only["a"]), float(found.q_statistic[0, 1])
    (0.75, 0.25, 0.0)
    """
    chosen = predictions.models if models is None else tuple(models)
    orders = check_integer(orders, "orders", at_least=1, at_most=100_000)
    seed = check_integer(seed, "seed", at_most=2**63 - 1)
    if not chosen or len(set(chosen)) < len(chosen):
        msg = f"diversity needs at least one model, each named once, not {chosen!r}"
        raise BadValueError(msg)
    outputs = [predictions[name] for name in chosen]
    if predictions.labels is None or not np.any(predictions.labels >= 0):
        msg = "diversity compares answers with the true labels of the samples, but these predictions have none"
        raise UnsupportedError(msg)
    known = np.flatnonzero(predictions.labels >= 0)
    truth = predictions.labels[known]
    n, m = len(truth), len(chosen)
    labels = np.empty((n, m), np.int32)
    for at, output in enumerate(outputs):
        labels[:, at] = output.answers()[known]
    right = labels == truth[:, None]
    hits = right.sum(axis=0)
    both = _together(right)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = hits / n
        spread = np.sqrt(np.outer(share * (1 - share), share * (1 - share)))
        correlation = np.where(spread > 0, (both / n - np.outer(share, share)) / spread, np.nan)
        first_only, second_only = hits[:, None] - both, hits[None, :] - both
        neither = n - hits[:, None] - second_only
        same, other = both * neither, first_only * second_only
        q_statistic = np.where(same + other > 0, (same - other) / (same + other), np.nan)
    in_all = right.sum(axis=1)
    alone = right[in_all == 1].sum(axis=0)
    given = np.arange(m)[None, :]
    vote, covered = _places(labels, truth, given, predictions.class_count)
    steps = []
    at_vote = at_covered = 0.0
    for at, name in enumerate(chosen):
        gains = float(vote[at, at]) / n, float(covered[at, at]) / n
        at_vote, at_covered = at_vote + gains[0], at_covered + gains[1]
        steps.append(Step(name, float(share[at]), at_vote, gains[0], at_covered, gains[1]))
    rng = np.random.Generator(np.random.Philox(seed))
    turned = np.concatenate(
        [[np.roll(base, k) for k in range(m)] for base in (rng.permutation(m) for _ in range(orders))]
    )
    vote, covered = _places(labels, truth, turned, predictions.class_count)
    return Diversity(
        models=chosen,
        samples=n,
        accuracy={name: Estimate.share(int(hits[at]), n, n) for at, name in enumerate(chosen)},
        only={name: Estimate.share(int(alone[at]), n, n) for at, name in enumerate(chosen)},
        any_right=float(np.count_nonzero(in_all)) / n,
        all_right=float(np.count_nonzero(in_all == m)) / n,
        correlation=correlation,
        q_statistic=q_statistic,
        double_fault=neither / n,
        steps=tuple(steps),
        vote_gain=vote / (n * orders),
        covered_gain=covered / (n * orders),
        orders=orders,
    )


def _together(right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Count the samples that both of each pair get right; exact, block by block, as products of 0 and 1."""
    both = np.zeros((right.shape[1], right.shape[1]))
    for first in range(0, len(right), 1 << 16):
        block = right[first : first + (1 << 16)].astype(np.float32)  # counts up to 2^16 are exact in float32
        both += block.T @ block
    return both


def _places(
    labels: NDArray[np.int32], truth: NDArray[np.int32], orders: NDArray[np.intp], classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sum over samples and orders what each model adds at each place: [model, place], in samples."""
    kernel = _kernel()
    return kernel(labels, truth, np.ascontiguousarray(orders, np.intp), classes)


@functools.cache
def _kernel() -> Callable[..., tuple[NDArray[np.int64], NDArray[np.int64]]]:
    import numba

    @numba.njit(nogil=True)
    def places(labels, truth, orders, classes):  # type: ignore[no-untyped-def]
        samples, models = labels.shape
        vote = np.zeros((models, models), np.int64)
        covered = np.zeros((models, models), np.int64)
        count = np.zeros(classes, np.int32)
        for sample in range(samples):
            for order in range(len(orders)):
                best = -1
                was_right = was_covered = 0
                for place in range(models):
                    model = orders[order, place]
                    label = labels[sample, model]
                    if label >= 0:
                        count[label] += 1
                        if best < 0 or count[label] > count[best] or (count[label] == count[best] and label < best):
                            best = label
                    is_right = 1 if best == truth[sample] else 0
                    vote[model, place] += is_right - was_right
                    was_right = is_right
                    if was_covered == 0 and label == truth[sample]:
                        covered[model, place] += 1
                        was_covered = 1
                for model in range(models):
                    if labels[sample, model] >= 0:
                        count[labels[sample, model]] = 0
        return vote, covered

    return places
