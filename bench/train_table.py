"""Which weights should the exits have? Served accuracy on MNIST-10k by serving profile, split of the data and strategy.

``make train-table`` runs it and writes the result between the markers in docs/training.md. A small tree of clients (six
devices, two edges, a cloud) stands for a larger one; each seed draws its own training, calibration and test samples,
initial weights and order of batches. Strategies that do not look at the profile (equal, compute, separate models) are
trained once per seed and split. Everything compared is paired: same seed, same samples, same initial weights.

``--choose`` compares ways to train and to deliver with other seeds, on 3,000 images that are set aside: no training,
calibration or test sample of the table is among them. Only the training settings rest on it. The re-measured balanced
rule, samples counted where they reach, ``effective=0.5`` and the widths were chosen in trial runs that were measured on
images of the table's pool (seeds 100 and 101), so for these the table is not a clean test.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from coinfer import ModelOutput, Predictions, train
from coinfer.train.flow import PROFILES

FIXED = ("equal", "compute", "serving_rate", "balanced")
STRATEGIES = (*FIXED, "delivered", "separate", "boosting")
SPLITS = ("iid", "difficulty")
ASIDE = 3000


@dataclass(frozen=True)
class Plan:
    """What is run."""

    profiles: Sequence[str] = PROFILES
    seeds: int = 8
    training: int = 2000
    calibration: int = 2000
    test: int = 3000
    widths: Sequence[int] = (8, 32, 64)
    counts: Sequence[int] = (6, 2, 1)
    tier_data: Sequence[float] = (0.5, 0.25, 0.25)
    bias: float = 0.6
    settings: train.Settings = train.Settings(  # noqa: RUF009 - frozen
        rounds=30,
        batch=30,
        learning_rate=0.1,
        momentum=0.5,
        method="fedadam",
        server_learning_rate=0.03,
        device="cpu",
    )


def load(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Read the images, halve their sides, and scale them to [0, 1]."""
    with np.load(path) as held:
        images, labels = held["images"], held["labels"]
    small = images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)) / 255
    return small.reshape(len(small), 196).astype(np.float32), labels.astype(np.int64)


class Case:
    """One seed and split: the network, the clients with their data, and the samples to measure on."""

    def __init__(self, plan: Plan, images: Any, labels: Any, seed: int, split: str, *, aside: bool = False) -> None:
        pool = np.random.Generator(np.random.Philox(2024)).permutation(len(images))
        order = np.random.Generator(np.random.Philox(seed)).permutation(pool[ASIDE:])
        ends = np.cumsum([plan.training, plan.calibration, plan.test])
        fit, self.calibration, self.test, _ = np.split(order, ends)
        if aside:
            self.test = pool[:ASIDE]
        self.images, self.labels, self.plan = images, labels, plan
        self.settings = replace(plan.settings, seed=seed)
        self.x, self.y = images[fit], labels[fit]
        self.model = train.dense(images.shape[1], 10, plan.widths, seed=seed)
        nodes, links = train.tree(plan.counts)
        network = train.deploy(self.model, nodes, links, service_ms=[1.0] * len(self.model))
        shares = [share / count for share, count in zip(plan.tier_data, plan.counts, strict=True) for _ in range(count)]
        hardness = train.difficulty(self.x, self.y)
        held = train.split(split, self.y, shares, seed=seed, hardness=hardness, bias=plan.bias)
        self.clients = train.clients(network, held)

    def joint(self, weights: Any, profile: str | None = None) -> Any:
        """Train all exits together."""
        return train.federated(
            self.model, self.x, self.y, self.clients, weights=weights, profile=profile, settings=self.settings
        ).model

    def boosted(self, profile: str) -> Any:
        """Train tier by tier, each for as many rounds as joint training has for all."""
        rounds = self.settings.rounds * len(self.model)
        settings = replace(self.settings, rounds=rounds)
        return train.boost(self.model, self.x, self.y, self.clients, profile=profile, settings=settings).model

    def served(self, by_exit: Any, profile: str) -> train.Served:
        """Set thresholds on the calibration samples and measure on the test samples."""

        def said(part: Any) -> Predictions:
            models = by_exit if isinstance(by_exit, list) else [by_exit] * len(self.model)
            logits = [each.logits(self.images[part], depth=e + 1)[e] for e, each in enumerate(models)]
            found = {f"exit-{e}": ModelOutput(logits=z) for e, z in enumerate(logits, 1)}
            return Predictions(found, labels=self.labels[part])

        return train.served(said(self.calibration), said(self.test), profile)


