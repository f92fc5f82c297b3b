"""The training report: curves, what each exit is worth where it is used, the shift, and what it all changed.

One self-contained HTML file in the manner of `coinfer.report`, whose style sheet and plotting library it shares.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer._files import replacing
from coinfer.report._curves import reliability

if TYPE_CHECKING:
    from os import PathLike

    from coinfer.predictions import Predictions
    from coinfer.train.costs import ExitCost
    from coinfer.train.evaluating import Served, Shift
    from coinfer.train.fitting import Training

__all__ = ["Trained", "write"]

_RAMP = ("--c5", "--c0", "--c1", "--c2", "--c3")


@dataclass(frozen=True)
class Trained:
    """One training in a report: its name, how it went, and what its answers were worth."""

    name: str
    training: Training
    served: Served
    test: Predictions
    front: Sequence[tuple[float, float]] = field(default_factory=tuple)
    """(share forwarded, accuracy of served answers), for the curve of operating points."""


def write(
    path: str | PathLike[str],
    trained: Sequence[Trained],
    *,
    title: str,
    headline: str,
    details: Sequence[str],
    costs: Sequence[ExitCost],
    shift: Shift,
    classes: Sequence[str],
    notes: Mapping[str, str],
) -> Path:
    """Write the report.

    Parameters
    ----------
    path : path
        Replaced in one step.
    trained : sequence of Trained
        The first is the reference, the last the one that is looked at closely.
    title, headline, details
        The words above.
    costs : sequence of ExitCost
        Of the exits.
    shift : Shift
        Of what reaches each exit under the last training's strategy.
    classes : sequence of str
        Names of the classes.
    notes : mapping of str to str
        What is real here.
    """
    from plotly.offline import get_plotlyjs

    import coinfer

    names = trained[-1].training.model.names
    figures = {
        "loss": _loss(trained),
        "curves": _curves(trained[-1], names),
        "exits": _exits(trained, names),
        "reliability": _reliability(trained[-1], names),
        "labels": _labels(shift, names, classes),
        "hardness": _hardness(shift, names),
        "front": _front(trained),
    }
    style = resources.files("coinfer.report").joinpath("page.css").read_text("utf-8")
    script = resources.files("coinfer.train").joinpath("page.js").read_text("utf-8")
    facts = json.dumps({"figures": _finite(figures)}, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    real = "\n".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in notes.items())
    lines = "\n".join(f'<p class="detail">{html.escape(line)}</p>' for line in details)
    policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{html.escape(title)}</title><link rel="icon" href="data:,"><style>{style}</style></head><body>
<header><p class="eyebrow"><b>coinfer</b> &nbsp; {html.escape(title)}</p><h1>{html.escape(headline)}</h1>
{lines}</header>
<main>
<section><h2>What the trainings are worth</h2>
<p class="lead">Served answers only: every sample is answered by the exit that the strategy settles it at.</p>
<div class="panel flush">{_scroll("Trainings", _table(trained))}</div>
<div class="stack" style="margin-top:16px">
{_figure("exits", "Each exit on all samples, and on those it serves", "share right; exits high up serve hard samples")}
{_figure("front", "Operating points", "accuracy of served answers; share that leaves the lowest tier")}
</div></section>
<section><h2>How training went</h2><p class="lead">Clients' loss while training, and accuracy on held-out samples.</p>
<div class="pair">{_figure("loss", "Objective", "weighted loss of the exits, each training with its own weights")}
{_figure("curves", f"Accuracy per exit: {trained[-1].name}", "share right on all held-out samples")}</div></section>
<section><h2>The shift that delivery makes</h2>
<p class="lead">What reaches an exit is not what the data looked like: easy samples stopped below.</p>
<div class="pair">{_figure("hardness", "Difficulty", "rank from easiest (0) to hardest (1): 10, 25, 50, 75 and 90 %")}
{_figure("labels", "Labels", "share of each class")}</div>
<div class="stack" style="margin-top:16px">
{_figure("reliability", "Calibration on what reaches each exit", "stated confidence against accuracy; dotted: equal")}
</div></section>
<section><h2>What an exit costs</h2><p class="lead">Computed from the network; times measured on this machine.</p>
<div class="panel flush">{_scroll("Costs", _costs(costs))}</div></section>
<section id="real"><h2>What is real here</h2><dl class="real">{real}</dl></section>
</main>
<footer>Written by coinfer {coinfer.__version__}.</footer>
<noscript><p style="text-align:center">The figures need JavaScript; the tables do not.</p></noscript>
<script type="application/json" id="facts">{facts}</script><script>{get_plotlyjs()}</script><script>{script}</script>
</body></html>
"""
    target = Path(path)
    with replacing(target) as part:
        part.write_text(page, encoding="utf-8")
    return target


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


