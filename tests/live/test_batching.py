"""Batch sizes of the events engine beside those that a real Triton server counts in its `batch_stats`."""

import numpy as np
import pytest

import coinfer as ci
from coinfer.live import LocalNetwork, ladder, run
from live_servers import chain, require_triton

RATE_RPS, REQUESTS, SERVICE_MS = 150, 350, 20.0
SETTINGS = {
    "tree@device": {},
    "mlp@edge": {"batch_delay_us": 30_000.0},
    "ensemble@cloud": {"batch_delay_us": 30_000.0, "preferred_batch": (2, 4)},
}
TOLERANCE = {"tree@device": 0.25, "mlp@edge": 0.15, "ensemble@cloud": 0.35}
"""Half the sum of differences between the shares of requests served in batches of 1, 2, ... 8.

With preferred sizes, whether a batch of four takes a fifth hangs on a millisecond or two."""


def counted(client, model):
    """Give batches served so far, and nanoseconds spent on them, by size."""
    (stats,) = client.get_inference_statistics(model).model_stats
    found = np.zeros((2, 8))
    for row in stats.batch_stats:
        took = row.compute_input.ns + row.compute_infer.ns + row.compute_output.ns
        found[:, row.batch_size - 1] += (row.compute_infer.count, took)
    return found


def shares(batches):
    requests = np.asarray(batches) * np.arange(1, 9)
    return requests / requests.sum()


def apart(a, b):
    return 0.5 * float(np.abs(a - b).sum())


@pytest.mark.live
def test_batches_are_as_large_as_on_a_real_server(tmp_path):
    """A Poisson trace and a constant sleep: no delay; a delay; a delay and preferred sizes."""
    require_triton()
    import tritonclient.grpc as grpc

    base = chain(pads_ms=dict.fromkeys(("tree", "mlp", "ensemble"), SERVICE_MS))
    deployments = [
        ci.Deployment(
            d.model, d.node, instances=1, max_batch=8, service=d.service, tensors=d.tensors, **SETTINGS[d.name]
        )
        for d in base.deployments
    ]
    # Every model stands alone, so that nothing but its own batcher makes anybody wait.
    nets = [
        ci.Network([ci.Node(d.node, 0, triton=base.node(d.node).triton)], [], [], [d], control="ingress")
        for d in deployments
    ]
    everything = ci.Network(base.nodes, base.links, [], deployments, control="ingress")
    inputs = ladder.images().asked[:100]
    real, ours = [], []
    with LocalNetwork(everything, tmp_path / "triton"):
        for net in nets:
            (deployment,) = net.deployments
            trace = ci.Trace.poisson(net, rate_rps=RATE_RPS, requests=REQUESTS, samples=100, seed=3)
            with grpc.InferenceServerClient(net.nodes[0].triton.removeprefix("grpc://")) as client:
                run(net, ci.Local(), inputs, out=tmp_path / f"warm-{deployment.node}", requests=16, concurrency=8)
                before = counted(client, deployment.model)
                run(net, ci.Local(), inputs, out=tmp_path / deployment.node, trace=trace, warm_up=0)
                batches, took_ns = counted(client, deployment.model) - before
            assert batches @ np.arange(1, 9) == REQUESTS
            took_ms = took_ns.sum() / batches.sum() / 1e6  # the sleep, and what the backend adds
            if took_ms > 1.5 * SERVICE_MS:
                pytest.skip(f"the machine is busy: a sleep of {SERVICE_MS:g} ms takes {took_ms:.0f}")
            timed = ci.Deployment(
                deployment.model, deployment.node, instances=1, max_batch=8,
                service=ci.service.Constant(took_ms), **SETTINGS[deployment.name],
            )  # fmt: skip
            predictions = ci.Predictions({deployment.model: ci.ModelOutput(label=np.zeros(100, int))})
            found = ci.replay(trace, predictions, ci.Network(net.nodes, [], [], [timed]), ci.Local())
            real.append(shares(batches))
            ours.append(shares(found.summary.stations[deployment.name].batches))
    for name, there, here in zip(SETTINGS, real, ours, strict=True):
        assert apart(there, here) < TOLERANCE[name], (name, there.round(3), here.round(3))
    # Each is nearest to its own rule.
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert apart(real[i], ours[j]) > apart(real[i], ours[i]) + 0.1