def of_seed(plan: Plan, images: Any, labels: Any, seed: int) -> list[dict[str, Any]]:
    """Train and evaluate everything for one seed; one record per split, profile and strategy."""
    records = []
    for split in SPLITS:
        case = Case(plan, images, labels, seed, split)
        exits = range(len(case.model))
        trained: dict[str, Any] = {name: case.joint(name) for name in ("equal", "compute")}
        trained["separate"] = [case.joint([float(k == e) for k in exits]) for e in exits]
        for profile in plan.profiles:
            for weights in ("serving_rate", "balanced", "delivered"):
                trained[weights] = case.joint(weights, profile)
            trained["boosting"] = case.boosted(profile)
            for strategy in STRATEGIES:
                found = case.served(trained[strategy], profile)
                records.append(
                    {
                        "split": split, "profile": profile, "strategy": strategy, "seed": seed,
                        "accuracy": float(found.accuracy), "by_exit": found.accuracy_by_exit,
                        "served": found.accuracy_served, "settled": found.settled_by_exit,
                        "correct": _packed(found.correct), "samples": len(found.correct),
                        "cloud_right": _packed(found.right[:, -1]), "cloud_reached": _packed(found.reached[:, -1]),
                    }
                )  # fmt: skip
    return records


def run(plan: Plan, images: Any, labels: Any, *, jobs: int = 1, kept: Any = None) -> list[dict[str, Any]]:
    """Run every seed, in so many processes; `kept` is called with the records after each."""
    records: list[dict[str, Any]] = []
    with ProcessPoolExecutor(jobs) as pool:
        several = [pool.submit(of_seed, plan, images, labels, seed) for seed in range(plan.seeds)] if jobs > 1 else None
        for seed in range(plan.seeds):
            records += several[seed].result() if several else of_seed(plan, images, labels, seed)
            if kept is not None:
                kept(records)
    return records


# What the training settings rest on -----------------------------------------------------------------------------------

TRAININGS = {
    f"{method} {rate:g}" + (f", server {server:g}" if method == "fedadam" else ""): {
        "method": method, "learning_rate": rate, "server_learning_rate": server,
    }
    for method, rate, server in (
        ("fedavg", 0.1, 0.01), ("fedavg", 0.3, 0.01),
        ("fedadam", 0.02, 0.03), ("fedadam", 0.1, 0.01), ("fedadam", 0.1, 0.03), ("fedadam", 0.1, 0.1),
    )
}  # fmt: skip
DELIVERIES = {
    f"{on}, {shares}, effective {effective:g}": train.Delivered(on=on, shares=shares, effective=effective)
    for on, shares, effective in (
        ("settled", "serving_rate", 0.1), ("settled", "serving_rate", 0.5), ("reached", "serving_rate", 0.5),
        ("settled", "balanced", 0.5),
        ("reached", "balanced", 0.1), ("reached", "balanced", 0.3), ("reached", "balanced", 0.5),
        ("reached", "balanced", 0.7),
    )
}  # fmt: skip


