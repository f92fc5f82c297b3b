"""The operating points of one strategy, and the best of them.

Cuts are swept over the evidence, which does not depend on them: all values of one threshold exactly; two thresholds by
a grid (every combination of quantile levels) and then exactly, where the costs are monotone in the second; more by
coordinate ascent from the best points of a coarse grid, each step an exact sweep of one threshold with the others held.
Nothing else is known about other parameters: strategies are built, compiled and measured one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer._core import sweep
from coinfer.errors import UnsupportedError
from coinfer.tuning.constraint import more_is_better, subject_of
from coinfer.tuning.measuring import Sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer.strategy.base import Parameter, Strategy
    from coinfer.tuning.constraint import Constraint
    from coinfer.tuning.measuring import Columns, Measures, Path

__all__ = ["Gap", "Goal", "Points", "operating_points", "probe"]

_LEVELS = {1: 4096, 2: 256, 3: 40, 4: 16, 5: 9, 6: 6}  # per stage but the last: at most 65,536 combinations
_PAIR_ROWS_MAX = 2_000_000
_STARTS = 6
_ROUNDS_MAX = 30
_STAGES_MAX = 33
_REACH = {2: 12, 3: 7, 4: 4, 5: 3, 6: 2}  # by number of thresholds: how far to look around, in doublings
_SUBSAMPLES = 8
_EXHAUSTIVE_MAX = 60_000


@dataclass(frozen=True)
class Goal:
    """What to minimise (a quantity of which more is better is maximised) under which constraints.

    `scatter` random threshold vectors are looked at besides where a search would see its own path alone.
    """

    minimise: str
    subject_to: tuple[Constraint, ...] = ()
    scatter: int = 0

    def cost(self, columns: Columns) -> NDArray[np.float64]:
        """Give what is minimised."""
        cost: NDArray[np.float64] = columns[self.minimise]
        return -cost if more_is_better(self.minimise) else cost

    def missed(self, columns: Columns) -> NDArray[np.float64]:
        """Give by how much the constraints are missed in all, each relative to its bound; 0 where all hold."""
        missed = np.zeros(len(columns[self.minimise]))
        for each in self.subject_to:
            values = columns[each.quantity]
            excess = each.excess(values) / each.scale
            missed += np.where(each.holds(values), 0.0, np.maximum(excess, 1e-15))
        return missed

    def best(self, columns: Columns) -> int:
        """Choose a point: feasible if there is one, of least cost, then most accurate, then least forwarded."""
        missed = self.missed(columns)
        accuracy = columns.get("accuracy", np.zeros(len(missed)))
        rows = np.arange(len(missed))
        for key in (missed, self.cost(columns), -accuracy, columns["forwarded_share"]):
            rows = rows[key[rows] == key[rows].min()]
        return int(rows[0])

    def key(self, columns: Columns, at: int) -> tuple[float, float, float, float]:
        """Give what `best` compares, for one point."""
        accuracy = float(columns["accuracy"][at]) if "accuracy" in columns else 0.0
        missed, cost = float(self.missed(columns)[at]), float(self.cost(columns)[at])
        return missed, cost, -accuracy, float(columns["forwarded_share"][at])


@dataclass(frozen=True, slots=True)
class Gap:
    """By how much a search that is not exhaustive missed the best, where that could be known.

    Attributes
    ----------
    search : str
        ``"grid"`` or ``"coordinate ascent"``.
    mean, worst : float
        Objective over the least possible, minus 1.
    problems, samples : int
        On how many problems of how many samples exhaustive search was made. A grid beside an exact pair is held against
        that, on all fitted samples; ascents are held against every combination of distinct cuts on random subsamples.
    infeasible : int
        Problems on which the search met no bounds although they could be met.
    """

    search: str
    mean: float
    worst: float
    problems: int
    samples: int
    infeasible: int = 0

    def __str__(self) -> str:
        if self.problems == 0:
            return f"{self.search} against exhaustive search: no subsample of {self.samples} can meet the bounds"
        where = (
            f"on these {self.samples:,} samples"
            if self.search == "grid"
            else f"on {self.problems} random subsamples of {self.samples}"
        )
        lost = f"; it met no bounds on {self.infeasible}" if self.infeasible else ""
        more = "" if self.problems == 1 else f" on average, {self.worst:.2%} at worst"
        return f"{self.search} against exhaustive search {where}: {self.mean:.2%} above the least{more}{lost}"


@dataclass
class Points:
    """Operating points of one strategy: its thresholds ([point][threshold of each path in turn]) and quantities."""

    strategy: Strategy
    columns: Columns
    cuts: NDArray[np.float64] | None = None
    cut: Parameter | None = None
    paths: list[Path] = field(default_factory=list)
    method: str = "one point"
    trail: list[float] = field(default_factory=list)
    gap: Callable[[], Gap] | None = None  # worked out when asked

    def __len__(self) -> int:
        return len(self.columns["forwarded_share"])

    def at(self, point: int) -> Strategy:
        """Give the strategy of one point."""
        if self.cuts is None or self.cut is None:
            return self.strategy
        values = tuple(float(v) for v in self.cuts[point])
        if self.cut.shared and len(values) == 1:
            return self.strategy.with_parameters(**{str(self.cut): values[0]})
        if len(self.paths) == 1:
            return self.strategy.with_parameters(**{str(self.cut): values})
        by_ingress: dict[str, tuple[float, ...]] = {}
        first = 0
        for path in self.paths:
            mine = values[first : first + path.stages - 1]
            first += path.stages - 1
            by_ingress |= dict.fromkeys(path.ingresses, mine)
        return self.strategy.with_parameters(**{"thresholds" if self.cut.shared else str(self.cut): by_ingress})


def operating_points(
    strategy: Strategy,
    cut: Parameter | None,
    measures: Measures,
    rows: NDArray[np.uint32],
    goal: Goal,
    threads: int = 1,
    seed: int = 0,
) -> Points:
    """Find the points of a strategy whose other parameters are settled."""
    if cut is None:
        columns, paths = measures.point(strategy, rows)
        return Points(strategy, columns, paths=paths)
    search = _Cuts(strategy, cut, measures, rows, goal, threads, seed)
    return search.points()


class _Cuts:
    """The thresholds of one strategy, over one path or several."""

    def __init__(
        self,
        strategy: Strategy,
        cut: Parameter,
        measures: Measures,
        rows: NDArray[np.uint32],
        goal: Goal,
        threads: int,
        seed: int,
    ) -> None:
        self.strategy, self.cut, self.measures, self.rows, self.goal = strategy, cut, measures, rows, goal
        self.threads, self.seed = threads, seed
        self._cuts_of: dict[tuple[int, int], NDArray[np.float32]] = {}
        tried = strategy.with_parameters(**{str(cut): 0.0}) if cut.shared else probe(strategy, cut, measures)
        self.paths = measures.paths(tried)
        self.sizes = [path.stages - 1 for path in self.paths]
        if cut.shared and len(self.paths) > 1 and not hasattr(strategy, "by_ingress"):
            ways = "; ".join(f"{path.ingresses[0]!r}: {' -> '.join(path.models)}" for path in self.paths)
            msg = f"paths differ ({ways}), and {strategy.name} has one threshold for all; say which with ingress="
            raise UnsupportedError(msg)

    def points(self) -> Points:
        alone = len(self.paths) == 1
        if alone and (self.cut.shared or self.sizes[0] <= 1):
            return self._every_cut()
        if alone and self.sizes[0] in _LEVELS:
            return self._grid()
        starts = self._starts()
        return self._ascent(starts[:_STARTS], None, starts[_STARTS:])

    # One path -----------------------------------------------------------------------------------------------

    def _tables(self, path: Path) -> list[NDArray[Any]]:
        return [self.measures.table(path, name) for name in self.measures.row_names(path)]

    def _swept(self, path: Path, cuts: Any, taken: NDArray[np.int64], sums: Sequence[NDArray[np.int64]]) -> Sums:
        return self.measures.swept(path, cuts, taken, sums, self.rows, self.threads)

    def _columns(self, sums: Sequence[Sums]) -> Columns:
        return self.measures.columns(self.paths, sums, self.rows)

    def _every_cut(self) -> Points:
        path = self.paths[0]
        tables = self._tables(path)
        threshold, taken, sums = sweep.cuts(path.evidence, tables, self.rows)
        shared = np.repeat(threshold[:, None], self.sizes[0], axis=1)
        columns = self._columns([self._swept(path, shared, taken, sums)])
        cuts = threshold.astype(np.float64)[:, None]
        cut = self.cut
        if self.sizes[0] != 1 and not cut.shared:  # one model: there is no threshold
            cuts = np.zeros((len(threshold), 0))
        return Points(self.strategy, columns, cuts, cut, self.paths, "exact: every cut")

    def _on_levels(self, count: int) -> tuple[Points, bool]:
        """Try all combinations of quantile levels; say whether they are all cuts that there are."""
        path = self.paths[0]
        some = self.rows[:: max(1, len(self.rows) // 1_000_000)]
        levels = [sweep.levels(path.evidence, stage, count, some) for stage in range(self.sizes[0])]
        sums, cuts = self._combined(path, levels)
        whole = len(some) == len(self.rows) and all(len(each) < count for each in levels)
        said = " x ".join(str(len(each)) for each in levels)
        method = "exact: every cut of every stage" if whole else f"grid of {said} quantiles"
        return Points(self.strategy, self._columns([sums]), cuts, self.cut, self.paths, method), whole

    def _combined(self, path: Path, levels: Sequence[NDArray[np.float32]]) -> tuple[Sums, NDArray[np.float64]]:
        """Sweep every combination of thresholds of one path."""
        taken, sums = sweep.grid(path.evidence, levels, self._tables(path), self.rows, self.threads)
        cuts = np.zeros((1, 0))
        if levels:
            cuts = np.stack([each.reshape(-1) for each in np.meshgrid(*levels, indexing="ij")], axis=1)
        return self._swept(path, cuts, taken, sums), cuts.astype(np.float64)

    def _grid(self) -> Points:
        path = self.paths[0]
        found, whole = self._on_levels(_LEVELS[self.sizes[0]])
        columns = found.columns
        found.trail = [self._reached(columns)]
        if whole:
            return found
        pair = self._pair(path, self._tables(path)) if self.sizes[0] == 2 else None
        if pair is not None:
            found.method = f"exact pair, front on a {found.method}"
            on_grid, found = found.columns, self._with(found, [pair])
            found.gap = lambda: self._gap_of_grid(on_grid, found.columns)
            return found
        return self._ascent(self._best(found), found)

    def _pair(self, path: Path, tables: list[NDArray[Any]]) -> NDArray[np.float32] | None:
        """Choose two thresholds exactly, if cost and constraints have the form that allows it."""
        named = dict(zip(self.measures.row_names(path), tables, strict=True))
        problem = _as_pair(self.goal, self.measures, path, named, self.rows)
        if problem is None or len(self.rows) > _PAIR_ROWS_MAX:
            return None
        cost, gain, at_least, limits = problem
        try:
            if at_least is None:
                first, second, *_, feasible = sweep.surest_pair(path.evidence, cost, gain, limits, self.rows)
            else:
                first, second, *_, feasible = sweep.cheapest_pair(
                    path.evidence, cost, gain, at_least, limits, self.rows
                )
        except ValueError:  # a cost that is not monotone: the grid and coordinate ascent remain
            return None
        return np.array([first, second], np.float32) if feasible else None

    # Coordinates --------------------------------------------------------------------------------------------

    def _starts(self) -> list[NDArray[np.float32]]:
        """Where to start without a grid: everyone forwards, nobody does, and random quantiles between."""
        rng = np.random.Generator(np.random.Philox(self.seed))
        levels = [
            sweep.levels(path.evidence, stage, 64, self.rows)
            for path, size in zip(self.paths, self.sizes, strict=True)
            for stage in range(size)
        ]
        starts = [[each[-1] for each in levels], [each[0] for each in levels]]
        starts += [[each[rng.integers(len(each))] for each in levels] for _ in range(_STARTS - 2 + self.goal.scatter)]
        return [np.array(start, np.float32) for start in starts]

    def _best(self, found: Points) -> list[NDArray[np.float32]]:
        """Choose where to start from a grid: the best cells."""
        assert found.cuts is not None
        order = np.lexsort((self.goal.cost(found.columns), self.goal.missed(found.columns)))
        return [found.cuts[at].astype(np.float32) for at in order[:_STARTS]]

    def _ascent(
        self, starts: list[NDArray[np.float32]], found: Points | None, besides: Sequence[NDArray[np.float32]] = ()
    ) -> Points:
        with ThreadPoolExecutor(max(1, self.threads)) as pool:
            ends = list(pool.map(self._climb, starts))
        vectors = [vector for vector, *_ in ends]
        best = min(range(len(ends)), key=lambda i: (ends[i][1][-1], i))
        trail = [key[1] if key[0] == 0 else math.inf for key in ends[best][1]]
        method = f"coordinate ascent from {len(starts)} starts"
        if found is None:
            everything = [*(vector for *_, passed in ends for vector in passed), *besides]
            found = Points(self.strategy, {}, None, self.cut, self.paths, method)
            found = self._with(found, everything)
        else:
            found.method = f"{method}, front on a {found.method}"
            found = self._with(found, vectors)
        found.trail = [float(v) for v in np.minimum.accumulate([*found.trail[:-1], *trail, found.trail[-1]])]
        found.gap = self._gap_of_ascent
        return found

    def _climb(
        self, start: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], list[tuple[float, float, float, float]], list[NDArray[np.float32]]]:
        """Sweep one threshold after the other until none improves, then try nearby and farther cuts of all at once.

        One alone cannot trade accuracy at one stage for price at another. No step is ever worse.
        """
        vector = start.copy()
        columns = self._columns(self._sums([vector]))
        keys = [self.goal.key(columns, 0)]
        passed = [vector.copy()]
        for _ in range(_ROUNDS_MAX):
            before = keys[-1]
            at = 0
            for index, (path, size) in enumerate(zip(self.paths, self.sizes, strict=True)):
                tables = self._tables(path)
                first = at
                for stage in range(size):
                    held = np.ascontiguousarray(vector[first : first + size])
                    threshold, taken, sums = sweep.line(path.evidence, held, stage, tables, self.rows)
                    all_sums = self._sums([vector])
                    bars = np.repeat(held[None, :], len(threshold), axis=0)
                    bars[:, stage] = threshold
                    all_sums[index] = self._swept(path, bars, taken, sums)
                    columns = self._columns(all_sums)
                    best = self.goal.best(columns)
                    key = self.goal.key(columns, best)
                    if key < keys[-1]:
                        vector[at] = threshold[best]
                        keys.append(key)
                        passed.append(vector.copy())
                    at += 1
            if keys[-1] != before:
                continue
            first = 0
            for index, (path, size) in enumerate(zip(self.paths, self.sizes, strict=True)):
                if size > 1:
                    all_sums = self._sums([vector])
                    all_sums[index], cuts = self._combined(path, self._around(path, vector[first : first + size]))
                    columns = self._columns(all_sums)
                    best = self.goal.best(columns)
                    key = self.goal.key(columns, best)
                    if key < keys[-1]:
                        vector[first : first + size] = cuts[best]
                        keys.append(key)
                        passed.append(vector.copy())
                first += size
            if keys[-1] == before:
                break
        return vector, keys, passed

    def _around(self, path: Path, held: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Give, per stage, the threshold held and distinct cuts 1, 2, 4, ... places from it, both ways."""
        steps = 1 << np.arange(_REACH.get(len(held), 1))
        near = []
        for stage, threshold in enumerate(held):
            every = self._every(path, stage)
            at = np.searchsorted(every, threshold) + np.concatenate([-steps, [0], steps])
            near.append(np.unique([*every[at.clip(0, len(every) - 1)], threshold]))
        return near

    def _every(self, path: Path, stage: int) -> NDArray[np.float32]:
        """Give all distinct cuts of a stage, ascending."""
        key = (id(path), stage)
        if key not in self._cuts_of:
            self._cuts_of[key] = sweep.levels(path.evidence, stage, len(self.rows) + 2, self.rows)
        return self._cuts_of[key]

    # Against exhaustive search ------------------------------------------------------------------------------

    def _gap_of_grid(self, grid: Columns, every: Columns) -> Gap:
        above = _above(self.goal, grid, every)
        missed = above == math.inf
        return Gap("grid", 0.0 if missed else above, 0.0 if missed else above, 1, len(self.rows), int(missed))

    def _gap_of_ascent(self) -> Gap:
        """Ascend on random subsamples that are small enough to try every combination of distinct cuts."""
        size = min(len(self.rows), max(3, int(_EXHAUSTIVE_MAX ** (1 / max(sum(self.sizes), 1))) - 1))
        rng = np.random.Generator(np.random.Philox(key=[self.seed, 3]))
        above: list[float] = []
        for _ in range(3 * _SUBSAMPLES):
            rows = np.sort(rng.choice(self.rows, size, replace=False))
            small = _Cuts(self.strategy, self.cut, self.measures, rows, self.goal, 1, self.seed)
            every = small.exhaustive()
            if self.goal.key(every, self.goal.best(every))[0] == 0:
                coarse = len(self.paths) == 1 and self.sizes[0] in _LEVELS
                starts = small._best(small._on_levels(max(3, size // 4))[0]) if coarse else small._starts()[:_STARTS]
                ends = [small._climb(start)[0] for start in starts]
                above.append(_above(self.goal, small._columns(small._sums(ends)), every))
            if len(above) == _SUBSAMPLES:
                break
        met = [each for each in above if each < math.inf]
        lost = len(above) - len(met)
        mean, worst = (float(np.mean(met)), max(met)) if met else (0.0, 0.0)
        return Gap("coordinate ascent", mean, worst, len(above), size, lost)

    def exhaustive(self) -> Columns:
        """Give the quantities of every combination of distinct cuts, of all paths."""
        parts = []
        for path, size in zip(self.paths, self.sizes, strict=True):
            parts.append(self._combined(path, [self._every(path, stage) for stage in range(size)])[0])
        counts = [part.taken.shape[1] for part in parts]
        joint = np.unravel_index(np.arange(math.prod(counts)), counts)
        return self._columns(
            [
                Sums(part.taken[:, at], {name: values[at] for name, values in part.by_row.items()})
                for part, at in zip(parts, joint, strict=True)
            ]
        )

    def _sums(self, vectors: Sequence[NDArray[np.float32]]) -> list[Sums]:
        out, first = [], 0
        for path, size in zip(self.paths, self.sizes, strict=True):
            tables = self._tables(path)
            if size == 0:
                taken, sums = sweep.grid(path.evidence, [], tables, self.rows)
                taken = np.repeat(taken, len(vectors), axis=1)
                sums = [np.repeat(each, len(vectors)) for each in sums]
            mine = np.ascontiguousarray([v[first : first + size] for v in vectors], np.float32)
            if size > 0:
                taken, sums = sweep.vectors(path.evidence, mine, tables, self.rows, self.threads)
            out.append(self._swept(path, mine, taken, sums))
            first += size
        return out

    def _with(self, found: Points, vectors: Sequence[NDArray[np.float32]]) -> Points:
        """Add points at given thresholds."""
        columns = self._columns(self._sums(vectors))
        more = np.array(vectors, np.float64)
        if found.columns:
            columns = {name: np.concatenate([found.columns[name], columns[name]]) for name in columns}
        found.columns = columns
        found.cuts = more if found.cuts is None else np.concatenate([found.cuts, more])
        found.trail.append(self._reached(columns))
        return found

    def _reached(self, columns: Columns) -> float:
        """Give the objective of the best feasible point; inf if there is none."""
        missed, cost, *_ = self.goal.key(columns, self.goal.best(columns))
        return cost if missed == 0 else math.inf


def _above(goal: Goal, found: Columns, every: Columns) -> float:
    """Give by how much the best of some points costs more than the best of all; inf if it alone meets no bounds."""
    missed, cost, *_ = goal.key(found, goal.best(found))
    least = goal.key(every, goal.best(every))[1]
    if missed > 0:
        return math.inf
    scale = abs(least) or float(np.abs(goal.cost(every)).max()) or 1.0
    return max(cost - least, 0.0) / scale


def probe(strategy: Strategy, cut: Parameter, measures: Measures) -> Strategy:
    """Give the strategy with some thresholds, as many as each path needs."""
    network = measures.compiler.network
    lengths: dict[str, tuple[float, ...]] = {}
    for ingress in measures.ingresses:
        for size in range(_STAGES_MAX):
            lengths[ingress] = (0.0,) * size
            probe = strategy.with_parameters(**{str(cut): lengths[ingress]})
            try:
                probe.plan(network, ingress)
            except ValueError:
                if size + 1 == _STAGES_MAX:
                    raise
                continue
            break
    if len(set(lengths.values())) == 1:
        return strategy.with_parameters(**{str(cut): next(iter(lengths.values()))})
    return strategy.with_parameters(**{str(cut): lengths})


def _as_pair(
    goal: Goal, measures: Measures, path: Path, tables: dict[str, NDArray[Any]], rows: NDArray[np.uint32]
) -> tuple[NDArray[Any], NDArray[Any], int | None, list[tuple[NDArray[Any], int]]] | None:
    """Write a problem as a monotone cost, a gain with a bound or to be maximised, and monotone limits.

    Bounds become whole numbers: the smallest or largest sum whose quotient, as it is computed elsewhere, meets them.
    """
    n, ingresses = len(rows), len(measures.ingresses)
    every = n * ingresses
    lengths = np.array([len(way) for way in path.ways], np.int64)
    costs: dict[str, tuple[NDArray[Any], Callable[[int], float]]] = {
        "price_usd": (path.total("pico_usd"), lambda total: total / every / 1e12),
        "latency_us_mean": (
            tables.get("latency_us_mean", path.total("mean_ns").reshape(-1)),
            lambda total: total / every / 1e3,
        ),
        "stages": (lengths, lambda total: total * ingresses / every),
        "forwarded_share": ((lengths > 1).astype(np.int64), lambda total: total * ingresses / every),
    }
    gains = {name: table for name, table in tables.items() if more_is_better(name)}
    gain: str | None = goal.minimise if goal.minimise in gains else None
    at_least: int | None = None
    limits: list[tuple[NDArray[Any], int]] = []
    for each in goal.subject_to:
        about = subject_of(each.quantity)
        loses = about is not None and about[0] == "accuracy_loss" and not each.at_least and "accuracy" in gains
        if gain is None and (loses or (each.quantity in gains and each.at_least)):
            gain = "accuracy" if loses else each.quantity
            assert measures.labels is not None
            of = measures.labels[rows] >= 0
            if gain != "accuracy":
                of = _of_class(measures, gain, rows)
            total = int(np.count_nonzero(of))
            share = np.arange(total + 1) / max(total, 1)
            met = np.flatnonzero(each.holds(measures.accuracy_of(about[1], rows) - share if about and loses else share))
            at_least = int(met[0]) if len(met) else total + 1
        elif each.quantity in costs and not each.at_least:
            values, quotient = costs[each.quantity]
            limits.append((values, _largest(each, quotient)))
        else:
            return None
    if gain is None:
        return None
    if goal.minimise not in costs and goal.minimise not in gains:
        return None
    cost = costs[goal.minimise][0] if goal.minimise in costs else costs["latency_us_mean"][0]
    return np.ascontiguousarray(cost), gains[gain], at_least, limits


def _of_class(measures: Measures, quantity: str, rows: NDArray[np.uint32]) -> NDArray[np.bool_]:
    assert measures.labels is not None
    of: NDArray[np.bool_] = measures.labels[rows] == measures.class_of(quantity)
    return of


def _largest(constraint: Constraint, quotient: Callable[[int], float]) -> int:
    """Give the largest whole sum whose quantity meets an upper bound, by bisection."""
    low, high = -1, 2**62
    while low < high:
        middle = (low + high + 1) // 2
        if bool(constraint.holds(np.array([quotient(middle)]))[0]):
            low = middle
        else:
            high = middle - 1
    return low
