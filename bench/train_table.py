"""Which weights should the exits have? Served accuracy on MNIST-10k by serving profile, split of the data and strategy.

``make train-table`` runs it and writes the result between the markers in docs/training.md. A small tree of clients (six
devices, two edges, a cloud) stands for a larger one; each seed draws its own training, calibration and test samples,
initial weights and order of batches. Strategies that do not look at the profile (equal, compute, separate models) are
trained once per seed and split. Everything compared is paired: same seed, same samples, same initial weights.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from coinfer import ModelOutput, Predictions, train
from coinfer.train.flow import PROFILES

JOINT = ("equal", "compute", "serving_rate", "balanced", "delivered")
STRATEGIES = (*JOINT, "separate", "boosting")
SPLITS = ("iid", "difficulty")


@dataclass(frozen=True)
class Plan:
    """What is run."""

    profiles: Sequence[str] = PROFILES
    seeds: int = 5
    training: int = 2000
    calibration: int = 2000
    test: int = 3000
    widths: Sequence[int] = (16, 32, 64)
    counts: Sequence[int] = (6, 2, 1)
    tier_data: Sequence[float] = (0.5, 0.25, 0.25)
    bias: float = 0.6
    settings: train.Settings = train.Settings(  # noqa: RUF009 - frozen
        rounds=12,
        batch=30,
        learning_rate=0.1,
        momentum=0.5,
        method="fedadam",
        server_learning_rate=0.03,
        device="cpu",
    )


SHORT = Plan(
    training=1500,
    bias=0.8,
    settings=train.Settings(rounds=12, batch=30, learning_rate=0.05, momentum=0.9, decay=0.95, device="cpu"),
)
"""Plain averaging, stopped long before it converges: which weights get there first."""


def load(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Read the images, halve their sides, and scale them to [0, 1]."""
    with np.load(path) as held:
        images, labels = held["images"], held["labels"]
    small = images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)) / 255
    return small.reshape(len(small), 196).astype(np.float32), labels.astype(np.int64)


def run(plan: Plan, images: Any, labels: Any, progress: Any = None, kept: Any = None) -> list[dict[str, Any]]:
    """Train and evaluate everything; one record per split, profile, strategy and seed, for `kept` after each seed."""
    records: list[dict[str, Any]] = []
    hardness = train.difficulty(images, labels)
    nodes, links = train.tree(plan.counts)
    shares = [share / count for share, count in zip(plan.tier_data, plan.counts, strict=True) for _ in range(count)]
    done = 0
    for seed in range(plan.seeds):
        order = np.random.Generator(np.random.Philox(seed)).permutation(len(images))
        rows = np.split(
            order[: plan.training + plan.calibration + plan.test], [plan.training, plan.training + plan.calibration]
        )
        x, y = images[rows[0]], labels[rows[0]]
        model = train.dense(images.shape[1], 10, plan.widths, seed=seed)
        network = train.deploy(model, nodes, links, service_ms=[1.0] * len(model))
        settings = replace(plan.settings, seed=seed)
        for split in SPLITS:
            held = train.split(split, y, shares, seed=seed, hardness=hardness[rows[0]], bias=plan.bias)
            clients = train.clients(network, held)

            def joint(
                weights: Any,
                profile: str | None,
                x: Any = x,
                y: Any = y,
                clients: Any = clients,
                model: Any = model,
                settings: Any = settings,
            ) -> Any:
                return train.federated(model, x, y, clients, weights=weights, profile=profile, settings=settings).model

            def said(by_exit: Sequence[Any], part: Any) -> Predictions:
                found = {}
                for e, each in enumerate(by_exit):
                    found[f"exit-{e + 1}"] = ModelOutput(logits=each.logits(images[part], depth=e + 1)[e])
                return Predictions(found, labels=labels[part])

            exits = len(model)
            alone = [joint([float(k == e) for k in range(exits)], None) for e in range(exits)]
            fixed = {
                "equal": [joint("equal", None)] * exits,
                "compute": [joint("compute", None)] * exits,
                "separate": alone,
            }
            for profile in plan.profiles:
                trained = dict(fixed)
                for weights in ("serving_rate", "balanced", "delivered"):
                    trained[weights] = [joint(weights, profile)] * exits
                boosted = train.boost(
                    model, x, y, clients, profile=profile, settings=replace(settings, rounds=settings.rounds * exits)
                ).model
                trained["boosting"] = [boosted] * exits
                for strategy in STRATEGIES:
                    found = train.served(said(trained[strategy], rows[1]), said(trained[strategy], rows[2]), profile)
                    records.append(
                        {
                            "split": split, "profile": profile, "strategy": strategy, "seed": seed,
                            "accuracy": float(found.accuracy), "by_exit": found.accuracy_by_exit,
                            "served": found.accuracy_served, "settled": found.settled_by_exit,
                            "correct": np.packbits(found.correct).tobytes().hex(), "samples": len(found.correct),
                        }
                    )  # fmt: skip
                done += 1
                if progress is not None:
                    progress(done, plan.seeds * len(SPLITS) * len(plan.profiles))
        if kept is not None:
            kept(records)
    return records


