from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

import coinfer as ci
import reference_combining as reference
from coinfer._core import plan as core
from coinfer.compiling import Compiler

SHARED = Path(os.environ.get("COINFER_SHARED", Path(__file__).parents[2] / ".." / "shared"))
CIFAR = SHARED / "data" / "cifar10_models.npz"
HOWS = ("mean", "logpool", "vote")
ROWS = 37
# Each logarithm is rounded to float32, at up to 126 in size: see src/coinfer/combine/pool.hpp.
BOUND = {"mean": 1e-7, "vote": 1e-7, "logpool": 1e-5}


def tables(classes, members=4, rows=ROWS, seed=0, sparsity=0.3):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(members):
        p = rng.gamma(sparsity, size=(rows, classes)) + 1e-12
        made.append((p / p.sum(axis=1, keepdims=True)).astype(np.float32))
    return made


def same(a, b, rows=slice(None)):
    for field in ("label", "confidence", "margin", "probs"):
        np.testing.assert_array_equal(getattr(a, field)[rows], getattr(b, field)[rows], err_msg=field)


def check(combined, expected, how, exact=True):
    label, confidence, margin, probs = expected
    np.testing.assert_allclose(combined.probs, probs, atol=BOUND[how], rtol=0)
    np.testing.assert_allclose(combined.confidence, confidence, atol=BOUND[how], rtol=0)
    np.testing.assert_allclose(combined.margin, margin, atol=2 * BOUND[how], rtol=0)
    clear = (margin > 2 * BOUND[how]) | np.isnan(margin) if how == "logpool" or not exact else slice(None)
    np.testing.assert_array_equal(combined.label[clear], label[clear])


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("classes", [1, 2, 3, 4, 5, 10, 15, 16, 17, 31, 32, 33, 100, 300])
def test_equals_the_reference_on_every_instruction_set_and_row_by_row(how, classes):
    members = tables(classes, seed=classes)
    weights = [1.0, 2.5, 0.3, 1.0]
    expected = reference.combine(members, how, weights)
    first = None
    for isa in ci.cpu.implementations():
        with ci.cpu.use(isa):
            bulk = ci.combine(members, how, weights, probs=True)
            check(bulk, expected, how)
            first = first or bulk
            same(first, bulk)
            for row in range(ROWS):
                alone = ci.combine([m[row : row + 1] for m in members], how, weights, probs=True)
                same(alone, ci.Combined(*(v[row : row + 1] for v in vars_of(bulk)), 0))


def vars_of(combined):
    return combined.label, combined.confidence, combined.margin, combined.probs


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("classes", [2, 10, 33])
def test_a_missing_member_is_left_out_and_changes_no_other_row(how, classes):
    members = tables(classes, seed=classes)
    whole = ci.combine(members, how, probs=True)
    holes = [m.copy() for m in members]
    holes[1][3, classes - 1] = np.nan
    holes[0][4] = np.nan
    holes[2][5, 0] = -0.5
    for m in holes:
        m[6, 0] = np.nan
    with_holes = ci.combine(holes, how, probs=True)
    check(with_holes, reference.combine(holes, how), how)
    assert with_holes.label[6] == -1
    assert np.isnan(with_holes.confidence[6])
    assert with_holes.unanswered == 1
    touched = [3, 4, 5, 6]
    same(whole, with_holes, np.setdiff1d(np.arange(ROWS), touched))


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("classes", [2, 3, 10, 40])
def test_layout_and_threads_change_nothing(how, classes):
    members = tables(classes, rows=5000, seed=3)
    expected = ci.combine(members, how, probs=True)
    gaps = [np.zeros((5000, classes + 3), np.float32) for _ in members]
    for gap, m in zip(gaps, members, strict=True):
        gap[:, 1 : classes + 1] = m
    same(expected, ci.combine([g[:, 1 : classes + 1] for g in gaps], how, probs=True))
    same(expected, ci.combine([np.asfortranarray(m) for m in members], how, probs=True, threads=2))
    without = ci.combine(members, how)
    assert without.probs is None
    np.testing.assert_array_equal(without.label, expected.label)


def test_an_earlier_result_is_written_again():
    members = tables(10, rows=50)
    first = ci.combine(members, probs=True)
    kept = ci.Combined(*(v.copy() for v in vars_of(first)), 0)
    again = ci.combine([m[::-1] for m in members], probs=True, out=first)
    assert again.label is first.label
    assert again.probs is first.probs
    same(kept, ci.Combined(*(v[::-1] for v in vars_of(again)), 0))
    for out, says in (
        (first.label, "earlier result"),
        (ci.Combined(first.label[:9], *vars_of(first)[1:], 0), r"out.label .*\(50,\)"),
        (ci.Combined(first.label, members[0].ravel()[:50], first.margin, None, 0), "out.confidence overlaps"),
    ):
        with pytest.raises(ci.BadValueError, match=says):
            ci.combine(members, out=out)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
