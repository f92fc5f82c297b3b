"""What every strategy is: something that lays out a plan for each ingress node.

A strategy is a small immutable description. It touches no data: `plan` says which deployments to consult in which
order, how to combine them and when to stop; the compiler (`coinfer.compiling`) turns that into the engine's plan
and the engine does the rest. Strategies are saved as TOML with their `kind` and parameters.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from coinfer.errors import BadValueError, UnknownNameError, UnsupportedError, nearest
from coinfer.paths import path
from coinfer.rule import ScoreRule, find

if TYPE_CHECKING:
    from coinfer.combiner import CombinerSpec
    from coinfer.network import Deployment, Network
    from coinfer.predictions import Predictions
    from coinfer.rule import StopRule
    from coinfer.strategy.router import Route
    from coinfer.tuning.certificate import Certificate

SCORES = ("confidence", "max_prob", "margin", "entropy", "energy", "logit_margin", "gini")
"""What a stop rule may compare: the reported confidence, or a kind of `coinfer.score`."""

__all__ = ["SCORES", "Parameter", "PlanSpec", "StageSpec", "Steps", "Strategy"]

Steps = tuple[tuple[float, ...], tuple[float, ...]]
"""A step function: cuts, ascending, and the value from each cut on."""


@dataclass(frozen=True, slots=True)
class StageSpec:
    """A group of deployments consulted together; settles iff curve(score) >= threshold (the last stage always settles).

    `per_us` lowers the threshold for each microsecond that a request is estimated to wait at the next stage.

    `curve` is a step function as (cuts, values): values[i] from cuts[i] up to the next cut; None is the score itself.
    """

    members: tuple[Deployment, ...]
    threshold: float = math.inf
    curve: Steps | None = None
    per_us: float = 0.0


@dataclass(frozen=True, slots=True)
class PlanSpec:
    """What a strategy wants at one ingress node.

    Attributes
    ----------
    stages : tuple of StageSpec
    score : str or ScoreRule
        Which score the stop rule compares: a kind of `coinfer.score`, ``"confidence"``, or one's own.
    temperature : mapping of str to float
        Temperature per model; 1 where absent.
    oracle : bool
        Stop with knowledge of the true labels.
    combiner : str or CombinerSpec
        How the answers so far become one: ``"last"`` (the newest counts), ``"mean"``, ``"logpool"``, ``"vote"``, or a
        description that the engine's combiner is built from.
    weights : mapping of str to float
        Weight per model in a combination; 1 where absent.
    calibration : mapping of str to Steps
        Per model, what its confidence is read as; only with ``score="confidence"`` and the combiner ``"last"``.
    gossip_ms : float
        How old a stage's estimate of the wait ahead may be: it is known as it stood at the last multiple of this
        period. 0: always up to date.
    in_time : bool
        Enter no stage that cannot finish before the deadline at its own median.
    """

    stages: tuple[StageSpec, ...]
    score: str | ScoreRule = "confidence"
    temperature: Mapping[str, float] = field(default_factory=dict)
    oracle: bool = False
    combiner: str | CombinerSpec = "last"
    weights: Mapping[str, float] = field(default_factory=dict)
    calibration: Mapping[str, Steps] = field(default_factory=dict)
    stop: StopRule | Route | None = None
    gossip_ms: float = 0.0
    in_time: bool = False


class Parameter(str):
    """The name of something that `coinfer.tune` may move, which also says what it is.

    Attributes
    ----------
    kind : {"cut", "scalar", "choice", "subset", "order", "weights"}
        ``cut``: thresholds of the stages, compared with the scores as they are (no curve), on which nothing else
        depends; candidates are found in the data. ``scalar``: a number, where neighbouring values give similar
        strategies. ``choice``: one of some values. ``subset``: some of the plan's models, in their order (of all of
        them, where the parameter is None). ``order``: an order of the models named in `values`. ``weights``: a weight
        for each model named in `values`, as a mapping.
    values : tuple
        What to try, ascending for a scalar; the models of an order or of weights (empty: those of the plan).
    shared : bool
        For a cut: one number for all stages. Otherwise a tuple of one number per stage but the last, or a mapping of
        ingress to such tuples where paths differ.
    """

    kind: str
    values: tuple[Any, ...]
    shared: bool

    def __new__(cls, name: str, kind: str, values: Iterable[Any] = (), *, shared: bool = False) -> Parameter:
        """Make a string that knows its kind."""
        self = super().__new__(cls, name)
        self.kind, self.values, self.shared = kind, tuple(values), shared
        return self

    def __getnewargs_ex__(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (str(self), self.kind, self.values), {"shared": self.shared}


class Strategy(ABC):
    """Base of all strategies."""

    kind: ClassVar[str]
    _kinds: ClassVar[dict[str, type[Strategy]]] = {}
    certificate: ClassVar[Certificate | None] = None
    """What `coinfer.tune` certified; of this very strategy, so that changing a parameter drops it."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" in cls.__dict__:
            Strategy._kinds[cls.kind] = cls

    @abstractmethod
    def plan(self, network: Network, ingress: str) -> PlanSpec:
        """Lay out the plan for one ingress node.

        Raises
        ------
        CoinferError
            If the strategy does not fit the network: the message names the model, node or ingress.
        """

    @property
    @abstractmethod
    def name(self) -> str:
        """A short label for tables and figures."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Give `kind` and parameters, as they stand in a strategy file."""

    @classmethod
    @abstractmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Strategy:
        """Build a strategy from `to_dict`'s table, its `kind` taken off."""

    @property
    def fitted(self) -> bool:
        """Whether nothing is left to learn: replaying a strategy that is not fitted is an error."""
        return True

    def fit(self, predictions: Predictions, network: Network) -> Strategy:
        """Learn from labelled samples what the strategy needs to know; give the strategy that can be replayed."""
        return self

    def parameters(self) -> tuple[str, ...]:
        """Name what `coinfer.tune` may move, each a `Parameter`; empty if there is nothing to tune."""
        return ()

    def with_parameters(self, **values: Any) -> Strategy:
        """Give the same strategy with other values for what `parameters` names; unfitted, if it must be fitted."""
        return replace(self, **values)  # type: ignore[type-var]  # strategies are frozen dataclasses

    def with_certificate(self, certificate: Certificate | None) -> Self:
        """Give the same strategy, carrying a certificate that is saved and opened with it."""
        carrier = copy.copy(self)
        object.__setattr__(carrier, "certificate", certificate)
        return carrier

    def __str__(self) -> str:
        return self.name

    def save(self, path: str | Path) -> None:
        """Write the strategy as TOML, atomically; long arrays go to an `.npz` of the same name."""
        from coinfer.strategy._file import write_table

        table = self.to_dict()
        if self.certificate is not None:
            table["certificate"] = self.certificate.to_dict()
        write_table(Path(path), table)

    @staticmethod
    def open(path: str | Path) -> Strategy:
        """Read a strategy file.

        Raises
        ------
        BadFileError
            If the file cannot be read or is not TOML, or its arrays are not those it was written with.
        UnknownNameError, BadValueError
            If a kind, key or value is not allowed; the message names the file and the key.
        """
        from coinfer.strategy._file import read_table

        return Strategy.parse(read_table(Path(path)), where=str(path))

    @staticmethod
    def parse(table: Mapping[str, Any], where: str = "strategy") -> Strategy:
        """Build any strategy from a table with a `kind`; `where` opens the error messages."""
        kind = table.get("kind")
        if not isinstance(kind, str) or kind not in Strategy._kinds:
            said = f"has kind {kind!r}" if "kind" in table else "has no key 'kind'"
            msg = f"{where}: {said}; {nearest(str(kind), sorted(Strategy._kinds))}"
            raise UnknownNameError(msg)
        chosen = Strategy._kinds[kind]
        rest = {key: value for key, value in table.items() if key not in ("kind", "certificate")}
        try:
            made = chosen.from_dict(rest)
            if "certificate" not in table:
                return made
            from coinfer.tuning.certificate import Certificate

            return made.with_certificate(Certificate.from_dict(table["certificate"]))
        except (UnknownNameError, BadValueError) as error:
            msg = f"{where}: {error}"
            raise type(error)(msg) from error

    @staticmethod
    def inside(table: Mapping[str, Any], kind: str) -> Strategy:
        """Build the strategy of the table ``[inner]`` that a strategy of that kind wraps."""
        inner = table.get("inner")
        if not isinstance(inner, Mapping):
            msg = f"a strategy of kind {kind!r} needs a table [inner] with the strategy that it makes aware"
            raise BadValueError(msg)
        return Strategy.parse(inner, where="inner")


