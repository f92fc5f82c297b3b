"""Ask the members of an ensemble one by one, and stop when what is left will not, or can not, change the answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from coinfer._checks import check_integer, check_list, check_number
from coinfer.combiner import CombinerSpec, Lead, Posterior
from coinfer.errors import BadValueError, UnknownNameError, UnsupportedError, nearest
from coinfer.intervals import upper_bound
from coinfer.sequencing import CONFIDENCE, Cells, Groups, SequentialFit, cells, contributions, cuts, greedy
from coinfer.strategy.base import (
    Parameter,
    PlanSpec,
    StageSpec,
    Steps,
    Strategy,
    check_groups,
    check_models,
    nearest_deployment,
    only_keys,
)

if TYPE_CHECKING:
    from coinfer.compiling import Compiler
    from coinfer.network import Deployment, Network
    from coinfer.predictions import Predictions

__all__ = ["ORDERS", "STOPS", "Sequential"]

HOWS: Final = ("vote", "weighted_vote", "mean", "weighted", "logpool")
_SAME: Final = {"weighted": "mean", "weighted_vote": "vote"}
STOPS: Final = {
    "decided": ("vote", "weighted_vote", "mean", "weighted"),
    "probable": ("vote",),
    "qwyc": HOWS,
    "empirical": HOWS,
}
"""Every stop rule, with the combinations that it is offered for."""

ORDERS: Final = ("path", "given", "price", "accuracy", "random", "learned", "-price", "-accuracy")
"""A minus turns an order round."""

_DELTA: Final = 0.01
_PROBABILITY_MAX: Final = 1.0 + 2.0**-20
"""What a probability can be at most, after a softmax in float32."""


@dataclass(frozen=True)
class Sequential(Strategy):
    """Consult an ensemble one by one, and stop early.

    Parameters
    ----------
    how : {"vote", "weighted_vote", "mean", "weighted", "logpool"}
        As for `Ensemble`.
    stop : {"decided", "probable", "qwyc", "empirical"}
        ``decided``: when what is left cannot change the answer. Lossless: every decision is that of all members. Not
        for ``logpool``, where one member may veto what all others agree on.
        ``probable``: when all would agree with probability 1 - delta or more, if votes were draws from one unknown
        distribution (Dirichlet-multinomial, uniform prior; a tie counts as changed). Exact on average over random
        orders; a heuristic in any other order, and then called so. For votes without weights.
        ``qwyc``: when the lead of the running answer reaches a threshold of its stage. Learned by `fit` from half of
        the samples and accepted where, on the other half, the exact binomial bound is at most delta.
        ``empirical``: when P(disagree | stage, lead), as counted on half of the samples by `fit`, is at most delta at
        its own exact binomial bound; what that gives in all is measured on the other half.
    order : str
        ``path``: nearer tiers first, then smaller delay. ``given``: that of `models` or `groups`. ``price``: cheapest
        first. ``accuracy``: least accurate first, by labels of the samples that `fit` learns from. ``random``: drawn
        from `seed`. ``learned``: for ``qwyc``, by cost per newly settled sample. ``-price`` and ``-accuracy`` turn
        them round.
    delta : float, optional
        In [0, 1): how often the answer may differ from that of all members. Default .01; ``decided`` has none.
    weights : mapping of model to float, optional
        One per model; ``weighted`` and ``weighted_vote`` demand them.
    models : sequence of str, optional
        Ask these. Default: every deployed model, each at its nearest deployment.
    groups : sequence of sequences of str, optional
        Instead of `models`: each group is asked in parallel, group after group.
    ms_per_usd : float, default 0
        For ``learned``: milliseconds that a dollar is worth.
    seed : int, default 0
        Draws the random order, and which half is learned from.
    fits : mapping of ingress to SequentialFit, optional
        What `fit` finds; not written by hand.

    Notes
    -----
    The score that is compared, and reported as the confidence, is the lead in votes (or units of weight), or for
    ``probable`` the posterior probability. A member that does not answer or abstains only takes from what is left.

    A lead in probabilities can shrink by 1 + 2^-20 times the weight of each member to come, and the sums carry the
    rounding of a double: ``decided`` allows for both.

    References
    ----------
    Hernandez-Lobato, Martinez-Munoz, Suarez, "Statistical instance-based pruning in ensembles of independent
    classifiers", IEEE TPAMI 2009; Wang, Gupta, Fei, "Quit when you can", arXiv 1806.11202.

    Examples
    --------
    >>> import coinfer as ci
    >>> preds = ci.Predictions({m: ci.ModelOutput(label=y) for m, y in
    ...     {"a": [0, 1, 1], "b": [0, 1, 0], "c": [0, 0, 1]}.items()}, labels=[0, 1, 1])
    >>> net = ci.Network([ci.Node("n", 0)], [], [], [ci.Deployment(m, "n") for m in "abc"])
    >>> trace = ci.Trace([0, 1, 2], ["n"] * 3, [0, 1, 2])
    >>> run = ci.replay(trace, preds, net, ci.Sequential("vote", "decided"))
    >>> [float(share) for share in run.summary.settled_by_stage]
    [0.0, 0.6666666666666666, 0.3333333333333333]
    """

    kind: ClassVar[str] = "sequential"
    how: str = "vote"
    stop: str = "decided"
    order: str = "path"
    delta: float | None = None
    weights: Mapping[str, float] | None = None
    models: tuple[str, ...] | None = None
    groups: Groups | None = None
    ms_per_usd: float = 0.0
    seed: int = 0
    fits: Mapping[str, SequentialFit] | None = None

    def __post_init__(self) -> None:
        for given, known, what in ((self.how, HOWS, "how"), (self.stop, STOPS, "stop"), (self.order, ORDERS, "order")):
            if given not in known:
                msg = f"Sequential: unknown {what} {given!r}; {nearest(str(given), known)}"
                raise UnknownNameError(msg)
        if self.how not in STOPS[self.stop]:
            msg = (
                f"Sequential: stop={self.stop!r} is not offered for how={self.how!r}, only for "
                f"{', '.join(STOPS[self.stop])}; stop='qwyc' learns when to stop, whatever is combined"
            )
            raise UnsupportedError(msg)
        self._check_members()
        if self.order == "learned" and self.stop != "qwyc":
            msg = f"Sequential: order='learned' is found together with the thresholds of stop='qwyc', not {self.stop!r}"
            raise UnsupportedError(msg)
        if self.order == "given" and self.models is None and self.groups is None:
            msg = "Sequential: order='given' needs models= or groups=, which give it"
            raise BadValueError(msg)
        if self.stop == "decided" and self.delta is not None:
            msg = "Sequential: stop='decided' changes nothing, so it takes no delta; use 'probable' or 'qwyc'"
            raise BadValueError(msg)
        if self.stop != "decided":
            delta = check_number(_DELTA if self.delta is None else self.delta, "Sequential: delta", at_most=1.0)
            if delta == 1.0:
                msg = "Sequential: delta must be below 1"
                raise BadValueError(msg)
            object.__setattr__(self, "delta", delta)
        object.__setattr__(self, "ms_per_usd", check_number(self.ms_per_usd, "Sequential: ms_per_usd"))
        object.__setattr__(self, "seed", check_integer(self.seed, "Sequential: seed"))

    def _check_members(self) -> None:
        if self.models is not None and self.groups is not None:
            msg = "Sequential: give models (one by one) or groups (in parallel), not both"
            raise BadValueError(msg)
        if self.models is not None:
            models = check_models(self.models, "Sequential")
            check_groups([models], "Sequential")
            object.__setattr__(self, "models", models)
        if self.groups is not None:
            object.__setattr__(self, "groups", check_groups(self.groups, "Sequential"))
        if self.weights is None:
            if self.how in _SAME:
                msg = (
                    f"Sequential: how={self.how!r} needs weights=, keyed by model; how={_SAME[self.how]!r} gives all "
                    "the same"
                )
                raise BadValueError(msg)
            return
        if self.stop == "probable":
            msg = "Sequential: stop='probable' counts votes of equal weight, so it takes no weights; use 'decided'"
            raise UnsupportedError(msg)
        if not isinstance(self.weights, Mapping):
            msg = f"Sequential: weights must be a mapping of model to number, not {self.weights!r}"
            raise BadValueError(msg)
        checked = {str(m): check_number(w, f"Sequential: weight of model {m!r}") for m, w in self.weights.items()}
        if not any(checked.values()):
            msg = "Sequential: weights are all 0; at least one must be above 0"
            raise BadValueError(msg)
        object.__setattr__(self, "weights", checked)

    @property
    def name(self) -> str:
        """A short label for tables and figures."""
        said = [self.how, self.stop if self.delta is None else f"{self.stop} {self.delta:g}", f"{self.order} order"]
        return f"Sequential({', '.join(said)}{', heuristic' if self.heuristic else ''})"

    @property
    def heuristic(self) -> bool:
        """Whether the rule holds under an assumption that the order breaks: see ``probable``."""
        return self.stop == "probable" and self.order != "random"

    @property
    def fitted(self) -> bool:
        """Whether nothing is left to learn."""
        learns = self.stop in ("qwyc", "empirical") or self.order in ("accuracy", "-accuracy", "learned")
        return self.fits is not None or not learns

    # ------------------------------------------------------------------------------------------------------ the plan

    def plan(self, network: Network, ingress: str) -> PlanSpec:
        """Consult group after group, until the answer is safe enough."""
        if not self.fitted:
            msg = f"{self.name} is not fitted yet: use Sequential(...).fit(predictions, network)"
            raise UnsupportedError(msg)
        fit = None
        if self.fits is not None:
            if ingress not in self.fits:
                msg = f"{self.name} was not fitted for ingress {ingress!r}; {nearest(ingress, self.fits)}"
                raise UnknownNameError(msg)
            fit = self.fits[ingress]
        return self._plan(network, ingress, self._ordered(network, ingress) if fit is None else fit.groups, fit)

    def _plan(self, network: Network, ingress: str, groups: Groups, fit: SequentialFit | None) -> PlanSpec:
        members = [tuple(nearest_deployment(network, ingress, m, self.name) for m in group) for group in groups]
        weights = self._weights(groups)
        to_come = np.cumsum([len(group) for group in groups][::-1])[::-1][1:].tolist()
        combiner: CombinerSpec = Lead(_SAME.get(self.how, self.how))
        rules: list[tuple[float, Steps | None]]
        if self.stop == "probable":
            assert self.delta is not None
            combiner = Posterior((*to_come, 0))
            rules = [(_below(1.0 - self.delta), None)] * len(to_come)
        elif fit is not None and self.stop == "qwyc":
            rules = [(threshold, None) for threshold in fit.thresholds]
        elif fit is not None and self.stop == "empirical":
            assert self.delta is not None
            rules = [(-self.delta, _curve(known)) for known in fit.cells]
        else:
            rules = [(threshold, None) for threshold in self._sure(groups).tolist()]
        stages = [StageSpec(m, threshold, curve) for m, (threshold, curve) in zip(members, rules, strict=False)]
        return PlanSpec((*stages, StageSpec(members[-1], -math.inf)), combiner=combiner, weights=weights)

    def _weights(self, groups: Groups) -> dict[str, float]:
        if self.weights is None:
            return {}
        names = [model for group in groups for model in group]
        for model in self.weights:
            if model not in names:
                msg = f"{self.name}: model {model!r} has a weight but is not asked; {nearest(model, names)}"
                raise UnknownNameError(msg)
        for model in names:
            if model not in self.weights:
                msg = f"{self.name}: model {model!r} has no weight; weights are keyed by model, one for each"
                raise UnsupportedError(msg)
        return {model: self.weights[model] for model in names}

    def _sure(self, groups: Groups) -> Any:
        """Give the least lead, per stage but the last, that nothing to come can make up for."""
        if self.how == "logpool":
            return np.full(len(groups) - 1, np.inf, np.float32)
        weights = [sum((self.weights or {}).get(model, 1.0) for model in group) for group in groups]
        left = np.cumsum(weights[::-1])[::-1][1:]
        if self.how in ("mean", "weighted"):
            members = sum(map(len, groups))
            left = left * _PROBABILITY_MAX + sum(weights) * (members + 2) * 2.0**-51
        elif self.weights is not None and any(w != int(w) for w in self.weights.values()):
            left = left + sum(weights) * (sum(map(len, groups)) + 2) * 2.0**-51
        return np.array([_above(value) for value in left], np.float32)

    # ------------------------------------------------------------------------------------------------------ the order

    def _units(self, network: Network) -> Groups:
        if self.groups is not None:
            return self.groups
        models = self.models or tuple(dict.fromkeys(d.model for d in network.deployments))
        return tuple((model,) for model in models)

    def _ordered(self, network: Network, ingress: str, predictions: Predictions | None = None) -> Groups:
        """Order the groups by anything but what is learned together with thresholds."""
        units = self._units(network)
        if len(units) > 255 or any(len(unit) > 255 for unit in units):
            msg = f"{self.name}: a plan has at most 255 stages of at most 255 models; use models="
            raise UnsupportedError(msg)
        if self.order == "random":
            drawn = np.random.Generator(np.random.Philox(self.seed)).permutation(len(units))
            return tuple(units[i] for i in drawn)
        if self.order == "given" or (self.order == "learned" and predictions is None):
            return units
        nearby = {unit: [nearest_deployment(network, ingress, model, self.name) for model in unit] for unit in units}
        key: dict[tuple[str, ...], Any] = {}
        for unit, members in nearby.items():
            delay = max(network.routes.delay_ms(ingress, d.node) for d in members)
            if self.order.endswith("accuracy"):
                assert predictions is not None
                key[unit] = sum(predictions.accuracy(model) for model in unit) / len(unit)
            elif self.order.endswith("price"):
                key[unit] = sum(_price_usd(network, ingress, d) for d in members), delay
            else:
                key[unit] = max(network.node(d.node).tier for d in members), delay
        return tuple(sorted(units, key=lambda unit: key[unit], reverse=self.order.startswith("-")))

    # ------------------------------------------------------------------------------------------------------- learning

    def fit(self, predictions: Predictions, network: Network) -> Sequential:
        """Learn order and thresholds for every ingress node, and measure how often they change the decision of all.

        Parameters
        ----------
        predictions : Predictions
            Half of the samples, drawn from `seed`, is learned from; the other half measured on. Where nothing is
            learned from the decisions of members (``decided``, or ``probable`` in an order without labels), all are.
            True labels are needed for the orders by accuracy alone.
        network : Network
            Delays, service times and prices are taken from here.

        Returns
        -------
        Sequential
            The same strategy, ready to replay, with `fits`.
        """
        from coinfer.compiling import Compiler

        by_accuracy = self.order.endswith("accuracy")
        if by_accuracy and (predictions.labels is None or not np.any(predictions.labels >= 0)):
            msg = f"{self.name} orders models by accuracy, which needs true labels, but these predictions have none"
            raise UnsupportedError(msg)
        if len(predictions) < 2:
            msg = f"{self.name} is fitted on one half of the samples and measured on the other; there are too few"
            raise UnsupportedError(msg)
        learn = measure = predictions
        if self.stop in ("qwyc", "empirical") or (self.stop == "probable" and by_accuracy):
            drawn = np.random.Generator(np.random.Philox((1 << 64) + self.seed)).permutation(len(predictions))
            half = len(predictions) // 2
            learn = predictions.select(np.sort(drawn[:half]))
            measure = predictions.select(np.sort(drawn[half:]))
        learner, measurer = Compiler(learn, network), Compiler(measure, network)
        fits: dict[str, SequentialFit] = {}
        known: dict[object, SequentialFit] = {}
        for ingress in network.ingress:
            units = self._ordered(network, ingress, learn if self.order != "learned" else None)
            cost = self._costs(learner, network, ingress, units)
            key = (units, tuple(cost.values()))
            if key not in known:
                known[key] = self._fit(learner, measurer, ingress, units, cost)
            fits[ingress] = known[key]
        return replace(self, fits=fits)

    def _costs(self, compiler: Compiler, network: Network, ingress: str, units: Groups) -> dict[tuple[str, ...], float]:
        """Give what each group costs when the ingress asks it, in ms; 1 each if nothing costs anything."""
        cost = {}
        for unit in units:
            latency_ms, usd = 0.0, 0.0
            for model in unit:
                alone = PlanSpec((StageSpec((nearest_deployment(network, ingress, model, self.name),)),))
                (latency_ns,), (pico_usd,) = compiler.settling(alone, ingress)
                latency_ms = max(latency_ms, float(np.mean(latency_ns)) / 1e6)
                usd += pico_usd / 1e12
            cost[unit] = latency_ms + self.ms_per_usd * usd
        return cost if any(cost.values()) else dict.fromkeys(cost, 1.0)

    def _fit(
        self, learner: Compiler, measurer: Compiler, ingress: str, units: Groups, cost: Mapping[tuple[str, ...], float]
    ) -> SequentialFit:
        if self.order == "learned":
            units = self._learned(learner, ingress, units, cost)
        blank = SequentialFit(units, (), (), 0, 0, 1.0, 0.0, certified=False, heuristic=self.heuristic)
        if self.stop not in ("qwyc", "empirical") or len(units) == 1:
            return self._measured(measurer, ingress, blank)
        assert self.delta is not None
        sure = self._sure(units)
        lossless = replace(blank, thresholds=tuple(sure.tolist()))
        evidence = learner.compile(
            self._plan(
                learner.network,
                ingress,
                units,
                lossless if self.stop == "qwyc" else replace(blank, cells=_never(units)),
            ),
            ingress,
        ).evidence
        wrong = evidence.label != evidence.label[-1]
        if self.stop == "empirical":
            return self._measured(
                measurer, ingress, replace(blank, cells=cells(evidence.score, wrong, sure, self.delta))
            )
        # From the most cautious thresholds to the boldest, as long as the other half bears them out: tests in a fixed
        # sequence, each at the full level (Bauer 1991).
        price = np.array([cost[unit] for unit in units])
        accepted, tried = self._measured(measurer, ingress, lossless), sure
        for worth in np.geomspace(2.0 * len(learner.predictions), 0.5, 97):
            found = cuts(evidence.score, wrong, price / price.sum(), sure, worth, tried)
            if np.array_equal(found, tried):
                continue
            tried = found
            bold = self._measured(measurer, ingress, replace(blank, thresholds=tuple(found.tolist())))
            if not bold.certified:
                break
            accepted = bold
        return accepted

    def _learned(
        self, compiler: Compiler, ingress: str, units: Groups, cost: Mapping[tuple[str, ...], float]
    ) -> Groups:
        assert self.delta is not None
        predictions, network = compiler.predictions, compiler.network
        blank = SequentialFit(
            units, tuple([math.inf] * (len(units) - 1)), (), 0, 0, 1.0, 0.0, certified=False, heuristic=False
        )
        final = compiler.compile(self._plan(network, ingress, units, blank), ingress).evidence.label[-1]
        weights = self._weights(units)
        how = _SAME.get(self.how, self.how)

        def added(unit: tuple[str, ...], rows: Any) -> Any:
            return sum(
                weights.get(model, 1.0) * contributions(predictions, model, how, compiler.abstentions(model), rows)
                for model in unit
            )

        weight = {
            unit: math.inf if how == "logpool" else sum(weights.get(model, 1.0) for model in unit) for unit in units
        }
        return greedy(units, added, final, cost, weight, self.delta)

    def _measured(self, compiler: Compiler, ingress: str, fit: SequentialFit) -> SequentialFit:
        """Count on how many samples the answer differs from that of all members, by the decisions of the engine."""
        compiled = compiler.compile(self._plan(compiler.network, ingress, fit.groups, fit), ingress)
        label, at = compiled.evidence.label, compiled.decisions.route
        rows = np.arange(label.shape[1])
        disagreed = int(np.count_nonzero(label[at, rows] != label[-1]))
        high = float(upper_bound(disagreed, len(rows), CONFIDENCE))
        sizes = np.cumsum([len(group) for group in fit.groups])
        certified = self.stop == "decided" or (self.delta is not None and high <= self.delta)
        if fit.thresholds and fit.thresholds == tuple(self._sure(fit.groups).tolist()):
            certified = True
        return replace(
            fit,
            samples=len(rows),
            disagreed=disagreed,
            high=high,
            consulted=float(sizes[at].mean()),
            certified=certified,
        )

    def parameters(self) -> tuple[str, ...]:
        """Name what may be tuned: delta, unless nothing may change."""
        if self.stop == "decided":
            return ()
        return (Parameter("delta", "scalar", (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)),)

    def with_parameters(self, **values: Any) -> Sequential:
        """Give the same strategy with another delta, to be fitted if it must be."""
        return replace(self, fits=None, **values)

    # ---------------------------------------------------------------------------------------------------------- files

    def to_dict(self) -> dict[str, Any]:
        """Give `kind` and parameters, as in a strategy file; what was fitted stands in `[[fit]]` tables."""
        table: dict[str, Any] = {"kind": self.kind, "how": self.how, "stop": self.stop, "order": self.order}
        if self.delta is not None:
            table["delta"] = self.delta
        if self.weights is not None:
            table["weights"] = dict(self.weights)
        if self.models is not None:
            table["models"] = list(self.models)
        if self.groups is not None:
            table["groups"] = [list(group) for group in self.groups]
        if self.ms_per_usd:
            table["ms_per_usd"] = self.ms_per_usd
        if self.seed:
            table["seed"] = self.seed
        if self.fits is not None:
            table["fit"] = [{"ingress": ingress, **_fit_table(fit)} for ingress, fit in self.fits.items()]
        return table

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Sequential:
        """Build from `to_dict`'s table, its `kind` taken off."""
        keys = ("how", "stop", "order", "delta", "weights", "models", "groups", "ms_per_usd", "seed", "fit")
        only_keys(table, keys, cls.kind)
        given = dict(table)
        rows = given.pop("fit", None)
        if rows is not None:
            given["fits"] = {}
            for at, row in enumerate(check_list(rows, "fit", "tables, written [[fit]]")):
                try:
                    given["fits"][str(row["ingress"])] = _fit_of(row)
                except (KeyError, TypeError, ValueError) as error:
                    msg = f"[[fit]] {at} must have {', '.join(_FIT_KEYS)} as they were saved: {error!r}"
                    raise BadValueError(msg) from None
        made = cls(**given)
        for ingress, fit in (made.fits or {}).items():
            learned = {"qwyc": fit.thresholds, "empirical": fit.cells}.get(made.stop)
            if learned is not None and len(learned) != len(fit.groups) - 1:
                msg = (
                    f"[[fit]] of ingress {ingress!r} has {len(fit.groups)} groups, but rules for {len(learned)} of them"
                )
                raise BadValueError(msg)
        return made


