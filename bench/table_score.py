"""Print the table of ratios of docs/PERFORMANCE.md: ours to the memory floor, peers to ours.

Contestants take turns and the least CPU time of all turns counts, because a machine is seldom ours alone. Peers see an
eighth of the table, which is still past every cache. COINFER_BENCH_BYTES sets the size of the table (default 640
million), COINFER_BENCH_TURNS how many turns there are. Arguments choose numbers of classes (default all) and `calls`,
the table of small calls.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import coinfer as ci
import scoring_peers as peers
from coinfer import _core

CLASSES = [2, 10, 33, 100, 1000]


def cpu_name():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown CPU"


def seconds(function, *arguments):
    start = time.thread_time()
    function(*arguments)
    return time.thread_time() - start


def repeat(function, argument, times):
    for _ in range(times):
        function(argument)


def least(contestants, turns):
    """Return the least CPU time of each of name -> (function, arguments), which take turns."""
    best = dict.fromkeys(contestants, float("inf"))
    for _ in range(turns):
        for name, (function, *arguments) in contestants.items():
            best[name] = min(best[name], seconds(function, *arguments))
    return best


def row_of_table(memory, classes, turns):
    rows = memory.size // classes
    table = memory[: rows * classes].reshape(rows, classes)
    part = table[: max(1, rows // 8)]
    out, part_out = peers.results(rows), peers.results(len(part))
    isas = [isa for isa in ci.cpu.implementations() if isa != "baseline"] or ["baseline"]
    contestants = {isa: (peers.coinfer(isa), table, out) for isa in isas}
    contestants["floor"] = (_core.cpu.read_floor, table.reshape(-1))
    if classes == 2:
        contestants["floor"] = (_core.cpu.read_write_floor, table.reshape(-1), peers.aligned(4 * rows))
    for run, *_ in [contestants[isa] for isa in isas]:
        peers.check(run, table[:3000])
    ours = {name: t / rows * 1e9 for name, t in least(contestants, turns).items()}
    ci.cpu.force("auto")
    for run in peers.PEERS.values():
        peers.check(run, table[:3000])
    theirs = least({name: (run, part, part_out) for name, run in peers.PEERS.items()}, 2)
    widest = isas[-1]
    cells = [str(classes), f"{ours['floor']:.2f}" + (" (with the writes)" if classes == 2 else "")]
    cells += [f"{ours[isa]:.2f} = {ours[isa] / ours['floor']:.2f}x" for isa in reversed(isas)]
    cells += [f"{theirs[name] / len(part) * 1e9 / ours[widest]:.0f}x" for name in peers.PEERS]
    return isas, cells


def main():
    size = int(float(os.environ.get("COINFER_BENCH_BYTES", 640e6)))
    turns = int(os.environ.get("COINFER_BENCH_TURNS", 7))
    memory = np.random.default_rng(0).standard_normal(size // 4, np.float32) * np.float32(3)
    write = sys.stdout.write
    write(f"{cpu_name()}, {os.cpu_count()} cores, one thread; {size / 1e6:.0f} MB of float32 logits\n\n")
    chosen = sys.argv[1:] or [*map(str, CLASSES), "calls"]
    for number, classes in enumerate(int(word) for word in chosen if word != "calls"):
        isas, cells = row_of_table(memory, classes, turns)
        if number == 0:
            heads = ["C", "floor, ns per row", *reversed(isas), *peers.PEERS]
            write("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|\n")
        write("| " + " | ".join(cells) + " |\n")
        sys.stdout.flush()
    if "calls" in chosen:
        small_calls(memory, write)


def small_calls(memory, write):
    write("\n| one call, C = 10 | score | scores, four results | numpy |\n|---|---|---|---|\n")
    for rows in (1, 8, 64):
        z = np.ascontiguousarray(memory[: rows * 10].reshape(rows, 10))
        best = {}
        for name, call in {"score": ci.score, "scores": ci.scores, "numpy": peers.with_numpy}.items():
            repeats = 300 if name == "numpy" else 3000
            best[name] = min(seconds(repeat, call, z, repeats) / repeats for _ in range(30))
        write(f"| {rows} rows | " + " | ".join(f"{best[name] * 1e6:.2f} us" for name in best) + " |\n")


if __name__ == "__main__":
    main()
