"""Training an early-exit network: in one place (`fit`), or federated over the nodes of a network (`federated`).

A client of depth d holds blocks and heads 1 to d and trains them on its own rows. The objective is sum_e Lambda_e F_e,
where F_e is the mean loss of exit e over the rows of all clients that hold it. Client c's part of it is
q_ce = Lambda_e n_c / N_e (N_e: rows of all clients that hold e), so c minimises sum_e (q_ce / a_c) F_ce with
a_c = sum_e q_ce, and block b becomes the mean, weighted by a_c, of the clients that hold it and answered. For one local
step from equal weights this is a gradient step of the objective itself on every block, scaled per block.

Equal seeds give equal bits: one torch thread, clients in the order of their names, float64 accumulation, batches from
counter-based random numbers keyed by (seed, round, client). Optimiser state does not outlive a round, so a round is a
pure function of the weights it starts from; that is what makes resuming exact and what lets Flower run the same job
(`coinfer.train.flower`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

import numpy as np

from coinfer._checks import check_integer, check_list, check_number
from coinfer._files import reading, replacing
from coinfer.errors import BadFileError, BadValueError, CoinferError, UnknownNameError, nearest
from coinfer.train._torch import device_of, one_thread, torch
from coinfer.train.exits import EarlyExit, check_inputs
from coinfer.train.flow import Profile, thresholds_for
from coinfer.train.objective import Delivered, Delivery, Noise, deliver, follow, weights_for
from coinfer.train.placing import Client
from coinfer.train.splits import random

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray

    from coinfer.network import Network

__all__ = ["DivergedError", "Round", "Settings", "Training", "aggregate", "boost", "federated", "fit"]

METHODS = ("fedavg", "fedprox", "fedadam")
_BATCHES, _CHOICE, _FATE, _NOISE, _FOLDS = range(5)

State = dict[str, Any]
Progress = Callable[[str, int, int], object]


class DivergedError(CoinferError, ArithmeticError):
    """Training produced a loss that is not a number; the message names the client and the round."""


@dataclass(frozen=True)
class Settings:
    """How to train.

    Parameters
    ----------
    rounds : int
        Rounds of federated training; epochs of `fit`, times `local_epochs`.
    local_epochs : int
        Passes over its rows that a client makes in a round.
    batch : int
        Rows per step.
    learning_rate, momentum, weight_decay : float
        Of stochastic gradient descent. Momentum starts from zero in every round.
    decay : float
        Factor on the learning rate after each round.
    method : {"fedavg", "fedprox", "fedadam"}
        How clients and server move. ``fedprox`` adds ``proximal / 2`` times the squared distance from the weights that
        the round began with to each client's loss (Li et al. 2020); ``fedadam`` takes the mean change as a gradient for
        Adam at the server (Reddi et al. 2021).
    proximal, server_learning_rate, beta1, beta2, epsilon : float
        Their parameters.
    client_share : float
        Share of the clients drawn for each round; at least one.
    straggler_share : float
        Probability that a client finishes only part of its epochs in a round: a number drawn from 1 to
        ``local_epochs - 1``, or half of its batches where there is one epoch.
    drop_share : float
        Probability that nothing comes back from a client in a round.
    clip : float, optional
        Largest L2 norm of a client's change of the weights; longer ones are scaled down.
    noise : float
        Standard deviation of Gaussian noise on the mean change, as a multiple of its sensitivity ``clip x largest
        weight``. Needs `clip`. The privacy that this buys depends on rounds and sampling; no accountant is included.
    warm_rounds : int
        For ``balanced``: rounds on serving rates before gradient noise is first measured, and between measurements.
    allow_one_class : bool
        Whether a client whose rows are all of one class may take part.
    seed : int
        Same seed, same result, on one kind of device.
    device : str
        ``auto``: a GPU where there is one.
    """

    rounds: int = 40
    local_epochs: int = 1
    batch: int = 32
    learning_rate: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    decay: float = 1.0
    method: Literal["fedavg", "fedprox", "fedadam"] = "fedavg"
    proximal: float = 0.0
    server_learning_rate: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    epsilon: float = 1e-3
    client_share: float = 1.0
    straggler_share: float = 0.0
    drop_share: float = 0.0
    clip: float | None = None
    noise: float = 0.0
    warm_rounds: int = 3
    allow_one_class: bool = False
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("rounds", "local_epochs", "batch"):
            check_integer(getattr(self, name), name, at_least=1)
        check_integer(self.warm_rounds, "warm_rounds")
        check_integer(self.seed, "seed", at_most=2**63 - 1)
        for name in ("learning_rate", "decay", "server_learning_rate", "epsilon"):
            check_number(getattr(self, name), name, above=0.0)
        for name in ("momentum", "weight_decay", "proximal", "noise"):
            check_number(getattr(self, name), name)
        if self.momentum >= 1:
            msg = f"momentum must be below 1, not {self.momentum:g}"
            raise BadValueError(msg)
        for name in ("client_share", "straggler_share", "drop_share", "beta1", "beta2"):
            check_number(getattr(self, name), name, at_most=1.0)
        if self.method not in METHODS:
            msg = f"there is no method {self.method!r}; {nearest(str(self.method), METHODS)}"
            raise UnknownNameError(msg)
        if self.client_share == 0:
            msg = "client_share must be above 0: no client would ever train"
            raise BadValueError(msg)
        if self.clip is not None:
            check_number(self.clip, "clip", above=0.0)
        elif self.noise:
            msg = "noise is a multiple of clip, which is not given"
            raise BadValueError(msg)


@dataclass(frozen=True)
class Round:
    """What one round was.

    Attributes
    ----------
    number : int
        From 1.
    loss : float
        The objective, as the clients saw it while training.
    loss_by_exit : tuple of float or None
        Mean loss of each exit; None where no client trained it.
    clients, dropped, stragglers : tuple of str
        Who answered; who did not; who answered with part of the work.
    weights : tuple of float
        Lambda of this round.
    accuracy_by_exit : tuple of float or None
        On the held-out samples, where there are some.
    settled_by_exit : tuple of float or None
        For ``delivered``, the shares of the last replay.
    moved : float or None
        For ``delivered``, the share of the weights that the last replay would have moved.
    """

    number: int
    loss: float
    loss_by_exit: tuple[float | None, ...]
    clients: tuple[str, ...]
    dropped: tuple[str, ...]
    stragglers: tuple[str, ...]
    weights: tuple[float, ...]
    accuracy_by_exit: tuple[float, ...] | None = None
    settled_by_exit: tuple[float, ...] | None = None
    moved: float | None = None

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Round:
        """Build a round from the table that a checkpoint or JSON holds."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
        return cls(**values)