_FIT_KEYS: Final = ("ingress", "groups", "samples", "disagreed", "high", "consulted", "certified", "heuristic")


def _fit_table(fit: SequentialFit) -> dict[str, Any]:
    table: dict[str, Any] = {"groups": [list(group) for group in fit.groups]}
    if fit.thresholds:
        table["thresholds"] = list(fit.thresholds)
    for key in _FIT_KEYS[2:]:
        table[key] = getattr(fit, key)
    if fit.cells:
        table["cells"] = [
            {key: list(getattr(known, key)) for key in ("lead", "samples", "disagreed", "high")} for known in fit.cells
        ]
    return table


def _fit_of(row: Mapping[str, Any]) -> SequentialFit:
    known = tuple(
        Cells(
            _floats(table["lead"]),
            tuple(map(int, table["samples"])),
            tuple(map(int, table["disagreed"])),
            _floats(table["high"]),
        )
        for table in row.get("cells", ())
    )
    if any(not cell.lead or len(cell.lead) != len(cell.high) for cell in known):
        msg = "each of cells needs as many bounds as leads"
        raise ValueError(msg)
    return SequentialFit(
        check_groups(row["groups"], "groups"),
        _floats(row.get("thresholds", ())),
        known,
        int(row["samples"]),
        int(row["disagreed"]),
        float(row["high"]),
        float(row["consulted"]),
        bool(row["certified"]),
        bool(row["heuristic"]),
    )


