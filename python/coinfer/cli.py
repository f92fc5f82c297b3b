"""The command line: ``coinfer demo``, ``compare``, ``explore``, ``replay``, ``tune``, ``validate``, ``info``.

Commands are thin: they read files, call what the library offers, and print. What needs NumPy, Arrow or
scikit-learn is imported inside the command that needs it, so that ``coinfer --help`` answers at once. Results
go to standard output and everything else (progress, errors) to standard error, so that ``--json`` can be
piped. Bad input ends with exit code 2 and one sentence; an interrupt with 130. Files appear when they are
complete, after all work has succeeded, or not at all.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coinfer.errors import BadFileError, BadValueError, CoinferError
from coinfer.live.commands import register as register_live
from coinfer.train.commands import register as register_train
from coinfer.tuning.command import register as register_tune

if TYPE_CHECKING:
    from coinfer.network import Network
    from coinfer.predictions import Predictions
    from coinfer.trace import Trace

__all__ = ["app", "main"]

app = typer.Typer(
    name="coinfer",
    help="Cooperative inference over delivery networks: replay, tune and run strategies.",
    add_completion=False,
    rich_markup_mode=None,  # plain help is wrapped well, and needs no second library to print it
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_TABLES = (".parquet", ".arrow", ".feather")
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]

PredictionsFile = Annotated[
    Path, typer.Argument(metavar="PREDICTIONS", help="Answers of the models: .parquet, .arrow or .npz.")
]
NetworkFile = Annotated[Path, typer.Option("--network", metavar="NET.toml", help="Nodes, links, models, deployments.")]
TraceFile = Annotated[
    Path | None,
    typer.Option("--trace", metavar="TRACE", help="Requests: .parquet or .arrow. Default: a Poisson process."),
]
Requests = Annotated[int, typer.Option("--requests", min=1, help="Requests to draw, without --trace.")]
Rate = Annotated[float, typer.Option("--rate", help="Requests per second, without --trace.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Same seed, same result.")]
Threads = Annotated[
    int, typer.Option("--threads", min=0, help="0: as many as there are processors. No result depends on it.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]

_SPECS = (
    "local, remote:NODE, forward:SCORE (tuned), forward:SCORE:any, forward:SCORE:0.9, forward:SCORE:0.9,0.8, "
    "gain:ALPHA (fitted), oracle, or a .toml file; NAME=SPEC names it."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: those of the process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(given or ["--help"], prog_name="coinfer", standalone_mode=False)
    except CoinferError as error:
        _say(str(error))
        code = 2
    except _UsageError as error:
        _say(error.format_message())  # type: ignore[attr-defined]
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    raise SystemExit(code if isinstance(code, int) else 0)


def _say(sentence: str) -> None:
    print(f"coinfer: {' '.join(sentence.split())}", file=sys.stderr)  # noqa: T201


# Commands ---------------------------------------------------------------------------------------------------


def _version(asked: bool) -> None:
    if asked:
        import coinfer

        _print_text(f"coinfer {coinfer.__version__}")
        raise typer.Exit


@app.callback()
def _whole(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Cooperative inference over delivery networks: replay, tune and run strategies."""


