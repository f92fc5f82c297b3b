"""Four real models on scikit-learn's handwritten digits: data for a first run that needs no network.

The 1,797 images (8 x 8 pixels, ten classes) travel with scikit-learn. A ladder of four classifiers of
different kinds and cost is learned on them, and every prediction is *out of fold*: the images are split into
five stratified folds, and a model predicts a fold after learning from the other four alone. Anything less
(predictions on training rows) would make the costly models look perfect and every threshold look safe.

Two limits, said plainly. Folds are drawn over images, not writers, because the data set does not say who
wrote what; a new writer's digits would be answered somewhat worse. And 1,797 images are 1,797 observations,
however many requests a trace draws from them.

Learning takes several seconds, so the tables are kept in the user's cache folder under a name made from the
versions of everything that could change them.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from coinfer._files import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer.predictions import Predictions

    Floats = NDArray[np.floating[Any]]
    Labels = NDArray[np.int64]

__all__ = ["LADDER", "Classifier", "Rung", "Tables", "cache_file", "digits", "folds", "learn"]

FOLDS = 5
SEED = 0
REVISION = 1  # raise when the ladder below changes, so that old caches are not read

Progress = Callable[[int, int], None]


class Classifier(Protocol):
    """What a rung of the ladder must be able to do: the two methods of scikit-learn that are used here."""

    def fit(self, images: Floats, labels: Labels) -> Any:
        """Learn from (n, 64) images in [0, 1] and their labels."""

    def predict_proba(self, images: Floats) -> Floats:
        """Return (n, 10) class probabilities."""


@dataclass(frozen=True)
class Rung:
    """One model of the ladder: its name, what it is, and how to make an untrained one."""

    name: str
    what: str
    make: Callable[[], Classifier]


@dataclass(frozen=True)
class Tables:
    """What learning gives: out-of-fold probabilities and service times by model, and the true labels."""

    probs: Mapping[str, NDArray[np.float32]]
    service_us: Mapping[str, NDArray[np.float32]]
    labels: Labels


# The models -------------------------------------------------------------------------------------------------


class _SmoothedTree:
    """A decision tree whose leaves are smoothed towards the uniform distribution.

    A leaf of four images of one class would otherwise claim certainty; adding a fifth of an image per class
    (an m-estimate) makes the leaf's confidence grow with its evidence. See Provost & Domingos, "Tree
    induction for probability-based ranking", Machine Learning 52 (2003).
    """

    def __init__(self, depth: int, smoothing: float = 0.2) -> None:
        from sklearn.tree import DecisionTreeClassifier

        self._tree = DecisionTreeClassifier(max_depth=depth, min_samples_leaf=3, random_state=SEED)
        self._smoothing = smoothing

    def fit(self, images: Floats, labels: Labels) -> _SmoothedTree:
        self._tree.fit(images, labels)
        return self

    def predict_proba(self, images: Floats) -> Floats:
        leaf = self._tree.apply(images)
        held = self._tree.tree_.n_node_samples[leaf][:, None]
        share: Floats = self._tree.tree_.value[leaf][:, 0, :]
        smoothed: Floats = (share * held + self._smoothing) / (held + share.shape[1] * self._smoothing)
        return smoothed


class _ThumbnailLogistic:
    """Logistic regression on the image halved to 4 x 4, as little as a device could send on."""

    def __init__(self) -> None:
        from sklearn.linear_model import LogisticRegression

        self._model = LogisticRegression(C=100.0, max_iter=2000)

    @staticmethod
    def _thumbnail(images: Floats) -> Floats:
        halved: Floats = images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(len(images), 16)
        return halved

    def fit(self, images: Floats, labels: Labels) -> _ThumbnailLogistic:
        self._model.fit(self._thumbnail(images), labels)
        return self

    def predict_proba(self, images: Floats) -> Floats:
        probs: Floats = self._model.predict_proba(self._thumbnail(images))
        return probs


class _Perceptron:
    """A neural network with one hidden layer of 64 units, stopped after 40 epochs: not yet overconfident."""

    def __init__(self) -> None:
        from sklearn.neural_network import MLPClassifier

        self._model = MLPClassifier((64,), alpha=1e-2, learning_rate_init=5e-3, max_iter=40, random_state=SEED)

    def fit(self, images: Floats, labels: Labels) -> _Perceptron:
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings():  # stopping early is meant here, not an oversight
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.fit(images, labels)
        return self

    def predict_proba(self, images: Floats) -> Floats:
        probs: Floats = self._model.predict_proba(images)
        return probs


class _Ensemble:
    """A soft vote of 64 randomised trees, nearest neighbours that know shifted images, and a kernel machine.

    The mean of three unlike models is right more often than any of them, and less sure than it should be. The
    mean is therefore raised to a power and normalised again; the power is chosen on a quarter of the
    *training* rows that the members were kept from, after which the members learn from all training rows.
    """

    powers = np.geomspace(0.5, 5.0, 47)

    def __init__(self) -> None:
        self._members: tuple[Any, Any, Any] | None = None
        self._power = 1.0

    @staticmethod
    def _learn(images: Floats, labels: Labels) -> tuple[Any, Any, Any]:
        from sklearn.ensemble import ExtraTreesClassifier
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.svm import SVC

        shifted = _with_shifts(images)
        return (
            ExtraTreesClassifier(64, random_state=SEED).fit(images, labels),
            KNeighborsClassifier(5, weights="distance").fit(shifted, np.tile(labels, len(shifted) // len(labels))),
            SVC(C=10.0, gamma=0.5).fit(images, labels),
        )

    @staticmethod
    def _mean(members: tuple[Any, Any, Any], images: Floats) -> Floats:
        trees, neighbours, kernel = members
        votes = kernel.decision_function(images)
        votes = np.exp(votes - votes.max(axis=1, keepdims=True))
        votes /= votes.sum(axis=1, keepdims=True)
        mean: Floats = (trees.predict_proba(images) + neighbours.predict_proba(images) + votes) / 3.0
        return mean

    def fit(self, images: Floats, labels: Labels) -> _Ensemble:
        from sklearn.model_selection import train_test_split

        seen, kept, seen_labels, kept_labels = train_test_split(
            images, labels, test_size=0.25, stratify=labels, random_state=SEED
        )
        log_mean = np.log(np.maximum(self._mean(self._learn(seen, seen_labels), kept), 1e-12))
        row = np.arange(len(kept_labels))

        def log_loss(power: float) -> float:
            scaled = power * log_mean
            return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - scaled[row, kept_labels]))

        self._power = float(min(self.powers, key=log_loss))
        self._members = self._learn(images, labels)
        return self

    def predict_proba(self, images: Floats) -> Floats:
        assert self._members is not None, "fit first"
        probs: Floats = self._mean(self._members, images) ** self._power
        probs /= probs.sum(axis=1, keepdims=True)
        return probs


def _with_shifts(images: Floats) -> Floats:
    """Return the images, then all of them moved by one pixel to the left, right, up and down."""
    framed = np.pad(images.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    corner = ((1, 1), (1, 2), (1, 0), (2, 1), (0, 1))
    return np.concatenate([framed[:, y : y + 8, x : x + 8].reshape(-1, 64) for y, x in corner])


LADDER: tuple[Rung, ...] = (
    Rung("tree", "one decision tree, eight levels deep", lambda: _SmoothedTree(depth=8)),
    Rung("logistic", "logistic regression on a 4 x 4 thumbnail", _ThumbnailLogistic),
    Rung("mlp", "a neural network with 64 hidden units", _Perceptron),
    Rung("ensemble", "64 randomised trees + nearest neighbours + a kernel machine", _Ensemble),
)


# Learning ---------------------------------------------------------------------------------------------------


def folds(labels: Labels) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield (training rows, rows to predict) for each fold; every row is predicted exactly once."""
    from sklearn.model_selection import StratifiedKFold

    split = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(np.zeros((len(labels), 1)), labels)
    yield from split


