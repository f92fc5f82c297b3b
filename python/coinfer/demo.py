"""The demo: a whole comparison on real models, from nothing, in a minute.

The thresholds are found on one half of the samples and everything is replayed on the other, so that no number
of the demo was measured on what it was fitted to. That halves the evidence and is worth it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coinfer._specs import default_strategies, tune_all, untuned
from coinfer.datasets import demo_network, digits
from coinfer.errors import BadValueError

if TYPE_CHECKING:
    from coinfer.comparing import Comparison
    from coinfer.predictions import Predictions

__all__ = ["RATE_RPS", "Demo", "halves", "run"]

RATE_RPS = 80.0  # four phones that each look twenty times a second

Progress = Callable[[str, int, int], object]


@dataclass(frozen=True)
class Demo:
    """The comparison, and what is to be said about its data."""

    comparison: Comparison
    notes: dict[str, str]
    title: str = "Handwritten digits, from phone to cloud"


def halves(predictions: Predictions, seed: int) -> tuple[Predictions, Predictions]:
    """Split the samples at random into one half to fit on and one to measure on.

    Raises
    ------
    BadValueError
        If there are fewer than two samples.
    """
    if len(predictions) < 2:
        msg = f"tuning needs samples to fit on and others to measure on, but there are only {len(predictions)}"
        raise BadValueError(msg)
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(predictions))
    middle = len(predictions) // 2
    return predictions.select(np.sort(order[:middle])), predictions.select(np.sort(order[middle:]))


def run(requests: int, *, seed: int = 0, threads: int = 1, progress: Progress | None = None) -> Demo:
    """Learn (or read from the cache), tune, and compare.

    Parameters
    ----------
    requests : int
        Requests to replay with each strategy.
    seed : int
        For the split, the trace and the service times.
    threads : int
        Does not change any result.
    progress : callable, optional
        Called as ``progress(what, done, total)``.

    Returns
    -------
    Demo
    """
    from coinfer.comparing import compare
    from coinfer.trace import Trace

    def learning(done: int, total: int) -> None:
        if progress is not None:
            progress("learning four models", done, total)

    def replaying(name: str, done: int, total: int) -> None:
        if progress is not None:
            progress(f"replaying {name}".strip(), done, total)

    predictions = digits(progress=learning)
    network = demo_network()
    fit, held_out = halves(predictions, seed)
    templates = default_strategies(predictions, network)
    strategies = tune_all(templates, fit, network, seed)
    trace = Trace.poisson(network, rate_rps=RATE_RPS, requests=requests, samples=len(held_out), seed=seed)
    comparison = compare(trace, held_out, network, strategies, seed=seed, threads=threads, progress=replaying)
    tuned = [name for name, strategy in templates.items() if untuned(strategy)]
    notes = {
        "answers": (
            f"real; four models learned on scikit-learn's {len(predictions):,} handwritten digits, "
            "and asked only about digits that they had not seen"
        ),
        "tuning": (
            f"{', '.join(tuned)} were tuned on {len(fit):,} samples: Forward for the lowest price at the accuracy "
            "that the best model has there, ExpectedGain for a wrong answer worth that many milliseconds; "
            f"everything shown is measured on the {len(held_out):,} others"
        ),
        "arrivals": (
            f"synthetic; {requests:,} of a Poisson process, {RATE_RPS:g} per second over four phones, "
            "samples drawn uniformly"
        ),
        "times": "stated, not measured; demo_network.toml says why they are plausible",
    }
    return Demo(comparison, notes)
