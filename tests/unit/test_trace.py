"""Traces: columns, made arrivals, joined arrivals, files."""

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
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from coinfer import BadFileError, BadValueError, Network, Trace, UnknownNameError
from coinfer._drawing import pick

SHARED = Path(os.environ.get("COINFER_SHARED", Path(__file__).parents[2] / ".." / "shared")) / "data"
NETWORK = Network.chain({"device": "small", "edge": "medium", "cloud": "large"}, delay_ms=[10, 40])


def assert_same(a: Trace, b: Trace) -> None:
    assert a.nodes == b.nodes
    for name in ("arrival_ns", "ingress", "sample", "deadline_us", "priority"):
        left, right = getattr(a, name), getattr(b, name)
        assert (left is None) == (right is None), name
        if left is not None:
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)
    assert (a.request_id is None) == (b.request_id is None)
    assert a.request_id is None or a.request_id.equals(b.request_id)


def example(rows: int = 1000) -> Trace:
    random = np.random.default_rng(0)
    return Trace(
        np.cumsum(random.integers(0, 5, rows)),
        random.integers(0, 3, rows),
        random.integers(0, 2**31 - 1, rows),
        deadline_us=np.where(random.random(rows) < 0.5, np.nan, random.random(rows) + 0.1),
        priority=random.integers(0, 4, rows),
        request_id=[f"r{i}" for i in range(rows)],
        nodes=["never", "b", "a"],
    )


# ---- columns -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ["b", "a", "b", "c"],
        np.array(["b", "a", "b", "c"]),
        np.array(["b", "a", "b", "c"], object),
        pd.Series(["b", "a", "b", "c"]),
        pl.Series(["b", "a", "b", "c"]),
        pl.Series(["b", "a", "b", "c"], dtype=pl.Categorical),
        pa.array(["b", "a", "b", "c"]),
        pa.chunked_array([["b", "a"], ["b", "c"]]).dictionary_encode(),
        pa.DictionaryArray.from_arrays([0, 1, 2, 3], ["b", "a", "b", "c"]),
    ],
    ids=lambda v: f"{type(v).__module__.partition('.')[0]}-{getattr(v, 'dtype', getattr(v, 'type', ''))}",
)
def test_names_of_every_kind(names: Any) -> None:
    trace = Trace([0, 1, 2, 3], names, [0, 0, 0, 0])
    assert [trace.nodes[code] for code in trace.ingress] == ["b", "a", "b", "c"]
    assert len(set(trace.nodes)) == len(trace.nodes)
    assert trace.ingress.dtype == np.int32
    listed = Trace([0, 1, 2, 3], names, [0, 0, 0, 0], nodes=["a", "b", "c"])
    assert listed.ingress.tolist() == [1, 0, 1, 2]
    assert listed.nodes == ("a", "b", "c")


def test_categories_of_pandas() -> None:
    column = pd.Series(["b", "a", "b"], dtype=pd.CategoricalDtype(["a", "b", "unused"]))
    assert Trace([0, 1, 2], column, [0, 0, 0], nodes=["b", "a"]).ingress.tolist() == [0, 1, 0]
    assert Trace([0, 1, 2], column, [0, 0, 0]).nodes == ("a", "b", "unused")


@pytest.mark.parametrize("make", [list, np.array, torch.tensor, pd.Series, pl.Series, pa.array])
def test_codes_and_numbers_of_every_kind(make: Any) -> None:
    trace = Trace(make([5, 5, 9]), make([1, 0, 1]), make([7, 8, 9]), priority=make([0, 1, 2]), nodes=["a", "b"])
    assert trace.arrival_ns.tolist() == [5, 5, 9]
    assert trace.arrival_ns.dtype == np.int64
    assert trace.ingress.tolist() == [1, 0, 1]
    assert trace.sample.tolist() == [7, 8, 9]
    assert trace.priority is not None
    assert trace.priority.tolist() == [0, 1, 2]


def test_columns_are_shared_and_read_only() -> None:
    arrival, sample = np.arange(5), np.arange(5, dtype=np.int32)
    trace = Trace(arrival, "a", sample)
    assert np.shares_memory(trace.arrival_ns, arrival)
    assert np.shares_memory(trace.sample, sample)
    assert not trace.arrival_ns.flags.writeable
    assert arrival.flags.writeable
    with pytest.raises(AttributeError, match="cannot be changed"):
        trace.sample = sample


