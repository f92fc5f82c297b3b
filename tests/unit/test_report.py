"""The report without a browser: its curves, its sentences, and what stands in the page."""

from __future__ import annotations

import dataclasses
import json
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import coinfer as ci
from coinfer import report
from coinfer.report._curves import reliability, risk_coverage
from coinfer.report._facts import Interval, StrategyFacts, collect
from coinfer.report._page import render
from coinfer.report._story import ratio_in_words, tell

SCRIPT = re.compile(r"<script[^>]*>.*?</script>", re.DOTALL)


def make_predictions(samples=400, labels=True, forms=("probs", "probs", "probs"), classes=("cat", "dog", "owl")):
    rng = np.random.default_rng(7)
    truth = rng.integers(0, 3, samples)
    outputs = {}
    for name, form, skill in zip(("small", "medium", "large"), forms, (1.0, 2.0, 4.0), strict=True):
        z = rng.normal(size=(samples, 3))
        z[np.arange(samples), truth] += skill
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        if form == "label":
            outputs[name] = ci.ModelOutput(label=p.argmax(axis=1), classes=classes)
        elif form == "label_confidence":
            outputs[name] = ci.ModelOutput(label=p.argmax(axis=1), confidence=10 * p.max(axis=1), classes=classes)
        else:
            outputs[name] = ci.ModelOutput(probs=p.astype(np.float32), classes=classes)
    return ci.Predictions(outputs, labels=truth if labels else None, classes=classes)


def make_network(price=1e-4):
    return ci.Network.chain(
        {"device": "small", "edge": "medium", "cloud": "large"},
        delay_ms=[5, 40],
        service_ms=[2, 5, 20],
        price_usd=[0, price / 10, price],
    )


def make_comparison(strategies=None, price=1e-4, requests=2000, **predictions):
    preds, net = make_predictions(**predictions), make_network(price)
    trace = ci.Trace.poisson(net, rate_rps=50, requests=requests, samples=len(preds))
    return ci.compare(
        trace,
        preds,
        net,
        strategies
        or {
            "here": ci.Local(),
            "cloud": ci.Remote("cloud"),
            "forward": ci.Forward(score="max_prob", threshold=0.9),
            "oracle": ci.SelectionOracle(),
        },
    )


@pytest.fixture(scope="module")
def comparison():
    return make_comparison()


def render_comparison(comparison, title="A title", notes=None):
    facts = collect(comparison)
    return render(facts, tell(facts), title, notes or {})


def without_scripts(page):
    return SCRIPT.sub("", page)


def facts_in(page):
    return json.loads(re.search(r'<script type="application/json" id="facts">(.*?)</script>', page, re.DOTALL)[1])


# Curves


def slow_risk_coverage(confidence, right):
    pairs = []
    for threshold in sorted(set(confidence), reverse=True):
        kept = [r for c, r in zip(confidence, right, strict=True) if c >= threshold]
        pairs.append((len(kept) / len(confidence), kept.count(False) / len(kept), threshold))
    return pairs


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=60))
def test_risk_coverage_is_every_threshold_and_no_other(rows):
    confidence = np.array([c / 5 for c, _ in rows], np.float32)
    right = np.array([r for _, r in rows])
    curve = risk_coverage(confidence, right)
    expected = slow_risk_coverage(confidence.astype(np.float64).tolist(), right.tolist())
    np.testing.assert_allclose(list(zip(curve.coverage, curve.risk, curve.threshold, strict=True)), expected)


def test_risk_coverage_is_thinned_with_both_ends_kept():
    confidence = np.linspace(0, 1, 5000, dtype=np.float32)
    curve = risk_coverage(confidence, np.ones(5000, bool), points=100)
    assert 90 <= len(curve.coverage) <= 100
    assert (curve.coverage[0], curve.coverage[-1]) == (1 / 5000, 1.0)


def test_risk_coverage_puts_unknown_confidence_last():
    curve = risk_coverage(np.float32([np.nan, 0.5]), np.array([False, True]))
    assert curve.coverage == [0.5, 1.0]
    assert curve.risk == [0.0, 0.5]