@pytest.mark.parametrize("classes", [1, 2, 10, 50])
def test_logits_are_softmaxed_and_probabilities_tempered(how, temperature, classes):
    rng = np.random.default_rng(classes)
    logits = [rng.normal(0, 3, (ROWS, classes)).astype(np.float32) for _ in range(3)]
    if classes > 2:
        logits[0][3, :2] = np.inf
        logits[1][4, 1] = -np.inf
        logits[2][5] = -np.inf
    soft = [reference.softmax(z, temperature) for z in logits]
    check(
        ci.combine(logits, how, input="logits", temperature=temperature, probs=True),
        reference.combine(soft, how),
        "logpool" if how == "logpool" else "mean",
        exact=False,
    ) if how != "vote" else np.testing.assert_array_equal(
        ci.combine(logits, how, input="logits", temperature=temperature).label, reference.combine(soft, how)[0]
    )
    probs = tables(classes, 3, seed=9)
    tempered = [reference.temper(p, temperature) for p in probs]
    if how != "vote":
        got = ci.combine(probs, how, temperature=temperature, probs=True)
        np.testing.assert_allclose(got.probs, reference.combine(tempered, how)[3], atol=1e-5)


@pytest.mark.parametrize("how", HOWS)
def test_one_member_is_itself(how):
    (table,) = tables(10, 1, rows=500)
    combined = ci.combine([table], how, probs=True)
    np.testing.assert_array_equal(combined.label, table.argmax(axis=1))
    if how == "mean":
        np.testing.assert_array_equal(combined.probs, table)