@app.command()
def demo(
    requests: Annotated[
        int, typer.Option("--requests", min=1, help="Requests to replay with each strategy.")
    ] = 1_000_000,
    report: Annotated[Path, typer.Option("--report", metavar="FILE.html", help="Where the report goes.")] = Path(
        "report.html"
    ),
    seed: Seed = 0,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Compare strategies on real models of handwritten digits, from phone to cloud."""
    from coinfer import demo as demonstration
    from coinfer.report import finding, write

    _check_targets(report)
    with _progress() as progress:
        result = demonstration.run(requests, seed=seed, threads=_threads(threads), progress=progress)
    write(result.comparison, report, result.title, notes=result.notes)
    headline = finding(result.comparison)
    if as_json:
        _print_json({"finding": headline, "report": str(report), "about": result.notes, **result.comparison.to_dict()})
        return
    _print(result.comparison)
    _print_text(f"\n{headline}\n")
    for what, how in result.notes.items():
        _print_text(f"{what}: {how}")
    _print_text(f"\nReport: {report}")


@app.command()
def compare(
    predictions: PredictionsFile,
    network: NetworkFile,
    trace: TraceFile = None,
    requests: Requests = 100_000,
    rate: Rate = 100.0,
    strategy: Annotated[
        list[str] | None, typer.Option("--strategy", metavar="SPEC", help=f"Once per strategy: {_SPECS}")
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", metavar="FILE.html", help="Write a report, too.")] = None,
    seed: Seed = 0,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Replay several strategies on one trace, side by side.

    Without --strategy: every tier alone, forwarding on every score there is, and the oracle. Strategies
    without thresholds are tuned on half of the samples, and then all are replayed on the other half; with
    --trace, which names its samples, they are tuned on all of them.
    """
    from coinfer._specs import default_strategies, named, tune_all, untuned
    from coinfer.comparing import compare as run
    from coinfer.demo import halves
    from coinfer.report import finding, write

    _check_targets(report)
    answers, net = _open(predictions, network)
    given = named(strategy) if strategy else default_strategies(answers, net)
    to_tune = [name for name, each in given.items() if untuned(each)]
    notes: dict[str, str] = {}
    fit = measured = answers
    if to_tune and trace is None:
        fit, measured = halves(answers, seed)
        notes["tuning"] = (
            f"{', '.join(to_tune)} were tuned on {len(fit):,} samples; "
            f"everything shown is measured on the {len(measured):,} others"
        )
    elif to_tune:
        notes["tuning"] = (
            f"{', '.join(to_tune)} were tuned on the very samples that the trace asks about; "
            "expect a little less on new ones"
        )
    requested = _requests(trace, net, requests, rate, len(measured), seed)
    notes["arrivals"] = (
        f"as {trace.name} gives them"
        if trace is not None
        else f"synthetic; {requests:,} of a Poisson process, {rate:g} per second, samples drawn uniformly"
    )
    with _progress() as progress:
        strategies = tune_all(given, fit, net, seed)
        comparison = run(
            requested,
            measured,
            net,
            strategies,
            seed=seed,
            threads=_threads(threads),
            progress=_replaying(progress),
        )
    if report is not None:
        write(comparison, report, f"{predictions.stem} over {network.stem}", notes=notes)
    headline = finding(comparison)
    if as_json:
        out: dict[str, Any] = {"finding": headline, "about": notes, **comparison.to_dict()}
        _print_json(out | ({"report": str(report)} if report is not None else {}))
        return
    _print(comparison)
    _print_text(f"\n{headline}\n")
    for what, how in notes.items():
        _print_text(f"{what}: {how}")
    if report is not None:
        _print_text(f"\nReport: {report}")


@app.command()
def explore(
    predictions: PredictionsFile,
    network: NetworkFile,
    minimise: Annotated[
        str | None, typer.Option("--minimise", help="price_usd or latency_us_mean. Default: price where there is one.")
    ] = None,
    points: Annotated[int, typer.Option("--points", min=1, help="Settings tried per family of strategies.")] = 24,
    save: Annotated[Path | None, typer.Option("--save", metavar="S.toml", help="Write the chosen strategy.")] = None,
    report: Annotated[Path | None, typer.Option("--report", metavar="FILE.html", help="Write a report, too.")] = None,
    seed: Seed = 0,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Try the whole catalogue on one half of the samples, and measure what was chosen on the other."""
    from coinfer.exploring import explore as run

    _check_targets(save, report)
    answers, net = _open(predictions, network)
    with _progress() as progress:
        found = run(
            answers,
            net,
            minimise=minimise,
            points=points,
            seed=seed,
            threads=_threads(threads),
            progress=_replaying(progress),
        )
    if save is not None:
        found.strategy.save(save)
    if report is not None:
        found.report(report, f"{predictions.stem} over {network.stem}")
    if as_json:
        written = {key: str(path) for key, path in (("saved", save), ("report", report)) if path is not None}
        _print_json(found.to_dict() | written)
        return
    _print(found.comparison)
    _print_text(f"\n{found}\n")
    for what, path in (("Strategy", save), ("Report", report)):
        if path is not None:
            _print_text(f"{what}: {path}")


@app.command("sweep-load")
def sweep_load(
    predictions: PredictionsFile,
    network: NetworkFile,
    rates: Annotated[str, typer.Option("--rates", metavar="R1,R2,...", help="Requests per second, with commas.")],
    strategy: Annotated[
        list[str] | None, typer.Option("--strategy", metavar="SPEC", help=f"Once per strategy: {_SPECS}")
    ] = None,
    requests: Annotated[int, typer.Option("--requests", min=10, help="Per strategy and rate.")] = 50_000,
    arrivals: Annotated[
        Path | None,
        typer.Option("--arrivals", metavar="FILE", help="Recorded arrivals (CSV, JSONL), kept as bursty as they are."),
    ] = None,
    deadline_ms: Annotated[float | None, typer.Option("--deadline-ms", help="Of every request.")] = None,
    report: Annotated[Path | None, typer.Option("--report", metavar="FILE.html", help="Write a report, too.")] = None,
    seed: Seed = 0,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Replay strategies with queues at several rates: who drowns what, and when."""
    from coinfer._specs import default_strategies, named, tune_all, untuned
    from coinfer.demo import halves
    from coinfer.sweeping import sweep_load as run
    from coinfer.trace import Trace

    _check_targets(report)
    answers, net = _open(predictions, network)
    try:
        wanted = [float(rate) for rate in rates.split(",")]
    except ValueError:
        msg = f"--rates must be numbers with commas between them, not {rates!r}"
        raise BadValueError(msg) from None
    given = named(strategy) if strategy else default_strategies(answers, net)
    fit = measured = answers
    if any(untuned(each) for each in given.values()):
        fit, measured = halves(answers, seed)
    recorded = None if arrivals is None else Trace.read_arrivals(arrivals) / 1e9
    with _progress() as progress:
        found = run(
            measured,
            net,
            tune_all(given, fit, net, seed),
            rates_rps=wanted,
            requests=requests,
            arrivals=recorded,
            deadline_us=None if deadline_ms is None else 1e3 * deadline_ms,
            seed=seed,
            threads=_threads(threads),
            progress=_replaying(progress),
        )
    if report is not None:
        found.report(report, f"{predictions.stem} over {network.stem}, under load")
    if as_json:
        _print_json(found.to_dict() | ({"report": str(report)} if report is not None else {}))
        return
    _print_text(f"{found}")
    if report is not None:
        _print_text(f"\nReport: {report}")


@app.command()
def replay(
    predictions: Annotated[
        Path | None, typer.Argument(metavar="PREDICTIONS", help="Answers of the models: .parquet, .arrow or .npz.")
    ] = None,
    network: Annotated[
        Path | None, typer.Option("--network", metavar="NET.toml", help="Nodes, links, models, deployments.")
    ] = None,
    strategy: Annotated[str | None, typer.Option("--strategy", metavar="SPEC", help=_SPECS)] = None,
    from_run: Annotated[
        Path | None,
        typer.Option("--from", metavar="RUN", help="Replay the journal of a live run: decisions must be equal."),
    ] = None,
    trace: TraceFile = None,
    requests: Requests = 100_000,
    rate: Rate = 100.0,
    outcomes: Annotated[
        Path | None, typer.Option("--outcomes", metavar="OUT.parquet", help="Write a row per request.")
    ] = None,
    explain: Annotated[
        int | None, typer.Option("--explain", metavar="I", min=0, help="Say why request I ended as it did.")
    ] = None,
    seed: Seed = 0,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Replay one strategy and say what it gave."""
    from coinfer._specs import parse, untuned
    from coinfer.errors import UnsupportedError
    from coinfer.replaying import replay as run

    if from_run is not None:
        from coinfer.live.commands import replay_run

        replay_run(from_run, predictions, as_json)
        return
    if predictions is None or network is None or strategy is None:
        given = (("PREDICTIONS", predictions), ("--network", network), ("--strategy", strategy))
        msg = f"replay needs {', '.join(what for what, value in given if value is None)} (or --from RUN)"
        raise typer.BadParameter(msg)
    _check_targets(outcomes)
    _check_table(outcomes)
    name, chosen = parse(strategy)
    if untuned(chosen):
        msg = f"{name} is not ready to run: write forward:SCORE:0.9, or name a file that coinfer tune --save wrote"
        raise UnsupportedError(msg)
    answers, net = _open(predictions, network)
    requested = _requests(trace, net, requests, rate, len(answers), seed)
    result = run(requested, answers, net, chosen, seed=seed, threads=_threads(threads))
    explanation = None if explain is None else result.explain(explain)
    if outcomes is not None:
        _write_table(result.outcomes(), outcomes)
    if as_json:
        out = result.summary.to_dict()
        if explanation is not None:
            out["explanation"] = explanation.to_dict()
        _print_json(out | ({"outcomes": str(outcomes)} if outcomes is not None else {}))
        return
    _print(result)
    if explanation is not None:
        _print_text(f"\n{explanation}")
    if outcomes is not None:
        _print_text(f"\nOutcomes: {outcomes}")


@app.command()
def validate(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Predictions, traces, networks or strategies.")
    ],
    as_json: AsJson = False,
) -> None:
    """Check files, and say what each is and what it holds."""
    found: list[dict[str, str]] = []
    wrong: list[str] = []
    for file in files:
        try:
            kind, holds = _inspect(file)
        except CoinferError as error:
            wrong.append(str(error))
            found.append({"file": str(file), "error": str(error)})
        else:
            found.append({"file": str(file), "kind": kind, "holds": holds})
    if as_json:
        _print_json({"files": found, "valid": not wrong})
    else:
        for each in found:
            if "kind" in each:
                _print_text(f"{each['file']}: {each['kind']}\n{_indent(each['holds'])}")
    for sentence in wrong:
        _say(sentence)
    if wrong:
        raise typer.Exit(2)


@app.command()
def info(as_json: AsJson = False) -> None:
    """Say what this installation is and what it runs on."""
    import importlib.util
    import platform

    import coinfer

    extras = {"triton": "tritonclient", "train": "torch", "flower": "flwr"}
    facts: dict[str, Any] = {
        "coinfer": coinfer.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "threads": _threads(0),
        "implementations": coinfer.cpu.implementations(),
        "implementation": coinfer.cpu.implementation(),
        "extras": {extra: importlib.util.find_spec(module) is not None for extra, module in extras.items()},
    }
    if as_json:
        _print_json(facts)
        return
    shown = {
        **facts,
        "implementations": ", ".join(facts["implementations"]),
        "extras": ", ".join(
            f"{extra} {'found' if there else 'not installed'}" for extra, there in facts["extras"].items()
        ),
    }
    for what, value in shown.items():
        _print_text(f"{what:<16} {value}")


register_live(app)
register_train(app)
register_tune(app)


# Reading ----------------------------------------------------------------------------------------------------


def _open(predictions: Path, network: Path) -> tuple[Predictions, Network]:
    from coinfer.network import Network
    from coinfer.predictions import Predictions

    net = Network.open(network)
    return Predictions.open(predictions), net


def _requests(trace: Path | None, network: Network, requests: int, rate: float, samples: int, seed: int) -> Trace:
    from coinfer.trace import Trace

    if trace is not None:
        return Trace.open(trace)
    return Trace.poisson(network, rate_rps=rate, requests=requests, samples=samples, seed=seed)


def _inspect(file: Path) -> tuple[str, str]:
    """Return what a file is and what it holds."""
    from coinfer.network import Network
    from coinfer.predictions import Predictions
    from coinfer.strategy import Strategy
    from coinfer.trace import Trace

    suffix = file.suffix.lower()
    if not file.is_file():
        msg = f"{file}: no such file"
        raise BadFileError(msg)
    if suffix == ".toml":
        if _is_strategy(file):
            return "strategy", str(Strategy.open(file))
        return "network", repr(Network.open(file))
    if suffix in (".npz", ".csv"):
        return "predictions", repr(Predictions.open(file))
    if suffix in _TABLES:
        if "arrival_ns" in _columns(file):
            return "trace", repr(Trace.open(file))
        return "predictions", repr(Predictions.open(file))
    allowed = ".toml, .parquet, .arrow, .feather, .npz, .csv"
    msg = f"{file}: its suffix does not say what it holds; allowed are {allowed}"
    raise BadValueError(msg)


def _is_strategy(file: Path) -> bool:
    import tomllib

    try:
        table = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        msg = f"{file}: cannot be read as TOML: {error}"
        raise BadFileError(msg) from error
    return "kind" in table


def _columns(file: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet

    try:
        if file.suffix.lower() == ".parquet":
            return list(pa.parquet.read_schema(file).names)
        with pa.memory_map(str(file)) as source, pa.ipc.open_file(source) as reader:
            return list(reader.schema.names)
    except (OSError, pa.ArrowInvalid) as error:
        msg = f"{file}: cannot be read as a table: {str(error).splitlines()[0]}"
        raise BadFileError(msg) from error


def _check_targets(*targets: Path | None) -> None:
    """Refuse, before any work, to write where nothing can be written."""
    for target in targets:
        if target is None:
            continue
        if target.is_dir():
            msg = f"{target}: is a folder; give the name of a file to write"
            raise BadFileError(msg)
        if not target.absolute().parent.is_dir():
            msg = f"{target}: cannot be written, because there is no folder {str(target.absolute().parent)!r}"
            raise BadFileError(msg)


def _check_table(target: Path | None) -> None:
    """Refuse, before any work, to write a table in a format that is not known."""
    from coinfer._files import suffix_of

    if target is not None:
        suffix_of(target, _TABLES)


def _threads(wanted: int) -> int:
    if wanted:
        return wanted
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    import platform

    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# Writing ----------------------------------------------------------------------------------------------------


def _write_table(table: Any, path: Path) -> None:
    import pyarrow.feather
    import pyarrow.parquet

    from coinfer._files import replacing, suffix_of

    with replacing(path) as part:
        if suffix_of(path, _TABLES) == ".parquet":
            pyarrow.parquet.write_table(table, part)
        else:
            pyarrow.feather.write_feather(table, part, compression="uncompressed")


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    """JSON has no NaN, which becomes null, and no infinity, which becomes "inf": what float() reads."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(float(value))
    return value


def _print_text(text: str) -> None:
    sys.stdout.write(text + "\n")


def _print(thing: Any) -> None:
    """Print a result: as a table on a terminal, as plain text anywhere else."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(thing)
    else:
        _print_text(str(thing))


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


Progress = Callable[[str, int, int], None]


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """Yield ``progress(what, done, total)``, drawn on standard error if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield show


def _replaying(progress: Progress) -> Progress:
    return lambda name, done, total: progress(f"replaying {name}".rstrip(), done, total)


if __name__ == "__main__":
    main()
