"""Triton model repositories, one per tier, split at the exits.

Exit e becomes a model of Triton's Python backend that takes the input, or the features of the exit below where those
are smaller, and gives ``LOGITS``, and ``FEATURES`` where the exit above takes them. The served code needs NumPy and not
torch, so that a device can run it: the layers are written out as a list of operations (`served_model`), and a layer
that has no counterpart there is an error that names it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer._checks import check_integer
from coinfer._files import replacing
from coinfer.errors import UnsupportedError
from coinfer.network import Network, Tensors
from coinfer.train._torch import torch
from coinfer.train.placing import sends_features

if TYPE_CHECKING:
    from os import PathLike

    from coinfer.train.exits import EarlyExit
    from coinfer.train.placing import Split

__all__ = ["export"]

Layer = tuple[dict[str, Any], list[Any]]


def export(
    model: EarlyExit,
    folder: str | PathLike[str],
    *,
    split: Split = "smaller",
    network: Network | None = None,
    max_batch: int = 64,
    instances: int = 1,
) -> dict[str, Path]:
    """Write one Triton model repository per exit.

    Parameters
    ----------
    model : EarlyExit
        Trained.
    folder : path
        Gets ``tier-1/EXIT/config.pbtxt``, ``tier-1/EXIT/1/model.py``, and so on; ``tier-1`` is what
        ``tritonserver --model-repository`` takes at the nodes of the lowest tier. One server may load several.
    split : {"smaller", "always", "never"}
        Whether an exit takes the features of the one below instead of the input; as for `coinfer.train.deploy`. With
        ``never`` every exit takes the input and computes all blocks, for routers that send one payload to all.
    network : Network, optional
        As deployed; a copy with the tensor names of its deployments is written to ``network.toml``.
    max_batch, instances : int
        For Triton's dynamic batching.

    Returns
    -------
    dict of str to Path
        The repository of each exit.

    Raises
    ------
    UnsupportedError
        If a layer has no counterpart without torch; the message names it.
    """
    target = Path(folder)
    check_integer(max_batch, "max_batch", at_least=1)
    check_integer(instances, "instances", at_least=1)
    costs = model.costs(repeats=1)
    takes = [sends_features(costs, e, split) for e in range(len(model))]
    code = resources.files("coinfer.train").joinpath("served_model.py").read_text("utf-8")
    written = {}
    for e, name in enumerate(model.names):
        first = e if takes[e] or e == 0 else 0
        block = [layer for b in range(first, e + 1) for layer in _lower(model.blocks[b], f"block {b + 1}")]
        head = _lower(model.heads[e], f"head {e + 1}")
        repository = target / f"tier-{e + 1}"
        version = repository / name / "1"
        version.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {}
        plan = {part: _numbered(layers, arrays) for part, layers in (("block", block), ("head", head))}
        with replacing(version / "weights.npz") as part, part.open("wb") as file:
            np.savez(file, **arrays)
        sends = e + 1 < len(model) and takes[e + 1]
        shape = model.features[e - 1] if takes[e] else model.input_shape
        config = _config(name, "FEATURES" if takes[e] else "INPUT", shape, model, e, sends, max_batch, instances)
        for path, text in (
            (version / "layers.json", json.dumps(plan, indent=1)),
            (version / "model.py", code),
            (repository / name / "config.pbtxt", config),
        ):
            with replacing(path) as part:
                part.write_text(text, encoding="utf-8")
        written[name] = repository
    if network is not None:
        _described(network, model, takes).save(target / "network.toml")
    return written


def _config(
    name: str, takes: str, shape: tuple[int, ...], model: EarlyExit, e: int, sends: bool, max_batch: int, instances: int
) -> str:
    def tensor(name: str, dims: tuple[int, ...]) -> str:
        return f'{{ name: "{name}" data_type: TYPE_FP32 dims: [ {", ".join(map(str, dims))} ] }}'

    outputs = [tensor("LOGITS", (model.class_count,))]
    if sends:
        outputs.append(tensor("FEATURES", model.features[e]))
    return (
        f'name: "{name}"\nbackend: "python"\nmax_batch_size: {max_batch}\n'
        f"input [ {tensor(takes, shape)} ]\noutput [ {', '.join(outputs)} ]\n"
        f"instance_group [ {{ kind: KIND_CPU count: {instances} }} ]\ndynamic_batching {{ }}\n"
    )


def _described(network: Network, model: EarlyExit, takes: list[bool]) -> Network:
    """Return the network with the tensors of every exit named."""
    names = {
        name: Tensors("FEATURES" if takes[e] else "INPUT", "LOGITS", "logits") for e, name in enumerate(model.names)
    }
    return Network(
        network.nodes,
        network.links,
        network.models,
        tuple(replace(d, tensors=names.get(d.model, d.tensors)) for d in network.deployments),
        control=network.control,
    )


def _numbered(layers: list[Layer], arrays: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for options, held in layers:
        names = []
        for array in held:
            names.append(f"a{len(arrays)}")
            arrays[names[-1]] = np.ascontiguousarray(array.detach().cpu().numpy(), np.float32)
        found.append({**options, "arrays": names})
    return found


def _pair(value: Any) -> list[int]:
    return [int(v) for v in value] if isinstance(value, tuple | list) else [int(value)] * 2


def _lower(module: Any, where: str) -> list[Layer]:
    """Write a module out as operations of `served_model`."""
    nn = torch.nn
    if isinstance(module, nn.Sequential):
        return [layer for i, child in enumerate(module) for layer in _lower(child, f"{where}, layer {i + 1}")]
    if isinstance(module, nn.Identity | nn.Dropout | nn.Dropout2d):
        return []
    if isinstance(module, nn.Linear):
        return [({"op": "linear"}, [p for p in (module.weight, module.bias) if p is not None])]
    if isinstance(module, nn.Conv2d):
        plain = module.groups == 1 and _pair(module.dilation) == [1, 1] and module.padding_mode == "zeros"
        if plain and not isinstance(module.padding, str):
            options = {"op": "conv2d", "stride": _pair(module.stride), "padding": _pair(module.padding)}
            return [(options, [p for p in (module.weight, module.bias) if p is not None])]
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d) and not module.ceil_mode:
        kind = "maxpool2d" if isinstance(module, nn.MaxPool2d) else "avgpool2d"
        stride = _pair(module.stride if module.stride is not None else module.kernel_size)
        padding = _pair(module.padding)
        if _pair(getattr(module, "dilation", 1)) == [1, 1] and (kind == "maxpool2d" or padding == [0, 0]):
            return [({"op": kind, "size": _pair(module.kernel_size), "stride": stride, "padding": padding}, [])]
    if isinstance(module, nn.AdaptiveAvgPool2d) and _pair(module.output_size) == [1, 1]:
        return [({"op": "meanpool"}, [])]
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is not None:
        scale = (module.running_var + module.eps).rsqrt()
        scale = scale if module.weight is None else scale * module.weight
        offset = -module.running_mean * scale
        return [({"op": "scale"}, [scale, offset if module.bias is None else offset + module.bias])]
    if isinstance(module, nn.Flatten) and module.start_dim == 1 and module.end_dim == -1:
        return [({"op": "flatten"}, [])]
    simple = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid"}
    if type(module) in simple:
        return [({"op": simple[type(module)]}, [])]
    if isinstance(module, nn.LeakyReLU):
        return [({"op": "leaky_relu", "slope": module.negative_slope}, [])]
    msg = (
        f"{where}: {module} has no counterpart in the exported model, which runs without torch; known are Linear, "
        "Conv2d (one group, no dilation), MaxPool2d, AvgPool2d, AdaptiveAvgPool2d(1), BatchNorm, Flatten, ReLU, "
        "LeakyReLU, Tanh, Sigmoid, Dropout and Sequential"
    )
    raise UnsupportedError(msg)
