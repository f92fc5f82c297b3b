"""What the router costs: a one-stage plan against the bare tritonclient asyncio loop, on one real Triton server.

Both ask the same server about the same images, the same number in flight, in turns; the router journals every request
meanwhile. Run it with `python bench/live_overhead.py`; `make triton` first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import coinfer as ci
from coinfer import service
from coinfer.live import LocalNetwork, ladder, run
from coinfer.live.triton import free_ports


def network() -> ci.Network:
    """One node, the small network of the digits ladder, not padded."""
    (port,) = free_ports(1)
    deployment = ci.Deployment(
        "mlp",
        "device",
        max_batch=8,
        service=service.Constant(0.0),
        tensors={"input": "IMAGE", "output": "PROBS", "form": "probs"},  # type: ignore[arg-type]
    )
    return ci.Network(
        (ci.Node("device", 0, triton=f"grpc://127.0.0.1:{port}"),), (), (), (deployment,), control="ingress"
    )


def bare(url: str, images: np.ndarray, requests: int, concurrency: int) -> dict[str, Any]:
    """Ask as the client's own examples do."""
    import tritonclient.grpc as grpc
    import tritonclient.grpc.aio as aio

    took: list[float] = []
    answers = np.empty(requests, np.int64)

    async def worker(client: Any, rows: Any) -> None:
        for row in rows:
            began = time.perf_counter()
            tensor = grpc.InferInput("IMAGE", [1, 64], "FP32")
            tensor.set_data_from_numpy(images[row % len(images)][None])
            wanted = [grpc.InferRequestedOutput("PROBS")]
            result = await client.infer("mlp", [tensor], outputs=wanted, client_timeout=10.0)
            answers[row] = result.as_numpy("PROBS").argmax()
            took.append(time.perf_counter() - began)

    async def load() -> float:
        client = aio.InferenceServerClient(url)
        rows = iter(range(requests))
        await asyncio.gather(*(worker(client, iter(range(3))) for _ in range(1)))
        took.clear()
        began = time.perf_counter()
        await asyncio.gather(*(worker(client, rows) for _ in range(concurrency)))
        span = time.perf_counter() - began
        await client.close()
        return span

    span = asyncio.run(load())
    return {"rps": requests / span, "p50_ms": float(np.median(took)) * 1e3, "answers": answers}


def routed(net: ci.Network, images: np.ndarray, requests: int, concurrency: int) -> dict[str, Any]:
    """Ask through the router, with its journal."""
    with tempfile.TemporaryDirectory() as folder:
        result = run(net, ci.Local(), images, concurrency=concurrency, requests=requests, out=Path(folder) / "run")
        raw = result.outcomes_raw().sort_by("request")
        assert set(raw.column("status").to_pylist()) == {1}
        latency = raw.column("latency_us").to_numpy()
        begin = raw.column("intended_us").to_numpy()
        span = float((begin + latency).max() - begin.min()) / 1e6
        answers = raw.column("label").to_numpy()
    return {"rps": requests / span, "p50_ms": float(np.median(latency)) / 1e3, "answers": answers}


def compare(requests: int = 4000, concurrency: int = 8, rounds: int = 5) -> dict[str, Any]:
    """Measure both in turns; medians over rounds."""
    net = network()
    images = ladder.images().asked
    url = net.nodes[0].endpoints[0].removeprefix("grpc://")
    found: dict[str, list[dict[str, Any]]] = {"bare": [], "router": []}
    with LocalNetwork(net):
        bare(url, images, min(requests, 500), concurrency)
        for _ in range(rounds):
            found["bare"].append(bare(url, images, requests, concurrency))
            found["router"].append(routed(net, images, requests, concurrency))
            a, b = (found[k][-1].pop("answers") for k in found)
            assert (a == b).mean() > 0.999, "both must get the same answers"
    medians = {
        who: {key: float(np.median([each[key] for each in rounds_])) for key in ("rps", "p50_ms")}
        for who, rounds_ in found.items()
    }
    return {
        "requests": requests,
        "concurrency": concurrency,
        "rounds": rounds,
        **medians,
        "p50_added_ms": float(
            np.median([r["p50_ms"] - b["p50_ms"] for r, b in zip(found["router"], found["bare"], strict=True)])
        ),
        "throughput_share": float(
            np.median([r["rps"] / b["rps"] for r, b in zip(found["router"], found["bare"], strict=True)])
        ),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    print(json.dumps(compare(**vars(parser.parse_args())), indent=2))  # noqa: T201