# Reading the records ------------------------------------------------------------------------------------------------


def accuracies(records: list[dict[str, Any]], split: str, profile: str, strategy: str) -> np.ndarray[Any, Any]:
    """Give the served accuracy per seed."""
    return np.array(
        [r["accuracy"] for r in records if (r["split"], r["profile"], r["strategy"]) == (split, profile, strategy)]
    )


def interval(values: np.ndarray[Any, Any]) -> float:
    """Give the half width of the 95 % t interval of a mean over seeds."""
    from scipy.stats import t

    n = len(values)
    return float(t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")


def paired(records: list[dict[str, Any]], split: str, profile: str, a: str, b: str) -> dict[str, float]:
    """Compare two strategies: mean difference over seeds with its interval, and an exact McNemar test over samples."""
    from scipy.stats import binomtest

    difference = accuracies(records, split, profile, a) - accuracies(records, split, profile, b)
    won = lost = 0
    right = {}
    for r in records:
        if (r["split"], r["profile"]) == (split, profile) and r["strategy"] in (a, b):
            bits = np.unpackbits(np.frombuffer(bytes.fromhex(r["correct"]), np.uint8))[: r["samples"]]
            right[r["strategy"], r["seed"]] = bits.astype(bool)
    for strategy, seed in list(right):
        if strategy == a:
            won += int((right[a, seed] & ~right[b, seed]).sum())
            lost += int((~right[a, seed] & right[b, seed]).sum())
    p = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    return {"mean": float(difference.mean()), "half": interval(difference), "p": p}


def markdown(records: list[dict[str, Any]], plan: Plan, seconds: float) -> str:
    """Write the tables."""
    lines = []
    for split in SPLITS:
        lines += [
            f"\n**Split: {split}.** Served accuracy, percent, mean over {plan.seeds} seeds ± half its 95 % interval.\n"
        ]
        lines += ["| profile | " + " | ".join(STRATEGIES) + " |", "|---" * (len(STRATEGIES) + 1) + "|"]
        for profile in plan.profiles:
            means = {s: accuracies(records, split, profile, s) for s in STRATEGIES}
            best = max(STRATEGIES, key=lambda s, means=means: means[s].mean())
            cells = []
            for s in STRATEGIES:
                cell = f"{100 * means[s].mean():.2f} ± {100 * interval(means[s]):.2f}"
                cells.append(f"**{cell}**" if s == best else cell)
            lines.append(f"| {profile} | " + " | ".join(cells) + " |")
    pairs = [
        ("serving_rate", "equal"),
        ("balanced", "serving_rate"),
        *(("delivered", s) for s in STRATEGIES if s != "delivered"),
    ]
    for split in SPLITS:
        lines += [
            (
                f"\n**Paired differences, split: {split}.** Percentage points ± 95 % over seeds; * marks p < 0.05 / "
                f"{len(plan.profiles)}"
                " in McNemar's exact test over samples (Bonferroni over the profiles).\n"
            )
        ]
        lines += ["| profile | " + " | ".join(f"{a} − {b}" for a, b in pairs) + " |", "|---" * (len(pairs) + 1) + "|"]
        for profile in plan.profiles:
            cells = []
            for a, b in pairs:
                d = paired(records, split, profile, a, b)
                star = "*" if d["p"] < 0.05 / len(plan.profiles) else ""
                cells.append(f"{100 * d['mean']:+.2f} ± {100 * d['half']:.2f}{star}")
            lines.append(f"| {profile} | " + " | ".join(cells) + " |")
    for split in SPLITS:
        lines += [
            f"\n**The cloud exit, split: {split}.** Share right, percent, on all samples → on those it serves.\n",
            "| profile | " + " | ".join(STRATEGIES) + " |",
            "|---" * (len(STRATEGIES) + 1) + "|",
        ]
        for profile in plan.profiles:
            cells = []
            for strategy in STRATEGIES:
                found = [r for r in records if (r["split"], r["profile"], r["strategy"]) == (split, profile, strategy)]
                on_all, on_served = (100 * np.nanmean([r[key][-1] for r in found]) for key in ("by_exit", "served"))
                cells.append(f"{on_all:.1f} → {on_served:.1f}")
            lines.append(f"| {profile} | " + " | ".join(cells) + " |")
    s = plan.settings
    server = f" with server rate {s.server_learning_rate:g}" if s.method == "fedadam" else ""
    tiers = " / ".join(f"{share:.0%}" for share in plan.tier_data)
    lines.append(
        f"\n{plan.seeds} seeds; {plan.training:,} training, {plan.calibration:,} calibration and "
        f"{plan.test:,} test images of 14 x 14; dense blocks of {', '.join(map(str, plan.widths))} units; "
        f"{'-'.join(map(str, plan.counts))} clients with {tiers} of the data per tier; {s.rounds} rounds of "
        f"{s.local_epochs} epoch, batches of {s.batch}, learning rate {s.learning_rate:g} x {s.decay:g} per round, "
        f"momentum {s.momentum:g}, {s.method}{server}; bias of the split by "
        f"difficulty {plan.bias:g}. {seconds / 60:.0f} minutes on one core."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the full table and write it into the documentation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/mnist10k.npz"))
    parser.add_argument("--out", type=Path, default=Path("docs/training.md"))
    parser.add_argument("--records", type=Path, default=Path("build/train_table.json"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--profiles", nargs="*", default=PROFILES)
    parser.add_argument("--short", action="store_true", help="the plan that stops long before convergence")
    parser.add_argument("--render", action="store_true", help="only write the tables of the records that are there")
    given = parser.parse_args()
    plan = replace(SHORT if given.short else Plan(), seeds=given.seeds, profiles=given.profiles)
    opening = "<!-- short table -->" if given.short else "<!-- table -->"
    given.records.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()

    def keep(records: list[dict[str, Any]]) -> None:
        spent = time.perf_counter() - start
        given.records.write_text(json.dumps({"seconds": spent, "records": records}))

    if not given.render:
        run(plan, *load(given.data), _said(start), keep)
    held = json.loads(given.records.read_text())
    plan = replace(plan, seeds=len({record["seed"] for record in held["records"]}))
    table = markdown(held["records"], plan, held["seconds"])
    text = given.out.read_text("utf-8") if given.out.exists() else f"{opening}\n<!-- end of table -->\n"
    before, rest = text.split(opening)
    after = rest.split("<!-- end of table -->", 1)[1]
    given.out.write_text(f"{before}{opening}\n{table}<!-- end of table -->{after}", "utf-8")


def _said(start: float) -> Any:
    def say(done: int, total: int) -> None:
        print(f"{done} of {total}, {time.perf_counter() - start:.0f} s", flush=True)  # noqa: T201

    return say


if __name__ == "__main__":
    main()