@pytest.mark.parametrize("how", HOWS)
def test_the_order_of_members_does_not_matter(how):
    members = tables(10, 4, rows=2000, seed=5)
    expected = ci.combine(members, how, probs=True)
    for order in itertools.permutations(range(4)):
        other = ci.combine([members[i] for i in order], how, probs=True)
        if how == "vote":
            same(expected, other)
        else:
            np.testing.assert_array_equal(expected.label, other.label)
            rtol = 1e-5 if how == "logpool" else 1e-6  # products are rounded to float32, in the order of the members
            np.testing.assert_allclose(expected.probs, other.probs, rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("how", ["mean", "logpool"])
@pytest.mark.parametrize("classes", [3, 10, 40, 130])
@pytest.mark.parametrize("weights", [[1.0] * 4, [0.3] * 4, [1.0] * 10, [2.0, 2.0, 1.0, 1.0, 1.0], [0.1] * 17])
def test_all_members_at_once_is_one_by_one(how, classes, weights):
    members = tables(classes, len(weights), seed=len(weights), sparsity=0.1)
    members[0][1] = 0.0
    members[1][2, 1:] = [1.0, *[0.0] * (classes - 2)]
    members[1][3, 0] = -0.0
    members[2][4] *= 3.0
    members[3][5] = np.float32(1e-40)
    # Where more than an eighth of the rows miss a member, all of them are combined member by member.
    gone = [
        np.concatenate([m, np.full((20, classes), np.nan if i == 0 else 0.5, np.float32)])
        for i, m in enumerate(members)
    ]
    first = None
    for isa in ci.cpu.implementations():
        with ci.cpu.use(isa):
            whole = ci.combine(members, how, weights, probs=True)
            check(whole, reference.combine(members, how, weights), how, exact=False)
            first = first or whole
            same(first, whole)
            other = ci.combine(gone, how, weights, probs=True)
            same(whole, ci.Combined(*(v[:ROWS] for v in vars_of(other)), 0))


def test_equal_sums_go_to_the_lowest_label_and_unequal_ones_never():
    a = np.array([[0.25, 0.5, 0.25], [0.25, 0.375, 0.375]], np.float32)
    b = np.array([[0.5, 0.25, 0.25], [0.25, 0.375, 0.375]], np.float32)
    assert ci.combine([a, b]).label.tolist() == [0, 1]
    assert ci.combine([a, b], "logpool").label.tolist() == [0, 1]
    # Different by less than float32 can show after the division, but different.
    tiny = np.float32(2.0**-27)
    c = np.array([[0.5, 0.5], [0.5, 0.5]], np.float32)
    d = np.array([[0.0, tiny], [tiny, 0.0]], np.float32)
    assert ci.combine([c, d]).label.tolist() == [1, 0]
    assert ci.combine([[2, 1, 0], [1, 1, 2]], "vote", classes=3).label.tolist() == [1, 1, 0]
    with_zero = ci.combine([[[0.0, 1.0]], [[0.6, 0.4]]], "logpool", probs=True)
    assert with_zero.label.tolist() == [1]
    assert 0 < with_zero.probs[0, 0] < 1e-18


def test_labels_vote_and_missing_labels_do_not():
    rng = np.random.default_rng(1)
    members = [rng.integers(-1, 7, 500).astype(np.int32) for _ in range(5)]
    weights = [1, 2, 3, 1, 2]
    expected = reference.combine(members, "vote", weights, classes=7)
    check(ci.combine(members, "vote", weights, classes=7, probs=True), expected, "vote")
    nobody = ci.combine([[-1, 0], [-1, 1]], "vote")
    assert nobody.label.tolist() == [-1, 0]
    assert nobody.unanswered == 1


@pytest.mark.parametrize("weights", [None, [1, 2, 0.5, 1, 0], [0.3, 0.1, 0.3, 0.7, 0.2]])
@pytest.mark.parametrize("classes", [1, 2, 5, 6, 30, 1000])
@pytest.mark.parametrize("forms", ["labels", "vectors", "both"])
def test_votes_counted_at_once_are_the_reference(forms, classes, weights):
    rng = np.random.default_rng(classes)
    members = [rng.integers(0, classes, 250).astype(np.int32) for _ in range(5)]
    members[0][::9] = -1
    members[3][9] = -1
    if forms != "labels":
        for m in range(0, 5, 1 if forms == "vectors" else 2):
            members[m] = tables(classes, 1, rows=250, seed=m)[0]
            members[m][::9, 0] = np.nan
    expected = reference.combine(members, "vote", weights, classes=classes)
    got = ci.combine(members, "vote", weights, classes=classes)
    np.testing.assert_array_equal(got.label, expected[0])
    np.testing.assert_allclose(got.confidence, expected[1], atol=1e-7)
    whole = ci.combine(members, "vote", weights, classes=classes, probs=True)
    for field in ("label", "confidence", "margin"):
        np.testing.assert_array_equal(getattr(got, field), getattr(whole, field))
    if weights is not None:
        same(whole, ci.combine(members, "weighted_vote", weights, classes=classes, probs=True))


def test_a_vote_for_a_class_that_does_not_exist_is_refused():
    with pytest.raises(ci.BadValueError, match="member 1 holds label 7"):
        ci.combine([[0, 1], [7, 0]], "vote", classes=3)


@pytest.mark.parametrize("voting", ["hard", "soft"])
@pytest.mark.parametrize("weights", [None, [0.1, 0.2, 0.3, 0.7]])
def test_labels_equal_scikit_learn(voting, weights):
    from sklearn.ensemble import VotingClassifier

    members = tables(6, 4, rows=20_000, seed=8)
    # Its logic without fitting: estimators that return what they are given.
    voter = VotingClassifier([(str(i), None) for i in range(4)], voting=voting, weights=weights)
    if voting == "soft":
        said = np.average(np.asarray([m.astype(np.float64) for m in members]), axis=0, weights=weights)
        expected = np.argmax(said, axis=1)
        got = ci.combine(members, "mean", weights)
    else:
        votes = np.asarray([m.argmax(axis=1) for m in members]).T
        expected = np.apply_along_axis(
            lambda row: np.argmax(np.bincount(row, weights=voter.weights)), axis=1, arr=votes
        )
        got = ci.combine(members, "vote", weights)
    np.testing.assert_array_equal(got.label, expected)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (([[[1.0]]], "meen"), ci.UnknownNameError, "did you mean 'mean'"),
        (([], "mean"), ci.BadValueError, "at least one table"),
        (([[[1.0]], [[1.0], [1.0]]], "mean"), ci.BadValueError, "member 1 has 2 rows"),
        (([[[1.0]], [[0.5, 0.5]]], "mean"), ci.BadValueError, "member 1 has 2 classes"),
        (([[0, 1]], "mean"), ci.UnsupportedError, "member 0 .* labels can only vote"),
        (([[[1.0]]], "weighted"), ci.BadValueError, "needs weights"),
        (([[0]], "weighted_vote"), ci.BadValueError, "needs weights=.* how='vote'"),
        (([[[1.0]]], "mean", [0.0]), ci.BadValueError, "all 0"),
        (([[[1.0]]], "mean", [1.0, 2.0]), ci.BadValueError, "one number per member, 1 in all"),
        (([[[1.0]]], "mean", [-1.0]), ci.BadValueError, "weight 0"),
        (([[[1.0]]], "mean", None, "logit"), ci.UnknownNameError, "did you mean 'logits'"),
    ],
)
def test_what_is_not_allowed_is_named(arguments, error, words):
    with pytest.raises(error, match=words):
        ci.combine(*arguments)