def _figure(identifier: str, heading: str, under: str) -> str:
    return (
        f"<figure><h3>{html.escape(heading)}</h3><p>{html.escape(under)}</p>"
        f'<div class="plot" id="plot-{identifier}" role="img" aria-label="{html.escape(heading)}"></div></figure>'
    )


def _scroll(label: str, table: str) -> str:
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">{table}</div>'


def _percent(value: float) -> str:
    return "–" if not math.isfinite(value) else f"{100 * value:.1f} %"


def _table(trained: Sequence[Trained]) -> str:
    names = trained[0].training.model.names
    head = [
        "weights",
        "served right",
        *(f"{n}: weight" for n in names),
        *(f"{n}: served" for n in names),
        "ECE, last exit",
    ]
    rows = []
    best = max(trained, key=lambda each: float(each.served.accuracy))
    for each in trained:
        a = each.served.accuracy
        cells = [
            f'{_percent(a)}<span class="interval">{100 * a.low:.1f} to {100 * a.high:.1f}</span>',
            *(f"{w:.2f}" for w in each.training.weights),
            *(
                f'{_percent(right)}<span class="unit">of {_percent(share)}</span>'
                for right, share in zip(each.served.accuracy_served, each.served.settled_by_exit, strict=True)
            ),
            _percent(each.served.calibration_by_exit[-1]),
        ]
        mark = ' class="best"' if each is best else ""
        rows.append(
            f'<tr{mark}><th scope="row">{html.escape(each.name)}</th>'
            + "".join(f"<td>{c}</td>" for c in cells)
            + "</tr>"
        )
    headings = "".join(f'<th scope="col">{html.escape(h)}</th>' for h in head)
    return f"<table><thead><tr>{headings}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _costs(costs: Sequence[ExitCost]) -> str:
    head = [
        "exit",
        "parameters",
        "multiply-adds",
        "added by the exit",
        "µs here, one sample",
        "sent up, kB",
        "input, kB",
    ]
    rows = "".join(
        f'<tr><th scope="row">{html.escape(c.name)}</th><td>{c.parameters:,}</td><td>{c.multiply_adds:,}</td>'
        f"<td>{c.own_multiply_adds:,}</td><td>{c.own_time_us:.0f}</td><td>{c.features_kb:.3f}</td>"
        f"<td>{c.input_kb:.3f}</td></tr>"
        for c in costs
    )
    headings = "".join(f'<th scope="col">{h}</th>' for h in head)
    return f"<table><thead><tr>{headings}</tr></thead><tbody>{rows}</tbody></table>"


def _line(
    name: str, x: Sequence[Any], y: Sequence[Any], colour: str, mode: str = "lines", **more: Any
) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": mode, "name": name, "x": list(x), "y": list(y),
        "line": {"color": colour, "width": 2}, "marker": {"color": colour, "size": 7}, **more,
    }  # fmt: skip


def _loss(trained: Sequence[Trained]) -> dict[str, Any]:
    traces = [
        _line(
            each.name, [r.number for r in each.training.history], [r.loss for r in each.training.history], _RAMP[i % 5]
        )
        for i, each in enumerate(trained)
    ]
    return {
        "traces": traces,
        "layout": {"xaxis": {"title": "round"}, "yaxis": {"title": "loss", "rangemode": "tozero"}},
    }


