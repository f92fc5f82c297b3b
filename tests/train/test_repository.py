"""The exported Triton repositories: what they compute without torch, and their layout."""

import importlib.util
import json

import numpy as np
import pytest

import coinfer as ci
from coinfer import train

torch = pytest.importorskip("torch")


def served(repository, name, x):
    """Run the exported code as it stands in the repository; return features and logits."""
    folder = repository / name / "1"
    spec = importlib.util.spec_from_file_location("served", folder / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    block, head = module.load(folder)
    features = module.run(block, x)
    return features, module.run(head, features)


def deep(side=8):
    nn = torch.nn
    torch.manual_seed(3)
    model = train.EarlyExit(
        [
            nn.Sequential(nn.Conv2d(1, 3, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(3), nn.LeakyReLU(0.1)),
            nn.Sequential(nn.Conv2d(3, 6, (2, 3), padding=(0, 1)), nn.Tanh(), nn.AvgPool2d(2, stride=1)),
            nn.Sequential(nn.Conv2d(6, 4, 1), nn.Sigmoid(), nn.MaxPool2d(2, padding=1), nn.Dropout(0.5)),
        ],
        [
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5)),
            nn.Sequential(nn.Flatten(), nn.Linear(6 * 2 * 3, 5, bias=False)),
            nn.Sequential(nn.Flatten(), nn.Linear(4 * 2 * 2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5)),
        ],
        input_shape=[1, side, side],
    )
    model.train()
    for _ in range(3):  # statistics of batch normalisation that are not zero and one
        model(torch.randn(16, 1, side, side) + 0.5)
    return model.eval()


@pytest.mark.parametrize("split", ["smaller", "always", "never"])
@pytest.mark.parametrize("build", [lambda: train.dense(64, 10), lambda: train.convolutional(8, 10), deep])
def test_exits_split_over_tiers_compute_what_torch_computes(tmp_path, build, split):
    model = build()
    written = train.export(model, tmp_path, split=split)
    x = np.random.default_rng(0).normal(size=(20, *model.input_shape)).astype(np.float32)
    expected = model.logits(x)
    features = x
    for e, name in enumerate(model.names):
        config = (written[name] / name / "config.pbtxt").read_text()
        takes = "FEATURES" in config.split("output")[0]
        assert takes == (
            e > 0
            and (
                split == "always"
                or (split == "smaller" and np.prod(model.features[e - 1]) < np.prod(model.input_shape))
            )
        )
        features, logits = served(written[name], name, features if takes else x)
        np.testing.assert_allclose(logits, expected[e], rtol=2e-5, atol=2e-6)
        assert features.shape[1:] == model.features[e]


def test_the_network_file_names_the_tensors(tmp_path):
    model = train.dense(64, 10)
    nodes, links = train.tree((2, 1, 1))
    network = train.deploy(model, nodes, links, service_ms=[1, 2, 3])
    train.export(model, tmp_path, network=network)
    opened = ci.Network.open(tmp_path / "network.toml")
    assert opened.deployment("exit-1@device-1").tensors.input == "INPUT"
    assert opened.deployment("exit-2@edge").tensors.input == "FEATURES"
    assert opened.deployment("exit-3@cloud").tensors.form == "logits"
    plan = json.loads((tmp_path / "tier-1" / "exit-1" / "1" / "layers.json").read_text())
    assert [op["op"] for op in plan["block"]] == ["linear", "relu"]


def test_a_layer_without_counterpart_is_named(tmp_path):
    nn = torch.nn
    model = train.EarlyExit([nn.Sequential(nn.Linear(4, 4), nn.GELU())], [nn.Linear(4, 2)], input_shape=[4])
    with pytest.raises(ci.UnsupportedError, match="block 1, layer 2: GELU"):
        train.export(model, tmp_path)