def test_risk_coverage_of_nothing_is_empty():
    assert risk_coverage(np.empty(0, np.float32), np.empty(0, bool)).coverage == []


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=80))
def test_calibration_error_matches_the_definition(rows):
    confidence = np.array([c for c, _ in rows], np.float32)
    right = np.array([r for _, r in rows])
    expected = 0.0
    for b in range(15):
        inside = [
            i for i, c in enumerate(confidence.astype(np.float64)) if (b < c * 15 <= b + 1) or (b == 0 and c == 0)
        ]
        if inside:
            gap = abs(confidence[inside].astype(np.float64).mean() - right[inside].mean())
            expected += len(inside) / len(rows) * gap
    found = reliability(confidence, right)
    assert found.calibration_error == pytest.approx(expected, abs=1e-9)
    assert sum(found.share) == pytest.approx(1.0)
    assert all(low <= a <= high for low, a, high in zip(found.low, found.accuracy, found.high, strict=True))


def test_reliability_leaves_unknown_confidence_out():
    found = reliability(np.float32([np.nan, 0.95]), np.array([False, True]))
    assert found.accuracy == [1.0]
    assert found.calibration_error == pytest.approx(0.05, abs=1e-6)


# Sentences


def strategy(name, accuracy, latency, price, kind="cooperative", half=0.01):
    interval = None if accuracy is None else Interval(accuracy, accuracy - half, accuracy + half, 1000.0)
    return StrategyFacts(
        name=name,
        rule=name,
        kind=kind,
        accuracy=interval,
        goodput=accuracy,
        latency_ms={"mean": latency, "p50": latency, "p95": latency, "p99": latency},
        price_usd_per_1000=price,
        stages=1.0,
        settled_by_node={"device": 1.0, "edge": 0.0, "cloud": 0.0},
        settled_by_tier=(1.0, 0.0, 0.0),
        status={"answered": 10},
        fast_and_right=False,
        cheap_and_right=False,
        latency_ms_quantiles=(latency, latency),
    )


def story(comparison, *strategies, labelled=True):
    facts = dataclasses.replace(collect(comparison), strategies=strategies, labelled=labelled)
    return tell(facts)


CLOUD = strategy("cloud", 0.98, 100, 10.0, "single")
PHONE = strategy("phone", 0.80, 5, 0.0, "single")


def test_headline_names_the_best_bargain(comparison):
    told = story(comparison, PHONE, CLOUD, strategy("a", 0.978, 50, 5.0), strategy("b", 0.979, 40, 3.0))
    assert (
        told.headline
        == "b comes within 0.1 points of the accuracy of cloud, at 40 % of its mean latency and 30 % of its price."
    )
    assert told.shown_first == "b"
    assert "98.0 %" in told.details[0]
    assert "overlap" in told.details[0]


def test_headline_says_as_accurate_only_where_it_is(comparison):
    assert "is as accurate as cloud" in story(comparison, CLOUD, strategy("a", 0.98, 50, 5.0)).headline
    assert "0.4 points more accurate than cloud" in story(comparison, CLOUD, strategy("a", 0.984, 50, 5.0)).headline


def test_headline_admits_that_nothing_is_worth_it(comparison):
    told = story(comparison, PHONE, CLOUD, strategy("a", 0.97, 50, 5.0))
    assert told.headline.startswith("Nothing here replaces cloud")
    assert told.shown_first == "cloud"


def test_a_saving_that_costs_more_of_the_other_is_no_bargain(comparison):
    assert "Nothing" in story(comparison, CLOUD, strategy("a", 0.98, 120, 5.0)).headline
    assert "Nothing" in story(comparison, CLOUD, strategy("a", 0.98, 90, 11.0)).headline


def test_headline_tells_that_higher_accuracy_has_its_price(comparison):
    told = story(comparison, CLOUD, strategy("ensemble", 0.99, 150, 20.0))
    assert (
        told.headline
        == "ensemble is 1.0 points more accurate than cloud, but at 150 % of its mean latency and 200 % of its price."
    )


def test_the_oracle_is_never_the_finding(comparison):
    told = story(comparison, CLOUD, strategy("oracle", 0.999, 10, 0.1, "oracle"))
    assert "oracle" not in told.headline
    assert "oracle" not in told.shown_first
    assert any("99.9 %" in line for line in told.details)
    assert "Only an oracle" in story(comparison, strategy("oracle", 0.999, 10, 0.1, "oracle")).headline


def test_without_labels_the_headline_claims_no_accuracy(comparison):
    plain = [dataclasses.replace(s, accuracy=None, goodput=None) for s in (PHONE, CLOUD)]
    told = story(comparison, *plain, labelled=False)
    assert told.headline.startswith("phone is the fastest and the cheapest")
    assert "nobody knows how often it is right" in told.headline