def _curves(each: Trained, names: Sequence[str]) -> dict[str, Any]:
    rounds = [r for r in each.training.history if r.accuracy_by_exit is not None]
    traces = [
        _line(
            name,
            [r.number for r in rounds],
            [r.accuracy_by_exit[e] for r in rounds if r.accuracy_by_exit],
            _RAMP[e % 5],
        )
        for e, name in enumerate(names)
    ]
    return {"traces": traces, "layout": {"xaxis": {"title": "round"}, "yaxis": {"title": "", "tickformat": ".0%"}}}


def _exits(trained: Sequence[Trained], names: Sequence[str]) -> dict[str, Any]:
    traces = []
    for i, each in enumerate(trained):
        for what, values, opacity in (
            ("all samples", each.served.accuracy_by_exit, 0.4),
            ("served samples", each.served.accuracy_served, 1.0),
        ):
            traces.append(
                {
                    "type": "bar", "name": f"{each.name}, {what}", "x": list(names), "y": list(values),
                    "marker": {"color": _RAMP[i % 5]}, "opacity": opacity,
                }
            )  # fmt: skip
    return {"traces": traces, "layout": {"yaxis": {"title": "share right", "tickformat": ".0%", "range": [0, 1]}}}


def _reliability(each: Trained, names: Sequence[str]) -> dict[str, Any]:
    from coinfer.train.flow import scores_of

    assert each.test.labels is not None
    confidence = scores_of(each.test)
    traces = [{**_line("equal", [0, 1], [0, 1], "--faint"), "line": {"color": "--faint", "dash": "dot", "width": 1}}]
    for e, name in enumerate(names):
        mask = each.served.reached[:, e]
        right = each.test[name].answers() == each.test.labels
        found = reliability(confidence[e][mask], right[mask], 10)
        traces.append(
            _line(
                f"{name}, ECE {_percent(found.calibration_error)}",
                found.confidence,
                found.accuracy,
                _RAMP[e % 5],
                "lines+markers",
            )
        )
    axes = {"range": [0, 1.02], "tickformat": ".0%"}
    return {
        "traces": traces,
        "layout": {"xaxis": {"title": "confidence", **axes}, "yaxis": {"title": "share right", **axes}},
    }


def _labels(shift: Shift, names: Sequence[str], classes: Sequence[str]) -> dict[str, Any]:
    shown = ["all samples", *(f"reach {name}" for name in names[1:])]
    tables = [shift.labels[0], *shift.labels[2:]]
    traces = [
        {"type": "bar", "name": name, "x": list(classes), "y": table.tolist(), "marker": {"color": colour}}
        for name, table, colour in zip(shown, tables, ("--g0", *_RAMP[1:]), strict=False)
    ]
    return {
        "traces": traces,
        "layout": {"xaxis": {"title": "class", "type": "category"}, "yaxis": {"tickformat": ".0%"}},
    }


def _hardness(shift: Shift, names: Sequence[str]) -> dict[str, Any]:
    q = np.asarray(shift.hardness)
    trace = {
        "type": "box", "x": ["all samples", *(f"reach {name}" for name in names[1:])],
        "lowerfence": [q[0, 0], *q[2:, 0].tolist()], "q1": [q[0, 1], *q[2:, 1].tolist()],
        "median": [q[0, 2], *q[2:, 2].tolist()], "q3": [q[0, 3], *q[2:, 3].tolist()],
        "upperfence": [q[0, 4], *q[2:, 4].tolist()], "marker": {"color": "--c0"}, "line": {"color": "--c0"},
        "fillcolor": "rgba(0,114,178,0.15)", "name": "",
    }  # fmt: skip
    return {"traces": [trace], "layout": {"showlegend": False, "yaxis": {"title": "difficulty", "range": [0, 1]}}}


def _front(trained: Sequence[Trained]) -> dict[str, Any]:
    traces = []
    for i, each in enumerate(trained):
        if each.front:
            x, y = zip(*each.front, strict=True)
            traces.append(_line(each.name, x, y, _RAMP[i % 5], "lines+markers"))
    return {
        "traces": traces,
        "layout": {
            "xaxis": {"title": "share forwarded by the lowest tier", "tickformat": ".0%"},
            "yaxis": {"title": "share right", "tickformat": ".1%"},
        },
    }
