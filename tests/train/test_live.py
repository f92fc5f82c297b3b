"""Trained exits on real Triton servers: tiers pass features up, and the live router decides as the replay does."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

import coinfer as ci
from coinfer import train
from coinfer.live.triton import Server, free_ports
from live_servers import require_triton

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def trained():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    settings = train.Settings(rounds=20, learning_rate=0.2, batch=16)
    return train.fit(train.dense(64, 10), x[:1200], y[:1200], settings=settings).model, x[1200:], y[1200:]


@pytest.fixture(scope="module")
def served(trained, tmp_path_factory):
    """One server with the exits split where features are smaller, and again as `whole-N`, each from the input."""
    require_triton()
    model, _, _ = trained
    folder = tmp_path_factory.mktemp("repositories")
    together = folder / "models"
    for repository in set(train.export(model, folder / "split").values()):
        shutil.copytree(repository, together, dirs_exist_ok=True)
    whole = model.clone()
    whole.names = tuple(f"whole-{e}" for e in range(1, 4))
    for repository in set(train.export(whole, folder / "whole", split="never").values()):
        shutil.copytree(repository, together, dirs_exist_ok=True)
    grpc, http = free_ports(2)
    server = Server("exits", together, folder, grpc, http)
    try:
        server.start()
        yield f"127.0.0.1:{grpc}"
    finally:
        server.stop()


def test_tiers_pass_features_up_and_say_what_torch_says(trained, served):
    import tritonclient.grpc as triton

    model, x, _ = trained
    expected = model.logits(x[:40])
    client = triton.InferenceServerClient(served)
    name, sent = "INPUT", x[:40]
    for e, exit_ in enumerate(model.names):
        given = triton.InferInput(name, list(sent.shape), "FP32").set_data_from_numpy(sent)
        answer = client.infer(exit_, [given])
        np.testing.assert_allclose(answer.as_numpy("LOGITS"), expected[e], rtol=2e-5, atol=1e-5)
        if e + 1 < len(model):
            name, sent = "FEATURES", answer.as_numpy("FEATURES")
            assert sent.shape[1:] == model.features[e]
    client.close()


def test_the_live_router_settles_samples_where_the_replay_does(trained, served, tmp_path):
    from coinfer import live

    model, x, y = trained
    whole = model.clone()
    whole.names = tuple(f"whole-{e}" for e in range(1, 4))
    nodes, links = train.tree((1, 1, 1))
    nodes = [replace(node, triton=served) for node in nodes]
    network = train.deploy(whole, nodes, links, split="never", service_ms=[1, 1, 1], control="ingress")
    train.export(whole, tmp_path / "exits", split="never", network=network)
    network = ci.Network.open(tmp_path / "exits" / "network.toml")
    predictions = whole.predictions(x, y)
    strategy = train.strategy_for(predictions, "50-30-20")
    run = live.run(network, strategy, x, out=tmp_path / "run", labels=y, concurrency=4)
    trace = ci.Trace(np.arange(len(x)), "device", np.arange(len(x)))
    replayed = ci.replay(trace, predictions, network, strategy)
    assert run.complete
    assert run.summary.requests == len(x)
    assert float(run.summary.accuracy) == pytest.approx(float(replayed.summary.accuracy), abs=2 / len(x))
    assert run.summary.settled_by_model == pytest.approx(replayed.summary.settled_by_model, abs=2 / len(x))