@dataclass(frozen=True)
class Training:
    """A trained network and how it came about.

    Attributes
    ----------
    model : EarlyExit
        Trained; the one given is left as it was.
    history : tuple of Round
    weights : tuple of float
        Lambda at the end.
    noise : Noise or None
        As measured for ``balanced``.
    delivery : Delivery or None
        The last replay of ``delivered``, over the training samples, from cross-fitted scores.
    sample_weights : ndarray of float64, shape (N, exits), or None
        The weights of ``delivered`` at the end.
    resumed_from : int
        Rounds that a checkpoint had done already.
    """

    model: EarlyExit
    history: tuple[Round, ...]
    weights: tuple[float, ...]
    settings: Settings
    noise: Noise | None = None
    delivery: Delivery | None = None
    sample_weights: NDArray[np.float64] | None = None
    resumed_from: int = 0


# One client ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """What one client minimises: weights of its exits, which sum to one, and its own weight in the mean."""

    exits: tuple[float, ...]
    mass: float


def shares(sizes: Sequence[Sequence[float]], depths: Sequence[int], weights: Sequence[float]) -> tuple[Share, ...]:
    """Divide the objective among the clients.

    Parameters
    ----------
    sizes : sequence of sequence of float
        How much each client has for each exit: its number of rows, or the sum of their weights.
    depths : sequence of int
        Exits that each client holds.
    weights : sequence of float
        Lambda.

    Examples
    --------
    >>> shares([[30, 30], [10, 10]], [1, 2], [0.5, 0.5])
    (Share(exits=(1.0, 0.0), mass=0.375), Share(exits=(0.2, 0.8), mass=0.625))
    """
    held = [sum(size[e] for size, depth in zip(sizes, depths, strict=True) if depth > e) for e in range(len(weights))]
    found = []
    for size, depth in zip(sizes, depths, strict=True):
        part = [weight * (size[e] / held[e]) if e < depth and held[e] > 0 else 0.0 for e, weight in enumerate(weights)]
        mass = sum(part)
        found.append(Share(tuple(p / mass for p in part) if mass > 0 else tuple(part), mass))
    return tuple(found)


