"""The command line of live runs: ``coinfer live``, ``collect``, ``profile``, ``triton up``, and ``replay --from``."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coinfer.errors import BadFileError, BadValueError

if TYPE_CHECKING:
    from coinfer.live.running import Progress

__all__ = ["register", "replay_run"]

_SPEC = "local, remote:NODE, forward:SCORE:0.9, forward:SCORE:0.9,0.8, ensemble:HOW, or a .toml file that tune wrote."


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("live")(live)
    app.command("collect")(collect)
    app.command("profile")(profile)
    triton = typer.Typer(help="Real Triton servers on this machine.", rich_markup_mode=None)
    triton.command("up")(up)
    triton.command("info")(info)
    app.add_typer(triton, name="triton")


def live(
    inputs: Annotated[
        Path | None, typer.Argument(metavar="INPUTS.npz", help="Samples: `inputs`, or one array per model; `labels`.")
    ] = None,
    network: Annotated[
        Path | None, typer.Option("--network", metavar="NET.toml", help="With endpoints, tensors, control = ingress.")
    ] = None,
    strategy: Annotated[str | None, typer.Option("--strategy", metavar="SPEC", help=_SPEC)] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="RUN", help="Folder of the run.")] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="RUN", help="Go on with a run that was stopped or killed.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option("--trace", metavar="TRACE", help="Requests at their times: .parquet or .arrow.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Requests per second of a Poisson process, without --trace.")
    ] = None,
    requests: Annotated[int | None, typer.Option("--requests", min=1, help="How many. Default: the samples.")] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", min=1, help="Closed loop: requests in flight.")
    ] = None,
    deadline_ms: Annotated[float | None, typer.Option("--deadline-ms", help="For every request, above 0.")] = None,
    shadow: Annotated[
        str | None,
        typer.Option("--shadow", metavar="SPEC", help="Another one decides, too; nothing is sent for it."),
    ] = None,
    audit: Annotated[
        float, typer.Option("--audit", min=0.0, max=1.0, help="Share of requests that also ask the last stage.")
    ] = 0.0,
    hedge: Annotated[bool, typer.Option("--hedge", help="Ask twice where one takes longer than its p95.")] = False,
    emulate_links: Annotated[
        bool, typer.Option("--emulate-links", help="Wait for the delays that the network's links state.")
    ] = False,
    traceparent: Annotated[bool, typer.Option("--traceparent", help="Send W3C traceparent headers.")] = False,
    wait_absent: Annotated[
        bool, typer.Option("--wait-absent", help="Start although a server is absent, and use it when it comes.")
    ] = False,
    metrics: Annotated[
        str | None, typer.Option("--metrics", metavar="[HOST]:PORT", help="Serve Prometheus metrics; on loopback.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="For draws of arrivals, rules and audits.")] = 0,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what goes wrong, and why.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Run a strategy against the Triton servers of a network, and journal every decision."""
    from coinfer import cli
    from coinfer.live.router import Settings
    from coinfer.live.running import resume as go_on
    from coinfer.live.running import run as start

    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    if inputs is None:
        msg = "which samples? give INPUTS.npz"
        raise BadValueError(msg)
    samples, labels = read_inputs(inputs)
    absent = "wait" if wait_absent else "refuse"
    with _progress() as progress:
        if resume is not None:
            result = go_on(resume, samples, absent=absent, metrics=metrics, progress=progress)
        else:
            if network is None or strategy is None or out is None:
                lacks = [n for n, v in (("--network", network), ("--strategy", strategy), ("--out", out)) if v is None]
                msg = f"a live run also needs {', '.join(lacks)} (or --resume RUN)"
                raise BadValueError(msg)
            from coinfer.network import Network
            from coinfer.trace import Trace

            net = Network.open(network)
            load = Trace.open(trace) if trace is not None else None
            if load is None and rate is not None:
                count = len(next(iter(samples.values())))
                load = Trace.poisson(net, rate_rps=rate, requests=requests or count, samples=count, seed=seed)
            settings = Settings(audit=audit, hedge=hedge, emulate_links=emulate_links, traceparent=traceparent)
            result = start(
                net,
                _strategy(strategy),
                samples,
                out=out,
                trace=load,
                requests=requests,
                concurrency=concurrency,
                deadline_ms=deadline_ms,
                labels=labels,
                settings=settings,
                shadow=None if shadow is None else _strategy(shadow),
                absent=absent,
                metrics=metrics,
                seed=seed,
                progress=progress,
            )
    if as_json:
        facts = {"run": str(result.folder), "complete": result.complete}
        cli._print_json({**facts, **(result.summary.to_dict() if len(result.outcomes_raw()) else {})})
    else:
        if len(result.outcomes_raw()):
            cli._print(result.summary)
        cli._print_text(f"\nRun: {result.folder}")
        if not result.complete:
            left = len(result.trace) - len(result.outcomes_raw())
            cli._print_text(f"Stopped with {left:,} requests to go: coinfer live {inputs} --resume {result.folder}")
    if not result.complete:
        raise typer.Exit(130)


