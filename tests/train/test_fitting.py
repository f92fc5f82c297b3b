"""Training: against plain PyTorch, by hand, from a seed, and after kill -9."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

import coinfer as ci
from coinfer import train
from coinfer.train.fitting import Server, fates, shares
from coinfer.train.objective import Delivered, Delivery, deliver, follow
from coinfer.train.splits import random

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return (x / 16).astype(np.float32), y


@pytest.fixture(scope="module")
def few(digits):
    """Six devices, two edges and a cloud, each with some digits."""
    x, y = digits[0][:600], digits[1][:600]
    model = train.dense(64, 10, (8, 12, 16), seed=1)
    nodes, links = train.tree((6, 2, 1))
    network = train.deploy(model, nodes, links, service_ms=[1, 2, 3])
    rows = train.split("dirichlet", y, [1] * 6 + [2, 2] + [4], seed=0)
    return model, x, y, network, train.clients(network, rows)


def same(a, b):
    return all(torch.equal(v, b.state_dict()[n]) for n, v in a.state_dict().items())


def by_hand(model, x, y, weights, settings):
    """Train with torch.optim.SGD and nothing of coinfer but the order of the batches."""
    model = model.clone()
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    total = sum(weights)
    weights = [w / total for w in weights]
    total = sum(weights)
    weights = [w / total for w in weights]
    states = []
    for number in range(1, settings.rounds + 1):
        descent = torch.optim.SGD(
            model.parameters(), lr=settings.learning_rate * settings.decay ** (number - 1),
            momentum=settings.momentum, weight_decay=settings.weight_decay,
        )  # fmt: skip
        draw = random(settings.seed, 0, number, 0)
        draw.integers(2**62)
        for _ in range(settings.local_epochs):
            for rows in torch.split(torch.as_tensor(draw.permutation(len(y))), settings.batch):
                losses = [torch.nn.functional.cross_entropy(z, y[rows]) for z in model(x[rows])]
                descent.zero_grad()
                sum(w * loss for w, loss in zip(weights, losses, strict=True)).backward()
                descent.step()
        states.append({n: v.detach().clone() for n, v in model.state_dict().items()})
    return states


@pytest.mark.parametrize("kind", ["dense", "convolutional"])
def test_one_client_with_all_data_equals_centralised_training_and_plain_torch_bit_for_bit(digits, kind):
    x, y = digits[0][:300], digits[1][:300]
    model = train.dense(64, 10) if kind == "dense" else train.convolutional(8, 10)
    x = x if kind == "dense" else x.reshape(-1, 1, 8, 8)
    weights = (0.5, 0.3, 0.2)
    settings = train.Settings(
        rounds=4, local_epochs=2, momentum=0.5, weight_decay=1e-3, decay=0.9, seed=7, device="cpu"
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    plain = by_hand(model, x, y, weights, settings)
    torch.set_num_threads(threads)
    alone = train.Client("device-1", np.arange(300), 3)
    for rounds in (1, 2, 4):
        each = replace(settings, rounds=rounds)
        central = train.fit(model, x, y, weights=weights, settings=each).model
        spread = train.federated(model, x, y, [alone], weights=weights, settings=each).model
        assert same(central, spread)
        assert all(torch.equal(v, plain[rounds - 1][n]) for n, v in central.state_dict().items())
    assert not same(central, model)


def test_partial_aggregation_equals_an_example_worked_by_hand():
    old = {"blocks.0.w": torch.tensor([1.0, 1.0]), "blocks.1.w": torch.tensor([9.0]), "heads.2.b": torch.tensor([3.0])}
    device = {"blocks.0.w": torch.tensor([2.0, 4.0])}
    edge = {"blocks.0.w": torch.tensor([6.0, 0.0]), "blocks.1.w": torch.tensor([5.0])}
    cloud = {"blocks.0.w": torch.tensor([1.0, 2.0]), "blocks.1.w": torch.tensor([1.0])}
    new = train.aggregate(old, [(0.5, device), (0.3, edge), (0.2, cloud)])
    assert new["blocks.0.w"].tolist() == pytest.approx([0.5 * 2 + 0.3 * 6 + 0.2 * 1, 0.5 * 4 + 0.2 * 2])
    assert new["blocks.1.w"].item() == pytest.approx((0.3 * 5 + 0.2 * 1) / 0.5)
    assert new["heads.2.b"].item() == 3.0  # nobody holds it


def test_the_objective_is_divided_so_that_the_parts_add_up():
    sizes, depths, weights = [[30.0] * 3, [20.0] * 3, [50.0] * 3], [1, 2, 3], [0.5, 0.3, 0.2]
    parts = shares(sizes, depths, weights)
    assert sum(p.mass for p in parts) == pytest.approx(1)
    for e in range(3):
        held = sum(s[e] for s, d in zip(sizes, depths, strict=True) if d > e)
        for part, size, depth in zip(parts, sizes, depths, strict=True):
            wanted = weights[e] * size[e] / held if depth > e else 0.0
            assert part.mass * part.exits[e] == pytest.approx(wanted)


def test_one_full_batch_step_of_all_clients_is_a_gradient_step_of_the_objective(few):
    """On the first block, which everybody holds, federated averaging of one step is the step itself."""
    model, x, y, _, clients = few
    weights = (0.5, 0.3, 0.2)
    settings = train.Settings(rounds=1, batch=1000, learning_rate=0.1, device="cpu", allow_one_class=True)
    moved = train.federated(model, x, y, clients, weights=weights, settings=settings).model
    total = 0.0
    copy = model.clone()
    for e in range(3):
        rows = np.concatenate([c.rows for c in clients if c.depth > e])
        logits = copy(torch.as_tensor(x[rows]))[e]
        total = total + weights[e] * torch.nn.functional.cross_entropy(logits, torch.as_tensor(y[rows]))
    total.backward()
    for name in ("blocks.0.0.weight", "blocks.0.0.bias", "heads.0.weight"):
        before, gradient = dict(copy.named_parameters())[name], dict(copy.named_parameters())[name].grad
        np.testing.assert_allclose(
            moved.state_dict()[name].numpy(), (before - 0.1 * gradient).detach().numpy(), rtol=0, atol=2e-7
        )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": "fedprox", "proximal": 0.1},
        {"method": "fedadam", "server_learning_rate": 0.05},
        {"client_share": 0.5, "straggler_share": 0.3, "drop_share": 0.2, "local_epochs": 3},
        {"clip": 0.5, "noise": 0.1},
    ],
)
def test_equal_seeds_give_equal_bits_whatever_the_order_of_the_clients(few, changes):
    model, x, y, _, clients = few
    settings = train.Settings(rounds=3, **changes)
    a = train.federated(model, x, y, clients, settings=settings)
    b = train.federated(model, x, y, clients[::-1], settings=settings)
    assert same(a.model, b.model)
    assert a.history == b.history
    c = train.federated(model, x, y, clients, settings=replace(settings, seed=1))
    assert not same(a.model, c.model)


def test_methods_do_what_they_say(few):
    model, x, y, _, clients = few
    base = train.Settings(rounds=2, local_epochs=3)

    def distance(**changes):
        after = train.federated(model, x, y, clients, settings=replace(base, **changes)).model.state_dict()
        return float(sum(((v - model.state_dict()[n]) ** 2).sum() for n, v in after.items()) ** 0.5)

    free = distance()
    assert distance(method="fedprox", proximal=5.0) < 0.8 * free
    assert distance(method="fedprox", proximal=0.0) == free
    assert distance(clip=0.05) < 0.11  # two rounds, each at most the clip
    assert distance(clip=1e9) == pytest.approx(free, rel=1e-5)
    assert distance(clip=0.05, noise=10.0) > distance(clip=0.05)
    state = {"blocks.0.w": torch.tensor([0.0])}
    server = Server(state)
    settings = train.Settings(method="fedadam", server_learning_rate=0.1, beta1=0.0, beta2=0.0, epsilon=1e-12)
    server.step([(1.0, {"blocks.0.w": torch.tensor([123.0])})], settings, 1)
    assert server.state["blocks.0.w"].item() == pytest.approx(0.1)  # Adam without memory moves by the learning rate


def test_clients_are_drawn_late_and_lost_as_often_as_asked(few):
    settings = train.Settings(client_share=0.5, straggler_share=0.25, drop_share=0.1, local_epochs=4)
    drawn = [fate for number in range(1, 401) for fate in fates(40, settings, number)]
    assert len(drawn) == 400 * 20
    assert np.mean([fate.dropped for fate in drawn]) == pytest.approx(0.1, abs=0.02)
    late = [fate.epochs for fate in drawn if fate.straggles]
    assert len(late) / len(drawn) == pytest.approx(0.25, abs=0.03)
    assert set(late) == {1, 2, 3}
    model, x, y, _, clients = few
    history = train.federated(model, x, y, clients, settings=replace(settings, rounds=6, drop_share=0.4)).history
    assert any(each.dropped for each in history)
    assert any(each.stragglers for each in history)
    assert all(len(each.clients) + len(each.dropped) == 4 for each in history)  # half of nine, rounded to even


def test_devices_never_change_what_they_do_not_hold(few):
    model, x, y, _, clients = few
    devices = [client for client in clients if client.depth == 1]
    after = train.federated(model, x, y, devices, settings=train.Settings(rounds=2)).model
    for name, value in after.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]) == (not name.startswith(("blocks.0", "heads.0")))


def test_every_weighting_learns(few, digits):
    model, x, y, network, clients = few
    held_out = digits[0][600:1200], digits[1][600:1200]
    settings = train.Settings(rounds=30, learning_rate=0.03, momentum=0.9, batch=8, seed=3)
    clients = train.clients(network, train.split("iid", y, [1] * 6 + [2, 2] + [6]))
    for weights in ("equal", "serving_rate", "compute", "balanced", "delivered"):
        result = train.federated(
            model, x, y, clients, weights=weights, profile="50-30-20", settings=settings, held_out=held_out,
            network=network,
        )  # fmt: skip
        assert min(result.history[-1].accuracy_by_exit) > 0.6, weights
        assert sum(result.weights) == pytest.approx(1)
        assert (result.noise is not None) == (weights in ("balanced", "delivered"))
        assert (result.delivery is not None) == (weights == "delivered")
    boosted = train.boost(model, x, y, clients, profile="50-30-20", settings=replace(settings, rounds=30))
    assert len(boosted.history) == 30
    said = boosted.model.predictions(*held_out)
    assert said.accuracy("exit-1") > 0.7


def test_delivered_weights_follow_the_strategy_and_keep_the_shares(few):
    model, x, y, network, clients = few
    how = Delivered(on="settled", start=2, every=1, damping=0.0, floor=0.2, effective=0.01, tolerance=0.0)
    result = train.federated(
        model, x, y, clients, weights=how, profile="50-30-20", settings=train.Settings(rounds=8), network=network
    )
    settled, table = result.delivery.settled, result.sample_weights
    assert settled.sum(axis=1).tolist() == [1] * len(x)
    assert settled.mean(axis=0) == pytest.approx([0.5, 0.3, 0.2], abs=0.01)
    assert table.mean(axis=0) == pytest.approx([0.5, 0.3, 0.2], abs=0.01)
    assert result.delivery.reached.mean(axis=0) == pytest.approx([1, 0.5, 0.2], abs=0.01)
    assert table[settled].min() >= 0.8
    assert table.min() == pytest.approx(0.2 * 0.2)  # the floor: a fifth of the smallest share
    assert result.noise is not None  # the weights of the exits are balanced
    flat = train.federated(
        model, x, y, clients, weights=replace(how, floor=1.0), profile="50-30-20", settings=train.Settings(rounds=3)
    )
    assert flat.sample_weights == pytest.approx(np.tile([0.5, 0.3, 0.2], (len(x), 1)))


@pytest.mark.parametrize("on", ["reached", "settled"])
@pytest.mark.parametrize("effective", [0.2, 0.5, 0.9, 1.0])
def test_the_weights_of_few_samples_stay_worth_a_share_of_all(on, effective):
    settled = np.eye(3, dtype=bool)[np.repeat([0, 1, 2], [70, 25, 5])]
    reached = settled[:, ::-1].cumsum(axis=1)[:, ::-1].astype(bool)
    delivery = Delivery(settled, reached, ())
    rates = (0.7, 0.25, 0.05)
    table, _ = follow(np.tile(rates, (100, 1)), delivery, rates, Delivered(on=on, effective=effective, damping=0.0))
    assert table.mean(axis=0) == pytest.approx(rates)
    worth = table.sum(axis=0) ** 2 / (100 * (table**2).sum(axis=0))
    share = (reached if on == "reached" else settled).mean(axis=0)
    assert worth == pytest.approx(np.maximum(share, effective))


def test_a_fixed_point_stops_the_replays():
    settled = np.eye(3, dtype=bool)[[0, 0, 1, 2]]
    how = Delivered(on="settled", damping=0.5, effective=0.01)
    old = np.tile([0.5, 0.25, 0.25], (4, 1))
    delivery = Delivery(settled, settled, ())
    moved = []
    for _ in range(12):
        old, shift = follow(old, delivery, [0.5, 0.25, 0.25], how)
        moved.append(shift)
    assert moved == sorted(moved, reverse=True)
    assert moved[-1] < 1e-3
    np.testing.assert_allclose(old, settled, atol=1e-3)


def test_a_delivery_is_a_replay_through_the_strategy():
    rng = np.random.default_rng(0)
    logits = [rng.normal(size=(400, 4)).astype(np.float32) * s for s in (1, 2, 3)]
    found = deliver(logits, ["a", "b", "c"], train.Profile("50-30-20"), Delivered())
    p = [np.exp(z - z.max(1, keepdims=True)) for z in logits]
    top = [(q / q.sum(1, keepdims=True)).max(1) for q in p]
    first = top[0] >= found.thresholds[0]
    second = ~first & (top[1] >= found.thresholds[1])
    np.testing.assert_array_equal(found.settled, np.stack([first, second, ~first & ~second], axis=1))
    np.testing.assert_array_equal(found.reached, np.stack([first | True, ~first, ~first & ~second], axis=1))
    other = Delivered(strategy=lambda predictions, profile: ci.Forward(thresholds={"a": np.inf, "b": -np.inf}))
    assert deliver(logits, ["a", "b", "c"], train.Profile("50-30-20"), other).settled[:, 1].all()


def test_boosting_leaves_lower_blocks_frozen(few):
    model, x, y, _, clients = few
    settings = train.Settings(rounds=3)
    one = train.boost(model, x, y, clients, profile="50-30-20", settings=settings)
    first = train.federated(model, x, y, clients, weights=[1, 0, 0], settings=replace(settings, rounds=1))
    for name, value in first.model.state_dict().items():
        if name.startswith(("blocks.0", "heads.0")):
            assert torch.equal(value, one.model.state_dict()[name])


# Checkpoints --------------------------------------------------------------------------------------------------------

JOB = """
import numpy as np
from coinfer import train


