"""From a strategy to what the engine runs: plans, evidence, decisions, and lanes over the network.

Three things are shared as widely as they can be, each under the key of what it depends on. Evidence (labels and
scores of every sample at every stage) depends on models, groups and scores, not on thresholds; decisions add
thresholds; lanes (one per ingress node) add delays and prices. A billion requests over a million samples cost a
million scorings, and ten strategies over the same path with the same score cost one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer import service as laws
from coinfer._core import plan as core
from coinfer._core import sim
from coinfer.combiner import combiner
from coinfer.errors import BadValueError, CoinferError, UnknownNameError, UnsupportedError, nearest
from coinfer.outage import rows as outage_rows
from coinfer.rule import ScoreRule

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer.combiner.base import Needs
    from coinfer.network import Deployment, Network
    from coinfer.predictions import Predictions
    from coinfer.strategy.base import PlanSpec, StageSpec, Strategy

__all__ = ["CompiledPlan", "Compiler", "outputs_of"]

Leg = tuple[int, int, list[tuple[int, float]], list[tuple[int, int, int, float]]]
"""Nanoseconds, pico-dollars, and (directed link, mean jitter in ns) of a way between two nodes; then, where messages
wait for each other or a link has outages, the same link by link: (directed link, ns to send, ns to arrive, mean jitter
in ns)."""

StationRow = tuple[int, int, list[int], int, int | None, list[int], float]
"""Instances (0: any number), largest batch, preferred sizes, batching delay in ns, longest queue, ns per size of batch
(as many equally likely ones for each) where the law depends on it, and mean ns of a full batch."""

_STAY: Leg = (0, 0, [], [])
_NS_MAX = 10**15
_PICO_USD_MAX = 10**16
_VECTOR_FORMS = ("logits", "probs")
_LOGIT_SCORES = ("energy", "logit_margin")
_GIVES = {
    "label": "gives labels only",
    "label_confidence": "gives label and confidence",
    "probs": "gives probabilities",
}


class CompiledPlan:
    """A plan as the engine has it, with what it was made of."""

    def __init__(
        self, spec: PlanSpec, plan: core.Plan, evidence: core.Evidence, decisions: core.Decisions | None
    ) -> None:
        self.spec = spec
        self.plan = plan
        self.evidence = evidence
        self._decisions = decisions

    @property
    def queue_dependent(self) -> bool:
        """Whether what it decides depends on queues, so that it must be replayed to know."""
        return self._decisions is None

    @property
    def decisions(self) -> core.Decisions:
        """What it decides for every sample.

        Raises
        ------
        UnsupportedError
            If that depends on queues.
        """
        if self._decisions is None:
            msg = "what this plan decides depends on queues: it can be replayed on a trace, but not decided ahead"
            raise UnsupportedError(msg)
        return self._decisions


class Compiler:
    """Compiles strategies over one network and one set of predictions, sharing what they have in common.

    Parameters
    ----------
    predictions : Predictions
        What the models say; must hold every model that a strategy consults.
    network : Network
        Where the models stand.
    threads : int
        Threads for scoring.
    seed : int
        Of the run: for the states of stop rules of one's own.
    """

    def __init__(self, predictions: Predictions, network: Network, threads: int = 1, seed: int = 0) -> None:
        self.predictions = predictions
        self.network = network
        self._threads = threads
        self._seed = seed
        self._outputs = [outputs_of(predictions, model) for model in predictions.models]
        self._index = {model: i for i, model in enumerate(predictions.models)}
        self._evidence: dict[object, core.Evidence] = {}
        self._decisions: dict[object, core.Decisions] = {}
        self._plans: dict[object, CompiledPlan] = {}
        self._legs: dict[tuple[str, str, float], Leg] = {}
        self.outages = outage_rows(network.outages, network)
        self._out = {place - len(network.deployments) for place, *_ in self.outages}

    def plan(self, strategy: Strategy, ingress: str) -> CompiledPlan:
        """Compile the plan of a strategy at one ingress node: score what is not scored yet, and decide.

        Raises
        ------
        UnknownNameError
            If a deployed model has no predictions.
        UnsupportedError
            If a model's answers do not have what the score needs; the message names the model.
        """
        return self.compile(strategy.plan(self.network, ingress), ingress)

    def compile(self, spec: PlanSpec, ingress: str) -> CompiledPlan:
        """Compile a plan that is laid out already."""
        members = [
            self._member(deployment, spec, last=_unscored(spec, at))
            for at, stage in enumerate(spec.stages)
            for deployment in stage.members
        ]
        groups = tuple(len(stage.members) for stage in spec.stages)
        # Deployments of one model at different nodes give the same evidence.
        said = tuple((model, score, *rest) for model, _, score, *rest in _hashable(members))
        made = combiner(spec.combiner)
        skips = spec.stop is not None and (spec.stop.jumps or spec.stop.opens)
        shape = (said, groups, made.key, "" if spec.combiner == "last" else spec.score, skips)
        stop = None if spec.stop is None else spec.stop.key(self._seed)
        rule = (shape, tuple((stage.threshold, stage.curve, stage.per_us) for stage in spec.stages), spec.oracle, stop)
        key = (rule, tuple(m[1] for m in members), spec.gossip_ms, spec.in_time)
        if key in self._plans:
            return self._plans[key]
        if spec.oracle and self.predictions.labels is None:
            msg = "SelectionOracle needs the true labels of the samples, but these predictions have none"
            raise UnsupportedError(msg)
        first = 0
        stages = []
        for stage in spec.stages:
            with np.errstate(over="ignore"):  # beyond float32, a threshold is as good as infinite
                threshold = float(np.float32(stage.threshold))
            stages.append((first, len(stage.members), threshold, float(np.float32(stage.per_us)), stage.curve))
            first += len(stage.members)
        try:
            models = [deployment.model for stage in spec.stages for deployment in stage.members]
            made.check_classes(self.predictions.classes)
            built = made.build(self.predictions.class_count, models, _combined_score(spec))
            own = None if spec.stop is None else spec.stop.build(self._seed)
            plan = core.Plan(members, stages, built, spec.oracle, rule=own)
        except CoinferError:
            raise
        except ValueError as error:
            msg = f"the plan at {ingress!r} cannot run: {error}"
            raise BadValueError(msg) from error
        if shape not in self._evidence:
            self._evidence[shape] = core.gather(plan, self._outputs, self._threads)
        evidence = self._evidence[shape]
        if rule not in self._decisions and plan.state_independent:
            truth = self.predictions.labels if spec.oracle else None
            self._decisions[rule] = core.decide(plan, evidence, truth)
        self._plans[key] = CompiledPlan(spec, plan, evidence, self._decisions.get(rule))
        return self._plans[key]

    def lane(self, compiled: CompiledPlan, ingress: str) -> sim.Lane:
        """Lay a compiled plan over the network as seen from one ingress node: every way, time and price."""
        spec = compiled.spec
        hosts = self.hosts(spec, ingress)
        enter: list[Leg] = []
        for source in (ingress, *hosts):
            for host, stage in zip(hosts, spec.stages, strict=True):
                enter.append(self.leg(source, host, _payload(self.network, stage, "request_kb")))
        back = [
            self.leg(host, ingress, _payload(self.network, stage, "answer_kb"))
            for host, stage in zip(hosts, spec.stages, strict=True)
        ]
        decisions = None if compiled.queue_dependent else compiled.decisions
        members = []
        for host, stage in zip(hosts, spec.stages, strict=True):
            for deployment in stage.members:
                model = self.network.model(deployment.model)
                members.append(
                    (
                        self.leg(host, deployment.node, model.request_kb),
                        self.leg(deployment.node, host, model.answer_kb),
                        self._service(deployment),
                        self.pico_usd(deployment),
                        self.median_ns(deployment),
                    )
                )
        least: list[int] = []
        if spec.in_time:
            taken = [max(_median_ns(m[0]) + m[4] + _median_ns(m[1]) for m in group) for group in _groups(spec, members)]
            count = len(spec.stages)
            least = [
                round(_median_ns(leg) + taken[at % count] + _median_ns(back[at % count]))
                for at, leg in enumerate(enter)
            ]
        return sim.Lane(compiled.plan, compiled.evidence, decisions, enter, back, members, least)

    def hosts(self, spec: PlanSpec, ingress: str) -> list[str]:
        """Name the node that asks and decides at each stage.

        Under ingress control, the ingress. Under path control the node of the stage's members; a group whose
        members stand at several nodes is asked from the ingress if it comes first, else from the node of its first
        member.
        """
        if self.network.control == "ingress":
            return [ingress] * len(spec.stages)
        hosts = []
        for at, stage in enumerate(spec.stages):
            nodes = {deployment.node for deployment in stage.members}
            hosts.append(ingress if len(nodes) > 1 and at == 0 else stage.members[0].node)
        return hosts

    def leg(self, source: str, target: str, payload_kb: float) -> Leg:
        """Work out the way between two nodes for a payload: each link's time is rounded once."""
        if source == target:
            return _STAY
        key = (source, target, payload_kb)
        if key not in self._legs:
            ns, pico_usd, jitters, hops = 0, 0, [], []
            for at, forward in self.network.routes.hops(source, target):
                link = self.network.links[at]
                delay, send = round(link.delay_ms * 1e6), 0
                if link.bandwidth_mbps is not None:
                    sending = f"{payload_kb:g} kB over link {link.a!r} -- {link.b!r} take"
                    send = _whole(8e6 * payload_kb / link.bandwidth_mbps, _NS_MAX, sending, "ns")
                ns += delay + send
                paying = f"{payload_kb:g} kB over link {link.a!r} -- {link.b!r} cost"
                pico_usd += _whole(link.price_usd_per_mb * payload_kb / 1e3 * 1e12, _PICO_USD_MAX, paying, "pico-USD")
                directed = 2 * at + (0 if forward else 1)
                if link.jitter_ms > 0:
                    jitters.append((directed, link.jitter_ms * 1e6))
                if not self.network.queueing:
                    send, delay = 0, delay + send
                hops.append((directed, send, delay, link.jitter_ms * 1e6))
            by_link = any(send or directed in self._out for directed, send, _, _ in hops)
            self._legs[key] = (ns, pico_usd, jitters, hops if by_link else [])
        return self._legs[key]

    @cached_property
    def stations(self) -> list[StationRow]:
        """Lay out every deployment as a place where requests wait: instances, batches, length of the queue.

        Where the network does not queue, any number of requests is served at the same time.
        """
        rows: list[StationRow] = []
        for d in self.network.deployments:
            law, batch_ns = d.service, []
            if not self.network.queueing:
                rows.append((0, 1, [], 0, None, [], 0.0))
                continue
            sizes = range(1, d.max_batch + 1)
            if d.max_batch > 1 and isinstance(law, laws.Linear):
                batch_ns = [round((law.base_ms + law.per_item_ms * b) * 1e6) for b in sizes]
            elif d.max_batch > 1 and isinstance(law, laws.Table):
                batch_ns = [round(ms * 1e6) for b in sizes for ms in law.at(b)]
            full = batch_ns[-(len(batch_ns) // d.max_batch) :]
            mean = float(np.mean(full)) if full else self._mean_service_ns(d)
            delay = round(d.batch_delay_us * 1e3)
            rows.append((d.instances or 1, d.max_batch, list(d.preferred_batch), delay, d.queue_max, batch_ns, mean))
        return rows

    @property
    def outputs(self) -> list[core.Outputs]:
        """What the models say, as the engine reads it."""
        return self._outputs

    def _mean_service_ns(self, deployment: Deployment) -> float:
        if deployment.model not in self._index:
            return 0.0  # No strategy can consult it.
        return float(np.mean(self.service_ns(deployment)))

    def service_ns(self, deployment: Deployment) -> float | NDArray[np.float64]:
        """Give the mean service time of a deployment in nanoseconds, per sample if it was measured."""
        law, a, b, measured = self._service(deployment)
        if law == "empirical":
            return a
        if measured is not None:
            per_sample: NDArray[np.float64] = np.rint(a * measured.astype(np.float64) * 1e3)
            return per_sample
        return {"lognormal": math.exp(min(a + b * b / 2, 700.0)), "gamma": a * b}.get(law, a)

    def median_ns(self, deployment: Deployment) -> int:
        """Give the median service time of a deployment, serving one request, in nanoseconds."""
        law, a, b, measured = self._service(deployment)
        match law:
            case "measured" | "empirical":
                assert measured is not None
                median = float(np.median(measured)) * 1e3 * (a if law == "measured" else 1.0)
            case "exponential":
                median = a * math.log(2)
            case "lognormal":
                median = math.exp(min(a, 700.0))
            case "gamma":
                from scipy.special import gammaincinv  # 60 ms that only gamma laws pay

                median = a * float(gammaincinv(b, 0.5))
            case _:
                median = a
        return min(round(median), _NS_MAX)

    def settling(self, spec: PlanSpec, ingress: str) -> tuple[list[float | NDArray[np.float64]], list[int]]:
        """Give what it takes to settle at each stage, the stages before it included, for plans of single members.

        Returns
        -------
        tuple
            Mean latency in nanoseconds (per sample where service times were measured), and pico-dollars, per stage.
        """
        walks = [self.walking(spec, ingress, range(stage + 1)) for stage in range(len(spec.stages))]
        return [latency for latency, _ in walks], [price for _, price in walks]

    def walking(self, spec: PlanSpec, ingress: str, visited: Sequence[int]) -> tuple[float | NDArray[np.float64], int]:
        """Give what it takes to consult some stages in order and settle at the last, for stages of single members.

        Returns
        -------
        tuple
            Mean latency in nanoseconds (per sample where service times were measured), and pico-dollars.
        """
        hosts = self.hosts(spec, ingress)
        here, spent = ingress, 0
        elapsed: Any = 0.0
        back: Leg = _STAY
        for stage in visited:
            host = hosts[stage]
            (deployment,) = spec.stages[stage].members
            model = self.network.model(deployment.model)
            there = [
                self.leg(here, host, model.request_kb),
                self.leg(host, deployment.node, model.request_kb),
                self.leg(deployment.node, host, model.answer_kb),
            ]
            back = self.leg(host, ingress, model.answer_kb)
            elapsed = elapsed + sum(map(_mean_ns, there)) + self.service_ns(deployment)
            spent += sum(leg[1] for leg in there) + self.pico_usd(deployment)
            here = host
        return elapsed + _mean_ns(back), spent + back[1]

    def _member(self, deployment: Deployment, spec: PlanSpec, *, last: bool) -> tuple[Any, ...]:
        model = deployment.model
        if model not in self._index:
            msg = (
                f"model {model!r} is deployed at {deployment.node!r} but has no predictions; "
                f"{nearest(model, self._index)}"
            )
            raise UnknownNameError(msg)
        score: Any = spec.score
        if spec.combiner != "last":
            made = combiner(spec.combiner)
            self.check_combined(model, made.needs, made.name)
            score = "confidence"  # What is scored is the combination.
        problem = _lacks(self.predictions[model].form, score)
        if problem:
            if not last:
                msg = f"model {model!r} {problem}; use score='confidence', or give its logits or probabilities"
                raise UnsupportedError(msg)
            score = "confidence"  # The last stage always settles: its score is only reported.
        if isinstance(score, ScoreRule):
            score = score.engine
        temperature = float(spec.temperature.get(model, 1.0))
        return (
            self._index[model],
            self.network.deployment_index(deployment.name),
            score,
            float(spec.weights.get(model, 1.0)),
            temperature,
            spec.calibration.get(model),
            self.abstentions(model),
        )

    def check_combined(self, model: str, needs: Needs, name: str = "it") -> None:
        """Refuse a model that gives labels only where a combiner needs vectors."""
        if model not in self._index:
            msg = f"model {model!r} is deployed but has no predictions; {nearest(model, self._index)}"
            raise UnknownNameError(msg)
        form = self.predictions[model].form
        if needs == "vectors" and form not in _VECTOR_FORMS:
            msg = (
                f"model {model!r} {_GIVES[form]}, but {name!r} combines probabilities; use 'vote', leave the "
                "model out, or give its logits or probabilities"
            )
            raise UnsupportedError(msg)

    def abstentions(self, name: str) -> list[int]:
        """Give the labels, in the shared classes, by which a model says that it does not know."""
        labels = []
        for label in self.network.model(name).abstain:
            if isinstance(label, str):
                classes = self.predictions.classes
                if classes is None or label not in classes:
                    msg = (
                        f"model {name!r} abstains by class {label!r}, which the predictions lack; "
                        f"{nearest(label, classes or ())}"
                    )
                    raise UnknownNameError(msg)
                labels.append(classes.index(label))
            else:
                labels.append(self._abstained(label, name))
        return labels

    def _abstained(self, label: int, name: str) -> int:
        """Look up an abstention that the network gives as a number: by its declared class, else the shared one."""
        declared, shared = self.network.model(name).classes, self.predictions.classes
        if declared is not None and shared is not None:
            if declared[label] not in shared:
                msg = (
                    f"model {name!r} abstains by class {declared[label]!r}, which the predictions lack; "
                    f"{nearest(declared[label], shared)}"
                )
                raise UnknownNameError(msg)
            return shared.index(declared[label])
        if self.predictions[name].relabel is not None:
            msg = (
                f"model {name!r} abstains by label {label}, but has only some of the shared classes, so that its "
                "labels have other numbers in the predictions; give the class by name"
            )
            raise BadValueError(msg)
        if label >= self.predictions.class_count:
            msg = (
                f"model {name!r} abstains by label {label}, but the predictions have {self.predictions.class_count} "
                "classes"
            )
            raise BadValueError(msg)
        return label

    def pico_usd(self, deployment: Deployment) -> int:
        """Give the price of a request in pico-dollars."""
        what = f"deployment {deployment.name!r}: a request costs"
        return _whole(deployment.price_usd * 1e12, _PICO_USD_MAX, what, "pico-USD")

    def _service(self, deployment: Deployment) -> tuple[str, float, float, Any]:
        law = deployment.service
        match law:
            case laws.Measured(scale=scale):
                measured = self.predictions[deployment.model].service_us
                if measured is None:
                    msg = (
                        f"deployment {deployment.name!r} takes measured service times, but the predictions of model "
                        f"{deployment.model!r} hold no service_us"
                    )
                    raise UnsupportedError(msg)
                longest = scale * float(measured.max(initial=0.0)) * 1e3
                _whole(longest, _NS_MAX, f"deployment {deployment.name!r}: the longest measured service takes", "ns")
                return "measured", scale, 0.0, np.ascontiguousarray(measured, np.float32)
            case laws.Exponential(mean_ms=mean) if mean > 0:
                return "exponential", mean * 1e6, 0.0, None
            case laws.LogNormal(mean_ms=mean, cv=cv) if mean > 0 and cv > 0:
                spread = float(np.log1p(cv * cv))
                return "lognormal", float(np.log(mean * 1e6)) - spread / 2, spread**0.5, None
            case laws.Gamma(mean_ms=mean, cv=cv) if mean > 0 and cv > 0:
                return "gamma", mean * 1e6 * cv * cv, 1.0 / (cv * cv), None
            case laws.Table() if len(law.at(1)) > 1:
                seen = (np.array(law.at(1)) * 1e3).astype(np.float32)
                return "empirical", law.mean_ms * 1e6, float(len(seen)), seen
        return "constant", law.mean_ms * 1e6, 0.0, None


def outputs_of(predictions: Predictions, model: str) -> core.Outputs:
    """Hand one model's answers to the engine, without a copy where that can be."""
    output = predictions[model]
    relabel = None if output.relabel is None else np.ascontiguousarray(output.relabel, np.int32)
    if output.vector is not None:
        return core.Outputs(output.form, output.vector, None, None, relabel)
    label = np.ascontiguousarray(output.label, np.int32)
    confidence = None if output.confidence is None else np.ascontiguousarray(output.confidence, np.float32)
    return core.Outputs(output.form, None, label, confidence, None)


def _whole(value: float, at_most: int, what: str, unit: str) -> int:
    """Round to a whole number, half to even; refuse what sums in int64 could not hold."""
    if not value <= at_most:
        msg = f"{what} {value:.3g} {unit}, more than the {at_most:.3g} {unit} that can be added up exactly"
        raise BadValueError(msg)
    return round(value)


def _mean_ns(leg: Leg) -> float:
    return leg[0] + sum(mean for _, mean in leg[2])


def _median_ns(leg: Leg) -> float:
    return leg[0] + math.log(2) * sum(mean for _, mean in leg[2])


def _groups(spec: PlanSpec, members: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Give what stands in `members` for each stage."""
    first = 0
    for stage in spec.stages:
        yield members[first : first + len(stage.members)]
        first += len(stage.members)


def _unscored(spec: PlanSpec, stage: int) -> bool:
    """Whether nothing is decided by the score of a stage: the last always settles, a route looks at the first alone."""
    return stage + 1 == len(spec.stages) or (stage > 0 and spec.stop is not None and spec.stop.first_only)


def _lacks(form: str, score: str | ScoreRule) -> str | None:
    """Say what a model of that form lacks for a score; None if nothing."""
    if isinstance(score, ScoreRule):
        return score.lacks(form)
    if score == "confidence" or (form in _VECTOR_FORMS and (form == "logits" or score not in _LOGIT_SCORES)):
        return None
    return f"{_GIVES[form]}, but score {score!r} needs {'logits' if score in _LOGIT_SCORES else 'a vector'}"


def _combined_score(spec: PlanSpec) -> str:
    """Name the score of a plan's combination: its largest probability, or its margin."""
    if spec.score in ("confidence", "max_prob"):
        return "max_prob"
    if spec.score != "margin" and spec.combiner != "last":
        msg = f"a combination is scored by max_prob or margin, not {str(spec.score)!r}"
        raise UnsupportedError(msg)
    return str(spec.score)


def _payload(network: Network, stage: StageSpec, size: str) -> float:
    return max(float(getattr(network.model(deployment.model), size)) for deployment in stage.members)


def _hashable(members: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [(*member[:-1], tuple(member[-1])) for member in members]
