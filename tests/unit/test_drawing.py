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


@pytest.mark.parametrize("bound", [1, 2, 3, 10_000, 2**30 + 1, 2**31 - 1, 2**31])
def test_integers(bound):
    integers = drawing.Integers(KEY, bound)
    expected = numpys().integers(bound, size=COUNT, dtype=np.int32)
    np.testing.assert_array_equal(np.concatenate([integers.draw(rows) for rows in PARTS]), expected)


@pytest.mark.parametrize("bound", [0, 2**31 + 1])
def test_a_bound_that_int32_does_not_hold_is_refused(bound):
    with pytest.raises(ValueError, match="bound must be from 1 to"):
        drawing.Integers(KEY, bound)
