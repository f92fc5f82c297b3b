"""Service-time laws and their inline tables."""

from __future__ import annotations

import math
import pickle

import pytest

from coinfer import BadValueError, UnknownNameError, service

LAWS = [
    service.Constant(2.0),
    service.Linear(base_ms=2.0, per_item_ms=0.3),
    service.Exponential(0.0),
    service.LogNormal(5.0, cv=1.5),
    service.Gamma(5.0, cv=0.25),
    service.Measured(),
    service.Measured(scale=0.5),
    service.Table([1, 8], [2.0, 5.5]),
    service.Table([1, 4], [[3, 2], [5.0]]),
]


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_a_law_survives_its_table_and_pickling(law: service.Law) -> None:
    assert service.parse(law.to_dict(), "here") == law
    assert pickle.loads(pickle.dumps(law)) == law


def test_means_are_in_milliseconds() -> None:
    assert service.Constant(2).mean_ms == 2.0
    assert service.Linear(2, 0.5).mean_ms == 2.5
    assert service.LogNormal(5, 3).mean_ms == 5.0
    assert math.isnan(service.Measured().mean_ms)
    assert service.Table([1, 2], [[1, 4], [5, 5]]).mean_ms == 2.5


def test_a_table_is_interpolated_between_sizes_and_quantiles() -> None:
    law = service.Table([1, 4, 8], [2, 8, 10])
    assert [law.at(size) for size in (1, 2, 3, 4, 6, 8)] == [(2,), (4,), (6,), (8,), (9,), (10,)]
    seen = service.Table([1, 3], [[9, 1, 5, 3], [11, 21]])
    assert seen.at(1) == (1, 3, 5, 9)
    assert seen.at(3) == (11, 11, 21, 21)
    assert seen.at(2) == (6, 7, 13, 15)


def test_a_law_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        service.Constant(2.0).mean_ms = 3.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("table", "kind", "words"),
    [
        ({}, BadValueError, "here: key 'law' is missing.*'gamma'"),
        ({"law": "exponental"}, UnknownNameError, "here: .*'exponental'; did you mean 'exponential'"),
        ({"law": "linear", "base_ms": 2, "per_itm_ms": 1}, UnknownNameError, "did you mean 'per_item_ms'"),
        ({"law": "linear", "base_ms": 2}, BadValueError, "'per_item_ms' is missing"),
        ({"law": "gamma", "mean_ms": 2, "cv": 0}, BadValueError, "cv must be a finite number > 0, not 0"),
        ({"law": "constant", "mean_ms": math.nan}, BadValueError, "mean_ms must be a finite number >= 0"),
        ({"law": "constant", "mean_ms": "2"}, BadValueError, "mean_ms must be a finite number >= 0, not '2'"),
        ({"law": "constant", "mean_ms": True}, BadValueError, "not True"),
        ("constant", BadValueError, "must be a table"),
        ({"law": "table", "batch": [2], "ms": [1]}, BadValueError, "ascending sizes, the first of them 1, not \\[2\\]"),
        ({"law": "table", "batch": [1, 1], "ms": [1, 2]}, BadValueError, "ascending sizes"),
        ({"law": "table", "batch": [1, 2], "ms": [1]}, BadValueError, "each of the 2 sizes in batch, not 1"),
        ({"law": "table", "batch": [1, 2], "ms": [1, -2]}, BadValueError, "ms of batch 2 must be a finite number >= 0"),
        ({"law": "table", "batch": [1], "ms": [[]]}, BadValueError, "ms of batch 1 must hold at least one time"),
    ],
)
def test_a_bad_table_is_refused_with_the_place(table: object, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        service.parse(table, "here")
