"""The command line of training: ``coinfer train demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    train = typer.Typer(help="Train early-exit networks over the nodes.", rich_markup_mode=None)
    train.callback()(lambda: None)  # a group even with one command
    train.command("demo")(demo)
    app.add_typer(train, name="train")


def demo(
    report: Annotated[Path, typer.Option("--report", metavar="FILE.html", help="Where the report goes.")] = Path(
        "training.html"
    ),
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the trained exits go.")] = Path("exits"),
    profile: Annotated[
        str, typer.Option("--profile", metavar="A-B-C", help="Percent settled at device, edge and cloud.")
    ] = "50-30-20",
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds of federated training.")] = 40,
    requests: Annotated[int, typer.Option("--requests", min=1, help="Requests to replay.")] = 1_000_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same result.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Train exits for digits over 90 devices, 9 edges and a cloud; replay a million requests; export; report."""
    from coinfer.cli import _check_targets, _print_json, _print_text, _progress
    from coinfer.train.demo import run
    from coinfer.train.flow import Profile

    _check_targets(report)
    Profile(profile).of(3)
    with _progress() as progress:
        found = run(report, out, profile=profile, rounds=rounds, requests=requests, seed=seed, progress=progress)
    if as_json:
        _print_json(found.to_dict())
        return
    _print_text(f"{found.headline}.\n")
    for line in found.details:
        _print_text(line)
    _print_text(f"\n{'weights':<14} served right       95 %          per exit on served samples   settled per exit")
    for each in found.trained:
        a = each.served.accuracy
        _print_text(
            f"{each.name:<14} {float(a):.4f}       {a.low:.3f}-{a.high:.3f}      "
            f"{' / '.join(f'{v:.3f}' for v in each.served.accuracy_served):<28} "
            f"{' / '.join(f'{v:.0%}' for v in each.served.settled_by_exit)}"
        )
    for name, summary in found.replays.items():
        _print_text(
            f"\n{summary.requests:,} requests on the {name}: {float(summary.accuracy or 0):.4f} right, mean "
            f"{summary.latency_us.mean / 1e3:.1f} ms, p99 {summary.latency_us.p99 / 1e3:.1f} ms"
        )
    _print_text(f"\nReport: {found.report}")
    _print_text(f"Exits for replay and live: {out}")
