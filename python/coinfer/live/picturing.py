"""A page about live runs: predicted against measured latency, where the time went, and when what failed.

Self-contained, like the report of a comparison, and about a different question: not which strategy to choose, but
whether what ran is what was predicted.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer._files import replacing
from coinfer.errors import BadValueError

if TYPE_CHECKING:
    from coinfer.live.result import LiveRun
    from coinfer.replaying import Run

__all__ = ["page"]

_COLOURS = {"answered": "#2a7f62", "degraded": "#c98a1b", "rejected": "#7a5195", "expired": "#a33", "failed": "#d33"}
_POINTS = 200


def page(
    runs: Mapping[str, LiveRun],
    path: str | PathLike[str],
    replays: Mapping[str, Run] | None = None,
    title: str = "Live runs",
) -> Path:
    """Write a page about live runs.

    Parameters
    ----------
    runs : mapping of str to LiveRun
        By the name to show.
    path : path
        The HTML file.
    replays : mapping of str to Run, optional
        Replays of the same requests on the profiled network, by the same names: what was predicted.
    title : str

    Returns
    -------
    Path
        The file.
    """
    import plotly.graph_objects as go
    import plotly.io
    import plotly.offline

    if not runs:
        msg = "a page about live runs needs at least one run"
        raise BadValueError(msg)
    replays = replays or {}
    parts = [f"<h1>{html.escape(title)}</h1>", _table(runs, replays)]
    shares = np.linspace(0.0, 1.0, _POINTS)
    for name, run in runs.items():
        outcomes = run.outcomes()
        if len(outcomes) == 0:
            continue
        latency_ms = outcomes.column("latency_us").to_numpy() / 1e3
        measured = go.Figure()
        measured.add_scatter(x=np.quantile(latency_ms, shares), y=shares, name="measured", line_color="#245")
        if name in replays:
            predicted = replays[name].latency_quantiles(shares) / 1e3
            measured.add_scatter(
                x=predicted, y=shares, name="predicted by replay", line={"color": "#c60", "dash": "dot"}
            )
        measured.update_layout(xaxis_title="latency, ms", yaxis_title="share of requests")
        times = run.stage_times()
        where = np.array(times.column("deployment").to_pylist())
        took_ms = times.column("took_us").to_numpy() / 1e3
        stages = go.Figure()
        for deployment in dict.fromkeys(where.tolist()):
            stages.add_box(x=took_ms[where == deployment], name=deployment, boxpoints=False)
        stages.update_layout(xaxis_title="one consultation, retries included, ms", showlegend=False)
        second = np.floor(outcomes.column("arrival_ns").to_numpy() / 1e9).astype(int)
        status = np.array(outcomes.column("status").to_pylist())
        timeline = go.Figure()
        for ended, colour in _COLOURS.items():
            count = np.bincount(second[status == ended], minlength=second.max() + 1)
            if count.any():
                timeline.add_bar(x=np.arange(len(count)), y=count, name=ended, marker_color=colour)
        timeline.update_layout(barmode="stack", xaxis_title="second of the run", yaxis_title="requests")
        parts.append(f"<h2>{html.escape(name)}</h2>")
        figures = (("Latency", measured), ("Where the time went", stages), ("How requests ended", timeline))
        for what, figure in figures:
            figure.update_layout(template="simple_white", height=320, margin={"l": 60, "r": 20, "t": 10, "b": 45})
            drawn = plotly.io.to_html(figure, full_html=False, include_plotlyjs=False, config={"displayModeBar": False})
            parts.append(f"<section><h3>{what}</h3>{drawn}</section>")
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem;color:#222}"
        "table{border-collapse:collapse}td,th{padding:.25rem .75rem;border-bottom:1px solid #ddd;text-align:right}"
        "td:first-child,th:first-child{text-align:left}"
    )
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style>'
    script = f"<script>{plotly.offline.get_plotlyjs()}</script>"
    with replacing(Path(path)) as part:
        part.write_text(
            f'<!doctype html><html lang="en"><head>{head}{script}</head><body>{"".join(parts)}</body></html>',
            encoding="utf-8",
        )
    return Path(path)


def _table(runs: Mapping[str, LiveRun], replays: Mapping[str, Run]) -> str:
    columns = ["run", "requests", "same decisions", "accuracy", "p50 ms", "predicted", "p99 ms", "predicted", "ended"]
    rows = []
    for name, run in runs.items():
        s, decided = run.summary, run.redecide()
        said: Any = replays[name].summary.latency_us if name in replays else None
        cells = [
            name,
            f"{s.requests:,}",
            f"{decided.identical:,}",
            "-" if s.accuracy is None else f"{s.accuracy:.4f}",
            f"{s.latency_us.p50 / 1e3:.1f}",
            "-" if said is None else f"{said.p50 / 1e3:.1f}",
            f"{s.latency_us.p99 / 1e3:.1f}",
            "-" if said is None else f"{said.p99 / 1e3:.1f}",
            ", ".join(f"{k} {v:,}" for k, v in s.status.items() if v),
        ]
        rows.append("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>")
    return f"<table><tr>{''.join(f'<th>{c}</th>' for c in columns)}</tr>{''.join(rows)}</table>"
