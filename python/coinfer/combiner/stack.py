"""Stacking: a logistic model learns, from what all members say, how to weigh whom on what.

Unlike a mean it can learn that one model is to be trusted on some classes and another on others, and it undoes
miscalibration. It pays for that with a fitting set, which the members must not have been trained on. Fitted with
scikit-learn, applied by the engine (``src/coinfer/combine/stack.hpp``).

A member that gives no answer leaves a gap that no coefficient can fill, so there is one fit per set of members that
may be there; a row that another set answered is given no answer, rather than a guess.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from coinfer import _core
from coinfer._checks import check_integer, check_keys, check_number
from coinfer.combiner.answers import Answers
from coinfer.combiner.base import Learned
from coinfer.errors import BadValueError, UnknownNameError, UnsupportedError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer._core.plan import Combiner

__all__ = ["Stack"]

FEATURES: Final = ("log_probs", "probs")
MISSING: Final = ("none", "one", "any")
FLOOR: Final = 2.0**-20
MOST_MEMBERS: Final = 32
_CANDIDATES: Final = (0.1, 1.0, 10.0)
_ITERATIONS: Final = 2000
_SMALL: Final = 20_000_000
_NEVER: Final = -1e9  # the intercept of a class that the fitting set lacks


@dataclass(frozen=True, eq=False)
class Stack(Learned):
    """A fitted logistic model over the answers of several models; made by `fit`, not by hand.

    Attributes
    ----------
    models : tuple of str
    there : tuple of tuple of bool
        The sets of members that it was fitted for, the set of all first.
    coefficient : ndarray of float64, shape (S, C, M, C)
        Per set: [class][member][class of the member].
    intercept : ndarray of float64, shape (S, C)
    features : {"log_probs", "probs"}
        What coefficients multiply: log2 of probabilities not below 2^-20, or probabilities.
    class_names : tuple of str or None
    regularisation : float
        The inverse strength of the L2 penalty, as scikit-learn's `C`.
    accuracy, log_loss : float
        Out of fold, on the fitting set: each sample by a model that did not see it. NaN if folds were not asked for.

    References
    ----------
    Wolpert, "Stacked generalization", Neural Networks 1992; Ting and Witten, "Issues in stacked generalization", JAIR
    1999 (probabilities as features).
    """

    how = "stack"
    requires = "vectors"
    asked: tuple[str, ...]
    there: tuple[tuple[bool, ...], ...]
    coefficient: NDArray[np.float64]
    intercept: NDArray[np.float64]
    features: str = "log_probs"
    class_names: tuple[str, ...] | None = None
    regularisation: float = 1.0
    accuracy: float = math.nan
    log_loss: float = math.nan

    @property
    def models(self) -> tuple[str, ...]:
        """Models to ask, in order."""
        return self.asked

    @cached_property
    def key(self) -> str:
        """A digest of all that decides answers."""
        digest = hashlib.sha256(repr((self.models, self.there, self.features, self.class_names)).encode())
        digest.update(self.coefficient.tobytes())
        digest.update(self.intercept.tobytes())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stack) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        classes = self.intercept.shape[1]
        return f"Stack({len(self.models)} models, {classes} classes, fitted for {len(self.there)} sets of members)"

    @classmethod
    def fit(
        cls,
        members: Sequence[Any] | Mapping[str, Any],
        labels: Any,
        *,
        input: str = "probs",
        features: str = "log_probs",
        regularisation: float | None = None,
        folds: int = 5,
        missing: str = "one",
        seed: int = 0,
    ) -> Stack:
        """Learn from labelled rows that the members were not trained on.

        Parameters
        ----------
        members : sequence or mapping of array-like
            Vectors of every model, each of shape (N, C).
        labels : array-like of int, shape (N,)
            True labels; -1 where unknown.
        input : {"probs", "logits"}
            What the vectors hold.
        features : {"log_probs", "probs"}
            With ``"probs"`` and ``regularisation=1`` this is scikit-learn's ``StackingClassifier(cv="prefit")``.
        regularisation : float, optional
            Inverse strength of the penalty. Default: the one of 0.1, 1 and 10 with the lowest log loss out of fold.
        folds : int, default 5
            How many parts the samples are split into, each predicted by a model fitted on the others; 0 leaves that
            out, and needs `regularisation`.
        missing : {"one", "none", "any"}
            For which absences there is a fit of its own: of any one member, of none (only rows that all answered get
            an answer), or of any but all (2^M - 1 fits).
        seed : int
            Of the split into folds.

        Examples
        --------
        >>> import numpy as np
        >>> import coinfer as ci
        >>> rng = np.random.default_rng(0)
        >>> truth = rng.integers(0, 3, 600)
        >>> sure = np.where(np.eye(3)[truth] > 0, 0.8, 0.1)
        >>> misled = sure[:, [1, 2, 0]]  # takes every class for another one, always
        >>> noise = rng.dirichlet([1, 1, 1], 600)
        >>> stack = ci.Stack.fit([misled, noise], truth, regularisation=1.0, folds=0)
        >>> float(np.mean(ci.combine([misled, noise], stack).label == truth))
        1.0
        """
        return cls.learn(
            Answers.of(members, labels, input, None),
            features=features,
            regularisation=regularisation,
            folds=folds,
            missing=missing,
            seed=seed,
        )

    @classmethod
    def learn(
        cls,
        answers: Answers,
        *,
        features: str = "log_probs",
        regularisation: float | None = None,
        folds: int = 5,
        missing: str = "one",
        seed: int = 0,
    ) -> Stack:
        """Learn from labelled samples; parameters as for `fit`."""
        _check(features, FEATURES, "features")
        _check(missing, MISSING, "missing")
        folds = check_integer(folds, "folds", at_least=0)
        if folds == 1 or (folds == 0 and regularisation is None):
            msg = "folds must be 0 or at least 2, and 0 needs regularisation="
            raise BadValueError(msg)
        if regularisation is not None:
            regularisation = check_number(regularisation, "regularisation", above=0.0)
        answers.check_labelled("stack")
        count = len(answers.models)
        if count > MOST_MEMBERS or (missing == "any" and count > 8):
            most = MOST_MEMBERS if missing != "any" else 8
            msg = f"stack takes at most {most} models with missing={missing!r}, not {count}"
            raise UnsupportedError(msg)
        labelled = answers.truth >= 0
        said, truth = answers.vectors()[:, labelled], answers.truth[labelled].astype(np.int64)
        answered = ~np.isnan(said[:, :, 0])
        x = _features(said, features)
        sets = _sets(count, missing)
        every = answered.all(axis=0)
        tested = _Tested(regularisation or 1.0, math.nan, math.nan)
        if folds:
            candidates = _CANDIDATES if regularisation is None else (regularisation,)
            tested = _out_of_fold(_rows(x, every), truth[every], answers.classes, candidates, folds, seed, features)
        fits = []
        for there in sets:
            rows = answered[list(there)].all(axis=0)
            part = _rows(x[list(there)], rows)
            coefficient, intercept = _centred(part, truth[rows], answers.classes, tested.regularisation, features)
            whole = np.zeros((answers.classes, count, answers.classes))
            whole[:, list(there)] = coefficient.reshape(answers.classes, len(there), answers.classes)
            fits.append(_unscaled(whole, intercept, features))
        return cls(
            answers.models,
            tuple(tuple(m in there for m in range(count)) for there in sets),
            np.array([coefficient for coefficient, _ in fits]),
            np.array([intercept for _, intercept in fits]),
            features,
            answers.class_names,
            tested.regularisation,
            tested.accuracy,
            tested.log_loss,
        )

    def check_classes(self, names: tuple[str, ...] | None) -> None:
        """Refuse classes of other names than it was fitted for."""
        if names is not None and self.class_names is not None and names != self.class_names:
            here, there = (", ".join(map(repr, each[:20])) for each in (names, self.class_names))
            msg = f"stack was fitted for the classes {there}, but these predictions have {here}"
            raise UnsupportedError(msg)

    def build(self, classes: int, members: Sequence[str], score: str) -> Combiner:
        """Make the engine's combiner, its members in the order of the plan."""
        if sorted(members) != sorted(self.models):
            msg = f"stack was fitted for the models {', '.join(self.models)}, but is asked for {', '.join(members)}"
            raise UnsupportedError(msg)
        if classes != self.intercept.shape[1]:
            msg = f"stack was fitted for {self.intercept.shape[1]} classes, but these predictions have {classes}"
            raise UnsupportedError(msg)
        order = [self.models.index(model) for model in members]
        rows = [
            (
                sum(1 << place for place, at in enumerate(order) if there[at]),
                np.ascontiguousarray(coefficient[:, order]).reshape(-1),
                intercept,
            )
            for there, coefficient, intercept in zip(self.there, self.coefficient, self.intercept, strict=True)
        ]
        return _core.combine.stack(rows, len(order), classes, self.features == "log_probs", FLOOR, score)

    def to_dict(self) -> dict[str, Any]:
        """Give what was learned, as in a strategy file."""
        table: dict[str, Any] = {
            "model": list(self.models),
            "there": ["".join("1" if here else "0" for here in there) for there in self.there],
            "features": self.features,
            "regularisation": self.regularisation,
        }
        if self.class_names is not None:
            table["classes"] = list(self.class_names)
        for name in ("accuracy", "log_loss"):
            if math.isfinite(getattr(self, name)):
                table[name] = getattr(self, name)
        table["coefficient"] = self.coefficient.reshape(-1).tolist()
        table["intercept"] = self.intercept.reshape(-1).tolist()
        return table

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Stack:
        """Build from `to_dict`'s table."""
        required = ("model", "there", "features", "regularisation", "coefficient", "intercept")
        check_keys(table, (*required, "classes", "accuracy", "log_loss"), required, "stack")
        _check(table["features"], FEATURES, "features")
        models, sets = tuple(map(str, table["model"])), tuple(map(str, table["there"]))
        intercept = np.asarray(table["intercept"], np.float64)
        coefficient = np.asarray(table["coefficient"], np.float64)
        classes = len(intercept) // max(len(sets), 1)
        if (
            not sets
            or any(len(there) != len(models) or set(there) - {"0", "1"} for there in sets)
            or intercept.shape != (len(sets) * classes,)
            or coefficient.shape != (len(sets) * classes * len(models) * classes,)
        ):
            msg = "stack: there, coefficient and intercept do not fit the models and each other"
            raise BadValueError(msg)
        return cls(
            models,
            tuple(tuple(here == "1" for here in there) for there in sets),
            coefficient.reshape(len(sets), classes, len(models), classes),
            intercept.reshape(len(sets), classes),
            table["features"],
            tuple(table["classes"]) if "classes" in table else None,
            float(table["regularisation"]),
            float(table.get("accuracy", math.nan)),
            float(table.get("log_loss", math.nan)),
        )


