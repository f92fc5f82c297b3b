"""Where to go first, and where to go next: by the label and the score that the first model gives.

Services are good at different classes. A table with one line per class of the first model says from which score on its
answer is taken, and which model is asked otherwise; tiers between the two are skipped. What the second model says is
taken, unless it abstains: then the next one in line is asked.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from coinfer._checks import check_integer, check_number
from coinfer._core import rule as engine
from coinfer.errors import BadValueError, UnknownNameError, UnsupportedError, nearest
from coinfer.strategy.base import (
    Parameter,
    PlanSpec,
    StageSpec,
    Strategy,
    check_models,
    check_score,
    only_keys,
    score_reference,
    walk,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer.compiling import Compiler
    from coinfer.network import Deployment, Network
    from coinfer.predictions import Predictions
    from coinfer.rule import ScoreRule

__all__ = ["Route", "Router", "Table"]


@dataclass(frozen=True, slots=True)
class Route:
    """A stop rule by table: at the first stage settle iff score >= cut of the label, else go that many stages ahead.

    One entry per class, then one for requests without an answer. A cut of -inf settles whatever the score.
    """

    cut: tuple[float, ...]
    steps: tuple[int, ...]
    jumps: ClassVar[bool] = True
    opens: ClassVar[bool] = False
    first_only: ClassVar[bool] = True

    def key(self, seed: int) -> Hashable:
        """Equal keys give equal decisions."""
        return self

    def build(self, seed: int) -> engine.Stop:
        """Make the engine's rule."""
        return engine.route(self.cut, self.steps)

    def say(self, label: int, score: float, steps: int) -> str:
        """Put a decision in words."""
        ahead = "goes on" if steps == 1 else f"skips {steps - 1}"
        if label < 0:
            return f"{'no answer' if label == -1 else 'abstains'}: {ahead}"
        return (
            f"{'>=' if steps == 0 else '<'} {self.cut[label]:.6g} for this label: {'settles' if steps == 0 else ahead}"
        )


@dataclass(frozen=True, slots=True)
class Table:
    """What was learned for one ingress node: the models in order, and per class a cut and the stage asked below it."""

    models: tuple[str, ...]
    cut: tuple[float, ...]
    next: tuple[int, ...]