def local(
    model: EarlyExit,
    x: Any,
    y: Any,
    exits: Sequence[float],
    settings: Settings,
    *,
    name: str,
    number: int,
    position: int,
    depth: int,
    sample_weights: Any = None,
    epochs: int | None = None,
    part: float = 1.0,
    frozen: int = 0,
) -> list[float | None]:
    """Train a model in place on one client's rows for one round, and return the mean loss of each exit.

    Parameters
    ----------
    model : EarlyExit
        Holds the weights that the round begins with.
    x, y : tensors
        The client's rows.
    exits : sequence of float
        Weight of each exit; those of weight zero are not computed.
    settings : Settings
    name, number, position
        Client, round from 1, and place of the client in the order of names: they key the random numbers.
    depth : int
        Blocks beyond are not touched.
    sample_weights : tensor of float32, shape (n, exits), optional
        Weight of each row in the loss of each exit; columns have mean one.
    epochs : int, optional
        Instead of ``settings.local_epochs``.
    part : float
        Share of the batches of each epoch that is done.
    frozen : int
        Blocks and heads before this one are not changed.
    """
    used = [e for e in range(depth) if exits[e] > 0]
    losses: list[float | None] = [None] * len(exits)
    if not used or not len(y):
        return losses
    modules = [*model.blocks[frozen : used[-1] + 1], *(model.heads[e] for e in used if e >= frozen)]
    trained = [p for module in modules for p in module.parameters()]
    rate = settings.learning_rate * settings.decay ** (number - 1)
    anchor = [p.detach().clone() for p in trained] if settings.method == "fedprox" and settings.proximal else None
    velocity: list[Any] = []
    sums = [0.0] * len(exits)
    seen = 0
    cross_entropy = torch.nn.functional.cross_entropy
    draw = random(settings.seed, _BATCHES, number, position)
    kept_seed = int(draw.integers(2**62))  # for dropout and the like
    torch.default_generator.manual_seed(kept_seed)
    if y.device.type == "cuda":
        torch.cuda.manual_seed(kept_seed)
    model.train()
    steps = math.ceil(len(y) / settings.batch)
    for _ in range(settings.local_epochs if epochs is None else epochs):
        order = torch.as_tensor(draw.permutation(len(y)), device=y.device)
        for step in range(max(1, math.floor(steps * part))):
            rows = order[step * settings.batch : (step + 1) * settings.batch]
            truth = y[rows]
            total: Any = 0.0
            for e, logits in _some(model, x[rows], used):
                if sample_weights is None:
                    loss = cross_entropy(logits, truth)
                else:
                    loss = (cross_entropy(logits, truth, reduction="none") * sample_weights[rows, e]).mean()
                sums[e] += float(loss.detach()) * len(rows)
                total = total + exits[e] * loss
            if anchor is not None:
                distance = sum(((p - a) ** 2).sum() for p, a in zip(trained, anchor, strict=True))
                total = total + settings.proximal / 2 * distance
            changes = torch.autograd.grad(total, trained, materialize_grads=True)
            seen += len(rows)
            with torch.no_grad():  # plain stochastic gradient descent, as torch.optim.SGD does it, in less time
                if settings.weight_decay:
                    changes = torch._foreach_add(changes, trained, alpha=settings.weight_decay)
                if velocity:
                    torch._foreach_mul_(velocity, settings.momentum)
                    torch._foreach_add_(velocity, changes)
                elif settings.momentum:
                    velocity = [change.clone() for change in changes]
                torch._foreach_add_(trained, velocity or changes, alpha=-rate)
    for e in used:
        losses[e] = sums[e] / seen
    bad = [e for e in used if not math.isfinite(sums[e])]
    whole = bad or all(math.isfinite(float(p.detach().sum())) for p in trained)
    if bad or not whole:
        what = f"the loss of exit {model.names[bad[0]]!r} is {losses[bad[0]]}" if bad else "a weight is not finite"
        msg = (
            f"training stopped: {what} at client {name!r} in round {number}; "
            f"lower learning_rate (now {rate:g}), or look for bad values in the inputs of this client"
        )
        raise DivergedError(msg)
    return losses


def _some(model: EarlyExit, x: Any, used: Sequence[int]) -> list[tuple[int, Any]]:
    """Return the logits of the exits used; heads in between are left out."""
    found = []
    for e in range(used[-1] + 1):
        x = model.blocks[e](x)
        if e in used:
            found.append((e, model.heads[e](x)))
    return found


# The server ---------------------------------------------------------------------------------------------------------


def exit_of(name: str) -> int:
    """Return which exit, from 0, an entry of a state belongs to: ``"blocks.1.0.weight"`` is part of exit 1."""
    return int(name.split(".")[1])


def part_of(state: Mapping[str, Any], depth: int) -> State:
    """Return the entries that a client of this depth holds."""
    return {name: value for name, value in state.items() if exit_of(name) < depth}


def aggregate(
    state: Mapping[str, Any], updates: Sequence[tuple[float, Mapping[str, Any]]], *, from_block: int = 0
) -> State:
    """Average what clients hold, block by block.

    Parameters
    ----------
    state : mapping of str to tensor
        Weights before the round.
    updates : sequence of (float, mapping)
        Each client's weight and the entries that it holds, in a fixed order.
    from_block : int
        Entries of earlier blocks stay as they were.

    Returns
    -------
    dict of str to tensor
        Entry by entry the weighted mean over the clients that hold it, summed in float64 in the order given and rounded
        once; what nobody holds stays. Integer entries (counters) are taken from the client with the largest weight.

    Examples
    --------
    >>> import torch
    >>> old = {"blocks.0.w": torch.tensor([0.0]), "blocks.1.w": torch.tensor([0.0])}
    >>> device = {"blocks.0.w": torch.tensor([1.0])}
    >>> cloud = {"blocks.0.w": torch.tensor([5.0]), "blocks.1.w": torch.tensor([7.0])}
    >>> aggregate(old, [(0.75, device), (0.25, cloud)])
    {'blocks.0.w': tensor([2.]), 'blocks.1.w': tensor([7.])}
    """
    result: State = {}
    for name, before in state.items():
        holders = [(weight, part[name]) for weight, part in updates if name in part and weight > 0]
        if not holders or exit_of(name) < from_block:
            result[name] = before.clone()
        elif not before.is_floating_point():
            result[name] = max(holders, key=lambda held: held[0])[1].clone()
        else:
            total = torch.zeros_like(before, dtype=torch.float64)
            mass = 0.0
            for weight, value in holders:
                total += weight * value.double()
                mass += weight
            result[name] = (total / mass).to(before.dtype)
    return result