def test_deadlines_and_identifiers() -> None:
    trace = Trace([0, 1, 2, 3], "a", [0] * 4, deadline_us=[1.5, None, np.nan, np.inf], request_id=[4, 3, 2, 1])
    assert trace.deadline_us is not None
    assert trace.deadline_us.tolist() == [1.5, np.inf, np.inf, np.inf]
    assert trace.request_id.to_pylist() == [4, 3, 2, 1]
    assert Trace([0], "a", [0], deadline_us=[None]).deadline_us is None
    assert Trace([0, 1], "a", [0, 0], deadline_us=5).deadline_us.tolist() == [5, 5]  # type: ignore[union-attr]
    assert Trace([0, 1], "a", [0, 0], priority=1).priority.tolist() == [1, 1]  # type: ignore[union-attr]


def test_rate_duration_and_empty_traces() -> None:
    trace = Trace([10**9, 2 * 10**9, 3 * 10**9], "a", [0, 1, 2])
    assert (trace.duration_s, trace.rate_rps) == (2.0, 1.0)
    for empty in (Trace([], "a", []), Trace([], [], []), trace.slice(3, 3), trace.slice(2, 1)):
        assert len(empty) == 0
        assert empty.duration_s == 0.0
        assert np.isnan(empty.rate_rps)
        repr(empty)


@given(st.integers(-12, 12), st.integers(-12, 12))
def test_slice_is_a_python_slice_without_a_copy(start: int, stop: int) -> None:
    trace = example(10)
    part = trace.slice(start, stop)
    assert part.arrival_ns.tolist() == trace.arrival_ns.tolist()[start:stop]
    assert part.request_id.to_pylist() == trace.request_id.to_pylist()[start:stop]
    assert part.nodes == trace.nodes
    assert not len(part) or np.shares_memory(part.deadline_us, trace.deadline_us)  # type: ignore[arg-type]


def test_pickling() -> None:
    assert_same(pickle.loads(pickle.dumps(example())), example())


# ---- made and joined arrivals ------------------------------------------------------------------------------


def test_poisson_is_a_poisson_process() -> None:
    trace = Trace.poisson(NETWORK, rate_rps=500, requests=100_000, samples=50, ingress={"device": 3, "edge": 1})
    gaps = np.diff(trace.arrival_ns, prepend=0) / 1e9
    assert stats.kstest(gaps, "expon", args=(0, 1 / 500)).pvalue > 1e-3
    assert trace.nodes == ("device", "edge")
    share = np.count_nonzero(trace.ingress == 0) / len(trace)
    assert abs(share - 0.75) < 4 * np.sqrt(0.75 * 0.25 / len(trace))
    assert stats.chisquare(np.bincount(trace.sample, minlength=50)).pvalue > 1e-3


def test_poisson_defaults_to_the_ingress_of_the_network() -> None:
    trace = Trace.poisson(NETWORK, rate_rps=1, requests=10, samples=5, deadline_us=1000)
    assert trace.nodes == ("device",)
    assert trace.deadline_us is not None
    assert (trace.deadline_us == 1000).all()


def test_seeds_differ_and_repeat() -> None:
    def draw(seed: int) -> Trace:
        return Trace.poisson(NETWORK, rate_rps=1, requests=100, samples=50, seed=seed, ingress=["device", "edge"])

    assert_same(draw(1), draw(1))
    assert (draw(1).arrival_ns != draw(2).arrival_ns).any()
    # What else is drawn does not move the arrivals.
    other = Trace.poisson(NETWORK, rate_rps=1, requests=100, samples=9, seed=1)
    np.testing.assert_array_equal(other.arrival_ns, draw(1).arrival_ns)


@pytest.mark.parametrize("rows", [1, 7, 1000, 65_536, 200_000])
def test_batches_of_any_size_are_the_same_trace(rows: int) -> None:
    count = 300 if rows < 1000 else 150_000
    options: dict[str, Any] = {
        "rate_rps": 3.0,
        "requests": count,
        "samples": 1000,
        "ingress": {"device": 1, "edge": 2},
    }
    whole = Trace.poisson(NETWORK, **options)
    batches = list(Trace.poisson_batches(NETWORK, rows=rows, **options))
    for column in ("arrival_ns", "ingress", "sample"):
        np.testing.assert_array_equal(np.concatenate([getattr(b, column) for b in batches]), getattr(whole, column))


