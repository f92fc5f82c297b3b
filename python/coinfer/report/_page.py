"""The report of a comparison.

Text and table are written here, and are readable without JavaScript; the figures are drawn by ``page.js`` from the
same facts. A figure without data is replaced by a sentence.
"""

from __future__ import annotations

import html
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from coinfer._files import replacing
from coinfer.report._facts import Facts, ModelFacts, StrategyFacts, collect
from coinfer.report._frame import frame
from coinfer.report._story import Story, tell

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from coinfer.comparing import Comparison

__all__ = ["finding", "render", "write"]


def write(
    comparison: Comparison,
    path: str | os.PathLike[str],
    title: str | None = None,
    *,
    notes: Mapping[str, str] | None = None,
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
    notes : mapping of str to str, optional
        What is real and what is made up, by subject; ``answers``, ``arrivals``, ``times``, ``waiting`` and
        ``decisions`` replace what the report says of itself, others are added.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    BadFileError
        If the file cannot be written.
    """
    target = Path(path)
    facts = collect(comparison)
    page = render(facts, tell(facts), title or "Comparison of strategies", notes or {})
    with replacing(target) as part:
        part.write_text(page, encoding="utf-8")
    return target


def finding(comparison: Comparison) -> str:
    """Return the headline of a comparison's report: the best that can honestly be said about it.

    Parameters
    ----------
    comparison : Comparison
        What `coinfer.compare` returned.

    Returns
    -------
    str
        One sentence.
    """
    return tell(collect(comparison)).headline


def render(facts: Facts, story: Story, title: str, notes: Mapping[str, str]) -> str:
    """Return the whole page.

    Parameters
    ----------
    facts : Facts
        What to show.
    story : Story
        The words.
    title : str
        Name of the report.
    notes : mapping of str to str
        See `write`.

    Returns
    -------
    str
        HTML, several megabytes because it holds the plotting library.
    """
    parts = {
        "cost-lead": _cost_lead(facts),
        "cost": _cost(facts),
        "table-lead": _table_lead(facts),
        "table": _table(facts, story),
        "table-note": _table_note(facts),
        "latency": _latency(facts),
        "models-lead": _models_lead(facts),
        "models": _models(facts),
        "together": _together(facts),
        "real": _real(facts, notes),
    }
    return frame(
        "page.html",
        "page.js",
        title=title,
        headline=story.headline,
        details=story.details,
        facts={**asdict(facts), "shown_first": story.shown_first},
        footer=f"Seed {facts.seed}; the same inputs and seed give the same numbers on any machine.",
        parts=parts,
    )


# Accuracy against cost ------------------------------------------------------------------------------------


def _absent(why: str) -> str:
    return f'<div class="panel absent">{html.escape(why)}</div>'


def _plot(identifier: str, label: str, kind: str = "") -> str:
    return f'<div class="plot {kind}" id="plot-{identifier}" role="img" aria-label="{html.escape(label)}"></div>'


def _figure(identifier: str, heading: str, under: str, plot: str) -> str:
    return (
        f'<figure data-figure="{identifier}"><h3>{html.escape(heading)}</h3><p>{html.escape(under)}</p>{plot}</figure>'
    )


def _cost_lead(facts: Facts) -> str:
    if not facts.labelled:
        return "Without labels, only one side of this question can be answered."
    return (
        "Further left costs less, further up is right more often; where accuracies are high, "
        "equal steps up are equal factors fewer errors. "
        "The dotted line joins the strategies that no other beats on both. Bars are 95 % intervals."
    )


def _cost(facts: Facts) -> str:
    if not facts.labelled:
        return _absent("The samples carry no labels, so accuracy is unknown and these two figures are left out.")
    priced = any(s.price_usd_per_1000 for s in facts.strategies)
    by_latency = _points(facts, lambda s: f"{s.latency_ms['mean']:.1f} ms")
    latency = _figure(
        "latency-accuracy",
        "Accuracy and latency",
        "share right; mean time until the answer is back",
        _plot("latency-accuracy", f"Accuracy against mean latency: {by_latency}"),
    )
    if not _takes_time(facts):
        latency = _absent(_NO_TIME)
    if not priced:
        price = _absent("The network states no prices, so there is no figure of accuracy and price.")
        return f'<div class="stack">{latency}{price}</div>'
    by_price = _points(facts, lambda s: f"{s.price_usd_per_1000:.3g} USD per 1,000")
    price = _figure(
        "price-accuracy",
        "Accuracy and price",
        "share right; models and traffic together",
        _plot("price-accuracy", f"Accuracy against price: {by_price}"),
    )
    if not _takes_time(facts):
        return f'<div class="stack">{price}{latency}</div>'
    return f'<div class="pair">{latency}{price}</div>'


_NO_TIME = "In this network nothing takes any time, so there is no figure of latency."


def _takes_time(facts: Facts) -> bool:
    return any(s.latency_ms["mean"] for s in facts.strategies)


def _latency(facts: Facts) -> str:
    if not _takes_time(facts):
        return _absent(_NO_TIME)
    return (
        '<div class="chips" data-chips="latency" role="group" aria-label="Strategy brought to the front"></div>'
        '<figure data-figure="latency" aria-label="Cumulative distribution of latency of each strategy">'
        '<div class="plot wide" id="plot-latency"></div></figure>'
    )


def _points(facts: Facts, cost: Callable[[StrategyFacts], str]) -> str:
    return "; ".join(f"{s.name} {_percent(s.accuracy.value)} at {cost(s)}" for s in facts.strategies if s.accuracy)


# The table ------------------------------------------------------------------------------------------------

_COLUMNS = (
    "right",
    "right and<br>in time",
    "mean<br>ms",
    "p50<br>ms",
    "p95<br>ms",
    "p99<br>ms",
    "USD per<br>1,000",
    "models<br>asked",
    "settled at",
)
_UNKNOWN = '<span class="unit">unknown</span>'


def _table_lead(facts: Facts) -> str:
    keys = "".join(
        f'<span><i data-tier="{position}"></i>{html.escape(tier.name)}</span>'
        for position, tier in enumerate(facts.tiers)
    )
    return f'Every row is over the same {facts.requests:,} requests. Settled at <span class="key">{keys}</span>'


def _table(facts: Facts, story: Story) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in ("strategy", *_COLUMNS))
    rows = "".join(_row(position, facts, story) for position in range(len(facts.strategies)))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _row(position: int, facts: Facts, story: Story) -> str:
    s = facts.strategies[position]
    right = _UNKNOWN
    if s.accuracy is not None:
        interval = f"{100 * s.accuracy.low:.1f} to {100 * s.accuracy.high:.1f}"
        right = (
            f'{_percent(s.accuracy.value)}{" =" if s.as_right_as_best else ""}<span class="interval">{interval}</span>'
        )
    cells = (
        right,
        _UNKNOWN if s.goodput is None else _percent(s.goodput),
        *(_milliseconds(s.latency_ms[key]) + _between(s, key, _milliseconds) for key in ("mean", "p50", "p95", "p99")),
        _price(s.price_usd_per_1000) + _between(s, "price", _price),
        f"{s.stages:.2f}",
    )
    name = (
        f'<th scope="row" title="{html.escape(s.rule)}"><span class="name">'
        f'<span data-swatch="{position}"></span><span>{html.escape(s.name)}</span></span></th>'
    )
    chosen = ' class="best"' if s.name == story.shown_first else ""
    values = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr{chosen}>{name}{values}<td class="shares">{_bar(s, facts)}</td></tr>'


def _between(s: StrategyFacts, key: str, form: Callable[[float], str]) -> str:
    """Give the interval of a number, to stand below it; nothing where both ends read alike."""
    if key not in s.between or not all(map(math.isfinite, s.between[key])):
        return ""
    low, high = map(form, s.between[key])
    return "" if low == high else f'<span class="interval">{low} to {high}</span>'


def _bar(s: StrategyFacts, facts: Facts) -> str:
    shares = list(zip(facts.tiers, s.settled_by_tier, strict=True))
    said = ", ".join(f"{tier.name} {_percent(share)}" for tier, share in shares)
    segments = "".join(
        f'<i data-tier="{position}" style="width:{100 * share:.3f}%"></i>'
        for position, (_, share) in enumerate(shares)
        if share > 0
    )
    said = html.escape(said)
    return f'<div class="bar" role="img" aria-label="{said}" title="{said}">{segments}</div>'


def _table_note(facts: Facts) -> str:
    lines = []
    effective = [s.accuracy.n_effective for s in facts.strategies if s.accuracy is not None]
    if effective:
        lines.append(
            "Below a number stands its 95 % interval. The unit of evidence is the sample: "
            f"{facts.requests:,} requests weigh as much as {min(effective):,.0f} independent observations. "
            "= marks accuracies that chance alone may set apart from the best (paired test)."
        )
    trouble = []
    for s in facts.strategies:
        counts = [f"{count:,} {status}" for status, count in s.status.items() if count and status != "answered"]
        if counts:
            trouble.append(f"{s.name}: {', '.join(counts)}")
    if trouble:
        lines.append("Not simply answered: " + "; ".join(trouble) + ".")
    if any(s.kind == "oracle" for s in facts.strategies):
        lines.append("The oracle knows the labels: a bound on selecting one model's answer, not something to run.")
    return f'<p class="note">{html.escape(" ".join(lines))}</p>' if lines else ""


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _milliseconds(value: float) -> str:
    if not math.isfinite(value):
        return _UNKNOWN
    return f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def _price(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}" if value < 10 else f"{value:,.2f}"


# The models -----------------------------------------------------------------------------------------------


def _models_lead(facts: Facts) -> str:
    lead = (
        "Over samples, each counted once, whatever the strategy. "
        "A strategy that stops on confidence can only be as good as these curves."
    )
    if facts.models_left_out:
        drawn = len(facts.models)
        lead += f" The {drawn} most accurate of {drawn + facts.models_left_out} models are drawn."
    return html.escape(lead)


def _models(facts: Facts) -> str:
    if not facts.labelled or not facts.models:
        return _absent("The samples carry no labels, so nobody can say how well confidence predicts truth.")
    curves = [m for m in facts.models if m.risk_coverage is not None]
    if not curves:
        return _absent("The models report labels without confidence: there is nothing to rank answers by.")
    ends = (f"{m.name} {_percent(m.risk_coverage.risk[-1])} over all" for m in curves if m.risk_coverage)
    risk = _figure(
        "risk",
        "Risk and coverage",
        "share wrong among the answers kept, when only the surest are kept",
        _plot("risk", "Share wrong among the surest answers: " + "; ".join(ends), "wide"),
    )
    panels = "".join(_reliability(position, m) for position, m in enumerate(facts.models))
    lead = (
        "Does a stated confidence come true? "
        "On the dotted line it does; below it the model is overconfident. "
        "ECE is the mean gap, over 15 bins; grey bars show where the answers are."
    )
    return f'{risk}<p class="lead second">{html.escape(lead)}</p><div class="small">{panels}</div>'


def _reliability(position: int, model: ModelFacts) -> str:
    right = "" if model.accuracy is None else f"right {_percent(model.accuracy)}"
    if model.reliability is None:
        if model.confidence is None:
            why = "reports labels without a confidence"
        else:
            why = "reports a confidence that is not within 0 to 1"
        return f"<figure><h3>{html.escape(model.name)}</h3><p>{right}; {why}</p></figure>"
    gap = _percent(model.reliability.calibration_error)
    label = f"Reliability of {model.name}: expected calibration error {gap}"
    return _figure(
        f"reliability-{position}",
        model.name,
        f"{right}, ECE {gap}",
        _plot(f"reliability-{position}", label, "mini"),
    )


# What the models bring to each other ----------------------------------------------------------------------


def _together(facts: Facts) -> str:
    found = facts.together
    if found is None:
        return _absent("It takes at least two models, and true labels, to say what models bring to each other.")
    head = "".join(f"<th>{html.escape(m)}</th>" for m in found.models)
    body = "".join(
        f'<tr><th scope="row">{html.escape(model)}</th>'
        + "".join(_alike(value, at == other) for other, value in enumerate(row))
        + "</tr>"
        for at, (model, row) in enumerate(zip(found.models, found.correlation, strict=True))
    )
    alike = (
        '<div class="panel flush"><div class="scroll" tabindex="0" role="region" aria-label="Correlation of errors">'
        f'<table class="matrix"><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        '<p class="note">Correlation of being wrong: 1 where two models err on the same samples, 0 where their errors '
        "are independent. Combining pays where it is low.</p></div>"
    )
    rows = "".join(
        f'<tr><th scope="row">{html.escape(model)}</th><td>{_percent(found.accuracy[at])}</td>'
        f"<td>{100 * found.only[at]:.2f} %</td><td>{_percent(found.vote[at])}</td>"
        f"<td>{_percent(found.covered[at])}</td>"
        f"<td>{_gained(found.gain_first[at])}</td><td>{_gained(found.gain_last[at])}</td></tr>"
        for at, model in enumerate(found.models)
    )
    brings = (
        '<div class="panel flush"><div class="scroll" tabindex="0" role="region" aria-label="What each model brings">'
        "<table><thead><tr><th>model, in this order</th><th>right</th><th>only it right</th><th>vote so far</th>"
        "<th>some model right</th><th>adds first</th><th>adds last</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
        '<p class="note">The last two columns: points of accuracy that the model adds to a plurality vote where it '
        f"joins first and where it joins last, over random orders of these models. Some model is right on "
        f"{_percent(found.any_right)} of {found.samples:,} samples: choosing one answer cannot do better.</p></div>"
    )
    return brings + alike


def _alike(value: float, itself: bool) -> str:
    if itself or math.isnan(value):
        return "<td></td>"
    return f'<td style="--alike:{max(0.0, value):.3f}">{value:.2f}</td>'


def _gained(gain: float) -> str:
    return f"{100 * gain:+.2f}"


# Provenance -----------------------------------------------------------------------------------------------


def _real(facts: Facts, notes: Mapping[str, str]) -> str:
    count = len(facts.models) + facts.models_left_out
    labels = "with true labels" if facts.labelled else "without labels"
    defaults = {
        "answers": f"recorded from {count} models on {facts.samples:,} samples, {labels}; none is simulated",
        "arrivals": "as the trace gives them; whether they were measured or drawn is not known here",
        "times": "service times, delays, bandwidths and prices are those that the network states",
        "waiting": "simulated from the arrivals and the service times"
        if facts.queues
        else "not simulated: every request is served as if the services were idle",
        "decisions": f"taken by the compiled code that also decides live; control is by {facts.control}",
    }
    items = defaults | dict(notes)
    return "\n".join(f"<dt>{html.escape(what)}</dt><dd>{html.escape(how)}</dd>" for what, how in items.items())
