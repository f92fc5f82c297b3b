"""What an exit costs, computed from the network itself and not typed in.

Multiply-adds are counted by torch's dispatcher while one sample runs through (matrix products, convolutions and
attention, whatever module they hide in; element-wise work is not counted), parameters by walking the modules, times by
hooks around every block and head.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer.train._torch import one_thread, torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer.train.exits import EarlyExit

__all__ = ["ExitCost", "measure", "time_each"]


@dataclass(frozen=True, slots=True)
class ExitCost:
    """The cost of one exit.

    Attributes
    ----------
    name : str
        The exit.
    parameters, multiply_adds : int
        From the input to this exit: blocks 1 to e and head e.
    own_parameters, own_multiply_adds : int
        What the exit adds to the features that come from below: block e and head e.
    own_time_us : float
        Median time of block e and head e for one sample, microseconds, one thread, on this machine.
    input_kb : float
        Size of one sample, float32, kilobytes.
    features_kb : float
        Size of the output of block e, which the next tier continues from.
    """

    name: str
    parameters: int
    multiply_adds: int
    own_parameters: int
    own_multiply_adds: int
    own_time_us: float
    input_kb: float
    features_kb: float


def measure(model: EarlyExit, *, repeats: int = 30) -> tuple[ExitCost, ...]:
    """Measure every exit with one sample of zeros.

    Parameters
    ----------
    model : EarlyExit
        The network.
    repeats : int
        Timed runs, after one that is not counted; the median is kept.
    """
    where = next(model.parameters()).device
    training = model.training
    model.eval()
    x = torch.zeros((1, *model.input_shape), device=where)
    blocks, heads = [], []
    with torch.no_grad():
        for block, head in zip(model.blocks, model.heads, strict=True):
            counted, features = _multiply_adds(block, x)
            blocks.append(counted)
            heads.append(_multiply_adds(head, features)[0])
            x = features
        with one_thread():
            times = np.median(np.stack([_hooked(model, where) for _ in range(repeats + 1)][1:]), axis=0)
    model.train(training)
    sizes = [sum(p.numel() for p in block.parameters()) for block in model.blocks]
    ends = [sum(p.numel() for p in head.parameters()) for head in model.heads]
    return tuple(
        ExitCost(
            name=name,
            parameters=sum(sizes[: e + 1]) + ends[e],
            multiply_adds=sum(blocks[: e + 1]) + heads[e],
            own_parameters=sizes[e] + ends[e],
            own_multiply_adds=blocks[e] + heads[e],
            own_time_us=float(times[e]),
            input_kb=4 * math.prod(model.input_shape) / 1e3,
            features_kb=4 * math.prod(model.features[e]) / 1e3,
        )
        for e, name in enumerate(model.names)
    )


def _multiply_adds(module: Any, x: Any) -> tuple[int, Any]:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        output = module(x)
    return counter.get_total_flops() // 2, output


def _hooked(model: EarlyExit, where: Any) -> NDArray[np.float64]:
    """Time one pass by hooks on every block and head; return microseconds per exit."""
    spent = np.zeros(len(model))
    started: dict[int, int] = {}
    handles = []
    for modules in (model.blocks, model.heads):
        for e, module in enumerate(modules):

            def before(module: Any, _: Any) -> None:
                started[id(module)] = time.perf_counter_ns()

            def after(module: Any, _: Any, __: Any, e: int = e) -> None:
                if where.type == "cuda":
                    torch.cuda.synchronize(where)
                spent[e] += (time.perf_counter_ns() - started[id(module)]) / 1e3

            handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        model(torch.zeros((1, *model.input_shape), device=where))
    finally:
        for handle in handles:
            handle.remove()
    return spent


def time_each(model: EarlyExit, inputs: Any) -> list[NDArray[np.float32]]:
    """Run every sample alone and return, per exit, the microseconds of its block and head."""
    where = next(model.parameters()).device
    times = [np.empty(len(inputs), np.float32) for _ in model.names]
    training = model.training
    model.eval()
    with torch.no_grad():
        for row in range(len(inputs)):
            x = torch.as_tensor(inputs[row : row + 1], device=where)
            for e, (block, head) in enumerate(zip(model.blocks, model.heads, strict=True)):
                start = time.perf_counter_ns()
                x = block(x)
                head(x)
                if where.type == "cuda":
                    torch.cuda.synchronize(where)
                times[e][row] = (time.perf_counter_ns() - start) / 1e3
    model.train(training)
    return times
