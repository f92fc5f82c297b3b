"""The page: one HTML file that holds its data, its style, its scripts and the plotting library.

Nothing is fetched when it is opened; a content security policy in the page forbids it, so that a report can be sent to
somebody without telling a third party when it is read. Text and table are written here, and are readable without
JavaScript; the figures are drawn by ``page.js`` from the same facts. A figure without data is replaced by a sentence.
"""

from __future__ import annotations

import html
import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coinfer.report._facts import Facts, ModelFacts, StrategyFacts, collect
from coinfer.report._story import Story, tell

if TYPE_CHECKING:
    from coinfer.comparing import Comparison

__all__ = ["render", "write"]


def write(
    comparison: Comparison,
    path: str | os.PathLike[str],
    title: str | None = None,
    *,
    notes: Sequence[str] = (),
) -> Path:
    """Write the report of a comparison as one self-contained HTML file.

    Parameters
    ----------
    comparison : Comparison
        What `coinfer.compare` returned.
    path : path
        File to write; replaced in one step, so that a failure leaves what was there.
    title : str, optional
        A name for the report, above its headline.
    notes : sequence of str
        Where the data come from and what of it is made up, one ``"what: how"`` each, added to the section that says
        what is real.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    BadFileError
        If the file cannot be written.
    """
    from coinfer.errors import BadFileError

    target = Path(path)
    facts = collect(comparison)
    page = render(facts, tell(facts), title or "Comparison of strategies", notes)
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=target.parent, prefix=f".{target.name}.", delete=False
        ) as part:
            try:
                part.write(page)
                part.close()
                Path(part.name).chmod(0o644)
                Path(part.name).replace(target)
            except BaseException:
                Path(part.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        msg = f"the report cannot be written to {str(target)!r}: {error.strerror or error}"
        raise BadFileError(msg) from error
    return target


def render(facts: Facts, story: Story, title: str, notes: Sequence[str] = ()) -> str:
    """Return the whole page.

    Parameters
    ----------
    facts : Facts
        What to show.
    story : Story
        The words.
    title : str
        Name of the report.
    notes : sequence of str
        See `write`.

    Returns
    -------
    str
        HTML, several megabytes because it holds the plotting library.
    """
    from plotly.offline import get_plotlyjs

    import coinfer

    here = resources.files("coinfer.report")
    data = _finite({**asdict(facts), "shown_first": story.shown_first})
    parts = {
        "version": coinfer.__version__,
        "title": html.escape(title),
        "headline": html.escape(story.headline),
        "details": "\n".join(f'<p class="detail">{html.escape(line)}</p>' for line in story.details),
        "css": here.joinpath("page.css").read_text("utf-8"),
        "js": here.joinpath("page.js").read_text("utf-8"),
        "facts": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        "plotly": get_plotlyjs(),
        "cost-lead": _cost_lead(facts),
        "cost": _cost(facts),
        "table-lead": _table_lead(facts),
        "table": _table(facts, story),
        "table-note": _table_note(facts),
        "models-lead": _models_lead(facts),
        "models": _models(facts),
        "real": _real(facts, notes),
        "footer": html.escape(
            f"Written by coinfer {coinfer.__version__}. Seed {facts.seed}; the same inputs and seed give the same "
            "numbers on any machine."
        ),
    }
    pieces = here.joinpath("page.html").read_text("utf-8").split("@")
    # The template is cut at its markers, so that an '@' inside a value is never taken for one.
    return "".join(parts[piece] if position % 2 else piece for position, piece in enumerate(pieces))


def _finite(value: Any) -> Any:
    """Return the value with NaN and infinities as None, which JSON knows."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


# Accuracy against cost -----------------------------------------------------------------------------------------------


def _absent(why: str) -> str:
    return f'<div class="panel absent">{html.escape(why)}</div>'


def _figure(identifier: str, heading: str, under: str, label: str, caption: str = "", kind: str = "") -> str:
    note = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure data-figure="{identifier}"><h3>{html.escape(heading)}</h3><p>{html.escape(under)}</p>'
        f'<div class="plot {kind}" id="plot-{identifier}" role="img" aria-label="{html.escape(label)}"></div>{note}'
        "</figure>"
    )


def _cost_lead(facts: Facts) -> str:
    if not facts.labelled:
        return "What is further left costs less; further up is right more often."
    return (
        "Further left costs less, further up is right more often; where accuracies are high, equal steps up are equal "
        "factors fewer errors. The dotted line joins the strategies that no other beats on both. Bars are 95 % intervals."
    )


def _cost(facts: Facts) -> str:
    if not facts.labelled:
        return _absent("The samples carry no labels, so accuracy is unknown and these two figures are left out.")
    latency = _figure(
        "latency-accuracy", "Accuracy and latency", "share right; mean time until the answer is back",
        _scatter_label(facts, "mean latency", lambda s: f"{s.latency_ms['mean']:.1f} ms"),
    )  # fmt: skip
    if not any(s.price_usd_per_1000 for s in facts.strategies):
        price = _absent("The network states no prices, so there is no figure of accuracy and price.")
    else:
        price = _figure(
            "price-accuracy", "Accuracy and price", "share right; models and traffic together",
            _scatter_label(facts, "price", lambda s: f"{s.price_usd_per_1000:.3g} USD per 1,000"),
        )  # fmt: skip
    return f'<div class="pair">{latency}{price}</div>'


def _scatter_label(facts: Facts, what: str, cost: Any) -> str:
    points = (f"{s.name} {_percent(s.accuracy.value)} at {cost(s)}" for s in facts.strategies if s.accuracy)
    return f"Accuracy against {what}: " + "; ".join(points)


# The table -----------------------------------------------------------------------------------------------------------


def _table_lead(facts: Facts) -> str:
    keys = "".join(
        f'<span><i data-tier="{position}"></i>{html.escape(tier.name)}</span>'
        for position, tier in enumerate(facts.tiers)
    )
    return f'Every number is over the same {facts.requests:,} requests. Settled at <span class="key">{keys}</span>'


def _table(facts: Facts, story: Story) -> str:
    head = (
        '<table><thead><tr><th scope="col">strategy</th><th scope="col">right</th><th scope="col">right and<br>in time</th>'
        '<th scope="col">mean<br>ms</th><th scope="col">p50<br>ms</th><th scope="col">p95<br>ms</th>'
        '<th scope="col">p99<br>ms</th><th scope="col">USD per<br>1,000</th><th scope="col">models<br>asked</th>'
        '<th scope="col">settled at</th></tr></thead>'
    )
    rows = "".join(_row(position, s, s.name == story.shown_first, facts) for position, s in enumerate(facts.strategies))
    return f"{head}<tbody>{rows}</tbody></table>"


def _row(position: int, s: StrategyFacts, best: bool, facts: Facts) -> str:
    if s.accuracy is None:
        right = '<span class="unit">no labels</span>'
    else:
        interval = f"{100 * s.accuracy.low:.1f} to {100 * s.accuracy.high:.1f}"
        right = f'{_percent(s.accuracy.value)}<span class="interval">{interval}</span>'
    goodput = "–" if s.goodput is None else _percent(s.goodput)
    latency = "".join(f"<td>{_short(s.latency_ms[key])}</td>" for key in ("mean", "p50", "p95", "p99"))
    segments = "".join(
        f'<i data-tier="{tier}" style="width:{100 * share:.3f}%" title="{html.escape(facts.tiers[tier].name)} '
        f'{_percent(share)}"></i>'
        for tier, share in enumerate(s.settled_by_tier)
        if share > 0
    )
    said = ", ".join(
        f"{tier.name} {_percent(share)}" for tier, share in zip(facts.tiers, s.settled_by_tier, strict=True)
    )
    return (
        f'<tr{" class=best" if best else ""}><th scope="row" title="{html.escape(s.rule)}">'
        f'<span data-swatch="{position}"></span>{html.escape(s.name)}</th>'
        f"<td>{right}</td><td>{goodput}</td>{latency}<td>{_price(s.price_usd_per_1000)}</td><td>{s.stages:.2f}</td>"
        f'<td class="shares"><div class="bar" role="img" aria-label="{html.escape(said)}">{segments}</div></td></tr>'
    )


def _table_note(facts: Facts) -> str:
    lines = []
    effective = [s.accuracy.n_effective for s in facts.strategies if s.accuracy is not None]
    if effective:
        lines.append(
            f"Below each accuracy its 95 % interval. The unit of evidence is the sample: {facts.requests:,} requests "
            f"are {min(effective):,.0f} independent observations."
        )
    trouble = [
        f"{s.name}: {', '.join(f'{count:,} {status}' for status, count in s.status.items() if count and status != 'answered')}"
        for s in facts.strategies
        if any(count for status, count in s.status.items() if status != "answered")
    ]
    if trouble:
        lines.append("Not simply answered: " + "; ".join(trouble) + ".")
    if any(s.kind == "oracle" for s in facts.strategies):
        lines.append("The oracle knows the labels: a bound on selecting one model's answer, not something to run.")
    return html.escape(" ".join(lines))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _short(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def _price(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}" if value < 10 else f"{value:,.2f}"


# The models ----------------------------------------------------------------------------------------------------------


def _models_lead(facts: Facts) -> str:
    lead = (
        "Over samples, each counted once, whatever the strategy. A strategy that stops on confidence can only be as "
        "good as these curves."
    )
    if facts.models_left_out:
        drawn = len(facts.models)
        lead += f" The {drawn} most accurate of {drawn + facts.models_left_out} models are drawn."
    return html.escape(lead)


def _models(facts: Facts) -> str:
    if not facts.labelled or not facts.models:
        return _absent("The samples carry no labels, so nothing can be said about how well confidence predicts truth.")
    curves = [m for m in facts.models if m.risk_coverage is not None]
    if not curves:
        return _absent("No model here reports a confidence, only labels: there is nothing to rank its answers by.")
    label = "Share wrong among the surest answers: " + "; ".join(
        f"{m.name} {_percent(m.risk_coverage.risk[-1])} over all" for m in curves if m.risk_coverage
    )
    risk = _figure(
        "risk",
        "Risk and coverage",
        "share wrong among the answers kept, when only the surest are kept",
        label,
        kind="wide",
    )
    panels = "".join(_reliability(position, m) for position, m in enumerate(facts.models))
    lead = (
        "Does a stated confidence come true? On the dotted line it does; below it the model is overconfident. "
        "ECE is the mean gap, over 15 bins; grey bars show where the answers are."
    )
    return f'{risk}<p class="lead" style="margin-top:22px">{html.escape(lead)}</p><div class="small">{panels}</div>'


def _reliability(position: int, model: ModelFacts) -> str:
    right = "" if model.accuracy is None else f"right {_percent(model.accuracy)}"
    if model.reliability is None:
        why = (
            "reports labels without a confidence"
            if model.confidence is None
            else "reports a confidence outside 0 to 1"
        )
        return f'<figure><h3>{html.escape(model.name)}</h3><p>{right}; {why}</p></figure>'
    gap = _percent(model.reliability.calibration_error)
    return (
        f'<figure data-figure="reliability-{position}"><h3>{html.escape(model.name)}</h3><p>{right}, ECE {gap}</p>'
        f'<div class="plot mini" id="plot-reliability-{position}" role="img" aria-label="Reliability of '
        f'{html.escape(model.name)}: expected calibration error {gap}"></div></figure>'
    )


# Provenance ----------------------------------------------------------------------------------------------------------


def _real(facts: Facts, notes: Sequence[str]) -> str:
    items = [note.split(": ", 1) if ": " in note else ["note", note] for note in notes]
    known = {what for what, _ in items}
    labels = "with true labels" if facts.labelled else "without labels"
    count = len(facts.models) + facts.models_left_out
    defaults = {
        "answers": f"recorded answers of {count} models on {facts.samples:,} samples, {labels}; not simulated",
        "arrivals": "the requests of the trace as given; coinfer cannot know whether they were measured or drawn",
        "times": "service times, delays, bandwidths and prices as the network file states them; waiting is simulated "
        "from them",
        "decisions": f"taken by the same compiled code that serves live requests; control is by {facts.control}",
    }
    items = [[what, how] for what, how in defaults.items() if what not in known] + items
    return "\n".join(f"<dt>{html.escape(what)}</dt><dd>{html.escape(how)}</dd>" for what, how in items)