def up(
    network: Annotated[Path, typer.Argument(metavar="NET.toml", help="Nodes with triton = grpc://127.0.0.1:PORT.")],
    pad: Annotated[
        bool, typer.Option("--pad/--no-pad", help="Sleep until the time of the network's service laws is over.")
    ] = True,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Keep model repositories and logs here. Default: temporary.")
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option("--inputs", metavar="OUT.npz", help="Write the images to ask about, with labels."),
    ] = None,
    seconds: Annotated[float | None, typer.Option("--for", help="Stop after so many seconds.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Start a real Triton server per node, with the models of the digits ladder, until interrupted."""
    import numpy as np

    from coinfer import cli
    from coinfer.live import ladder
    from coinfer.live.triton import LocalNetwork, endpoints
    from coinfer.network import Network

    net = Network.open(network)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if inputs is not None:
        data = ladder.images()
        np.savez(inputs, inputs=data.asked, labels=data.asked_labels)
    with LocalNetwork(net, folder, pad=pad) as local:
        rows = endpoints(net)
        if as_json:
            servers = [
                {"node": node, "endpoint": url, "models": models, "pid": local.servers[url].pid}
                for node, url, models in rows
                if url in local.servers
            ]
            cli._print_json({"servers": servers, "folder": str(local.folder)})
        else:
            for node, url, models in rows:
                cli._print_text(f"{node:<12} {url:<28} {models}")
            cli._print_text("ready; Ctrl-C stops them")
        sys.stdout.flush()
        stop.wait(seconds)


def info(as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False) -> None:
    """Say which Triton server this machine has."""
    from coinfer import cli
    from coinfer.live.triton import installation

    site = installation()
    versions = [p.name.split("-")[1] for p in site.glob("nvidia_pytriton-*.dist-info")]
    facts = {
        "server": str(site / "pytriton/tritonserver/bin/tritonserver"),
        "pytriton": versions[0] if versions else "?",
    }
    if as_json:
        cli._print_json(facts)
        return
    for what, value in facts.items():
        cli._print_text(f"{what:<10} {value}")


def replay_run(folder: Path, predictions: Path | None, as_json: bool) -> None:
    """Replay the journal of a live run: must decide the same; and say how far its answers are from a table."""
    from coinfer import cli
    from coinfer.live.result import LiveRun
    from coinfer.predictions import Predictions

    run = LiveRun.open(folder)
    decided = run.redecide()
    distance = None if predictions is None else run.against(Predictions.open(predictions))
    if as_json:
        out: dict[str, Any] = {"run": str(folder), **decided.to_dict()}
        if distance is not None:
            out["against"] = distance.to_dict()
        cli._print_json(out)
    else:
        cli._print_text(f"{run.strategy.name}: {decided}")
        if distance is not None:
            cli._print_text(str(distance))
    if decided.identical != decided.requests:
        raise typer.Exit(1)


def read_inputs(path: Path) -> tuple[dict[str, Any], Any]:
    """Read samples, and labels if there are any, from an ``.npz`` or ``.npy`` file."""
    import numpy as np

    from coinfer._files import reading, suffix_of

    suffix = suffix_of(path, (".npz", ".npy"))
    with reading(path, "an array of samples (.npz or .npy)"):
        held = np.load(path, allow_pickle=False)
        if suffix == ".npy":
            return {"inputs": held}, None
        columns = {name: held[name] for name in held.files}
    labels = columns.pop("labels", None)
    if not columns:
        msg = f"{path}: holds no samples; expected an array named 'inputs', or one per model"
        raise BadFileError(msg)
    return columns, labels


def _strategy(spec: str) -> Any:
    from coinfer._specs import parse, untuned
    from coinfer.errors import UnsupportedError

    name, chosen = parse(spec)
    if untuned(chosen):
        msg = f"{name} is not ready to run: write forward:SCORE:0.9, or name a file that coinfer tune --save wrote"
        raise UnsupportedError(msg)
    return chosen


@contextlib.contextmanager
def _progress() -> Iterator[Progress | None]:
    """Yield ``progress(done, total, line)``, drawn on standard error if that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return

    def show(done: int, total: int, line: str) -> None:
        sys.stderr.write(f"\r\x1b[K{done:,} of {total:,}: {line}")
        sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write("\r\x1b[K")


def collect(
    inputs: Annotated[Path, typer.Argument(metavar="INPUTS.npz", help="`inputs` or one array per model; `labels`.")],
    network: Annotated[Path, typer.Option("--network", metavar="NET.toml", help="With endpoints and tensors.")],
    out: Annotated[Path, typer.Option("--out", metavar="PREDICTIONS", help=".parquet, .arrow or .npz.")] = Path(
        "predictions.parquet"
    ),
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Requests in flight.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Ask every deployed model about every sample, and write the Predictions."""
    from coinfer import cli
    from coinfer.live.collecting import collect as run
    from coinfer.network import Network

    cli._check_targets(out)
    net = Network.open(network)
    samples, labels = read_inputs(inputs)
    with _progress() as progress:
        predictions = run(net, samples, labels=labels, concurrency=concurrency, progress=progress)
    predictions.save(out)
    if as_json:
        cli._print_json({"predictions": str(out), "samples": len(predictions), "models": list(predictions.models)})
        return
    cli._print_text(f"{predictions}\n\nPredictions: {out}")


def profile(
    inputs: Annotated[Path | None, typer.Argument(metavar="INPUTS.npz", help="Samples to ask about.")] = None,
    network: Annotated[
        Path | None, typer.Option("--network", metavar="NET.toml", help="With endpoints and tensors.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="NET.toml", help="Default: the same file.")] = None,
    precision: Annotated[
        float, typer.Option("--precision", help="Measure until the mean is known to this share.")
    ] = 0.03,
    seconds: Annotated[float, typer.Option("--seconds", help="... or for so long per setting.")] = 4.0,
    table: Annotated[
        bool, typer.Option("--table", help="Keep the times of each batch size, not a law fitted to them.")
    ] = False,
    imported: Annotated[
        Path | None, typer.Option("--import", metavar="FILE", help="What perf_analyzer exported (.csv, .json).")
    ] = None,
    deployment: Annotated[
        str | None, typer.Option("--deployment", metavar="MODEL@NODE", help="Whose law --import gives.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Measure how long each deployment takes, and write it into the network file."""
    from coinfer import cli
    from coinfer.live import profiling
    from coinfer.network import Network

    if network is None:
        msg = "which network? give --network NET.toml"
        raise BadValueError(msg)
    target = out or network
    cli._check_targets(target)
    net = Network.open(network)
    if imported is not None:
        if deployment is None:
            msg = "--import also needs --deployment MODEL@NODE: the export does not say whose it is"
            raise BadValueError(msg)
        changed = profiling.imported(net, deployment, imported)
        found = profiling.Profile(changed, ())
    else:
        if inputs is None:
            msg = "which samples? give INPUTS.npz"
            raise BadValueError(msg)
        samples, _ = read_inputs(inputs)
        with _progress() as progress:
            found = profiling.profile(
                net, samples, precision=precision, seconds=seconds, table=table, progress=progress
            )
    found.network.save(target)
    if as_json:
        cli._print_json({"network": str(target), **found.to_dict()})
        return
    cli._print_text(f"{found}\n\nNetwork: {target}")
