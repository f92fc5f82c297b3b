"""Predictions: forms, sharing of memory, alignment by class name, selection, files."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coinfer import BadFileError, BadValueError, ModelOutput, Predictions, UnknownNameError

SHARED = Path(os.environ.get("COINFER_SHARED", Path(__file__).parents[2] / ".." / "shared")) / "data"
SUFFIXES = ["parquet", "arrow", "feather", "npz"]


def logits(rows: int, classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, classes)).astype(np.float32)


def softmax(z: np.ndarray) -> np.ndarray:
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def assert_same(a: Predictions, b: Predictions) -> None:
    assert a.models == b.models
    assert a.classes == b.classes
    assert a.class_count == b.class_count
    np.testing.assert_array_equal(a.labels, b.labels)  # type: ignore[arg-type]
    for name in a.models:
        x, y = a[name], b[name]
        assert (x.form, x.classes) == (y.form, y.classes)
        for column in ("vector", "label", "confidence", "service_us", "relabel"):
            left, right = getattr(x, column), getattr(y, column)
            assert (left is None) == (right is None), column
            if left is not None:
                assert left.dtype == right.dtype
                np.testing.assert_array_equal(left, right)
    assert a.fingerprint == b.fingerprint


# ---- one model ---------------------------------------------------------------------------------------------


class TestSharing:
    def test_a_torch_tensor_is_shared(self) -> None:
        tensor = torch.randn(50, 10)
        output = ModelOutput(logits=tensor)
        assert output.vector is not None
        assert output.vector.ctypes.data == tensor.data_ptr()
        needs_grad = torch.randn(5, 3, requires_grad=True)
        assert ModelOutput(logits=needs_grad).vector.ctypes.data == needs_grad.data_ptr()  # type: ignore[union-attr]

    def test_a_slice_of_columns_is_shared(self) -> None:
        wide = torch.randn(50, 30)
        output = ModelOutput(logits=wide[:, 10:20])
        assert output.vector is not None
        assert output.vector.ctypes.data == wide.data_ptr() + 40
        assert output.vector.strides == (120, 4)

    @pytest.mark.parametrize("make", [lambda z: z, lambda z: z[::-1], lambda z: np.broadcast_to(z[:1], z.shape)])
    def test_a_numpy_array_with_unit_stride_along_rows_is_shared(self, make: Any) -> None:
        array = make(logits(20, 4))
        output = ModelOutput(logits=array)
        assert np.shares_memory(output.vector, array)  # type: ignore[arg-type]
        np.testing.assert_array_equal(output.vector, array)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "make",
        [
            lambda z: z.astype(np.float64),
            lambda z: z.astype(">f4"),
            lambda z: np.asfortranarray(z),
            lambda z: np.repeat(z, 2, axis=1)[:, ::2],
            lambda z: torch.from_numpy(z).to(torch.float64),
            lambda z: z.tolist(),
            lambda z: pd.DataFrame(z),
            lambda z: pl.DataFrame(z),
            lambda z: pl.Series(z, dtype=pl.Array(pl.Float32, z.shape[1])),
            lambda z: pl.Series(z.tolist()),
            lambda z: pd.Series(list(z)),
            lambda z: pa.array(z.tolist()),
            lambda z: pa.chunked_array([z[:7].tolist(), z[7:].tolist()]),
            lambda z: pa.table({str(i): z[:, i] for i in range(z.shape[1])}),
        ],
    )
    def test_other_layouts_and_libraries_give_the_same_values(self, make: Any) -> None:
        z = logits(20, 4)
        vector = ModelOutput(logits=make(z)).vector
        assert vector is not None
        assert vector.dtype == np.float32
        assert vector.strides[1] == 4
        np.testing.assert_array_equal(vector, z)

    def test_half_precision_is_widened(self) -> None:
        z = torch.randn(5, 4).to(torch.bfloat16)
        np.testing.assert_array_equal(ModelOutput(logits=z).vector, z.float().numpy())  # type: ignore[arg-type]

    def test_one_class_and_no_rows(self) -> None:
        assert ModelOutput(logits=np.zeros((3, 10), np.float32)[:, ::10]).vector.strides[1] == 4  # type: ignore[union-attr]
        assert len(ModelOutput(logits=np.zeros((0, 3)))) == 0
        assert len(ModelOutput(probs=np.zeros((0, 3)))) == 0
        assert len(ModelOutput(label=[])) == 0

    def test_columns_are_read_only_and_attributes_fixed(self) -> None:
        z = logits(3, 2)
        output = ModelOutput(logits=z)
        with pytest.raises(ValueError, match="read-only"):
            output.vector[0, 0] = 1  # type: ignore[index]
        z[0, 0] = 5  # the caller's own array stays writable
        with pytest.raises(AttributeError, match="cannot be changed"):
            output.form = "probs"


@pytest.mark.parametrize(
    "values",
    [
        [1, 0, -1, 2],
        np.array([1, 0, -1, 2], np.int8),
        np.array([1.0, 0.0, np.nan, 2.0]),
        [1, 0, None, 2],
        np.ma.masked_array([1, 0, 7, 2], [False, False, True, False]),
        pd.Series([1, 0, None, 2]),
        pd.Series([1, 0, pd.NA, 2], dtype="Int64"),
        pl.Series([1, 0, None, 2]),
        pa.array([1, 0, None, 2]),
        pa.chunked_array([[1, 0], [None, 2]]),
        torch.tensor([1, 0, -1, 2]),
        ["b", "a", None, "c"],
        np.array(["b", "a", None, "c"], object),
        pd.Series(["b", "a", None, "c"]),
        pd.Series(["b", "a", None, "c"], dtype="category"),
        pl.Series(["b", "a", None, "c"]),
        pl.Series(["b", "a", None, "c"], dtype=pl.Categorical),
        pa.array(["b", "a", None, "c"]).dictionary_encode(),
    ],
    ids=lambda v: f"{type(v).__module__.partition('.')[0]}-{getattr(v, 'dtype', getattr(v, 'type', ''))}",
)
def test_labels_of_every_kind(values: Any) -> None:
    output = ModelOutput(label=values, classes=["a", "b", "c"])
    assert output.form == "label"
    assert output.label is not None
    assert output.label.dtype == np.int32
    assert output.label.tolist() == [1, 0, -1, 2]


def test_forms_and_columns() -> None:
    output = ModelOutput(label=[1, -1], confidence=[0.5, np.nan], service_us=[10, 20], classes=("a", "b"))
    assert output.form == "label_confidence"
    assert output.confidence.dtype == np.float32  # type: ignore[union-attr]
    assert output.service_us.tolist() == [10, 20]  # type: ignore[union-attr]
    assert (output.class_count, output.relabel, output.vector) == (2, None, None)
    assert ModelOutput(label=[3]).class_count is None
    again = pickle.loads(pickle.dumps(output))
    assert again.label.tolist() == [1, -1]
    assert again.classes == ("a", "b")


def test_rows_without_an_answer() -> None:
    nan, inf = np.nan, np.inf
    for kind in (pa.list_(pa.float32()), pa.list_(pa.float32(), 2), pa.large_list(pa.float64())):
        column = pa.array([[0.1, 0.9], None, [0.7, 0.3]], kind)
        assert ModelOutput(probs=column).answers().tolist() == [1, -1, 0]
        assert ModelOutput(probs=column.slice(1)).answers().tolist() == [-1, 0]
    assert ModelOutput(probs=[[0.5, 0.5], [nan, nan], [0.1, 0.9]]).answers().tolist() == [0, -1, 1]
    assert ModelOutput(logits=[[inf, -inf], [nan, 2.0], [-inf, -inf]]).answers().tolist() == [0, -1, 0]


def test_probs_are_checked_in_every_block() -> None:
    p = softmax(logits(200_000, 10))
    ModelOutput(probs=p)
    ModelOutput(probs=p.astype(np.float64) + 5e-5)  # within the tolerance
    for row in (0, 26_214, 199_999):
        bad = p.copy()
        bad[row, 3] += 0.01
        with pytest.raises(BadValueError, match=f"row {row} sums to 1.01"):
            ModelOutput(probs=bad)
        bad[row] = p[row]
        bad[row, 0] = np.nan
        with pytest.raises(BadValueError, match=f"row {row} mixes NaN and numbers"):
            ModelOutput(probs=bad)
        bad[row] = np.nan
        ModelOutput(probs=bad)
        bad[row] = [-0.5, 1.5, *[0] * 8]
        with pytest.raises(BadValueError, match=f"row {row} holds -0.5, which is outside"):
            ModelOutput(probs=bad)


# ---- several models ----------------------------------------------------------------------------------------


class TestAlignment:
    def test_classes_are_the_union_in_the_order_seen(self) -> None:
        z = logits(6, 2)
        predictions = Predictions(
            {
                "ab": ModelOutput(logits=z, classes=["a", "b"]),
                "bc": ModelOutput(logits=z, classes=["b", "c"]),
                "ca": ModelOutput(logits=z, classes=["c", "a"]),
                "label": ModelOutput(label=[0, 1, 0, 1, -1, 0], classes=["c", "a"]),
            },
            labels=["a", "b", "c", None, "a", "b"],
        )
        assert predictions.classes == ("a", "b", "c")
        assert predictions.labels.tolist() == [0, 1, 2, -1, 0, 1]  # type: ignore[union-attr]
        assert predictions["ab"].relabel.tolist() == [0, 1]  # type: ignore[union-attr]
        assert predictions["bc"].relabel.tolist() == [1, 2]  # type: ignore[union-attr]
        assert np.shares_memory(predictions["bc"].vector, z)  # type: ignore[arg-type]
        turned = predictions["ca"]  # c, a is decreasing: columns are turned to a, c
        assert turned.classes == ("a", "c")
        assert turned.relabel.tolist() == [0, 2]  # type: ignore[union-attr]
        np.testing.assert_array_equal(turned.vector, z[:, ::-1])  # type: ignore[arg-type]
        assert predictions["label"].label.tolist() == [2, 0, 2, 0, -1, 2]  # type: ignore[union-attr]
        assert predictions["label"].classes == ("a", "b", "c")

    def test_a_permutation_of_all_classes_needs_no_map(self) -> None:
        z = logits(4, 3)
        predictions = Predictions(
            {
                "x": ModelOutput(logits=z, classes=["a", "b", "c"]),
                "y": ModelOutput(logits=z, classes=["c", "a", "b"]),
            }
        )
        assert predictions["x"].relabel is None
        assert predictions["x"].vector is not None
        assert np.shares_memory(predictions["x"].vector, z)
        assert predictions["y"].relabel is None
        np.testing.assert_array_equal(predictions["y"].vector, z[:, [1, 2, 0]])  # type: ignore[arg-type]

    def test_ties_go_to_the_lowest_shared_label(self) -> None:
        tied = ModelOutput(logits=[[1.0, 1.0]], classes=["b", "a"])
        assert Predictions({"m": tied}, classes=["a", "b"])["m"].answers().tolist() == [0]

    @given(st.permutations(range(5)), st.permutations(range(5)), st.integers(1, 5), st.integers(0, 99))
    def test_answers_are_the_names_that_the_model_meant(
        self, own: list[int], shared: list[int], count: int, seed: int
    ) -> None:
        names = [f"class{i}" for i in own[:count]]
        z = logits(8, count, seed)
        predictions = Predictions({"m": ModelOutput(logits=z, classes=names)}, classes=[f"class{i}" for i in shared])
        meant = [names[i] for i in z.argmax(axis=1)]
        assert [predictions.classes[i] for i in predictions["m"].answers()] == meant  # type: ignore[index]
        relabel = predictions["m"].relabel
        assert relabel is None or np.all(np.diff(relabel) > 0)

    def test_unnamed_models_join_named_ones_of_the_same_size(self) -> None:
        named = ModelOutput(logits=logits(2, 3), classes=["a", "b", "c"])
        unnamed = ModelOutput(logits=logits(2, 3))
        assert Predictions({"n": named, "u": unnamed})["u"].classes == ("a", "b", "c")

    def test_aligning_again_changes_nothing(self) -> None:
        z = logits(4, 2)
        first = Predictions(
            {"x": ModelOutput(logits=z, classes=["a", "b"]), "y": ModelOutput(logits=z, classes=["c", "a"])}
        )
        again = Predictions({name: first[name] for name in first}, classes=first.classes)
        assert_same(first, again)


def test_class_count_without_names() -> None:
    assert Predictions({"m": ModelOutput(label=[0, 4, -1])}).class_count == 5
    assert Predictions({"m": ModelOutput(label=[0, 4, -1])}, labels=[6, 0, 0]).class_count == 7
    assert Predictions({"m": ModelOutput(label=[-1])}).class_count == 1
    assert Predictions({"m": ModelOutput(label=[])}).class_count == 1
    assert Predictions({"m": ModelOutput(logits=logits(2, 9)), "l": ModelOutput(label=[0, 8])}).class_count == 9


def test_accuracy_counts_labelled_rows_only() -> None:
    predictions = Predictions({"m": ModelOutput(label=[0, 1, -1, 2])}, labels=[0, 0, 1, -1])
    assert predictions.accuracy("m") == pytest.approx(1 / 3)
    assert np.isnan(Predictions({"m": ModelOutput(label=[0])}).accuracy("m"))
    with pytest.raises(UnknownNameError, match=r"no model 'n'.*known: 'm'"):
        predictions.accuracy("n")
    assert "m" in predictions
    assert list(predictions) == ["m"]


def test_repr_is_a_table() -> None:
    outputs = {f"model{i}": ModelOutput(label=[0, 1]) for i in range(25)}
    text = repr(Predictions(outputs, labels=[0, 0]))
    assert text.startswith("Predictions: 2 samples, 2 classes, 25 models, labelled\n")
    assert "model19  label" in text
    assert text.endswith("... and 5 more")


# ---- selection ---------------------------------------------------------------------------------------------


def table(rows: int = 40) -> Predictions:
    z = logits(rows, 4)
    label = np.arange(rows) % 4
    return Predictions(
        {
            "logits": ModelOutput(logits=z, service_us=np.arange(rows)),
            "some": ModelOutput(probs=softmax(z[:, :3]), classes=["d", "b", "a"]),
            "v1.5/api": ModelOutput(label=label - 1, confidence=np.where(label, 0.5, np.nan)),
            "bare": ModelOutput(label=label),
        },
        labels=np.where(label == 2, -1, label),
        classes=["a", "b", "c", "d"],
    )


@given(st.data())
def test_select_equals_indexing_every_column(data: st.DataObject) -> None:
    predictions = table()
    rows: Any = data.draw(
        st.one_of(
            st.lists(st.integers(0, 39)),
            st.lists(st.booleans(), min_size=40, max_size=40).map(np.array),
            st.slices(40),
        )
    )
    chosen = predictions.select(rows)
    index: Any = (
        rows
        if isinstance(rows, slice)
        else np.asarray(rows, bool if np.size(rows) and np.asarray(rows).dtype == bool else np.int64)
    )
    assert len(chosen) == len(np.arange(40)[index])
    np.testing.assert_array_equal(chosen.labels, predictions.labels[index])  # type: ignore[index, arg-type]
    for name in predictions.models:
        for column in ("vector", "label", "confidence", "service_us"):
            whole = getattr(predictions[name], column)
            if whole is not None:
                np.testing.assert_array_equal(getattr(chosen[name], column), whole[index])
        assert chosen[name].relabel is predictions[name].relabel
    assert chosen.class_count == 4


def test_a_slice_shares_memory() -> None:
    predictions = table()
    assert np.shares_memory(predictions.select(slice(3, 9))["logits"].vector, predictions["logits"].vector)  # type: ignore[arg-type]


# ---- files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_give_back_the_same_table(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"predictions.{suffix}"
    for predictions in (table(), table().select([]), table().select([3, 3, 1])):
        predictions.save(path)
        assert_same(Predictions.open(path), predictions)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_of_unnamed_labels_keep_the_class_count(tmp_path: Path, suffix: str) -> None:
    predictions = Predictions({"m": ModelOutput(label=[0, 4])}).select([0])
    predictions.save(tmp_path / f"p.{suffix}")
    assert_same(Predictions.open(tmp_path / f"p.{suffix}"), predictions)


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_any_table_survives_any_format(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    rows = data.draw(st.integers(0, 5))
    outputs: dict[str, ModelOutput] = {}
    for name in data.draw(st.lists(st.text("ab./é", min_size=1, max_size=5), min_size=1, max_size=4, unique=True)):
        classes = data.draw(st.permutations("vwxyz"))[: data.draw(st.integers(1, 5))]
        values = st.lists(st.floats(width=32), min_size=rows * len(classes), max_size=rows * len(classes))
        labels = st.lists(st.integers(-1, len(classes) - 1), min_size=rows, max_size=rows)
        if data.draw(st.booleans()):
            vector = np.array(data.draw(values), np.float32).reshape(rows, len(classes))
            outputs[name] = ModelOutput(logits=vector, classes=classes)
        else:
            outputs[name] = ModelOutput(label=data.draw(labels), classes=classes)
    predictions = Predictions(outputs)
    path = tmp_path_factory.mktemp("any") / f"p.{data.draw(st.sampled_from(SUFFIXES))}"
    predictions.save(path)
    assert_same(Predictions.open(path), predictions)


@pytest.mark.timed
def test_an_arrow_file_is_mapped_not_read(tmp_path: Path) -> None:
    predictions = Predictions({"m": ModelOutput(logits=logits(200_000, 100))})
    predictions.save(tmp_path / "p.arrow")
    before = pa.total_allocated_bytes()
    start = time.perf_counter()
    opened = Predictions.open(tmp_path / "p.arrow")
    assert time.perf_counter() - start < 1.0
    assert pa.total_allocated_bytes() - before < 1e6  # of 80 MB
    np.testing.assert_array_equal(opened["m"].vector[-1], predictions["m"].vector[-1])  # type: ignore[index]
    (tmp_path / "p.arrow").unlink()
    assert np.isfinite(opened["m"].vector).all()  # type: ignore[arg-type]


def test_the_fingerprint_is_of_the_content() -> None:
    z = logits(5, 3)
    base = Predictions({"m": ModelOutput(logits=z)}).fingerprint
    assert len(base) == 64
    assert base == Predictions({"m": ModelOutput(logits=np.asfortranarray(z).astype(np.float64))}).fingerprint
    changed = z.copy()
    changed[4, 2] = np.nextafter(changed[4, 2], np.float32(9))
    others = [
        Predictions({"m": ModelOutput(logits=changed)}),
        Predictions({"n": ModelOutput(logits=z)}),
        Predictions({"m": ModelOutput(logits=z)}, labels=[0] * 5),
        Predictions({"m": ModelOutput(logits=z, classes=["a", "b", "c"])}),
        Predictions({"m": ModelOutput(logits=z)}).select(slice(4)),
    ]
    assert len({base, *(p.fingerprint for p in others)}) == 6


class TestForeignFiles:
    """Files by anybody who keeps to the names of the columns."""

    def test_npz(self, tmp_path: Path) -> None:
        z = logits(4, 2)
        np.savez(
            tmp_path / "p.npz",
            **{"a.logits": z, "b.probs": softmax(z), "c.label": np.array(["cat", "dog", "cat", "dog"])},
            **{
                "d.label": np.zeros(4, np.uint8),
                "d.confidence": np.ones(4),
                "labels": np.array([0, 1, 1, -1]),
            },
            **{"classes": np.array(["cat", "dog"]), "b.classes": np.array(["dog", "cat"])},
        )
        predictions = Predictions.open(tmp_path / "p.npz")
        assert predictions.models == ("a", "b", "c", "d")
        assert predictions.classes == ("cat", "dog")
        np.testing.assert_array_equal(predictions["b"].vector, softmax(z)[:, ::-1])  # type: ignore[arg-type]
        assert predictions["c"].label.tolist() == [0, 1, 0, 1]  # type: ignore[union-attr]
        assert predictions["d"].form == "label_confidence"

    def test_csv(self, tmp_path: Path) -> None:
        (tmp_path / "p.csv").write_text("label,api.label,api.confidence\ndog,cat,0.5\ncat,,\n,dog,0.9\n")
        predictions = Predictions.open(tmp_path / "p.csv")
        assert predictions.classes == ("cat", "dog")
        assert predictions.labels.tolist() == [1, 0, -1]  # type: ignore[union-attr]
        assert predictions["api"].label.tolist() == [0, -1, 1]  # type: ignore[union-attr]
        np.testing.assert_array_equal(predictions["api"].confidence, np.float32([0.5, np.nan, 0.9]))  # type: ignore[arg-type]
        other = Predictions.open(tmp_path / "p.csv", classes=["dog", "cat", "cow"])
        assert other.labels.tolist() == [0, 1, -1]  # type: ignore[union-attr]

    def test_parquet_with_lists_and_nulls(self, tmp_path: Path) -> None:
        columns = {
            "m.logits": [[1.0, 2.0], None, [3.0, 0.0]],
            "label": [1, None, 0],
            "m.service_us": [5, 6, 7],
        }
        pq.write_table(pa.table(columns), tmp_path / "p.parquet")
        predictions = Predictions.open(tmp_path / "p.parquet")
        assert predictions["m"].answers().tolist() == [1, -1, 0]
        assert predictions.labels.tolist() == [1, -1, 0]  # type: ignore[union-attr]

    def test_parquet_by_pandas_and_arrow_by_polars(self, tmp_path: Path) -> None:
        columns: dict[str, Any] = {
            "m.label": ["x", "y", None],
            "m.confidence": [0.1, None, 0.3],
            "label": ["x", "x", "y"],
        }
        pd.DataFrame(columns).to_parquet(tmp_path / "p.parquet")
        pl.DataFrame(columns).write_ipc(tmp_path / "p.arrow")
        a, b = Predictions.open(tmp_path / "p.parquet"), Predictions.open(tmp_path / "p.arrow")
        assert_same(a, b)
        assert a["m"].label.tolist() == [0, 1, -1]  # type: ignore[union-attr]

    def test_extra_columns_are_refused_or_skipped(self, tmp_path: Path) -> None:
        (tmp_path / "p.csv").write_text("id,m.label\n7,0\n")
        with pytest.raises(UnknownNameError, match=r"p\.csv: column 'id' is not part of predictions"):
            Predictions.open(tmp_path / "p.csv")
        assert Predictions.open(tmp_path / "p.csv", ignore_extra=True).models == ("m",)
        (tmp_path / "p.csv").write_text("m.lable\n0\n")
        with pytest.raises(UnknownNameError, match=r"'m.lable'.*did you mean 'label'"):
            Predictions.open(tmp_path / "p.csv")


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame, pa.table])
def test_from_frame(library: Any) -> None:
    frame = library(
        {
            "a.logits": [[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]],
            "b.label": ["x", None, "y"],
            "b.confidence": [0.5, None, 1.0],
            "label": ["x", "y", "x"],
        }
    )
    predictions = Predictions.from_frame(frame)
    assert predictions.models == ("a", "b")
    assert predictions.classes == ("x", "y")
    assert predictions.accuracy("a") == 1.0
    assert predictions["b"].label.tolist() == [0, -1, 1]  # type: ignore[union-attr]
    with pytest.raises(BadValueError, match="from_frame takes a pandas or polars frame"):
        Predictions.from_frame({"a.label": [1]})


def test_a_foreign_file_that_holds_no_model(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("label\n0\n")
    with pytest.raises(BadFileError, match=r"p\.csv: no model found; expected columns such as MODEL/logits"):
        Predictions.open(tmp_path / "p.csv")


# ---- real data ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "cifar10_models.npz").exists(), reason="shared/data/cifar10_models.npz is absent")
def test_real_networks_on_cifar10() -> None:
    data = np.load(SHARED / "cifar10_models.npz", allow_pickle=False)
    outputs = {str(m): ModelOutput(label=p) for m, p in zip(data["top1_models"], data["top1_preds"].T, strict=True)}
    outputs |= {key: ModelOutput(probs=data[key]) for key in data.files if key.startswith("soft")}
    predictions = Predictions(outputs, labels=data["labels"])
    assert predictions.class_count == 10
    assert max(predictions.accuracy(str(m)) for m in data["top1_models"]) == pytest.approx(0.9711)
    answers = np.stack([predictions[str(m)].answers() for m in data["top1_models"]])
    assert (answers == predictions.labels).any(axis=0).mean() == pytest.approx(0.9972)


@pytest.mark.skipif(not (SHARED / "frugalml_dev.npz").exists(), reason="shared/data/frugalml_dev.npz is absent")
def test_real_services_on_spoken_digits() -> None:
    data = np.load(SHARED / "frugalml_dev.npz", allow_pickle=False)
    predictions = Predictions(
        {
            str(api): ModelOutput(label=data["audiomnist_preds"][:, i], confidence=data["audiomnist_conf"][:, i])
            for i, api in enumerate(data["audiomnist_apis"])
        },
        labels=data["audiomnist_labels"],
    )
    assert len(predictions) == 30_000
    assert 0.97 < max(predictions.accuracy(m) for m in predictions.models) < 0.99