def only_keys(table: Mapping[str, Any], allowed: tuple[str, ...], kind: str) -> None:
    """Refuse keys that a strategy of that kind does not have."""
    for key in table:
        if key not in allowed:
            msg = f"unknown key {key!r} of a strategy of kind {kind!r}; {nearest(key, allowed)}"
            raise UnknownNameError(msg)


def check_models(models: object, kind: str) -> tuple[str, ...]:
    """Give the models to walk past as a tuple of names; a string is one name, not many."""
    named = tuple(models) if isinstance(models, Iterable) and not isinstance(models, str) else ()
    if not named or not all(isinstance(model, str) for model in named):
        msg = f"{kind}: models must be a sequence of at least one model name, not {models!r}"
        raise BadValueError(msg)
    return named


def walk(network: Network, ingress: str, models: tuple[str, ...] | None) -> tuple[Deployment, ...]:
    """Give the deployments on the path from an ingress node, or those of them that host the models named."""
    way = path(network, ingress)
    if models is None:
        return way
    for model in models:
        network.model(model)
    way = tuple(d for d in way if d.model in models)
    if not way:
        msg = f"none of the models {', '.join(models)} stands on the path from {ingress!r}"
        raise UnsupportedError(msg)
    return way


def check_groups(groups: object, kind: str) -> tuple[tuple[str, ...], ...]:
    """Give groups of model names as tuples; no model may stand in two of them."""
    several = isinstance(groups, Iterable) and not isinstance(groups, str)
    given = tuple(check_models(group, f"{kind}: a group, where") for group in groups) if several else ()  # type: ignore[attr-defined]
    if not given:
        msg = f"{kind}: groups must be a sequence of at least one sequence of model names, not {groups!r}"
        raise BadValueError(msg)
    named = [model for group in given for model in group]
    if len(set(named)) < len(named):
        twice = next(model for model in named if named.count(model) > 1)
        msg = f"{kind}: model {twice!r} is named twice; a model has one vote"
        raise BadValueError(msg)
    return given


