"""The engine's draws are NumPy's, number for number, on every instruction set and in parts of any size."""

from __future__ import annotations

import numpy as np
import pytest

import coinfer as ci
from coinfer._core import drawing

COUNT = 1_000_000  # more than four hundred of them in the tail of the exponential
PARTS = (1, 2, 0, 3, 255, 256, 257, COUNT - 774)
KEY = [7, 2**64 - 1]


@pytest.fixture(params=ci.cpu.implementations(), autouse=True)
def _isa(request):
    with ci.cpu.use(request.param):
        yield


def numpys():
    return np.random.Generator(np.random.Philox(key=KEY[0] + (KEY[1] << 64)))


def test_arrivals():
    arrivals = drawing.Arrivals(KEY, 123_456.789)
    expected = np.cumsum(numpys().standard_exponential(COUNT) * 123_456.789)
    np.testing.assert_array_equal(np.concatenate([arrivals.draw(rows) for rows in PARTS]), np.rint(expected))
    assert arrivals.now_ns == expected[-1]


def test_uniforms():
    uniforms = drawing.Uniforms(KEY)
    drawn = np.concatenate([uniforms.draw(rows) for rows in PARTS])
    np.testing.assert_array_equal(drawn, numpys().random(COUNT))


@pytest.mark.parametrize("bound", [1, 2, 3, 10_000, 2**30 + 1, 2**31 - 1, 2**31])
def test_integers(bound):
    integers = drawing.Integers(KEY, bound)
    expected = numpys().integers(bound, size=COUNT, dtype=np.int32)
    np.testing.assert_array_equal(np.concatenate([integers.draw(rows) for rows in PARTS]), expected)


@pytest.mark.parametrize("bound", [0, 2**31 + 1])
def test_a_bound_that_int32_does_not_hold_is_refused(bound):
    with pytest.raises(ValueError, match="bound must be from 1 to"):
        drawing.Integers(KEY, bound)


@pytest.mark.parametrize("width", [1, 1000])
def test_pick_is_a_search(width):
    """One number or many, few parts or runs of empty ones."""
    numbers = numpys().random(100_000)
    weights = np.where(np.arange(50 * width) % width == width // 2, np.repeat(numbers[:50], width), 0.0)
    ends = np.cumsum(weights) / weights.sum()
    ends /= ends[-1]
    for asked in (numbers, numbers[:1], ends[:-1][ends[:-1] < 1], np.nextafter(ends, 0)):
        np.testing.assert_array_equal(drawing.pick(ends, asked), np.searchsorted(ends, asked, side="right"))


def test_pick_refuses_what_it_would_not_find():
    for ends in ([], [0.5], [0.6, 0.4, 1.0]):
        with pytest.raises(ValueError, match="ends must ascend to 1"):
            drawing.pick(np.array(ends), np.array([0.5]))
    for number in (-0.1, 1.0, np.nan):
        with pytest.raises(ValueError, match="numbers must lie in"):
            drawing.pick(np.array([0.5, 1.0]), np.array([number]))