@pytest.mark.parametrize("ingress", [["device"], ["device", "edge"], {"device": 1, "edge": 2}])
def test_a_seed_gives_the_numbers_of_numpy(ingress: Any) -> None:
    count, samples = 100_000, 1000
    gaps, places, picks = (
        np.random.Generator(np.random.Philox(np.random.SeedSequence(5, spawn_key=(purpose,)))) for purpose in range(3)
    )
    arrival = np.rint(np.cumsum(gaps.standard_exponential(count) * (1e9 / 300))).astype(np.int64)
    if isinstance(ingress, dict):
        code = (places.random(count) >= 1 / 3).astype(np.int32)
    else:
        code = places.integers(len(ingress), size=count, dtype=np.int32)
    sample = picks.integers(samples, size=count, dtype=np.int32)
    for rows in (count, 65_536, 997):
        batches = list(
            Trace.poisson_batches(
                NETWORK, rate_rps=300, requests=count, samples=samples, seed=5, ingress=ingress, rows=rows
            )
        )
        for column, expected in (("arrival_ns", arrival), ("ingress", code), ("sample", sample)):
            np.testing.assert_array_equal(np.concatenate([getattr(b, column) for b in batches]), expected)


@pytest.mark.timed
def test_ten_million_requests_in_seconds() -> None:
    start = time.perf_counter()
    trace = Trace.poisson(NETWORK, rate_rps=500, requests=10_000_000, samples=1_000_000)
    made = time.perf_counter()
    Trace(trace.arrival_ns, trace.ingress, trace.sample, nodes=trace.nodes)
    checked = time.perf_counter()
    assert made - start < 4.0  # 0.1 s on an idle machine
    assert checked - made < 1.0  # 0.05 s


@given(
    st.lists(st.floats(0, 1e6) | st.just(0.0), min_size=1, max_size=40),
    st.lists(st.floats(0, 1, exclude_max=True)),
)
def test_indexed_search_equals_binary_search(weights: list[float], uniform: list[float]) -> None:
    w, u = np.array(weights), np.array(uniform * 50)
    if not w.any():
        with pytest.raises(BadValueError, match="here must not all be zero"):
            pick(w, u, "here")
        return
    kept = np.flatnonzero(w)
    cumulated = np.cumsum(w[kept] / w.max())
    cumulated /= cumulated[-1]
    cumulated[-1] = np.inf
    np.testing.assert_array_equal(pick(w, u, "here"), kept[np.searchsorted(cumulated, u, side="right")])


def test_indexed_search_with_most_weight_on_one_item() -> None:
    weights = np.full(10_000, 1e-9)
    weights[0] = 1.0
    uniform = np.random.default_rng(0).random(100_000)
    uniform[:10] = 1 - np.arange(1, 11) * 1e-6
    picked = pick(weights, uniform, "here")
    cumulated = np.cumsum(weights) / weights.sum()
    np.testing.assert_array_equal(picked, np.minimum(np.searchsorted(cumulated, uniform, side="right"), 9999))


