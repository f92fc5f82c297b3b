"""What a way through a plan takes: time, price and work, without queues.

A way is the stages that a request visits, in order. Times are means, and where something is random also a few
thousand draws, so that quantiles of the latency can be given; they are estimates and say nothing about queues.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer import service as laws

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer.compiling import Compiler, Leg
    from coinfer.network import Deployment
    from coinfer.strategy.base import PlanSpec

__all__ = ["Way", "way_through"]

_DRAWS = 2048


@dataclass(frozen=True)
class Way:
    """Mean nanoseconds (per sample where service times were measured), draws, pico-dollars, work per node.

    `draws` is one number if nothing is random; one per sample (`by_sample`) where some service times were measured per
    sample, in this way or in another that it is compared with.
    """

    mean_ns: Any
    draws_ns: NDArray[np.float64]
    pico_usd: int
    busy_ns: dict[str, float]
    by_sample: bool = False


def way_through(compiler: Compiler, spec: PlanSpec, ingress: str, visited: Sequence[int], seed: int = 0) -> Way:
    """Add up a way: enter each stage, wait for the slowest of its members, and bring the answer back."""
    random = _random(compiler, spec, ingress, visited)
    by_sample = any(isinstance(d.service, laws.Measured) for stage in spec.stages for d in stage.members)
    size = len(compiler.predictions) if by_sample else _DRAWS
    rng = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(ingress.encode())]))
    hosts = compiler.hosts(spec, ingress)
    here = ingress
    mean: Any = 0.0
    draws: Any = 0.0
    price = 0
    busy: dict[str, float] = {}
    measured = False
    for at in visited:
        stage, host = spec.stages[at], hosts[at]
        enter = compiler.leg(here, host, _payload(compiler, spec, at, "request_kb"))
        price += enter[1]
        mean = mean + _mean(enter)
        draws = draws + _draw(enter, rng, size)
        means, drawn = [], []
        for deployment in stage.members:
            model = compiler.network.model(deployment.model)
            there = compiler.leg(host, deployment.node, model.request_kb)
            back = compiler.leg(deployment.node, host, model.answer_kb)
            service = compiler.service_ns(deployment)
            measured = measured or isinstance(service, np.ndarray)
            price += there[1] + back[1] + compiler.pico_usd(deployment)
            busy[deployment.node] = busy.get(deployment.node, 0.0) + float(np.mean(service))
            means.append(_mean(there) + service + _mean(back))
            drawn.append(_draw(there, rng, size) + _served(deployment, service, rng, size) + _draw(back, rng, size))
        slowest = drawn[0]
        for each in drawn[1:]:
            slowest = np.maximum(slowest, each)
        draws = draws + slowest
        if len(means) == 1:
            mean = mean + means[0]
        elif random and not measured:
            mean = mean + float(np.mean(slowest))
        else:
            longest = means[0]
            for each in means[1:]:
                longest = np.maximum(longest, each)
            mean = mean + longest
        here = host
    back = compiler.leg(here, ingress, _payload(compiler, spec, visited[-1], "answer_kb"))
    mean = mean + _mean(back)
    draws = np.rint(draws + _draw(back, rng, size))
    drawn_ns = np.broadcast_to(draws, size) if by_sample else np.atleast_1d(draws)
    return Way(mean, drawn_ns, price + back[1], busy, by_sample)


def _random(compiler: Compiler, spec: PlanSpec, ingress: str, visited: Sequence[int]) -> bool:
    fixed = (laws.Constant, laws.Linear, laws.Measured)
    members = [deployment for at in visited for deployment in spec.stages[at].members]
    return any(not isinstance(d.service, fixed) for d in members) or any(
        link.jitter_ms > 0 for link in compiler.network.links
    )


def _served(deployment: Deployment, mean_ns: Any, rng: np.random.Generator, size: int) -> Any:
    match deployment.service:
        case laws.Exponential():
            return rng.exponential(mean_ns, size)
        case laws.LogNormal(cv=cv):
            spread = np.log1p(cv * cv)
            return rng.lognormal(np.log(max(mean_ns, 1e-9)) - spread / 2, np.sqrt(spread), size)
        case laws.Gamma(cv=cv) if cv > 0:
            return rng.gamma(1 / (cv * cv), mean_ns * cv * cv, size)
        case laws.Table() as law:
            return rng.choice(np.array(law.at(1)) * 1e6, size)
    return mean_ns


def _draw(leg: Leg, rng: np.random.Generator, size: int) -> Any:
    total: Any = float(leg[0])
    for _, jitter_ns in leg[2]:
        total = total + rng.exponential(jitter_ns, size)
    return total


def _mean(leg: Leg) -> float:
    return leg[0] + sum(jitter for _, jitter in leg[2])


def _payload(compiler: Compiler, spec: PlanSpec, at: int, size: str) -> float:
    return max(float(getattr(compiler.network.model(d.model), size)) for d in spec.stages[at].members)