@dataclass(frozen=True)
class _Tested:
    regularisation: float
    accuracy: float
    log_loss: float


def _check(value: str, known: tuple[str, ...], what: str) -> None:
    if value not in known:
        msg = f"stack: {what} must be one of {', '.join(known)}, not {value!r}; {nearest(str(value), known)}"
        raise UnknownNameError(msg)


def _sets(count: int, missing: str) -> list[tuple[int, ...]]:
    """List the sets of members to fit for, the set of all first."""
    sizes = {"none": [count], "one": [count, count - 1], "any": list(range(count, 0, -1))}[missing]
    return [there for size in sizes if size for there in itertools.combinations(range(count), size)]


def _features(said: NDArray[np.float32], features: str) -> NDArray[np.float64]:
    """Scale what coefficients multiply to about [0, 1], so that the penalty means the same for both."""
    x = said.astype(np.float64)
    if features == "log_probs":
        np.maximum(x, FLOOR, out=x)
        np.log2(x, out=x)
        x /= -math.log2(FLOOR)
        x += 1.0
    return x


def _unscaled(whole: Any, intercept: Any, features: str) -> tuple[Any, Any]:
    """Turn coefficients of scaled features into those of log2 p itself; who is not there adds nothing."""
    if features == "probs":
        return whole, intercept
    return whole / -math.log2(FLOOR), intercept + whole.sum(axis=(1, 2))


