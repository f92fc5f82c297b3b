"""The finding in words: what was compared, and the best that can honestly be said about it.

The rule is fixed in advance, so that the sentence cannot be flattered by choosing after looking: the
reference is the most accurate strategy that asks a single model; a cooperative strategy is *worth it* if it
is hardly less accurate (at most half a percentage point) and costs less latency or money without costing more
of the other. Among those, the one with the smallest product of the two ratios is named. Both accuracies are
always given, and where the intervals overlap the sentence says that the samples cannot tell them apart. Where
nothing is worth it, the sentence says that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coinfer.report._facts import Facts, StrategyFacts

__all__ = ["Story", "ratio_in_words", "tell"]

ACCURACY_LOSS_MAX = 0.005


@dataclass(frozen=True)
class Story:
    """The headline, the sentences below it, and the strategy that the figures should show first."""

    headline: str
    details: tuple[str, ...]
    shown_first: str


def tell(facts: Facts) -> Story:
    """Find the best honest sentence about a comparison.

    Parameters
    ----------
    facts : Facts
        What `collect` gathered.

    Returns
    -------
    Story
        Without labels, it speaks of latency and price only, and says that accuracy is unknown.
    """
    real = [s for s in facts.strategies if s.kind != "oracle"]
    if not real:
        oracle = facts.strategies[0]
        return Story("Only an oracle was replayed; there is nothing to compare it with.", _about(facts), oracle.name)
    if not facts.labelled:
        return _without_labels(facts, real)
    single = [s for s in real if s.kind == "single"] or real
    reference = max(single, key=lambda s: (_accuracy(s), -s.price_usd_per_1000, -s.latency_ms["mean"]))
    rivals = [s for s in real if s is not reference and _worth_it(s, reference)]
    if rivals:
        best = min(rivals, key=lambda s: (_gain(s, reference), -_accuracy(s)))
        headline = _comparison(best, reference)
        shown = best
    else:
        headline = _nothing_better(real, reference)
        shown = reference
    details = [*_resolution(shown, reference, facts), *_room_left(shown, facts), *_about(facts)]
    return Story(headline, tuple(details), shown.name)


def _accuracy(strategy: StrategyFacts) -> float:
    return -1.0 if strategy.accuracy is None else strategy.accuracy.value


def _costs(strategy: StrategyFacts) -> tuple[float, float]:
    return strategy.latency_ms["mean"], strategy.price_usd_per_1000


def _worth_it(rival: StrategyFacts, reference: StrategyFacts) -> bool:
    cost, limit = _costs(rival), _costs(reference)
    return (
        _accuracy(rival) >= _accuracy(reference) - ACCURACY_LOSS_MAX
        and all(c <= r for c, r in zip(cost, limit, strict=True))
        and cost != limit
    )


def _gain(rival: StrategyFacts, reference: StrategyFacts) -> float:
    product = 1.0
    for cost, limit in zip(_costs(rival), _costs(reference), strict=True):
        product *= max(cost, 1e-9 * limit) / limit if limit > 0 else 1.0
    return product


def ratio_in_words(value: float, reference: float) -> str:
    """Say how large one cost is beside another.

    Examples
    --------
    >>> ratio_in_words(41, 100), ratio_in_words(0, 100), ratio_in_words(99.8, 100), ratio_in_words(0.2, 100)
    ('41 % of', 'none of', 'the same as', '0.2 % of')
    """
    if reference <= 0:
        return "the same as" if value <= 0 else "more than"
    share = 100 * value / reference
    if share == 0:
        return "none of"
    if 99.5 <= share < 100.5:
        return "the same as"
    return f"{share:.0f} % of" if share >= 1 else f"{share:.1g} % of"


def _costs_in_words(rival: StrategyFacts, reference: StrategyFacts) -> str:
    words = []
    for what, cost, limit in zip(("mean latency", "price"), _costs(rival), _costs(reference), strict=True):
        share = ratio_in_words(cost, limit)
        if share == "the same as":
            words.append(f"the same {what}")
        elif share == "none of":
            words.append(f"no {what}")
        else:
            words.append(f"{share} its {what}")
    return " and ".join(words)


def _comparison(best: StrategyFacts, reference: StrategyFacts) -> str:
    loss = 100 * (_accuracy(reference) - _accuracy(best))
    if abs(loss) < 0.05:
        accurate = f"is as accurate as {reference.name}"
    elif loss < 0:
        accurate = f"is {-loss:.1f} points more accurate than {reference.name}"
    else:
        accurate = f"comes within {loss:.1f} points of the accuracy of {reference.name}"
    return f"{best.name} {accurate}, at {_costs_in_words(best, reference)}."


def _nothing_better(real: list[StrategyFacts], reference: StrategyFacts) -> str:
    others = [s for s in real if s is not reference]
    if not others:
        return f"{reference.name} is right on {100 * _accuracy(reference):.1f} % of requests."
    top = max(others, key=_accuracy)
    if _accuracy(top) > _accuracy(reference):
        costs = _costs_in_words(top, reference)
        lead = 100 * (_accuracy(top) - _accuracy(reference))
        return f"{top.name} is {lead:.1f} points more accurate than {reference.name}, but at {costs}."
    return (
        f"Nothing here replaces {reference.name}: no other strategy comes within half a point "
        "of its accuracy without costing more."
    )


def _resolution(shown: StrategyFacts, reference: StrategyFacts, facts: Facts) -> list[str]:
    a, b = shown.accuracy, reference.accuracy
    if a is None or b is None:
        return []
    interval = f"95 % interval {_percent(a.low)} to {_percent(a.high)}"
    own = f"{shown.name} is right on {_percent(a.value)} of requests ({interval})"
    if shown is reference:
        return [own + "."]
    other = f"{reference.name} on {_percent(b.value)} ({_percent(b.low)} to {_percent(b.high)})"
    overlap = a.low <= b.high and b.low <= a.high
    verdict = (
        f"the intervals overlap: on {facts.samples:,} samples the difference may be chance"
        if overlap
        else "the intervals do not overlap"
    )
    return [f"{own}, {other}; {verdict}."]


def _room_left(shown: StrategyFacts, facts: Facts) -> list[str]:
    oracle = next((s for s in facts.strategies if s.kind == "oracle" and s.accuracy is not None), None)
    if oracle is None or oracle.accuracy is None:
        return []
    bound = (
        "Someone who knew every label and always picked a model that is right would reach "
        f"{_percent(oracle.accuracy.value)} at {oracle.latency_ms['mean']:.1f} ms: the most that choosing "
        "one model's answer can give. Averaging several answers may exceed it."
    )
    return [bound]


def _about(facts: Facts) -> tuple[str, ...]:
    counts = (
        _count(len(facts.strategies), "strategy", "strategies"),
        f"{_count(facts.requests, 'request')} over {_count(facts.samples, 'sample')}",
        f"{_count(len(facts.nodes), 'node')} in {_count(len(facts.tiers), 'tier')}",
    )
    return (", ".join(counts) + ".",)


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _without_labels(facts: Facts, real: list[StrategyFacts]) -> Story:
    fast = min(real, key=lambda s: s.latency_ms["mean"])
    cheap = min(real, key=lambda s: (s.price_usd_per_1000, s.latency_ms["mean"]))
    if fast is cheap:
        best, they = f"{fast.name} is the fastest and the cheapest", "it is"
    else:
        best, they = f"{fast.name} is the fastest and {cheap.name} the cheapest", "they are"
    headline = f"{best}; the samples carry no labels, so nobody knows how often {they} right."
    return Story(headline, _about(facts), fast.name)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