def test_free_strategies_are_compared_without_dividing_by_zero(comparison):
    free = strategy("cloud", 0.98, 100, 0.0, "single")
    told = story(comparison, free, strategy("a", 0.98, 50, 0.0))
    assert told.headline == "a is as accurate as cloud, at 50 % of its mean latency and the same price."
    assert ratio_in_words(1.0, 0.0) == "more than"


def test_single_strategy_has_a_plain_headline(comparison):
    assert story(comparison, CLOUD).headline == "cloud is right on 98.0 % of requests."


# Facts


def test_facts_are_those_of_the_summaries(comparison):
    facts = collect(comparison)
    assert [s.name for s in facts.strategies] == list(comparison.runs)
    assert [s.kind for s in facts.strategies] == ["single", "single", "cooperative", "oracle"]
    for s in facts.strategies:
        summary = comparison[s.name].summary
        assert s.accuracy.value == summary.accuracy
        assert s.latency_ms["p99"] == pytest.approx(summary.latency_us.p99 / 1e3)
        assert s.price_usd_per_1000 == pytest.approx(1e3 * summary.price_usd)
        assert sum(s.settled_by_tier) == pytest.approx(1.0)
    front = {s.name for s in facts.strategies if s.fast_and_right}
    assert front == set(comparison.pareto("latency"))
    assert [tier.name for tier in facts.tiers] == ["device", "edge", "cloud"]


def test_one_stage_is_a_single_model_whatever_the_strategy_is_called():
    facts = collect(
        make_comparison({"edge": ci.Forward(models=("medium",), threshold=0.0), "on": ci.Forward(threshold=0.5)})
    )
    assert [s.kind for s in facts.strategies] == ["single", "cooperative"]


def test_tiers_are_named_after_what_their_nodes_share():
    facts = collect_network(
        [("phone-1", 0), ("phone-2", 0), ("edge a", 1), ("edge b", 1), ("x", 2), ("y", 2), ("cloud", 3)]
    )
    assert [tier.name for tier in facts.tiers] == ["phone", "edge", "tier 2", "cloud"]
    assert [tier.nodes for tier in facts.tiers] == [2, 2, 2, 1]


def collect_network(nodes):
    net = ci.Network(
        nodes=tuple(ci.Node(name, tier) for name, tier in nodes),
        links=tuple(ci.Link((a, b), delay_ms=1.0) for (a, _), (b, _) in pairwise(nodes)),
        models=(),
        deployments=tuple(ci.Deployment("small", name) for name, _ in nodes),
    )
    preds = make_predictions(samples=50)
    trace = ci.Trace.poisson(net, rate_rps=5, requests=100, samples=50)
    return collect(ci.compare(trace, preds, net, {"here": ci.Local()}))


# The page


