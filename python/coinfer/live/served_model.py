"""The model that a local Triton server runs: a classifier of digits in plain NumPy, read from ``model.npz``.

This file is copied into a model repository and runs in the interpreter of the server's Python backend, which knows
neither coinfer nor scikit-learn; so it imports NumPy alone, and the backend's own module only where it is there.

Two things make it useful for trying out a network. It can be *padded*: a batch of b takes at least
``base_ms + per_item_ms * b``, so that two cores can stand in for a network of accelerators. And it can be made
*faulty* while it serves, by a file ``fault.json`` in its version folder: a server that hangs, errs or answers with
nonsense is then a real one.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

Array = Any


def softmax(z: Array) -> Array:
    """Exponentiate and normalise along the last axis."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def forest(x: Array, a: Any, prefix: str) -> Array:
    """Mean of the leaves that each row reaches, over all trees."""
    left, right, feature, cut, value = (a[prefix + n] for n in ("left", "right", "feature", "cut", "value"))
    node = np.repeat(a[prefix + "root"][None, :], len(x), axis=0)
    row = np.arange(len(x))[:, None]
    while True:
        inner = feature[node] >= 0
        if not inner.any():
            return value[node].mean(axis=1)
        below = x[row, np.maximum(feature[node], 0)] <= cut[node]
        node = np.where(inner, np.where(below, left[node], right[node]), node)


def neighbours(x: Array, a: Any, count: int = 5) -> Array:
    """Vote of the nearest stored images, weighted by 1 / distance."""
    stored, label = a["knn.x"], a["knn.y"]
    gap = (x**2).sum(axis=1)[:, None] - 2.0 * x @ stored.T + (stored**2).sum(axis=1)[None, :]
    near = np.argpartition(gap, count, axis=1)[:, :count]
    far = np.sqrt(((x[:, None, :] - stored[near]) ** 2).sum(axis=2))
    same = far == 0.0
    weight = np.where(same.any(axis=1, keepdims=True), same, 1.0 / np.where(same, 1.0, far))
    votes = np.zeros((len(x), int(label.max()) + 1))
    for k in range(count):
        votes[np.arange(len(x)), label[near[:, k]]] += weight[:, k]
    return votes / votes.sum(axis=1, keepdims=True)


def kernel_machine(x: Array, a: Any) -> Array:
    """Votes of all pairs of classes, ties broken by how sure the pairs are."""
    vectors, dual, bias, first = a["svc.x"], a["svc.dual"], a["svc.bias"], a["svc.first"]
    gap = (x**2).sum(axis=1)[:, None] - 2.0 * x @ vectors.T + (vectors**2).sum(axis=1)[None, :]
    kernel = np.exp(-float(a["svc.gamma"]) * gap)
    classes = len(first) - 1
    votes, sure = np.zeros((len(x), classes)), np.zeros((len(x), classes))
    pair = 0
    for i in range(classes):
        for j in range(i + 1, classes):
            of_i, of_j = slice(first[i], first[i + 1]), slice(first[j], first[j + 1])
            d = kernel[:, of_i] @ dual[j - 1, of_i] + kernel[:, of_j] @ dual[i, of_j] + bias[pair]
            votes[:, i] += d > 0
            votes[:, j] += d <= 0
            sure[:, i] += d
            sure[:, j] -= d
            pair += 1
    return softmax(votes + sure / (3.0 * (np.abs(sure) + 1.0)))


def probabilities(x: Array, a: Any) -> Array:
    """Class probabilities (rows, 10) of images (rows, 64) in [0, 1]."""
    kind = str(a["kind"])
    if kind == "forest":
        return forest(x, a, "")
    if kind == "thumbnail":
        return softmax(x.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(len(x), 16) @ a["w"] + a["b"])
    if kind == "perceptron":
        return softmax(np.maximum(x @ a["w0"] + a["b0"], 0.0) @ a["w1"] + a["b1"])
    mean = (forest(x, a, "forest.") + neighbours(x, a) + kernel_machine(x, a)) / 3.0
    sharp = mean ** float(a["power"])
    return sharp / sharp.sum(axis=1, keepdims=True)


class TritonPythonModel:
    """What Triton's Python backend calls."""

    def initialize(self, args: Any) -> None:
        """Read the weights and the settings beside this file."""
        import triton_python_backend_utils as backend

        here = Path(args["model_repository"]) / args["model_version"]
        self.backend = backend
        with np.load(here / "model.npz", allow_pickle=False) as held:
            self.arrays = {name: held[name] for name in held.files}
        self.settings = json.loads((here / "settings.json").read_text("utf-8"))
        self.dtype = backend.triton_string_to_numpy(self.settings["dtype"])
        self.fault_file = str(here / "fault.json")
        self.fault_seen = 0
        self.fault: dict[str, Any] = {}
        probabilities(np.zeros((1, 64)), self.arrays)  # the first request shall not pay for imports

    def execute(self, requests: Any) -> list[Any]:
        """Answer a batch of requests."""
        started = time.monotonic()
        fault = self._fault()
        inputs = [self.backend.get_input_tensor_by_name(r, self.settings["input"]).as_numpy() for r in requests]
        rows = sum(len(x) for x in inputs)
        answers = probabilities(np.concatenate(inputs).astype(np.float64), self.arrays)
        if fault.get("nan"):
            answers = np.full_like(answers, np.nan)
        if fault.get("shape"):
            answers = answers[:, :7]
        wanted = (self.settings["base_ms"] + self.settings["per_item_ms"] * rows + fault.get("sleep_ms", 0.0)) / 1e3
        left = wanted - (time.monotonic() - started)
        if left > 0:
            time.sleep(left)
        responses, first = [], 0
        for x in inputs:
            part = np.ascontiguousarray(answers[first : first + len(x)].astype(self.dtype))
            first += len(x)
            if fault.get("error"):
                error = self.backend.TritonError("this model was told to fail")
                responses.append(self.backend.InferenceResponse([], error=error))
            else:
                names = self.settings["outputs"]
                parts = [part] if len(names) == 1 else np.hsplit(part, part.shape[1])
                tensors = [self.backend.Tensor(n, np.ascontiguousarray(p)) for n, p in zip(names, parts, strict=False)]
                responses.append(self.backend.InferenceResponse(tensors))
        return responses

    def _fault(self) -> dict[str, Any]:
        try:
            changed = os.stat(self.fault_file).st_mtime_ns  # noqa: PTH116  # once per batch: no object is needed
        except FileNotFoundError:
            return {}
        if changed != self.fault_seen:
            self.fault_seen = changed
            self.fault = json.loads(Path(self.fault_file).read_text("utf-8"))
        return self.fault
