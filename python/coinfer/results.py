"""What a replay found: estimates with intervals, and the summary of one strategy.

The unit of evidence is the *sample*, not the request: a million requests over 1,797 digits are 1,797 observations.
An accuracy is therefore an `Estimate`: it behaves as a float and carries a 95 % Wilson interval whose n is the
effective number of samples, 1 / sum of squared sample weights (Kish 1965).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from coinfer.queueing import Load

__all__ = ["Estimate", "Latency", "Level", "Summary", "wilson"]

_Z95 = 1.959963984540054


def wilson(share: float, n: float, z: float = _Z95) -> tuple[float, float]:
    """Bound a share by the Wilson score interval.

    Parameters
    ----------
    share : float
        Observed share, between 0 and 1.
    n : float
        Effective number of observations; need not be whole.
    z : float
        Standard normal quantile; the default gives 95 %.

    Returns
    -------
    tuple of float
        Low and high end; (0, 1) without observations.

    References
    ----------
    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.

    Examples
    --------
    >>> low, high = wilson(0.9, 100)
    >>> round(low, 4), round(high, 4)
    (0.8256, 0.9448)
    """
    if n <= 0:
        return 0.0, 1.0
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


class Estimate(float):
    """A share that knows how far to trust it.

    A float in every respect; `low` and `high` bound it at 95 %, `n_effective` says from how many samples.
    """

    low: float
    high: float
    n_effective: float

    def __new__(cls, value: float, low: float, high: float, n_effective: float) -> Estimate:
        """Make a float that carries its bounds."""
        self = super().__new__(cls, value)
        self.low, self.high, self.n_effective = low, high, n_effective
        return self

    def __getnewargs__(self) -> tuple[float, float, float, float]:  # type: ignore[override]
        return float(self), self.low, self.high, self.n_effective

    @classmethod
    def share(cls, hits: int, total: int, n_effective: float) -> Estimate:
        """Estimate a share of `total` of which `hits` were right, from `n_effective` independent samples."""
        value = hits / total
        return cls(value, *wilson(value, n_effective), n_effective)

    def to_dict(self) -> dict[str, float]:
        """Give value, low, high and n_effective as plain floats."""
        return {"value": float(self), "low": self.low, "high": self.high, "n_effective": self.n_effective}


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency over all requests, in microseconds; quantiles are exact (nearest rank)."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Level:
    """What requests of one priority got; see `Run.by_priority`.

    Attributes
    ----------
    requests : int
    accuracy, goodput : float or None
        As in `Summary`; None without labels.
    latency_us : Latency
    queue_us : float
        Mean wait, microseconds.
    status : dict of str to int
        How they ended.
    """

    requests: int
    accuracy: float | None
    goodput: float | None
    latency_us: Latency
    queue_us: float
    status: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Summary:
    """What one strategy gave on one trace.

    Attributes
    ----------
    requests, labelled : int
        All requests; those answered or degraded whose sample has a true label.
    accuracy : Estimate or None
        Share of `labelled` that is right; None without labels.
    goodput : float or None
        Share right within the deadline, over all requests whose sample has a true label.
    latency_us : Latency
        From arrival to the answer at the ingress, microseconds.
    network_us, service_us, queue_us : float
        Mean parts of the latency, microseconds.
    price_usd, price_usd_total : float
        Mean per request, and the sum.
    stages : float
        Mean number of stages consulted.
    settled_by_node : dict of str to float
        Share of requests whose last consulted stage stands there.
    settled_by_model : dict of str to float
        Share of requests whose answer is that model's: `model` in the outcomes. Where the last stage gave no answer,
        it is an earlier stage's; requests without any answer count for no model.
    settled_by_stage : list of float
        Share of requests settled at each stage of the plan.
    accuracy_by_class, accuracy_by_ingress : dict of str to float
        Where labels are known; names of classes or their indices.
    status : dict of str to int
        How requests ended; adds up to `requests`.
    unsure : dict of str to int
        Per model: samples without a usable score (NaN, no answer, or an abstention).
    engine : str
        Which engine ran, and how.
    stations, links : dict of str to Load
        What each deployment that was consulted, and each direction of a link that was used, did; empty where nobody
        waits.
    utilisation_by_node : dict of str to float
        Share of the time that the instances at a node worked; empty where nobody waits.
    retried, broken, fell_back : int
        Where the network has outages: attempts after the first; consultations that an open breaker forbade; requests
        that ended with the best answer so far (or part of an answer) because some member failed.
    """

    strategy: str
    engine: str
    seed: int
    requests: int
    labelled: int
    accuracy: Estimate | None
    goodput: float | None
    latency_us: Latency
    network_us: float
    service_us: float
    queue_us: float
    price_usd: float
    price_usd_total: float
    stages: float
    settled_by_node: Mapping[str, float]
    settled_by_model: Mapping[str, float]
    settled_by_stage: tuple[float, ...]
    accuracy_by_class: Mapping[str, float]
    accuracy_by_ingress: Mapping[str, float]
    status: Mapping[str, int]
    unsure: Mapping[str, int]
    stations: Mapping[str, Load] = field(default_factory=dict)
    links: Mapping[str, Load] = field(default_factory=dict)
    utilisation_by_node: Mapping[str, float] = field(default_factory=dict)
    retried: int = 0
    broken: int = 0
    fell_back: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain dicts, lists and numbers, ready for JSON."""
        out: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Estimate):
                value = value.to_dict()
            elif isinstance(value, Latency):
                value = {part.name: getattr(value, part.name) for part in fields(value)}
            elif isinstance(value, Mapping):
                value = {key: item.to_dict() if hasattr(item, "to_dict") else item for key, item in value.items()}
            elif isinstance(value, tuple):
                value = list(value)
            out[f.name] = value
        return out

    def to_json(self, indent: int | None = None) -> str:
        """Give `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=indent)

    def rows(self, found: Mapping[str, Estimate] | None = None) -> list[tuple[str, str]]:
        """Give what `print` shows, a (name, value) pair per line, with intervals where they were `found`."""
        known = found or {}
        shown = [("requests", f"{self.requests:,}")]
        if self.accuracy is not None:
            a = self.accuracy
            shown.append(("accuracy", f"{a:.4f}  (95 %: {a.low:.4f} to {a.high:.4f}, {a.n_effective:,.0f} samples)"))
        if self.goodput is not None:
            shown.append(("goodput", f"{self.goodput:.4f}"))
        lat = self.latency_us
        quantiles = ("p50", "p90", "p95", "p99")
        shown.append(("latency mean", f"{lat.mean / 1e3:,.2f} ms{_between(known.get('latency_us_mean'), 1e-3, '.2f')}"))
        shown.append(
            (
                "latency p50 / p90 / p95 / p99",
                " / ".join(f"{getattr(lat, q) / 1e3:,.2f}" for q in quantiles) + " ms",
            )
        )
        ends = [known[f"latency_us_{q}"] for q in quantiles if f"latency_us_{q}" in known]
        if ends:
            shown.append(("  95 %", " / ".join(f"{e.low / 1e3:,.2f} to {e.high / 1e3:,.2f}" for e in ends) + " ms"))
        shown += [
            ("of which network / service", f"{self.network_us / 1e3:,.2f} / {self.service_us / 1e3:,.2f} ms"),
            (
                "price per 1,000 requests",
                f"{self.price_usd * 1e3:,.4f} USD{_between(known.get('price_usd'), 1e3, '.4f')}",
            ),
            ("stages per request", f"{self.stages:.3f}"),
            ("settled at", _shares(self.settled_by_node)),
            ("settled by", _shares(self.settled_by_model)),
            ("status", ", ".join(f"{k} {v:,}" for k, v in self.status.items() if v)),
        ]
        if any(self.unsure.values()):
            shown.append(("samples without a score", ", ".join(f"{k} {v:,}" for k, v in self.unsure.items() if v)))
        if self.utilisation_by_node:
            queue = f"{self.queue_us / 1e3:,.2f} ms"
            shown.append(("of which in queues", queue))
            shown.append(("busy", _shares(self.utilisation_by_node)))
        if self.retried or self.broken or self.fell_back:
            what = f"{self.retried:,} retries, {self.broken:,} spared by breakers, {self.fell_back:,} fell back"
            shown.append(("outages", what))
        shown.append(("engine", self.engine))
        return shown

    def __str__(self) -> str:
        return as_text(self.strategy, self.rows())

    def __rich__(self) -> Table:
        return as_table(self.strategy, self.rows())


def as_text(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """Lay (name, value) pairs out as lines."""
    width = max(len(name) for name, _ in rows)
    return "\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in rows)])


def as_table(title: str, rows: Sequence[tuple[str, str]]) -> Table:
    """Lay (name, value) pairs out as a table."""
    from rich.table import Table

    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in rows:
        table.add_row(name, value)
    return table


def _between(estimate: Estimate | None, scale: float, form: str) -> str:
    if estimate is None:
        return ""
    return f"  (95 %: {format(scale * estimate.low, form)} to {format(scale * estimate.high, form)})"


def _shares(shares: Mapping[str, float]) -> str:
    kept = [(name, share) for name, share in shares.items() if share > 0]
    shown = ", ".join(f"{name} {share:.1%}" for name, share in kept[:8])
    return shown + (f", and {len(kept) - 8} more" if len(kept) > 8 else "")
