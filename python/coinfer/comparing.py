"""Several strategies on one trace, side by side.

Scores, the census of the trace and random draws are shared, so the strategies differ in nothing but what they decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from coinfer.compiling import Compiler
from coinfer.errors import BadValueError, UnknownNameError, nearest
from coinfer.replaying import Requests, Run, check_draws

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.table import Table

    from coinfer.intervals import Paired
    from coinfer.network import Network
    from coinfer.predictions import Predictions
    from coinfer.results import Estimate, Summary
    from coinfer.strategy.base import Strategy
    from coinfer.trace import Trace

__all__ = ["Comparison", "compare"]

Cost = Literal["latency", "price"]

_HOW_TO_READ = (
    "Below a number stands its 95 % interval, where it has one. = marks accuracies that chance alone may set apart "
    "from the best (paired test)."
)


class Comparison:
    """Runs of several strategies on one trace.

    Attributes
    ----------
    runs : dict of str to Run
        By name, in the order given.
    trace, predictions, network
        What they share.
    """

    def __init__(self, runs: Mapping[str, Run]) -> None:
        self.runs = dict(runs)
        first = next(iter(self.runs.values()))
        self.trace, self.predictions, self.network = first.trace, first.predictions, first.network

    @property
    def summaries(self) -> dict[str, Summary]:
        """The summary of each strategy, by name."""
        return {name: run.summary for name, run in self.runs.items()}

    def __getitem__(self, name: str) -> Run:
        if name not in self.runs:
            msg = f"no strategy {name!r} was compared; {nearest(name, self.runs)}"
            raise UnknownNameError(msg)
        return self.runs[name]

    def cost(self, name: str, by: Cost) -> float:
        """Give mean latency in microseconds, or mean price in USD, of one strategy."""
        if by not in ("latency", "price"):
            msg = f"unknown cost {by!r}; {nearest(str(by), ('latency', 'price'))}"
            raise UnknownNameError(msg)
        summary = self[name].summary
        return summary.latency_us.mean if by == "latency" else summary.price_usd

    def paired(self, first: str, second: str) -> Paired:
        """Compare the accuracy of two strategies sample by sample: the difference, its interval, and a paired test."""
        from coinfer.intervals import paired

        return paired(self[first], self[second])

    def as_good_as_best(self) -> set[str]:
        """Name the strategies whose accuracy differs from the best one's by no more than chance; oracles aside."""
        rivals = {
            name: float(run.summary.accuracy)
            for name, run in self.runs.items()
            if run.summary.accuracy is not None and run.strategy.kind != "oracle"
        }
        if not rivals:
            return set()
        best = max(rivals, key=lambda name: rivals[name])
        return {best} | {name for name in rivals if name != best and self.paired(best, name).noise}

    def pareto(self, x: Cost = "latency") -> list[str]:
        """Name the strategies that no other beats in both accuracy and cost, cheapest first; oracles do not compete.

        Parameters
        ----------
        x : {"latency", "price"}
            Which cost. Without labels the list is empty.
        """
        rivals = [
            (self.cost(name, x), -float(run.summary.accuracy), name)
            for name, run in self.runs.items()
            if run.summary.accuracy is not None and run.strategy.kind != "oracle"
        ]
        front: list[str] = []
        best = 1.0
        for _, wrong, name in sorted(rivals, key=lambda r: r[:2]):
            if wrong < best:
                front.append(name)
                best = wrong
        return front

    def table(self) -> pa.Table:
        """Give one row per strategy: accuracy and its interval, goodput, latency, price, stages, shares per node."""
        import pyarrow as pa

        rows = []
        level = self.as_good_as_best()
        for name, summary in self.summaries.items():
            accuracy = summary.accuracy
            found = self[name].intervals()
            rows.append(
                {
                    "strategy": name,
                    "requests": summary.requests,
                    "accuracy": None if accuracy is None else float(accuracy),
                    "accuracy_low": None if accuracy is None else accuracy.low,
                    "accuracy_high": None if accuracy is None else accuracy.high,
                    "goodput": summary.goodput,
                    "latency_us_mean": summary.latency_us.mean,
                    "latency_us_p50": summary.latency_us.p50,
                    "latency_us_p95": summary.latency_us.p95,
                    "latency_us_p99": summary.latency_us.p99,
                    "price_usd": summary.price_usd,
                    **{f"{what}_low": value.low for what, value in found.items() if what != "accuracy"},
                    **{f"{what}_high": value.high for what, value in found.items() if what != "accuracy"},
                    "as_accurate_as_best": name in level,
                    "stages": summary.stages,
                    **{f"settled_{node}": share for node, share in summary.settled_by_node.items()},
                }
            )
        return pa.Table.from_pylist(rows)

    def to_dict(self) -> dict[str, Any]:
        """Give every summary and both fronts as plain data, ready for JSON."""
        return {
            "strategies": {name: summary.to_dict() for name, summary in self.summaries.items()},
            "front_latency": self.pareto("latency"),
            "front_price": self.pareto("price"),
        }

    def report(self, path: str | PathLike[str], title: str | None = None) -> Path:
        """Write a self-contained HTML report and return its path."""
        from coinfer.report import write

        return Path(write(self, path, title=title))

    def rows(self) -> tuple[list[str], list[list[tuple[str, str]]]]:
        """Give headings and cells as `print` shows them: value, and its 95 % interval to stand below it."""
        head = ["strategy", "accuracy", "mean ms", "p50", "p95", "p99", "USD / 1,000", "stages", "settled per tier"]
        body = []
        level = self.as_good_as_best()
        for name, s in self.summaries.items():
            a, found = s.accuracy, self[name].intervals()
            alike = " =" if name in level and len(level) > 1 else ""
            latencies = [
                (f"{getattr(s.latency_us, what) / 1e3:,.2f}", _between(found[f"latency_us_{what}"], 1e-3, ",.2f"))
                for what in ("mean", "p50", "p95", "p99")
            ]
            body.append(
                [
                    (name, ""),
                    ("-", "") if a is None else (f"{a:.4f}{alike}", f"{a.low:.3f}-{a.high:.3f}"),
                    *latencies,
                    (f"{s.price_usd * 1e3:,.4f}", _between(found["price_usd"], 1e3, ",.4f")),
                    (f"{s.stages:.2f}", ""),
                    (" / ".join(f"{share:.0%}" for share in self.settled_by_tier(name).values()), ""),
                ]
            )
        return head, body

    def settled_by_tier(self, name: str) -> dict[int, float]:
        """Give the share of requests settled in each tier, lowest tier first."""
        shares = dict.fromkeys(self.network.tiers, 0.0)
        for node, share in self[name].summary.settled_by_node.items():
            shares[self.network.node(node).tier] += share
        return shares

    def __str__(self) -> str:
        head, body = self.rows()
        lines = [head]
        for row in body:
            lines += [[value for value, _ in row], [below for _, below in row]]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        align = [
            "  ".join(
                cell.ljust(w) if i in (0, len(head) - 1) else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        return "\n".join([*(line.rstrip() for line in align), f"\n{_HOW_TO_READ}"])

    def __rich__(self) -> Table:
        from rich.table import Table

        head, body = self.rows()
        table = Table(caption=_HOW_TO_READ, caption_justify="left")
        for i, heading in enumerate(head):
            table.add_column(heading, justify="left" if i in (0, len(head) - 1) else "right", no_wrap=i > 0)
        front = set(self.pareto("latency")) | set(self.pareto("price"))
        for row in body:
            cells = [f"{value}\n[not bold dim]{below}[/]" if below else value for value, below in row]
            table.add_row(*cells, style="bold" if row[0][0] in front else None)
        return table


def _between(estimate: Estimate, scale: float, form: str) -> str:
    """Give the interval of an estimate, if it is one."""
    low, high = (format(scale * end, form) for end in (estimate.low, estimate.high))
    return "" if low == high else f"{low}-{high}"


def compare(
    trace: Trace,
    predictions: Predictions,
    network: Network,
    strategies: Mapping[str, Strategy],
    *,
    seed: int = 0,
    threads: int = 1,
    progress: Callable[[str, int, int], object] | None = None,
) -> Comparison:
    """Replay several strategies on one trace, with shared scores and shared random draws.

    Parameters
    ----------
    trace, predictions, network
        As for `coinfer.replay`.
    strategies : mapping of str to Strategy
        At least one, by the name that tables and figures will show.
    seed, threads : int
        As for `coinfer.replay`.
    progress : callable, optional
        Called before each strategy as ``progress(name, done, total)``, and at the end with an empty name.

    Returns
    -------
    Comparison
    """
    check_draws(seed, threads)
    if not strategies or not isinstance(strategies, Mapping):
        msg = f"compare needs at least one strategy, as a mapping of name to strategy, not {strategies!r}"
        raise BadValueError(msg)
    compiler = Compiler(predictions, network, threads)
    requests = Requests(trace, predictions, network, threads)
    runs: dict[str, Run] = {}
    for name, strategy in strategies.items():
        if progress is not None:
            progress(name, len(runs), len(strategies))
        runs[name] = Run(requests, compiler, strategy, seed, name)
    if progress is not None:
        progress("", len(runs), len(strategies))
    return Comparison(runs)
