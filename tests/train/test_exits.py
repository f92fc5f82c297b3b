"""Early-exit networks: shapes, costs, export to predictions and networks."""

import numpy as np
import pytest

import coinfer as ci
from coinfer import train
from coinfer.train.flow import PROFILES, scores_of
from coinfer.train.placing import sends_features

torch = pytest.importorskip("torch")


def test_multiply_adds_and_parameters_equal_a_count_by_hand_for_dense_layers():
    costs = train.dense(64, 10, (16, 32)).costs(repeats=2)
    assert costs[0].multiply_adds == 64 * 16 + 16 * 10
    assert costs[1].multiply_adds == 64 * 16 + 16 * 32 + 32 * 10
    assert costs[1].own_multiply_adds == 16 * 32 + 32 * 10
    assert costs[0].parameters == 64 * 16 + 16 + 16 * 10 + 10
    assert costs[1].own_parameters == 16 * 32 + 32 + 32 * 10 + 10
    assert costs[0].features_kb == pytest.approx(16 * 4 / 1e3)
    assert costs[0].input_kb == pytest.approx(64 * 4 / 1e3)
    assert all(cost.own_time_us > 0 for cost in costs)


def test_multiply_adds_equal_a_count_by_hand_for_convolutions():
    costs = train.convolutional(8, 10, (2, 4)).costs(repeats=1)
    first = 8 * 8 * 2 * 9
    assert costs[0].multiply_adds == first + 2 * 16 * 10
    assert costs[1].multiply_adds == first + 4 * 4 * 4 * 2 * 9 + 4 * 4 * 10
    assert costs[1].parameters == (2 * 9 + 2) + (4 * 2 * 9 + 4) + (4 * 4 * 10 + 10)


def test_predictions_hold_every_exit_and_equal_a_direct_forward_pass():
    model = train.convolutional(8, 10, (2, 4), names=["small", "large"])
    x = np.random.default_rng(0).random((50, 1, 8, 8), np.float32)
    predictions = model.predictions(x, np.zeros(50, int), batch=7, measure_service=True)
    assert predictions.models == ("small", "large")
    with torch.no_grad():
        expected = model(torch.as_tensor(x))
    for name, z in zip(predictions.models, expected, strict=True):
        np.testing.assert_allclose(predictions[name].vector, z.numpy(), rtol=1e-5, atol=1e-6)
        assert (predictions[name].service_us > 0).all()


def test_exits_stand_on_the_tiers_of_a_network_and_replay():
    model = train.dense(64, 10)
    nodes, links = train.tree((4, 2, 1))
    network = train.deploy(model, nodes, links, service_ms=[1, 2, 3])
    assert [d.name for d in network.deployments][:5] == [
        "exit-1@device-1", "exit-1@device-2", "exit-1@device-3", "exit-1@device-4", "exit-2@edge-1",
    ]  # fmt: skip
    assert network.model("exit-2").request_kb == pytest.approx(16 * 4 / 1e3)  # features, smaller than 64 inputs
    x = np.random.default_rng(0).random((200, 64), np.float32)
    predictions = model.predictions(x, np.arange(200) % 10)
    strategy = train.strategy_for(predictions, "50-30-20")
    trace = ci.Trace.poisson(network, rate_rps=10, requests=5_000, samples=200, seed=0)
    shares = ci.replay(trace, predictions, network, strategy).summary.settled_by_model
    assert [shares[name] for name in model.names] == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


def test_features_are_sent_only_where_they_are_smaller_than_the_input():
    costs = train.dense(20, 3, (40, 10, 5)).costs(repeats=1)
    assert [sends_features(costs, e, "smaller") for e in range(3)] == [False, False, True]
    assert [sends_features(costs, e, "always") for e in range(3)] == [False, True, True]
    assert not any(sends_features(costs, e, "never") for e in range(3))


def test_a_tier_that_gets_the_input_is_charged_for_all_blocks():
    model = train.dense(20, 3, (40, 10, 5))
    nodes, links = train.tree((1, 1, 1))
    services = [d.service.mean_ms for d in train.deploy(model, nodes, links, split="never").deployments]
    assert services[2] > services[1] > services[0]


def test_thresholds_settle_the_shares_of_the_profile_on_random_scores():
    scores = np.random.default_rng(3).random((3, 20_000)).astype(np.float32)
    for profile in PROFILES:
        cuts = train.thresholds_for(scores, profile)
        first = scores[0] >= cuts[0]
        second = ~first & (scores[1] >= cuts[1])
        wanted = train.Profile(profile).shares
        assert first.mean() == pytest.approx(wanted[0], abs=1e-3)
        assert second.mean() == pytest.approx(wanted[1], abs=1e-3)


def test_thresholds_never_split_a_tie_and_forward_what_has_no_score():
    cuts = train.thresholds_for([[0.5, 0.5, 0.5, 0.9], [0, 0, 0, 0]], [0.4, 0.6])
    assert 0.5 < cuts[0] <= 0.9
    cuts = train.thresholds_for([[np.nan, np.nan, 0.3, 0.9], [0, 0, 0, 0]], [1.0, 0.0])
    assert cuts[0] <= np.float32(0.3)
    assert np.isfinite(cuts[0])
    assert train.thresholds_for([[0.1, 0.2], [0, 0]], [0, 1])[0] == np.inf


