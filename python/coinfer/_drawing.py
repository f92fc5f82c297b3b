"""Draws for traces: when requests arrive, where they enter, and which samples they are about.

Every purpose has its own Philox stream, so that one kind of draw does not move another: traces of one seed share
their arrivals whatever their nodes and samples. The plain draws, of which a trace of a billion requests takes three
billion, are made by the engine (`coinfer._core.drawing`); they are the numbers that NumPy has for the seed. Skewed
samples are drawn by one uniform number per request, in request order, from shares that may differ per ingress.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from coinfer._arrays import as_array
from coinfer._checks import check_integer, check_name, check_number, check_unique
from coinfer._core import drawing
from coinfer.errors import BadValueError, UnknownNameError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer.network import Network

__all__ = [
    "arrival_draws",
    "check_nodes",
    "draw_samples",
    "entry_nodes",
    "generator",
    "node_draws",
    "node_names",
    "pick",
    "sample_draws",
]

_CHUNK: Final = 1 << 16  # draws made together: their temporaries stay in the second-level cache

_PURPOSES: Final = ("arrivals", "ingress", "samples", "ranking")


def generator(seed: int, purpose: str, *more: int) -> np.random.Generator:
    """Return the generator of one purpose, independent of the others."""
    seed = check_integer(seed, "seed", at_most=2**63 - 1)
    key = (_PURPOSES.index(purpose), *more)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))


def entry_nodes(network: Network | None, ingress: Any) -> tuple[tuple[str, ...], NDArray[np.float64] | None]:
    """Return the nodes where requests enter and their weights, None if all are alike."""
    if ingress is None:
        if network is None:
            msg = "give ingress= (a node, a list, or weights), or network= to use its ingress nodes"
            raise BadValueError(msg)
        return network.ingress, None
    weights = None
    if isinstance(ingress, Mapping):
        values = [check_number(weight, f"ingress: weight of {name!r}") for name, weight in ingress.items()]
        weights = np.array(values)
        if not weights.any():
            msg = "ingress: weights must not all be zero"
            raise BadValueError(msg)
    nodes = node_names([ingress] if isinstance(ingress, str) else list(ingress))
    if network is not None:
        check_nodes(nodes, network, "ingress")
    return nodes, weights


def check_nodes(nodes: Sequence[str], network: Network, what: str) -> None:
    known = {node.name for node in network.nodes}
    for name in nodes:
        if name not in known:
            msg = f"{what}: the network has no node {name!r}; {nearest(name, sorted(known))}"
            raise UnknownNameError(msg)


def pick(weights: NDArray[np.float64], uniform: NDArray[np.float64], what: str) -> NDArray[np.int32]:
    """Return for each uniform number the position whose share of the weights it falls into."""
    if not weights.any():
        msg = f"{what} must not all be zero"
        raise BadValueError(msg)
    ends = np.cumsum(weights / weights.max())
    return drawing.pick(ends / ends[-1], uniform)


def arrival_draws(seed: int, gap_ns: float) -> drawing.Arrivals:
    """Return what draws the next so many arrivals of a Poisson process."""
    return drawing.Arrivals(_key(seed, "arrivals"), gap_ns)


def node_draws(seed: int, count: int, weights: NDArray[np.float64] | None) -> Callable[[int], NDArray[np.int32]]:
    """Return what draws the next so many of `count` nodes."""
    if weights is None or count == 1:
        return drawing.Integers(_key(seed, "ingress"), count).draw
    random = drawing.Uniforms(_key(seed, "ingress"))

    def draw(rows: int) -> NDArray[np.int32]:
        codes = np.empty(rows, np.int32)
        for start in range(0, rows, _CHUNK):
            part = codes[start : start + _CHUNK]
            part[:] = pick(weights, random.draw(len(part)), "ingress: weights")
        return codes

    return draw


def sample_draws(seed: int, samples: int) -> Callable[[int], NDArray[np.int32]]:
    """Return what draws the next so many of `samples` samples, all alike."""
    return drawing.Integers(_key(seed, "samples"), samples).draw


def _key(seed: int, purpose: str) -> list[int]:
    state: Any = generator(seed, purpose).bit_generator.state
    return [int(word) for word in state["state"]["key"]]


def draw_samples(
    codes: NDArray[np.int32],
    nodes: tuple[str, ...],
    samples: int,
    labels: Any,
    label_mix: Mapping[str, Mapping[Any, float]] | None,
    popularity: float | Mapping[str, float] | None,
    seed: int,
) -> NDArray[np.int32]:
    if label_mix is None and popularity is None:
        return sample_draws(seed, samples)(len(codes))
    exponents = _exponents(popularity, nodes)
    mixes = _class_weights(label_mix, labels, nodes, samples)
    uniform = drawing.Uniforms(_key(seed, "samples")).draw(len(codes))
    result = np.empty(len(codes), np.int32)
    for code, rows in enumerate(_rows_of_each(codes, len(nodes))):
        if not len(rows):
            continue
        weights: NDArray[np.float64] = np.ones(samples)
        if exponents[code] > 0:
            rank = generator(seed, "ranking", code).permutation(samples)
            weights = np.power(np.arange(1.0, samples + 1.0), -exponents[code])[rank]
        if nodes[code] in mixes:
            classes, by_class = mixes[nodes[code]]
            inside = np.bincount(classes + 1, weights, minlength=len(by_class) + 1)[1:]
            share = np.divide(by_class, inside, out=np.zeros_like(by_class), where=inside > 0)
            weights *= np.append(share, 0.0)[classes]  # class -1 finds the zero at the end
        result[rows] = pick(weights, uniform[rows], f"label_mix of {nodes[code]!r}: weights")
    return result


def _rows_of_each(codes: NDArray[np.int32], count: int) -> list[NDArray[np.int64]]:
    """Return the rows of each code, in order."""
    narrow = codes.astype(np.uint16) if count <= 1 << 16 else codes  # 16-bit keys are sorted by radix
    order = np.argsort(narrow, kind="stable")
    return np.split(order, np.cumsum(np.bincount(codes, minlength=count))[:-1])


def _exponents(popularity: float | Mapping[str, float] | None, nodes: tuple[str, ...]) -> list[float]:
    if not isinstance(popularity, Mapping):
        return [0.0 if popularity is None else check_number(popularity, "popularity")] * len(nodes)
    for name in popularity:
        if name not in nodes:
            msg = f"popularity: no request enters at {name!r}; {nearest(name, nodes)}"
            raise UnknownNameError(msg)
    return [check_number(popularity.get(name, 0.0), f"popularity of {name!r}") for name in nodes]


def _class_weights(
    label_mix: Mapping[str, Mapping[Any, float]] | None, labels: Any, nodes: tuple[str, ...], samples: int
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Return per node the class of every sample (-1 for none) and the weight of every class."""
    if label_mix is None:
        return {}
    if labels is None:
        msg = "label_mix needs labels=, the class of each sample"
        raise BadValueError(msg)
    array = as_array(labels, "labels")
    if array.shape != (samples,):
        msg = f"labels must have one value per sample, {samples} in all, not shape {array.shape}"
        raise BadValueError(msg)
    known: list[Any] = [v for v in dict.fromkeys(array.tolist()) if v is not None and v == v and v != -1]
    position = {value: index for index, value in enumerate(known)}
    classes = np.fromiter((position.get(value, -1) for value in array.tolist()), np.int64, samples)
    mixes = {}
    for name, mix in label_mix.items():
        if name not in nodes:
            msg = f"label_mix: no request enters at {name!r}; {nearest(name, nodes)}"
            raise UnknownNameError(msg)
        weights = np.zeros(len(known))
        for value, weight in mix.items():
            if value not in position:
                msg = f"label_mix of {name!r}: no sample has the class {value!r}; {nearest(value, map(str, known))}"
                raise UnknownNameError(msg)
            weights[position[value]] = check_number(weight, f"label_mix of {name!r}: weight of {value!r}")
        mixes[name] = classes, weights
    return mixes


def node_names(nodes: Sequence[str]) -> tuple[str, ...]:
    if isinstance(nodes, str) or not len(nodes):
        msg = f"nodes must be a list of at least one node name, not {nodes!r}"
        raise BadValueError(msg)
    names = tuple(check_name(name, "nodes: each name") for name in nodes)
    check_unique(names, "nodes:")
    return names
