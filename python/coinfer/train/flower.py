"""The same training as a Flower job: a `ServerApp` and a `ClientApp` that do what `coinfer.train.federated` does.

Local training and aggregation are the functions that the built-in rounds call, so equal seeds give equal weights after
each round: replies are sorted by client before they are summed, sums are float64, torch runs on one thread. A client
knows its place by the ``partition-id`` that Flower's simulation gives every node. Needs the extra ``[flower]``; because
its pins (typer, rich, packaging) do not fit beside those of this package's test set, it is tested in an environment of
its own: ``make test-flower``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from coinfer.errors import UnsupportedError
from coinfer.train._torch import one_thread, torch
from coinfer.train.fitting import (
    Server,
    Settings,
    _check,
    exit_of,
    fates,
    local,
    part_of,
    shares,
)
from coinfer.train.objective import weights_for

if TYPE_CHECKING:
    import numpy as np

    from coinfer.train.exits import EarlyExit
    from coinfer.train.flow import Profile
    from coinfer.train.placing import Client

__all__ = ["apps", "simulate"]


def _flower() -> Any:
    try:
        import flwr.app
        import flwr.clientapp
        import flwr.serverapp
    except ImportError as error:
        msg = "running under Flower needs the extra [flower]: pip install 'coinfer[train,flower]'"
        raise UnsupportedError(msg) from error
    return flwr


def apps(
    model: EarlyExit,
    inputs: Any,
    labels: Any,
    clients: Sequence[Client],
    *,
    weights: str | Sequence[float] = "equal",
    profile: Profile | str | Sequence[float] | None = None,
    settings: Settings | None = None,
    after_round: Any = None,
) -> tuple[Any, Any]:
    """Build the two apps of a Flower job.

    Parameters
    ----------
    model, inputs, labels, clients, profile, settings
        As for `coinfer.train.federated`.
    weights : str or sequence of float
        ``equal``, ``serving_rate``, ``compute``, or one number per exit: weights that are known before the first round.
    after_round : callable, optional
        Called at the server as ``after_round(number, state)`` with the weights after each round.

    Returns
    -------
    (ServerApp, ClientApp)
        For ``flwr.simulation.run_simulation``, or a deployment of Flower with as many nodes as there are clients.
    """
    flwr = _flower()
    settings = settings if settings is not None else Settings()
    if weights in ("balanced", "delivered"):
        msg = f"weights {weights!r} change while training and run in coinfer.train.federated only"
        raise UnsupportedError(msg)
    data, listed = _check(model, inputs, labels, clients, settings)
    costs = model.costs(repeats=1) if weights == "compute" else None
    current = weights_for(weights, len(model), profile=profile, costs=costs)
    sizes = [[float(len(client.rows))] * len(model) for client in listed]
    divided = shares(sizes, [client.depth for client in listed], current)
    initial = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    server_app, client_app = flwr.serverapp.ServerApp(), flwr.clientapp.ClientApp()

    @client_app.train()  # type: ignore[untyped-decorator]
    def train(message: Any, context: Any) -> Any:
        position = int(context.node_config["partition-id"])
        client, own = listed[position], torch.as_tensor(listed[position].rows)
        order = message.content["order"]
        held = message.content["weights"].to_torch_state_dict()
        mine = model.clone()
        mine.load_state_dict({**initial, **held})
        with one_thread(), torch.random.fork_rng(devices=[]):
            losses = local(
                mine,
                data.x[own],
                data.y[own],
                divided[position].exits,
                settings,
                name=client.name,
                number=int(order["number"]),
                position=position,
                depth=client.depth,
                epochs=int(order["epochs"]),
                part=float(order["part"]),
            )
        state = {n: v.detach().clone() for n, v in mine.state_dict().items() if exit_of(n) < client.depth}
        reply = flwr.app.RecordDict(
            {
                "weights": flwr.app.ArrayRecord(state),
                "said": flwr.app.MetricRecord(
                    {"position": position, "losses": [float("nan") if loss is None else loss for loss in losses]}
                ),
            }
        )
        return flwr.app.Message(content=reply, reply_to=message)

    @client_app.query()  # type: ignore[untyped-decorator]
    def query(message: Any, context: Any) -> Any:
        place = flwr.app.MetricRecord({"position": int(context.node_config["partition-id"])})
        return flwr.app.Message(content=flwr.app.RecordDict({"said": place}), reply_to=message)

    @server_app.main()  # type: ignore[untyped-decorator]
    def main(grid: Any, context: Any) -> None:
        server = Server(dict(initial))
        nodes = _places(flwr, grid, len(listed))
        for number in range(1, settings.rounds + 1):
            messages = []
            for fate in fates(len(listed), settings, number):
                if fate.dropped:
                    continue
                content = flwr.app.RecordDict(
                    {
                        "weights": flwr.app.ArrayRecord(part_of(server.state, listed[fate.position].depth)),
                        "order": flwr.app.ConfigRecord({"number": number, "epochs": fate.epochs, "part": fate.part}),
                    }
                )
                messages.append(
                    flwr.app.Message(content=content, dst_node_id=nodes[fate.position], message_type="train")
                )
            replies = {}
            for reply in grid.send_and_receive(messages):
                if reply.has_error():
                    msg = f"a client failed in round {number}: {reply.error.reason}"
                    raise RuntimeError(msg)
                position = int(reply.content["said"]["position"])
                replies[position] = reply.content["weights"].to_torch_state_dict()
            if replies:
                with one_thread():
                    updates = [(divided[position].mass, replies[position]) for position in sorted(replies)]
                    server.step(updates, settings, number)
            if after_round is not None:
                after_round(number, server.state)

    return server_app, client_app


def _places(flwr: Any, grid: Any, count: int) -> dict[int, int]:
    """Ask every node for its place, and return node by place; waits until all are there."""
    import time

    for _ in range(600):
        nodes = list(grid.get_node_ids())
        if len(nodes) >= count:
            break
        time.sleep(0.1)
    messages = [
        flwr.app.Message(content=flwr.app.RecordDict(), dst_node_id=node, message_type="query") for node in nodes
    ]
    found = {}
    for reply in grid.send_and_receive(messages):
        if reply.has_error():
            msg = f"a node failed before the first round: {reply.error.reason}"
            raise RuntimeError(msg)
        found[int(reply.content["said"]["position"])] = reply.metadata.src_node_id
    if sorted(found) != list(range(count)):
        msg = f"the job has {count} clients, but Flower runs nodes {sorted(found)}"
        raise RuntimeError(msg)
    return found


def simulate(
    model: EarlyExit,
    inputs: Any,
    labels: Any,
    clients: Sequence[Client],
    *,
    weights: str | Sequence[float] = "equal",
    profile: Profile | str | Sequence[float] | None = None,
    settings: Settings | None = None,
) -> list[dict[str, np.ndarray[Any, Any]]]:
    """Run the job on Flower's simulation engine, one process on one core per client at a time.

    Returns
    -------
    list of dict of str to ndarray
        The weights after each round.
    """
    _flower()
    from flwr.simulation import run_simulation

    seen: dict[int, dict[str, np.ndarray[Any, Any]]] = {}

    def keep(number: int, state: dict[str, Any]) -> None:
        seen[number] = {name: value.numpy().copy() for name, value in state.items()}

    server_app, client_app = apps(
        model, inputs, labels, clients, weights=weights, profile=profile, settings=settings, after_round=keep
    )
    run_simulation(
        server_app=server_app,
        client_app=client_app,
        num_supernodes=len(list(clients)),
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    return [seen[number] for number in sorted(seen)]
