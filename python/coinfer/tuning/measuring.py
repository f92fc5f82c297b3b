"""From decisions to quantities: what a strategy, or many at once, give on chosen samples, without queues.

Everything is a sum over samples of what settling somewhere gives: right or not, nanoseconds, pico-dollars. `Measures`
knows for each quantity which sums it needs and how they become a share or a mean; the sweeps only add. Requests are
taken to enter at the ingress nodes in equal parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer._core import sweep
from coinfer.errors import BadValueError, UnknownNameError, UnsupportedError, nearest
from coinfer.tuning.constraint import QUANTITIES, quantile_of, subject_of
from coinfer.tuning.ways import Way, way_through

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer._core import plan as core
    from coinfer.compiling import Compiler
    from coinfer.strategy.base import PlanSpec, Strategy
    from coinfer.tuning.waiting import Waiting

__all__ = ["Columns", "Measures", "Path", "Sums"]

Columns = dict[str, "NDArray[Any]"]
Itinerary = tuple[int, ...]


@dataclass(frozen=True)
class Sums:
    """Of one path at P points: how many samples take each way ([way][P]), and what was added up row by row ([P]).

    `by_row` also holds latency quantiles in nanoseconds, where they are known row by row alone. Of a single point,
    `latency_ns` holds the latency of every row at every ingress node instead.
    """

    taken: NDArray[np.int64]
    by_row: dict[str, NDArray[np.int64]]
    latency_ns: NDArray[np.int64] | None = None


@dataclass
class Path:
    """Ingress nodes whose requests meet the same plan, and what each way through it takes."""

    spec: PlanSpec
    evidence: core.Evidence
    route: NDArray[np.uint8]
    ways: tuple[Itinerary, ...]
    ingresses: tuple[str, ...]
    costs: list[list[Way]]  # [ingress][way]
    models: tuple[str, ...] = ()
    tables: dict[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def stages(self) -> int:
        """How many stages the plan has."""
        return len(self.spec.stages)

    @property
    def plain(self) -> bool:
        """Whether every way is one stage after the other from the first on."""
        return all(way == tuple(range(len(way))) for way in self.ways)

    def total(self, what: str) -> NDArray[Any]:
        """Add a cost up over the ingress nodes: [way], or [way][sample] for measured times."""
        per_ingress = [[getattr(way, what) for way in ways] for ways in self.costs]
        summed = [sum(each) for each in zip(*per_ingress, strict=True)]
        total: NDArray[np.int64] = np.rint(np.array(np.broadcast_arrays(*summed))).astype(np.int64)
        return total

    @property
    def by_sample(self) -> bool:
        """Whether latencies are known sample by sample, because service times were measured so."""
        return any(way.by_sample for ways in self.costs for way in ways)

    def latency_ns(self) -> NDArray[np.int64]:
        """Give the latency of every sample by every way from every ingress node, [ingress][way][sample]."""
        drawn = np.array([[way.draws_ns for way in ways] for ways in self.costs])
        return np.ascontiguousarray(drawn, np.int64)

    def answers(self, way: int, rows: Any) -> NDArray[np.int32]:
        """Give the answer of samples that take a way: the newest that anybody gave."""
        visited = self.ways[way]
        answer: NDArray[np.int32] = self.evidence.label[visited[-1]][rows].copy()
        for stage in reversed(visited[:-1]):
            missing = answer == -1
            if not missing.any():
                break
            answer[missing] = self.evidence.label[stage][rows][missing]
        return answer


class Measures:
    """The quantities that a problem asks about, on one set of predictions and one network.

    Parameters
    ----------
    compiler : Compiler
    ingress : str, optional
        Where requests enter; default: all ingress nodes.
    quantities : iterable of str
        What is asked for beyond the usual ones.
    rate_rps : float, optional
        All requests per second, for loads.
    waiting : Waiting, optional
        Replays strategies whose decisions depend on queues.
    """

    def __init__(
        self,
        compiler: Compiler,
        ingress: str | None = None,
        quantities: Iterable[str] = (),
        rate_rps: float | None = None,
        seed: int = 0,
        waiting: Waiting | None = None,
    ) -> None:
        if ingress is not None:
            compiler.network.node(ingress)
        self.compiler = compiler
        self.ingresses = compiler.network.ingress if ingress is None else (ingress,)
        self.rate_rps = rate_rps
        self.seed = seed
        self.waiting = waiting
        self.labels = compiler.predictions.labels
        self.extra = tuple(dict.fromkeys(name for name in quantities if name not in QUANTITIES))
        self._classes: dict[str, int] = {}
        self._references: dict[str, NDArray[np.int32]] = {}
        self._ways: dict[Any, Way] = {}
        for name in self.extra:
            self._check(name)

    def needs_labels(self, name: str) -> bool:
        """Say whether a quantity is about the truth."""
        about = subject_of(name)
        return name == "accuracy" or (about is not None and about[0] in ("recall", "accuracy_loss"))

    def point(self, strategy: Strategy, rows: NDArray[np.uint32]) -> tuple[Columns, list[Path]]:
        """Measure one strategy: from what it decides, or, if that depends on queues, from a replay."""
        if self.waiting is not None and self.waiting.decides(strategy):
            found = self.waiting.everything(strategy, rows, self.extra)
            return {name: np.array([value]) for name, value in found.items()}, []
        paths = self.paths(strategy)
        return self.columns(paths, self.taken(paths, rows), rows), paths

    def paths(self, strategy: Strategy) -> list[Path]:
        """Compile a strategy at every ingress node; nodes with the same plan share a path."""
        found: dict[Any, Path] = {}
        for name in self.ingresses:
            compiled = self.compiler.plan(strategy, name)
            ways = tuple(tuple(int(stage) for stage in way) for way in compiled.decisions.itineraries)
            costs = [self._way(compiled.spec, name, way) for way in ways]
            models = tuple("+".join(d.model for d in stage.members) for stage in compiled.spec.stages)
            key = (id(compiled.evidence), id(compiled.decisions), models)
            if key in found:
                path = found[key]
                path.ingresses = (*path.ingresses, name)
                path.costs.append(costs)
            else:
                found[key] = Path(
                    compiled.spec, compiled.evidence, compiled.decisions.route, ways, (name,), [costs], models
                )
        return list(found.values())

    def _way(self, spec: PlanSpec, ingress: str, way: Itinerary) -> Way:
        key = (
            ingress,
            way,
            tuple(tuple(d.name for d in spec.stages[stage].members) for stage in range(len(spec.stages))),
        )
        if key not in self._ways:
            self._ways[key] = way_through(self.compiler, spec, ingress, way, self.seed)
        return self._ways[key]

    # Row by row ---------------------------------------------------------------------------------------------

    def row_names(self, path: Path) -> list[str]:
        """Name what must be added up row by row on a path."""
        names = ["accuracy"] if self.labels is not None else []
        names += [name for name in self.extra if (subject_of(name) or ("",))[0] in ("recall", "disagreement")]
        if path.total("mean_ns").ndim > 1:
            names.append("latency_us_mean")
        return names

    def table(self, path: Path, name: str) -> NDArray[Any]:
        """Give what is added up row by row, [way][row] flattened: flags as bytes, or whole numbers."""
        if name not in path.tables:
            rows = slice(None)
            if name == "latency_us_mean":
                table = np.ascontiguousarray(path.total("mean_ns"))
            else:
                table = np.array(
                    [self._flags(name, path.answers(way, rows)) for way in range(len(path.ways))], np.uint8
                )
            path.tables[name] = table.reshape(-1)
        return path.tables[name]

    def swept(
        self,
        path: Path,
        cuts: NDArray[np.float32],
        taken: NDArray[np.int64],
        sums: Sequence[NDArray[np.int64]],
        rows: NDArray[np.uint32],
        threads: int = 1,
    ) -> Sums:
        """Name what a sweep gave at these thresholds ([point][stage but the last]); add what is no sum."""
        by_row = dict(zip(self.row_names(path), sums, strict=True))
        asked = {name: q for name in self.extra if (q := quantile_of(name)) is not None} if path.by_sample else {}
        if asked and "latency_ns" not in path.tables:
            path.tables["latency_ns"] = path.latency_ns()
        for name, quantile in asked.items():
            values, reach = path.tables["latency_ns"], _reach(quantile, len(rows) * len(path.ingresses))
            if path.stages > 1:
                bars = np.ascontiguousarray(cuts, np.float32)
                by_row[name] = sweep.quantiles(path.evidence, bars, values, reach, rows, threads)
            else:
                alone = np.partition(values[:, 0, rows].reshape(-1), reach - 1)[reach - 1]
                by_row[name] = np.full(len(cuts), alone)
        return Sums(taken, by_row)

    def _flags(self, name: str, answers: NDArray[np.int32], rows: Any = slice(None)) -> NDArray[np.bool_]:
        about = subject_of(name)
        if about is not None and about[0] == "disagreement":
            said = np.where(answers < -1, -2 - answers, answers)  # an abstention is an answer like another here
            disagree: NDArray[np.bool_] = said != self._reference(about[1])[rows]
            return disagree
        assert self.labels is not None
        truth = self.labels[rows]
        right: NDArray[np.bool_] = (answers == truth) & (truth >= 0)
        return right & (truth == self._class(about[1])) if about is not None and about[0] == "recall" else right

    def taken(self, paths: Sequence[Path], rows: NDArray[np.uint32]) -> list[Sums]:
        """Add up what a decided strategy gives: one point."""
        out = []
        for path in paths:
            route = path.route[rows].astype(np.int64)
            counts = np.bincount(route, minlength=len(path.ways)).reshape(-1, 1)
            by_row: dict[str, NDArray[np.int64]] = {}
            answers = self._answers(path, rows)
            for name in self.row_names(path):
                if name == "latency_us_mean":
                    values: Any = path.total("mean_ns")[route, rows]
                else:
                    values = self._flags(name, answers, rows)
                by_row[name] = np.array([int(values.sum())], np.int64)
            out.append(Sums(counts, by_row, path.latency_ns()[:, route, rows] if path.by_sample else None))
        return out

    def _answers(self, path: Path, rows: NDArray[np.uint32]) -> NDArray[np.int32]:
        answers = np.full(len(rows), -1, np.int32)
        for way in range(len(path.ways)):
            here = path.route[rows] == way
            if here.any():
                answers[here] = path.answers(way, rows[here])
        return answers

    # Quantities ---------------------------------------------------------------------------------------------

    def columns(self, paths: Sequence[Path], sums: Sequence[Sums], rows: NDArray[np.uint32]) -> Columns:
        """Turn sums into quantities, one value per point."""
        n, ingresses = len(rows), len(self.ingresses)
        columns: Columns = {}
        if self.labels is not None:
            labelled = int(np.count_nonzero(self.labels[rows] >= 0))
            columns["accuracy"] = self._share(paths, sums, "accuracy", labelled)
        first: Any = sum(
            len(path.ingresses) * each.taken[[i for i, way in enumerate(path.ways) if len(way) == 1]].sum(axis=0)
            for path, each in zip(paths, sums, strict=True)
        )
        columns["forwarded_share"] = (n * ingresses - first) / (n * ingresses)
        columns["stages"] = _added(
            len(path.ingresses) * (np.array([len(way) for way in path.ways]) @ each.taken)
            for path, each in zip(paths, sums, strict=True)
        ) / (n * ingresses)
        latency = _added(
            each.by_row["latency_us_mean"] if "latency_us_mean" in each.by_row else path.total("mean_ns") @ each.taken
            for path, each in zip(paths, sums, strict=True)
        )
        columns["latency_us_mean"] = latency / (n * ingresses) / 1e3
        price = _added(path.total("pico_usd") @ each.taken for path, each in zip(paths, sums, strict=True))
        columns["price_usd"] = price / (n * ingresses) / 1e12
        for name in self.extra:
            columns[name] = self._extra(name, paths, sums, rows, columns)
        return columns

    def _share(self, paths: Sequence[Path], sums: Sequence[Sums], name: str, of: int) -> NDArray[np.float64]:
        total = sum(len(path.ingresses) * each.by_row[name] for path, each in zip(paths, sums, strict=True))
        share: NDArray[np.float64] = np.asarray(total, np.float64) / (max(of, 1) * len(self.ingresses))
        return share if of else np.full_like(share, np.nan)

    def _extra(
        self, name: str, paths: Sequence[Path], sums: Sequence[Sums], rows: NDArray[np.uint32], columns: Columns
    ) -> NDArray[np.float64]:
        about, quantile = subject_of(name), quantile_of(name)
        if quantile is not None:
            if any(path.by_sample for path in paths):
                return self._quantile_by_sample(name, quantile, sums)
            return self._latency_quantile(quantile, paths, sums, len(rows))
        assert about is not None
        what, whom = about
        if what == "recall":
            assert self.labels is not None
            return self._share(paths, sums, name, int(np.count_nonzero(self.labels[rows] == self._class(whom))))
        if what == "disagreement":
            return self._share(paths, sums, name, len(rows))
        if what == "accuracy_loss":
            loss: NDArray[np.float64] = self.accuracy_of(whom, rows) - columns["accuracy"]
            return loss
        assert self.rate_rps is not None
        busy = _added(
            np.array([sum(ways[w].busy_ns.get(whom, 0.0) for ways in path.costs) for w in range(len(path.ways))])
            @ each.taken
            for path, each in zip(paths, sums, strict=True)
        )
        instances = sum(d.instances or np.inf for d in self.compiler.network.deployments if d.node == whom)
        load: NDArray[np.float64] = self.rate_rps * busy / (len(rows) * len(self.ingresses)) / 1e9 / max(instances, 1)
        return load

    def _quantile_by_sample(self, name: str, q: float, sums: Sequence[Sums]) -> NDArray[np.float64]:
        if len(sums) == 1 and name in sums[0].by_row:
            return np.asarray(sums[0].by_row[name] / 1e3)
        parts = [each.latency_ns for each in sums]
        if any(part is None for part in parts):
            msg = (
                f"{name} with measured service times is swept along one path, but paths differ between ingress nodes: "
                "say which with ingress=, or give trace= to replay candidates"
            )
            raise UnsupportedError(msg)
        every = np.concatenate([part.reshape(-1) for part in parts if part is not None])
        return np.partition(every, _reach(q, len(every)) - 1)[[_reach(q, len(every)) - 1]] / 1e3

    def _latency_quantile(self, q: float, paths: Sequence[Path], sums: Sequence[Sums], n: int) -> NDArray[np.float64]:
        values, owners, weights = [], [], []
        for path, each in zip(paths, sums, strict=True):
            for ways in path.costs:
                for at, way in enumerate(ways):
                    values.append(np.sort(way.draws_ns))
                    owners.append(each.taken[at])
                    weights.append(1 / len(way.draws_ns))
        grid = np.unique(np.concatenate(values))
        rank = [np.searchsorted(v, grid, side="right") * w for v, w in zip(values, weights, strict=True)]
        points = len(owners[0])
        low, high = np.zeros(points, np.int64), np.full(points, len(grid) - 1)
        goal = q * n * len(self.ingresses) * (1 - 1e-12)
        while np.any(low < high):  # the first grid value that enough requests do not exceed
            middle = (low + high) // 2
            reached = sum(taken * below[middle] for taken, below in zip(owners, rank, strict=True))
            enough = reached >= goal
            high = np.where(enough, middle, high)
            low = np.where(enough, low, middle + 1)
        quantile: NDArray[np.float64] = grid[np.minimum(low, len(grid) - 1)] / 1e3
        return quantile

    # Row by row, for evidence -------------------------------------------------------------------------------

    def losses(self, strategy: Strategy, name: str, rows: NDArray[np.uint32]) -> NDArray[np.float64] | None:
        """Give a bounded quantity sample by sample, averaged over ingress nodes; None where it says nothing.

        Rows that the quantity is not about (unlabelled, of another class) are left out.
        """
        about = subject_of(name)
        what = about[0] if about is not None else name
        kept = rows
        if self.needs_labels(name):
            assert self.labels is not None
            truth = self.labels[rows]
            kept = rows[truth == self._class(about[1])] if what == "recall" and about else rows[truth >= 0]
        total: Any = 0.0
        for path in self.paths(strategy):
            route = path.route[kept].astype(np.int64)
            if what in ("accuracy", "recall"):
                values: Any = 1.0 * self._flags("accuracy", self._answers(path, kept), kept)
            elif what == "disagreement":
                values = 1.0 * self._flags(name, self._answers(path, kept), kept)
            elif what == "accuracy_loss":
                assert about is not None
                assert self.labels is not None
                truth = self.labels[kept]
                right = self._flags("accuracy", self._answers(path, kept), kept)
                values = 1.0 * (self._reference(about[1])[kept] == truth) - right
            elif what == "forwarded_share":
                values = 1.0 * np.array([len(way) > 1 for way in path.ways])[route]
            elif what == "stages":
                values = 1.0 * np.array([len(way) for way in path.ways])[route]
            elif what == "price_usd":
                values = path.total("pico_usd")[route] / len(path.ingresses) / 1e12
            elif what == "latency_us_mean":
                mean = path.total("mean_ns")
                values = (mean[route] if mean.ndim == 1 else mean[route, kept]) / len(path.ingresses) / 1e3
            else:
                return None
            total = total + values * len(path.ingresses)
        each: NDArray[np.float64] = total / len(self.ingresses)
        return each

    def quantile(self, strategy: Strategy, name: str, rows: NDArray[np.uint32]) -> tuple[float, float, float]:
        """Give a latency quantile and its 95 % interval, by that of the share of requests below it (Woodruff 1952)."""
        q = quantile_of(name)
        assert q is not None
        paths = self.paths(strategy)
        sums = self.taken(paths, rows)

        def at(share: float) -> float:
            share = min(max(share, 0.0), 1.0)
            if any(path.by_sample for path in paths):
                return float(self._quantile_by_sample(name, share, sums)[0])
            return float(self._latency_quantile(share, paths, sums, len(rows))[0])

        value = at(q)
        below = np.zeros(len(rows))
        for path in paths:
            route = path.route[rows].astype(np.int64)
            for ways in path.costs:
                within = [way.draws_ns <= value * 1e3 for way in ways]
                if path.by_sample:
                    below += np.array(within)[route, rows]
                else:
                    below += np.array([each.mean() for each in within])[route]
        half = 1.959963984540054 * float(below.std()) / len(self.ingresses) / math.sqrt(len(rows))
        return value, min(at(q - half), value), max(at(q + half), value)

    def support(self, strategy: Strategy, name: str) -> tuple[str, float, float]:
        """Say which values a quantity can take for one sample, whatever was seen: the kind of `p_value`, low, most.

        Where ingress nodes decide differently, a sample's value is their mean and no longer whole.
        """
        paths = self.paths(strategy)
        about = subject_of(name)
        if name == "price_usd":
            dearest = sum(max(way.pico_usd for way in ways) for path in paths for ways in path.costs)
            return "bounded", 0.0, dearest / len(self.ingresses) / 1e12
        if name == "stages":
            return "bounded", 0.0, float(max(len(way) for path in paths for way in path.ways))
        if about is not None and about[0] == "accuracy_loss":
            return ("paired" if len(paths) == 1 else "bounded"), -1.0, 1.0
        return ("binary" if len(paths) == 1 else "bounded"), 0.0, 1.0

    def _check(self, name: str) -> None:
        about = subject_of(name)
        if about is None:
            return
        what, whom = about
        if what == "recall":
            self._class(whom)
        elif what == "load":
            self.compiler.network.node(whom)
            if self.rate_rps is None:
                msg = f"{name} depends on how many requests come: give rate_rps="
                raise BadValueError(msg)
        else:
            self._reference(whom)

    def class_of(self, quantity: str) -> int:
        """Give the label that ``recall[...]`` is about."""
        about = subject_of(quantity)
        assert about is not None
        return self._class(about[1])

    def _class(self, name: str) -> int:
        classes = self.compiler.predictions.classes
        known = classes if classes is not None else tuple(map(str, range(self.compiler.predictions.class_count)))
        if name not in known:
            msg = f"recall[{name}]: there is no class {name!r}; {nearest(name, known)}"
            raise UnknownNameError(msg)
        return known.index(name)

    def accuracy_of(self, model: str, rows: NDArray[np.uint32]) -> float:
        """Give the accuracy of a model alone."""
        assert self.labels is not None
        truth, answers = self.labels[rows], self._reference(model)[rows]
        return float(np.mean((answers == truth)[truth >= 0]))

    def _reference(self, model: str) -> NDArray[np.int32]:
        if model not in self._references:
            self._references[model] = self.compiler.predictions[model].answers()
        return self._references[model]


def _reach(q: float, count: int) -> int:
    """Give how many values a quantile must not be exceeded by: nearest rank."""
    return min(max(math.ceil(q * count * (1 - 1e-12)), 1), count)


def _added(parts: Iterable[Any]) -> NDArray[Any]:
    total: Any = 0
    for part in parts:  # a path that is swept has many points where the others have one
        total = total + part
    return np.asarray(total)