def job(checkpoint, progress=None):
    rng = np.random.default_rng(0)
    y = np.arange(300) % 5
    x = rng.normal(size=(300, 12)).astype(np.float32)
    x[:, :5] += 2 * np.eye(5, dtype=np.float32)[y]
    model = train.dense(12, 5, (8, 12, 16), seed=1)
    nodes, links = train.tree((4, 2, 1))
    network = train.deploy(model, nodes, links, service_ms=[1, 2, 3])
    clients = train.clients(network, train.split("iid", y, [1] * 7))
    settings = train.Settings(rounds=8, method="fedadam", drop_share=0.2, straggler_share=0.2, device="cpu")
    return train.federated(
        model, x, y, clients, weights=train.Delivered(start=2, every=2), profile="50-30-20", settings=settings,
        network=network, checkpoint=checkpoint, progress=progress,
    )
"""


def test_kill_9_and_resume_gives_the_same_weights_bit_for_bit(tmp_path):
    """The training is killed in a process of its own; this one goes on from the checkpoint, and trains the whole."""
    script, checkpoint = tmp_path / "job.py", tmp_path / "killed.pt"
    script.write_text(f"{JOB}\nimport sys\njob(sys.argv[1], lambda what, done, total: print(done, flush=True))\n")
    killed = subprocess.Popen([sys.executable, str(script), str(checkpoint)], stdout=subprocess.PIPE, text=True)
    for line in killed.stdout:
        if int(line) >= 3:
            os.kill(killed.pid, signal.SIGKILL)
            break
    killed.stdout.close()
    assert killed.wait() == -signal.SIGKILL
    names = {}
    exec(JOB, names)
    again, whole = names["job"](checkpoint), names["job"](tmp_path / "whole.pt")
    assert 3 <= again.resumed_from < 8
    assert whole.resumed_from == 0
    assert same(whole.model, again.model)
    np.testing.assert_array_equal(whole.sample_weights, again.sample_weights)
    assert whole.history == again.history


def test_balanced_resumes_exactly(few, tmp_path):
    model, x, y, _, clients = few
    settings = train.Settings(rounds=6, warm_rounds=2)
    whole = train.federated(model, x, y, clients, weights="balanced", profile="5-15-80", settings=settings)
    for rounds in (1, 4, 6):
        result = train.federated(
            model, x, y, clients, weights="balanced", profile="5-15-80", settings=replace(settings, rounds=rounds),
            checkpoint=tmp_path / "c.pt",
        )  # fmt: skip
    assert result.resumed_from == 4
    assert same(whole.model, result.model)
    assert whole.history == result.history
    assert whole.weights == result.weights


def test_a_checkpoint_of_another_training_is_refused_and_says_what_differs(few, tmp_path):
    model, x, y, _, clients = few
    path = tmp_path / "c.pt"
    settings = train.Settings(rounds=1)
    train.federated(model, x, y, clients, settings=settings, checkpoint=path)
    other = {
        "learning_rate: 0.1 there, 0.2 here": ((model, x, y, clients), replace(settings, learning_rate=0.2)),
        "architecture, initial weights": ((train.dense(64, 10, (8, 12, 17)), x, y, clients), settings),
        "data": ((model, x + 1, y, clients), settings),
        "clients": ((model, x, y, clients[1:]), settings),
    }
    for differs, (given, how) in other.items():
        with pytest.raises(ci.BadFileError, match=differs):
            train.federated(*given, settings=how, checkpoint=path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ci.BadFileError, match=r"c\.pt: cannot be read as a checkpoint"):
        train.federated(model, x, y, clients, settings=settings, checkpoint=path)
    torch.save({"a": 1}, path)
    with pytest.raises(ci.BadFileError, match="holds something else"):
        train.federated(model, x, y, clients, settings=settings, checkpoint=path)


# Bad input ----------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_a_number_stops_and_names_client_and_round(few):
    model, x, y, _, clients = few
    bad = x.copy()
    bad[next(c.rows[0] for c in clients if c.name == "edge-2")] = np.nan
    with pytest.raises(train.DivergedError, match="client 'edge-2' in round 1"):
        train.federated(model, bad, y, clients)
    with pytest.raises(train.DivergedError, match=r"client '[a-z]+(-\d)?' in round \d+; lower learning_rate"):
        train.federated(model, x, y, clients, settings=train.Settings(rounds=50, learning_rate=1e20, batch=4))


def test_clients_that_cannot_train_are_refused(few):
    model, x, y, _, _ = few
    ones = np.flatnonzero(y == 1)
    cases = {
        "client 'a' has no data": [train.Client("a", [], 1)],
        "client 'b' has samples of one class only": [train.Client("a", [0, 1], 1), train.Client("b", ones, 1)],
        "client 'a' is named twice": [train.Client("a", [0, 1], 1)] * 2,
        "client 'a' has depth 4": [train.Client("a", [0, 1], 4)],
        "client 'a' names row 600": [train.Client("a", [0, 600], 1)],
        "at least one client": [],
    }
    for sentence, clients in cases.items():
        with pytest.raises(ci.BadValueError, match=sentence):
            train.federated(model, x, y, clients)
    train.federated(model, x, y, [train.Client("b", ones, 1)], settings=train.Settings(rounds=1, allow_one_class=True))
    with pytest.raises(ci.BadValueError, match="follow the serving rates: give profile="):
        train.fit(model, x, y, weights="delivered")
    with pytest.raises(ci.UnknownNameError, match="did you mean 'balanced'"):
        train.fit(model, x, y, weights="balance", profile="80-15-5")
    with pytest.raises(ci.BadValueError, match="row 3 is 10"):
        train.fit(model, x, np.where(np.arange(600) == 3, 10, y))
    with pytest.raises(ci.BadValueError, match="noise is a multiple of clip"):
        train.Settings(noise=1.0)
    with pytest.raises(ci.UnknownNameError, match="no method 'fedsgd'"):
        train.Settings(method="fedsgd")


@pytest.mark.timed
def test_training_takes_seconds_not_minutes(few):
    model, x, y, _, clients = few
    start = time.perf_counter()
    train.federated(model, x, y, clients, settings=train.Settings(rounds=5))
    assert time.perf_counter() - start < 20