def nearest_deployment(
    network: Network, ingress: str, model: str, who: str, among: Iterable[Deployment] | None = None
) -> Deployment:
    """Give the nearest deployment of a model (delay, then node); `who` opens the message if there is none."""
    network.model(model)
    there = [
        d
        for d in (network.deployments if among is None else among)
        if d.model == model and network.routes.reaches(ingress, d.node)
    ]
    if not there:
        msg = f"{who}: model {model!r} stands nowhere that can be reached from {ingress!r}"
        raise UnsupportedError(msg)
    return min(there, key=lambda d: (network.routes.delay_ms(ingress, d.node), d.node))


def check_score(score: str | ScoreRule) -> str | ScoreRule:
    """Refuse a kind of score that does not exist; look up the rule that a strategy file names."""
    if isinstance(score, ScoreRule):
        return score
    if isinstance(score, str) and ":" in score:
        return find(score, ScoreRule)
    if score not in SCORES:
        msg = f"unknown score {score!r}; {nearest(str(score), SCORES)}"
        raise UnknownNameError(msg)
    return score


def score_reference(score: str | ScoreRule) -> str:
    """Give a score as it stands in a strategy file."""
    return score.reference if isinstance(score, ScoreRule) else score


def thresholds_along(
    thresholds: tuple[float, ...] | Mapping[str, float], path: tuple[Deployment, ...], ingress: str
) -> Iterator[float]:
    """Give the threshold of each stage of a path but the last, from a list or a mapping keyed by model."""
    if isinstance(thresholds, Mapping):
        for deployment in path[:-1]:
            if deployment.model not in thresholds:
                msg = (
                    f"no threshold for model {deployment.model!r}, which stands on the path from {ingress!r}; "
                    f"{nearest(deployment.model, thresholds)}"
                )
                raise UnknownNameError(msg)
            yield thresholds[deployment.model]
        return
    if len(thresholds) != len(path) - 1:
        models = " -> ".join(d.model for d in path)
        msg = (
            f"{len(thresholds)} thresholds given, but the path from {ingress!r} ({models}) needs {len(path) - 1}: "
            "one per stage but the last; thresholds keyed by model fit paths of any length"
        )
        raise BadValueError(msg)
    yield from thresholds