def choose(plan: Plan, images: Any, labels: Any, seeds: Sequence[int] = (100, 101)) -> Iterator[str]:
    """Compare ways to train, then (after the fact) to deliver, on the images set aside: mean over three profiles."""
    profiles = ("80-15-5", "33-33-33", "5-15-80")

    def mean(each: Plan, weights: Sequence[Any]) -> float:
        found = []
        for seed, split in itertools.product(seeds, SPLITS):
            case = Case(each, images, labels, seed, split, aside=True)
            for name in weights:
                once = case.joint(name) if name == "equal" else None
                for profile in profiles:
                    found.append(float(case.served(once or case.joint(name, profile), profile).accuracy))
        return float(np.mean(found))

    for name, changes in TRAININGS.items():
        changed = replace(plan, settings=replace(plan.settings, **changes))
        yield f"| {name} | {100 * mean(changed, ('equal', 'serving_rate')):.2f} |"
    for name, delivered in {"balanced": "balanced", **DELIVERIES}.items():
        yield f"| {name} | {100 * mean(plan, [delivered]):.2f} |"


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


def _packed(flags: np.ndarray[Any, Any]) -> str:
    return np.packbits(flags).tobytes().hex()


def _flags(record: dict[str, Any], key: str) -> np.ndarray[Any, Any]:
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(record[key]), np.uint8))
    return bits[: record["samples"]].astype(bool)


def _by_seed(records: list[dict[str, Any]], split: str, profile: str, strategy: str) -> dict[int, dict[str, Any]]:
    return {r["seed"]: r for r in records if (r["split"], r["profile"], r["strategy"]) == (split, profile, strategy)}


def paired(
    records: list[dict[str, Any]], split: str, profile: str, a: str, b: str, *, cloud_of: str | None = None
) -> dict[str, float]:
    """Compare two strategies: mean difference over seeds with its interval, and an exact McNemar test over samples.

    With `cloud_of`, their cloud exits are compared, on the samples that reach the cloud exit of that strategy.
    """
    from scipy.stats import binomtest

    one, other = (_by_seed(records, split, profile, strategy) for strategy in (a, b))
    reaching = _by_seed(records, split, profile, cloud_of) if cloud_of else None
    won = lost = 0
    differences = []
    for seed in one:
        key = "cloud_right" if reaching else "correct"
        x, y = _flags(one[seed], key), _flags(other[seed], key)
        if reaching:
            rows = _flags(reaching[seed], "cloud_reached")
            x, y = x[rows], y[rows]
        won += int((x & ~y).sum())
        lost += int((~x & y).sum())
        differences.append(x.mean() - y.mean())
    p = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    found = np.array(differences)
    return {"mean": float(found.mean()), "half": interval(found), "p": p}


def overall(
    records: list[dict[str, Any]], split: str, profiles: Sequence[str], a: str, b: str
) -> tuple[float, float, float]:
    """Compare two strategies over all profiles: the mean difference over seeds, its interval, p of a t-test."""
    from scipy.stats import ttest_1samp

    each = [accuracies(records, split, p, a) - accuracies(records, split, p, b) for p in profiles]
    by_seed = np.mean(each, axis=0)
    p = float(ttest_1samp(by_seed, 0.0).pvalue) if len(by_seed) > 1 and by_seed.any() else 1.0
    return float(by_seed.mean()), interval(by_seed), p


def behind(records: list[dict[str, Any]], split: str, profile: str, strategy: str) -> float:
    """Say how far a strategy is behind the best of the weights per exit, in mean accuracy."""
    best = max(accuracies(records, split, profile, s).mean() for s in FIXED)
    return float(best - accuracies(records, split, profile, strategy).mean())


