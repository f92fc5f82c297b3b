"""The bundled data: out of fold, a real ladder, the same every time, and kept safely."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

from coinfer import datasets
from coinfer.datasets import _digits
from coinfer.datasets._digits import LADDER, Rung, Tables, cache_file, folds, learn


@pytest.fixture(scope="module")
def images():
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return (pixels / 16.0).astype(np.float32), labels.astype(np.int64)


@pytest.fixture(scope="module")
def tables():
    """Learn once, or read what an earlier run learned: 14 s matter in a test suite."""
    datasets.digits()
    held = _digits._load(cache_file())
    assert held is not None
    return held


class Spy:
    """Remembers the rows that it learned from (numbered in pixel 0) and refuses to predict them."""

    predicted: ClassVar[list[int]] = []

    def fit(self, images, labels):
        self.seen = {int(i) for i in images[:, 0]}
        return self

    def predict_proba(self, images):
        rows = [int(i) for i in images[:, 0]]
        assert not self.seen & set(rows), "a model was asked about a sample that it was trained on"
        Spy.predicted += rows
        return np.full((len(images), 10), 0.1)


def test_no_model_predicts_a_sample_it_was_trained_on():
    labels = np.arange(200, dtype=np.int64) % 10
    numbered = np.zeros((200, 64), np.float32)
    numbered[:, 0] = np.arange(200)
    Spy.predicted = []
    learn(numbered, labels, (Rung("spy", "records what it learns from", Spy),))
    assert set(Spy.predicted) == set(range(200))


def test_folds_are_stratified_and_cover_every_row_once(images):
    labels = images[1]
    parts = list(folds(labels))
    assert sorted(np.concatenate([predict for _, predict in parts])) == list(range(len(labels)))
    for train, predict in parts:
        assert not set(train) & set(predict)
        assert np.bincount(labels[predict], minlength=10).min() >= 30


def test_ladder_climbs_and_the_last_is_clearly_the_best(tables):
    assert [*tables.probs] == [rung.name for rung in LADDER]
    accuracy = [float(np.mean(p.argmax(axis=1) == tables.labels)) for p in tables.probs.values()]
    assert accuracy == sorted(accuracy)
    assert accuracy[0] == pytest.approx(0.83, abs=0.03)
    assert accuracy[-1] >= 0.98
    best, second = accuracy[-1], accuracy[-2]
    assert (best - second) * len(tables.labels) >= 18  # one per cent of the samples


def test_probabilities_are_probabilities_and_calibrated(tables):
    for name, p in tables.probs.items():
        assert p.shape == (1797, 10)
        assert p.dtype == np.float32
        assert np.isfinite(p).all()
        np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-5, err_msg=name)
        gap = abs(float(p.max(axis=1).mean()) - float(np.mean(p.argmax(axis=1) == tables.labels)))
        assert gap < 0.04, f"{name}: mean confidence and accuracy differ by {gap:.3f}"


def test_confident_answers_are_better_answers(tables):
    p = tables.probs["tree"]
    right = p.argmax(axis=1) == tables.labels
    sure = np.argsort(-p.max(axis=1))[: len(p) // 2]
    assert right[sure].mean() > right.mean() + 0.1


def test_service_times_were_measured_for_every_sample(tables):
    for name, column in tables.service_us.items():
        assert column.shape == (1797,)
        assert (column > 0).all(), name
    median = {name: float(np.median(column)) for name, column in tables.service_us.items()}
    assert median["ensemble"] > 5 * max(median[name] for name in ("tree", "logistic", "mlp"))


@pytest.mark.parametrize("rung", LADDER[:3], ids=lambda rung: rung.name)
def test_learning_is_deterministic(images, rung):
    pixels, labels = images[0][:400], images[1][:400]
    first, second = (learn(pixels, labels, (rung,)).probs[rung.name] for _ in range(2))
    assert np.array_equal(first, second)


def test_progress_reaches_the_end(images):
    calls = []
    learn(images[0][:150], images[1][:150], LADDER[:1], lambda done, total: calls.append((done, total)))
    assert calls == [(100, 150), (150, 150)]


def test_cache_is_used_and_a_damaged_one_is_made_anew(tmp_path, monkeypatch, tables):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = []

    def stand_in(images, labels, ladder, progress):
        made.append(len(labels))
        return tables

    monkeypatch.setattr(_digits, "learn", stand_in)
    first = datasets.digits()
    second = datasets.digits()
    assert made == [1797]
    assert len(first) == len(second) == 1797
    file = cache_file()
    assert file.parent == tmp_path / "coinfer"
    file.write_bytes(file.read_bytes()[:1000])
    datasets.digits()
    assert made == [1797, 1797]
    assert [p.name for p in file.parent.iterdir()] == [file.name], "no partial file may stay behind"
    datasets.digits(cache=False)
    assert len(made) == 3


def test_an_unwritable_cache_folder_is_replaced_by_a_temporary_one(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    file = cache_file()
    assert not file.is_relative_to(blocked)
    assert file.parent.is_dir()


def test_cache_key_depends_on_versions(monkeypatch):
    import sklearn

    before = cache_file()
    monkeypatch.setattr(sklearn, "__version__", "0.0.test")
    assert cache_file() != before


def test_predictions_carry_labels_classes_and_models(tables):
    predictions = datasets.digits()
    assert len(predictions) == 1797
    assert list(predictions.models) == ["tree", "logistic", "mlp", "ensemble"]
    assert list(predictions.classes) == [str(digit) for digit in range(10)]
    assert np.array_equal(np.asarray(predictions.labels), tables.labels)


def test_tables_survive_the_cache_bit_for_bit(tmp_path, tables):
    path = tmp_path / "digits.npz"
    _digits._save(path, tables)
    again = _digits._load(path)
    assert isinstance(again, Tables)
    for name in tables.probs:
        assert np.array_equal(again.probs[name], tables.probs[name])
        assert np.array_equal(again.service_us[name], tables.service_us[name])


def test_demo_network_hosts_the_ladder():
    network = datasets.demo_network()
    assert len(network.nodes) == 8
    assert {d.model for d in network.deployments} == {rung.name for rung in LADDER}
    assert network.ingress == ("phone-1", "phone-2", "phone-3", "phone-4")
