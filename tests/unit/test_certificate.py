from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

import coinfer as ci
import reference_tuning as reference
from coinfer.compiling import Compiler
from coinfer.tuning import Certificate, Constraint, ShiftWarning, p_value
from coinfer.tuning.certifying import accepted
from coinfer.tuning.measuring import Measures

SHARED = Path(os.environ.get("COINFER_SHARED", Path(__file__).parents[2] / ".." / "shared")) / "data"


def frugalml(name, cheap, best):
    file = SHARED / "frugalml_dev.npz"
    if not file.exists():
        pytest.skip(f"the FrugalML predictions are not here: {file}")
    with np.load(file, allow_pickle=False) as data:
        apis, cost = data[f"{name}_apis"], data[f"{name}_cost_per10k"]
        labels, answers, confidence = data[f"{name}_labels"], data[f"{name}_preds"], data[f"{name}_conf"]
    preds = ci.Predictions(
        {str(apis[i]): ci.ModelOutput(label=answers[:, i].astype(int), confidence=confidence[:, i]) for i in range(4)},
        labels=labels.astype(int),
    )
    net = ci.Network.chain(
        {"device": str(apis[cheap]), "cloud": str(apis[best])}, price_usd=[cost[cheap] / 1e4, cost[best] / 1e4]
    )
    return preds, net, str(apis[best])


@pytest.fixture(scope="module")
def audiomnist():
    return frugalml("audiomnist", 3, 1)


# p-values against textbooks ----------------------------------------------------------------------------------


def test_p_values_are_what_the_references_say():
    rng = np.random.default_rng(0)
    for n, share, bound in ((40, 0.1, 0.2), (200, 0.02, 0.05), (30, 0.5, 0.4)):
        losses = (rng.random(n) < share).astype(float)
        p, method = p_value(losses, bound)
        assert method == "exact binomial"
        assert p == pytest.approx(reference.binomial(int(losses.sum()), n, bound), rel=1e-9)
    for n, bound in ((60, 0.1), (300, 0.02), (300, -0.01)):
        losses = rng.choice([-1, 0, 1], n, p=[0.03, 0.94, 0.03])
        p, method = p_value(losses, bound, "paired")
        assert method == "betting"
        assert p == pytest.approx(reference.betting(losses, bound, 0.05), rel=1e-9)
    p, method = p_value(rng.random(100), 0.7, "bounded")
    assert method == "Hoeffding-Bentkus"
    assert 1e-12 < p < 0.05


@pytest.mark.parametrize("values", ["binary", "paired", "bounded"])
def test_p_values_at_the_bound_are_rarely_small(values):
    rng = np.random.default_rng(1)
    draw = {
        "binary": lambda: (rng.random(80) < 0.1).astype(float),
        "paired": lambda: rng.choice([-1.0, 0.0, 1.0], 80, p=[0.05, 0.8, 0.15]),
        "bounded": lambda: rng.beta(1, 9, 80),
    }[values]
    small = sum(p_value(draw(), 0.1, values, delta=0.1)[0] <= 0.1 for _ in range(1000))
    assert small <= binom.ppf(0.999, 1000, 0.1)


# Validity on real data ---------------------------------------------------------------------------------------


