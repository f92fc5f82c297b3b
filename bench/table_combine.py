"""Print the table of docs/PERFORMANCE.md that compares combining ten models with scikit-learn and DESlib.

DESlib counts votes with scipy.stats.mstats.mode, row by row: that contestant sees a twentieth of the rows, and its time
and memory are multiplied by twenty.

Usage: python bench/table_combine.py [ROWS [CONTESTANT...]]; the default is 1,000,000 rows and all contestants.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from combining_peers import CONTESTANTS


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(rows=1_000_000, *only):
    say(f"{int(rows):,} rows, 10 models, 10 classes, one thread of coinfer's")
    say("| combiner | who | ms | times coinfer's | MB on top of the inputs | labels |")
    say("|---|---|---|---|---|---|")
    ours = {}
    for contestant in only or CONTESTANTS:
        group, _, who = contestant.partition("/")
        script = Path(__file__).with_name("combining_peers.py")
        part = 20 if contestant == "vote/DESlib" else 1
        command = [sys.executable, script, contestant, str(int(rows) // part)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        first = ours.setdefault(group, found)
        same = "in the tests" if part > 1 else "equal" if found["labels"] == first["labels"] else "DIFFER"
        ms, peak_mb, ratio = 1e3 * found["seconds"], found["peak_mb"], found["seconds"] / first["seconds"]
        say(f"| {group} | {who} | {part * ms:.1f} | {part * ratio:.1f} | {part * peak_mb:.0f} | {same} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
