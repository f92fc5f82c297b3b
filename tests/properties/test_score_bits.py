"""A row's bits are its own: whatever the batch, the layout, the threads and the instruction set."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import coinfer as ci
from coinfer.scoring import KINDS

EVERYTHING = ("label", *KINDS)

values = st.one_of(
    st.floats(width=32),
    st.floats(-20.0, 20.0, width=32),
    st.sampled_from([0.0, -0.0, 1.0, float("nan"), float("inf"), float("-inf"), 1e-40, 3e38])
    .map(np.float32)
    .map(float),
)
tables = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40).flatmap(
    lambda shape: hnp.arrays(np.float32, shape, elements=values, fill=values)
)
temperatures = st.sampled_from([0.05, 0.5, 1.0, 2.0, 20.0])


def bits(found):
    return {kind: found[kind].view(np.int32) for kind in found}


def laid_out(z, draw):
    """A copy of z with gaps, direction and offset drawn, float64 or float32, perhaps off its alignment."""
    row_step, class_step = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 1, 2]))
    backwards = draw(st.booleans()), draw(st.booleans())
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    offset = draw(st.integers(0, 9))
    rows, classes = z.shape[0] * row_step, z.shape[1] * class_step
    memory = np.zeros(rows * classes * dtype().itemsize + offset, np.uint8)[offset:]
    table = memory.view(dtype).reshape(rows, classes)[::row_step, ::class_step]
    view = table[:: -1 if backwards[0] else 1, :: -1 if backwards[1] else 1]
    with np.errstate(invalid="ignore"):
        view[...] = z
    return view


@settings(max_examples=150, deadline=None)
@given(z=tables, temperature=temperatures, data=st.data())
def test_a_row_alone_has_the_bits_it_has_among_others(z, temperature, data):
    with ci.cpu.use("baseline"):
        whole = bits(ci.scores(z, EVERYTHING, temperature))
    isa = data.draw(st.sampled_from(ci.cpu.implementations()))
    with ci.cpu.use(isa):
        view = laid_out(z, data.draw)
        threads = data.draw(st.integers(1, 3))
        for kind, column in bits(ci.scores(view, EVERYTHING, temperature, threads=threads)).items():
            assert np.array_equal(column, whole[kind]), kind
        row = data.draw(st.integers(0, len(z) - 1))
        for kind, column in bits(ci.scores(view[row : row + 1], EVERYTHING, temperature)).items():
            assert column[0] == whole[kind][row], kind


@settings(max_examples=60, deadline=None)
@given(z=tables, temperature=temperatures)
def test_probabilities_have_equal_bits_too(z, temperature):
    p = np.abs(z)
    kinds = [kind for kind in EVERYTHING if kind not in ("energy", "logit_margin")]
    found = []
    for isa in ci.cpu.implementations():
        with ci.cpu.use(isa):
            found.append(bits(ci.scores(p, kinds, temperature, input="probs")))
    for other in found[1:]:
        for kind in kinds:
            assert np.array_equal(other[kind], found[0][kind]), kind


@settings(max_examples=60, deadline=None)
@given(z=tables, shift=st.sampled_from([0, 1, 7, 16, 33]))
def test_the_place_in_a_large_batch_does_not_matter(z, shift):
    padded = np.concatenate([np.zeros((shift, z.shape[1]), np.float32), z, np.ones((5, z.shape[1]), np.float32)])
    alone, among = bits(ci.scores(z, EVERYTHING)), bits(ci.scores(padded, EVERYTHING))
    for kind in EVERYTHING:
        assert np.array_equal(among[kind][shift : shift + len(z)], alone[kind]), kind
