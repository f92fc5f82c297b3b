"""A chain of three nodes with a real Triton server each, for the tests of live runs."""

import os

import pytest

from coinfer import service
from coinfer.errors import UnsupportedError
from coinfer.live.triton import free_ports, installation
from coinfer.network import Deployment, Link, Network, Node

PADS_MS = {"tree": 4.0, "mlp": 8.0, "ensemble": 20.0}


def require_triton() -> None:
    """Skip where no server can be had; fail where one must be there."""
    try:
        installation()
        import tritonclient.grpc  # noqa: F401
    except (UnsupportedError, ImportError) as error:
        if os.environ.get("COINFER_REQUIRE_TRITON"):
            raise
        pytest.skip(f"needs a real Triton server: {error}")


def chain(scheme: str = "grpc", replicas: int = 1, pads_ms: dict[str, float] | None = None, **cloud: object) -> Network:
    """Make device (tree), edge (mlp), cloud (ensemble; with settings of its own), on free ports."""
    pads = PADS_MS if pads_ms is None else pads_ms
    ports = iter(free_ports(3 * replicas))
    nodes = []
    for tier, name in enumerate(("device", "edge", "cloud")):
        urls = tuple(f"{scheme}://127.0.0.1:{next(ports)}" for _ in range(replicas))
        nodes.append(Node(name, tier, triton=urls if replicas > 1 else urls[0]))
    deployments = tuple(
        Deployment(
            model,
            node.name,
            price_usd=price,
            service=service.Linear(pads[model], 0.0),
            tensors={"input": "IMAGE", "output": "PROBS", "form": "probs"},  # type: ignore[arg-type]
            **{"max_batch": 8, **(cloud if node.name == "cloud" else {})},  # type: ignore[arg-type]
        )
        for model, node, price in zip(pads, nodes, (0.0, 1e-6, 4e-5), strict=True)
    )
    links = (Link(("device", "edge"), delay_ms=2), Link(("edge", "cloud"), delay_ms=8))
    return Network(tuple(nodes), links, (), deployments, control="ingress")
