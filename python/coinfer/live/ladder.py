"""The digits ladder as files that a Triton server can run, and the images to ask it about.

The models are those of `coinfer.datasets.digits`, learned on one half of the images (stratified, seed 0) and asked
about the other half alone, so that live accuracy is honest. Their weights are taken out of scikit-learn as plain
arrays, because the server's interpreter has NumPy and nothing else; a test compares the two.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer.datasets._digits import LADDER, SEED
from coinfer.errors import UnknownNameError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MODELS", "Images", "arrays", "images"]

MODELS = tuple(rung.name for rung in LADDER)


@dataclass(frozen=True)
class Images:
    """Half of the digits to learn from, the other half to ask about: pixels (n, 64) float32 in [0, 1], and labels."""

    seen: NDArray[np.float32]
    seen_labels: NDArray[np.int64]
    asked: NDArray[np.float32]
    asked_labels: NDArray[np.int64]


@functools.cache
def images() -> Images:
    """Split scikit-learn's 1,797 digits into 898 to learn from and 899 to ask about."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    seen, asked, seen_labels, asked_labels = train_test_split(
        (pixels / 16.0).astype(np.float32), labels.astype(np.int64), test_size=0.5, stratify=labels, random_state=SEED
    )
    return Images(seen, seen_labels, asked, asked_labels)


@functools.cache
def fitted(name: str) -> Any:
    """Learn one model of the ladder on the images that are never asked about."""
    rungs = {rung.name: rung for rung in LADDER}
    if name not in rungs:
        msg = f"the digits ladder has no model {name!r}; {nearest(name, rungs)}"
        raise UnknownNameError(msg)
    data = images()
    return rungs[name].make().fit(data.seen, data.seen_labels)


def arrays(name: str) -> dict[str, NDArray[Any]]:
    """Give everything that `served_model` needs to answer as this model does.

    Raises
    ------
    UnknownNameError
        If the ladder has no such model.
    """
    model = fitted(name)
    if name == "tree":
        tree = model._tree.tree_
        held = tree.n_node_samples[:, None]
        share = tree.value[:, 0, :]
        leaf = (share * held + model._smoothing) / (held + share.shape[1] * model._smoothing)
        return {"kind": np.array("forest"), **_forest([tree], [leaf], "")}
    if name == "logistic":
        inner = model._model
        return {"kind": np.array("thumbnail"), "w": inner.coef_.T, "b": inner.intercept_}
    if name == "mlp":
        (w0, w1), (b0, b1) = model._model.coefs_, model._model.intercepts_
        return {"kind": np.array("perceptron"), "w0": w0, "b0": b0, "w1": w1, "b1": b1}
    trees, near, kernel = model._members
    inner = [each.tree_ for each in trees.estimators_]
    return {
        "kind": np.array("ensemble"),
        "power": np.array(model._power),
        **_forest(inner, [each.value[:, 0, :] for each in inner], "forest."),
        "knn.x": near._fit_X.astype(np.float64),
        "knn.y": near.classes_[near._y].astype(np.int64),
        "svc.x": kernel.support_vectors_,
        "svc.dual": kernel.dual_coef_,
        "svc.bias": kernel.intercept_,
        "svc.first": np.concatenate([[0], np.cumsum(kernel.n_support_)]),
        "svc.gamma": np.array(kernel.gamma),
    }


def _forest(trees: list[Any], leaves: list[Any], prefix: str) -> dict[str, NDArray[Any]]:
    roots = np.concatenate([[0], np.cumsum([tree.node_count for tree in trees])])

    def all_of(what: str, moved: bool) -> NDArray[Any]:
        parts = [getattr(tree, what) + (root if moved else 0) for tree, root in zip(trees, roots, strict=False)]
        return np.concatenate(parts)

    return {
        f"{prefix}root": roots[:-1],
        f"{prefix}left": all_of("children_left", True),
        f"{prefix}right": all_of("children_right", True),
        f"{prefix}feature": all_of("feature", False),
        f"{prefix}cut": all_of("threshold", False),
        f"{prefix}value": np.concatenate(leaves),
    }
