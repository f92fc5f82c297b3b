"""Print the tables of docs/expected_gain.md: ExpectedGain beside tuned thresholds, on samples that fitted nothing.

For each worth of a wrong answer (alpha) every rule minimises one objective on half of the samples, latency_ms + alpha x
(1 - accuracy), and is measured on the other half; COINFER_BENCH_SPLITS random halves (default 20). A cell is the mean
excess over the best rule of that row in ms, with its paired standard error; 0 marks the best. Models are taken as they
are, and with their confidences spoilt (every second model: logits doubled, the others: halved; no answer changes).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

import coinfer as ci
from coinfer.compiling import Compiler

SHARED = Path(__file__).parents[2] / "shared" / "data"
SPLITS = int(os.environ.get("COINFER_BENCH_SPLITS", "20"))
ALPHAS = (100.0, 300.0, 1000.0, 3000.0, 10_000.0)
GRID = 48  # levels per threshold where two thresholds are searched


def ladders():
    digits = ci.datasets.digits()
    yield "digits", digits, ("tree", "ensemble")
    yield "digits", digits, ("tree", "mlp", "ensemble")
    file = SHARED / "cifar10_models.npz"
    if file.exists():
        with np.load(file) as data:
            names = {"resnet20": "softjpeg_resnet20", "resnet56": "softjpeg_resnet56", "vgg16": "soft_vgg16"}
            outputs = {name: ci.ModelOutput(probs=data[key]) for name, key in names.items()}
            cifar = ci.Predictions(outputs, labels=data["labels"])
        yield "CIFAR-10", cifar, ("resnet20", "vgg16")
        yield "CIFAR-10", cifar, ("resnet20", "resnet56", "vgg16")


def spoilt(preds):
    outputs = {}
    for at, name in enumerate(preds.models):
        output = preds[name]
        z = output.vector if output.form == "logits" else np.log(np.maximum(output.vector, 1e-30))
        outputs[name] = ci.ModelOutput(logits=np.asarray(z * (2.0 if at % 2 else 0.5), np.float32))
    return ci.Predictions(outputs, labels=preds.labels)


def chain(models):
    names = ("device", "edge", "cloud")
    tiers = dict(zip(names if len(models) == 3 else (names[0], names[2]), models, strict=True))
    delay, service = ([10, 40], [2, 5, 20]) if len(models) == 3 else ([50], [2, 20])
    return ci.Network.chain(tiers, delay_ms=delay, service_ms=service)


class World:
    """Some samples over one network, and what a strategy costs there."""

    def __init__(self, preds, net):
        self.preds, self.net, n = preds, net, len(preds)
        self.trace = ci.Trace(np.arange(n), ["device"] * n, np.arange(n))

    def objective(self, strategy, alpha):
        s = ci.replay(self.trace, self.preds, self.net, strategy).summary
        return s.latency_us.mean / 1e3 + alpha * (1 - s.accuracy)


def thresholds(world, alpha, score, each):
    """Find the thresholds of least objective: one for all stages exactly, or one per stage on a grid of quantiles."""
    preds, net = world.preds, world.net
    probe = ci.Forward(score=score, threshold=0.0)
    if not each:
        front = ci.tune(probe, preds, net, minimise="latency_us_mean", split=None).front
        cost = front["latency_us_mean"].to_numpy() / 1e3 + alpha * (1 - front["accuracy"].to_numpy())
        return probe.at(float(front["threshold"][int(cost.argmin())].as_py()))
    compiler = Compiler(preds, net)
    compiled = compiler.plan(probe, "device")
    evidence = compiled.evidence
    latency_ms = np.array([np.mean(ns) for ns in compiler.settling(compiled.spec, "device")[0]]) / 1e6
    wrong = evidence.label != preds.labels
    cost = latency_ms[:, None] + alpha * wrong
    cuts = [np.append(np.unique(np.quantile(s, np.linspace(0, 1, GRID))), np.inf) for s in evidence.score[:-1]]
    best, chosen = np.inf, None
    for first in cuts[0]:
        served = evidence.score[0] >= first
        for second in cuts[1]:
            later = np.where(evidence.score[1] >= second, cost[1], cost[2])
            total = np.where(served, cost[0], later).mean()
            if total < best:
                best, chosen = total, [float(first), float(second)]
    return ci.Forward(score=score, thresholds=chosen)


def rules(tiers):
    yield "ExpectedGain", lambda w, a, s: ci.ExpectedGain(a, score=s).fit(w.preds, w.net)
    if tiers > 2:
        yield "myopic", lambda w, a, s: ci.ExpectedGain(a, score=s, horizon=1).fit(w.preds, w.net)
    yield "one threshold", lambda w, a, s: thresholds(w, a, s, each=False)
    if tiers > 2:
        yield "one per stage", lambda w, a, s: thresholds(w, a, s, each=True)
    yield "never forward", lambda w, a, s: ci.Local()
    yield "always cloud", lambda w, a, s: ci.Remote("cloud")


def main():
    write = sys.stdout.write
    for name, preds, models in ladders():
        net, chosen = chain(models), dict(rules(len(models)))
        write(f"\n{name}, {' > '.join(models)}, {len(preds):,} samples, score max_prob\n\n")
        write(
            "| confidences | alpha, ms | best, ms | " + " | ".join(chosen) + " |\n" + "|---" * (3 + len(chosen)) + "|\n"
        )
        for how, table in (("as they are", preds), ("spoilt", spoilt(preds))):
            found = np.empty((len(ALPHAS), SPLITS, len(chosen)))
            for split in range(SPLITS):
                order = np.random.default_rng(split).permutation(len(table))
                fit, held = (World(table.select(np.sort(half)), net) for half in np.array_split(order, 2))
                for a, alpha in enumerate(ALPHAS):
                    for r, rule in enumerate(chosen.values()):
                        found[a, split, r] = held.objective(rule(fit, alpha, "max_prob"), alpha)
            for a, alpha in enumerate(ALPHAS):
                mean = found[a].mean(axis=0)
                best = int(mean.argmin())
                excess = found[a] - found[a][:, best : best + 1]
                error = excess.std(axis=0, ddof=1) / np.sqrt(SPLITS) if SPLITS > 1 else np.zeros(len(chosen))
                cells = [
                    "**0**" if r == best else f"{excess[:, r].mean():.2f} ± {error[r]:.2f}" for r in range(len(chosen))
                ]
                write(f"| {how} | {alpha:,.0f} | {mean[best]:.1f} | " + " | ".join(cells) + " |\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
