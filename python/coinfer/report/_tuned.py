"""The report of a tuning: the front, the chosen point, what was measured elsewhere, and the certificate.

One HTML file that holds the plotting library; nothing is fetched when it is opened.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer._files import replacing

if TYPE_CHECKING:
    import os

    from coinfer.tuning.tuned import Tuned

__all__ = ["figure", "write_tuned"]

_POINTS_MAX = 4000
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right}td:first-child,th:first-child"
    "{text-align:left}.certificate{border-left:.3rem solid #2a7f62;padding:.3rem 1rem;background:#f0f7f4}"
    ".refused{border-color:#b3401f;background:#fbf1ee}"
)
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"


def figure(tuned: Tuned) -> Any:
    """Draw accuracy against cost: all points, the front, the chosen point and where it lies on held-out samples."""
    import plotly.graph_objects as go

    front = tuned.front
    cost = "forwarded_share" if tuned.minimise == "accuracy" else tuned.minimise
    gain = "accuracy" if "accuracy" in front.column_names else "forwarded_share"
    front = front.filter(front[cost].is_valid())
    x, y = front[cost].to_numpy(), front[gain].to_numpy()
    on = front["on_front"].to_numpy()
    some = np.unique(np.linspace(0, len(x) - 1, min(len(x), _POINTS_MAX)).astype(int))
    order = np.flatnonzero(on)[np.argsort(x[on])]
    order = order[np.unique(np.linspace(0, len(order) - 1, min(len(order), _POINTS_MAX)).astype(int))]
    drawn = go.Figure()
    grey = {"color": "#c3c9d0", "size": 4}
    drawn.add_scattergl(x=x[some].tolist(), y=y[some].tolist(), mode="markers", name="operating points", marker=grey)
    drawn.add_scatter(x=x[order].tolist(), y=y[order].tolist(), mode="lines", name="front", line={"shape": "hv"})
    star = {"size": 14, "symbol": "star", "color": "#b3401f"}
    drawn.add_scatter(x=[tuned.chosen[cost]], y=[tuned.chosen[gain]], mode="markers", name="chosen", marker=star)
    if tuned.held_out and cost in tuned.measured and gain in tuned.measured:
        at = {"size": 11, "symbol": "circle-open", "color": "#b3401f", "line": {"width": 2}}
        here = ([float(tuned.measured[cost])], [float(tuned.measured[gain])])
        drawn.add_scatter(x=here[0], y=here[1], mode="markers", name="the same on held-out samples", marker=at)
    drawn.update_layout(xaxis_title=cost, yaxis_title=gain, template="plotly_white", height=520)
    return drawn


def write_tuned(tuned: Tuned, path: str | os.PathLike[str], title: str | None = None) -> Path:
    """Write the report and return its path."""
    head = html.escape(title or f"Tuned: {tuned.strategy.name}")
    rows = "\n".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(fitted)}</td><td>{html.escape(measured)}</td></tr>"
        for name, fitted, measured in tuned.rows()
    )
    certificate = ""
    if tuned.asked:
        kind = "certificate" if tuned.certificate is not None else "certificate refused"
        certificate = f'<p class="{kind}">{html.escape(tuned.certified_in_words)}</p>'
    certificate += "".join(f"<p>{html.escape(note)}</p>" for note in tuned.notes[1 if tuned.asked else 0 :])
    where = "held out" if tuned.held_out else "same samples"
    plot = figure(tuned).to_html(full_html=False, include_plotlyjs=True)
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{head}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><style>{_STYLE}</style>'
        f"<h1>{head}</h1><p>{html.escape(tuned.verdict)}</p>{certificate}"
        f"<table><tr><th></th><th>fitted</th><th>{where}</th></tr>{rows}</table>{plot}</html>\n"
    )
    target = Path(path)
    with replacing(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target
