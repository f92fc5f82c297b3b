"""The report in a real browser: it draws everything, asks the network for nothing, and complains about nothing.

Needs Chromium or Chrome, named by ``COINFER_CHROMIUM`` or found on PATH; skipped without one, unless
``COINFER_REQUIRE_BROWSER=1`` makes that an error.
"""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

import coinfer as ci
from coinfer.report import write

pytestmark = pytest.mark.browser

WIDTHS = {"desktop": 1280, "phone": 390}
DRAWN = "path.js-line, path.point, path.xerror, path.yerror, g.point > path, circle.node"


@pytest.fixture(scope="module")  # while it lives, an event loop runs in this thread, and no test may start its own
def browser():
    names = ("chromium", "chromium-browser", "google-chrome", "chrome", "chromium-headless-shell")
    executable = os.environ.get("COINFER_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    try:
        if executable is None:
            pytest.fail("no browser: set COINFER_CHROMIUM to a Chromium or Chrome, or put one on PATH")
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
            yield chromium
            chromium.close()
    except (pytest.fail.Exception, ImportError) as missing:
        if os.environ.get("COINFER_REQUIRE_BROWSER") == "1":
            raise
        pytest.skip(str(missing))


class Watched:
    """A page that remembers everything that a quiet page would not do."""

    def __init__(self, browser, path, width, scheme="light"):
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.complaints = []
        self.page.on("console", lambda m: self.complaints.append(f"{m.type}: {m.text}") if m.type != "log" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("request", self._request)
        self.page.goto(path.as_uri())
        self.page.wait_for_function("document.documentElement.dataset.drawn === 'true'")

    def _request(self, request):
        if not request.url.startswith(("file:", "data:")):
            self.complaints.append(f"request: {request.url}")

    def figures(self):
        return self.page.locator("[data-figure]").evaluate_all("all => all.map(f => f.dataset.figure)")

    def marks(self, figure):
        """Count the marks of a figure that cover something on the screen."""
        return self.page.locator(f'[data-figure="{figure}"]').evaluate(
            """(figure, drawn) => [...figure.querySelectorAll(drawn)].filter(mark => {
                const box = mark.getBoundingClientRect();
                return box.width + box.height > 1;
            }).length""",
            DRAWN,
        )

    def boxes(self, selector):
        return self.page.locator(selector).evaluate_all(
            "all => all.map(e => e.getBoundingClientRect()).map(b => [b.left, b.top, b.right, b.bottom])"
        )


@pytest.fixture
def watch(browser):
    opened = []

    def start(path, width=1280, scheme="light"):
        opened.append(Watched(browser, path, width, scheme))
        return opened[-1]

    yield start
    for watched in opened:
        watched.context.close()


def overlap(a, b):
    across = min(a[2], b[2]) - max(a[0], b[0])
    along = min(a[3], b[3]) - max(a[1], b[1])
    return max(across, 0) * max(along, 0)


def digits_report(folder):
    preds, net = ci.datasets.digits(), ci.datasets.demo_network()
    trace = ci.Trace.poisson(net, rate_rps=80, requests=20_000, samples=len(preds))
    strategies = {
        "Local": ci.Local(),
        "Remote(logistic)": ci.Remote(model="logistic"),
        "Remote(region)": ci.Remote("region"),
        "Remote(cloud)": ci.Remote("cloud"),
        "Forward(max_prob)": ci.Forward(score="max_prob", threshold=0.985),
        "Forward(margin)": ci.Forward(score="margin", threshold=0.98),
        "Forward(entropy)": ci.Forward(score="entropy", threshold=0.95),
        "SelectionOracle": ci.SelectionOracle(),
    }
    return write(ci.compare(trace, preds, net, strategies), folder / "digits.html", "Digits")


def crowd_report(folder):
    """Forty devices, links between neighbours, no prices, a model without confidence, and names that hurt."""
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, 300)
    z = rng.normal(size=(300, 4))
    z[np.arange(300), truth] += 2
    probs = (np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)).astype(np.float32)
    preds = ci.Predictions(
        {"a </script> model & its <b>name</b>": ci.ModelOutput(probs=probs), "plain": ci.ModelOutput(label=truth)},
        labels=truth,
    )
    devices = [f"device-{i:02}" for i in range(40)]
    net = ci.Network(
        nodes=(*(ci.Node(name, 0) for name in devices), ci.Node("edge", 1), ci.Node("cloud", 2)),
        links=(
            *(ci.Link((name, "edge"), delay_ms=1 + i / 10) for i, name in enumerate(devices)),
            ci.Link((devices[0], devices[1]), delay_ms=2),
            ci.Link(("edge", "cloud"), delay_ms=30, jitter_ms=2),
            ci.Link((devices[0], "cloud"), delay_ms=50),
        ),
        models=(),
        deployments=(
            *(ci.Deployment(preds.models[0], name) for name in devices),
            ci.Deployment("plain", "cloud", service=ci.service.Exponential(5.0)),
        ),
    )
    trace = ci.Trace.poisson(net, rate_rps=80, requests=3000, samples=300)
    strategies = {
        '<img src="x"> & a name that is really far too long for a label': ci.Local(),
        "cloud": ci.Remote("cloud"),
        **{f"forward at {t}": ci.Forward(score="max_prob", threshold=t) for t in np.linspace(0.4, 0.95, 10).round(3)},
    }
    return write(ci.compare(trace, preds, net, strategies), folder / "crowd.html", "A <crowd> & more")


