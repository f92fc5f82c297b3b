"""The plans of a live run: the same compiled objects as in replay, made without predictions.

`coinfer.compiling` turns a strategy into a plan for models whose answers it has. Live, answers come later, but their
form and number of classes are known from the servers. So the compiler is given a small table of *probe rows* of that
form: every check it makes on predictions is made here too, with the same words, and nothing of it is written twice. The
probe rows also show how it aligned the classes of models that list them in different orders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer._core import plan as core
from coinfer.compiling import Compiler
from coinfer.errors import BadValueError
from coinfer.predictions import ModelOutput, Predictions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer.network import Deployment, Network
    from coinfer.strategy.base import PlanSpec, Strategy

__all__ = ["Plan", "Reading", "Shape", "plans", "readings"]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model's answers look like: form, and number of classes where it is known."""

    form: str
    classes: int | None


@dataclass(slots=True)
class Reading:
    """How the answer of one model becomes what the stepper takes."""

    form: str
    order: NDArray[np.intp] | None
    relabel: NDArray[np.int32] | None
    labels: NDArray[np.int32] | None

    def outputs(self, vector: NDArray[np.float32] | None, label: int, confidence: float) -> core.Outputs:
        """Give one row to the stepper."""
        if vector is not None:
            row = vector if self.order is None else np.ascontiguousarray(vector[self.order])
            return core.Outputs(self.form, row.reshape(1, -1), None, None, self.relabel)
        if self.labels is not None and label >= 0:
            label = int(self.labels[label]) if label < len(self.labels) else -1
        labels = np.array([max(label, -1)], np.int32)
        if self.form == "label":
            return core.Outputs("label", None, labels, None, None)
        return core.Outputs("label_confidence", None, labels, np.array([confidence], np.float32), None)


@dataclass(slots=True)
class Plan:
    """A plan at one ingress node, with the deployments of its members in plan order."""

    ingress: str
    spec: PlanSpec
    plan: core.Plan
    members: tuple[Deployment, ...]
    first: tuple[int, ...]
    """Index of the first member of each stage, and one past the last."""


def table(shapes: Mapping[str, Shape], network: Network) -> Predictions:
    """Make the probe rows: row r of a model that gives labels says r; vectors say which column they were."""
    counts = [shape.classes for shape in shapes.values() if shape.classes]
    for name, shape in shapes.items():
        named = network.model(name).classes
        if named is not None and shape.classes is not None and len(named) != shape.classes:
            msg = f"model {name!r} has {len(named)} classes in the network, but its server answers with {shape.classes}"
            raise BadValueError(msg)
        counts += [len(named)] if named is not None else []
    most = max(counts, default=2)
    outputs = {}
    for name, shape in shapes.items():
        named = network.model(name).classes
        width = shape.classes or (len(named) if named is not None else most)
        column = np.arange(width, dtype=np.float32)
        match shape.form:
            case "logits":
                given: dict[str, Any] = {"logits": np.tile(column, (most, 1))}
            case "probs":
                given = {"probs": np.tile(column / max(column.sum(), 1.0) if width > 1 else column + 1.0, (most, 1))}
            case _:
                given = {"label": np.minimum(np.arange(most), width - 1)}
                if shape.form == "label_confidence":
                    given["confidence"] = np.ones(most, np.float32)
        outputs[name] = ModelOutput(**given, classes=named)
    return Predictions(outputs)


def readings(shapes: Mapping[str, Shape], network: Network) -> dict[str, Reading]:
    """Say how each model's answers are read."""
    probes = table(shapes, network)
    found = {}
    for name in probes:
        output = probes[name]
        order = labels = None
        if output.vector is not None:
            ranks = np.argsort(output.vector[0], kind="stable")
            order = np.argsort(ranks, kind="stable")
            if np.array_equal(order, np.arange(len(order))):
                order = None
        elif network.model(name).classes is not None:
            labels = np.asarray(output.label, np.int32)[: len(network.model(name).classes or ())]
        relabel = None if output.relabel is None else np.ascontiguousarray(output.relabel, np.int32)
        found[name] = Reading(output.form, order, relabel, labels)
    return found


def plans(
    strategy: Strategy, shapes: Mapping[str, Shape], network: Network, ingress: tuple[str, ...]
) -> tuple[list[Plan], Compiler]:
    """Compile a strategy for every ingress node.

    Raises
    ------
    CoinferError
        As replay would: a model that no server answers for, a score that its form does not allow.
    """
    compiler = Compiler(table(shapes, network), network)
    made = []
    for node in ingress:
        compiled = compiler.plan(strategy, node)
        spec = compiled.spec
        members = tuple(d for stage in spec.stages for d in stage.members)
        first = tuple(int(n) for n in np.cumsum([0, *(len(stage.members) for stage in spec.stages)]))
        made.append(Plan(node, spec, compiled.plan, members, first))
    return made, compiler
