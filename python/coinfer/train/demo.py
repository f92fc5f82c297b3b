"""The training demo: an early-exit network for handwritten digits, trained over a hundred nodes, from nothing.

Ninety devices with five or six images each, nine edge servers and a cloud, all with their own mix of classes. Three
weightings of the exits are trained from the same start; their exits are replayed on a million requests; the last is
exported for live servers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer.datasets import demo_network
from coinfer.train.evaluating import served, shift, temperatures
from coinfer.train.exits import dense
from coinfer.train.fitting import Settings, federated
from coinfer.train.flow import Profile
from coinfer.train.placing import clients, deploy, tree
from coinfer.train.reporting import Trained, write
from coinfer.train.repository import export
from coinfer.train.splits import difficulty, random, split

if TYPE_CHECKING:
    from coinfer.results import Summary

__all__ = ["Demo", "run"]

Progress = Callable[[str, int, int], object]
WEIGHTS = ("equal", "serving_rate", "delivered")


@dataclass(frozen=True)
class Demo:
    """What the demo found.

    Attributes
    ----------
    trained : tuple of Trained
    replays : dict of str to Summary
        A million requests on the tree, and on the network of ``coinfer demo``.
    headline : str
    details : tuple of str
    report : Path
    exports : dict of str to Path
        What was written for replay and live.
    """

    trained: tuple[Trained, ...]
    replays: dict[str, Summary]
    headline: str
    details: tuple[str, ...]
    report: Path
    exports: dict[str, Path]

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain data, ready for JSON."""
        return {
            "headline": self.headline,
            "details": list(self.details),
            "weights": {
                each.name: {
                    "accuracy": each.served.accuracy.to_dict(),
                    "weights": list(each.training.weights),
                    "accuracy_by_exit": list(each.served.accuracy_by_exit),
                    "accuracy_served": list(each.served.accuracy_served),
                    "settled_by_exit": list(each.served.settled_by_exit),
                    "calibration_by_exit": list(each.served.calibration_by_exit),
                }
                for each in self.trained
            },
            "replays": {name: summary.to_dict() for name, summary in self.replays.items()},
            "report": str(self.report),
            "exports": {name: str(path) for name, path in self.exports.items()},
        }


