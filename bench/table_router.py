"""Router on real services: held-out accuracy and price beside the best threshold cascade and the best single service.

    python bench/table_router.py [DATA]

DATA is frugalml_dev.npz (default: ../shared/data). Every strategy is fitted and chosen on one half of the samples and
measured on the other: the cheapest of each family that is as accurate on the fitting half as the best single service,
and the most accurate one that costs no more than it. Prints the tables of docs/router.md.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import coinfer as ci

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "frugalml_dev.npz"
SETS = ("AUDIOMNIST", "FERPLUS", "RAFDB")
ALPHAS = np.geomspace(1e-4, 10, 41)
MS_PER_USD = 100.0  # network and services take no time here: price alone is traded for accuracy


def services(name: str, path: Path = DATA) -> tuple[ci.Predictions, ci.Network]:
    """Give the services of one data set as a chain of tiers by price; "unknown" is an abstention."""
    with np.load(path, allow_pickle=False) as data:
        apis, cost, said, confidence, truth = (
            data[f"{name.lower()}_{part}"] for part in ("apis", "cost_per10k", "preds", "conf", "labels")
        )
    apis, price = [str(api) for api in apis], cost.astype(float) / 1e4
    known = int(truth.max()) + 1  # what is said beyond them is "unknown"
    classes = [*map(str, range(known)), "unknown"]
    order = sorted(range(len(apis)), key=lambda m: (price[m], apis[m]))
    outputs = {
        apis[m]: ci.ModelOutput(
            label=np.minimum(said[:, m].astype(np.int32), known),
            confidence=confidence[:, m].astype(np.float32),
        )
        for m in order
    }
    predictions = ci.Predictions(outputs, labels=truth.astype(np.int32), classes=classes)
    nodes = [ci.Node(api, tier) for tier, api in enumerate(outputs)]
    links = [ci.Link((a.name, b.name), delay_ms=0.0) for a, b in itertools.pairwise(nodes)]
    models = [ci.Model(api, abstain=["unknown"]) for api in outputs]
    deployments = [ci.Deployment(apis[m], apis[m], price_usd=price[m], service=ci.service.Constant(0.0)) for m in order]
    return predictions, ci.Network(nodes, links, models, deployments)


def measure(strategy: ci.Strategy, predictions: ci.Predictions, network: ci.Network) -> tuple[float, float]:
    """Give accuracy and mean price of one replay over all samples."""
    rows = len(predictions)
    trace = ci.Trace(np.arange(rows), [network.ingress[0]] * rows, np.arange(rows))
    summary = ci.replay(trace, predictions, network, strategy).summary
    return float(summary.accuracy), summary.price_usd


def cascades(predictions: ci.Predictions, network: ci.Network) -> Iterator[tuple[ci.Strategy, float, float]]:
    """Every operating point of the two-service threshold cascades, cheap one first."""
    names = list(predictions.models)
    for first, a in enumerate(names):
        for b in names[first + 1 :]:
            found = ci.tune(
                ci.Forward("confidence", models=(a, b)), predictions, network, minimise="price_usd", split=None
            )
            front = found.front.to_pydict()
            for cut, accuracy, price, on in zip(
                front["threshold"], front["accuracy"], front["price_usd"], front["on_front"], strict=True
            ):
                if on:
                    yield ci.Forward("confidence", threshold=cut, models=(a, b)), accuracy, price


def routers(predictions: ci.Predictions, network: ci.Network) -> Iterator[tuple[ci.Strategy, float, float]]:
    """One router per worth of accuracy, over every first service."""
    for alpha in ALPHAS:
        fitted = ci.Router(alpha=float(alpha), ms_per_usd=MS_PER_USD).fit(predictions, network)
        yield fitted, *measure(fitted, predictions, network)


def rows_of(name: str, seed: int = 0, path: Path = DATA) -> Iterator[tuple[str, str, float, float]]:
    """Give family, choice, held-out accuracy and held-out price."""
    predictions, network = services(name, path)
    order = np.random.default_rng(seed).permutation(len(predictions))
    half = len(order) // 2
    fit, held = predictions.select(np.sort(order[:half])), predictions.select(np.sort(order[half:]))
    singles = [(ci.Remote(m), *measure(ci.Remote(m), fit, network)) for m in predictions.models]
    best = max(singles, key=lambda row: (row[1], -row[2]))
    yield "best single", "", *measure(best[0], held, network)
    for family, points in (("cascade", list(cascades(fit, network))), ("router", list(routers(fit, network)))):
        equal = [p for p in points if p[1] >= best[1]]
        cheap = [p for p in points if p[2] <= best[2]]
        yield family, "as accurate, cheapest", *measure(min(equal, key=lambda p: p[2])[0], held, network)
        yield family, "as cheap, most accurate", *measure(max(cheap, key=lambda p: p[1])[0], held, network)


def main() -> None:
    """Print a table per data set, the mean over several splits."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else DATA
    if not path.exists():
        print(f"{path} is not there: no table of routers")  # noqa: T201
        return
    for name in SETS:
        print(f"\n| {name}: strategy | chosen as | accuracy | USD per 10,000 |\n|---|---|---|---|")  # noqa: T201
        splits = [list(rows_of(name, seed, path)) for seed in range(5)]
        for lines in zip(*splits, strict=True):
            accuracy, price = (np.mean([line[i] for line in lines]) for i in (2, 3))
            print(f"| {lines[0][0]} | {lines[0][1]} | {accuracy:.4f} | {1e4 * price:.2f} |")  # noqa: T201


if __name__ == "__main__":
    main()
