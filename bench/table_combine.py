"""Print the tables of docs/PERFORMANCE.md about combining: budgets for four models, and ten models beside peers.

`budgets`: four tables of probabilities, 320 MB in all, as multiples of the time that a plain read of the same bytes
takes. `peers`: scikit-learn and DESlib on the same inputs, each contestant in a fresh process that measures the read of
its inputs, too. DESlib counts votes with scipy.stats.mstats.mode, row by row: that contestant sees a twentieth of the
rows, and its time and memory are multiplied by twenty.

Usage: python bench/table_combine.py [budgets | peers [ROWS [CONTESTANT...]]]; the default is both, with 1,000,000 rows.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import coinfer as ci
from coinfer._core import cpu
from combining_peers import CONTESTANTS

BUDGET = {"mean": 1.1, "logpool": 1.7}
BYTES = 320_000_000
ROUNDS = 9


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def least(whole):
    """Seconds of each way to combine and of reading alone, the least of rounds in which they take turns."""
    members = list(whole)
    out = {how: ci.combine(members, how) for how in BUDGET}
    runs = {how: functools.partial(ci.combine, members, how, out=out[how]) for how in BUDGET}
    runs["floor"] = functools.partial(cpu.read_floor, whole.reshape(-1))
    rounds = [{name: seconds(run) for name, run in runs.items()} for _ in range(ROUNDS)]
    return {name: min(found[name] for found in rounds) for name in runs}


def budgets():
    say("| C | read floor, GB/s | mean (budget 1.1) | logpool (budget 1.7) |")
    say("|---|---|---|---|")
    for classes in (10, 33, 100, 1000):
        whole = np.random.default_rng(classes).random((4, BYTES // (16 * classes), classes), dtype=np.float32)
        whole /= whole.sum(axis=2, keepdims=True)
        best = least(whole)
        cells = (f"{best[how] / best['floor']:.2f}x" for how in BUDGET)
        say(f"| {classes} | {whole.nbytes / best['floor'] / 1e9:.1f} | {' | '.join(cells)} |")


def peers(rows=1_000_000, *only):
    say(f"{int(rows):,} rows, 10 models, 10 classes")
    say("| combiner | who | ms | reading alone, ms | times coinfer's | MB on top of the inputs | labels |")
    say("|---|---|---|---|---|---|---|")
    ours = {}
    for contestant in only or CONTESTANTS:
        group, _, who = contestant.partition("/")
        script = Path(__file__).with_name("combining_peers.py")
        part = 20 if contestant == "vote/DESlib" else 1
        command = [sys.executable, script, contestant, str(int(rows) // part)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        first = ours.setdefault(group, found)
        same = "in the tests" if part > 1 else "equal" if found["labels"] == first["labels"] else "DIFFER"
        ms, floor, ratio = (
            part * x for x in (1e3 * found["seconds"], 1e3 * found["floor"], found["seconds"] / first["seconds"])
        )
        say(f"| {group} | {who} | {ms:.1f} | {floor:.1f} | {ratio:.1f} | {part * found['peak_mb']:.0f} | {same} |")


def main(which="both", *arguments):
    if which in ("budgets", "both"):
        budgets()
    if which in ("peers", "both"):
        peers(*arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
