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
    ],
)
def test_a_bad_table_is_refused_with_the_place(table: object, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        service.parse(table, "here")