# ---- as a strategy ---------------------------------------------------------------------------------------------------


def network(models, nodes=1):
    sites = [ci.Node(f"n{i}", i) for i in range(nodes)]
    links = [ci.Link(between=("n0", f"n{i}"), delay_ms=10.0 * i) for i in range(1, nodes)]
    placed = [
        ci.Deployment(m, f"n{i % nodes}", service=ci.service.Constant(mean_ms=1.0 + i), price_usd=0.5 * i)
        for i, m in enumerate(models)
    ]
    return ci.Network(sites, links, [], placed)


def every_sample(predictions):
    rows = len(predictions)
    return ci.Trace(arrival_ns=np.arange(rows) * 1000, ingress=["n0"] * rows, sample=np.arange(rows))


def replayed(predictions, strategy):
    return ci.replay(every_sample(predictions), predictions, network(predictions.models), strategy)


@pytest.mark.parametrize("how", HOWS)
def test_session_bulk_and_combine_agree_in_every_bit(how):
    members = tables(10, 3, rows=300, seed=4)
    members[1][7] = np.nan
    for m in members:
        m[8] = np.nan
    predictions = ci.Predictions({f"m{i}": ci.ModelOutput(probs=m) for i, m in enumerate(members)})
    strategy = ci.Ensemble(how, weights={"m0": 1, "m1": 2.5, "m2": 0.3})
    joint = ci.combine(members, how, [1, 2.5, 0.3])
    run = replayed(predictions, strategy)
    outcomes = run.outcomes()
    answer = outcomes["answer"].to_numpy(zero_copy_only=False)
    np.testing.assert_array_equal(np.where(np.isnan(answer), -1, answer), joint.label)
    np.testing.assert_array_equal(outcomes["confidence"].to_numpy(), joint.confidence)
    status = outcomes["status"].to_pylist()
    assert (status[6], status[7], status[8]) == ("answered", "degraded", "failed")
    plan = Compiler(predictions, network(predictions.models)).plan(strategy, "n0").plan
    for row in range(300):
        session = core.Session(plan)
        for member in reversed(session.ask()):
            session.tell(member, core.Outputs("probs", members[member][row : row + 1]))
        session.step()
        assert session.label == joint.label[row]
        assert np.float32(session.score) == joint.confidence[row] or np.isnan(joint.confidence[row])


def test_an_ensemble_is_as_slow_as_its_slowest_member_and_pays_all():
    members = tables(4, 3, rows=20)
    predictions = ci.Predictions({f"m{i}": ci.ModelOutput(probs=m) for i, m in enumerate(members)})
    net = network(predictions.models, nodes=3)  # m2 stands 20 ms away and takes 3 ms
    trace = every_sample(predictions)
    summary = ci.replay(trace, predictions, net, ci.Ensemble("mean")).summary
    assert summary.latency_us.max == pytest.approx(43_000)
    assert summary.price_usd == pytest.approx(0.0 + 0.5 + 1.0)


@pytest.mark.parametrize("how", HOWS)
def test_models_that_know_fewer_classes_are_aligned_by_name(how):
    names = ["a", "b", "c", "d", "e"]
    wide, narrow = tables(5, 1, seed=1)[0], tables(3, 1, seed=2)[0]
    predictions = ci.Predictions(
        {
            "wide": ci.ModelOutput(probs=wide, classes=names),
            "narrow": ci.ModelOutput(probs=narrow, classes=["b", "c", "e"]),
            "logits": ci.ModelOutput(logits=np.log(narrow), classes=["b", "c", "e"]),
        },
        classes=names,
    )
    other = reference.spread(narrow.astype(np.float64), [1, 2, 4], 5)
    label, confidence, *_ = reference.combine([wide, other, other], how)
    outcomes = replayed(predictions, ci.Ensemble(how)).outcomes()
    np.testing.assert_array_equal(outcomes["answer"].to_numpy(), label)
    np.testing.assert_allclose(outcomes["confidence"].to_numpy(), confidence, atol=1e-5)


