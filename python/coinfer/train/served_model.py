"""One exit of an early-exit network, served by Triton's Python backend; needs NumPy and nothing else.

Written by `coinfer.train.export`. `layers.json` lists the layers of block and head, `weights.npz` holds their arrays.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np


def load(folder: Any) -> Any:
    """Return (block, head): lists of (name, options, arrays)."""
    folder = Path(folder)
    plan = json.loads((folder / "layers.json").read_text())
    with np.load(folder / "weights.npz") as held:
        arrays = {name: held[name] for name in held.files}
    return tuple(
        [(op["op"], op, [arrays[name] for name in op["arrays"]]) for op in plan[part]] for part in ("block", "head")
    )


def windows(x: Any, size: Any, stride: Any, padding: Any, fill: float) -> Any:
    """Return all windows of (n, c, h, w), shape (n, c, h', w', kh, kw)."""
    (kh, kw), (sh, sw), (ph, pw) = size, stride, padding
    if ph or pw:
        x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(x, (kh, kw), axis=(2, 3))[:, :, ::sh, ::sw]


def conv2d(x: Any, weight: Any, bias: Any, stride: Any, padding: Any) -> Any:
    """Convolve as one matrix product."""
    seen = windows(x, weight.shape[2:], stride, padding, 0.0)
    n, c, h, w, kh, kw = seen.shape
    rows = seen.transpose(0, 2, 3, 1, 4, 5).reshape(n * h * w, c * kh * kw)
    out = rows @ weight.reshape(len(weight), -1).T
    if bias is not None:
        out += bias
    return np.ascontiguousarray(out.reshape(n, h, w, len(weight)).transpose(0, 3, 1, 2))


def run(layers: Any, x: Any) -> Any:
    """Apply layers to a batch."""
    for op, options, arrays in layers:
        if op == "linear":
            x = x @ arrays[0].T
            if len(arrays) > 1:
                x = x + arrays[1]
        elif op == "conv2d":
            x = conv2d(x, arrays[0], arrays[1] if len(arrays) > 1 else None, options["stride"], options["padding"])
        elif op == "maxpool2d":
            x = windows(x, options["size"], options["stride"], options["padding"], -np.inf).max(axis=(4, 5))
        elif op == "avgpool2d":
            x = windows(x, options["size"], options["stride"], options["padding"], 0.0).mean(axis=(4, 5))
        elif op == "meanpool":
            x = x.mean(axis=(2, 3), keepdims=True)
        elif op == "scale":  # batch normalisation with fixed statistics
            shape = (1, -1) + (1,) * (x.ndim - 2)
            x = x * arrays[0].reshape(shape) + arrays[1].reshape(shape)
        elif op == "flatten":
            x = x.reshape(len(x), -1)
        elif op == "relu":
            x = np.maximum(x, 0.0)
        elif op == "leaky_relu":
            x = np.where(x > 0, x, x * np.float32(options["slope"]))
        elif op == "tanh":
            x = np.tanh(x)
        elif op == "sigmoid":
            x = 1.0 / (1.0 + np.exp(-x))
        else:
            msg = "unknown layer " + repr(op)
            raise ValueError(msg)
    return np.ascontiguousarray(x, np.float32)


class TritonPythonModel:
    """What Triton calls."""

    def initialize(self, args: Any) -> None:
        """Read weights, once."""
        config = json.loads(args["model_config"])
        self.input = config["input"][0]["name"]
        self.sends = any(output["name"] == "FEATURES" for output in config["output"])
        here = Path(args["model_repository"]) / str(args["model_version"])
        self.block, self.head = load(here)

    def execute(self, requests: Any) -> Any:
        """Answer a batch of requests."""
        import triton_python_backend_utils as triton

        inputs = [triton.get_input_tensor_by_name(request, self.input).as_numpy() for request in requests]
        features = run(self.block, np.concatenate(inputs).astype(np.float32, copy=False))
        logits = run(self.head, features)
        responses, start = [], 0
        for given in inputs:
            rows = slice(start, start + len(given))
            start += len(given)
            tensors = [triton.Tensor("LOGITS", np.ascontiguousarray(logits[rows]))]
            if self.sends:
                tensors.append(triton.Tensor("FEATURES", np.ascontiguousarray(features[rows])))
            responses.append(triton.InferenceResponse(output_tensors=tensors))
        return responses