@dataclass
class Server:
    """The state of the server: weights, and the moments of FedAdam."""

    state: State
    first: State = field(default_factory=dict)
    second: State = field(default_factory=dict)

    def step(
        self, updates: Sequence[tuple[float, Mapping[str, Any]]], settings: Settings, number: int, *, frozen: int = 0
    ) -> None:
        """Take in what the clients of one round sent."""
        if settings.clip is not None:
            updates = [(weight, _clipped(self.state, part, settings.clip)) for weight, part in updates]
        mean = aggregate(self.state, updates, from_block=frozen)
        if settings.clip is not None and settings.noise:
            mean = _noisy(mean, updates, settings, number)
        if settings.method == "fedadam":
            mean = self._adam(mean, settings)
        self.state = mean

    def _adam(self, mean: State, settings: Settings) -> State:
        moved: State = {}
        for name, value in mean.items():
            before = self.state[name]
            if not value.is_floating_point():
                moved[name] = value
                continue
            change = value.double() - before.double()
            first = settings.beta1 * self.first.get(name, torch.zeros_like(change)) + (1 - settings.beta1) * change
            second = (
                settings.beta2 * self.second.get(name, torch.zeros_like(change))
                + (1 - settings.beta2) * change.square()
            )
            self.first[name], self.second[name] = first, second
            step = settings.server_learning_rate * first / (second.sqrt() + settings.epsilon)
            moved[name] = (before.double() + step).to(value.dtype)
        return moved


def _clipped(state: Mapping[str, Any], part: Mapping[str, Any], clip: float) -> State:
    change = {n: v.double() - state[n].double() for n, v in part.items() if v.is_floating_point()}
    norm = math.sqrt(sum(float(d.square().sum()) for d in change.values()))
    factor = min(1.0, clip / norm) if norm > 0 else 1.0
    return {n: (state[n].double() + factor * change[n]).to(v.dtype) if n in change else v for n, v in part.items()}


def _noisy(mean: State, updates: Sequence[tuple[float, Mapping[str, Any]]], settings: Settings, number: int) -> State:
    assert settings.clip is not None
    noisy: State = {}
    for place, (name, value) in enumerate(mean.items()):
        held = [weight for weight, part in updates if name in part and weight > 0]
        if not held or not value.is_floating_point():
            noisy[name] = value
            continue
        spread = settings.noise * settings.clip * max(held) / sum(held)
        drawn = random(settings.seed, _NOISE, number, place).normal(0.0, spread, tuple(value.shape))
        noisy[name] = (value.double() + torch.as_tensor(drawn, device=value.device)).to(value.dtype)
    return noisy


# Rounds -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fate:
    """What happens to a client in a round."""

    position: int
    epochs: int
    part: float
    dropped: bool
    straggles: bool


def fates(count: int, settings: Settings, number: int) -> list[Fate]:
    """Draw who takes part in a round and how it goes, in the order of names."""
    wanted = max(1, round(settings.client_share * count))
    taking = (
        range(count)
        if wanted == count
        else sorted(random(settings.seed, _CHOICE, number).permutation(count)[:wanted].tolist())
    )
    if not settings.straggler_share and not settings.drop_share:
        return [Fate(position, settings.local_epochs, 1.0, False, False) for position in taking]
    found = []
    for position in taking:
        draw = random(settings.seed, _FATE, number, position).random(3)
        straggles = bool(draw[1] < settings.straggler_share)
        epochs, part = settings.local_epochs, 1.0
        if straggles and settings.local_epochs > 1:
            epochs = 1 + int(draw[2] * (settings.local_epochs - 1))
        elif straggles:
            part = 0.5
        found.append(Fate(position, epochs, part, bool(draw[0] < settings.drop_share), straggles))
    return found


@dataclass(frozen=True)
class _Data:
    x: Any
    y: Any


