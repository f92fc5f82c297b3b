"""What a live run left behind, read back: outcomes, summary, and the proof that replay decides the same.

`LiveRun.redecide` feeds every journalled input of the stepper back into fresh sessions, in the order in which they
were fed, and compares each decision and each answer. `LiveRun.against` says something else and is kept apart: how far
what the servers answered is from a Predictions table, because batching, hardware and versions change bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer._core import plan as core
from coinfer.errors import BadFileError, UnsupportedError
from coinfer.live.guard import feasible
from coinfer.live.journal import check_segments, each_row, read_begun, read_manifest, read_table
from coinfer.live.planning import Shape, plans, readings
from coinfer.network import Network
from coinfer.results import Estimate, Latency, Summary
from coinfer.trace import Trace

if TYPE_CHECKING:
    from os import PathLike

    import pyarrow as pa
    from numpy.typing import NDArray

    from coinfer.predictions import Predictions
    from coinfer.strategy.base import Strategy

__all__ = ["Distance", "LiveRun", "Redecided"]

_STATUS = ("open", "answered", "degraded", "rejected", "expired", "failed")


@dataclass(frozen=True, slots=True)
class Redecided:
    """How a replay of the journal compares with the run.

    Attributes
    ----------
    requests : int
        Requests with an outcome.
    decisions : int
        Decisions compared: every call of the stepper.
    identical : int
        Requests whose decisions and answer all came out the same, bit by bit.
    differences : tuple of str
        A sentence for each request that did not, the first twenty.
    """

    requests: int
    decisions: int
    identical: int
    differences: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain data."""
        return {**asdict(self), "differences": list(self.differences)}

    def __str__(self) -> str:
        share = f"{self.identical:,} of {self.requests:,} requests ({self.identical / max(self.requests, 1):.2%})"
        lines = [f"identical decisions and answers: {share}, {self.decisions:,} decisions"]
        return "\n".join(lines + [f"  {line}" for line in self.differences])


