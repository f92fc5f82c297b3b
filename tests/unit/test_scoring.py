"""Scores against the float64 reference, for every kind, instruction set and layout; and what is refused."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import coinfer as ci
import reference_scoring as reference
from coinfer.scoring import KINDS

CLASSES = [*range(1, 41), 63, 64, 65, 66, 100, 127, 128, 129, 130, 255, 256, 257, 1000, 1999, 2000, 2049, 4100]
TEMPERATURES = [1.0, 0.05, 0.5, 3.0, 20.0]
EVERYTHING = ("label", *KINDS)
FROM_PROBS = ("label", "max_prob", "margin", "entropy", "gini")
implementations = pytest.mark.parametrize("isa", ci.cpu.implementations())

# What the largest error against float64 may be; energy and logit_margin relative to their magnitude.
BOUND = {"max_prob": 5e-7, "margin": 5e-7, "entropy": 1e-6, "gini": 1e-6, "energy": 5e-7, "logit_margin": 2e-7}


def logits(rows, classes, seed=0):
    """Rows of every awkward sort, in turn."""
    rng = np.random.default_rng([seed, rows, classes])
    z = rng.normal(0.0, 4.0, (rows, classes)).astype(np.float32)
    sort = np.arange(rows) % 9
    z[sort == 1] = np.float32(1.25)  # all tied
    z[(sort == 2)[:, None] & (rng.random(z.shape) < 0.4)] = -np.inf
    z[sort == 3] = np.round(z[sort == 3])  # many ties
    z[sort == 4] *= 25.0  # nearly certain
    z[sort == 5] *= np.float32(1e-41)  # denormal
    z[sort == 6] += np.float32(1e4)
    z[sort == 8] = -np.float32(rng.uniform(0.0, 10.0))  # one above many equal ones: rounding errors of one sign add up
    z[np.flatnonzero(sort == 8), rng.integers(classes)] = np.float32(0.0)
    if classes > 1:
        near = np.flatnonzero(sort == 7)
        z[near, 0] = np.float32(9.0)
        z[near, -1] = np.nextafter(np.float32(9.0), np.float32(10.0))  # nearly tied, the later one larger
    return z


def special():
    """Rows with a NaN or an infinite maximum, among ordinary ones."""
    n, i = np.nan, np.inf
    rows = [[1, 2, 0], [n, 1, 2], [1, 2, n], [n, n, n], [i, 1, 2], [i, 1, i], [i, i, i], [-i, -i, -i], [-i, 3, -i],
            [i, -i, n], [3e38, -3e38, 0], [-n, 1, 2], [0, -0.0, 0]]  # fmt: skip
    return np.array(rows, np.float32)


def check(z, temperature, input="logits"):
    """Compare every score of z, on every instruction set, with the reference; return the largest errors."""
    kinds = EVERYTHING if input == "logits" else FROM_PROBS
    labels, expected = reference.scores(z, temperature, input)
    bits = None
    errors = {}
    for isa in ci.cpu.implementations():
        with ci.cpu.use(isa):
            found = ci.scores(z, kinds, temperature=temperature, input=input)
        assert np.array_equal(found["label"], labels)
        assert found.unanswered == np.count_nonzero(labels == -1)
        now = [found[kind].tobytes() for kind in kinds]
        assert bits is None or now == bits, isa
        bits = now
    for kind, values in expected.items():
        with np.errstate(over="ignore"):
            values = values.astype(np.float32).astype(np.float64)
        finite = np.isfinite(values)
        assert np.array_equal(found[kind][~finite], values[~finite], equal_nan=True), kind
        error, values = np.abs(found[kind][finite] - values[finite]), values[finite]
        if kind == "energy":
            top = np.abs(z).max(axis=1, initial=0.0, where=np.isfinite(z))[finite]
            error /= np.maximum(np.maximum(top, np.abs(values)), temperature)
        if kind == "logit_margin":
            error /= np.maximum(np.abs(values), 1e-38)
        errors[kind] = error.max(initial=0.0)
        assert errors[kind] <= (BOUND[kind] if input == "logits" else 2e-6), kind
    return errors


@pytest.mark.parametrize("classes", CLASSES)
def test_every_number_of_classes_agrees_with_the_reference(classes):
    rows = 41 if classes <= 300 else 18
    for temperature in TEMPERATURES[: 5 if classes <= 300 else 2]:
        check(logits(rows, classes), temperature)


@pytest.mark.parametrize("classes", [1, 2, 3, 4, 7, 16, 17, 40, 100, 130, 600])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 20.0])
def test_probabilities_agree_with_the_reference(classes, temperature):
    rng = np.random.default_rng(classes)
    p = rng.dirichlet(np.full(classes, 0.3), 40).astype(np.float32)
    p[3] = 0.0
    p[4, 0] = -0.1
    p[5, -1] = np.nan
    p[6, 0] = np.inf
    p[7, :] = np.float32(1 / classes)
    p[8, classes // 2 :] = 0.0
    p[9, -1] = np.float32(1e-42)
    p[10] = -0.0
    check(p, temperature, "probs")


@pytest.mark.parametrize("rows", [0, 1, 2, 15, 16, 17, 31, 32, 33, 47, 63, 65])
@pytest.mark.parametrize("classes", [2, 3, 10, 16, 17, 100, 200])
def test_every_number_of_rows_agrees_with_the_reference(rows, classes):
    check(logits(rows, classes), 1.0)


@pytest.mark.parametrize("columns", [1, 5, 11, 14, 30, 140])
def test_special_rows_follow_the_contract(columns):
    z = special()
    wide = np.full((len(z), 3 * columns), np.float32(-np.inf))
    wide[:, ::columns] = z
    for temperature in (1.0, 0.05, 20.0):
        check(wide, temperature)


@pytest.mark.parametrize("classes", [1, 2, 16, 20])
def test_every_pair_of_special_values_follows_the_contract(classes):
    values = np.array([np.nan, -np.nan, np.inf, -np.inf, 1.0, 0.0, -0.0, 3e38, -3e38, 1e-40], np.float32)
    z = np.full((100, classes), np.float32(-np.inf))
    z[:, 0], z[:, -1] = np.repeat(values, 10), np.tile(values, 10)
    for temperature in (1.0, 0.05, 20.0):
        check(z, temperature)


def test_extreme_temperatures_are_limits():
    z = np.array([[1.0, 3.0, 2.0, -np.inf]], np.float32)
    cold, hot = (ci.scores(z, EVERYTHING, temperature=t) for t in (1e-30, 1e30))
    assert (cold["max_prob"][0], cold["entropy"][0], cold["energy"][0]) == (1.0, 1.0, 3.0)
    assert hot["max_prob"][0] == np.float32(1 / 3)
    assert hot["margin"][0] == 0.0


@pytest.mark.parametrize("kinds", [[kind] for kind in EVERYTHING] + [["label", "energy"], ["gini", "label", "margin"]])
@pytest.mark.parametrize("classes", [2, 10, 60, 300])
@implementations
def test_a_subset_has_the_bits_of_the_full_set(kinds, classes, isa):
    z = np.concatenate([logits(40, classes), np.full((3, classes), np.nan, np.float32)])
    with ci.cpu.use(isa):
        everything = ci.scores(z, EVERYTHING, temperature=0.7)
        some = ci.scores(z, kinds, temperature=0.7)
        assert list(some) == kinds
        for kind in kinds:
            assert np.array_equal(some[kind].view(np.int32), everything[kind].view(np.int32))
        assert some.unanswered == everything.unanswered == 3
        if kinds[0] != "label":
            alone = ci.score(z, kinds[0], temperature=0.7)
            assert np.array_equal(alone.view(np.int32), everything[kinds[0]].view(np.int32))


@pytest.mark.parametrize("classes", [1, 2, 3, 10, 100, 300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@implementations
def test_layout_changes_nothing(classes, dtype, isa):
    z = logits(70, classes)
    roomy = np.zeros((140, 2 * classes + 3), dtype)
    unaligned = np.frombuffer(bytearray(z.astype(dtype).nbytes + 1), np.uint8)[1:].view(dtype).reshape(z.shape)
    broadcast = np.broadcast_to(z[:1].astype(dtype), z.shape)
    views = {
        "gaps": roomy[::2, 1 : 2 * classes + 1 : 2],
        "rows with gaps": roomy[:70, 3 : 3 + classes],
        "backwards": roomy[69::-1, classes - 1 :: -1] if classes > 1 else roomy[69::-1, :1],
        "column by column": np.empty(z.shape, dtype, order="F"),
        "unaligned": unaligned,
        "other byte order": np.empty(z.shape, np.dtype(dtype).newbyteorder()),
    }
    with ci.cpu.use(isa):
        expected = ci.scores(z, EVERYTHING)
        for name, view in views.items():
            view[...] = z
            found = ci.scores(view, EVERYTHING)
            for kind in EVERYTHING:
                assert np.array_equal(found[kind].view(np.int32), expected[kind].view(np.int32)), name
        repeated = ci.score(broadcast)
        assert np.array_equal(repeated, np.repeat(ci.score(z[:1]), len(z)))


def test_threads_change_nothing():
    z = np.random.default_rng(0).normal(size=(1_300_001, 10)).astype(np.float32)
    one, three = (ci.scores(z, EVERYTHING, threads=n) for n in (1, 3))
    for kind in EVERYTHING:
        assert np.array_equal(one[kind], three[kind])


def test_large_results_are_written_whole():
    """So many that they are stored past the caches, at an odd offset to a cache line."""
    z = np.random.default_rng(0).normal(size=(1_500_003, 2)).astype(np.float32)
    outs = {kind: np.full(len(z) + 40, -7, np.int32 if kind == "label" else np.float32) for kind in EVERYTHING}
    views = {kind: out[5 : 5 + len(z)] for kind, out in outs.items()}
    ci.scores(z, EVERYTHING, out=views)
    for kind, out in outs.items():
        expected = ci.scores(z, [kind])[kind]
        assert np.array_equal(out[5 : 5 + len(z)], expected)
        assert (out[:5] == -7).all()
        assert (out[5 + len(z) :] == -7).all()


def test_other_arrays_are_viewed():
    torch = pytest.importorskip("torch")
    z = logits(20, 10)
    expected = ci.score(z)

    class HasArray:
        def __array__(self, dtype=None, copy=None):
            return z

    for given in (torch.from_numpy(z), HasArray(), z.tolist(), np.asfortranarray(z)):
        assert np.array_equal(ci.score(given), expected)
    with pytest.raises(ci.BadValueError, match="Tensor"):
        ci.score(torch.from_numpy(z).requires_grad_())
    with pytest.raises(ci.BadValueError, match="dtype"):
        ci.score("a word")


def test_out_is_used_and_returned():
    z = logits(20, 10)
    out = np.empty(20, np.float32)
    assert ci.score(z, out=out) is out
    assert np.array_equal(out, ci.score(z))
    outs = {"label": np.empty(20, np.int32), "margin": np.empty(20, np.float32)}
    found = ci.scores(z, ["label", "margin"], out=outs)
    assert found["label"] is outs["label"]
    assert found["margin"] is outs["margin"]


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.empty(19, np.float32), r"shape \(19,\)"),
        (np.empty((20, 1), np.float32), r"shape \(20, 1\)"),
        (np.empty(20, np.float64), "float64"),
        (np.empty(40, np.float32)[::2], "gaps"),
        (np.broadcast_to(np.float32(0), 20), "read-only"),
        ([0.0] * 20, "list"),
    ],
)
def test_an_out_that_does_not_fit_is_refused(out, message):
    with pytest.raises(ci.BadValueError, match=message):
        ci.score(logits(20, 10), out=out)


def test_an_out_that_overlaps_z_is_refused():
    z = logits(20, 10)
    with pytest.raises(ci.BadValueError, match="overlaps"):
        ci.score(z, out=z.reshape(-1)[180:])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"z": np.zeros(3, np.float32)}, ci.BadValueError, r"shape \(3,\).*rows x classes"),
        ({"z": np.zeros((2, 2, 2), np.float32)}, ci.BadValueError, r"\(2, 2, 2\)"),
        ({"z": np.zeros((2, 0), np.float32)}, ci.BadValueError, "at least one class"),
        ({"z": np.zeros((2, 2), np.int64)}, ci.BadValueError, "int64; allowed are float32 and float64"),
        ({"z": np.zeros((2, 2), np.float16)}, ci.BadValueError, "float16"),
        ({"kind": "margn"}, ci.UnknownNameError, "did you mean 'margin'"),
        ({"kind": 3}, ci.UnknownNameError, "3"),
        ({"input": "logit"}, ci.UnknownNameError, "did you mean 'logits'"),
        ({"kind": "energy", "input": "probs"}, ci.UnsupportedError, "energy needs logits"),
        ({"kind": "logit_margin", "input": "probs"}, ci.UnsupportedError, "logit_margin needs logits"),
        ({"temperature": 0.0}, ci.BadValueError, "temperature is 0.0"),
        ({"temperature": -1.0}, ci.BadValueError, "-1.0"),
        ({"temperature": np.nan}, ci.BadValueError, "nan"),
        ({"temperature": np.inf}, ci.BadValueError, "inf"),
        ({"temperature": 1e-31}, ci.BadValueError, "1e-31"),
        ({"temperature": "warm"}, ci.BadValueError, "warm"),
        ({"threads": 0}, ci.BadValueError, "threads is 0"),
        ({"threads": 1.5}, ci.BadValueError, "1.5"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        ci.score(**{"z": np.zeros((2, 2), np.float32), **arguments})


def test_names_of_several_scores_are_checked():
    z = np.zeros((2, 2), np.float32)
    with pytest.raises(ci.UnknownNameError, match="did you mean 'label'"):
        ci.scores(z, ["labels"])
    with pytest.raises(ci.BadValueError, match="kinds is empty"):
        ci.scores(z, [])
    with pytest.raises(ci.BadValueError, match="'margin' is one name"):
        ci.scores(z, "margin")
    with pytest.raises(ci.BadValueError, match="no array for margin"):
        ci.scores(z, ["margin"], out={})
    with pytest.raises(ci.UnsupportedError, match="energy"):
        ci.scores(z, ["margin", "energy"], input="probs")


def test_functions_say_what_they_take():
    assert list(inspect.signature(ci.score).parameters) == ["z", "kind", "temperature", "input", "out", "threads"]