@dataclass(frozen=True)
class Router(Strategy):
    """Choose the first model, and by what it says whether to take it or which model to ask next.

    Parameters
    ----------
    model : str, optional
        Where to go first. Default: the model with which the whole comes out best.
    alpha : float
        Milliseconds that a wrong answer is worth, > 0: a request costs
        ``latency_ms + ms_per_usd x price + alpha x (wrong or not)``, and the sum over the fitting samples is minimised.
    ms_per_usd : float
        Milliseconds that a dollar is worth, >= 0.
    score : str or ScoreRule
        As for `Forward`; only the first model needs it.
    models : sequence of str, optional
        Only these, of the path. Default: every tier's nearest deployment.
    min_samples : int, default 20
        A class that the first model gave less often than this when the table was learned is treated like all together.
    tables : mapping of ingress to Table, optional
        What `fit` finds; not written by hand.

    Notes
    -----
    The table is the exact minimum over all tables with one cut and one next model per class: classes are independent of
    each other, and within one the samples are sorted by score once. A first model that gives labels only is routed by
    label alone. FrugalML mixes two such tables at random to meet a budget; here one is swept by `alpha`.

    References
    ----------
    Chen, Zaharia, Zou, "FrugalML: how to use ML prediction APIs more accurately and cheaply", NeurIPS 2020.

    Examples
    --------
    >>> import coinfer as ci
    >>> preds = ci.Predictions(
    ...     {"cats": ci.ModelOutput(label=[0, 0, 1, 1], confidence=[0.6, 0.5, 0.9, 0.8]),
    ...      "dogs": ci.ModelOutput(label=[1, 0, 0, 0], confidence=[0.9, 0.9, 0.9, 0.9])}, labels=[0, 0, 0, 0])
    >>> net = ci.Network.chain({"device": "cats", "cloud": "dogs"}, delay_ms=[20], service_ms=[1, 5])
    >>> router = ci.Router("cats", alpha=100, min_samples=1).fit(preds, net)
    >>> router.tables["device"].cut[:2]  # what it says of class 0 is taken, of class 1 never
    (-inf, inf)
    """

    kind: ClassVar[str] = "router"
    model: str | None = None
    _: KW_ONLY
    alpha: float
    ms_per_usd: float = 0.0
    score: str | ScoreRule = "confidence"
    models: tuple[str, ...] | None = None
    min_samples: int = 20
    tables: Mapping[str, Table] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "score", check_score(self.score))
        check_number(self.alpha, "Router: alpha", above=0.0)
        check_number(self.ms_per_usd, "Router: ms_per_usd")
        check_integer(self.min_samples, "Router: min_samples", at_least=1)
        if self.model is not None and not isinstance(self.model, str):
            msg = f"Router: model must be the name of the first model, not {self.model!r}"
            raise BadValueError(msg)
        if self.models is not None:
            object.__setattr__(self, "models", check_models(self.models, "Router"))

    @property
    def name(self) -> str:
        """A short label for tables and figures."""
        return f"Router({'' if self.model is None else f'{self.model}, '}{self.alpha:g} ms)"

    @property
    def fitted(self) -> bool:
        """Whether the tables are learned."""
        return self.tables is not None

    def fit(self, predictions: Predictions, network: Network) -> Router:
        """Learn a table for every ingress node of a network.

        Parameters
        ----------
        predictions : Predictions
            With true labels; replay on other samples than these.
        network : Network
            Mean times and prices are taken from here.

        Returns
        -------
        Router
            The same strategy, ready to replay.
        """
        from coinfer.compiling import Compiler

        if predictions.labels is None or not np.any(predictions.labels >= 0):
            msg = "Router is fitted on the true labels of the samples, but these predictions have none"
            raise UnsupportedError(msg)
        compiler = Compiler(predictions, network)
        tables = {}
        for ingress in network.ingress:
            way = walk(network, ingress, self.models)
            firsts = [d for d in way if self.model in (None, d.model)]
            if not firsts:
                msg = f"{self.name}: {self.model!r} does not stand on the path from {ingress!r}; "
                raise UnknownNameError(msg + nearest(str(self.model), [d.model for d in way]))
            found = [self._table(compiler, ingress, first, way) for first in firsts]
            tables[ingress] = min(found, key=lambda pair: pair[0])[1]
        return replace(self, tables=tables)

    def _table(
        self, compiler: Compiler, ingress: str, first: Deployment, way: tuple[Deployment, ...]
    ) -> tuple[float, Table]:
        """Learn the table for one first model; give its total cost on the samples too."""
        order = (first, *(d for d in way if d is not first))
        classes = compiler.predictions.class_count
        stages = len(order)
        onward = Route((math.inf,) * (classes + 1), (1,) * (classes + 1)) if stages > 1 else None
        spec = PlanSpec(tuple(StageSpec((d,)) for d in order), self.score, stop=onward)
        evidence = compiler.compile(spec, ingress).evidence
        truth = compiler.predictions.labels
        assert truth is not None
        known = truth >= 0
        label, score = evidence.label[:, known], evidence.score[0, known]

        def cost(visited: list[int], rows: NDArray[np.bool_]) -> NDArray[np.float64]:
            ns, pico_usd = compiler.walking(spec, ingress, visited)
            every = np.broadcast_to(np.asarray(ns, np.float64), len(truth))[known][rows]
            stands = label[visited[0], rows]
            for stage in visited[1:]:
                stands = np.where(label[stage, rows] != -1, label[stage, rows], stands)
            wrong = stands != truth[known][rows]
            made: NDArray[np.float64] = every / 1e6 + self.ms_per_usd * pico_usd / 1e12 + self.alpha * wrong
            return made

        stay = cost([0], np.ones(label.shape[1], bool))
        go = np.zeros((stages, len(stay)))  # [next stage][sample]; going on where a stage gives no answer
        for start in range(1, stages):
            open_, visited = np.ones(len(stay), bool), [0]
            for stage in range(start, stages):
                visited.append(stage)
                ends = open_ & (label[stage] >= 0) if stage + 1 < stages else open_
                go[start, ends] = cost(visited, ends)
                open_ &= ~ends
        names = tuple(d.model for d in order)
        if stages == 1:
            return float(stay.sum()), Table(names, (-math.inf,) * (classes + 1), (1,) * (classes + 1))
        answered = label[0] >= 0
        usual = _best_line(score[answered], stay[answered], go[:, answered])
        onto = 1 + int(np.argmin(go[1:].sum(axis=1)))
        lines = []
        for k in range(classes):
            here, abstains = label[0] == k, label[0] == -2 - k
            if abstains.any():
                lines.append((math.inf, 1 + int(np.argmin(go[1:, abstains].sum(axis=1)))))
            elif here.sum() >= self.min_samples:
                lines.append(_best_line(score[here], stay[here], go[:, here]))
            else:
                lines.append(usual)
        silent = label[0] == -1
        lines.append((math.inf, 1 + int(np.argmin(go[1:, silent].sum(axis=1))) if silent.any() else onto))
        cut, following = (tuple(column) for column in zip(*lines, strict=True))
        at = np.where(label[0] >= 0, label[0], np.where(silent, classes, -2 - label[0]))
        cuts = np.array(cut, np.float32)[at]
        settles = answered & ((score >= cuts) | (cuts == -np.inf))
        total = np.where(settles, stay, go[np.array(following)[at], np.arange(len(stay))]).sum()
        return float(total), Table(names, cut, following)

    def plan(self, network: Network, ingress: str) -> PlanSpec:
        """Lay out the first model, then the others, with the table as the rule."""
        if self.tables is None:
            msg = f"{self.name} is not fitted yet: use Router(...).fit(predictions, network)"
            raise UnsupportedError(msg)
        if ingress not in self.tables:
            msg = f"{self.name} was not fitted for ingress {ingress!r}; {nearest(ingress, self.tables)}"
            raise UnknownNameError(msg)
        table = self.tables[ingress]
        way = {d.model: d for d in walk(network, ingress, table.models)}
        missing = [model for model in table.models if model not in way]
        if missing:
            msg = f"{self.name} was fitted with model {missing[0]!r}, which does not stand on the path from {ingress!r}"
            raise UnsupportedError(msg)
        stages = tuple(StageSpec((way[model],)) for model in table.models)
        stop = Route(table.cut, table.next) if len(stages) > 1 else None
        return PlanSpec(stages, self.score, stop=stop)

    def parameters(self) -> tuple[str, ...]:
        """Name what may be tuned: alpha, from a millisecond to a quarter of an hour per wrong answer."""
        return (Parameter("alpha", "scalar", (float(f"{value:.4g}") for value in np.geomspace(1, 1e6, 37))),)

    def with_parameters(self, **values: Any) -> Router:
        """Give the same strategy for another alpha, to be fitted."""
        return replace(self, tables=None, **values)

    def to_dict(self) -> dict[str, Any]:
        """Give `kind` and parameters, as in a strategy file; what was learned stands in `[[table]]`."""
        made: dict[str, Any] = {"kind": self.kind}
        if self.model is not None:
            made["model"] = self.model
        made |= {"alpha": self.alpha, "ms_per_usd": self.ms_per_usd, "score": score_reference(self.score)}
        if self.models is not None:
            made["models"] = list(self.models)
        made["min_samples"] = self.min_samples
        if self.tables is not None:
            made["table"] = [
                {"ingress": ingress, "models": list(t.models), "cut": list(t.cut), "next": list(t.next)}
                for ingress, t in self.tables.items()
            ]
        return made

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Router:
        """Build from `to_dict`'s table, its `kind` taken off."""
        only_keys(table, ("model", "alpha", "ms_per_usd", "score", "models", "min_samples", "table"), cls.kind)
        given = dict(table)
        if "alpha" not in given:
            msg = "a strategy of kind 'router' needs alpha, the milliseconds that a wrong answer is worth"
            raise BadValueError(msg)
        rows = given.pop("table", None)
        if rows is not None:
            if not isinstance(rows, list):
                msg = f"table must be an array of tables, written [[table]], not {rows!r}"
                raise BadValueError(msg)
            given["tables"] = dict(_read_table(row, at) for at, row in enumerate(rows))
        return cls(**given)