def candidates(kind, preds, net):
    """Strategies from safe to cheap, chosen without looking at calibration draws."""
    if kind == "thresholds":
        front = ci.tune(ci.Forward("confidence"), preds, net, split=None).front.to_pandas()
        front = front[front.on_front].iloc[:: max(1, int(front.on_front.sum()) // 12)]
        return [ci.Forward("confidence", threshold=float(t)) for t in front.threshold]
    if kind == "agreement":
        groups = (preds.models[:3], preds.models[3:])
        return [ci.Agreement(groups=groups, at_least=share) for share in (1.0, 2 / 3, 1 / 3)]
    made = [ci.Sequential("vote", stop="probable", delta=delta) for delta in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)]
    return [each.fit(preds, net) for each in made]


@pytest.mark.parametrize("kind", ["thresholds", "agreement", "sequential"])
@pytest.mark.parametrize("what", ["accuracy_loss", "accuracy"])
def test_a_guaranteed_risk_is_violated_in_at_most_a_delta_share_of_draws(kind, what, audiomnist):
    preds, net, best = audiomnist
    if kind != "thresholds":
        net = ci.Network.chain({f"n{i}": m for i, m in enumerate(preds.models)}, price_usd=[1e-5, 2e-5, 3e-5, 4e-5])
    quantity = f"accuracy_loss[{best}]" if what == "accuracy_loss" else "accuracy"
    measures = Measures(Compiler(preds, net), quantities=[quantity])
    rows = np.arange(len(preds), dtype=np.uint32)
    losses = []
    for strategy in candidates(kind, preds, net):
        values = measures.losses(strategy, quantity, rows)
        losses.append(values if what == "accuracy_loss" else 1 - values)
    losses = np.array(sorted(losses, key=np.mean))
    risk = losses.mean(axis=1)
    bound = float(np.median(risk)) + 0.0005  # some candidates keep it, some do not
    rng = np.random.default_rng(7)
    draws, n = 1000, 1000
    broken = {0.05: 0, 0.1: 0}
    found = dict.fromkeys(broken, 0)
    for _ in range(draws):
        drawn = losses[:, rng.integers(0, len(rows), n)]
        known = {}

        def test(at, drawn=drawn, known=known):
            if at not in known:
                known[at] = p_value(drawn[at], bound, "paired" if what == "accuracy_loss" else "binary")[0]
            return known[at]

        for delta in broken:
            valid = accepted(test, len(losses), delta, "fixed-sequence")
            found[delta] += bool(valid)
            broken[delta] += any(risk[at] > bound for at in valid)
    for delta, count in broken.items():
        assert count <= binom.ppf(0.995, draws, delta), f"{count} of {draws} violations at delta {delta}"
    assert found[0.1] > 0


def test_the_bound_of_a_paired_loss_is_not_vacuous(audiomnist):
    preds, net, best = audiomnist
    tuned = ci.tune(ci.Forward("confidence"), preds, net, subject_to=[f"accuracy_loss[{best}] <= 0.004"], split=None)
    quantity = f"accuracy_loss[{best}]"
    measures = Measures(Compiler(preds, net), quantities=[quantity])
    losses = measures.losses(tuned.strategy, quantity, np.arange(len(preds), dtype=np.uint32))
    drawn = np.random.default_rng(3).choice(losses, 5000)
    mean = drawn.mean()
    assert p_value(drawn, mean + 0.006, "paired")[0] <= 0.05
    # The rescaled Hoeffding-Bentkus bound, which is what one would use without betting, says nothing here.
    assert p_value(drawn, mean + 0.006, "bounded", low=-1.0)[0] > 0.05


# The same as others ------------------------------------------------------------------------------------------


def test_the_valid_set_is_that_of_mapie_on_a_cascade_of_two_binary_models():
    control = pytest.importorskip("mapie.risk_control", reason="MAPIE is not installed")
    rng = np.random.default_rng(5)
    n = 1500
    truth = rng.integers(0, 2, n)
    sure = np.round(rng.random(n), 2).astype(np.float32)
    small = np.where(rng.random(n) < 0.5 + 0.5 * sure, truth, 1 - truth)
    large = np.where(rng.random(n) < 0.93, truth, 1 - truth)
    preds = ci.Predictions(
        {"small": ci.ModelOutput(label=small, confidence=sure), "large": ci.ModelOutput(label=large)}, labels=truth
    )
    net = ci.Network.chain({"device": "small", "cloud": "large"}, price_usd=[0, 1e-4])
    thresholds = np.linspace(0.02, 0.98, 33).astype(np.float32)
    measures = Measures(Compiler(preds, net))
    rows = np.arange(n, dtype=np.uint32)
    p = []
    for threshold in thresholds:
        right = measures.losses(ci.Forward("confidence", threshold=float(threshold)), "accuracy", rows)
        p.append(p_value(1 - right, 1 - 0.85)[0])
    ours = [float(thresholds[at]) for at in accepted(p.__getitem__, len(p), 0.1, "bonferroni")]

    def cascade(X, threshold):
        return np.where(X[:, 0] >= threshold, X[:, 1], X[:, 2]).astype(int)

    theirs = control.BinaryClassificationController(
        cascade,
        "accuracy",
        0.85,
        confidence_level=0.9,
        list_predict_params=thresholds[:, None],
        fwer_method="bonferroni",
    )
    theirs.calibrate(np.stack([sure, small, large], axis=1), truth)
    assert ours == [float(t) for t in np.ravel(theirs.valid_predict_params)]
    assert 3 < len(ours) < len(thresholds)
    # MAPIE rounds n x risk up, which a last bit can lift by one failure: never smaller, and mostly equal.
    close = np.isclose(p, np.ravel(theirs.p_values), rtol=1e-6, atol=1e-12)
    assert close.mean() > 0.5
    assert np.all(np.ravel(theirs.p_values)[~close] > np.array(p)[~close])


# The certificate of a tuned strategy -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certified(audiomnist):
    preds, net, best = audiomnist
    wishes = [f"accuracy_loss[{best}] <= 0.01", "accuracy >= 0.95"]
    return ci.tune(ci.Forward("confidence"), preds, net, subject_to=wishes, confidence=0.9, seed=3)


def test_a_tuned_strategy_carries_its_certificate_to_a_file_and_back(certified, tmp_path):
    certificate = certified.strategy.certificate
    assert certificate is certified.certificate
    assert certificate.delta == pytest.approx(0.1)
    assert [g.method for g in certificate.guarantees] == ["betting", "exact binomial"]
    assert all(g.p_value <= 0.1 for g in certificate.guarantees)
    assert "With 0.9 confidence" in certificate.sentence
    assert "points of accuracy are lost" in str(certified)
    certified.strategy.save(tmp_path / "s.toml")
    opened = ci.Strategy.open(tmp_path / "s.toml")
    assert opened == certified.strategy
    assert opened.certificate == certificate
    assert opened.with_parameters(threshold=0.5).certificate is None
    text = (tmp_path / "s.toml").read_text().replace("delta = 0.", "delta = 7.")
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(ci.BadValueError, match="certificate"):
        ci.Strategy.open(tmp_path / "s.toml")


def test_what_was_certified_holds_on_the_held_out_part(certified, audiomnist):
    for wish in certified.subject_to:
        assert wish.holds(np.array([float(certified.measured[wish.quantity])]))[0]
    assert certified.samples[0] + certified.samples[1] + certified.calibrated == len(audiomnist[0])
    assert certified.to_dict()["certified"] is True


def test_other_scores_are_noticed_and_the_same_are_not(certified, audiomnist, recwarn):
    preds, net, _ = audiomnist
    trace = ci.Trace(np.arange(len(preds)), ["device"] * len(preds), np.arange(len(preds)))
    ci.replay(trace, preds, net, certified.strategy)
    assert not [w for w in recwarn if w.category is ShiftWarning]
    shifted = ci.Predictions(
        {m: ci.ModelOutput(label=preds[m].label, confidence=preds[m].confidence ** 3) for m in preds.models},
        labels=preds.labels,
    )
    with pytest.warns(ShiftWarning, match="stage 0"):
        ci.replay(trace, shifted, net, certified.strategy)


def test_what_cannot_be_certified_is_said(audiomnist):
    preds, net, best = audiomnist
    forward = ci.Forward("confidence")
    with pytest.raises(ci.UnsupportedError, match="nothing can be certified"):
        ci.tune(forward, preds, net, subject_to=["latency_us_p99 <= 80000"], confidence=0.95)
    with pytest.raises(ci.BadValueError, match="samples of its own"):
        ci.tune(forward, preds, net, subject_to=["accuracy >= 0.9"], confidence=0.95, split=(0.5, 0.5))
    with pytest.raises(ci.UnknownNameError, match="fixed-sequence"):
        ci.tune(forward, preds, net, subject_to=["accuracy >= 0.9"], confidence=0.95, procedure="fixed")
    few = preds.select(np.arange(0, len(preds), 300))
    tight = ci.tune(forward, few, net, subject_to=[f"accuracy_loss[{best}] <= 0.0001"], confidence=0.99)
    assert tight.asked
    assert tight.certificate is None
    assert "NOT CERTIFIED" in str(tight)


def test_a_certificate_reads_back_from_its_own_table(certified):
    assert Certificate.from_dict(certified.certificate.to_dict()) == certified.certificate
    assert Constraint.parse(certified.certificate.guarantees[0].constraint).at_least is False