def learn(
    images: Floats, labels: Labels, ladder: tuple[Rung, ...] = LADDER, progress: Progress | None = None
) -> Tables:
    """Learn every model of the ladder on each fold's training rows and predict the others, one row at a time.

    Parameters
    ----------
    images : ndarray of float, shape (n, 64)
        Pixels in [0, 1].
    labels : ndarray of int64, shape (n,)
        True classes 0 to 9.
    ladder : tuple of Rung
        The models, cheapest first.
    progress : callable, optional
        Called as ``progress(done, total)``, counted in predictions.

    Returns
    -------
    Tables
        Probabilities, and the time that each single-row prediction took. Rows are predicted one by one,
        because that is how a request arrives, and because the time is then that row's own.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    total = len(labels) * len(ladder)
    done = 0
    probs = {rung.name: np.empty((len(labels), 10), np.float32) for rung in ladder}
    service_us = {rung.name: np.empty(len(labels), np.float32) for rung in ladder}
    with threadpool_limits(1):  # the same sums in the same order everywhere, and comparable times
        for train, predict in folds(labels):
            for rung in ladder:
                model = rung.make()
                model.fit(images[train], labels[train])
                model.predict_proba(images[predict[:1]])  # the first call also pays for imports and caches
                for row in predict:
                    start = time.perf_counter_ns()
                    answer = model.predict_proba(images[row : row + 1])
                    service_us[rung.name][row] = (time.perf_counter_ns() - start) / 1e3
                    probs[rung.name][row] = answer[0]
                    done += 1
                    if progress is not None and (done % 100 == 0 or done == total):
                        progress(done, total)
    return Tables(probs, service_us, labels)


# The cache --------------------------------------------------------------------------------------------------


def cache_file() -> Path:
    """Return where the tables of this ladder and these library versions are kept, there or not yet.

    The folder is ``$XDG_CACHE_HOME/coinfer``, else ``~/.cache/coinfer``; where neither can be written, a
    folder of this user in the system's temporary directory.
    """
    import hashlib
    import platform
    import tempfile

    import sklearn

    versions = f"{REVISION} {sklearn.__version__} {np.__version__} {platform.python_version()} {platform.machine()}"
    name = f"digits-{hashlib.sha256(versions.encode()).hexdigest()[:12]}.npz"
    configured = os.environ.get("XDG_CACHE_HOME")
    base = Path(configured) if configured else Path("~/.cache").expanduser()
    own = f"coinfer-{os.getuid()}" if hasattr(os, "getuid") else "coinfer"
    for folder in (base / "coinfer", Path(tempfile.gettempdir()) / own):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK | os.X_OK):
            return folder / name
    return Path(tempfile.mkdtemp(prefix="coinfer-")) / name


def _save(path: Path, tables: Tables) -> None:
    columns: dict[str, NDArray[Any]] = {"labels": tables.labels}
    columns |= {f"probs.{name}": table for name, table in tables.probs.items()}
    columns |= {f"service_us.{name}": column for name, column in tables.service_us.items()}
    with replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **columns)


def _load(path: Path) -> Tables | None:
    """Return the cached tables, or None where there are none or the file is damaged: it is then made anew."""
    import zipfile

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            return Tables(
                {rung.name: held[f"probs.{rung.name}"] for rung in LADDER},
                {rung.name: held[f"service_us.{rung.name}"] for rung in LADDER},
                held["labels"],
            )
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def digits(*, cache: bool = True, progress: Progress | None = None) -> Predictions:
    """Return what four real models say about scikit-learn's 1,797 handwritten digits, out of fold.

    The models, cheapest first: ``tree`` (83 % right), ``logistic`` (90 %), ``mlp`` (97 %), ``ensemble`` (99
    %). No model has learned from a sample that it predicts here. Nothing is downloaded.

    Parameters
    ----------
    cache : bool
        Keep the tables in the user's cache folder, and read them from there the next time. Without it they
        are learned anew, which takes about ten seconds.
    progress : callable, optional
        Called as ``progress(done, total)`` while learning, counted in predictions; never called where the
        cache is used.

    Returns
    -------
    Predictions
        1,797 samples, four models with float32 probabilities, true labels, class names ``"0"`` to ``"9"``,
        and the measured time of each single-row prediction on the machine that learned them. Those times
        differ from machine to machine; `coinfer.datasets.demo_network` states its own instead.

    Examples
    --------
    >>> from coinfer.datasets import digits
    >>> len(digits())
    1797
    """
    path = cache_file() if cache else None
    tables = _load(path) if path is not None else None
    if tables is None:
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        tables = learn((pixels / 16.0).astype(np.float32), labels.astype(np.int64), LADDER, progress)
        if path is not None:
            _save(path, tables)
    return _predictions(tables)


def _predictions(tables: Tables) -> Predictions:
    from coinfer.predictions import ModelOutput, Predictions

    outputs = {
        name: ModelOutput(probs=table, service_us=tables.service_us[name]) for name, table in tables.probs.items()
    }
    return Predictions(outputs, labels=tables.labels, classes=[str(digit) for digit in range(10)])