def _best_line(score: NDArray[np.float32], stay: NDArray[np.float64], go: NDArray[np.float64]) -> tuple[float, int]:
    """Find the cut and the next stage of least cost; whole ties are cut, and no score (NaN) lies below every score."""
    if not len(score):
        return -math.inf, 1
    order = np.argsort(-score, kind="stable")  # NaN comes last
    score, stay, go = score[order], stay[order], go[1:, order]
    # after[j][k]: the k surest stay, the others go to stage j + 1
    none = np.zeros((len(go), 1))
    after = np.concatenate([[0.0], np.cumsum(stay)]) + np.concatenate(
        [np.cumsum(go[:, ::-1], axis=1)[:, ::-1], none], axis=1
    )
    whole = np.concatenate([[True], (score[1:] != score[:-1]) & ~(np.isnan(score[1:]) & np.isnan(score[:-1])), [True]])
    after[:, ~whole] = np.inf
    best = int(after.shape[1] - 1 - np.argmin(after.min(axis=0)[::-1]))  # of equals, the one that stays most
    onto = 1 + int(np.argmin(after[:, best]))
    if best == 0:
        return math.inf, onto
    if best == len(score):
        return -math.inf, onto
    above, below = score[best - 1], score[best]
    if np.isnan(above):
        return math.inf, onto
    middle = above if np.isnan(below) else np.float32((float(above) + float(below)) / 2)
    return float(middle if middle > below or np.isnan(below) else above), onto


def _read_table(row: Any, at: int) -> tuple[str, Table]:
    try:
        ingress, models = str(row["ingress"]), tuple(map(str, row["models"]))
        cut, following = tuple(map(float, row["cut"])), tuple(map(int, row["next"]))
    except (KeyError, TypeError, ValueError) as error:
        msg = f"[[table]] {at} must have ingress, models, cut and next: {error}"
        raise BadValueError(msg) from None
    if not models or not cut or len(cut) != len(following) or any(map(math.isnan, cut)):
        msg = f"[[table]] {at} of ingress {ingress!r}: one cut, a number, and one next for each class and for no answer"
        raise BadValueError(msg)
    if not all(1 <= stage < max(len(models), 2) for stage in following):
        msg = f"[[table]] {at} of ingress {ingress!r}: next must be a later stage, 1 to {len(models) - 1}"
        raise BadValueError(msg)
    return ingress, Table(models, cut, following)