def test_page_is_self_contained(comparison):
    page = render_comparison(comparison)
    text = without_scripts(page)
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:)""", text)
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text
    assert facts_in(page)["strategies"][0]["name"] == "here"
    assert not re.search(r"@[a-z-]+@", text), "a marker of the template was left unfilled"


def test_numbers_stand_in_the_table_without_javascript(comparison):
    text = without_scripts(render_comparison(comparison))
    for name, summary in comparison.summaries.items():
        assert f">{name}<" in text
        assert f"{100 * summary.accuracy:.1f} %" in text
        assert f"{summary.latency_us.p99 / 1e3:.1f}" in text


def test_names_cannot_break_out_of_the_page():
    evil = "</script><script>alert('x')</script>@css@ & \"q\""
    page = render_comparison(
        make_comparison({evil: ci.Local(), "cloud": ci.Remote("cloud")}), title=evil, notes={evil: evil}
    )
    assert "<script>alert(" not in page
    assert facts_in(page)["strategies"][0]["name"] == evil


def test_without_labels_the_page_says_so_in_words():
    strategies = {"here": ci.Local(), "cloud": ci.Remote("cloud")}
    text = without_scripts(render_comparison(make_comparison(strategies, labels=False)))
    assert "accuracy is unknown" in text
    assert "nobody can say how well confidence predicts truth" in text
    assert 'id="plot-latency-accuracy"' not in text
    assert 'id="plot-risk"' not in text
    assert 'id="plot-latency"' in text


def test_without_prices_the_page_says_so_in_words():
    text = without_scripts(render_comparison(make_comparison(price=0.0)))
    assert "states no prices" in text
    assert 'id="plot-price-accuracy"' not in text
    assert 'id="plot-latency-accuracy"' in text


def test_models_without_confidence_are_said_to_have_none():
    strategies = {"here": ci.Local(), "cloud": ci.Remote("cloud")}
    only_labels = make_comparison(strategies, forms=("label", "label", "label"))
    assert "labels without confidence" in without_scripts(render_comparison(only_labels))
    mixed = make_comparison(strategies, forms=("label", "label_confidence", "probs"))
    text = without_scripts(render_comparison(mixed))
    assert "reports labels without a confidence" in text
    assert "not within 0 to 1" in text
    assert 'id="plot-risk"' in text
    assert 'id="plot-reliability-2"' in text


def test_many_models_are_cut_and_the_cut_is_said():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 60)
    outputs = {
        f"m{i}": ci.ModelOutput(label=np.where(rng.random(60) < 0.5 + i / 30, truth, 1 - truth)) for i in range(12)
    }
    preds = ci.Predictions(outputs, labels=truth)
    net = ci.Network.chain({"device": "m0", "cloud": "m11"}, delay_ms=1)
    trace = ci.Trace.poisson(net, rate_rps=5, requests=100, samples=60)
    facts = collect(ci.compare(trace, preds, net, {"here": ci.Local()}))
    assert len(facts.models) == 8
    assert facts.models_left_out == 4
    assert "The 8 most accurate of 12 models are drawn." in render(facts, tell(facts), "t", {})


def test_notes_replace_what_the_report_says_of_itself(comparison):
    text = without_scripts(render_comparison(comparison, notes={"arrivals": "measured in a shop", "weather": "fine"}))
    assert "<dt>arrivals</dt><dd>measured in a shop</dd>" in text
    assert "<dt>weather</dt><dd>fine</dd>" in text
    assert "whether they were measured or drawn" not in text


def test_requests_that_were_not_simply_answered_are_counted():
    preds, net = make_predictions(), make_network()
    trace = ci.Trace.poisson(net, rate_rps=50, requests=500, samples=len(preds), deadline_us=50_000)
    run = ci.compare(trace, preds, net, {"cloud": ci.Remote("cloud"), "here": ci.Local()})
    text = without_scripts(render_comparison(run))
    status = run["cloud"].summary.status
    unanswered = {name: count for name, count in status.items() if count and name != "answered"}
    assert unanswered, "the deadline of this test must be missed"
    assert "Not simply answered: cloud: " + ", ".join(f"{count:,} {name}" for name, count in unanswered.items()) in text


def test_written_whole_or_not_at_all(comparison, tmp_path):
    target = tmp_path / "report.html"
    assert comparison.report(target, title="One") == target
    assert target.read_text("utf-8").startswith("<!doctype html>")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(ci.BadFileError, match="cannot be written"):
        report.write(comparison, tmp_path / "no such folder" / "report.html")


def test_finding_is_the_headline(comparison):
    assert report.finding(comparison) == tell(collect(comparison)).headline


def test_what_the_models_bring_to_each_other_is_shown(comparison):
    found = ci.diversity(comparison.predictions)
    page = without_scripts(render_comparison(comparison))
    section = page[page.index('<section id="together">') : page.index('<section id="real">')]
    assert f"{100 * found.only['medium']:.2f} %" in section
    assert f">{found.correlation[0, 2]:.2f}</td>" in section
    assert section.count("<tr>") == 2 * 4


def test_without_labels_nothing_is_said_about_what_models_bring():
    here = {"here": ci.Local()}
    page = without_scripts(render_comparison(make_comparison(here, labels=False)))
    assert "to say what models bring to each other" in page


def test_a_network_where_nothing_takes_time_has_no_figure_of_latency():
    preds = make_predictions()
    net = ci.Network.chain({"device": "small", "edge": "medium", "cloud": "large"}, price_usd=[0, 1e-5, 1e-4])
    trace = ci.Trace.poisson(net, rate_rps=50, requests=500, samples=len(preds))
    page = without_scripts(render_comparison(ci.compare(trace, preds, net, {"a": ci.Local(), "b": ci.Remote("cloud")})))
    assert "plot-latency" not in page
    assert page.count("nothing takes any time") == 2
    assert 'id="plot-price-accuracy"' in page