def _cell(difference: dict[str, float], tests: int) -> str:
    star = "*" if difference["p"] < 0.05 / tests else ""
    return f"{100 * difference['mean']:+.2f} ± {100 * difference['half']:.2f}{star}"


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
            cells = [_cell(paired(records, split, profile, a, b), len(plan.profiles)) for a, b in pairs]
            lines.append(f"| {profile} | " + " | ".join(cells) + " |")
        found = [overall(records, split, plan.profiles, a, b) for a, b in pairs]
        lines.append(
            "| mean | " + " | ".join(f"{100 * m:+.2f} ± {100 * h:.2f} (p = {p:.2g})" for m, h, p in found) + " |"
        )
    lines += [
        (
            "\n**Behind the best weights per exit** (of equal, compute, serving_rate, balanced), percentage points, "
            "at worst / on average over the profiles.\n"
        ),
        "| split | " + " | ".join((*FIXED, "delivered")) + " |",
        "|---" * (len(FIXED) + 2) + "|",
    ]
    for split in SPLITS:
        gaps = [[behind(records, split, profile, s) for profile in plan.profiles] for s in (*FIXED, "delivered")]
        lines.append(f"| {split} | " + " | ".join(f"{100 * max(g):.2f} / {100 * np.mean(g):.2f}" for g in gaps) + " |")
    for split in SPLITS:
        others = [strategy for strategy in STRATEGIES if strategy != "serving_rate"]
        lines += [
            (
                f"\n**The cloud exit, split: {split}.** Share right, percent: with the serving rates on all samples → "
                "on those that reach it (what delivery costs); then the cloud exits of the others on these same "
                "samples (what is regained), as differences ± 95 % over seeds, * as above.\n"
            ),
            "| profile | serving_rate | " + " | ".join(others) + " |",
            "|---" * (len(others) + 2) + "|",
        ]
        for profile in plan.profiles:
            right = {
                seed: _flags(r, "cloud_right") for seed, r in _by_seed(records, split, profile, "serving_rate").items()
            }
            rows = {
                seed: _flags(r, "cloud_reached")
                for seed, r in _by_seed(records, split, profile, "serving_rate").items()
            }
            on_all = np.mean([z.mean() for z in right.values()])
            on_reached = np.mean([right[seed][rows[seed]].mean() for seed in right])
            cells = [f"{100 * on_all:.1f} → {100 * on_reached:.1f}"]
            cells += [
                _cell(paired(records, split, profile, s, "serving_rate", cloud_of="serving_rate"), len(plan.profiles))
                for s in others
            ]
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
        f"difficulty {plan.bias:g}. {seconds / 60:.0f} minutes in two processes."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the full table and write it into the documentation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/mnist10k.npz"))
    parser.add_argument("--out", type=Path, default=Path("docs/training.md"))
    parser.add_argument("--records", type=Path, default=Path("build/train_table.json"))
    parser.add_argument("--seeds", type=int, default=Plan.seeds)
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--profiles", nargs="*", default=PROFILES)
    parser.add_argument("--choose", action="store_true", help="print what the training settings rest on, and end")
    parser.add_argument("--render", action="store_true", help="only write the tables of the records that are there")
    given = parser.parse_args()
    plan = Plan(seeds=given.seeds, profiles=given.profiles)
    given.records.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()

    def say(line: str) -> None:
        print(f"{line}  {time.perf_counter() - start:.0f} s", flush=True)  # noqa: T201

    def keep(records: list[dict[str, Any]]) -> None:
        spent = time.perf_counter() - start
        given.records.write_text(json.dumps({"seconds": spent, "records": records}))
        say(f"{records[-1]['seed'] + 1} of {plan.seeds} seeds")

    if given.choose:
        for line in choose(plan, *load(given.data)):
            say(line)
        return
    if not given.render:
        run(plan, *load(given.data), jobs=given.jobs, kept=keep)
    held = json.loads(given.records.read_text())
    plan = replace(plan, seeds=len({record["seed"] for record in held["records"]}))
    table = markdown(held["records"], plan, held["seconds"])
    opening, closing = "<!-- table -->", "<!-- end of table -->"
    text = given.out.read_text("utf-8") if given.out.exists() else f"{opening}\n{closing}\n"
    before, rest = text.split(opening)
    after = rest.split(closing, 1)[1]
    given.out.write_text(f"{before}{opening}\n{table}{closing}{after}", "utf-8")


if __name__ == "__main__":
    main()