def test_scores_are_those_of_the_engine():
    model = train.dense(4, 3, (5, 6))
    predictions = model.predictions(np.random.default_rng(0).random((9, 4), np.float32))
    table = scores_of(predictions, "margin")
    np.testing.assert_array_equal(table[1], ci.score(predictions["exit-2"].vector, kind="margin", input="logits"))


def test_serving_rates_follow_arrivals_and_shares_up_a_tree():
    nodes, links = train.tree((90, 9, 1))
    network = train.deploy(train.dense(4, 2), nodes, links, service_ms=[1, 1, 1])
    rates = train.serving_rates(network, 900.0, "80-15-5")
    assert rates["device-01"] == pytest.approx(8.0)
    assert rates["edge-1"] == pytest.approx(15.0)
    assert rates["cloud"] == pytest.approx(45.0)
    assert sum(rates.values()) == pytest.approx(900.0)
    rates = train.serving_rates(network, {"device-01": 10.0}, "5-15-80")
    assert (rates["device-01"], rates["edge-1"], rates["cloud"]) == pytest.approx((0.5, 1.5, 8.0))


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "quantity", "difficulty"])
def test_a_split_gives_every_sample_to_exactly_one_client(kind):
    labels = np.arange(500) % 10
    rows = train.split(kind, labels, [1] * 20 + [10], seed=4, alpha=0.3, hardness=np.arange(500.0))
    assert sorted(np.concatenate(rows).tolist()) == list(range(500))
    again = train.split(kind, labels, [1] * 20 + [10], seed=4, alpha=0.3, hardness=np.arange(500.0))
    assert all(np.array_equal(a, b) for a, b in zip(rows, again, strict=True))


def test_unequal_splits_are_unequal():
    labels = np.arange(2000) % 10
    even = train.split("iid", labels, [1] * 10)
    skewed = train.split("dirichlet", labels, [1] * 10, alpha=0.1)
    most = [max(np.bincount(labels[r], minlength=10)) / len(r) for r in skewed]
    assert np.mean(most) > 2 * np.mean([max(np.bincount(labels[r], minlength=10)) / len(r) for r in even])
    assert all(len(np.unique(labels[r])) >= 2 for r in skewed)
    amounts = [len(r) for r in train.split("quantity", labels, [1] * 10, alpha=0.5)]
    assert max(amounts) > 4 * min(amounts)
    hard = train.split("difficulty", labels, [1, 1], hardness=np.arange(2000.0), bias=1.0)
    assert hard[0].max() < hard[1].min()


def test_difficulty_is_cross_fitted_and_finds_wrong_labels():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 5))
    y = (x[:, 0] > 0).astype(int)
    y[:20] = 1 - y[:20]
    hard = train.difficulty(x, y)
    assert (hard[:20] > 0).all()
    assert (hard[20:] < 0).mean() > 0.95


# Bad input ----------------------------------------------------------------------------------------------------------


def test_exits_that_outnumber_the_tiers_are_refused():
    nodes, links = train.tree((2, 1), tiers=("device", "cloud"), delay_ms=[1], bandwidth_mbps=[1])
    with pytest.raises(ci.BadValueError, match=r"3 exits outnumber the 2 tiers.*exit-3 would stand nowhere"):
        train.deploy(train.dense(4, 2), nodes, links)


@pytest.mark.parametrize("profile", ["80-15-10", "80-15", "50-30-20-10", [0.5, 0.6], [0.2, 0.2], "a-b"])
def test_a_profile_that_does_not_sum_to_one_is_refused(profile):
    with pytest.raises(ci.BadValueError, match=r"serving profile.*(sum|percentages)"):
        train.Profile(profile)


def test_a_profile_of_thirds_is_understood():
    assert train.Profile("33-33-33").shares == pytest.approx((1 / 3,) * 3)
    with pytest.raises(ci.BadValueError, match=r"3 shares, but the network has 2 exits"):
        train.thresholds_for([[1, 2], [1, 2]], "33-33-33")


def test_blocks_and_heads_that_do_not_fit_are_named():
    linear = torch.nn.Linear
    with pytest.raises(ci.BadValueError, match=r"exit 'exit-2'.*cannot take"):
        train.EarlyExit([linear(4, 8), linear(9, 8)], [linear(8, 3), linear(8, 3)], input_shape=[4])
    with pytest.raises(ci.BadValueError, match=r"exit 'exit-2'.*logits of shape"):
        train.EarlyExit([linear(4, 8), linear(8, 8)], [linear(8, 3), linear(8, 4)], input_shape=[4])
    with pytest.raises(ci.BadValueError, match=r"2 blocks and 1 heads"):
        train.EarlyExit([linear(4, 8), linear(8, 8)], [linear(8, 3)], input_shape=[4])
    with pytest.raises(ci.BadValueError, match=r"inputs must have shape \(N, 4\)"):
        train.dense(4, 2).predictions(np.zeros((3, 5), np.float32))