@dataclass(frozen=True, slots=True)
class Distance:
    """How far the answers of servers were from a Predictions table, by model.

    Attributes
    ----------
    answers : dict of str to int
        Answers compared.
    same_label : dict of str to float
        Share with the same label.
    largest : dict of str to float
        Largest difference of one number of a vector, where both give vectors of one form.
    """

    answers: Mapping[str, int]
    same_label: Mapping[str, float]
    largest: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain data."""
        return {key: dict(getattr(self, key)) for key in ("answers", "same_label", "largest")}

    def __str__(self) -> str:
        lines = ["live answers against the predictions:"]
        for model, count in self.answers.items():
            far = "" if math.isnan(self.largest[model]) else f", vectors differ by at most {self.largest[model]:.3g}"
            lines.append(f"  {model}: {self.same_label[model]:.2%} of {count:,} labels are the same{far}")
        return "\n".join(lines)


@dataclass(eq=False)
class LiveRun:
    """A live run, read from its folder.

    Attributes
    ----------
    folder : Path
    manifest : dict
        What ran: versions, servers, settings.
    network, strategy, trace
        What it ran on.
    labels : ndarray of int64 or None
        True labels of the samples.
    segments : int
        Starts of the router: 1, and one more for each time it was resumed.
    """

    folder: Path
    manifest: dict[str, Any]
    network: Network
    strategy: Strategy
    trace: Trace
    labels: NDArray[np.int64] | None
    segments: int
    _tables: dict[tuple[str, int], Any] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, folder: str | PathLike[str]) -> LiveRun:
        """Read a run.

        Raises
        ------
        BadFileError
            If the folder is no live run or its journal cannot be read.
        """
        from coinfer.strategy import Strategy

        folder = Path(folder)
        manifest = read_manifest(folder)
        labels = None
        if (folder / "labels.npy").exists():
            try:
                labels = np.load(folder / "labels.npy", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                msg = f"{folder / 'labels.npy'}: cannot be read as labels: {error}"
                raise BadFileError(msg) from error
        return cls(
            folder,
            manifest,
            Network.open(folder / "network.toml"),
            Strategy.open(folder / "strategy.toml"),
            Trace.open(folder / "trace.arrow"),
            labels,
            check_segments(folder),
        )

    @property
    def complete(self) -> bool:
        """Whether every request of the trace has an outcome."""
        return len(self.outcomes_raw()) == len(self.trace)

    def table(self, name: str, segment: int) -> pa.Table:
        """Give one stream of the journal: ``answers``, ``steps``, ``outcomes`` or ``audits``."""
        if (name, segment) not in self._tables:
            table = read_table(self.folder, name, segment)
            for column, bound in self._bounds.items():
                if column in table.column_names and len(table):
                    values = table.column(column).to_numpy()
                    if values.min() < 0 or values.max() >= bound:
                        worst = int(values.max() if values.max() >= bound else values.min())
                        msg = (
                            f"{self.folder}: {name}-{segment}.arrows is damaged: column {column!r} holds {worst}, "
                            f"allowed are 0 to {bound - 1}"
                        )
                        raise BadFileError(msg)
            self._tables[name, segment] = table
        return self._tables[name, segment]

    @cached_property
    def _bounds(self) -> dict[str, int]:
        """Give one past the largest index that a journal of this run may hold, by column."""
        stages = max(len(self._stages(node)) for node in self.trace.nodes)
        return {
            "request": len(self.trace),
            "sample": int(self.trace.sample.max()) + 1,
            "ingress": len(self.trace.nodes),
            "member": max(len(self.manifest["members"][node]) for node in self.trace.nodes),
            "stage": stages,
            "answered_by": stages,
            "status": len(_STATUS),
        }

    def outcomes_raw(self) -> pa.Table:
        """Give the outcomes of all segments as journalled, in the order in which requests ended."""
        import pyarrow as pa

        return pa.concat_tables([self.table("outcomes", s) for s in range(self.segments)])

    def started(self) -> frozenset[int]:
        """Give the requests that were started, whether or not they ended."""
        begun = [read_begun(self.folder, segment) for segment in range(self.segments)]
        return frozenset(np.concatenate(begun).tolist())

    def outcomes(self) -> pa.Table:
        """Give one row per request that ended, by request: the columns of `Run.outcomes` that a live run knows.

        Returns
        -------
        pyarrow.Table
            `request`, `arrival_ns`, `ingress`, `sample`, `answer`, `confidence`, `model` and `node` that gave it,
            `stages`, `latency_us` from the intended start, `late_us` (how much of it passed before the request was
            started), `price_usd`, `correct`, `status`, `attempts`, `resent`.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        raw = self.outcomes_raw().sort_by("request")
        rows = raw.column("request").to_numpy()
        label = raw.column("label").to_numpy()
        status = raw.column("status").to_numpy()
        lane, stage = raw.column("ingress").to_numpy(), raw.column("answered_by").to_numpy()
        answer = np.where(label < -1, -2 - label, label)
        none = label == -1
        names = [self._stages(node) for node in self.trace.nodes]
        where = [(names[a][b] if not c else (None, None)) for a, b, c in zip(lane, stage, none, strict=True)]
        truth = None if self.labels is None else self.labels[raw.column("sample").to_numpy()]
        correct = pa.nulls(len(raw), pa.bool_()) if truth is None else pa.array(label == truth, mask=none | (truth < 0))
        started = pc.subtract(raw.column("started_us"), raw.column("intended_us"))
        nodes = pa.array(list(self.trace.nodes))
        return pa.table(
            {
                "request": raw.column("request"),
                "arrival_ns": pa.array(self.trace.arrival_ns[rows]),
                "ingress": pa.DictionaryArray.from_arrays(pa.array(lane), nodes),
                "sample": raw.column("sample"),
                "answer": pa.array(answer, mask=none),
                "confidence": raw.column("score"),
                "model": pa.array([w[0] for w in where], pa.string()),
                "node": pa.array([w[1] for w in where], pa.string()),
                "stages": raw.column("stages"),
                "latency_us": raw.column("latency_us"),
                "late_us": started,
                "price_usd": raw.column("price_usd"),
                "correct": correct,
                "status": pa.DictionaryArray.from_arrays(pa.array(status.astype(np.int8)), pa.array(list(_STATUS))),
                "attempts": raw.column("attempts"),
                "resent": raw.column("resent"),
            }
        )

    def _stages(self, node: str) -> list[tuple[str, str]]:
        spec = self.strategy.plan(self.network, node)
        return [
            ("+".join(d.model for d in stage.members), "+".join(dict.fromkeys(d.node for d in stage.members)))
            for stage in spec.stages
        ]

    @cached_property
    def summary(self) -> Summary:
        """The same summary as a replay's, over the requests that ended."""
        table = self.outcomes()
        n = len(table)
        if n == 0:
            msg = f"{self.folder}: no request has ended, so there is nothing to sum up"
            raise UnsupportedError(msg)
        latency = np.sort(table.column("latency_us").to_numpy())
        ranks = np.maximum(np.ceil(np.array([0.5, 0.9, 0.95, 0.99, 1.0]) * n).astype(int), 1) - 1
        status = table.column("status").combine_chunks().indices.to_numpy()
        price = table.column("price_usd").to_numpy()
        sample = table.column("sample").to_numpy()
        ingress = table.column("ingress").combine_chunks().indices.to_numpy()
        accuracy, goodput = None, None
        by_class: dict[str, float] = {}
        by_ingress: dict[str, float] = {}
        labelled = 0
        if self.labels is not None:
            right = table.column("correct").fill_null(False).to_numpy(zero_copy_only=False)
            known = self.labels[sample] >= 0
            counted = known & np.isin(status, (1, 2))
            labelled = int(counted.sum())
            if labelled:
                weight = np.bincount(sample[counted]).astype(np.float64)
                effective = float(weight.sum() ** 2 / np.square(weight).sum())
                accuracy = Estimate.share(int((right & counted).sum()), labelled, effective)
                truth = self.labels[sample]
                for k in np.unique(truth[counted]):
                    chosen = counted & (truth == k)
                    by_class[str(int(k))] = float(right[chosen].mean())
                for k, node in enumerate(self.trace.nodes):
                    chosen = counted & (ingress == k)
                    if chosen.any():
                        by_ingress[node] = float(right[chosen].mean())
            deadline = self.trace.deadline_us
            rows = table.column("request").to_numpy()
            in_time = np.ones(n, bool) if deadline is None else table.column("latency_us").to_numpy() <= deadline[rows]
            goodput = float((right & in_time & np.isin(status, (1, 2)))[known].mean()) if known.any() else None
        stage = self.outcomes_raw().sort_by("request").column("answered_by").to_numpy()
        width = max(len(self._stages(node)) for node in self.trace.nodes)

        def shares(column: str, names: list[str]) -> dict[str, float]:
            found = dict.fromkeys(names, 0.0)
            for value in table.column(column).to_pylist():
                if value is not None:
                    found[value] = found.get(value, 0.0) + 1.0 / n
            return found

        return Summary(
            strategy=self.strategy.name,
            engine=f"live: {len(self.manifest['servers'])} servers",
            seed=self.manifest["seed"],
            requests=n,
            labelled=labelled,
            accuracy=accuracy,
            goodput=goodput,
            latency_us=Latency(float(latency.mean()), *(float(v) for v in latency[ranks])),
            network_us=0.0,
            service_us=float(latency.mean()),
            queue_us=0.0,
            price_usd=float(price.sum()) / n,
            price_usd_total=float(price.sum()),
            stages=float(table.column("stages").to_numpy().mean()),
            settled_by_node=shares("node", [node.name for node in self.network.nodes]),
            settled_by_model=shares("model", [model.name for model in self.network.models]),
            settled_by_stage=tuple(
                float(v) / n for v in np.bincount(stage[table["answer"].is_valid()], minlength=width)
            ),
            accuracy_by_class=by_class,
            accuracy_by_ingress=by_ingress,
            status={name: int((status == k).sum()) for k, name in enumerate(_STATUS) if name != "open"},
            unsure={},
        )

    def stage_times(self) -> pa.Table:
        """Give the time of each consultation: request, stage, model, node, endpoint, attempts, took_us, reason."""
        import pyarrow as pa

        parts = []
        for segment in range(self.segments):
            answers = self.table("answers", segment)
            lane = self.trace.ingress[answers.column("request").to_numpy()]
            members = [self.manifest["members"][node] for node in self.trace.nodes]
            names = [members[a][b] for a, b in zip(lane, answers.column("member").to_pylist(), strict=True)]
            kept = answers.select(
                ["request", "stage", "endpoint", "attempts", "hedged", "sent_us", "took_us", "reason"]
            )
            parts.append(kept.append_column("deployment", pa.array(names, pa.string())))
        return pa.concat_tables(parts)

    # Replaying ----------------------------------------------------------------------------------------------

    def redecide(self) -> Redecided:
        """Feed the journal back to the stepper and compare every decision.

        Returns
        -------
        Redecided
        """
        shapes = {name: Shape(**each) for name, each in self.manifest["shapes"].items()}
        identical = decisions = requests = 0
        differences: list[str] = []
        for segment in range(self.segments):
            # A rule that learns starts anew with each start of the router, as it did live.
            made, _ = plans(self.strategy, shapes, self.network, self.trace.nodes)
            read = readings(shapes, self.network)
            good, bad, steps = self._redecide(segment, made, read)
            identical += good
            requests += good + len(bad)
            decisions += steps
            differences += bad
        return Redecided(requests, decisions, identical, tuple(differences[:20]))

    def _redecide(self, segment: int, made: Any, read: Any) -> tuple[int, list[str], int]:
        told: dict[tuple[int, int], list[tuple[Any, ...]]] = {}
        answers = self.table("answers", segment).select(
            ["request", "stage", "member", "reason", "vector", "label", "confidence"]
        )
        for row in each_row(answers):
            told.setdefault(row[:2], []).append(row[2:])
        ended = {
            row[0]: row[1:]
            for row in each_row(
                self.table("outcomes", segment).select(["request", "status", "label", "score", "stage"])
            )
        }
        sessions: dict[int, core.Session] = {}
        wrong: dict[int, str] = {}
        steps = 0
        for row in each_row(self.table("steps", segment)):
            request, kind, stage, wait_us, remaining_us, uniform, hop_us, _, late, status, label, score, *_ = row
            if request not in ended or request in wrong:
                continue
            steps += 1
            plan = made[self.trace.ingress[request]]
            if kind == "open":
                sessions[request] = core.Session(plan.plan, uniform)
                if sessions[request].stage != stage:
                    wrong[request] = f"request {request}: starts at stage {sessions[request].stage}, live at {stage}"
                continue
            if request not in sessions:
                wrong[request] = f"request {request}: has steps but no start"
                continue
            session = sessions[request]
            if kind == "settle":
                if feasible(remaining_us, hop_us):
                    wrong[request] = (
                        f"request {request}: was ended for lack of time, though {remaining_us:g} us remained"
                    )
                    continue
                session.settle(late)
            else:
                if session.stage != stage:
                    wrong[request] = f"request {request}: is at stage {session.stage}, live at {stage}"
                    continue
                for member, reason, bits, said, confidence in told.get((request, stage), ()):
                    if reason is None:
                        reading = read[plan.members[member].model]
                        vector = None if bits is None else np.frombuffer(bits, np.float32)
                        session.tell(member, reading.outputs(vector, said, confidence))
                session.step(wait_us, remaining_us, uniform)
            now = (session.status.value, session.label, session.score)
            if now[:2] != (status, label) or not _same(now[2], score):
                wrong[request] = (
                    f"request {request}, stage {stage}: replay gives {now}, live gave {(status, label, score)}"
                )
        for request, (status, label, score, stage) in ended.items():
            if request in wrong or (status == 3 and request not in sessions):
                continue
            if request not in sessions:
                wrong[request] = f"request {request}: has an outcome but no steps"
                continue
            session = sessions[request]
            now = (session.status.value, session.label, session.stage)
            if now != (status, label, stage) or not _same(session.score, score):
                wrong[request] = f"request {request}: replay ends with {now}, live with {(status, label, stage)}"
        return len(ended) - len(wrong), list(wrong.values()), steps

    def against(self, predictions: Predictions) -> Distance:
        """Say how far the answers of the servers were from a Predictions table.

        Parameters
        ----------
        predictions : Predictions
            About the same samples, in the same order.
        """
        shapes = {name: Shape(**each) for name, each in self.manifest["shapes"].items()}
        read = readings(shapes, self.network)
        members = [self.manifest["members"][node] for node in self.trace.nodes]
        count: dict[str, int] = {}
        same: dict[str, int] = {}
        far: dict[str, float] = {}
        tables = {name: predictions[name].answers() for name in predictions}
        for segment in range(self.segments):
            for request, member, reason, bits, label in each_row(
                self.table("answers", segment).select(["request", "member", "reason", "vector", "label"])
            ):
                if reason is not None:
                    continue
                model = self.network.deployment(members[self.trace.ingress[request]][member]).model
                if model not in tables:
                    continue
                sample = int(self.trace.sample[request])
                count[model] = count.get(model, 0) + 1
                said = label
                if bits is not None:
                    vector = np.frombuffer(bits, np.float32)
                    order = read[model].order
                    vector = vector if order is None else vector[order]
                    best = int(np.argmax(vector))
                    relabel = read[model].relabel
                    said = -1 if np.isnan(vector[best]) else best if relabel is None else int(relabel[best])
                    table = predictions[model]
                    if table.vector is not None and table.form == read[model].form:
                        gap = float(np.max(np.abs(vector - table.vector[sample])))
                        far[model] = max(far.get(model, 0.0), gap)
                same[model] = same.get(model, 0) + (said == int(tables[model][sample]))
        return Distance(
            count,
            {model: same[model] / total for model, total in count.items()},
            {model: far.get(model, math.nan) for model in count},
        )

    def __str__(self) -> str:
        return str(self.summary)


def _same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))
