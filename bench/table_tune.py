"""Print the table of docs/tuning.md: fronts that were fitted on half the data, on the other half.

Per data set: the objective and the accuracy where it was fitted and where it was not, the difference (optimism), and
whether what was certified held there, over several splits. COINFER_SHARED names the folder that holds `data/`.
"""

from __future__ import annotations

import itertools
import os
import sys
import warnings
from pathlib import Path

import numpy as np

import coinfer as ci

SHARED = Path(os.environ.get("COINFER_SHARED", Path(__file__).parents[1] / ".." / "shared")) / "data"
SEEDS = range(10)


def frugalml():
    with np.load(SHARED / "frugalml_dev.npz", allow_pickle=False) as data:
        for name, cheap, best in (("audiomnist", 3, 1), ("ferplus", 3, 2), ("rafdb", 3, 2)):
            apis, cost = data[f"{name}_apis"], data[f"{name}_cost_per10k"]
            answers, confidence = data[f"{name}_preds"], data[f"{name}_conf"]
            outputs = {
                str(apis[i]): ci.ModelOutput(label=answers[:, i].astype(int), confidence=confidence[:, i])
                for i in range(len(apis))
            }
            preds = ci.Predictions(outputs, labels=data[f"{name}_labels"].astype(int))
            net = ci.Network.chain(
                {"device": str(apis[cheap]), "cloud": str(apis[best])},
                price_usd=[float(cost[cheap]) / 1e4, float(cost[best]) / 1e4],
            )
            yield name.upper(), preds, net, "confidence", str(apis[best]), 0.004


def cifar():
    with np.load(SHARED / "cifar10_models.npz", allow_pickle=False) as data:
        names = ("resnet20", "resnet32", "resnet44", "resnet56")
        outputs = {name: ci.ModelOutput(probs=data[f"softjpeg_{name}"]) for name in names}
        outputs |= {"vgg16": ci.ModelOutput(probs=data["soft_vgg16"])}
        preds = ci.Predictions(outputs, labels=data["labels"].astype(int))
    tiers = {"device": "resnet20", "edge": "resnet56", "cloud": "vgg16"}
    net = ci.Network.chain(tiers, delay_ms=[10, 40], service_ms=[2, 5, 20], price_usd=[0, 1e-5, 1e-4])
    yield "CIFAR-10, 3 tiers", preds, net, "max_prob", "vgg16", 0.01
    tiers = {"device": "resnet20", "edge": "resnet32", "region": "resnet56", "cloud": "vgg16"}
    prices = [0, 5e-6, 1e-5, 1e-4]
    net = ci.Network.chain(tiers, delay_ms=[5, 10, 40], service_ms=[2, 3, 5, 20], price_usd=prices)
    yield "CIFAR-10, 4 tiers", preds, net, "max_prob", "vgg16", 0.01


HEAD = (
    "data",
    "cost fitted",
    "held out",
    "accuracy fitted",
    "held out",
    "optimism: mean (worst)",
    "certified",
    "held",
    "gap: mean (worst)",
)


def gaps(found):
    """How far the search was from the best, where exhaustive search could be made."""
    known = [tuned.gap for tuned in found if tuned.gap is not None and tuned.gap.problems]
    if not known:
        return "exact"
    mean = np.average([gap.mean for gap in known], weights=[gap.problems for gap in known])
    lost = sum(gap.infeasible for gap in known)
    more = f", {lost} infeasible" if lost else ""
    search = f"{known[0].search}, {sum(gap.problems for gap in known)} x {known[0].samples:,} samples"
    return f"{mean:.2%} ({max(gap.worst for gap in known):.2%}{more}): {search}"


def line(cells):
    sys.stdout.write(f"| {' | '.join(cells)} |\n")


def main():
    warnings.simplefilter("error")
    line(HEAD)
    line(["---"] * len(HEAD))
    for name, preds, net, score, best, loss in itertools.chain(frugalml(), cifar()):
        each = ci.Forward(score, thresholds="each") if len(net.deployments) > 2 else ci.Forward(score)
        quantity = f"accuracy_loss[{best}]"
        wish = {"subject_to": [f"{quantity} <= {loss}"]}
        halves = [ci.tune(each, preds, net, **wish, split=(0.5, 0.5), seed=seed) for seed in SEEDS]
        certified = [
            ci.tune(each, preds, net, **wish, split=(0.3, 0.2, 0.5), confidence=0.9, seed=seed) for seed in SEEDS
        ]
        cost = np.mean([[t.chosen["price_usd"], float(t.measured["price_usd"])] for t in halves], axis=0) * 1e4
        right = np.mean([[t.chosen["accuracy"], float(t.measured["accuracy"])] for t in halves], axis=0)
        optimism = [t.optimism["accuracy"] for t in halves]
        kept = [t.measured[quantity] for t in certified if t.certificate is not None]
        held = sum(value <= loss for value in kept)
        near = sum(value > loss >= value.low for value in kept)
        line(
            [
                name,
                f"{cost[0]:.3f}",
                f"{cost[1]:.3f}",
                f"{right[0]:.4f}",
                f"{right[1]:.4f}",
                f"{np.mean(optimism):+.4f} ({max(optimism):+.4f})",
                f"{len(kept)} of {len(certified)}",
                f"{held}" + (f", and {near} within noise" if near else "") + f", of {len(kept)}",
                gaps(halves),
            ]
        )


if __name__ == "__main__":
    sys.exit(main())
