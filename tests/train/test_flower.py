"""The Flower job: equal weights after each round. Runs under ``make test-flower``, in an environment that has flwr."""

import numpy as np
import pytest

from coinfer import train

pytest.importorskip("torch")
pytest.importorskip("flwr", reason="flwr's pins do not fit beside the test set: make test-flower")


@pytest.mark.parametrize(
    "changes", [{}, {"method": "fedadam", "client_share": 0.6, "straggler_share": 0.3, "drop_share": 0.2}]
)
def test_flower_and_built_in_rounds_give_equal_weights_after_each_round(changes):
    from dataclasses import replace

    from sklearn.datasets import load_digits

    from coinfer.train.flower import simulate

    x, y = load_digits(return_X_y=True)
    x, y = (x[:300] / 16).astype(np.float32), y[:300]
    model = train.dense(64, 10, (8, 12, 16), seed=1)
    nodes, links = train.tree((4, 2, 1))
    network = train.deploy(model, nodes, links, service_ms=[1, 2, 3])
    clients = train.clients(network, train.split("iid", y, [1] * 7))
    settings = train.Settings(rounds=3, local_epochs=2, batch=16, momentum=0.5, device="cpu", **changes)
    states = simulate(model, x, y, clients, weights="serving_rate", profile="50-30-20", settings=settings)
    assert len(states) == 3
    for rounds, state in enumerate(states, 1):
        own = train.federated(
            model, x, y, clients, weights="serving_rate", profile="50-30-20", settings=replace(settings, rounds=rounds)
        ).model.state_dict()
        for name, value in own.items():
            np.testing.assert_array_equal(value.numpy(), state[name], err_msg=f"round {rounds}: {name}")