class TestFromArrivals:
    @pytest.mark.parametrize(
        ("times", "unit"),
        [
            ([0.0, 0.5, 2.0], "s"),
            ([0, 500, 2000], "ms"),
            ([0, 500_000, 2_000_000], "us"),
            (np.array([0, 500_000_000, 2_000_000_000]), "ns"),
            (
                np.array(["2024-01-01T00:00:00", "2024-01-01T00:00:00.5", "2024-01-01T00:00:02"], "datetime64[ms]"),
                "s",
            ),
            (pd.Series(pd.to_datetime([0, 500, 2000], unit="ms")), "s"),
            (pl.Series([0.0, 0.5, 2.0]), "s"),
        ],
    )
    def test_units(self, times: Any, unit: str) -> None:
        trace = Trace.from_arrivals(times, samples=3, network=NETWORK, unit=unit)
        assert trace.arrival_ns.tolist() == [0, 500_000_000, 2_000_000_000]
        assert trace.nodes == ("device",)

    def test_unsorted_times_are_refused_or_sorted_with_their_columns(self) -> None:
        times, ingress, deadline = [3.0, 1.0, 2.0], ["c", "a", "b"], [30.0, 10.0, 20.0]
        with pytest.raises(BadValueError, match=r"times: row 1 is 1000000000 ns, earlier than row 0.*sort=True"):
            Trace.from_arrivals(times, samples=1, ingress=ingress)
        trace = Trace.from_arrivals(times, samples=1, ingress=ingress, deadline_us=deadline, sort=True)
        assert [trace.nodes[code] for code in trace.ingress] == ["a", "b", "c"]
        assert trace.deadline_us is not None
        assert trace.deadline_us.tolist() == [10, 20, 30]

    def test_names_and_weights_are_checked_against_the_network(self) -> None:
        with pytest.raises(UnknownNameError, match="no node 'egde'; did you mean 'edge'"):
            Trace.from_arrivals([0.0], samples=1, network=NETWORK, ingress=["egde"])
        with pytest.raises(UnknownNameError, match="no node 'egde'; did you mean 'edge'"):
            Trace.from_arrivals([0.0], samples=1, network=NETWORK, ingress={"egde": 1})
        with pytest.raises(BadValueError, match="weights must not all be zero"):
            Trace.from_arrivals([0.0], samples=1, ingress={"a": 0})

    def test_label_mix_per_ingress(self) -> None:
        labels = np.array(["cat", "dog", "cow", "dog", None] * 20, object)
        trace = Trace.from_arrivals(
            np.arange(40_000.0),
            samples=100,
            ingress={"x": 1, "y": 1, "z": 1},
            labels=labels,
            label_mix={"x": {"cat": 3, "dog": 1}, "y": {"cow": 1}},
        )
        drawn = labels[trace.sample]
        at = [drawn[trace.ingress == code] for code in range(3)]
        cats = np.count_nonzero(at[0] == "cat")
        assert set(at[0]) == {"cat", "dog"}
        assert stats.binomtest(cats, len(at[0]), 0.75).pvalue > 1e-3
        assert set(at[1]) == {"cow"}
        assert set(at[2]) == {"cat", "dog", "cow", None}  # no mix: all samples alike
        assert stats.chisquare(np.bincount(trace.sample[trace.ingress == 2], minlength=100)).pvalue > 1e-3

    def test_popularity_is_zipf_with_a_ranking_per_node(self) -> None:
        trace = Trace.from_arrivals(
            np.arange(100_000.0),
            samples=20,
            ingress={"x": 1, "y": 1, "z": 1},
            popularity={"x": 1.0, "y": 1.0},
        )
        counts = [np.bincount(trace.sample[trace.ingress == code], minlength=20) for code in range(3)]
        zipf = 1 / np.arange(1, 21)
        for code in (0, 1):
            falling = np.sort(counts[code])[::-1]
            assert stats.chisquare(falling, zipf / zipf.sum() * falling.sum()).pvalue > 1e-3
        assert (np.argsort(counts[0]) != np.argsort(counts[1])).any()
        assert stats.chisquare(counts[2]).pvalue > 1e-3

    def test_popularity_within_a_class_of_the_mix(self) -> None:
        times, labels = np.arange(100_000.0), np.arange(20) % 2
        trace = Trace.from_arrivals(
            times, samples=20, ingress="x", labels=labels, label_mix={"x": {0: 1, 1: 3}}, popularity=1.0
        )
        counts = np.bincount(trace.sample, minlength=20)
        assert stats.binomtest(int(counts[1::2].sum()), len(times), 0.75).pvalue > 1e-3
        plain = Trace.from_arrivals(times, samples=20, ingress="x", popularity=1.0)
        popular = np.bincount(plain.sample, minlength=20)
        for label in (0, 1):  # the mix moves weight between classes, never within one
            both = np.stack([counts[labels == label], popular[labels == label]])
            assert stats.chi2_contingency(both).pvalue > 1e-3

    def test_the_ranking_of_a_node_does_not_depend_on_the_length(self) -> None:
        options: dict[str, Any] = {"samples": 20, "ingress": "x", "popularity": 1.5}
        long = Trace.from_arrivals(np.arange(1000.0), **options)
        short = Trace.from_arrivals(np.arange(10.0), **options)
        np.testing.assert_array_equal(short.sample, long.sample[:10])

    @pytest.mark.skipif(not (SHARED / "azure_llm2023_conv.npz").exists(), reason="shared/data is absent")
    def test_a_production_trace(self) -> None:
        times = np.load(SHARED / "azure_llm2023_conv.npz", allow_pickle=False)["t"]
        trace = Trace.from_arrivals(times, samples=10_000, network=NETWORK)
        assert len(trace) == 19_366
        gaps = np.diff(trace.arrival_ns)
        assert gaps.std() / gaps.mean() == pytest.approx(1.09, abs=0.01)


