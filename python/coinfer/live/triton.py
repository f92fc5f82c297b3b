"""Real Triton servers on this machine: one per node of a network, with models that are really there.

A Triton server comes without Docker and without a GPU in the PyPI wheel ``nvidia-pytriton``, which carries the server
and its Python backend. It wants NumPy 1, so it lives in a virtual environment of its own (``make triton`` makes
``.venv-triton``) and is started from there as a plain process.

Servers must not outlive whoever started them. Each runs in a process group of its own, gets a signal when its parent
dies, is stopped by its process id, and its shared memory carries a name of its own and is removed with it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer.errors import BadValueError, UnavailableError, UnsupportedError

if TYPE_CHECKING:
    from types import TracebackType

    from coinfer.network import Deployment, Network

__all__ = ["LocalNetwork", "Server", "free_ports", "installation"]

_LOOPBACK = ("127.0.0.1", "localhost")
_DTYPES = {"FP32": np.float32, "FP16": np.float16, "FP64": np.float64}


def installation() -> Path:
    """Find the site-packages folder that holds the server.

    Raises
    ------
    UnsupportedError
        If there is none; the message says how to get one.
    """
    given = os.environ.get("COINFER_TRITON")
    prefixes = [given] if given else [".venv-triton", str(Path(sys.prefix).parent / ".venv-triton"), sys.prefix]
    for prefix in prefixes:
        for site in Path(prefix).absolute().glob("lib/python3*/site-packages"):
            if (site / "pytriton/tritonserver/bin/tritonserver").is_file():
                return site
    where = f"in COINFER_TRITON={given}" if given else f"in {' or '.join(prefixes)}"
    msg = (
        f"there is no Triton server {where}: `make triton` installs one, or run `python -m venv .venv-triton && "
        ".venv-triton/bin/pip install nvidia-pytriton==0.7.0`, or name a virtual environment that has it in "
        "COINFER_TRITON"
    )
    raise UnsupportedError(msg)


def free_ports(count: int) -> list[int]:
    """Give ports of the loopback interface that nobody listens on at the moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Server:
    """One Triton server process over one model repository.

    Parameters
    ----------
    name : str
        For messages and the names of files.
    repository : path
        The model repository.
    folder : path
        Where its backend and its log go.
    grpc_port, http_port : int
        On the loopback interface.
    options : sequence of str
        More of the server's options, such as ``--grpc-use-ssl=true``.
    """

    def __init__(
        self,
        name: str,
        repository: Path,
        folder: Path,
        grpc_port: int,
        http_port: int,
        options: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.repository = repository
        self.folder = folder
        self.grpc_port = grpc_port
        self.http_port = http_port
        self.options = options
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._shared = ""

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def start(self, wait_s: float = 60.0) -> None:
        """Start the process, and wait until it is ready if `wait_s` is above 0."""
        site = installation()
        triton = site / "pytriton/tritonserver"
        backends = self.folder / "backends"
        _copy_backend(site, backends)
        self._shared = f"coinfer_{os.getpid()}_{self.grpc_port}_{time.monotonic_ns() % 10**9}"
        libraries = [site / "nvidia_pytriton.libs", *_python_library(site)]
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
            # The stub reads no other variable of Python, but it finds its virtual environment through
            # the path. With the base interpreter's NumPy 2 it would return tensors of no bytes, without an error.
            "PATH": f"{site.parent.parent.parent / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        arguments = [
            *_dying_with_parent(),
            str(triton / "bin/tritonserver"),
            f"--model-repository={self.repository}",
            f"--backend-directory={backends}",
            "--http-address=127.0.0.1",
            f"--http-port={self.http_port}",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={self.grpc_port}",
            "--allow-metrics=false",
            "--allow-gpu-metrics=false",
            "--exit-timeout-secs=5",
            "--log-warning=true",
            "--log-info=false",
            f"--backend-config=python,shm-region-prefix-name={self._shared}",
            *self.options,
        ]
        with self.log.open("ab") as log:
            self._process = (
                _starter()
                .submit(
                    subprocess.Popen,
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    process_group=0,
                )
                .result()
            )
        if wait_s > 0:
            self.wait_ready(wait_s)

    def wait_ready(self, wait_s: float = 60.0) -> None:
        """Wait until the server says that it and its models are ready.

        Raises
        ------
        UnavailableError
            If it ends before, or is not ready in time; the message quotes the end of its log.
        """
        import http.client

        until = time.monotonic() + wait_s
        while time.monotonic() < until:
            if self.pid is None:
                msg = f"the Triton server of node {self.name!r} ended at once: {self._last_words()}"
                raise UnavailableError(msg)
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=2.0)
                with contextlib.closing(connection):
                    connection.request("GET", "/v2/health/ready")
                    if connection.getresponse().status == 200:
                        return
            time.sleep(0.05)
        msg = f"the Triton server of node {self.name!r} was not ready in {wait_s:g} s: {self._last_words()}"
        raise UnavailableError(msg)

    def signal(self, number: int) -> None:
        """Send a signal to the server and its model processes (SIGSTOP hangs it, SIGCONT lets it go on)."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """End it as a crash would: SIGKILL, connections torn, nothing drained."""
        self.signal(signal.SIGKILL)
        self._reap()

    def stop(self, wait_s: float = 10.0) -> None:
        """Let it drain and end; kill it if it takes longer than `wait_s`."""
        if self._process is None:
            return
        self.signal(signal.SIGCONT)
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(wait_s)
        self.kill()

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait()
            self._process = None
        if self._shared:
            for region in Path("/dev/shm").glob(f"{self._shared}*"):
                region.unlink(missing_ok=True)

    def _last_words(self) -> str:
        try:
            lines = self.log.read_text("utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        said = [line for line in lines if line.startswith("E") or "rror" in line] or lines or ["(nothing)"]
        return f"{said[-1].strip()} (log: {self.log})"


class LocalNetwork:
    """One real Triton server per node of a network, on the loopback interface, with the digits ladder on them.

    Parameters
    ----------
    network : Network
        Every node that has deployments needs ``triton = "grpc://127.0.0.1:PORT"`` (or ``http://``), every deployment
        `tensors` and a model of the digits ladder. What its service law says is how long the served model takes at
        least: it sleeps for the rest.
    folder : path, optional
        Where repositories and logs go. Default: a temporary folder that is removed at the end.
    pad : bool
        Whether models sleep until they have taken what their service law says.

    Attributes
    ----------
    servers : dict of str to Server
        By endpoint (``"grpc://127.0.0.1:8001"``).

    Raises
    ------
    CoinferError
        If a node's endpoint is not on this machine, or its model is not of the ladder.
    """

    def __init__(self, network: Network, folder: Path | None = None, *, pad: bool = True) -> None:
        self.network = network
        self._own = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="coinfer-triton-")) if folder is None else Path(folder).absolute()
        self.servers: dict[str, Server] = {}
        self._pad = pad
        try:
            self._lay_out()
        except BaseException:
            self._remove()
            raise

    def __enter__(self) -> LocalNetwork:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, wait_s: float = 90.0) -> None:
        """Start all servers, then wait until all are ready; none is left running if one fails."""
        try:
            for server in self.servers.values():
                server.start(wait_s=0)
            for server in self.servers.values():
                server.wait_ready(wait_s)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all servers and remove the temporary folder."""
        for server in self.servers.values():
            server.signal(signal.SIGCONT)
            if server._process is not None:
                server._process.terminate()
        for server in self.servers.values():
            server.stop()
        self._remove()

    def at(self, node: str) -> Server:
        """Give the (first) server of a node."""
        return self.servers[self.network.node(node).endpoints[0]]

    def fault(self, deployment: str, **what: Any) -> None:
        """Make a served model faulty from its next batch on: `sleep_ms`, `nan`, `shape`, `error`; nothing heals it."""
        found = self.network.deployment(deployment)
        for url in self.network.node(found.node).endpoints:
            folder = self.servers[url].repository / served_name(found) / "1"
            part = folder / "fault.part"
            part.write_text(json.dumps(what), "utf-8")
            part.replace(folder / "fault.json")

    def _lay_out(self) -> None:
        hosts = [node for node in self.network.nodes if any(d.node == node.name for d in self.network.deployments)]
        for node in hosts:
            if not node.endpoints:
                msg = f'node {node.name!r} has deployments but no endpoint; add triton = "grpc://127.0.0.1:8001"'
                raise BadValueError(msg)
            for replica, url in enumerate(node.endpoints):
                scheme, _, rest = url.partition("://")
                host, _, port = rest.rpartition(":")
                if host not in _LOOPBACK or scheme not in ("grpc", "http"):
                    msg = (
                        f"node {node.name!r}: {url} is not on this machine; servers are started for grpc:// or http:// "
                        "at 127.0.0.1 only"
                    )
                    raise BadValueError(msg)
                name = node.name if replica == 0 else f"{node.name}.{replica}"
                # Nodes with one endpoint share one server.
                repository = self.servers[url].repository if url in self.servers else self.folder / name
                for deployment in self.network.deployments:
                    if deployment.node == node.name:
                        write_model(repository, deployment, pad=self._pad)
                if url in self.servers:
                    continue
                (other,) = free_ports(1)
                ports = (int(port), other) if scheme == "grpc" else (other, int(port))
                self.servers[url] = Server(name, repository, self.folder, *ports)

    def _remove(self) -> None:
        if self._own:
            shutil.rmtree(self.folder, ignore_errors=True)


def served_name(deployment: Deployment) -> str:
    """Name the model as its server knows it."""
    tensors = deployment.tensors
    return deployment.model if tensors is None or tensors.model is None else tensors.model


def write_model(
    repository: Path,
    deployment: Deployment,
    *,
    pad: bool = True,
    dtype: str = "FP32",
    arrays: Mapping[str, Any] | None = None,
) -> None:
    """Write a deployment of the digits ladder into a model repository: configuration, code and weights.

    Parameters
    ----------
    repository : path
        The model repository; made if needed.
    deployment : Deployment
        Its model (of the ladder), tensors, batching and service law.
    pad : bool
        Whether it sleeps until its service law's time is over.
    dtype : {"FP32", "FP16", "FP64"}
        Type of both tensors.
    arrays : mapping, optional
        Weights, instead of the ladder's.
    """
    from coinfer import service
    from coinfer.live import ladder

    tensors = deployment.tensors
    if tensors is None:
        msg = (
            f"deployment {deployment.name!r} does not say how it is asked; add "
            'tensors = {input = "IMAGE", output = "PROBS", form = "probs"}'
        )
        raise BadValueError(msg)
    if tensors.form != "probs":
        msg = f"deployment {deployment.name!r}: models of the digits ladder give probs, not {tensors.form!r}"
        raise BadValueError(msg)
    name = served_name(deployment)
    folder = repository / name / (tensors.version or "1")
    folder.mkdir(parents=True, exist_ok=True)
    law = deployment.service
    base, each = (law.base_ms, law.per_item_ms) if isinstance(law, service.Linear) else (law.mean_ms, 0.0)
    if not pad or not np.isfinite(base):
        base, each = 0.0, 0.0
    settings: dict[str, Any] = {"input": tensors.input, "outputs": tensors.outputs, "dtype": f"TYPE_{dtype}"}
    settings |= {"base_ms": base, "per_item_ms": each}
    (folder / "settings.json").write_text(json.dumps(settings), "utf-8")
    np.savez(
        folder / "model.npz", allow_pickle=False, **(ladder.arrays(deployment.model) if arrays is None else arrays)
    )
    shutil.copyfile(Path(__file__).with_name("served_model.py"), folder / "model.py")
    (repository / name / "config.pbtxt").write_text(_config(deployment, name, f"TYPE_{dtype}"), "utf-8")


def _config(deployment: Deployment, name: str, dtype: str) -> str:
    tensors = deployment.tensors
    assert tensors is not None
    batching = [f"max_queue_delay_microseconds: {round(deployment.batch_delay_us)}"]
    if deployment.preferred_batch:
        batching.append(f"preferred_batch_size: [ {', '.join(map(str, deployment.preferred_batch))} ]")
    if deployment.queue_max is not None:
        batching.append(f"default_queue_policy {{ max_queue_size: {deployment.queue_max} }}")
    inside = "\n  ".join(batching)
    width = 10 if tensors.classes is None else 1
    outputs = (f'{{ name: "{name}", data_type: {dtype}, dims: [ {width} ] }}' for name in tensors.outputs)
    return f"""name: "{name}"
backend: "python"
max_batch_size: {deployment.max_batch}
input [ {{ name: "{tensors.input}", data_type: {dtype}, dims: [ 64 ] }} ]
output [ {", ".join(outputs)} ]
instance_group [ {{ count: {deployment.instances or 1}, kind: KIND_CPU }} ]
dynamic_batching {{
  {inside}
}}
"""


def _copy_backend(site: Path, backends: Path) -> None:
    """Lay out the Python backend with the stub of the interpreter that will run the models."""
    target = backends / "python"
    if target.is_dir():
        return
    triton = site / "pytriton/tritonserver"
    version = site.parent.name.removeprefix("python")
    stub = triton / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        known = sorted(p.name for p in (triton / "python_backend_stubs").iterdir())
        msg = f"this Triton wheel has no Python backend for Python {version}; it has {', '.join(known)}"
        raise UnsupportedError(msg)
    part = backends / f"python.{os.getpid()}"
    part.mkdir(parents=True, exist_ok=True)
    for file in (triton / "backends/python").iterdir():
        if file.is_file():
            shutil.copy2(file, part)
    shutil.copy2(stub, part)
    part.rename(target)


def _python_library(site: Path) -> Iterator[Path]:
    """Find the folder of libpython, which the stub is linked with."""
    python = site.parent.parent.parent / "bin/python"
    code = "import sysconfig; print(sysconfig.get_config_var('LIBDIR') or '')"
    found = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    if found:
        yield Path(found)


@functools.cache
def _starter() -> ThreadPoolExecutor:
    """Give the one thread that starts servers: what dies with its parent dies with the thread that started it."""
    return ThreadPoolExecutor(1, "triton")


def _dying_with_parent() -> list[str]:
    """Prefix a command so that its process is killed when the one that started it dies, where util-linux can."""
    setpriv = shutil.which("setpriv")
    return [] if setpriv is None else [setpriv, "--pdeathsig", "KILL", "--"]


def endpoints(network: Network) -> Sequence[tuple[str, str, str]]:
    """List (node, endpoint, models) of a network."""
    return [
        (node.name, url, ", ".join(d.model for d in network.deployments if d.node == node.name))
        for node in network.nodes
        for url in node.endpoints
    ]