def test_an_abstention_is_no_vote_and_leaves_a_vector_out():
    net = ci.Network(
        [ci.Node("n0", 0)],
        [],
        [ci.Model("a", abstain=(2,)), ci.Model("b"), ci.Model("c")],
        [ci.Deployment(m, "n0", service=ci.service.Constant(mean_ms=1.0)) for m in ("a", "b", "c")],
    )
    for how in HOWS:
        quiet = np.array([[0.1, 0.1, 0.8], [0.1, 0.1, 0.8]], np.float32)
        said = np.array([[0.2, 0.7, 0.1], [np.nan] * 3], np.float32)
        predictions = ci.Predictions({m: ci.ModelOutput(probs=quiet if m == "a" else said) for m in ("a", "b", "c")})
        outcomes = ci.replay(every_sample(predictions), predictions, net, ci.Ensemble(how)).outcomes()
        assert outcomes["answer"].to_pylist() == [1, 2]
        assert outcomes["status"].to_pylist() == ["answered", "degraded"]
        assert np.isnan(outcomes["confidence"].to_numpy()[1])


def test_a_model_without_vectors_cannot_be_averaged():
    predictions = ci.Predictions(
        {"soft": ci.ModelOutput(probs=tables(3, 1)[0]), "hard": ci.ModelOutput(label=np.zeros(ROWS, int))}
    )
    with pytest.raises(ci.UnsupportedError, match="model 'hard' gives labels only"):
        replayed(predictions, ci.Ensemble("mean"))
    with pytest.raises(ci.UnsupportedError, match="'hard'"):
        replayed(predictions, ci.Ensemble("logpool"))
    assert replayed(predictions, ci.Ensemble("vote")).summary.requests == ROWS


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"how": "men"}, ci.UnknownNameError, "did you mean 'mean'"),
        ({"how": "weighted"}, ci.BadValueError, "needs weights="),
        ({"models": "m0"}, ci.BadValueError, "sequence"),
        ({"models": ("m0", "m0")}, ci.BadValueError, "twice"),
        ({"weights": {"m0": -1}}, ci.BadValueError, "weight of model 'm0'"),
        ({"weights": {"m0": 0}}, ci.BadValueError, "all 0"),
    ],
)
def test_a_bad_ensemble_is_named(arguments, error, words):
    with pytest.raises(error, match=words):
        ci.Ensemble(**arguments)


def test_weights_and_models_that_do_not_fit_the_network_are_named():
    net = network(("m0", "m1"))
    with pytest.raises(ci.UnknownNameError, match="'m2' has a weight but is not asked"):
        ci.Ensemble(weights={"m0": 1, "m1": 1, "m2": 1}).plan(net, "n0")
    with pytest.raises(ci.UnsupportedError, match="'m1' has no weight"):
        ci.Ensemble(weights={"m0": 1}).plan(net, "n0")
    with pytest.raises(ci.UnknownNameError, match="m7"):
        ci.Ensemble(models=("m7",)).plan(net, "n0")
    assert [d.model for d in ci.Ensemble(models=("m1", "m0")).plan(net, "n0").stages[0].members] == ["m1", "m0"]


# ---- real networks ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cifar():
    if not CIFAR.exists():
        pytest.skip(f"{CIFAR.name} is not there: set COINFER_SHARED to the folder that holds data/")
    with np.load(CIFAR, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def test_thirty_networks_vote(cifar):
    votes = {str(m): np.ascontiguousarray(cifar["top1_preds"][:, i]) for i, m in enumerate(cifar["top1_models"])}
    joint = ci.combine(list(votes.values()), "vote", classes=10)
    assert np.mean(joint.label == cifar["labels"]) == 0.9700
    predictions = ci.Predictions({m: ci.ModelOutput(label=v) for m, v in votes.items()}, labels=cifar["labels"])
    run = replayed(predictions, ci.Ensemble("vote"))
    assert float(run.summary.accuracy) == 0.9700
    np.testing.assert_array_equal(run.outcomes()["answer"].to_numpy(), joint.label)


@pytest.mark.parametrize(
    ("models", "accuracy"),
    [
        (("soft_vgg16", "soft_cleanlab_cv"), 0.9385),
        (tuple(f"softjpeg_resnet{depth}" for depth in (20, 32, 44, 56)), 0.8590),
    ],
)
def test_means_of_real_networks(cifar, models, accuracy):
    joint = ci.combine([cifar[m] for m in models])
    assert np.mean(joint.label == cifar["labels"]) == accuracy
    predictions = ci.Predictions({m: ci.ModelOutput(probs=cifar[m]) for m in models}, labels=cifar["labels"])
    run = replayed(predictions, ci.Ensemble("mean"))
    assert float(run.summary.accuracy) == accuracy
    np.testing.assert_array_equal(run.outcomes()["confidence"].to_numpy(), joint.confidence)