class _Job:
    """One network in training: the clients with their tensors, and the server."""

    def __init__(
        self,
        model: EarlyExit,
        data: _Data,
        clients: Sequence[Client],
        settings: Settings,
        *,
        centralised: bool,
        frozen: int = 0,
    ) -> None:
        self.model = model
        self.clients = clients
        self.settings = settings
        self.centralised = centralised
        self.frozen = frozen
        self.device = next(model.parameters()).device
        self.rows = [torch.as_tensor(client.rows, device=self.device) for client in clients]
        self.data = [_Data(data.x[rows], data.y[rows]) for rows in self.rows]
        self.live = {n: v.detach() for n, v in model.state_dict().items()}
        self.server = Server(self._snapshot())

    def _snapshot(self, depth: int | None = None) -> State:
        return {n: v.clone() for n, v in self.live.items() if depth is None or exit_of(n) < depth}

    def load(self, depth: int | None = None) -> None:
        """Put the server's weights into the network, as deep as a client holds them."""
        for n, v in self.live.items():
            if depth is None or exit_of(n) < depth:
                v.copy_(self.server.state[n])

    def round(self, number: int, weights: Sequence[float], table: NDArray[np.float64] | None) -> Round:
        """Train for one round, with weights per exit or, from a table, per sample and exit."""
        exits = len(self.model)
        if table is None:
            sizes = [[float(len(client.rows))] * exits for client in self.clients]
        else:
            sizes = [table[client.rows].sum(axis=0).tolist() for client in self.clients]
        divided = shares(sizes, [client.depth for client in self.clients], weights)
        updates: list[tuple[float, State]] = []
        answered, dropped, late = [], [], []
        sums, masses = np.zeros(exits), np.zeros(exits)
        for fate in fates(len(self.clients), self.settings, number):
            client, share = self.clients[fate.position], divided[fate.position]
            if fate.dropped:
                dropped.append(client.name)
                continue
            if not self.centralised:
                self.load(client.depth)
            losses = local(
                self.model,
                self.data[fate.position].x,
                self.data[fate.position].y,
                share.exits,
                self.settings,
                name=client.name,
                number=number,
                position=fate.position,
                depth=client.depth,
                sample_weights=self._columns(table, client),
                epochs=fate.epochs,
                part=fate.part,
                frozen=self.frozen,
            )
            answered.append(client.name)
            late += [client.name] if fate.straggles else []
            for e, loss in enumerate(losses):
                if loss is not None:
                    sums[e] += share.mass * share.exits[e] * loss
                    masses[e] += share.mass * share.exits[e]
            if not self.centralised:
                updates.append((share.mass, self._snapshot(client.depth)))
        if self.centralised:
            self.server.state = self._snapshot()
        elif updates:
            self.server.step(updates, self.settings, number, frozen=self.frozen)
        self.load()
        means = tuple(float(s / m) if m > 0 else None for s, m in zip(sums, masses, strict=True))
        return Round(
            number=number,
            loss=float(sum(w * m for w, m in zip(weights, means, strict=True) if m is not None)),
            loss_by_exit=means,
            clients=tuple(answered),
            dropped=tuple(dropped),
            stragglers=tuple(late),
            weights=tuple(weights),
        )

    def _columns(self, table: NDArray[np.float64] | None, client: Client) -> Any:
        if table is None:
            return None
        own = table[client.rows]
        mean = own.mean(axis=0)
        scaled = np.divide(own, mean, out=np.zeros_like(own), where=mean > 0)
        return torch.as_tensor(scaled, dtype=torch.float32, device=self.device)

    def noise(self, batches: int = 4) -> Noise:
        """Measure loss and gradient noise of every exit at the present weights, on the first batches of each client."""
        model = self.model
        model.eval()
        parameters = list(model.parameters())
        losses, variances, counts = [], [], []
        for e in range(len(model)):
            loss_sum, squares, drawn = 0.0, 0.0, 0
            mean: list[Any] = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
            sizes: list[int] = []
            for client, data in zip(self.clients, self.data, strict=True):
                if client.depth <= e:
                    continue
                sizes.append(len(data.y))
                for k in range(min(batches, math.ceil(len(data.y) / self.settings.batch))):
                    part = slice(k * self.settings.batch, (k + 1) * self.settings.batch)
                    loss = torch.nn.functional.cross_entropy(model(data.x[part], e + 1)[e], data.y[part])
                    found = torch.autograd.grad(loss, parameters, allow_unused=True)
                    for total, gradient in zip(mean, found, strict=True):
                        if gradient is not None:
                            total += gradient.double()
                            squares += float(gradient.double().square().sum())
                    loss_sum += float(loss.detach())
                    drawn += 1
            spread = squares - sum(float(m.square().sum()) for m in mean) / max(drawn, 1)
            losses.append(loss_sum / max(drawn, 1))
            variances.append(spread / (drawn - 1) if drawn > 1 else 0.0)
            counts.append(sum(sizes) ** 2 / sum(size**2 for size in sizes) if sizes else 0.0)
        model.train()
        return Noise(tuple(losses), tuple(variances), tuple(counts))


# What a user calls --------------------------------------------------------------------------------------------------


class Options(TypedDict, total=False):
    """What `fit` and `federated` take by name; `federated` says what each means."""

    weights: str | Sequence[float] | Delivered
    profile: Profile | str | Sequence[float] | None
    settings: Settings | None
    network: Network | None
    held_out: tuple[Any, Any] | None
    checkpoint: str | PathLike[str] | None
    resume: bool
    progress: Progress | None


def fit(model: EarlyExit, inputs: Any, labels: Any, **options: Unpack[Options]) -> Training:
    """Train with all data in one place; an epoch is what a round is to `federated`.

    Parameters
    ----------
    model : EarlyExit
        Where to start; it is not changed.
    inputs : array-like of float, shape (N, ...)
        Samples.
    labels : array-like of int, shape (N,)
        True labels, 0 to C - 1.
    weights, profile, settings, network, held_out, checkpoint, resume, progress
        As for `federated`. Settings that concern clients and the server have no effect.

    Returns
    -------
    Training
    """
    options["settings"] = replace(
        options.get("settings") or Settings(),
        method="fedavg", client_share=1.0, straggler_share=0.0, drop_share=0.0, clip=None, noise=0.0,
    )  # fmt: skip
    everything = Client("all data", np.arange(len(inputs)), len(model))
    return _train(model, inputs, labels, [everything], centralised=True, **options)