def _floats(values: Iterable[Any]) -> tuple[float, ...]:
    return tuple(map(float, values))


def _never(groups: Groups) -> tuple[Cells, ...]:
    return (Cells((-math.inf,), (0,), (0,), (1.0,)),) * (len(groups) - 1)


def _curve(known: Cells) -> Steps:
    """Minus the bound, by the lead; a lead below all that were seen is never safe."""
    return (-math.inf, *known.lead), (-1.0, *(-bound for bound in known.high))


def _price_usd(network: Network, ingress: str, deployment: Deployment) -> float:
    model = network.model(deployment.model)
    there = sum(network.links[at].price_usd_per_mb for at, _ in network.routes.hops(ingress, deployment.node))
    back = sum(network.links[at].price_usd_per_mb for at, _ in network.routes.hops(deployment.node, ingress))
    return deployment.price_usd + (there * model.request_kb + back * model.answer_kb) / 1e3


def _above(value: float) -> np.float32:
    """Give the least float32 above a number."""
    near = np.float32(value)
    return near if float(near) > value else np.nextafter(near, np.float32(np.inf))


def _below(value: float) -> float:
    """Give the greatest float32 that is not above a number, as the posterior is rounded, so that ties stay ties."""
    near = np.float32(value)
    return float(near if float(near) <= value else np.nextafter(near, np.float32(-np.inf)))
