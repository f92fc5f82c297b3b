"""Draw docs/outage.png and print the figures of docs/queues.md: a cloud that is down for ten seconds of forty.

``python bench/outage_picture.py [PICTURE.png]``. The digits ladder of `coinfer demo`, 150 requests per second, half a
second for each. The picture needs Chromium or Chrome, named by COINFER_CHROMIUM or found on PATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from plotly.subplots import make_subplots

import coinfer as ci

SECONDS, RATE_RPS, DEADLINE_US = 40, 150, 500_000.0
OUTAGE = ci.Outage(node="cloud", from_ms=15_000, to_ms=25_000)
STRATEGIES = {
    "cloud alone": (ci.Remote("cloud"), "#b3401f"),
    "forward": (ci.Forward(score="max_prob", thresholds=[0.97, 0.97]), "#2a5f9e"),
}


def rehearsed(strategy):
    """Give the run; per half second of arrivals, the share right in time and the mean latency of answers, ms."""
    preds = ci.datasets.digits()
    net = ci.Network.chain(
        {"device": "tree", "edge": "mlp", "cloud": "ensemble"},
        delay_ms=[5, 40],
        service_ms=[2, 5, 10],
        price_usd=[0, 1e-6, 1e-5],
        instances=[2, 4, 8],
    )
    trace = ci.Trace.poisson(net, rate_rps=RATE_RPS, requests=RATE_RPS * SECONDS, samples=len(preds), seed=1)
    hurry = np.full(len(trace), DEADLINE_US)
    trace = ci.Trace(trace.arrival_ns, trace.ingress, trace.sample, nodes=trace.nodes, deadline_us=hurry)
    run = ci.replay(trace, preds, net, strategy, outages=[OUTAGE])
    out = run.outcomes()
    window = (trace.arrival_ns // 500_000_000).astype(int)
    correct = out["correct"].to_numpy(zero_copy_only=False).astype(float) > 0
    answered = np.isin(out["status"].to_numpy(zero_copy_only=False), ("answered", "degraded"))
    with np.errstate(invalid="ignore"):  # no answer at all: a gap
        latency = np.bincount(window, out["latency_us"].to_numpy() * answered / 1e3) / np.bincount(window, answered)
    return run, (np.bincount(window, correct) / np.bincount(window))[:-1], latency[:-1]


def main() -> None:
    picture = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/outage.png").resolve()
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    for name, (strategy, colour) in STRATEGIES.items():
        run, right, latency = rehearsed(strategy)
        sys.stdout.write(f"{run}\n")
        style = {"name": name, "line": {"color": colour, "width": 2}, "x": np.arange(len(right)) / 2}
        figure.add_scatter(y=right, row=1, col=1, **style)
        figure.add_scatter(y=latency, row=2, col=1, showlegend=False, **style)
    down = {
        "x0": OUTAGE.from_ms / 1e3,
        "x1": OUTAGE.to_ms / 1e3,
        "fillcolor": "#c3c9d0",
        "opacity": 0.4,
        "line_width": 0,
    }
    figure.add_vrect(**down, row="all", col=1)
    figure.update_yaxes(title_text="right within 0.5 s", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title_text="latency of answers, ms", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(title_text="arrival, s (grey: the cloud is down)", row=2, col=1)
    figure.update_layout(template="plotly_white", width=900, height=420, margin={"l": 70, "r": 20, "t": 20, "b": 50})
    names = ("chromium", "chromium-browser", "google-chrome", "chrome", "chromium-headless-shell")
    browser = os.environ.get("COINFER_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        sys.exit("no browser: set COINFER_CHROMIUM to a Chromium or Chrome, or put one on PATH")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        figure.write_html(page, config={"displayModeBar": False})
        options = [
            "--headless",
            "--no-sandbox",
            "--hide-scrollbars",
            "--window-size=916,436",
            f"--user-data-dir={folder}",
        ]
        subprocess.run(
            [browser, *options, f"--screenshot={picture}", page.as_uri()], check=True, stderr=subprocess.DEVNULL
        )


if __name__ == "__main__":
    main()