# ---- files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "feather"])
class TestFiles:
    def test_a_trace_survives(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"trace.{suffix}"
        bare = Trace([0, 1], "a", [0, 1])
        for trace in (example(), bare, bare.slice(0, 0), example().slice(100, 200)):
            trace.save(path)
            assert_same(Trace.open(path), trace)
        assert [p.name for p in tmp_path.iterdir()] == [path.name]

    @pytest.mark.parametrize("rows", [1, 64, 999, 5000])
    def test_batches_are_the_whole(self, tmp_path: Path, suffix: str, rows: int) -> None:
        trace = example()
        trace.save(tmp_path / f"trace.{suffix}")
        batches = list(Trace.batches(tmp_path / f"trace.{suffix}", rows=rows))
        assert max(map(len, batches)) <= rows
        assert {batch.nodes for batch in batches} == {trace.nodes}
        for column in ("arrival_ns", "ingress", "sample", "priority"):
            whole = np.concatenate([getattr(b, column) for b in batches])
            np.testing.assert_array_equal(whole, getattr(trace, column))
        ids = [i for b in batches for i in b.request_id.to_pylist()]
        assert ids == trace.request_id.to_pylist()

    def test_batches_of_a_foreign_file_number_nodes_alike(self, tmp_path: Path, suffix: str) -> None:
        names = ["b", "a", "b", "c", "a", "d"]
        table = pa.table({"arrival_ns": range(6), "ingress": names, "sample": [0] * 6, "note": [""] * 6})
        path = tmp_path / f"trace.{suffix}"
        if suffix == "parquet":
            pq.write_table(table, path, row_group_size=2)
        else:
            with pa.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table, max_chunksize=2)
        with pytest.raises(UnknownNameError, match=r"trace\.\w+: column 'note' is not part of a trace"):
            next(Trace.batches(path))
        batches = list(Trace.batches(path, rows=2, ignore_extra=True))
        assert [b.nodes[code] for b in batches for code in b.ingress] == names
        assert all(b.nodes == batches[-1].nodes[: len(b.nodes)] for b in batches)
        assert [Trace.open(path, ignore_extra=True).nodes] == [batches[-1].nodes]

    def test_disorder_between_batches_is_found(self, tmp_path: Path, suffix: str) -> None:
        good = example(10)
        bad = good._table().take([5, 6, 7, 8, 9, 0, 1, 2, 3, 4])
        path = tmp_path / f"trace.{suffix}"
        if suffix == "parquet":
            pq.write_table(bad, path)
        else:
            with pa.ipc.new_file(path, bad.schema) as writer:
                writer.write_table(bad)
        with pytest.raises(BadValueError, match=rf"{path.name}: arrival_ns: row 5 is .* earlier than the row before"):
            list(Trace.batches(path, rows=5))
        with pytest.raises(BadValueError, match=rf"{path.name}: arrival_ns: row 5 is .* earlier than row 4"):
            Trace.open(path)


def test_an_arrow_file_is_mapped_not_read(tmp_path: Path) -> None:
    trace = Trace.poisson(NETWORK, rate_rps=100, requests=400_000, samples=10)
    trace.save(tmp_path / "t.arrow")
    before = pa.total_allocated_bytes()
    opened = Trace.open(tmp_path / "t.arrow")
    assert pa.total_allocated_bytes() - before < 1e5
    np.testing.assert_array_equal(opened.arrival_ns, trace.arrival_ns)


def test_nulls_in_a_file_are_no_deadline(tmp_path: Path) -> None:
    Trace([0, 1], "a", [0, 0], deadline_us=[None, 3.0]).save(tmp_path / "t.parquet")
    assert pq.read_table(tmp_path / "t.parquet").column("deadline_us").to_pylist() == [None, 3.0]


