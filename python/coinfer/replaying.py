"""Replay: what a strategy would have given, on this trace, over this network, with these models.

The work is the engine's. Here requests are joined with compiled plans, and sums become a `Summary`. Outcomes per
request are not kept: they are a pure function of trace, predictions, network, strategy and seed, so `Run.outcomes`
works them out when asked.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer._checks import check_integer, check_number
from coinfer._core import sim
from coinfer.calibrating import step as read_curve
from coinfer.compiling import CompiledPlan, Compiler
from coinfer.errors import BadValueError
from coinfer.queueing import Load, Queued, choose, warn_of_overload
from coinfer.results import Estimate, Latency, Level, Summary, as_table, as_text
from coinfer.strategy.base import Strategy

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import ArrayLike, NDArray
    from rich.table import Table

    from coinfer.intervals import PerSample
    from coinfer.network import Network
    from coinfer.outage import Outage
    from coinfer.predictions import Predictions
    from coinfer.trace import Trace

__all__ = ["Explanation", "Requests", "Run", "replay"]

_STATUS = ("open", "answered", "degraded", "rejected", "expired", "failed")
DOES = {
    "feed-forward": "station by station",
    "hops": "first come, first served",
    "events": "a list of arrivals, completions and timers",
}
_NO_DEADLINE = np.iinfo(np.int64).max
_CENSUS_ENTRIES_MAX = 1 << 26


class Requests:
    """A trace as the engine reads it, checked against samples and network; shared by all strategies compared on it."""

    def __init__(self, trace: Trace, predictions: Predictions, network: Network, threads: int = 1) -> None:
        if len(trace) == 0:
            msg = "the trace holds no requests; at least one is needed"
            raise BadValueError(msg)
        for node in trace.nodes:
            network.node(node)
        highest = int(trace.sample.max())
        if highest >= len(predictions):
            row = int(np.argmax(trace.sample >= len(predictions)))
            msg = (
                f"request {row} of the trace asks for sample {int(trace.sample[row])}, but the predictions hold "
                f"{len(predictions)} samples (0 to {len(predictions) - 1})"
            )
            raise BadValueError(msg)
        self.trace = trace
        self.lane = np.ascontiguousarray(trace.ingress, np.int32)
        self.sample = np.ascontiguousarray(trace.sample, np.int32)
        self.deadline_ns = _deadlines(trace)
        self.priority = _priorities(trace)
        self.threads = threads
        self._entries = len(trace.nodes) * len(predictions)
        self._shape = (len(trace.nodes), len(predictions))
        self._census: sim.Census | None = None

    def columns(self) -> dict[str, NDArray[Any] | None]:
        """Give what a queueing engine reads."""
        return {
            "arrival_ns": np.ascontiguousarray(self.trace.arrival_ns, np.int64),
            "lane": self.lane,
            "sample": self.sample,
            "deadline_ns": self.deadline_ns,
            "priority": self.priority,
        }

    @property
    def countable(self) -> bool:
        """Whether requests can be counted by (ingress, sample) in a table not much larger than the trace."""
        return self.deadline_ns is None and self._entries <= min(_CENSUS_ENTRIES_MAX, 2 * len(self.lane) + 65536)

    def census(self) -> sim.Census:
        """Count requests by (ingress, sample), once."""
        if self._census is None:
            census = sim.Census(*self._shape)
            census.push(self.lane, self.sample, self.threads)
            self._census = census
        return self._census


@dataclass(frozen=True)
class Explanation:
    """Why one request ended as it did: every input, score, threshold and reason. Print it."""

    request: int
    steps: tuple[dict[str, Any], ...]
    outcome: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain dicts and lists."""
        return {"request": self.request, "steps": list(self.steps), "outcome": dict(self.outcome)}

    def __str__(self) -> str:
        o = self.outcome
        where = f"arrived at {o['ingress']} at {o['arrival_ns'] / 1e6:,.3f} ms"
        lines = [f"request {self.request}: sample {o['sample']}, {where}"]
        for step in self.steps:
            lines.append(
                f"  stage {step['stage']}  {' + '.join(step['models'])} at {' + '.join(step['nodes'])}: "
                f"label {step['label']}, {step['score_kind']} {step['score']:.6g}; {step['reason']}"
            )
        truth = "" if o["label"] is None else f", truth {o['label']}"
        lines.append(
            f"  {o['status']}: {o['answer']}{truth}; {o['latency_us'] / 1e3:,.3f} ms "
            f"(network {o['network_us'] / 1e3:,.3f}, queue {o['queue_us'] / 1e3:,.3f}, "
            f"service {o['service_us'] / 1e3:,.3f}), {o['price_usd']:.6g} USD"
        )
        return "\n".join(lines)


