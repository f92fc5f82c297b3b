"""The report of a load sweep: how long requests take, and how many answers are right, as more of them come.

A page of its own, with the style of the comparison's report: a comparison shows many strategies at one load, this shows
a few at many.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coinfer._files import replacing
from coinfer.report._frame import frame

if TYPE_CHECKING:
    import os

    from coinfer.sweeping import LoadSweep

__all__ = ["headline", "write_load"]

_NODES_SHOWN_MAX = 6  # the busiest


def write_load(sweep: LoadSweep, path: str | os.PathLike[str], title: str) -> Path:
    """Write the report of a load sweep as one self-contained HTML file.

    Parameters
    ----------
    sweep : LoadSweep
        What `coinfer.sweep_load` returned.
    path : path
        File to write; replaced in one step.
    title : str
        A name for the report, above its headline.

    Returns
    -------
    Path
        The file.
    """
    timed = any(p.summary.goodput != p.summary.accuracy for p in sweep.points)
    parts = {
        "latency-label": html.escape(_said(sweep, lambda s: f"p99 {s.latency_us.p99 / 1e3:,.1f} ms")),
        "goodput-label": html.escape(_said(sweep, lambda s: f"{100 * (s.goodput or 0.0):.1f} % right in time")),
        "goodput-lead": "Share of all requests that got the right answer within their deadline."
        if timed
        else "Share of all requests that got the right answer; there are no deadlines, so lateness costs nothing here.",
        "use": _use(sweep),
        "table": _table(sweep),
    }
    target = Path(path)
    page = frame(
        "load.html",
        "load.js",
        title=title,
        headline=headline(sweep),
        details=_details(sweep),
        facts=_facts(sweep),
        footer=f"{sweep.requests:,} requests per point over {sweep.samples:,} samples; "
        "the same inputs and seed give the same numbers on any machine.",
        parts=parts,
    )
    with replacing(target) as part:
        part.write_text(page, encoding="utf-8")
    return target


def headline(sweep: LoadSweep) -> str:
    """Say who drowns first and who holds out, in one sentence.

    Parameters
    ----------
    sweep : LoadSweep

    Returns
    -------
    str
    """
    highest = sweep.rates_rps[-1]
    last = {p.strategy: p for p in sweep.points if p.rate_rps == highest}
    drowned = {name: p for name, p in last.items() if p.busiest[1] >= 1}
    afloat = {name: p for name, p in last.items() if name not in drowned}
    if not drowned:
        slowest = max(last, key=lambda name: last[name].summary.latency_us.p99)
        return (
            f"No queue grows without end up to {highest:,.0f} requests per second; the slowest, {slowest}, answers "
            f"99 % within {last[slowest].summary.latency_us.p99 / 1e3:,.0f} ms."
        )
    first = min(
        (p for p in sweep.points if p.strategy in drowned and p.busiest[1] >= 1), key=lambda p: (p.rate_rps, p.strategy)
    )
    sunk = f"{first.strategy} drowns {first.busiest[0]} at {first.rate_rps:,.0f} requests per second"
    if not afloat:
        return f"{sunk}; at {highest:,.0f} nobody keeps up."
    best = max(afloat, key=lambda name: afloat[name].summary.goodput or afloat[name].summary.accuracy or 0.0)
    kept = afloat[best].summary
    right = "" if kept.accuracy is None else f", and is right on {100 * kept.accuracy:.1f} %"
    return f"{sunk}; at {highest:,.0f} {best} still answers 99 % within {kept.latency_us.p99 / 1e3:,.0f} ms{right}."


def _details(sweep: LoadSweep) -> list[str]:
    lines = []
    lowest, highest = sweep.rates_rps[0], sweep.rates_rps[-1]
    ranks = []
    for rate in (lowest, highest):
        order = sorted(
            (p for p in sweep.points if p.rate_rps == rate),
            key=lambda p: (-(p.summary.goodput or p.summary.accuracy or 0.0), p.summary.latency_us.p99),
        )
        ranks.append([p.strategy for p in order])
    if ranks[0] != ranks[1]:
        lines.append(
            f"By share right in time the order at {lowest:,.0f} requests per second is {', '.join(ranks[0])}; "
            f"at {highest:,.0f} it is {', '.join(ranks[1])}."
        )
    lines.append(
        f"{len(sweep.strategies)} strategies at {len(sweep.rates_rps)} rates, {sweep.requests:,} requests each."
    )
    return lines


def _facts(sweep: LoadSweep) -> dict[str, Any]:
    return {
        "strategies": [
            {
                "name": html.escape(name),
                "label": html.escape(name),
                "points": [
                    {
                        "rate": p.rate_rps,
                        "p50": p.summary.latency_us.p50 / 1e3,
                        "p99": p.summary.latency_us.p99 / 1e3,
                        "good": p.summary.goodput,
                        "place": html.escape(p.busiest[0]),
                        "offered": p.busiest[1],
                    }
                    for p in sweep.points
                    if p.strategy == name
                ],
            }
            for name in sweep.strategies
        ]
    }


def _said(sweep: LoadSweep, what: Any) -> str:
    last = [p for p in sweep.points if p.rate_rps == sweep.rates_rps[-1]]
    return f"At {sweep.rates_rps[-1]:,.0f} per second: " + "; ".join(f"{p.strategy} {what(p.summary)}" for p in last)


def _use(sweep: LoadSweep) -> str:
    most: dict[str, float] = {}
    for point in sweep.points:
        for node, share in point.summary.utilisation_by_node.items():
            most[node] = max(share, most.get(node, 0.0))
    used = sorted(most, key=lambda node: -most[node])[:_NODES_SHOWN_MAX]
    head = "".join(f"<th>{html.escape(node)}</th>" for node in used)
    rows = []
    for point in sweep.points:
        if point.rate_rps != sweep.rates_rps[-1]:
            continue
        shares = "".join(
            f'<td style="--alike:{share:.3f}">{100 * share:.0f} %</td>'
            for share in (point.summary.utilisation_by_node.get(node, 0.0) for node in used)
        )
        places = sweep.saturation[point.strategy][:2]
        first = "; ".join(f"{html.escape(s.place)} at {s.rate_rps:,.0f}" for s in places) or "none"
        rows.append(f'<tr><th scope="row">{html.escape(point.strategy)}</th>{shares}<td>{first}</td></tr>')
    return (
        f'<table class="matrix"><thead><tr><th>strategy</th>{head}<th>saturates first</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _table(sweep: LoadSweep) -> str:
    rows = []
    for p in sweep.points:
        s = p.summary
        accuracy = "" if s.accuracy is None else f"{100 * s.accuracy:.1f} %"
        goodput = "" if s.goodput is None else f"{100 * s.goodput:.1f} %"
        rows.append(
            f'<tr><th scope="row">{html.escape(p.strategy)}</th><td>{p.rate_rps:,.0f}</td><td>{accuracy}</td>'
            f"<td>{goodput}</td><td>{s.latency_us.p50 / 1e3:,.1f}</td><td>{s.latency_us.p99 / 1e3:,.1f}</td>"
            f"<td>{s.queue_us / 1e3:,.1f}</td><td>{1e3 * s.price_usd:.4f}</td>"
            f"<td>{html.escape(p.busiest[0])} {100 * p.busiest[1]:.0f} %</td></tr>"
        )
    heads = (
        "strategy",
        "per second",
        "right",
        "right in time",
        "p50 ms",
        "p99 ms",
        "in queues ms",
        "USD per 1,000",
        "busiest, of what it can do",
    )
    head = "".join(f"<th>{h}</th>" for h in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