class TestReadArrivals:
    @pytest.mark.parametrize(
        ("name", "text", "expected"),
        [
            (
                "azure2023.csv",
                (
                    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
                    "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n"
                ),
                [0, 52_000_000],
            ),
            (
                "azure2024.csv",
                (
                    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
                    "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:00.017335+00:00,2399,6\n"
                ),
                [0, 7_405_000],
            ),
            (
                "functions2021.csv",
                "app,func,end_timestamp,duration\na,f,5.0,1.0\nb,g,5.5,4.5\n",
                [0, 3_000_000_000],
            ),
            ("burst.csv", "Timestamp,Model,Request tokens\n5,ChatGPT,472\n45,GPT-4,1\n", [0, 40_000_000_000]),
            (
                "mooncake.jsonl",
                '{"timestamp": 0, "input_length": 6}\n\n{"timestamp": 27, "input_length": 7}\n',
                [0, 27_000_000],
            ),
            (
                "aiperf.jsonl",
                '{"metadata": {"request_start_ns": 176300007}}\n{"metadata": {"request_start_ns": 176300001}}',
                [0, 6],
            ),
        ],
    )
    def test_published_formats(self, tmp_path: Path, name: str, text: str, expected: list[int]) -> None:
        (tmp_path / name).write_text(text)
        arrivals = Trace.read_arrivals(tmp_path / name)
        assert arrivals.tolist() == expected
        assert len(Trace.from_arrivals(arrivals, unit="ns", samples=5, ingress="a")) == 2

    @pytest.mark.parametrize(
        ("name", "text", "words"),
        [
            ("t.csv", "when,what\n1,2\n", "the columns when, what are of no known trace; expected TIMESTAMP"),
            ("t.csv", "TIMESTAMP\nyesterday\n", "cannot be read as"),
            ("t.csv", "Timestamp,x\n1,1\n,2\n", "column 'Timestamp' has an empty value"),
            ("t.jsonl", '{"timestamp": 0}\n{"time": 1}\n', "line 2 has neither 'timestamp' .* nor 'metadata.request_"),
            ("t.jsonl", "{\n", "cannot be read as"),
            ("t.json", "{}", "has no 'experiments'; expected what perf_analyzer"),
            ("t.csv", "HashOwner,HashFunction,1,2\na,b,0,3\n", "coinfer.arrivals.per_minute reads it"),
        ],
    )
    def test_others_are_refused(self, tmp_path: Path, name: str, text: str, words: str) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(BadFileError, match=words):
            Trace.read_arrivals(tmp_path / name)


class TestPerfAnalyzer:
    """Its files as version 2.46 writes them: output tensors are bytes in strings, whatever UTF-8 says."""

    REQUEST = (
        b'{"timestamp":%d,"request_inputs":{"IMAGE":null},"response_timestamps":[%d],'
        b'"response_outputs":[{"PROBS":"\\u0000\\u0000\xb6\x1f?"}]}'
    )

    def export(self, path: Path, *experiments: tuple[int, ...]) -> Path:
        each = (
            b'{"experiment":{"mode":"request_rate","value":%d.0},"requests":[%s],"window_boundaries":[]}'
            % (40 + number, b",".join(self.REQUEST % (time, time + 5) for time in times))
            for number, times in enumerate(experiments)
        )
        path.write_bytes(b'{"experiments":[%s],"version":"1.8.0"}' % b",".join(each))
        return path

    def test_its_arrivals_are_read(self, tmp_path: Path) -> None:
        start = 1_795_587_936_803_083_082
        one = self.export(tmp_path / "one.json", (start + 147_245_395, start))
        assert Trace.read_arrivals(one).tolist() == [0, 147_245_395]
        two = self.export(tmp_path / "two.json", (start,), (start + 3, start + 10))
        assert Trace.read_arrivals(two, experiment=1).tolist() == [0, 7]
        with pytest.raises(BadValueError, match=r"two.json: .*0 \(request_rate 40\), 1 \(request_rate 41\)"):
            Trace.read_arrivals(two)
        with pytest.raises(BadValueError, match="experiment must be an integer from 0 to 1"):
            Trace.read_arrivals(two, experiment=2)

    def test_it_can_send_what_was_replayed(self, tmp_path: Path) -> None:
        trace = Trace([1_499, 1_000_400, 1_000_600, 9_000_000], ["a", "b", "a", "b"], [0, 1, 2, 3])
        trace.save_intervals(tmp_path / "all.txt")
        assert (tmp_path / "all.txt").read_text() == "1\n999\n1\n7999\n"
        trace.save_intervals(tmp_path / "b.txt", ingress="b")
        assert (tmp_path / "b.txt").read_text() == "1000\n8000\n"
        with pytest.raises(UnknownNameError, match="no ingress node 'c'"):
            trace.save_intervals(tmp_path / "c.txt", ingress="c")
        with pytest.raises(BadValueError, match="no request to write"):
            Trace([], "a", []).save_intervals(tmp_path / "none.txt")
        assert not (tmp_path / "none.txt").exists()
