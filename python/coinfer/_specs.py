"""Strategies as a person types them, and the set that a comparison takes if nobody says.

The grammar is kept so small that it needs no quoting in a shell::

    local                        answer where the request arrives
    local:MODEL                  ... with that model, where several stand there
    remote:NODE, remote:NODE:MODEL
    forward:SCORE                thresholds to be tuned
    forward:SCORE:0.9            one threshold for all stages
    forward:SCORE:0.9,0.8        one per stage but the last
    forward:SCORE:any            to be tuned, and tiers may be left out
    forward:SCORE:each           to be tuned, one per stage but the last
    gain:ALPHA                   a wrong answer is worth ALPHA ms of delay; to be fitted
    gain:ALPHA,MS                ... and a dollar is worth MS ms
    router:ALPHA                 by the first model's label, as worth it; to be fitted
    router:ALPHA,MS:MODEL        ... and that model is the first
    ensemble:HOW                 all models at once: mean, logpool, vote; boost and stack are to be fitted
    sequential:HOW:STOP          one by one: vote, mean or logpool; decided, probable, qwyc or empirical
    sequential:HOW:STOP:DELTA    ... and how often the answer may differ from that of all
    sequential:HOW:STOP:ORDER    path, price, accuracy, random or learned; after DELTA, if that is given too
    agreement:N                  tier by tier, until N members agree (a whole number), or that share of them (0.75)
    oracle                       the bound on selecting one model's answer
    file.toml                    a strategy file

each optionally named, as in ``mine=forward:margin:0.9``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from coinfer.errors import BadValueError, UnknownNameError, UnsupportedError, nearest
from coinfer.strategy import (
    Agreement,
    Ensemble,
    ExpectedGain,
    Forward,
    Local,
    Remote,
    Router,
    SelectionOracle,
    Sequential,
    Strategy,
)
from coinfer.strategy.forward import ANY, EACH

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from coinfer.network import Network
    from coinfer.predictions import Predictions

__all__ = ["default_strategies", "named", "parse", "tune_all", "untuned"]

KINDS = ("local", "remote", "forward", "gain", "router", "ensemble", "sequential", "agreement", "oracle")


def parse(spec: str) -> tuple[str, Strategy]:
    """Read one strategy.

    Parameters
    ----------
    spec : str
        As above.

    Returns
    -------
    (str, Strategy)
        Its name and what it is; a `Forward` without thresholds is still to be tuned.

    Raises
    ------
    CoinferError
        If it cannot be read; the message quotes it.

    Examples
    --------
    >>> name, strategy = parse("forward:margin:0.9,0.8")
    >>> name, strategy.thresholds
    ('Forward(margin, 0.9/0.8)', (0.9, 0.8))
    """
    name, separator, rest = spec.partition("=")
    strategy = _strategy(rest if separator else spec, spec)
    return (name if separator and name else strategy.name), strategy


def _strategy(text: str, spec: str) -> Strategy:
    if text.endswith(".toml"):
        return Strategy.open(text)
    kind, *parts = text.split(":")
    forms = {
        "local": (0, 1, "local or local:MODEL"),
        "remote": (1, 2, "remote:NODE or remote:NODE:MODEL"),
        "forward": (0, 2, "forward:SCORE, forward:SCORE:0.9, forward:SCORE:0.9,0.8 or forward:SCORE:any"),
        "gain": (1, 1, "gain:ALPHA or gain:ALPHA,MS_PER_USD"),
        "router": (1, 2, "router:ALPHA, router:ALPHA,MS_PER_USD or router:ALPHA:MODEL"),
        "ensemble": (0, 1, "ensemble:mean, ensemble:logpool, ensemble:vote, ensemble:boost or ensemble:stack"),
        "sequential": (0, 4, "sequential:HOW:STOP, then :DELTA, :ORDER or both, as in sequential:vote:qwyc:0.01"),
        "agreement": (1, 1, "agreement:N, as in agreement:2 or agreement:0.75"),
        "oracle": (0, 0, "oracle"),
    }
    if kind not in forms:
        msg = f"strategy {spec!r}: there is no kind {kind!r}; {nearest(kind, KINDS)}, or a file *.toml"
        raise UnknownNameError(msg)
    least, most, form = forms[kind]
    if not least <= len(parts) <= most or not all(parts):
        msg = f"strategy {spec!r} cannot be read: write {form}"
        raise BadValueError(msg)
    try:
        if kind == "local":
            return Local(*parts)
        if kind == "remote":
            return Remote(*parts)
        if kind == "ensemble":
            return Ensemble(parts[0] if parts else "mean")
        if kind == "sequential":
            return _sequential(*parts)
        if kind == "agreement":
            return Agreement(at_least=int(parts[0]) if parts[0].isdigit() else _numbers(parts[0], "N")[0])
        if kind == "oracle":
            return SelectionOracle()
        if kind == "gain":
            alpha, ms_per_usd = _worth(parts[0])
            return ExpectedGain(alpha, ms_per_usd)
        if kind == "router":
            alpha, ms_per_usd = _worth(parts[0])
            return Router(*parts[1:], alpha=alpha, ms_per_usd=ms_per_usd)
        return _forward(*parts)
    except (BadValueError, UnknownNameError, UnsupportedError) as error:
        msg = f"strategy {spec!r}: {error}"
        raise type(error)(msg) from None


def _forward(score: str = "max_prob", thresholds: str = "") -> Forward:
    if not thresholds:
        return Forward(score=score)
    if thresholds == ANY:
        return Forward(score=score, models=ANY)
    if thresholds == EACH:
        return Forward(score=score, thresholds=EACH)
    values = _numbers(thresholds, "thresholds")
    return Forward(score=score, threshold=values[0]) if len(values) == 1 else Forward(score, tuple(values))


def _sequential(how: str = "vote", stop: str = "decided", *more: str) -> Sequential:
    delta, order = None, "path"
    for at, word in enumerate(more):
        if at == 0 and word[:1] in "0123456789.":
            (delta,) = _numbers(word, "DELTA")[:1]
        elif at + 1 == len(more):
            order = word
        else:
            msg = f"after STOP come DELTA, ORDER or both in this order, not {':'.join(more)!r}"
            raise BadValueError(msg)
    return Sequential(how, stop, order, delta)


def _worth(worth: str) -> tuple[float, float]:
    numbers = _numbers(worth, "ALPHA and MS_PER_USD")
    if len(numbers) > 2:
        msg = f"at most two numbers, ALPHA and MS_PER_USD, not {worth!r}"
        raise BadValueError(msg)
    return numbers[0], numbers[1] if len(numbers) == 2 else 0.0


def _numbers(text: str, what: str) -> list[float]:
    try:
        return [float(value) for value in text.split(",")]
    except ValueError:
        msg = f"{what} must be numbers with commas between them, not {text!r}"
        raise BadValueError(msg) from None


def named(specs: Iterable[str]) -> dict[str, Strategy]:
    """Read several strategies, by name; two of one name are an error."""
    strategies: dict[str, Strategy] = {}
    for spec in specs:
        name, strategy = parse(spec)
        if name in strategies:
            msg = f"two strategies are called {name!r}: name one of them, as in 'other={spec}'"
            raise BadValueError(msg)
        strategies[name] = strategy
    return strategies


def untuned(strategy: Strategy) -> bool:
    """Say whether the strategy is a template: its threshold has yet to be found, or its rule to be fitted."""
    if not strategy.fitted:
        return True
    if not isinstance(strategy, Forward) or strategy.threshold is not None or strategy.by_ingress is not None:
        return False
    if strategy.stop is not None:
        return False
    return strategy.thresholds is None or strategy.thresholds == EACH


def default_strategies(predictions: Predictions, network: Network) -> dict[str, Strategy]:
    """Choose what is worth comparing on any network.

    Every single tier on its own; with labels also forwarding on each score that all models offer (to be tuned),
    expected gain (to be fitted), where a wrong answer is worth ten times the delay of the last tier, and the
    oracle.
    """
    strategies = _single(network)
    if len(network.tiers) < 2 or predictions.labels is None:
        return strategies
    forms = [predictions[d.model].form for d in network.deployments if d.model in predictions]
    if all(form in ("probs", "logits") for form in forms):
        scores = ["max_prob", "margin", "entropy"]
    elif "label" in forms:
        scores = []
    else:
        scores = ["confidence"]
    templates: list[Strategy] = [Forward(score=score) for score in scores]
    if len(network.tiers) > 2:  # With more than one way up, also let the tuning leave tiers out.
        templates += [Forward(score=score, models=ANY) for score in scores[:1]]
    gain = _expected_gain(predictions, network, scores)
    strategies |= {template.name: template for template in [*templates, *gain]}
    return strategies | {"SelectionOracle": SelectionOracle()}


def _expected_gain(predictions: Predictions, network: Network, scores: list[str]) -> list[Strategy]:
    from coinfer.compiling import Compiler

    if not scores:
        return []
    compiler = Compiler(predictions, network)
    spec = Forward(score=scores[0], threshold=0.0).plan(network, network.ingress[0])
    latency_ns, _ = compiler.settling(spec, network.ingress[0])
    alpha = float(f"{10 * np.mean(latency_ns[-1]) / 1e6:.0e}")
    return [ExpectedGain(alpha, score=scores[0])] if alpha > 0 else []


def _single(network: Network) -> dict[str, Strategy]:
    strategies: dict[str, Strategy] = {}
    tier_of = {node.name: node.tier for node in network.nodes}
    if all(sum(d.node == node for d in network.deployments) == 1 for node in network.ingress):
        strategies["Local"] = Local()
    lowest = min(tier_of[node] for node in network.ingress)
    for tier in network.tiers:
        stations = [d for d in network.deployments if tier_of[d.node] == tier]
        if tier == lowest or not stations:
            continue
        if len(stations) == 1:
            strategies[f"Remote({stations[0].node})"] = Remote(stations[0].node)
            continue
        (model, *more) = {d.model for d in stations}
        if not more and all(tier_of[d.node] == tier for d in network.deployments if d.model == model):
            strategies[f"Remote({model})"] = Remote(model=model)
    return strategies


def tune_all(strategies: Mapping[str, Strategy], fit: Predictions, network: Network, seed: int) -> dict[str, Strategy]:
    """Tune every strategy that has no thresholds yet, for the lowest price at the accuracy of the best model.

    Where nothing has a price, mean latency is minimised instead. All of `fit` is used: measure on other
    samples.

    Raises
    ------
    UnsupportedError
        If there is something to tune but `fit` has no labels.
    """
    from coinfer.tuning import tune

    tuned = dict(strategies)
    for name, strategy in strategies.items():
        if not untuned(strategy):
            continue
        if fit.labels is None:
            msg = (
                f"strategy {name!r} has no thresholds, and finding them needs the true labels of the "
                "samples; give thresholds, as in forward:margin:0.9"
            )
            raise UnsupportedError(msg)
        if not strategy.fitted:
            tuned[name] = strategy.fit(fit, network)
            continue
        assert isinstance(strategy, Forward)
        hosted = {d.model for d in network.deployments}
        known = [model for model in fit.models if model in hosted]
        if not known:
            msg = f"no model of the network has predictions; {nearest(min(hosted), fit.models)}"
            raise UnknownNameError(msg)
        best = max(fit.accuracy(model) for model in known)
        priced = any(d.price_usd for d in network.deployments)
        found = tune(
            strategy,
            fit,
            network,
            minimise="price_usd" if priced else "latency_us_mean",
            subject_to=[f"accuracy >= {best!r}"],
            split=None,
            seed=seed,
        )
        tuned[name] = found.strategy
    return tuned
