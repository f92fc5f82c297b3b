"""What every report has in common: one HTML file that holds its data, its style, its script and the plotting library.

Nothing is fetched when it is opened; a content security policy in the page forbids it, so that a report can
be sent to somebody without telling a third party when it is read.
"""

from __future__ import annotations

import html
import json
import math
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["frame"]


def frame(
    body: str,
    script: str,
    *,
    title: str,
    headline: str,
    details: Iterable[str],
    facts: Mapping[str, Any],
    footer: str,
    parts: Mapping[str, str],
) -> str:
    """Make the page of a report.

    Parameters
    ----------
    body, script : str
        Names of the files with its sections and with the program that draws its figures.
    title, headline, details, footer : str, str, iterable of str, str
        Plain text; the footer is put after the version.
    facts : mapping
        What the program draws; NaN and infinities become null.
    parts : mapping of str to str
        HTML for the markers, ``@name@``, of the sections.

    Returns
    -------
    str
        HTML, several megabytes because it holds the plotting library.
    """
    from plotly.offline import get_plotlyjs

    import coinfer

    here = resources.files("coinfer.report")
    data = json.dumps(_finite(facts), separators=(",", ":"), allow_nan=False)
    outer = {
        "version": coinfer.__version__,
        "title": html.escape(title),
        "headline": html.escape(headline),
        "details": "\n".join(f'<p class="detail">{html.escape(line)}</p>' for line in details),
        "css": here.joinpath("page.css").read_text("utf-8"),
        "body": _fill(here.joinpath(body).read_text("utf-8"), parts),
        "js": here.joinpath(script).read_text("utf-8"),
        "facts": data.replace("<", "\\u003c"),
        "plotly": get_plotlyjs(),
        "footer": html.escape(f"Written by coinfer {coinfer.__version__}. {footer}"),
    }
    return _fill(here.joinpath("frame.html").read_text("utf-8"), outer)


def _fill(template: str, parts: Mapping[str, str]) -> str:
    """Put the parts in the place of their markers, ``@name@``."""
    pieces = template.split("@")
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