def run(
    report: Path,
    folder: Path,
    *,
    profile: str = "50-30-20",
    rounds: int = 40,
    requests: int = 1_000_000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Demo:
    """Train, evaluate, replay, export and report.

    Parameters
    ----------
    report, folder : Path
        Where the report goes, and the exported exits.
    profile : str
        Share of requests to settle at device, edge and cloud.
    rounds : int
        Of federated training.
    requests : int
        To replay.
    seed : int
        For everything.
    progress : callable, optional
        Called as ``progress(what, done, total)``.
    """
    from sklearn.datasets import load_digits

    from coinfer.replaying import replay
    from coinfer.trace import Trace

    pixels, labels = load_digits(return_X_y=True)
    x, y = (pixels / 16).astype(np.float32), labels.astype(np.int64)
    order = random(seed, 200).permutation(len(x))
    fit, calibrate, test = np.split(order, [1100, 1350])
    hardness = difficulty(x, y, seed=seed)
    target = Profile(profile)
    model = dense(64, 10, (16, 32, 64), seed=seed, names=("device-exit", "edge-exit", "cloud-exit"))
    nodes, links = tree((90, 9, 1))
    network = deploy(model, nodes, links, price_usd=[0.0, 1e-6, 4e-5])
    shares = [0.45 / 90] * 90 + [0.15 / 9] * 9 + [0.4]
    members = clients(network, split("dirichlet", y[fit], shares, seed=seed, alpha=1.0))
    settings = Settings(
        rounds=rounds, batch=8, local_epochs=2, learning_rate=0.1, momentum=0.5, method="fedadam",
        server_learning_rate=0.05, seed=seed,
    )  # fmt: skip
    trained = []
    for position, weights in enumerate(WEIGHTS):

        def say(_: str, done: int, total: int, position: int = position, weights: str = weights) -> None:
            if progress is not None:
                progress(f"training with weights {weights}", position * total + done, len(WEIGHTS) * total)

        training = federated(
            model, x[fit], y[fit], members, weights=weights, profile=target, settings=settings, network=network,
            held_out=(x[calibrate], y[calibrate]), progress=say,
        )  # fmt: skip
        said = training.model.predictions(x[calibrate], y[calibrate]), training.model.predictions(x[test], y[test])
        front = []
        for forwarded in np.linspace(0.0, 1.0, 11):
            rest = (1 - target.shares[0]) or 1.0
            part = [1 - forwarded, *(forwarded * share / rest for share in target.shares[1:])]
            point = served(*said, [p / sum(part) for p in part])
            front.append((1 - point.settled_by_exit[0], float(point.accuracy)))
        trained.append(Trained(weights, training, served(*said, target), said[1], sorted(front)))
    chosen, before = trained[-1], trained[0]
    final = chosen.training.model
    calibrated = final.predictions(x[calibrate], y[calibrate])
    softened = temperatures(calibrated, served(calibrated, calibrated, target).reached)
    strategy = chosen.served.strategy
    if progress is not None:
        progress("replaying", 0, 2)
    replays = {}
    for name, place in (
        ("tree of 90-9-1", network),
        ("network of coinfer demo", deploy(final, demo_network().nodes, demo_network().links)),
    ):
        trace = Trace.poisson(place, rate_rps=80.0, requests=requests, samples=len(test), seed=seed)
        replays[name] = replay(trace, chosen.test, place, strategy, seed=seed).summary
    exports = dict(export(final, folder, network=network))
    exports["network"] = folder / "network.toml"
    exports["predictions"] = folder / "predictions.parquet"
    exports["strategy"] = folder / "strategy.toml"
    chosen.test.save(exports["predictions"])
    strategy.save(exports["strategy"])
    moved = shift(chosen.served.reached, y[test], hardness[test])
    headline, details = _told(trained, before, chosen, moved, target, len(test))
    notes = {
        "data": (
            f"real; scikit-learn's {len(x):,} handwritten digits: {len(fit):,} to train, {len(calibrate)} to set "
            f"thresholds and to calibrate, {len(test)} to measure"
        ),
        "clients": (
            "simulated in one process: 90 devices with five or six images each, 9 edge servers, a cloud with two "
            "fifths of the data, each with a mix of classes drawn from a Dirichlet distribution with concentration 1"
        ),
        "requests": f"synthetic; {requests:,} of a Poisson process on each of two networks",
        "times": "service times were measured on this machine, one sample at a time; delays of links are stated",
        "temperatures": "on what reaches each exit, the confidences would be calibrated by "
        + ", ".join(f"{name} {value:.2f}" for name, value in softened.items()),
    }
    write(
        report, trained, title="Training for the network", headline=headline, details=details, costs=model.costs(),
        shift=moved, classes=[str(c) for c in range(10)], notes=notes,
    )  # fmt: skip
    return Demo(tuple(trained), replays, headline, tuple(details), report, exports)


def _told(
    trained: list[Trained], before: Trained, after: Trained, moved: Any, target: Profile, samples: int
) -> tuple[str, list[str]]:
    """Say what was found, and no more than was found."""
    from scipy.stats import binomtest

    won = int((after.served.correct & ~before.served.correct).sum())
    lost = int((~after.served.correct & before.served.correct).sum())
    p = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    a, b = float(after.served.accuracy), float(before.served.accuracy)
    best = max(trained, key=lambda each: float(each.served.accuracy))
    if p < 0.05 and a != b:
        verb = "raises" if a > b else "lowers"
        headline = (
            f"Training for what the strategy delivers {verb} the accuracy of served answers from {100 * b:.1f} to "
            f"{100 * a:.1f} %"
        )
    else:
        headline = (
            f"At {target}, weights by delivery serve {100 * a:.1f} % right and equal weights {100 * b:.1f} %: "
            f"too close to tell apart on {samples} samples"
        )
    exact = f"exact McNemar test, p = {p:.2g}"
    last, first = after.served, before.served
    details = [
        (
            f"Of {samples} test samples, {won} are right only with the weights of delivery and {lost} only with equal "
            f"ones ({exact}); the best of the {len(trained)} here is {best.name} with "
            f"{100 * float(best.served.accuracy):.1f} %."
        ),
        (
            f"A sample that reaches the cloud is harder than one drawn from all with probability {moved.harder[-1]:.2f}"
            " (one half would be no shift), and its classes differ by "
            f"{100 * moved.distance[-1]:.0f} % in total variation."
        ),
        (
            f"The exit there is right on {100 * last.accuracy_by_exit[-1]:.1f} % of all samples but on "
            f"{100 * last.accuracy_served[-1]:.1f} % of those it serves; with equal weights it was "
            f"{100 * first.accuracy_served[-1]:.1f} %."
        ),
    ]
    return headline, details