def _rows(x: Any, rows: Any) -> Any:
    """Give features member after member, one row per sample."""
    return np.concatenate(list(x[:, rows]), axis=1)


def _logistic(x: Any, y: Any, classes: int, regularisation: float) -> tuple[Any, Any]:
    """Fit; give coefficients (classes, features) and intercepts, with classes that do not occur ruled out."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    present = np.unique(y)
    if len(present) < 2:
        msg = "stack needs samples of at least two classes that all its models answered"
        raise UnsupportedError(msg)
    model = LogisticRegression(C=regularisation, max_iter=_ITERATIONS)
    threads = 1 if x.size * classes < _SMALL else None  # below, handing work to threads costs more than it gains
    with warnings.catch_warnings(), threadpool_limits(threads):
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            model.fit(x, y)
        except ConvergenceWarning as error:
            msg = f"stack: the fit does not settle with regularisation {regularisation:g}; use a smaller one"
            raise UnsupportedError(msg) from error
    coefficient, intercept = np.zeros((classes, x.shape[1])), np.full(classes, _NEVER)
    if len(present) == 2:  # one row of coefficients, for the second class against the first
        coefficient[present[1]] = model.coef_[0]
        intercept[present] = 0.0, model.intercept_[0]
    else:
        coefficient[present], intercept[present] = model.coef_, model.intercept_
    return coefficient, intercept


def _centred(x: Any, y: Any, classes: int, regularisation: float, features: str) -> tuple[Any, Any]:
    """Fit around the mean of the features, where the same optimum is found in a fifth of the steps.

    Not for probabilities: there, each step is to be scikit-learn's own.
    """
    if features == "probs":
        return _logistic(x, y, classes, regularisation)
    centre = x.mean(axis=0) if len(x) else 0.0
    coefficient, intercept = _logistic(x - centre, y, classes, regularisation)
    return coefficient, intercept - coefficient @ centre


def _out_of_fold(x: Any, y: Any, classes: int, candidates: Any, folds: int, seed: int, features: str) -> _Tested:
    """Predict every sample by a model that did not see it; choose the regularisation of the lowest log loss."""
    if len(y) < 2 * folds:
        msg = (
            f"stack needs at least {2 * folds} samples that all its models answered, for {folds} folds; found {len(y)}"
        )
        raise UnsupportedError(msg)
    part = np.random.default_rng(seed).permutation(len(y)) % folds
    tested = []
    for regularisation in candidates:
        loss, right = 0.0, 0
        for fold in range(folds):
            held = part == fold
            coefficient, intercept = _centred(x[~held], y[~held], classes, regularisation, features)
            z = x[held] @ coefficient.T + intercept
            z -= z.max(axis=1, keepdims=True)
            log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
            loss -= np.maximum(log_p[np.arange(len(z)), y[held]], -50.0).sum()
            right += int(np.sum(z.argmax(axis=1) == y[held]))
        tested.append(_Tested(regularisation, right / len(y), float(loss) / len(y)))
    return min(tested, key=lambda each: each.log_loss)
