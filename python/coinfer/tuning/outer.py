"""Everything but thresholds: scalars, choices, subsets, orders and weights, one strategy built for each value.

Finite sets of values are tried in full as long as their product is small. Otherwise, and for orders and weights, which
have no end, coordinate ascent: one parameter after the other takes its best value while the others are held.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coinfer.errors import UnsupportedError
from coinfer.tuning.searching import Goal, Points, operating_points

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from coinfer.predictions import Predictions
    from coinfer.strategy.base import Parameter, Strategy
    from coinfer.tuning.measuring import Measures

__all__ = ["Variant", "variants"]

_TIERS_TO_SKIP_MAX = 10
_PRODUCT_MAX = 2048
_ROUNDS_MAX = 12
_EVALUATIONS_MAX = 600
_FACTORS = (0.0, 0.5, 0.8, 1.25, 2.0)
_FINITE = ("scalar", "choice", "subset")


@dataclass(frozen=True)
class Variant:
    """Values of the parameters that are no thresholds, and the points that they allow."""

    values: dict[str, Any]
    points: Points


def variants(
    strategy: Strategy,
    parameters: Sequence[Parameter],
    measures: Measures,
    rows: NDArray[np.uint32],
    goal: Goal,
    learning: Predictions,
    threads: int,
    seed: int,
    progress: Callable[[str, int, int], object] | None,
) -> list[Variant]:
    """Try values of all parameters but the cut, each with all its thresholds."""
    cuts = [each for each in parameters if each.kind == "cut"]
    others = [each for each in parameters if each.kind != "cut"]
    network = measures.compiler.network
    found: dict[str, Variant] = {}

    def look(values: dict[str, Any], total: int) -> Variant:
        key = repr(sorted(values.items()))
        if key not in found:
            made = strategy.with_parameters(**values) if values else strategy
            if not made.fitted:
                made = made.fit(learning, network)
            points = operating_points(made, cuts[0] if cuts else None, measures, rows, goal, threads, seed)
            found[key] = Variant(dict(values), points)
            if progress is not None:
                progress(f"tuning {strategy.name}", len(found), total)
        return found[key]

    domains = [_domain(each, strategy, cuts, measures) for each in others]
    if all(each.kind in _FINITE for each in others):
        total = math.prod(len(domain) for domain in domains)
        if total <= _PRODUCT_MAX:
            for chosen in itertools.product(*domains):
                look(dict(zip(map(str, others), chosen, strict=True)), total)
            _check_tunable(strategy, list(found.values()))
            return list(found.values())

    def key_of(variant: Variant) -> tuple[float, ...]:
        return goal.key(variant.points.columns, goal.best(variant.points.columns))

    current = {
        str(each): domain[len(domain) // 2] if each.kind in _FINITE else _start(each, domain)
        for each, domain in zip(others, domains, strict=True)
    }
    best = look(current, 0)
    for _ in range(_ROUNDS_MAX):
        before = key_of(best)
        for each, domain in zip(others, domains, strict=True):
            for value in _moves(each, best.values[str(each)], domain):
                if len(found) >= _EVALUATIONS_MAX:
                    break
                tried = look({**best.values, str(each): value}, 0)
                if key_of(tried) < key_of(best):
                    best = tried
        if key_of(best) == before:
            break
    return list(found.values())


def _check_tunable(strategy: Strategy, found: Sequence[Variant]) -> None:
    """Refuse a path on which nothing can move."""
    (only, *more) = found
    if not more and only.points.cut is not None and all(path.stages == 1 for path in only.points.paths):
        path = only.points.paths[0]
        msg = f"there is nothing to tune: the path from {path.ingresses[0]!r} has only the model {path.models[0]!r}"
        if getattr(strategy, "models", None) is None:
            raise UnsupportedError(msg)


def _domain(parameter: Parameter, strategy: Strategy, cuts: Sequence[Parameter], measures: Measures) -> tuple[Any, ...]:
    if parameter.kind in ("scalar", "choice"):
        return parameter.values
    models = parameter.values or _models(strategy, parameter, cuts, measures)
    if parameter.kind != "subset":
        return models
    if len(models) > _TIERS_TO_SKIP_MAX:
        msg = (
            f"{parameter}='any' tries every choice of tiers, and can do so for {_TIERS_TO_SKIP_MAX}, "
            f"not for {len(models)}"
        )
        raise UnsupportedError(msg)
    return tuple(c for size in range(len(models), 0, -1) for c in itertools.combinations(models, size))


def _models(strategy: Strategy, parameter: Parameter, cuts: Sequence[Parameter], measures: Measures) -> tuple[str, ...]:
    """Name the models of the plan that the parameter leaves whole."""
    whole = strategy.with_parameters(**{str(parameter): None})
    if cuts and cuts[0].shared:
        whole = whole.with_parameters(**{str(cuts[0]): 0.0})
    elif cuts:
        from coinfer.tuning.searching import probe

        whole = probe(whole, cuts[0], measures)
    spec = whole.plan(measures.compiler.network, measures.ingresses[0])
    return tuple(dict.fromkeys(d.model for stage in spec.stages for d in stage.members))


def _start(parameter: Parameter, models: tuple[Any, ...]) -> Any:
    return tuple(models) if parameter.kind == "order" else dict.fromkeys(models, 1.0)


def _moves(parameter: Parameter, value: Any, domain: tuple[Any, ...]) -> Iterator[Any]:
    """Give the values next to one: all of a finite set, neighbours of an order, each weight by some factors."""
    if parameter.kind in _FINITE:
        yield from domain
    elif parameter.kind == "order":
        for i in range(len(value) - 1):
            yield (*value[:i], value[i + 1], value[i], *value[i + 2 :])
        for i in range(2, len(value)):
            yield (value[i], *value[:i], *value[i + 1 :])
    else:
        for model in value:
            for factor in _FACTORS:
                weight = value[model] * factor if value[model] > 0 else factor
                moved = {**value, model: weight}
                top = max(moved.values())
                if top > 0:
                    yield {m: float(f"{w / top:.6g}") for m, w in moved.items()}
