"""The table of docs/sequential.md: stop rules on the votes of 30 CIFAR-10 networks.

Every rule learns from one half of the 10,000 images and is measured on the other. Run it as
``python bench/table_sequential.py``; it needs ``cifar10_models.npz`` in ``../shared/data``, or in
``$COINFER_SHARED/data``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
from scipy.stats import beta

import coinfer as ci
from coinfer.compiling import Compiler

SHARED = Path(os.environ.get("COINFER_SHARED", Path(__file__).parents[1] / ".." / "shared"))
CIFAR = SHARED / "data" / "cifar10_models.npz"
SPLITS = 10
RULES = [
    ("decided", "accuracy", None),
    ("decided", "random", None),
    ("probable", "random", 0.001),
    ("probable", "random", 0.01),
    ("probable", "accuracy", 0.001),
    ("probable", "accuracy", 0.01),
    ("qwyc", "random", 0.005),
    ("qwyc", "accuracy", 0.005),
    ("qwyc", "learned", 0.005),
    ("qwyc", "learned", 0.01),
    ("empirical", "random", 0.005),
]


def cifar():
    """Predictions of the 30 networks, and a network where all stand at one node and cost the same."""
    with np.load(CIFAR, allow_pickle=False) as data:
        models = [str(name) for name in data["top1_models"]]
        answers = data["top1_preds"].astype(np.int32)
        truth = data["labels"].astype(np.int32)
    outputs = {model: ci.ModelOutput(label=answers[:, i]) for i, model in enumerate(models)}
    places = [ci.Deployment(model, "node", service=ci.service.Constant(mean_ms=1.0)) for model in models]
    return ci.Predictions(outputs, labels=truth), ci.Network([ci.Node("node", 0)], [], [], places)


def measure(strategy, predictions, network):
    """Models consulted, changed decisions and right answers on samples that nothing was learned from."""
    compiled = Compiler(predictions, network).plan(strategy, "node")
    at, rows = compiled.decisions.route, np.arange(len(predictions))
    label = compiled.evidence.label
    settled = label[at, rows]
    return at.mean() + 1, int(np.count_nonzero(settled != label[-1])), float(np.mean(settled == predictions.labels))


def interval(events, trials):
    """The exact 95 % interval of a probability."""
    low = beta.ppf(0.025, events, trials - events + 1) if events else 0.0
    return low, beta.ppf(0.975, events + 1, trials - events)


def write(line):
    sys.stdout.write(line + "\n")


def main():
    if not CIFAR.exists():
        sys.stderr.write(f"no table: {CIFAR} is not there\n")
        return
    predictions, network = cifar()
    count = len(predictions)
    write("| rule | order | delta | models | changed | interval (95 %) | accuracy | mean changed | most changed |")
    write("|---|---|---|---|---|---|---|---|---|")
    for stop, order, delta in RULES:
        found = []
        for split in range(SPLITS):
            mixed = np.random.default_rng(split).permutation(count)
            fit, held = (predictions.select(np.sort(part)) for part in (mixed[: count // 2], mixed[count // 2 :]))
            strategy = ci.Sequential("vote", stop, order, delta, seed=split).fit(fit, network)
            found.append(measure(strategy, held, network))
        models, changed, accuracy = (np.array(values, float) for values in zip(*found, strict=True))
        low, high = interval(int(changed[0]), count - count // 2)
        share = changed / (count - count // 2)
        write(
            f"| `{stop}` | {order} | {'' if delta is None else delta} | {models.mean():.2f} | {share[0]:.4f} | "
            f"{low:.4f} to {high:.4f} | {accuracy.mean():.4f} | {share.mean():.5f} | {share.max():.4f} |"
        )


if __name__ == "__main__":
    main()
