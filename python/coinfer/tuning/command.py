"""``coinfer tune``: find parameters that cost least and meet the bounds, certify them, and say so in the exit code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="tune")(_tune)


def _tune(
    predictions: Annotated[
        Path | None, typer.Argument(metavar="[PREDICTIONS]", help="Answers of the models: .parquet, .arrow or .npz.")
    ] = None,
    network: Annotated[
        Path | None, typer.Option("--network", metavar="NET.toml", help="Nodes, links, models, deployments.")
    ] = None,
    problem: Annotated[
        Path | None,
        typer.Option("--problem", metavar="P.toml", help="Strategy, bounds and split; options given here go first."),
    ] = None,
    strategy: Annotated[
        str | None, typer.Option("--strategy", metavar="SPEC", help="What to tune, such as forward:margin:each.")
    ] = None,
    score: Annotated[
        str | None, typer.Option("--score", help="What Forward compares with the threshold. Default: max_prob.")
    ] = None,
    minimise: Annotated[
        str | None,
        typer.Option("--minimise", help="price_usd, latency_us_mean, latency_us_p99, forwarded_share, stages, ..."),
    ] = None,
    subject_to: Annotated[
        list[str] | None,
        typer.Option("--subject-to", metavar="BOUND", help="Such as 'accuracy >= 0.95'; repeatable."),
    ] = None,
    confidence: Annotated[
        float | None, typer.Option("--confidence", help="Certify the bounds with this probability, such as 0.95.")
    ] = None,
    split: Annotated[
        bool | None,
        typer.Option("--split/--no-split", help="Choose on some of the samples and measure on the others."),
    ] = None,
    ingress: Annotated[str | None, typer.Option("--ingress", help="Tune for requests that enter here.")] = None,
    trace: Annotated[
        Path | None,
        typer.Option("--trace", metavar="TRACE", help="Replay candidates on these requests, with queues."),
    ] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Requests per second, for load[NODE].")] = None,
    any_tiers: Annotated[bool, typer.Option("--any-tiers", help="Tiers may be left out.")] = False,
    front: Annotated[
        Path | None, typer.Option("--front", metavar="OUT.parquet", help="Write every operating point.")
    ] = None,
    save: Annotated[Path | None, typer.Option("--save", metavar="S.toml", help="Write the tuned strategy.")] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.html", help="Draw the front and the chosen point.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Same seed, same result.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Find the parameters that cost least and meet the bounds, and certify them.

    Exits with 1 if the bounds cannot be met (and shows the nearest point and the bound that is missed) or
    cannot be certified.
    """
    from coinfer import cli
    from coinfer._specs import parse
    from coinfer.errors import BadValueError
    from coinfer.strategy import Forward
    from coinfer.trace import Trace
    from coinfer.tuning.problem import Problem

    cli._check_targets(front, save, report)
    cli._check_table(front)
    asked = Problem.open(problem) if problem is not None else Problem(Forward())
    answers_file, network_file = predictions or asked.predictions, network or asked.network
    if answers_file is None or network_file is None:
        msg = "tune needs PREDICTIONS and --network NET.toml, or a --problem P.toml that names them"
        raise BadValueError(msg)
    if strategy is not None:
        asked = replace(asked, strategy=parse(strategy)[1])
    chosen = asked.strategy
    if isinstance(chosen, Forward):
        chosen = replace(chosen, score=score or chosen.score, models="any" if any_tiers else chosen.models)
    given: dict[str, Any] = {
        "minimise": minimise,
        "subject_to": subject_to,
        "confidence": confidence,
        "seed": seed,
        "ingress": ingress,
        "rate_rps": rate,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    if trace is not None:
        changes["trace"] = Trace.open(trace)
    if split is not None:
        changes["split"] = "auto" if split else None
    answers, net = cli._open(answers_file, network_file)
    with cli._progress() as progress:
        found = replace(asked, strategy=chosen).solve(answers, net, progress=progress, **changes)
    if front is not None:
        cli._write_table(found.front, front)
    if save is not None:
        found.strategy.save(save)
    if report is not None:
        found.report(report)
    written = {"front": front, "saved": save, "report": report}
    if as_json:
        cli._print_json(found.to_dict() | {key: str(path) for key, path in written.items() if path is not None})
    else:
        cli._print(found)
        for what, path in (("Operating points", front), ("Strategy", save), ("Report", report)):
            if path is not None:
                cli._print_text(f"{what}: {path}")
    if not found.feasible or (found.asked and found.certificate is None):
        raise typer.Exit(1)