def unlabelled_report(folder):
    preds = ci.Predictions({"s": ci.ModelOutput(label=[0, 1]), "l": ci.ModelOutput(label=[0, 1])})
    net = ci.Network.chain({"device": "s", "cloud": "l"}, delay_ms=10, service_ms=[1, 5])
    trace = ci.Trace.poisson(net, rate_rps=80, requests=100, samples=2)
    return write(ci.compare(trace, preds, net, {"here": ci.Local(), "there": ci.Remote("cloud")}), folder / "bare.html")


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    return {"digits": digits_report(folder), "crowd": crowd_report(folder), "bare": unlabelled_report(folder)}


FIGURES = {
    "digits": ["latency-accuracy", "price-accuracy", "network", "latency", "risk"]
    + [f"reliability-{k}" for k in range(4)],
    "crowd": ["latency-accuracy", "network", "latency", "risk", "reliability-0"],
    "bare": ["network", "latency"],
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("which", FIGURES)
def test_report_draws_every_figure_quietly(watch, reports, which, width, scheme):
    watched = watch(reports[which], width, scheme)
    assert watched.figures() == FIGURES[which]
    assert {name: watched.marks(name) for name in FIGURES[which] if watched.marks(name) < 1} == {}
    assert watched.complaints == []
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_labels_of_points_do_not_overlap(watch, reports, width):
    watched = watch(reports["digits"], width)
    for figure in ("latency-accuracy", "price-accuracy", "risk"):
        boxes = watched.boxes(f'[data-figure="{figure}"] .annotation-text-g')
        assert len(boxes) == (4 if figure == "risk" else 8)
        clashes = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if overlap(a, b) > 12]
        assert clashes == [], f"labels overlap in {figure}"


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_labels_of_the_network_do_not_overlap(watch, reports, width):
    watched = watch(reports["digits"], width)
    boxes = watched.boxes("#network text")
    (frame,) = watched.boxes("#network svg")
    clashes = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if overlap(a, b) > 12]
    assert clashes == []
    for box in boxes:
        assert box[0] >= frame[0] - 1
        assert box[2] <= frame[2] + 1
        assert box[3] <= frame[3] + 1


def test_choosing_a_strategy_redraws_the_network(watch, reports):
    watched = watch(reports["digits"])
    radii = "all => all.map(c => Number(c.getAttribute('r')))"
    watched.page.locator('[data-chips="network"] button', has_text="Local").click()
    local = watched.page.locator("circle.node").evaluate_all(radii)
    watched.page.locator('[data-chips="network"] button', has_text="Remote(cloud)").click()
    cloud = watched.page.locator("circle.node").evaluate_all(radii)
    assert len(local) == len(cloud) == 8
    assert local[:4] == pytest.approx([local[0]] * 4, rel=0.02), "each phone settles about a quarter"
    assert cloud[7] == pytest.approx(2 * local[0], rel=0.02), "four times the share is four times the area"
    assert local[7] == cloud[0] < local[0], "where nothing is settled stands a small ring"
    pressed = watched.page.locator('[data-chips="network"] button[aria-pressed="true"]')
    assert pressed.all_inner_texts() == ["Remote(cloud)"]
    assert watched.complaints == []


def test_a_change_of_theme_recolours_plots_and_network(watch, reports):
    watched = watch(reports["digits"])
    colours = """() => [
        document.querySelector('#plot-risk path.js-line').style.stroke,
        document.querySelector('#network circle.node').getAttribute('fill'),
        getComputedStyle(document.body).backgroundColor,
    ]"""
    light = watched.page.evaluate(colours)
    watched.page.emulate_media(color_scheme="dark")
    watched.page.wait_for_timeout(300)
    dark = watched.page.evaluate(colours)
    assert all(a != b for a, b in zip(light, dark, strict=True))
    assert watched.complaints == []


def test_a_change_of_width_draws_again(watch, reports):
    watched = watch(reports["digits"])
    watched.page.set_viewport_size({"width": 390, "height": 800})
    drawn = "document.querySelector('#plot-latency-accuracy svg.main-svg').getBoundingClientRect().width < 390"
    for _ in range(200):  # not wait_for_function: the page's own policy forbids eval
        if watched.page.evaluate(f"document.documentElement.scrollWidth <= 390 && {drawn}"):
            break
        watched.page.wait_for_timeout(100)
    else:
        pytest.fail("the report is wider than the window 20 s after the window shrank")
    (box,) = watched.boxes("#plot-latency-accuracy svg.main-svg >> nth=0")
    assert box[2] - box[0] < 390
    assert watched.complaints == []


def test_names_are_text_and_nothing_else(watch, reports):
    watched = watch(reports["crowd"])
    assert watched.page.locator("img").count() == 0
    assert watched.page.locator("#models h3 b").count() == 0
    assert watched.page.title() == "A <crowd> & more"
    assert watched.page.locator("#models h3", has_text="a </script> model & its <b>name</b>").count() == 1


def test_without_javascript_the_words_and_the_table_stand(browser, reports):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(reports["digits"].as_uri())
    assert page.locator("h1").inner_text().endswith(".")
    assert page.locator("#strategies tbody tr").count() == 8
    assert "99." in page.locator("#strategies tbody").inner_text()
    context.close()
