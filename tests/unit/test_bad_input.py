"""Bad input of every kind: what is refused, where the message points, what it says is allowed.

One case per kind. A message is part of the interface: it names the place (argument, row, key, file) and what
would have been right, so each case matches words of both.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from coinfer import (
    BadFileError,
    BadValueError,
    CoinferError,
    Deployment,
    Link,
    Model,
    ModelOutput,
    Network,
    Node,
    Predictions,
    Trace,
    UnknownNameError,
    UnsupportedError,
    service,
)
from coinfer.paths import path as path_of

Z = [[1.0, 2.0], [3.0, 4.0]]
NET = Network.chain({"device": "small", "cloud": "large"}, delay_ms=10)


def chain(**options: Any) -> Network:
    return Network.chain({"device": "small", "cloud": "large"}, **{"delay_ms": 10, **options})


def network(**parts: Any) -> Network:
    defaults: dict[str, Any] = {
        "nodes": [Node("a", 0), Node("b", 1)],
        "links": [Link(("a", "b"), delay_ms=1)],
        "models": [],
        "deployments": [Deployment("m", "a")],
    }
    return Network(**{**defaults, **parts})


def two(**second: Any) -> Predictions:
    return Predictions({"x": ModelOutput(logits=Z), "y": ModelOutput(**second)})


Case = tuple[Callable[[], Any], type[CoinferError], str]

MODEL_OUTPUTS: dict[str, Case] = {
    "no form": (lambda: ModelOutput(), BadValueError, "exactly one of logits, probs, or label .* not none"),
    "two forms": (
        lambda: ModelOutput(logits=Z, probs=Z),
        BadValueError,
        "exactly one .* not both logits and probs",
    ),
    "confidence without label": (
        lambda: ModelOutput(logits=Z, confidence=[1, 1]),
        BadValueError,
        "confidence goes with label only",
    ),
    "vector of one dimension": (
        lambda: ModelOutput(logits=[1.0, 2.0]),
        BadValueError,
        r"logits must have shape \(samples, classes\).* not \(2,\)",
    ),
    "vector of no class": (lambda: ModelOutput(probs=np.zeros((2, 0))), BadValueError, "at least one class"),
    "ragged list": (
        lambda: ModelOutput(logits=[[1.0], [1.0, 2.0]]),
        BadValueError,
        "logits cannot be read as an array",
    ),
    "ragged Arrow column": (
        lambda: ModelOutput(logits=pa.array([[1.0, 2.0], [1.0]])),
        BadValueError,
        "logits: row 1 has 1 values where the rows before have 2",
    ),
    "complex vector": (
        lambda: ModelOutput(logits=np.array(Z, complex)),
        BadValueError,
        "logits must be real numbers, not complex128",
    ),
    "text in a vector": (
        lambda: ModelOutput(logits=[["a", "b"]]),
        BadValueError,
        "logits must be real numbers",
    ),
    "one number as a vector": (
        lambda: ModelOutput(logits=5),
        BadValueError,
        "logits must be an array.* not 5",
    ),
    "sparse tensor": (
        lambda: ModelOutput(logits=torch.eye(3).to_sparse()),
        BadValueError,
        "logits cannot be read as an array",
    ),
    "float64 beyond float32": (
        lambda: ModelOutput(logits=[[1.0, 1.0], [1e300, 0.0]]),
        BadValueError,
        "logits: row 1 has a value that does not fit float32",
    ),
    "probabilities above one": (
        lambda: ModelOutput(probs=[[0.5, 0.5], [1.2, -0.2]]),
        BadValueError,
        r"probs: row 1 holds 1.2, which is outside \[0, 1\].*pass unnormalised scores as logits=",
    ),
    "probabilities that do not sum to one": (
        lambda: ModelOutput(probs=[[0.5, 0.4]]),
        BadValueError,
        "probs: row 0 sums to 0.9; each row must be probabilities that sum to 1 within 1e-3",
    ),
    "probabilities with some NaN": (
        lambda: ModelOutput(probs=[[math.nan, 1.0]]),
        BadValueError,
        "probs: row 0 mixes NaN and numbers; .* all NaN for no answer",
    ),
    "infinite probability": (
        lambda: ModelOutput(probs=[[math.inf, 0.0]]),
        BadValueError,
        "probs: row 0 holds inf, which is outside",
    ),
    "label of two columns": (
        lambda: ModelOutput(label=[[1, 2]]),
        BadValueError,
        r"label must have one value per row",
    ),
    "fractional label": (
        lambda: ModelOutput(label=[0.0, 0.5]),
        BadValueError,
        "label: row 1 is 0.5; a label must be a whole number, or -1 or null for none",
    ),
    "label below -1": (
        lambda: ModelOutput(label=[0, -2]),
        BadValueError,
        "label: row 1 is -2; .* or -1 for none",
    ),
    "label beyond the classes": (
        lambda: ModelOutput(label=[0, 2], classes=["a", "b"]),
        BadValueError,
        r"label: row 1 is 2; a label must be from 0 to 1 \('a' to 'b'\), or -1",
    ),
    "label beyond int32": (
        lambda: ModelOutput(label=[2**40]),
        BadValueError,
        "label: row 0 is 1099511627776",
    ),
    "dates as labels": (
        lambda: ModelOutput(label=np.array(["2024-01-01"], "datetime64[s]")),
        BadValueError,
        "label must be integers or class names, not datetime64",
    ),
    "names without classes": (
        lambda: ModelOutput(label=["cat"]),
        BadValueError,
        "label holds class names, so classes=",
    ),
    "unknown class name": (
        lambda: ModelOutput(label=["cat", "dgo"], classes=["cat", "dog"]),
        UnknownNameError,
        "label: row 1: there is no class 'dgo'; did you mean 'dog'",
    ),
    "infinite confidence": (
        lambda: ModelOutput(label=[0, 1], confidence=[0.5, math.inf]),
        BadValueError,
        "confidence: row 1 is inf; it must be finite, or NaN where unknown",
    ),
    "confidence of another length": (
        lambda: ModelOutput(label=[0, 1], confidence=[0.5]),
        BadValueError,
        "confidence must have one value per sample, 2 in all, not 1",
    ),
    "text as confidence": (
        lambda: ModelOutput(label=[0], confidence=["high"]),
        BadValueError,
        "confidence must be real numbers",
    ),
    "negative service time": (
        lambda: ModelOutput(logits=Z, service_us=[1.0, -1.0]),
        BadValueError,
        "service_us: row 1 is -1.0; it must be a finite number >= 0",
    ),
    "service time that is missing": (
        lambda: ModelOutput(logits=Z, service_us=[None, 1.0]),
        BadValueError,
        "service_us: row 0 is nan; it must be a finite number >= 0",
    ),
    "class twice": (
        lambda: ModelOutput(logits=Z, classes=["a", "a"]),
        BadValueError,
        "class 'a' occurs twice",
    ),
    "as many names as columns": (
        lambda: ModelOutput(logits=Z, classes=["a", "b", "c"]),
        BadValueError,
        "logits have 2 columns but classes has 3 names",
    ),
    "classes as one string": (
        lambda: ModelOutput(logits=Z, classes="ab"),
        BadValueError,
        "classes must be a list of names",
    ),
    "a class without a name": (
        lambda: ModelOutput(logits=Z, classes=["a", ""]),
        BadValueError,
        "non-empty string",
    ),
    "a number as class name": (
        lambda: ModelOutput(logits=Z, classes=[1, 2]),
        BadValueError,
        "non-empty string.* not 1",
    ),
}

PREDICTIONS: dict[str, Case] = {
    "no model": (lambda: Predictions({}), BadValueError, "outputs must map at least one model name"),
    "a list of outputs": (lambda: Predictions([1]), BadValueError, "outputs must map at least one"),  # type: ignore[arg-type]
    "a bare array": (
        lambda: Predictions({"m": np.zeros((2, 2))}),  # type: ignore[dict-item]
        BadValueError,
        r"model 'm': must be a ModelOutput such as ModelOutput\(logits=z\), not ndarray",
    ),
    "models of different length": (
        lambda: two(label=[0]),
        BadValueError,
        "the same samples: 'x' has 2 rows, 'y' has 1",
    ),
    "different class counts without names": (
        lambda: two(logits=[[1.0]] * 2),
        BadValueError,
        "'x' has 2 classes and 'y' has 1, and neither names them; give classes=",
    ),
    "unnamed model beside named ones": (
        lambda: two(logits=[[1.0] * 3] * 2, classes=["a", "b", "c"]),
        BadValueError,
        "model 'x': has 2 classes without names where 3 are shared",
    ),
    "label beyond the shared classes": (
        lambda: two(label=[0, 2]),
        BadValueError,
        "model 'y': label: row 1 is 2; a label must be from 0 to 1",
    ),
    "class that is not shared": (
        lambda: Predictions({"m": ModelOutput(logits=Z, classes=["cat", "dgo"])}, classes=["cat", "dog"]),
        UnknownNameError,
        "model 'm': its class 'dgo' is not among the shared classes; did you mean 'dog'",
    ),
    "truth of another length": (
        lambda: Predictions({"m": ModelOutput(logits=Z)}, labels=[0]),
        BadValueError,
        "labels must have one value per sample, 2 in all, not 1",
    ),
    "truth out of range": (
        lambda: Predictions({"m": ModelOutput(logits=Z)}, labels=[0, 2]),
        BadValueError,
        "labels: row 1 is 2; a label must be from 0 to 1",
    ),
    "unknown model": (
        lambda: Predictions({"resnet18": ModelOutput(logits=Z)})["resnet81"],
        UnknownNameError,
        "no model 'resnet81' in these predictions; did you mean 'resnet18'",
    ),
    "row beyond the end": (
        lambda: Predictions({"m": ModelOutput(logits=Z)}).select([0, 2]),
        BadValueError,
        "rows: row 1 is 2; row numbers must be from 0 to 1",
    ),
    "negative row": (
        lambda: ModelOutput(logits=Z).select([-1]),
        BadValueError,
        "row numbers must be from 0 to 1",
    ),
    "mask of another length": (
        lambda: Predictions({"m": ModelOutput(logits=Z)}).select([True]),
        BadValueError,
        "rows, a mask, must have one value per sample, 2 in all, not 1",
    ),
    "fractional rows": (
        lambda: ModelOutput(logits=Z).select([0.5]),
        BadValueError,
        "rows must be a slice, a boolean mask",
    ),
}

TRACES: dict[str, Case] = {
    "arrivals out of order": (
        lambda: Trace([0, 5, 4], "a", [0, 0, 0]),
        BadValueError,
        r"arrival_ns: row 2 is 4 ns, earlier than row 1 \(5 ns\)",
    ),
    "negative arrival": (
        lambda: Trace([-1], "a", [0]),
        BadValueError,
        "arrival_ns: row 0 is -1; .* must be >= 0",
    ),
    "fractional arrivals": (
        lambda: Trace([0.5], "a", [0]),
        BadValueError,
        "arrival_ns must be integers, not float64; Trace.from_arrivals takes times in seconds",
    ),
    "missing arrival": (
        lambda: Trace([0, math.nan], "a", [0, 0]),
        BadValueError,
        "arrival_ns: row 1 is null",
    ),
    "arrivals of two columns": (lambda: Trace([[0]], "a", [0]), BadValueError, r"arrival_ns .* shape \(N,\)"),
    "negative sample": (
        lambda: Trace([0], "a", [-1]),
        BadValueError,
        "sample: row 0 is -1; a sample is a row number >= 0",
    ),
    "sample beyond int32": (
        lambda: Trace([0], "a", [2**31]),
        BadValueError,
        "sample: row 0 is 2147483648.*int32",
    ),
    "samples of another length": (
        lambda: Trace([0, 1], "a", [0]),
        BadValueError,
        "sample must have one value per request, 2 in all, not 1",
    ),
    "ingress of another length": (
        lambda: Trace([0, 1], ["a"], [0, 0]),
        BadValueError,
        "ingress must have one value per request, 2 in all, not 1",
    ),
    "codes without nodes": (lambda: Trace([0], [0], [0]), BadValueError, "ingress holds integers, so nodes="),
    "code beyond nodes": (
        lambda: Trace([0], [1], [0], nodes=["a"]),
        BadValueError,
        "ingress: row 0 is 1; it must be a position in nodes, from 0 to 0",
    ),
    "unknown ingress": (
        lambda: Trace([0, 1], ["edge", "egde"], [0, 0], nodes=["edge"]),
        UnknownNameError,
        "ingress: row 1: there is no node 'egde'; did you mean 'edge'",
    ),
    "missing ingress": (lambda: Trace([0, 1], ["a", None], [0, 0]), BadValueError, "ingress: row 1 is null"),
    "numbers as names": (lambda: Trace([0], [0.5], [0]), BadValueError, "ingress must be names"),
    "node twice": (lambda: Trace([0], "a", [0], nodes=["a", "a"]), BadValueError, "nodes: 'a' occurs twice"),
    "no nodes": (
        lambda: Trace([0], [0], [0], nodes=[]),
        BadValueError,
        "nodes must be a list of at least one",
    ),
    "deadline of zero": (
        lambda: Trace([0, 1], "a", [0, 0], deadline_us=[1.0, 0.0]),
        BadValueError,
        "deadline_us: row 1 is 0.0; it must be > 0, or null for none",
    ),
    "deadline in the past": (
        lambda: Trace([0, 1], "a", [0, 0], deadline_us=[math.nan, -3.0]),
        BadValueError,
        "deadline_us: row 1 is -3.0; it must be > 0, or null for none",
    ),
    "deadline in the past for all": (
        lambda: Trace([0], "a", [0], deadline_us=-3.0),
        BadValueError,
        "deadline_us must be a finite number > 0, not -3",
    ),
    "negative priority": (
        lambda: Trace([0], "a", [0], priority=[-1]),
        BadValueError,
        r"priority: row 0 is -1; a priority is 0 \(default\), 1 \(highest\), or larger",
    ),
    "identifiers of a wrong type": (
        lambda: Trace([0], "a", [0], request_id=[{}]),
        BadValueError,
        "request_id must be integers or strings",
    ),
    "rate of zero": (
        lambda: Trace.poisson(NET, rate_rps=0, requests=1, samples=1),
        BadValueError,
        "rate_rps must be a finite number > 0, not 0",
    ),
    "half a request": (
        lambda: Trace.poisson(NET, rate_rps=1, requests=1.5, samples=1),  # type: ignore[arg-type]
        BadValueError,
        "requests must be an integer .* not 1.5",
    ),
    "no samples": (
        lambda: Trace.poisson(NET, rate_rps=1, requests=1, samples=0),
        BadValueError,
        "samples must be an integer >= 1, not 0",
    ),
    "negative seed": (
        lambda: Trace.poisson(NET, rate_rps=1, requests=1, samples=1, seed=-1),
        BadValueError,
        "seed must be an integer >= 0, not -1",
    ),
    "unknown unit": (
        lambda: Trace.from_arrivals([0], samples=1, ingress="a", unit="min"),
        BadValueError,
        "unit must be one of 's', 'ms', 'us', 'ns', not 'min'",
    ),
    "negative time": (
        lambda: Trace.from_arrivals([-0.5], samples=1, ingress="a"),
        BadValueError,
        "times: row 0 is -0.5",
    ),
    "no ingress": (
        lambda: Trace.from_arrivals([0], samples=1),
        BadValueError,
        "give ingress= .* or network=",
    ),
    "mix without labels": (
        lambda: Trace.from_arrivals([0], samples=1, ingress="a", label_mix={"a": {0: 1}}),
        BadValueError,
        "label_mix needs labels=",
    ),
    "mix of an unknown class": (
        lambda: Trace.from_arrivals([0], samples=1, ingress="a", labels=["cat"], label_mix={"a": {"cta": 1}}),
        UnknownNameError,
        "label_mix of 'a': no sample has the class 'cta'; did you mean 'cat'",
    ),
    "mix at an unknown node": (
        lambda: Trace.from_arrivals([0], samples=1, ingress="edge", labels=[0], label_mix={"egde": {0: 1}}),
        UnknownNameError,
        "label_mix: no request enters at 'egde'; did you mean 'edge'",
    ),
    "negative popularity": (
        lambda: Trace.from_arrivals([0], samples=1, ingress="a", popularity=-1),
        BadValueError,
        "popularity must be a finite number >= 0, not -1",
    ),
}

NETWORKS: dict[str, Case] = {
    "nameless node": (lambda: Node("", 0), BadValueError, "node name must be a non-empty string"),
    "@ in a node name": (lambda: Node("a@b", 0), BadValueError, "node name must not contain '@'"),
    "negative tier": (
        lambda: Node("a", -1),
        BadValueError,
        "node 'a': tier must be an integer from 0 to 1000, not -1",
    ),
    "fractional tier": (lambda: Node("a", 0.5), BadValueError, "node 'a': tier must be an integer"),  # type: ignore[arg-type]
    "ingress that is no bool": (
        lambda: Node("a", 0, ingress="yes"),  # type: ignore[arg-type]
        BadValueError,
        "node 'a': ingress must be true or false, not 'yes'",
    ),
    "link without ends": (
        lambda: Link(delay_ms=1),
        BadValueError,
        r"between = \[a, b\] or as from = a and to = b",
    ),
    "link with half an end": (lambda: Link(from_="a", delay_ms=1), BadValueError, "from = a and to = b"),
    "link with both": (
        lambda: Link(("a", "b"), from_="a", to="b", delay_ms=1),
        BadValueError,
        "either as between",
    ),
    "link of three": (
        lambda: Link(["a", "b", "c"], delay_ms=1),
        BadValueError,
        "between must be two node names",
    ),
    "self-link": (
        lambda: Link(("a", "a"), delay_ms=1),
        BadValueError,
        "link 'a' -- 'a': a link must join two different",
    ),
    "negative delay": (
        lambda: Link(("a", "b"), delay_ms=-1),
        BadValueError,
        "link 'a' -- 'b': delay_ms must be a finite number >= 0, not -1",
    ),
    "endless delay": (
        lambda: Link(("a", "b"), delay_ms=math.inf),
        BadValueError,
        "delay_ms must be a finite number",
    ),
    "no bandwidth": (
        lambda: Link(("a", "b"), delay_ms=1, bandwidth_mbps=0),
        BadValueError,
        "bandwidth_mbps must be a finite number > 0, not 0",
    ),
    "negative bandwidth": (
        lambda: Link(("a", "b"), delay_ms=1, bandwidth_mbps=-5),
        BadValueError,
        "link 'a' -- 'b': bandwidth_mbps must be a finite number > 0, not -5",
    ),
    "abstaining on no class": (
        lambda: Model("m", classes=["cat", "unknown"], abstain=["unknwon"]),
        UnknownNameError,
        "model 'm': abstain: there is no class 'unknwon'; did you mean 'unknown'",
    ),
    "abstaining beyond the classes": (
        lambda: Model("m", classes=["cat"], abstain=[1]),
        BadValueError,
        "model 'm': label in abstain must be an integer from 0 to 0, not 1",
    ),
    "classes as a string": (
        lambda: Model("m", classes="cat"),
        BadValueError,
        "classes must be a list of names",
    ),  # type: ignore[arg-type]
    "no instance": (
        lambda: Deployment("m", "a", instances=0),
        BadValueError,
        "deployment 'm@a': instances must be an integer from 1 to 1048576, not 0",
    ),
    "preferring more than fits": (
        lambda: Deployment("m", "a", max_batch=4, preferred_batch=(8,)),
        BadValueError,
        "deployment 'm@a': preferred_batch must be an integer from 1 to 4, not 8",
    ),
    "a number as law": (
        lambda: Deployment("m", "a", service=5),  # type: ignore[arg-type]
        BadValueError,
        r"deployment 'm@a': service must be a law such as coinfer.service.Constant\(2.0\), not 5",
    ),
    "measured batches": (
        lambda: Deployment("m", "a", max_batch=2, service=service.Measured()),
        BadValueError,
        "service law 'measured' needs max_batch = 1, not 2",
    ),
    "unknown tensor form": (
        lambda: Deployment("m", "a", tensors={"input": "i", "output": "o", "form": "logit"}),  # type: ignore[arg-type]
        UnknownNameError,
        "deployment 'm@a': tensors: there is no form 'logit'; did you mean 'logits'",
    ),
    "confidence of logits": (
        lambda: Deployment("m", "a", tensors={"input": "i", "output": "o", "form": "logits", "confidence": "c"}),  # type: ignore[arg-type]
        BadValueError,
        "confidence names a tensor if and only if form is 'label_confidence'",
    ),
    "no nodes": (lambda: network(nodes=[]), BadValueError, "at least one node"),
    "no deployments": (lambda: network(deployments=[]), BadValueError, "at least one deployment"),
    "a name as node": (lambda: network(nodes=["a"]), BadValueError, r"nodes\[0\] must be a Node, not 'a'"),
    "node twice": (lambda: network(nodes=[Node("a", 0)] * 2), BadValueError, "node 'a' occurs twice"),
    "model twice": (lambda: network(models=[Model("m")] * 2), BadValueError, "model 'm' occurs twice"),
    "deployment twice": (
        lambda: network(deployments=[Deployment("m", "a")] * 2),
        BadValueError,
        "deployment 'm@a' occurs twice",
    ),
    "link to nowhere": (
        lambda: network(nodes=[Node("edge", 0)], links=[Link(("edge", "egde"), delay_ms=1)]),
        UnknownNameError,
        "link 'edge' -- 'egde': there is no node 'egde'; did you mean 'edge'",
    ),
    "deployment nowhere": (
        lambda: network(deployments=[Deployment("m", "c")]),
        UnknownNameError,
        "deployment 'm@c': there is no node 'c'; known: 'a', 'b'",
    ),
    "deployment of an unknown model": (
        lambda: network(models=[Model("mm")]),
        UnknownNameError,
        "deployment 'm@a': there is no model 'm'; .*'mm'",
    ),
    "no ingress left": (
        lambda: network(nodes=[Node("a", 0, ingress=False)], links=[]),
        BadValueError,
        "no node is an ingress; leave out ingress = false",
    ),
    "unknown control": (
        lambda: chain(control="central"),
        BadValueError,
        "control must be 'path' or 'ingress'",
    ),
    "chain of nothing": (
        lambda: Network.chain({}, delay_ms=1),
        BadValueError,
        "tiers must map at least one node",
    ),
    "chain with too few prices": (
        lambda: chain(price_usd=[0]),
        BadValueError,
        "price_usd must have one value per deployment, 2 in all, not 1",
    ),
    "no way there": (
        lambda: network(links=[]).routes.hops("a", "b"),
        UnsupportedError,
        "node 'b' cannot be reached from 'a'",
    ),
    "one way only": (
        lambda: network(links=[Link(from_="a", to="b", delay_ms=1)]).routes.delay_ms("b", "a"),
        UnsupportedError,
        "node 'a' cannot be reached from 'b'",
    ),
    "nothing above": (
        lambda: path_of(network(), "b"),
        UnsupportedError,
        r"node 'b': no deployment can be reached from there in its tier \(1\) or above",
    ),
    "path from nowhere": (lambda: path_of(network(), "c"), UnknownNameError, "no node 'c'; known: 'a', 'b'"),
}

CASES = {
    f"{group}: {kind}": case
    for group, cases in {
        "output": MODEL_OUTPUTS,
        "predictions": PREDICTIONS,
        "trace": TRACES,
        "network": NETWORKS,
    }.items()
    for kind, case in cases.items()
}


@pytest.mark.parametrize(("make", "kind", "words"), CASES.values(), ids=CASES.keys())
def test_is_refused_with_the_place_and_what_is_allowed(
    make: Callable[[], Any], kind: type[CoinferError], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        make()
    assert isinstance(caught.value, {BadValueError: ValueError, UnknownNameError: KeyError}.get(kind, ValueError))
    assert not str(caught.value).startswith("'")  # KeyError would show the quoted form


# ---- network files -----------------------------------------------------------------------------------------

GOOD = """
control = "path"
[[node]]
name = "edge"
tier = 0
[[node]]
name = "cloud"
tier = 1
[[link]]
between = ["edge", "cloud"]
delay_ms = 10
[[deployment]]
model = "m"
node = "edge"
service = {law = "constant", mean_ms = 2}
"""


@pytest.mark.parametrize(
    ("old", "new", "kind", "words"),
    [
        (
            "tier = 0",
            "teir = 0",
            UnknownNameError,
            r", line 3: \[\[node\]\] 1 \(edge\): unknown key 'teir'; .*'tier'",
        ),
        ("tier = 1", "", BadValueError, r", line 6: \[\[node\]\] 2 \(cloud\): key 'tier' is missing"),
        ("tier = 1", "tier = -1", BadValueError, r", line 6: .*tier must be an integer .* not -1"),
        ("tier = 1", "tier = 2020-01-01", BadValueError, "tier must be an integer"),
        (
            'name = "cloud"',
            "name = 5",
            BadValueError,
            r", line 6: .*node name must be a non-empty string.* not 5",
        ),
        ("[[link]]", "[[lnik]]", UnknownNameError, "unknown key 'lnik'; did you mean 'link'"),
        ("[[link]]", "[link]", BadValueError, r"link must be an array of tables, written \[\[link\]\]"),
        (
            "delay_ms = 10",
            "delay = 10",
            UnknownNameError,
            r", line 9: \[\[link\]\] 1 \(edge, cloud\): .*'delay_ms'",
        ),
        ("delay_ms = 10", "delay_ms = nan", BadValueError, "delay_ms must be a finite number >= 0, not nan"),
        (
            "delay_ms = 10",
            'delay_ms = "10"',
            BadValueError,
            "delay_ms must be a finite number >= 0, not '10'",
        ),
        (
            "delay_ms = 10",
            "delay_ms = 10\njitter = 1",
            UnknownNameError,
            "'jitter'; did you mean 'jitter_ms'",
        ),
        ('"edge", "cloud"]', '"edge", "clod"]', UnknownNameError, "no node 'clod'; did you mean 'cloud'"),
        (
            'between = ["edge", "cloud"]',
            'from = "edge"',
            BadValueError,
            r"\[\[link\]\] 1 .*from = a and to = b",
        ),
        (
            '"constant"',
            '"constnat"',
            UnknownNameError,
            r", line 12: \[\[deployment\]\] 1 \(m@edge\): service: .*'constnat'; did you mean 'constant'",
        ),
        (
            "mean_ms = 2",
            "mean = 2",
            UnknownNameError,
            r"service \(constant\): unknown key 'mean'; did you mean 'mean_ms'",
        ),
        (
            "mean_ms = 2",
            "mean_ms = -2",
            BadValueError,
            "service: .*mean_ms must be a finite number >= 0, not -2",
        ),
        ('{law = "constant", mean_ms = 2}', "2", BadValueError, "service: must be a table such as"),
        ('"path"', '"paths"', BadValueError, "control must be 'path' or 'ingress', not 'paths'"),
        (
            'model = "m"',
            'model = "m"\ninstnces = 2',
            UnknownNameError,
            "'instnces'; did you mean 'instances'",
        ),
        ('"edge"\ntier', '"edge\ntier', BadFileError, "cannot be read as a network file .*line 4"),
        (GOOD, "", BadFileError, "the file is empty"),
        (GOOD, "# nothing\n", BadValueError, "at least one node"),
    ],
)
def test_a_network_file_is_refused_with_the_line_and_the_key(
    tmp_path: Path, old: str, new: str, kind: type[CoinferError], words: str
) -> None:
    path = tmp_path / "network.toml"
    assert GOOD.count(old) == 1
    path.write_text(GOOD)
    Network.open(path)
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(kind, match=words) as caught:
        Network.open(path)
    assert str(caught.value).startswith(str(path))


def test_binary_data_is_no_network(tmp_path: Path) -> None:
    (tmp_path / "n.toml").write_bytes(b"\xff\x00\xfe")
    with pytest.raises(BadFileError, match=r"n\.toml: cannot be read as a network file"):
        Network.open(tmp_path / "n.toml")


# ---- table files -------------------------------------------------------------------------------------------

PREDICTIONS_TABLE = Predictions({"m": ModelOutput(logits=np.ones((100, 3)))}, labels=np.zeros(100, int))
TRACE_TABLE = Trace(range(100), ["a"] * 100, [0] * 100)
TABLES: list[tuple[Any, str]] = [
    *((PREDICTIONS_TABLE, suffix) for suffix in ("parquet", "arrow", "feather", "npz")),
    *((TRACE_TABLE, suffix) for suffix in ("parquet", "arrow", "feather")),
]
table_ids = [f"{type(t).__name__.lower()}-{s}" for t, s in TABLES]


@pytest.mark.parametrize(("table", "suffix"), TABLES, ids=table_ids)
class TestTableFiles:
    def openers(self, table: Any) -> list[Callable[[Path], Any]]:
        kind = type(table)
        return [kind.open] if kind is Predictions else [kind.open, lambda path: list(kind.batches(path))]

    def test_a_missing_file_and_a_folder(self, tmp_path: Path, table: Any, suffix: str) -> None:
        for opener in self.openers(table):
            with pytest.raises(BadFileError, match=rf"absent\.{suffix}: no such file; expected"):
                opener(tmp_path / f"absent.{suffix}")
            folder = tmp_path / f"folder.{suffix}"
            folder.mkdir(exist_ok=True)
            with pytest.raises(BadFileError, match=rf"folder\.{suffix}: is a folder; expected"):
                opener(folder)

    def test_a_file_cut_anywhere(self, tmp_path: Path, table: Any, suffix: str) -> None:
        path = tmp_path / f"cut.{suffix}"
        table.save(path)
        whole = path.read_bytes()
        for opener in self.openers(table):
            for length in {0, 1, 4, 100, len(whole) // 2, len(whole) - 100, len(whole) - 8, len(whole) - 1}:
                path.write_bytes(whole[:length])
                with pytest.raises(BadFileError, match=rf"cut\.{suffix}: (the file is empty|cannot be read as)"):
                    opener(path)

    def test_flipped_bytes_raise_or_read_but_never_crash(self, tmp_path: Path, table: Any, suffix: str) -> None:
        table.save(tmp_path / f"whole.{suffix}")
        whole = np.fromfile(tmp_path / f"whole.{suffix}", np.uint8)
        random = np.random.default_rng(0)
        for trial in range(200):
            flipped = whole.copy()
            flipped[random.integers(len(whole), size=3)] = random.integers(256, size=3)
            path = tmp_path / f"{trial}.{suffix}"
            flipped.tofile(path)
            for opener in self.openers(table):
                with contextlib.suppress(CoinferError):
                    repr(opener(path))

    def test_a_file_of_something_else(self, tmp_path: Path, table: Any, suffix: str) -> None:
        path = tmp_path / f"other.{suffix}"
        path.write_bytes(b"%PDF-1.7\n" * 100)
        for opener in self.openers(table):
            with pytest.raises(BadFileError, match=rf"other\.{suffix}: cannot be read as .*\("):
                opener(path)

    def test_a_wrong_suffix(self, tmp_path: Path, table: Any, suffix: str) -> None:
        for call in (table.save, *self.openers(table)):
            with pytest.raises(BadValueError, match=rf"the suffix says the format .*\.{suffix}.*not '.xlsx'"):
                call(tmp_path / "table.xlsx")

    def test_an_absent_folder(self, tmp_path: Path, table: Any, suffix: str) -> None:
        with pytest.raises(BadFileError, match=rf"t\.{suffix}: cannot be written: there is no folder"):
            table.save(tmp_path / "absent" / f"t.{suffix}")

    def test_a_failing_writer_leaves_the_old_file(
        self, tmp_path: Path, table: Any, suffix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / f"t.{suffix}"
        table.save(path)
        before = path.read_bytes()

        def fail(*_: Any, **__: Any) -> None:
            # Half a file, then a full disk, wherever the writer was going to write.
            temporary = next((p for p in tmp_path.iterdir() if p != path), None)
            if temporary is not None:
                temporary.write_bytes(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(pq, "write_table", fail)
        monkeypatch.setattr(pa.ipc, "new_file", fail)
        monkeypatch.setattr(np, "savez", fail)
        with pytest.raises(BadFileError, match=rf"t\.{suffix}: cannot be written: No space left"):
            table.save(path)
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_an_interrupted_network_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "n.toml"
    NET.save(path)
    before = path.read_bytes()

    def interrupt(self: Path, *_: Any, **__: Any) -> None:
        with self.open("wb") as file:
            file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", interrupt)
    with pytest.raises(KeyboardInterrupt):
        chain(delay_ms=99).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_one_kind_of_table_is_not_another(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    PREDICTIONS_TABLE.save(path)
    with pytest.raises(BadFileError, match=r"holds 'predictions', not 'trace'; open it with coinfer.Predictions.open"):
        Trace.open(path)
    TRACE_TABLE.save(path)
    with pytest.raises(BadFileError, match=r"holds 'trace', not 'predictions'; open it with coinfer.Trace.open"):
        Predictions.open(path)


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    table = TRACE_TABLE._table()
    metadata = {b"coinfer": json.dumps({"format": "trace", "version": 2, "nodes": ["a"]}).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "t.parquet")
    with pytest.raises(BadFileError, match=r"t\.parquet: the file has format version 2, this coinfer reads version 1"):
        Trace.open(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("columns", "kind", "words"),
    [
        (
            {"ingress": ["a"], "sample": [0]},
            BadFileError,
            "column 'arrival_ns' is missing; .* this file has: ingress",
        ),
        (
            {"arrival_ns": ["x"], "ingress": ["a"], "sample": [0]},
            BadValueError,
            "arrival_ns must be integers",
        ),
        ({"arrival_ns": [None], "ingress": ["a"], "sample": [0]}, BadValueError, "arrival_ns"),
        (
            {"arrival_ns": [0, None], "ingress": ["a", "a"], "sample": [0, 0]},
            BadValueError,
            "arrival_ns: row 1 is null",
        ),
        (
            {"arrival_ns": [0], "ingress": ["a"], "sample": [0], "deadline_ms": [1.0]},
            UnknownNameError,
            "column 'deadline_ms' is not part of a trace; did you mean 'deadline_us'",
        ),
        ({"arrival_ns": [0], "ingress": ["a"], "sample": [-1]}, BadValueError, "sample: row 0 is -1"),
    ],
)
def test_a_foreign_trace_is_refused_with_the_file_and_the_column(
    tmp_path: Path, columns: dict[str, list[Any]], kind: type[CoinferError], words: str
) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table(columns), path)
    for opener in (Trace.open, lambda p: list(Trace.batches(p))):
        with pytest.raises(kind, match=words) as caught:
            opener(path)
        assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("arrays", "kind", "words"),
    [
        ({"m.logits": np.ones(3)}, BadValueError, r"model 'm': logits must have shape \(samples, classes\)"),
        ({"m.label": [0], "m.logits": [[1.0]]}, BadValueError, "model 'm': give exactly one of"),
        ({"m.confidence": [0.5]}, BadValueError, "model 'm': give exactly one of"),
        ({"m.label": [0], "n.label": [0, 1]}, BadValueError, "'m' has 1 rows, 'n' has 2"),
        (
            {"m.label": [0], "labels": [0], "label": [0]},
            BadValueError,
            "columns 'labels' and 'label'; only one",
        ),
        ({"m.label": np.array([None], object)}, BadFileError, "cannot be read as predictions"),
        (
            {"stuff": [1]},
            UnknownNameError,
            "column 'stuff' is not part of predictions; expected MODEL/logits",
        ),
    ],
)
def test_a_foreign_archive_is_refused_with_the_file_and_the_model(
    tmp_path: Path, arrays: dict[str, Any], kind: type[CoinferError], words: str
) -> None:
    path = tmp_path / "p.npz"
    np.savez(path, allow_pickle=True, **arrays)
    with pytest.raises(kind, match=words) as caught:
        Predictions.open(path)
    assert str(caught.value).startswith(str(path))


def test_a_csv_with_a_ragged_line(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("m.label,label\n0,1\n0\n")
    with pytest.raises(BadFileError, match=r"p\.csv: cannot be read as predictions \(a CSV file\)"):
        Predictions.open(tmp_path / "p.csv")