class Run:
    """One strategy replayed on one trace.

    Attributes
    ----------
    summary : Summary
    strategy : Strategy
    trace, predictions, network
        What was replayed.
    """

    def __init__(
        self,
        requests: Requests,
        compiler: Compiler,
        strategy: Strategy,
        seed: int = 0,
        name: str | None = None,
        engine: str = "auto",
        warmup_ms: float = 0.0,
    ) -> None:
        if not isinstance(strategy, Strategy):
            msg = f"{name or 'strategy'} must be a strategy such as coinfer.Forward(threshold=0.9), not {strategy!r}"
            raise BadValueError(msg)
        self.trace = requests.trace
        self._requests = requests
        lanes = self._lay_out(compiler, strategy, self.trace.nodes, seed)
        chosen = choose(engine, compiler, self._plans, lanes, requests.columns())
        self._queued: Queued | None = None
        if chosen != "direct" or warmup_ms > 0:
            gossip_ns = round(max(p.spec.gossip_ms for p in self._plans) * 1e6)
            if chosen == "direct":
                chosen = "hops"
            self._queued = Queued(compiler, lanes, seed, chosen, round(warmup_ms * 1e6), gossip_ns)
            tally = self._queued.run(requests.columns())
            if tally["requests"] == 0:
                msg = f"no request arrives after the warm-up of {warmup_ms:g} ms; the trace ends before"
                raise BadValueError(msg)
            engine = f"{chosen}: {DOES[chosen]}"
        else:
            self._replay = sim.Replay(lanes, self.predictions.labels, self.predictions.class_count, seed)
            if self._replay.deterministic and requests.countable:
                tally = self._replay.run_census(requests.census())
                engine = "direct: counted by (ingress, sample)"
            else:
                tally = self._replay.run(requests.lane, requests.sample, requests.deadline_ns, requests.threads)
                engine = "direct: request by request"
            tally |= {"stations": {}, "links": {}}
        self._conclude(tally, engine, name)

    def _lay_out(self, compiler: Compiler, strategy: Strategy, nodes: tuple[str, ...], seed: int) -> list[sim.Lane]:
        """Compile the strategy at every ingress node, and lay its plans over the network."""
        self.predictions = compiler.predictions
        self.network = compiler.network
        self.strategy = strategy
        self._seed = seed
        self._nodes = nodes
        self._plans: list[CompiledPlan] = [compiler.plan(strategy, node) for node in nodes]
        if strategy.certificate is not None:
            strategy.certificate.check(self._plans[0].evidence, self.predictions.fingerprint)
        self._hosts = [compiler.hosts(p.spec, node) for p, node in zip(self._plans, nodes, strict=True)]
        return [compiler.lane(p, node) for p, node in zip(self._plans, nodes, strict=True)]

    def _conclude(self, tally: dict[str, Any], engine: str, name: str | None) -> None:
        self._intervals: dict[int, dict[str, Estimate]] = {}
        self._latencies_ns: NDArray[np.int64] = tally["latencies_ns"]
        self._latency_ranks: NDArray[np.uint64] = np.cumsum(tally["latency_counts"])
        self._nearest_ranks = tally.get("nearest_ranks")  # where the engine keeps latencies itself
        self.summary = self._summarise(tally, engine, name or self.strategy.name)
        warn_of_overload(self.summary.strategy, tally["stations"], tally["links"], self.network)

    def latency_quantiles(self, q: ArrayLike) -> NDArray[np.float64]:
        """Give exact latency quantiles (nearest rank).

        Parameters
        ----------
        q : array_like of float
            Shares between 0 and 1.

        Returns
        -------
        ndarray of float64
            Microseconds, shaped as `q`: the smallest latency that at least a share q of the requests does not exceed.
        """
        shares = np.asarray(q, np.float64)
        if np.any(~((shares >= 0) & (shares <= 1))):
            msg = f"quantiles must lie between 0 and 1, not {q!r}"
            raise BadValueError(msg)
        if self._nearest_ranks is not None:
            found: NDArray[np.int64] = self._nearest_ranks(np.ascontiguousarray(shares.ravel()))
            return found.reshape(shares.shape) / 1e3
        # A quotient is rounded as the literal that a share was written as; a product q n may miss a whole number.
        total = float(self._latency_ranks[-1])
        rank = np.ceil(shares * total)
        rank -= (rank > 0) & ((rank - 1) / total >= shares)
        rank += rank / total < shares
        return self._latencies_ns[np.searchsorted(self._latency_ranks, rank.astype(np.uint64))] / 1e3

    def outcomes(self, start: int = 0, stop: int | None = None) -> pa.Table:
        """Work out what happened to every request.

        Parameters
        ----------
        start, stop : int
            Rows of the trace; default all.

        Returns
        -------
        pyarrow.Table
            One row per request: `request`, `arrival_ns`, `ingress`, `sample`, `answer` (class index, null if none),
            `answer_name` if classes have names, `confidence`, `model` and `node` that settled it, `stages`
            consulted, `latency_us` and its parts `network_us`, `queue_us`, `service_us`, `price_usd`, `correct`
            (null without a true label), `status`.
        """
        start, stop, _ = slice(start, stop).indices(len(self.trace))
        part = slice(start, stop)
        found = self._found(start, stop)
        return self._table(
            found, start, self.trace.arrival_ns[part], self._requests.lane[part], self._requests.sample[part]
        )

    def _found(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Give what the engine says about requests start to stop."""
        requests, part = self._requests, slice(start, stop)
        if self._queued is not None:
            return self._queued.outcomes(requests.columns(), start, stop)
        deadline_ns = None if requests.deadline_ns is None else requests.deadline_ns[part]
        return self._replay.outcomes(requests.lane[part], requests.sample[part], deadline_ns, start, requests.threads)

    def by_priority(self) -> dict[int, Level]:
        """Work out what requests of each priority got, those that are served first first (0 is last).

        Returns
        -------
        dict of int to Level
            Without the warm-up; priority 0 alone if the trace states none.
        """
        found = self._found(0, len(self.trace))
        stated = self.trace.priority
        priority = np.zeros(len(self.trace), np.int32) if stated is None else stated
        counted = self.trace.arrival_ns >= (0 if self._queued is None else self._queued.warmup_ns)
        latency_us = (found["network_ns"] + found["queue_ns"] + found["service_ns"]) / 1e3
        labels = self.predictions.labels
        levels = {}
        for level in sorted(np.unique(priority[counted]).tolist(), key=lambda p: (p == 0, p)):
            rows = np.flatnonzero(counted & (priority == level))
            right = np.count_nonzero(found["correct"][rows] == 1)
            labelled = np.count_nonzero(found["correct"][rows] >= 0)
            known = 0 if labels is None else np.count_nonzero(labels[self._requests.sample[rows]] >= 0)
            times = np.sort(latency_us[rows])
            status = np.bincount(found["status"][rows], minlength=len(_STATUS)).tolist()
            levels[level] = Level(
                requests=len(rows),
                accuracy=right / labelled if labelled else None,
                goodput=right / known if known else None,
                latency_us=Latency(
                    float(times.mean()),
                    *(float(times[-(-len(rows) * share // 100) - 1]) for share in (50, 90, 95, 99, 100)),
                ),
                queue_us=float(found["queue_ns"][rows].mean() / 1e3),
                status=dict(zip(_STATUS[1:], status[1:], strict=True)),
            )
        return levels

    def _table(
        self,
        c: dict[str, NDArray[Any]],
        start: int,
        arrival_ns: NDArray[np.int64],
        lane: NDArray[np.int32],
        sample: NDArray[np.int32],
    ) -> pa.Table:
        """Make a table of what the engine says about requests from `start` on."""
        import pyarrow as pa

        answer = np.where(c["answer"] < -1, -2 - c["answer"], c["answer"])
        none = c["answer"] == -1
        expired = np.isin(c["status"], [_STATUS.index(status) for status in ("expired", "rejected")])
        models, model = self._where(lane, c["answered_by"], "models")
        nodes, node = self._where(lane, c["settled"], "nodes")
        columns = {
            "request": pa.array(np.arange(start, start + len(lane), dtype=np.int64)),
            "arrival_ns": pa.array(arrival_ns),
            "ingress": pa.DictionaryArray.from_arrays(pa.array(lane), pa.array(list(self._nodes))),
            "sample": pa.array(sample),
            "answer": pa.array(answer, mask=none),
        }
        if self.predictions.classes is not None:
            columns["answer_name"] = pa.DictionaryArray.from_arrays(
                pa.array(answer, mask=none), pa.array(list(self.predictions.classes))
            )
        columns |= {
            "confidence": pa.array(c["confidence"]),
            "model": pa.DictionaryArray.from_arrays(pa.array(model, mask=none), pa.array(models)),
            "node": pa.DictionaryArray.from_arrays(pa.array(node, mask=expired), pa.array(nodes)),
            "stages": pa.array(c["consulted"]),
            "latency_us": pa.array((c["network_ns"] + c["queue_ns"] + c["service_ns"]) / 1e3),
            "network_us": pa.array(c["network_ns"] / 1e3),
            "queue_us": pa.array(c["queue_ns"] / 1e3),
            "service_us": pa.array(c["service_ns"] / 1e3),
            "price_usd": pa.array(c["pico_usd"] / 1e12),
            "correct": pa.array(c["correct"] == 1, mask=c["correct"] < 0),
            "status": pa.DictionaryArray.from_arrays(pa.array(c["status"].astype(np.int8)), pa.array(list(_STATUS))),
        }
        return pa.table(columns)

    @property
    def queued(self) -> bool:
        """Whether requests waited for each other, so that their latencies depend on each other."""
        return self._queued is not None

    @functools.cached_property
    def per_sample(self) -> PerSample:
        """Sums over the requests of each sample: the unit of evidence."""
        from coinfer.intervals import per_sample

        return per_sample(self)

    def intervals(self, seed: int = 0) -> dict[str, Estimate]:
        """Give accuracy, price, mean latency and its quantiles with 95 % intervals; see `coinfer.intervals`."""
        from coinfer.intervals import intervals

        if seed not in self._intervals:
            self._intervals[seed] = intervals(self, seed)
        return dict(self._intervals[seed])

    def by_request(self, chunk: int) -> Iterator[tuple[Any, Any, Any, Any, Any]]:
        """Yield (sample, requests, latency_us, price_usd, correct): requests, or groups of requests that end alike."""
        if self._queued is None and self._replay.deterministic and self._requests.countable:
            counts = self._requests.census().counts.reshape(len(self.trace.nodes), -1)
            lane, sample = np.nonzero(counts)
            rows, pairs = lane.astype(np.int32), sample.astype(np.int32)
            c = self._replay.outcomes(rows, pairs, None, 0, self._requests.threads)
            latency_us = (c["network_ns"] + c["service_ns"]) / 1e3
            weight = counts[lane, sample].astype(np.float64)
            yield pairs, weight, latency_us, c["pico_usd"] / 1e12, c["correct"]
            return
        asked, start = self._requests.sample, 0
        for c in self._parts(chunk):
            count = len(c["status"])
            latency_us = (c["network_ns"] + c["queue_ns"] + c["service_ns"]) / 1e3
            yield asked[start : start + count], np.ones(count), latency_us, c["pico_usd"] / 1e12, c["correct"]
            start += count

    def _parts(self, chunk: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Work out what happened to all requests, part after part."""
        if self._queued is not None:
            yield from self._queued.parts(self._requests.columns())
            return
        deadline_ns = self._requests.deadline_ns
        for start in range(0, len(self.trace), chunk):
            part = slice(start, start + chunk)
            lane, sample = self._requests.lane[part], self._requests.sample[part]
            late = None if deadline_ns is None else deadline_ns[part]
            yield self._replay.outcomes(lane, sample, late, start, self._requests.threads)

    def explain(self, request: int) -> Explanation:
        """Say why one request ended as it did.

        Parameters
        ----------
        request : int
            Row of the trace.

        Returns
        -------
        Explanation
            Every stage with its answers, score, threshold and reason; then the outcome.
        """
        request = check_integer(request, "request", at_least=-(2**63), at_most=2**63 - 1)
        if not 0 <= request < len(self.trace):
            msg = f"request {request} is not in the trace, whose rows are 0 to {len(self.trace) - 1}"
            raise BadValueError(msg)
        lane = int(self._requests.lane[request])
        sample = int(self._requests.sample[request])
        compiled = self._plans[lane]
        outcome = self.outcomes(request, request + 1).to_pylist()[0]
        if compiled.queue_dependent:
            visited = list(range(outcome["stages"]))
        else:
            visited = compiled.decisions.itineraries[int(compiled.decisions.route[sample])]
        steps = tuple(
            self._step(compiled, lane, sample, stage, after - stage)
            for stage, after in zip(visited, [*visited[1:], visited[-1]], strict=True)
        )
        for step in steps[outcome["stages"] :]:
            step |= {"settles": False, "reason": "not started: the deadline came first"}
        labels = self.predictions.labels
        truth = None if labels is None or labels[sample] < 0 else int(labels[sample])
        outcome["answer"] = self._class(outcome["answer"])
        outcome["label"] = self._class(truth)
        return Explanation(request, steps, outcome)

    def _step(self, compiled: CompiledPlan, lane: int, sample: int, stage: int, onward: int) -> dict[str, Any]:
        settled = onward == 0
        spec = compiled.spec
        curve = spec.stages[stage].curve
        label = int(compiled.evidence.label[stage, sample])
        score = float(compiled.evidence.score[stage, sample])
        threshold = spec.stages[stage].threshold
        last = stage + 1 == len(spec.stages)
        said = self._class(-2 - label if label < -1 else label if label >= 0 else None)
        if spec.oracle:
            reason = "right, or no stage is" if settled else "wrong, and a later stage is right"
        elif last:
            reason = "last stage: settles"
        elif spec.stop is not None:
            reason = spec.stop.say(label, score, onward)
        elif label < -1:
            reason = "abstains: goes on"
        elif np.isnan(score):
            reason = "no score: goes on"
        else:
            # Where the rule reads a curve, it is the curve's value that was compared.
            read = "" if curve is None else f"read as {float(read_curve(curve, score)) + 0.0:.6g} "
            compared, verdict = (">=", "settles") if settled else ("<", "goes on")
            reason = f"{read}{compared} threshold {threshold:.6g}: {verdict}"
        deployments = spec.stages[stage].members
        return {
            "stage": stage,
            "models": [d.model for d in deployments],
            "nodes": [d.node for d in deployments],
            "host": self._hosts[lane][stage],
            "label": said,
            "score_kind": str(spec.score),
            "score": score,
            "threshold": None if last or spec.oracle or spec.stop is not None else threshold,
            "settles": settled,
            "reason": reason,
        }

    def _class(self, label: int | None) -> str | int | None:
        classes = self.predictions.classes
        return label if label is None or classes is None else classes[label]

    def _where(
        self, lane: NDArray[np.int32], stage: NDArray[np.uint8], what: str
    ) -> tuple[list[str], NDArray[np.int32]]:
        """Name, by code, the model(s) or the host of each request's stage."""
        names: dict[str, int] = {}
        width = max(len(p.spec.stages) for p in self._plans)
        table = np.zeros((len(self._plans), width), np.int32)
        for at, _ in enumerate(self._plans):
            for s, name in enumerate(self._stage_names(at, what)):
                table[at, s] = names.setdefault(name, len(names))
        return list(names), table[lane, stage]

    def _stage_names(self, lane: int, what: str) -> Iterable[str]:
        if what == "nodes":
            return (
                stage.members[0].node if len({d.node for d in stage.members}) == 1 else host
                for stage, host in zip(self._plans[lane].spec.stages, self._hosts[lane], strict=True)
            )
        return ("+".join(d.model for d in stage.members) for stage in self._plans[lane].spec.stages)

    def _summarise(self, tally: dict[str, Any], engine: str, name: str) -> Summary:
        n = tally["requests"]
        lanes = len(self._plans)
        settled = tally["settled"].reshape(lanes, -1).astype(np.float64)
        answered = tally["answered"].reshape(lanes, -1).astype(np.float64)
        by_node = {node.name: 0.0 for node in self.network.nodes}
        by_model = dict.fromkeys(self.predictions.models, 0.0)
        for lane in range(lanes):
            for stage, node in enumerate(self._stage_names(lane, "nodes")):
                by_node[node] += float(settled[lane, stage]) / n
            for stage, model in enumerate(self._stage_names(lane, "models")):
                by_model[model] = by_model.get(model, 0.0) + float(answered[lane, stage]) / n
        accuracy = None
        if tally["labelled"]:
            weight = tally["sample_weight"].astype(np.float64)
            accuracy = Estimate.share(
                tally["correct"], tally["labelled"], float(weight.sum() ** 2 / np.square(weight).sum())
            )
        classes = self.predictions.classes
        unsure: dict[str, int] = {}
        for compiled in self._plans:
            for group, count in zip(compiled.spec.stages, compiled.evidence.unsure_rows, strict=True):
                unsure["+".join(d.model for d in group.members)] = int(count)
        quantile = self.latency_quantiles
        return Summary(
            strategy=name,
            engine=engine,
            seed=self._seed,
            requests=n,
            labelled=tally["labelled"],
            accuracy=accuracy,
            goodput=tally["in_time"] / tally["truths"] if tally["truths"] else None,
            latency_us=Latency(
                tally["latency_ns"] / n / 1e3, *(float(v) for v in quantile([0.5, 0.9, 0.95, 0.99, 1.0]))
            ),
            network_us=tally["network_ns"] / n / 1e3,
            service_us=tally["service_ns"] / n / 1e3,
            queue_us=tally["queue_ns"] / n / 1e3,
            price_usd=tally["pico_usd"] / n / 1e12,
            price_usd_total=tally["pico_usd"] / 1e12,
            stages=tally["consulted"] / n,
            settled_by_node=by_node,
            settled_by_model=by_model,
            settled_by_stage=tuple(float(share) for share in settled.sum(axis=0) / n),
            accuracy_by_class={
                classes[i] if classes is not None else str(i): float(right) / float(total)
                for i, (right, total) in enumerate(zip(tally["class_correct"], tally["class_labelled"], strict=True))
                if total
            },
            accuracy_by_ingress={
                node: float(right) / float(total)
                for node, right, total in zip(self._nodes, tally["lane_correct"], tally["lane_labelled"], strict=True)
                if total
            },
            status={name: count for name, count in zip(_STATUS, tally["status"], strict=True) if name != "open"},
            unsure=unsure,
            stations=tally["stations"],
            links=tally["links"],
            utilisation_by_node=self._utilisation(tally["stations"]),
            **tally.get("rescue", {}),
        )

    def _utilisation(self, stations: Mapping[str, Load]) -> dict[str, float]:
        """Share of the time that the instances at each node worked."""
        work: dict[str, float] = {}
        instances: dict[str, int] = {}
        for d in self.network.deployments if self.network.queueing else ():
            count = d.instances or 1
            work[d.node] = work.get(d.node, 0.0) + (stations[d.name].utilisation * count if d.name in stations else 0.0)
            instances[d.node] = instances.get(d.node, 0) + count
        return {node: work[node] / instances[node] for node in work}

    def __repr__(self) -> str:
        return f"Run({self.summary.strategy!r}, {self.summary.requests:,} requests)"

    def rows(self) -> list[tuple[str, str]]:
        """Give what `print` shows, a (name, value) pair per line, with intervals."""
        return self.summary.rows(self.intervals())

    def __str__(self) -> str:
        return as_text(self.summary.strategy, self.rows())

    def __rich__(self) -> Table:
        return as_table(self.summary.strategy, self.rows())


def replay(
    trace: Trace,
    predictions: Predictions,
    network: Network,
    strategy: Strategy,
    *,
    seed: int = 0,
    threads: int = 1,
    engine: str = "auto",
    warmup_ms: float = 0.0,
    outages: Sequence[Outage] = (),
) -> Run:
    """Replay a strategy on a trace.

    Parameters
    ----------
    trace : Trace
        Requests: when, where and which sample.
    predictions : Predictions
        What every model says about every sample.
    network : Network
        Where the models stand, and what links and services cost.
    strategy : Strategy
        Where to answer.
    seed : int
        For random service times and jitter. Draws are keyed by request and place, so strategies replayed with one
        seed share them.
    threads : int
        Does not change any result.
    engine : {"auto", "direct", "feed-forward", "hops", "events"}
        Which engine replays; all that can give the same outcomes. See `coinfer.queueing`.
    warmup_ms : float
        Requests that arrive before this time are served, but not counted.
    outages : sequence of Outage
        What is down or slow, and when, besides the outages of the network itself.

    Returns
    -------
    Run
        With `.summary`, `.outcomes()` and `.explain(i)`.

    Raises
    ------
    CoinferError
        If trace, predictions, network and strategy do not fit together; the message says where.

    Examples
    --------
    >>> import numpy as np, coinfer as ci
    >>> preds = ci.Predictions(
    ...     {"small": ci.ModelOutput(label=[0, 1, 1], confidence=[0.9, 0.4, 0.8]),
    ...      "large": ci.ModelOutput(label=[0, 0, 1], confidence=[0.9, 0.9, 0.9])}, labels=[0, 0, 1])
    >>> net = ci.Network.chain(
    ...     {"device": "small", "cloud": "large"}, delay_ms=[20], service_ms=[1, 5], price_usd=[0, 1e-4])
    >>> trace = ci.Trace(arrival_ns=np.arange(3) * 1000, ingress=["device"] * 3, sample=[0, 1, 2])
    >>> run = ci.replay(trace, preds, net, ci.Forward(score="confidence", thresholds=[0.5]))
    >>> float(run.summary.accuracy), run.summary.latency_us.max, round(run.summary.settled_by_node["cloud"], 3)
    (1.0, 46000.0, 0.333)
    """
    check_draws(seed, threads)
    warmup_ms = check_number(warmup_ms, "warmup_ms")
    network = network.with_outages(outages)
    compiler = Compiler(predictions, network, threads, seed)
    return Run(
        Requests(trace, predictions, network, threads), compiler, strategy, seed, engine=engine, warmup_ms=warmup_ms
    )


def _deadlines(trace: Trace) -> NDArray[np.int64] | None:
    if trace.deadline_us is None:
        return None
    # 2**63 is no int64: what is as long as that, or infinite, is filled in after the cast.
    ns = np.rint(trace.deadline_us * 1e3)
    endless = ns >= float(_NO_DEADLINE)
    if endless.all():
        return None
    deadlines = np.where(endless, 0.0, ns).astype(np.int64)
    deadlines[endless] = _NO_DEADLINE
    return deadlines


def _priorities(trace: Trace) -> NDArray[np.int32] | None:
    """Give the priorities, if any two requests differ."""
    if trace.priority is None or np.all(trace.priority == trace.priority[0]):
        return None
    return np.ascontiguousarray(trace.priority, np.int32)


def check_draws(seed: int, threads: int) -> None:
    """Refuse a seed that is no uint64, and a number of threads that is none."""
    check_integer(threads, "threads", at_least=0, at_most=2**16)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        msg = f"seed must be an integer from 0 to 2**64 - 1, not {seed!r}"
        raise BadValueError(msg)
