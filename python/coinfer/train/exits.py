"""Early-exit networks: a chain of blocks with a classifier (a head) after each, one exit per tier.

Exit e computes blocks 1 to e and head e. A device that stops at exit 1 never runs the rest; one that goes on sends the
output of its block up, and the next tier continues from there. So the exits share their first blocks, and what is
good for one may be bad for another: that is what training has to settle (`coinfer.train.fitting`).

Any list of torch modules will do. `dense` and `convolutional` build two small ones.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer._checks import check_integer, check_list, check_name, check_unique
from coinfer.errors import BadValueError
from coinfer.train._torch import one_thread, torch

if TYPE_CHECKING:
    from coinfer.predictions import Predictions
    from coinfer.train.costs import ExitCost

__all__ = ["EarlyExit", "convolutional", "dense"]


class EarlyExit(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
    """A network with an exit after each block.

    Parameters
    ----------
    blocks : sequence of torch.nn.Module
        Block e takes the output of block e - 1; the first takes the input.
    heads : sequence of torch.nn.Module
        Head e turns the output of block e into logits, shape (n, C); as many heads as blocks.
    input_shape : sequence of int
        Shape of one sample, without the batch.
    names : sequence of str, optional
        Names of the exits, by which they stand in `Predictions` and `Network`. Default: ``exit-1``, ``exit-2``, ...
    classes : sequence of str, optional
        Names of the C classes.

    Attributes
    ----------
    names, input_shape, classes
        As given.
    features : tuple of tuple of int
        Shape of the output of each block, for one sample.

    Raises
    ------
    BadValueError
        If blocks and heads do not match: the message names the one that does not fit, found by a trial run.

    Examples
    --------
    >>> import torch
    >>> net = EarlyExit(
    ...     [torch.nn.Linear(4, 8), torch.nn.Linear(8, 8)],
    ...     [torch.nn.Linear(8, 3), torch.nn.Linear(8, 3)],
    ...     input_shape=[4],
    ... )
    >>> [tuple(logits.shape) for logits in net(torch.zeros(5, 4))]
    [(5, 3), (5, 3)]
    """

    def __init__(
        self,
        blocks: Sequence[Any],
        heads: Sequence[Any],
        *,
        input_shape: Sequence[int],
        names: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        blocks, heads = check_list(blocks, "blocks", "torch modules"), check_list(heads, "heads", "torch modules")
        if not blocks or len(blocks) != len(heads):
            msg = (
                "an early-exit network needs one head per block and at least one, "
                f"not {len(blocks)} blocks and {len(heads)} heads"
            )
            raise BadValueError(msg)
        for what, modules in (("block", blocks), ("head", heads)):
            for position, module in enumerate(modules, 1):
                if not isinstance(module, torch.nn.Module):
                    msg = f"{what} {position} must be a torch.nn.Module, not {type(module).__name__}"
                    raise BadValueError(msg)
        self.names = tuple(
            check_name(n, "exit name", forbidden="@")
            for n in (names if names is not None else (f"exit-{e}" for e in range(1, len(blocks) + 1)))
        )
        check_unique(self.names, "exit")
        if len(self.names) != len(blocks):
            msg = f"{len(self.names)} names given for {len(blocks)} exits"
            raise BadValueError(msg)
        self.input_shape = tuple(
            check_integer(side, "input_shape: each side", at_least=1)
            for side in check_list(input_shape, "input_shape", "integers")
        )
        self.blocks = torch.nn.ModuleList(blocks)
        self.heads = torch.nn.ModuleList(heads)
        self.features, self.class_count = self._try()
        self.classes = None if classes is None else tuple(check_list(classes, "classes", "names"))
        if self.classes is not None and len(self.classes) != self.class_count:
            msg = f"classes has {len(self.classes)} names, but the heads give {self.class_count} logits"
            raise BadValueError(msg)

    def _try(self) -> tuple[tuple[tuple[int, ...], ...], int]:
        """Run two samples of zeros through everything and return the shapes that came out."""
        training = self.training
        self.eval()
        shapes, count = [], 0
        with torch.no_grad():
            x = torch.zeros((2, *self.input_shape))
            for name, block, head in zip(self.names, self.blocks, self.heads, strict=True):
                x = _tried(block, x, f"exit {name!r}: its block")
                logits = _tried(head, x, f"exit {name!r}: its head")
                if logits.ndim != 2 or logits.shape[0] != 2 or (count and logits.shape[1] != count):
                    allowed = f"(n, {count})" if count else "(n, classes)"
                    msg = (
                        f"exit {name!r}: its head must give logits of shape {allowed}, "
                        f"not {tuple(logits.shape)} for n = 2"
                    )
                    raise BadValueError(msg)
                count = int(logits.shape[1])
                shapes.append(tuple(int(side) for side in x.shape[1:]))
        self.train(training)
        return tuple(shapes), count

    def __len__(self) -> int:
        """Give the number of exits."""
        return len(self.blocks)

    def forward(self, x: Any, depth: int | None = None) -> list[Any]:
        """Return the logits of exits 1 to `depth` (default: all), each of shape (n, C)."""
        outputs = []
        for e in range(len(self.blocks) if depth is None else depth):
            x = self.blocks[e](x)
            outputs.append(self.heads[e](x))
        return outputs

    def clone(self) -> EarlyExit:
        """Return an independent copy with the same weights."""
        return copy.deepcopy(self)

    def costs(self, *, repeats: int = 30) -> tuple[ExitCost, ...]:
        """Measure what each exit costs; see `coinfer.train.costs.measure`."""
        from coinfer.train.costs import measure

        return measure(self, repeats=repeats)

    def logits(self, inputs: Any, *, batch: int = 1024, depth: int | None = None) -> list[np.ndarray[Any, Any]]:
        """Return the logits of every exit for every sample, each float32 of shape (N, C), in evaluation mode."""
        training = self.training
        self.eval()
        where = next(self.parameters()).device
        parts: list[list[Any]] = []
        with torch.no_grad():
            for start in range(0, len(inputs), batch):
                x = torch.as_tensor(inputs[start : start + batch], dtype=torch.float32, device=where)
                parts.append([z.cpu() for z in self(x, depth)])
        self.train(training)
        if not parts:
            return [np.empty((0, self.class_count), np.float32)] * (depth or len(self))
        return [torch.cat([part[e] for part in parts]).numpy() for e in range(len(parts[0]))]

    def predictions(
        self, inputs: Any, labels: Any = None, *, batch: int = 1024, measure_service: bool = False
    ) -> Predictions:
        """Export what every exit says about every sample.

        Parameters
        ----------
        inputs : array-like of float, shape (N, ...)
            Samples of `input_shape`.
        labels : array-like of int, shape (N,), optional
            True labels.
        batch : int
            Samples computed together.
        measure_service : bool
            Also run every sample alone, exit by exit, on one thread, and keep the time of each: what a request costs at
            the tier of the exit, which continues from the features that the tier below sends.

        Returns
        -------
        Predictions
            One model per exit, by its name, with logits.
        """
        from coinfer.predictions import ModelOutput, Predictions

        inputs = check_inputs(inputs, self.input_shape)
        tables = self.logits(inputs, batch=batch)
        times: list[Any] = [None] * len(self)
        if measure_service:
            from coinfer.train.costs import time_each

            with one_thread():
                times = time_each(self, inputs)
        outputs = {
            name: ModelOutput(logits=table, classes=self.classes, service_us=time)
            for name, table, time in zip(self.names, tables, times, strict=True)
        }
        return Predictions(outputs, labels=labels)


def _tried(module: Any, x: Any, what: str) -> Any:
    try:
        return module(x)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = str(error).splitlines()[0]
        msg = f"{what} cannot take what it gets, samples of shape {tuple(x.shape[1:])}: {reason}"
        raise BadValueError(msg) from error


def check_inputs(inputs: Any, shape: tuple[int, ...]) -> Any:
    """Return samples as a float32 array, checked against the shape that the network takes."""
    array = inputs if isinstance(inputs, np.ndarray | torch.Tensor) else np.asarray(inputs)
    if tuple(array.shape[1:]) != shape:
        msg = f"inputs must have shape (N, {', '.join(map(str, shape))}), not {tuple(array.shape)}"
        raise BadValueError(msg)
    if isinstance(array, torch.Tensor):
        return array.detach().cpu().numpy().astype(np.float32, copy=False)
    return np.ascontiguousarray(array, np.float32)


def dense(
    inputs: int,
    classes: int,
    widths: Sequence[int] = (16, 32, 64),
    *,
    seed: int = 0,
    names: Sequence[str] | None = None,
) -> EarlyExit:
    """Build a fully connected network: each block is a linear layer with ReLU, each head a linear layer.

    Parameters
    ----------
    inputs, classes : int
        Numbers in and out.
    widths : sequence of int
        Units of each block; one exit each.
    seed : int
        For the initial weights.
    names : sequence of str, optional
        Of the exits.

    Examples
    --------
    >>> net = dense(64, 10)
    >>> [cost.multiply_adds for cost in net.costs(repeats=1)]
    [1184, 1856, 4224]
    """
    layers = list(widths)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        blocks = [
            torch.nn.Sequential(torch.nn.Linear(a, b), torch.nn.ReLU())
            for a, b in zip([inputs, *layers[:-1]], layers, strict=True)
        ]
        heads = [torch.nn.Linear(width, classes) for width in layers]
    return EarlyExit(blocks, heads, input_shape=[inputs], names=names)


def convolutional(
    side: int,
    classes: int,
    channels: Sequence[int] = (4, 8, 16),
    *,
    colours: int = 1,
    seed: int = 0,
    names: Sequence[str] | None = None,
) -> EarlyExit:
    """Build a convolutional network for square images: each block halves the side and has more channels.

    Parameters
    ----------
    side, classes, colours : int
        Images of shape (colours, side, side), and numbers out.
    channels : sequence of int
        Channels of each block; one exit each. The side must be divisible by two that often.
    seed : int
        For the initial weights.
    names : sequence of str, optional
        Of the exits.
    """
    if side % 2 ** len(channels):
        msg = f"side must be divisible by {2 ** len(channels)}, so that {len(channels)} blocks can halve it, not {side}"
        raise BadValueError(msg)
    layers = list(channels)
    nn = torch.nn
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        blocks = [
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
            for a, b in zip([colours, *layers[:-1]], layers, strict=True)
        ]
        heads = [
            nn.Sequential(nn.Flatten(), nn.Linear(width * (side >> e) ** 2, classes))
            for e, width in enumerate(layers, 1)
        ]
    return EarlyExit(blocks, heads, input_shape=[colours, side, side], names=names)
