"""The same cascade written twice: in the server, as a Python-backend model that calls the others, and as a strategy.

One real server holds tree, mlp and ensemble, and a model that calls them in turn until one is sure. Both answer the
same requests with nothing wrong, then with the largest model failing, then with it being slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import coinfer as ci
from coinfer.live import LocalNetwork, ladder, run
from coinfer.live.triton import free_ports
from live_faults import faulty_network

THRESHOLD = 0.9
DEADLINE_MS = 300.0
RATE = 60.0

CODE = """
import numpy as np
import triton_python_backend_utils as backend

THRESHOLD = np.float32(%r)
MODELS = ("tree", "mlp", "ensemble")


class TritonPythonModel:
    async def execute(self, requests):
        responses = []
        for request in requests:
            image = backend.get_input_tensor_by_name(request, "IMAGE")
            for name in MODELS:
                asked = backend.InferenceRequest(model_name=name, inputs=[image], requested_output_names=["PROBS"])
                reply = await asked.async_exec()
                if reply.has_error():
                    responses.append(backend.InferenceResponse([], error=reply.error()))
                    break
                probs = backend.get_output_tensor_by_name(reply, "PROBS").as_numpy()
                if probs.max() >= THRESHOLD or name == MODELS[-1]:
                    responses.append(backend.InferenceResponse([backend.Tensor("PROBS", probs)]))
                    break
        return responses
"""
CONFIG = """name: "cascade"
backend: "python"
max_batch_size: 1
input [ { name: "IMAGE", data_type: TYPE_FP32, dims: [ 64 ] } ]
output [ { name: "PROBS", data_type: TYPE_FP32, dims: [ 10 ] } ]
instance_group [ { count: 4, kind: KIND_CPU } ]
"""


def in_server(url: str, trace: ci.Trace, images: np.ndarray) -> list[tuple[int, float]]:
    """Ask the server's own cascade at the times of the trace; label (-1: an error) and milliseconds."""
    import tritonclient.grpc as grpc
    import tritonclient.grpc.aio as aio
    from tritonclient.utils import InferenceServerException

    async def load() -> list[tuple[int, float]]:
        client = aio.InferenceServerClient(url.removeprefix("grpc://"))
        loop = asyncio.get_running_loop()
        for sample in range(10):  # its first requests start things up; that is not what is compared
            tensor = grpc.InferInput("IMAGE", [1, 64], "FP32")
            tensor.set_data_from_numpy(images[sample][None])
            with contextlib.suppress(InferenceServerException):
                await client.infer("cascade", [tensor], client_timeout=10.0)
        began = loop.time()

        async def one(due: float, sample: int) -> tuple[int, float]:
            await asyncio.sleep(max(due - loop.time(), 0.0))
            tensor = grpc.InferInput("IMAGE", [1, 64], "FP32")
            tensor.set_data_from_numpy(images[sample][None])
            try:
                result = await client.infer("cascade", [tensor], client_timeout=DEADLINE_MS / 1e3)
                label = int(result.as_numpy("PROBS").argmax())
            except InferenceServerException:
                label = -1
            return label, (loop.time() - due) * 1e3

        rows = zip(trace.arrival_ns / 1e9, trace.sample, strict=True)
        try:
            return await asyncio.gather(*(one(began + float(t), int(s)) for t, s in rows))
        finally:
            await client.close()

    return asyncio.run(load())


def main(requests: int = 600) -> list[dict[str, Any]]:
    """Measure both under each condition."""
    data = ladder.images()
    net = faulty_network("none")
    (port,) = free_ports(1)
    url = f"grpc://127.0.0.1:{port}"
    net = replace(net, nodes=tuple(replace(node, triton=url) for node in net.nodes))
    trace = ci.Trace.poisson(
        net, rate_rps=RATE, requests=requests, samples=len(data.asked), seed=0, deadline_us=DEADLINE_MS * 1e3
    )
    truth = data.asked_labels[trace.sample]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        local = LocalNetwork(net, Path(scratch) / "triton")
        folder = local.servers[url].repository / "cascade"
        (folder / "1").mkdir(parents=True)
        (folder / "1/model.py").write_text(CODE % THRESHOLD)
        (folder / "config.pbtxt").write_text(CONFIG)
        with local:
            for condition, fault in (
                ("healthy", {}),
                ("largest fails", {"error": True}),
                ("largest slow", {"sleep_ms": 600.0}),
            ):
                local.fault("ensemble@cloud", **fault)
                said = in_server(url, trace, data.asked)
                label, took = np.array([s[0] for s in said]), np.array([s[1] for s in said])
                rows.append(
                    {
                        "condition": condition,
                        "who": "in the server",
                        "answered": int((label >= 0).sum()),
                        "no answer": int((label < 0).sum()),
                        "right of all": float((label == truth).mean()),
                        "p99 ms": float(np.quantile(took, 0.99)),
                    }
                )
                result = run(
                    net, ci.Forward(score="max_prob", threshold=THRESHOLD), data.asked, labels=data.asked_labels,
                    trace=trace, out=Path(scratch) / condition,
                )  # fmt: skip
                outcomes = result.outcomes()
                answer = outcomes.column("answer").to_numpy(zero_copy_only=False)
                rows.append(
                    {
                        "condition": condition,
                        "who": "coinfer live",
                        "answered": int(len(answer) - np.isnan(np.array(answer, float)).sum()),
                        "no answer": int(np.isnan(np.array(answer, float)).sum()),
                        "right of all": float((np.nan_to_num(np.array(answer, float), nan=-1) == truth).mean()),
                        "p99 ms": result.summary.latency_us.p99 / 1e3,
                    }
                )
                if condition == "healthy":
                    same = float((label == np.nan_to_num(np.array(answer, float), nan=-1)).mean())
                    rows[-1]["same answers"] = same
    return rows


if __name__ == "__main__":
    for each in main():
        sys.stdout.write(json.dumps(each) + "\n")