def federated(
    model: EarlyExit, inputs: Any, labels: Any, clients: Sequence[Client], **options: Unpack[Options]
) -> Training:
    """Train over nodes that keep their data.

    Parameters
    ----------
    model : EarlyExit
        Where to start; it is not changed.
    inputs : array-like of float, shape (N, ...)
        Samples of all clients, which name their rows. (Simulated in one process: the server's arithmetic sees weights
        only; `delivered` additionally sees scores.)
    labels : array-like of int, shape (N,)
        True labels, 0 to C - 1.
    clients : sequence of Client
        See `coinfer.train.clients`.
    weights : str, sequence of float or Delivered
        ``equal``, ``serving_rate``, ``compute``, ``balanced``, ``delivered``, or one number per exit; see
        `coinfer.train.objective`.
    profile : Profile, optional
        Shares of requests settled at each exit; needed for all but ``equal``, ``compute`` and numbers.
    settings : Settings, optional
        How to train.
    network : Network, optional
        Where ``delivered`` replays. Default: a chain of the exits.
    held_out : (inputs, labels), optional
        Samples on which the accuracy of each exit is taken after every round.
    checkpoint : path, optional
        Written after every round, atomically.
    resume : bool
        Continue from the checkpoint if it is there.
    progress : callable, optional
        Called as ``progress(what, done, total)`` after every round.

    Returns
    -------
    Training

    Raises
    ------
    BadValueError
        If a client has no data, or data of one class only, or is deeper than the network; or labels do not fit.
    DivergedError
        If a loss is not a number; the message names the client and the round.
    BadFileError
        If the checkpoint is of another training; the message says what differs.
    """
    return _train(model, inputs, labels, clients, centralised=False, **options)


def boost(
    model: EarlyExit,
    inputs: Any,
    labels: Any,
    clients: Sequence[Client],
    *,
    profile: Profile | str | Sequence[float],
    settings: Settings | None = None,
    score: str = "max_prob",
    progress: Progress | None = None,
) -> Training:
    """Train tier by tier: each exit on what the tiers below forward, with everything below frozen.

    Local boosting over the network, a baseline for joint training: the upper model is fitted to what is left over.

    Parameters
    ----------
    model, inputs, labels, clients, settings, progress
        As for `federated`; the rounds are divided among the exits.
    profile : Profile
        Says how much each tier forwards: the share of the samples that it is least sure of.
    score : str
        What decides.
    """
    settings = settings if settings is not None else Settings()
    exits = len(model)
    target = Profile(profile)
    target.of(exits)
    data, checked = _check(model, inputs, labels, clients, settings)
    trained = model.clone().to(device_of(settings.device))
    data = _on(trained, data)
    history: list[Round] = []
    reaching = np.ones(len(data.y), bool)
    rounds = max(1, settings.rounds // exits)
    with one_thread(), torch.random.fork_rng(devices=[]):
        for e in range(exits):
            job = _Job(trained, data, checked, settings, centralised=False, frozen=e)
            weights = [float(k == e) for k in range(exits)]
            table = np.zeros((len(data.y), exits))
            table[reaching, e] = 1.0
            for _ in range(rounds):
                history.append(job.round(len(history) + 1, weights, table))
                if progress is not None:
                    progress("boosting", len(history), rounds * exits)
            if e + 1 < exits:
                probs = torch.softmax(torch.as_tensor(trained.logits(data.x, depth=e + 1)[e]), 1).numpy()
                held = probs.max(axis=1)
                left = target.shares[e] / max(sum(target.shares[e:]), 1e-12)
                cut = thresholds_for([held[reaching], held[reaching]], [left, 1 - left])[0]
                reaching &= ~(held >= cut)
                if not reaching.any():
                    reaching[:] = True  # a tier that forwards nothing leaves nothing to fit: take everything
    trained.eval()
    return Training(trained, tuple(history), target.shares, settings)


def _on(model: EarlyExit, data: _Data) -> _Data:
    where = next(model.parameters()).device
    return _Data(data.x.to(where), data.y.to(where))


def _check(
    model: EarlyExit, inputs: Any, labels: Any, clients: Sequence[Client], settings: Settings
) -> tuple[_Data, list[Client]]:
    x = check_inputs(inputs, model.input_shape)
    y = np.asarray(labels)
    if y.shape != (len(x),) or y.dtype.kind not in "iu":
        msg = f"labels must be one integer per sample, {len(x)} in all, not {y.dtype} of shape {y.shape}"
        raise BadValueError(msg)
    if len(y) and not (y.min() >= 0 and y.max() < model.class_count):
        row = int(np.flatnonzero((y < 0) | (y >= model.class_count))[0])
        msg = f"labels: row {row} is {int(y[row])}; the network has classes 0 to {model.class_count - 1}"
        raise BadValueError(msg)
    listed = sorted(check_list(clients, "clients", "Client objects"), key=lambda client: client.name)
    if not listed:
        msg = "federated training needs at least one client"
        raise BadValueError(msg)
    owner: dict[str, Client] = {}
    for client in listed:
        if client.name in owner:
            msg = f"client {client.name!r} is named twice"
            raise BadValueError(msg)
        owner[client.name] = client
        if not len(client.rows):
            msg = f"client {client.name!r} has no data; leave it out, or give it rows"
            raise BadValueError(msg)
        if client.rows.min() < 0 or client.rows.max() >= len(x):
            msg = f"client {client.name!r} names row {int(client.rows.max())}, but there are {len(x)} samples"
            raise BadValueError(msg)
        if client.depth > len(model):
            msg = f"client {client.name!r} has depth {client.depth}, but the network has {len(model)} exits"
            raise BadValueError(msg)
        if not settings.allow_one_class and len(np.unique(y[client.rows])) == 1:
            only = int(y[client.rows[0]])
            msg = (
                f"client {client.name!r} has samples of one class only ({only}) and would teach nothing but it; "
                "give it others, merge it with a neighbour, or set allow_one_class=True"
            )
            raise BadValueError(msg)
    return _Data(torch.as_tensor(x), torch.as_tensor(y.astype(np.int64))), listed


class _Following:
    """The state of `delivered`: networks beside the real one, each without one fold, and weights per sample."""

    def __init__(
        self, model: EarlyExit, data: _Data, clients: Sequence[Client], settings: Settings, how: Delivered,
        rates: Sequence[float], *, centralised: bool,
    ) -> None:  # fmt: skip
        self.how, self.rates, self.data = how, rates, data
        n = len(data.y)
        self.fold = np.empty(n, np.int64)
        for position, client in enumerate(clients):
            order = random(settings.seed, _FOLDS, position).permutation(len(client.rows))
            self.fold[client.rows[order]] = (np.arange(len(client.rows)) + position) % how.folds
        self.jobs = []
        for k in range(how.folds):
            kept = [replace(c, rows=c.rows[self.fold[c.rows] != k]) for c in clients]
            kept = [c for c in kept if len(c.rows)]
            self.jobs.append(_Job(model.clone(), data, kept, settings, centralised=centralised))
        self.table = np.tile(np.asarray(rates, np.float64), (n, 1))
        self.settled = False
        self.delivery: Delivery | None = None
        self.moved: float | None = None
        self.trained = np.zeros(n, bool)
        for client in clients:
            self.trained[client.rows] = True

    def round(self, number: int, weights: Sequence[float]) -> None:
        if not self.settled:
            for job in self.jobs:
                job.round(number, weights, self.table)

    def update(self, number: int, names: Sequence[str], profile: Profile, network: Network | None) -> None:
        if self.settled or number < self.how.start or (number - self.how.start) % self.how.every:
            return
        exits = len(self.rates)
        logits = [np.empty((len(self.data.y), self.jobs[0].model.class_count), np.float32) for _ in range(exits)]
        for k, job in enumerate(self.jobs):
            rows = np.flatnonzero(self.fold == k)
            for table, found in zip(logits, job.model.logits(self.data.x[rows]), strict=True):
                table[rows] = found
        rows = np.flatnonzero(self.trained)
        part = deliver([z[rows] for z in logits], names, profile, self.how, network)
        self.table[rows], self.moved = follow(self.table[rows], part, self.rates, self.how)
        settled, reached = np.zeros((len(self.table), exits), bool), np.zeros((len(self.table), exits), bool)
        settled[rows], reached[rows] = part.settled, part.reached
        self.delivery = Delivery(settled, reached, part.thresholds)
        self.settled = self.moved < self.how.tolerance


def _train(
    model: EarlyExit,
    inputs: Any,
    labels: Any,
    clients: Sequence[Client],
    *,
    centralised: bool,
    weights: str | Sequence[float] | Delivered = "equal",
    profile: Profile | str | Sequence[float] | None = None,
    settings: Settings | None = None,
    network: Network | None = None,
    held_out: tuple[Any, Any] | None = None,
    checkpoint: str | PathLike[str] | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> Training:
    settings = settings if settings is not None else Settings()
    data, listed = _check(model, inputs, labels, clients, settings)
    how = weights if isinstance(weights, Delivered) else Delivered() if weights == "delivered" else None
    kind = "delivered" if isinstance(weights, Delivered) else weights
    target = None if profile is None else Profile(profile)
    balanced = isinstance(kind, str) and (kind == "balanced" or (how is not None and how.shares == "balanced"))
    exits = len(model)
    current = weights_for(
        "serving_rate" if balanced else kind,
        exits,
        profile=target,
        costs=model.costs(repeats=1) if isinstance(kind, str) and kind == "compute" else None,
    )
    trained = model.clone().to(device_of(settings.device))
    data = _on(trained, data)
    tested = None if held_out is None else (check_inputs(held_out[0], model.input_shape), np.asarray(held_out[1]))
    job = _Job(trained, data, listed, settings, centralised=centralised)
    following = None
    if how is not None:
        assert target is not None
        following = _Following(trained, data, listed, settings, how, current, centralised=centralised)
    noise: Noise | None = None
    history: list[Round] = []
    path = None if checkpoint is None else Path(checkpoint)
    identity = {} if path is None else _identity(model, data, listed, kind, how, target, settings, centralised)
    if path is not None and resume and path.exists():
        held = _open(path, identity)
        history = [Round.from_dict(table) for table in json.loads(held["history"])]
        _restore(job, held["server"])
        current = tuple(held["weights"])
        noise = None if held["noise"] is None else Noise(**{k: tuple(v) for k, v in json.loads(held["noise"]).items()})
        if following is not None:
            _restore_following(following, held["following"])
    done = len(history)
    with one_thread(), torch.random.fork_rng(devices=[]):
        for number in range(done + 1, settings.rounds + 1):
            if balanced and number > settings.warm_rounds and (number - 1) % max(1, settings.warm_rounds) == 0:
                noise = job.noise()
                rate = settings.learning_rate * settings.decay ** (number - 1) / (1 - settings.momentum)
                current = weights_for("balanced", exits, profile=target, noise=noise, learning_rate=rate)
            result = job.round(number, current, None if following is None else following.table)
            if following is not None:
                assert target is not None
                following.round(number, current)
                following.update(number, trained.names, target, network)
                shown = following.delivery
                result = replace(
                    result,
                    settled_by_exit=None
                    if shown is None
                    else tuple(shown.settled[following.trained].mean(axis=0).tolist()),
                    moved=following.moved,
                )
            if tested is not None:
                said = trained.logits(tested[0])
                result = replace(
                    result, accuracy_by_exit=tuple(float((z.argmax(axis=1) == tested[1]).mean()) for z in said)
                )
            history.append(result)
            if path is not None:
                _save(path, identity, job, history, current, noise, following)
            if progress is not None:
                progress("training", number, settings.rounds)
    trained.eval()
    return Training(
        model=trained,
        history=tuple(history),
        weights=current,
        settings=settings,
        noise=noise,
        delivery=None if following is None else following.delivery,
        sample_weights=None if following is None else following.table,
        resumed_from=done,
    )


# Checkpoints --------------------------------------------------------------------------------------------------------

_FORMAT = "coinfer training checkpoint"
_VERSION = 1


def _identity(
    model: EarlyExit, data: _Data, clients: Sequence[Client], kind: Any, how: Delivered | None,
    profile: Profile | None, settings: Settings, centralised: bool,
) -> dict[str, str]:  # fmt: skip
    """Return what must be equal for a checkpoint to be continued, by the name that an error would give it."""

    def digest(*parts: bytes) -> str:
        return hashlib.sha256(b"".join(parts)).hexdigest()[:16]

    start = [np.ascontiguousarray(v.detach().cpu().numpy()).tobytes() for v in model.state_dict().values()]
    found = {
        "architecture": digest(str([(n, tuple(v.shape)) for n, v in model.state_dict().items()]).encode()),
        "initial weights": digest(*start),
        "data": digest(data.x.cpu().numpy().tobytes(), data.y.cpu().numpy().tobytes()),
        "clients": digest(*(f"{c.name}:{c.depth}:".encode() + c.rows.tobytes() for c in clients)),
        "weights": str(kind if isinstance(kind, str) else list(kind)),
        "delivered": str(None if how is None else replace(how, strategy=None)),
        "profile": str(None if profile is None else profile.shares),
        "kind": "centralised" if centralised else "federated",
    }
    for each in fields(settings):
        if each.name not in ("rounds", "device"):  # more rounds continue the same training
            found[each.name] = str(getattr(settings, each.name))
    return found


def _save(
    path: Path, identity: Mapping[str, str], job: _Job, history: Sequence[Round], weights: Sequence[float],
    noise: Noise | None, following: _Following | None,
) -> None:  # fmt: skip
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        "identity": dict(identity),
        "history": json.dumps([asdict(each) for each in history]),
        "server": _server(job),
        "weights": list(weights),
        "noise": None if noise is None else json.dumps(asdict(noise)),
        "following": None,
    }
    if following is not None:
        delivery = following.delivery
        content["following"] = {
            "table": torch.as_tensor(following.table),
            "settled": following.settled,
            "moved": following.moved,
            "jobs": [_server(each) for each in following.jobs],
            "delivery": None
            if delivery is None
            else (torch.as_tensor(delivery.settled), torch.as_tensor(delivery.reached), list(delivery.thresholds)),
        }
    with replacing(path) as part:
        torch.save(content, part)


def _server(job: _Job) -> dict[str, Any]:
    return {"state": job.server.state, "first": job.server.first, "second": job.server.second}


def _restore(job: _Job, held: Mapping[str, Any]) -> None:
    on = {k: {n: v.to(job.device) for n, v in part.items()} for k, part in held.items()}
    job.server = Server(on["state"], on["first"], on["second"])
    job.load()


def _restore_following(following: _Following, held: Mapping[str, Any]) -> None:
    following.table = held["table"].numpy().copy()
    following.settled, following.moved = held["settled"], held["moved"]
    for job, each in zip(following.jobs, held["jobs"], strict=True):
        _restore(job, each)
    if held["delivery"] is not None:
        settled, reached, cuts = held["delivery"]
        following.delivery = Delivery(settled.numpy(), reached.numpy(), tuple(cuts))


def _open(path: Path, identity: Mapping[str, str]) -> dict[str, Any]:
    with reading(path, "a checkpoint of coinfer.train"):
        held = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(held, dict) or held.get("format") != _FORMAT:
            msg = "the file holds something else"
            raise BadFileError(msg)
        if held["version"] != _VERSION:
            msg = f"the checkpoint has version {held['version']}, this coinfer reads version {_VERSION}"
            raise BadFileError(msg)
    theirs = held["identity"]
    differing = [name for name in identity if theirs.get(name) != identity[name]]
    if differing:
        first = differing[0]
        shown = (
            f": {theirs.get(first)} there, {identity[first]} here"
            if first in ("weights", "profile", "kind") or not _is_digest(identity[first])
            else ""
        )
        msg = (
            f"{path}: the checkpoint is of another training, which differs in {', '.join(differing)}{shown}; "
            "train with resume=False, or write to another file"
        )
        raise BadFileError(msg)
    return dict(held)


def _is_digest(value: str) -> bool:
    return len(value) == 16 and all(c in "0123456789abcdef" for c in value)
