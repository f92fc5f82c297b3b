"""The trace: which requests arrive when, where, about which sample, and by when they must be answered.

A trace is columns, not objects: ten million requests are five arrays, checked by a handful of passes at
memory speed. Files are Parquet or Arrow IPC and can be read in batches, because a replay needs only what is
in flight.

Published traces of production services carry arrival times and sizes, almost never what each model answered.
So the join of real arrivals with samples is an operation of its own, `Trace.from_arrivals`: seeded, and
skewed per ingress if wanted (which classes are asked for where, and how unevenly). Arrivals, nodes and
samples are drawn in request order from three Philox streams, so a trace does not depend on the size of the
pieces it is made in, and traces of one seed share their arrivals whatever else differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from coinfer._arrays import as_array, as_names, as_numbers, check_range, first_row, frozen, one_chunk
from coinfer._arrivals import arrivals_ns, read_published
from coinfer._checks import check_integer, check_name, check_number
from coinfer._drawing import (
    arrival_draws,
    check_nodes,
    draw_samples,
    entry_nodes,
    node_draws,
    node_names,
    sample_draws,
)
from coinfer._files import METADATA_KEY, check_metadata, encode_metadata, reading, replacing, suffix_of
from coinfer.errors import BadFileError, BadValueError, UnknownNameError, nearest

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray

    from coinfer.network import Network

__all__ = ["Trace"]

_ROW_GROUP: Final = 1 << 19
_COLUMNS: Final = ("arrival_ns", "ingress", "sample", "deadline_us", "priority", "request_id")
_KIND: Final = {".parquet": "a Parquet file", ".arrow": "an Arrow IPC file", ".feather": "an Arrow IPC file"}
_OPENERS: Final = {"predictions": "coinfer.Predictions.open", "trace": "coinfer.Trace.open"}


class Trace:
    """Requests in the order of their arrival.

    Parameters
    ----------
    arrival_ns : array-like of int, shape (N,)
        Nanoseconds from the start of the trace, >= 0, non-decreasing.
    ingress : array-like of str or int, shape (N,), or str
        Where each request enters: node names, or positions in `nodes`, or one name for all.
    sample : array-like of int, shape (N,)
        Row of the Predictions that each request is about, >= 0.
    deadline_us : array-like of float, shape (N,), or float, optional
        Time to answer, relative to the arrival, including the way back; > 0. Null, NaN or infinity: none.
    priority : array-like of int, shape (N,), or int, optional
        As Triton has it: 1 is the highest, larger is lower, 0 is the server's default level.
    request_id : array-like of int or str, shape (N,), optional
        The user's own identifiers; not looked at.
    nodes : sequence of str, optional
        Node names that integer `ingress` refers to. With names in `ingress`, fixes their order.

    Attributes
    ----------
    arrival_ns : ndarray of int64
    ingress : ndarray of int32
        Positions in `nodes`.
    sample : ndarray of int32
    deadline_us : ndarray of float64, or None
        Infinity where there is no deadline; None if no request has one.
    priority : ndarray of int32, or None
    request_id : pyarrow.Array of int64 or string, or None
    nodes : tuple of str

    Raises
    ------
    BadValueError
        If a column is not allowed; the message names the first bad row.
    UnknownNameError
        If `nodes` is given and a request enters at another node.

    Examples
    --------
    >>> trace = Trace([0, 1_000_000, 4_000_000], ["a", "b", "a"], [7, 0, 7])
    >>> trace
    Trace(3 requests from 2 nodes, 0.004 s, 500 requests/s)
    >>> trace.ingress
    array([0, 1, 0], dtype=int32)
    """

    __slots__ = ("arrival_ns", "deadline_us", "ingress", "nodes", "priority", "request_id", "sample")

    arrival_ns: NDArray[np.int64]
    ingress: NDArray[np.int32]
    sample: NDArray[np.int32]
    deadline_us: NDArray[np.float64] | None
    priority: NDArray[np.int32] | None
    request_id: Any
    nodes: tuple[str, ...]

    def __init__(
        self,
        arrival_ns: Any,
        ingress: Any,
        sample: Any,
        *,
        deadline_us: Any = None,
        priority: Any = None,
        request_id: Any = None,
        nodes: Sequence[str] | None = None,
    ) -> None:
        arrival = _integers(arrival_ns, "arrival_ns", np.int64)
        _check_order(arrival, "arrival_ns")
        rows = len(arrival)
        codes, names = _ingress_codes(ingress, rows, nodes)
        samples = _integers(sample, "sample", np.int32)
        _check_length(codes, "ingress", rows)
        _check_length(samples, "sample", rows)
        check_range(samples, "sample", 0, 2**31 - 1, "a sample is a row number >= 0")
        self._fill(
            arrival_ns=frozen(arrival),
            ingress=frozen(codes),
            sample=frozen(samples),
            deadline_us=_deadlines(deadline_us, rows),
            priority=_priorities(priority, rows),
            request_id=_identifiers(request_id, rows),
            nodes=names,
        )

    def _fill(self, **columns: Any) -> None:
        for name, column in columns.items():
            object.__setattr__(self, name, column)

    @classmethod
    def _trusted(cls, **columns: Any) -> Trace:
        trace = object.__new__(cls)
        trace._fill(**{"deadline_us": None, "priority": None, "request_id": None, **columns})
        return trace

    def __setattr__(self, name: str, value: object) -> None:
        msg = f"a Trace cannot be changed; build a new one instead of setting {name!r}"
        raise AttributeError(msg)

    def __delattr__(self, name: str) -> None:
        self.__setattr__(name, None)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, ({name: getattr(self, name) for name in self.__slots__},)

    def __len__(self) -> int:
        return len(self.arrival_ns)

    @property
    def duration_s(self) -> float:
        """Seconds from the first to the last arrival; 0 for an empty trace."""
        return float(self.arrival_ns[-1] - self.arrival_ns[0]) / 1e9 if len(self) else 0.0

    @property
    def rate_rps(self) -> float:
        """Requests per second: arrivals after the first, over `duration_s`; NaN where nothing can be said."""
        return (len(self) - 1) / self.duration_s if self.duration_s > 0 else float("nan")

    def slice(self, start: int, stop: int) -> Trace:
        """Return the requests [start, stop) as a trace that shares memory with this one.

        Arrival times stay as they are. As with Python slices, the ends are cut to the length, and negative
        ones count from the end.
        """
        start, stop, _ = slice(start, stop).indices(len(self))
        window = slice(start, max(start, stop))
        columns = {name: getattr(self, name) for name in self.__slots__ if name != "nodes"}
        return Trace._trusted(
            nodes=self.nodes, **{name: None if c is None else c[window] for name, c in columns.items()}
        )

    def __repr__(self) -> str:
        at = f"{len(self.nodes):,} node{'' if len(self.nodes) == 1 else 's'}"
        return f"Trace({len(self):,} requests from {at}, {self.duration_s:.4g} s, {self.rate_rps:,.4g} requests/s)"

    # ---- making traces -------------------------------------------------------------------------------------

    @classmethod
    def poisson(
        cls,
        network: Network,
        *,
        rate_rps: float,
        requests: int,
        samples: int,
        seed: int = 0,
        deadline_us: float | None = None,
        ingress: str | Sequence[str] | Mapping[str, float] | None = None,
    ) -> Trace:
        """Draw a Poisson process over the ingress nodes, with samples drawn uniformly.

        Parameters
        ----------
        network : Network
            Where requests enter.
        rate_rps : float
            Requests per second in all, > 0.
        requests : int
            How many.
        samples : int
            Number of samples to draw from, ``len(predictions)``.
        seed : int, default 0
            Same seed, same trace.
        deadline_us : float, optional
            The deadline of every request.
        ingress : str, sequence of str, or mapping of str to float, optional
            The nodes where requests enter, or their shares of the load as weights. By default, all of
            ``network.ingress`` alike.

        Returns
        -------
        Trace
            About 0.01 us per request in memory that is warm; see `poisson_batches` for traces that do not fit memory.

        Raises
        ------
        BadValueError, UnknownNameError
            If a number is out of range or a node does not exist.

        Examples
        --------
        >>> from coinfer.network import Network
        >>> network = Network.chain({"device": "small", "cloud": "large"}, delay_ms=10)
        >>> len(Trace.poisson(network, rate_rps=500, requests=1000, samples=100))
        1000
        """
        count = check_integer(requests, "poisson: requests", at_most=2**40)
        draw = cls._poisson(network, rate_rps, count, samples, seed, deadline_us, ingress)
        return draw(count)

    @classmethod
    def poisson_batches(
        cls,
        network: Network,
        *,
        rate_rps: float,
        requests: int,
        samples: int,
        seed: int = 0,
        deadline_us: float | None = None,
        ingress: str | Sequence[str] | Mapping[str, float] | None = None,
        rows: int = 1 << 16,
    ) -> Iterator[Trace]:
        """Yield the trace of `poisson`, row for row, in batches of `rows` requests, in bounded memory.

        Parameters and errors are those of `poisson`.
        """
        count = check_integer(requests, "poisson: requests", at_most=2**40)
        draw = cls._poisson(network, rate_rps, count, samples, seed, deadline_us, ingress)
        rows = check_integer(rows, "poisson: rows", at_least=1)
        return (draw(min(rows, count - start)) for start in range(0, count, rows))

    @classmethod
    def _poisson(
        cls,
        network: Network,
        rate_rps: float,
        count: int,
        samples: int,
        seed: int,
        deadline_us: float | None,
        ingress: str | Sequence[str] | Mapping[str, float] | None,
    ) -> Callable[[int], Trace]:
        """Return what draws the next so many of `count` requests."""
        rate = check_number(rate_rps, "poisson: rate_rps", above=0.0)
        bound = check_integer(samples, "poisson: samples", at_least=1)
        nodes, weights = entry_nodes(network, ingress)
        arrivals = arrival_draws(seed, 1e9 / rate)
        draw_nodes, draw_samples = node_draws(seed, len(nodes), weights), sample_draws(seed, bound)

        def draw(rows: int) -> Trace:
            times = arrivals.draw(rows)
            if not arrivals.now_ns < 2**63:
                msg = f"poisson: at {rate:g} requests per second, {count} requests take longer than int64 counts ns"
                raise BadValueError(msg)
            return cls._trusted(
                arrival_ns=frozen(times),
                ingress=frozen(draw_nodes(rows)),
                sample=frozen(draw_samples(rows)),
                deadline_us=_deadlines(deadline_us, rows),
                nodes=nodes,
            )

        return draw

    @classmethod
    def from_arrivals(
        cls,
        times: Any,
        *,
        samples: int,
        network: Network | None = None,
        ingress: Any = None,
        labels: Any = None,
        label_mix: Mapping[str, Mapping[Any, float]] | None = None,
        popularity: float | Mapping[str, float] | None = None,
        unit: str = "s",
        seed: int = 0,
        deadline_us: Any = None,
        sort: bool = False,
    ) -> Trace:
        """Join a real arrival process with samples.

        Parameters
        ----------
        times : array-like of float, int or datetime64, shape (N,)
            Arrival times in `unit`, >= 0, non-decreasing. Dates and times count from the first.
        samples : int
            Number of samples to draw from, ``len(predictions)``.
        network : Network, optional
            Gives the ingress nodes, and checks the names in `ingress`.
        ingress : str, sequence of str, or mapping of str to float, optional
            One node for all requests; the node of each request (N names); or nodes with weights to draw from.
            By default, all of ``network.ingress`` alike.
        labels : array-like of shape (samples,), optional
            The class of each sample (integers or names), needed for `label_mix`; -1 and null are never drawn
            under a mix.
        label_mix : mapping of node to mapping of class to weight, optional
            Which classes are asked for at a node: a class is drawn by weight, then a sample of it. Nodes that
            are not named draw from all samples alike.
        popularity : float or mapping of node to float, optional
            Zipf exponent s >= 0: the r-th most popular sample is drawn with weight r^-s. The ranking is a
            seeded permutation of its own per node. 0 is uniform.
        unit : {"s", "ms", "us", "ns"}, default "s"
            Unit of `times`.
        seed : int, default 0
            Same seed, same trace.
        deadline_us : float or array-like of shape (N,), optional
            Deadline of every or of each request.
        sort : bool, default False
            Whether to sort times that are not in order (and `ingress` and `deadline_us` with them) rather
            than to refuse them.

        Returns
        -------
        Trace
            One request per arrival.

        Raises
        ------
        BadValueError, UnknownNameError
            If a value or name is not allowed; the message names the first bad row, node or class.

        Examples
        --------
        >>> trace = Trace.from_arrivals(
        ...     [0.0, 0.5, 0.7], samples=4, ingress="edge", labels=[0, 0, 1, 1], label_mix={"edge": {1: 1.0}}
        ... )
        >>> bool((trace.sample >= 2).all())
        True
        """
        arrival = arrivals_ns(times, unit)
        order = None
        if sort and np.any(arrival[1:] < arrival[:-1]):
            order = np.argsort(arrival, kind="stable")
            arrival = arrival[order]
        _check_order(arrival, "times", hint="; sort=True sorts them")
        rows = len(arrival)
        bound = check_integer(samples, "from_arrivals: samples", at_least=1)
        per_request = not (ingress is None or isinstance(ingress, str | Mapping))
        if per_request:
            codes, nodes = as_names(ingress, "ingress")
            _check_length(codes, "ingress", rows)
            codes = codes if order is None else codes[order]
            if network is not None:
                check_nodes(nodes, network, "ingress")
        else:
            nodes, weights = entry_nodes(network, ingress)
            codes = node_draws(seed, len(nodes), weights)(rows)
        deadline = _deadlines(deadline_us, rows)
        return cls._trusted(
            arrival_ns=frozen(arrival),
            ingress=frozen(codes),
            sample=frozen(draw_samples(codes, nodes, bound, labels, label_mix, popularity, seed)),
            deadline_us=deadline if order is None or deadline is None else frozen(deadline[order]),
            nodes=nodes,
        )

    @staticmethod
    def read_arrivals(path: str | PathLike[str], *, experiment: int | None = None) -> NDArray[np.int64]:
        """Read the arrival times of a recorded trace as nanoseconds from the first, ascending.

        Known by their columns: Azure LLM inference 2023, 2024 and LMM 2025 (``TIMESTAMP``, dates with seven
        decimals), Azure Functions 2021 (``end_timestamp, duration``; the arrival is the difference), BurstGPT
        (``Timestamp`` in seconds). ``.jsonl``: Mooncake (``timestamp`` in milliseconds), AIPerf
        (``metadata.request_start_ns``). ``.json``: what perf_analyzer's ``--profile-export-file`` writes; at a fixed
        concurrency its arrivals are those of a closed loop, which waits for the server it measured.

        Parameters
        ----------
        path : path
            The file.
        experiment : int, optional
            Which of the experiments of a perf_analyzer file, from 0; needed if there are several.

        Raises
        ------
        BadFileError
            If the file is missing, or is none of these.
        BadValueError
            If there are several experiments and none is chosen, or there is no such experiment.
        """
        path = Path(path)
        with reading(path, "a trace of arrivals (CSV, JSONL or JSON)"):
            arrival = read_published(path, experiment)
        arrival = np.sort(arrival)
        return arrival - arrival[0] if len(arrival) else arrival

    def save_intervals(self, path: str | PathLike[str], *, ingress: str | None = None) -> None:
        """Write the gaps between arrivals for perf_analyzer's ``--request-intervals``: microseconds, one a line.

        perf_analyzer then sends the same arrivals to one real server, and begins again at the end of the file.
        Rounding does not add up: every arrival stays within half a microsecond of its time.

        Parameters
        ----------
        path : path
            The file to write.
        ingress : str, optional
            Only the requests that enter at this node. Default: all.

        Raises
        ------
        UnknownNameError
            If no request can enter at `ingress`.
        BadValueError
            If there is no request to write.
        BadFileError
            If the file cannot be written; an old file of that name is left as it was.
        """
        arrival = self.arrival_ns
        if ingress is not None:
            if ingress not in self.nodes:
                msg = f"the trace has no ingress node {ingress!r}; {nearest(ingress, self.nodes)}"
                raise UnknownNameError(msg)
            arrival = arrival[self.ingress == self.nodes.index(ingress)]
        if not len(arrival):
            msg = "save_intervals: there is no request to write" + (f" at {ingress!r}" if ingress else "")
            raise BadValueError(msg)
        gaps = np.diff((arrival + 500) // 1000, prepend=0)
        with replacing(Path(path)) as temporary:
            np.savetxt(temporary, gaps, fmt="%d")

    # ---- files ---------------------------------------------------------------------------------------------

    def save(self, path: str | PathLike[str]) -> None:
        """Write the trace; the suffix says the format: ``.parquet``, ``.arrow`` or ``.feather`` (Arrow IPC).

        Raises
        ------
        BadValueError
            If the suffix is none of these.
        BadFileError
            If the file cannot be written; an old file of that name is left as it was.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = Path(path)
        suffix = suffix_of(path, tuple(_KIND))
        table = self._table()
        with replacing(path) as temporary:
            if suffix == ".parquet":
                numbers = [name for name in table.column_names if name in ("arrival_ns", "sample")]
                pq.write_table(
                    table,
                    temporary,
                    compression="zstd",
                    write_page_checksum=True,
                    row_group_size=_ROW_GROUP,
                    use_dictionary=["ingress", "deadline_us", "priority"],
                    column_encoding=dict.fromkeys(numbers, "DELTA_BINARY_PACKED"),
                )
                return
            with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=_ROW_GROUP)

    def _table(self) -> Any:
        import pyarrow as pa

        columns = {
            "arrival_ns": pa.array(self.arrival_ns),
            "ingress": pa.DictionaryArray.from_arrays(pa.array(self.ingress), pa.array(self.nodes, pa.string())),
            "sample": pa.array(self.sample),
        }
        if self.deadline_us is not None:
            columns["deadline_us"] = pa.array(self.deadline_us, mask=np.isinf(self.deadline_us))
        if self.priority is not None:
            columns["priority"] = pa.array(self.priority)
        if self.request_id is not None:
            columns["request_id"] = self.request_id
        metadata = {METADATA_KEY: encode_metadata("trace", {"nodes": self.nodes})}
        return pa.table(columns).replace_schema_metadata(metadata)

    @classmethod
    def open(cls, path: str | PathLike[str], *, ignore_extra: bool = False) -> Trace:
        """Read a whole trace; columns are those of the constructor, ``ingress`` as strings or a dictionary.

        Parameters
        ----------
        path : path
            ``.parquet``, ``.arrow`` or ``.feather``.
        ignore_extra : bool, default False
            Whether to skip columns of other names rather than to refuse them.

        Raises
        ------
        BadFileError
            If the file is missing, empty, truncated, or not a trace.
        BadValueError, UnknownNameError
            If a column is not allowed; the message starts with the file.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = Path(path)
        suffix = suffix_of(path, tuple(_KIND))
        with reading(path, f"a trace ({_KIND[suffix]})"):
            if suffix == ".parquet":
                with pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
                    nodes, names = _check_schema(file.schema_arrow, ignore_extra)
                    table = file.read(columns=names)
            else:
                table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
                nodes, names = _check_schema(table.schema, ignore_extra)
                table = table.select(names)
            table.validate(full=True)  # offsets and codes that point outside would crash a reader, not raise
            return cls(**dict(zip(names, table.columns, strict=True)), nodes=nodes)

    @classmethod
    def batches(cls, path: str | PathLike[str], *, rows: int = 1 << 18, ignore_extra: bool = False) -> Iterator[Trace]:
        """Yield a trace file in batches of at most `rows` requests, in bounded memory.

        Every batch is checked, and its first arrival against the last one of the batch before. All batches
        number their nodes alike; in a file that does not list its nodes up front, later batches may know more
        of them.

        Raises
        ------
        BadFileError, BadValueError, UnknownNameError
            As for `open`, while iterating; rows are counted from the start of the file's batch.
        """
        path = Path(path)
        suffix = suffix_of(path, tuple(_KIND))
        rows = check_integer(rows, "batches: rows", at_least=1)
        return cls._batches(path, suffix, rows, ignore_extra)

    @classmethod
    def _batches(cls, path: Path, suffix: str, rows: int, ignore_extra: bool) -> Iterator[Trace]:
        last, done = 0, 0
        nodes: tuple[str, ...] | None = None
        for batch, listed, names in _record_batches(path, suffix, rows, ignore_extra):
            with reading(path, f"a trace ({_KIND[suffix]})"):
                codes, found = as_names(batch.column("ingress"), "ingress")
                known = listed if listed is not None else tuple(dict.fromkeys((*(nodes or ()), *found)))
                nodes = known
                columns: dict[str, Any] = {name: batch.column(name) for name in names}
                columns["ingress"] = _recode(codes, found, known)
                try:
                    trace = cls(**columns, nodes=known)
                except (BadValueError, UnknownNameError) as error:
                    msg = f"in the rows from {done} on: {error}"
                    raise type(error)(msg) from None
                if len(trace) and trace.arrival_ns[0] < last:
                    msg = f"arrival_ns: row {done} is {trace.arrival_ns[0]}, earlier than the row before ({last})"
                    raise BadValueError(msg)
            last = int(trace.arrival_ns[-1]) if len(trace) else last
            done += len(trace)
            yield trace


def _restored(columns: Mapping[str, Any]) -> Trace:
    return Trace._trusted(**columns)


# ---- columns -----------------------------------------------------------------------------------------------


def _integers(values: Any, what: str, dtype: type[np.signedinteger[Any]]) -> NDArray[Any]:
    """Return a contiguous 1-D integer array; shared if `values` already is one."""
    array = as_array(values, what)
    if array.ndim == 1 and array.size == 0:
        return np.empty(0, dtype)
    if array.ndim != 1:
        msg = f"{what} must have one value per request, shape (N,), not {array.shape}"
        raise BadValueError(msg)
    if array.dtype.kind == "f" and np.isnan(array).any():
        msg = f"{what}: row {first_row(np.isnan(array))} is null; every request needs a value"
        raise BadValueError(msg)
    if array.dtype.kind not in "iu":
        hint = "; Trace.from_arrivals takes times in seconds and other units" if what == "arrival_ns" else ""
        msg = f"{what} must be integers, not {array.dtype}{hint}"
        raise BadValueError(msg)
    bounds = np.iinfo(dtype)
    check_range(array, what, bounds.min, bounds.max, f"it must fit {np.dtype(dtype).name}")
    return np.ascontiguousarray(array, dtype)


def _check_length(array: Any, what: str, rows: int) -> None:
    if len(array) != rows:
        msg = f"{what} must have one value per request, {rows} in all, not {len(array)}"
        raise BadValueError(msg)


def _check_order(arrival: NDArray[np.int64], what: str, hint: str = "") -> None:
    check_range(arrival[:1], what, 0, 2**63 - 1, "arrivals count from the start of the trace and must be >= 0")
    earlier = arrival[1:] < arrival[:-1]
    if earlier.any():
        row = first_row(earlier) + 1
        msg = (
            f"{what}: row {row} is {arrival[row]} ns, earlier than row {row - 1} ({arrival[row - 1]} ns); "
            f"requests must be in the order of their arrival{hint}"
        )
        raise BadValueError(msg)


def _ingress_codes(ingress: Any, rows: int, nodes: Sequence[str] | None) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    listed = None if nodes is None else node_names(nodes)
    found: tuple[str, ...]
    if isinstance(ingress, str):
        codes, found = np.zeros(rows, np.int32), (ingress,)
        check_name(ingress, "ingress")
    elif _is_integer(ingress):
        if listed is None:
            msg = "ingress holds integers, so nodes= must list the names that they refer to"
            raise BadValueError(msg)
        codes = _integers(ingress, "ingress", np.int32)
        allowed = f"it must be a position in nodes, from 0 to {len(listed) - 1}"
        check_range(codes, "ingress", 0, len(listed) - 1, allowed)
        return codes, listed
    else:
        codes, found = as_names(ingress, "ingress")
    for name in found:
        check_name(name, "ingress: node name")
    return (codes, found) if listed is None else (_recode(codes, found, listed), listed)


def _is_integer(values: Any) -> bool:
    kind = getattr(values, "dtype", None)
    if kind is not None and hasattr(kind, "kind"):
        return kind.kind in "iu" and not hasattr(kind, "categories")
    if type(values).__module__.partition(".")[0] == "pyarrow":
        import pyarrow as pa

        return bool(pa.types.is_integer(values.type))
    if kind is not None:  # polars, torch
        return "int" in str(kind).lower()
    return isinstance(values, Sequence) and len(values) > 0 and isinstance(values[0], Integral)


def _recode(codes: NDArray[np.int32], found: tuple[str, ...], listed: tuple[str, ...]) -> NDArray[np.int32]:
    """Return codes into `listed` for codes into `found`."""
    if found == listed[: len(found)]:
        return codes
    position = {name: index for index, name in enumerate(listed)}
    used = np.bincount(codes, minlength=len(found))
    for code, name in enumerate(found):
        if name not in position and used[code]:
            msg = f"ingress: row {first_row(codes == code)}: there is no node {name!r}; {nearest(name, listed)}"
            raise UnknownNameError(msg)
    return np.array([position.get(name, -1) for name in found] or [0], np.int32)[codes]


def _deadlines(values: Any, rows: int) -> NDArray[np.float64] | None:
    if values is None:
        return None
    if np.isscalar(values):
        time = check_number(values, "deadline_us", above=0.0)
        return frozen(np.full(rows, time))
    array = as_numbers(values, "deadline_us", np.float64)
    _check_length(array, "deadline_us", rows)
    if not (len(array) and array.min() > 0):  # false for NaN
        array = frozen(np.where(np.isnan(array), np.inf, array))
        if np.any(array <= 0):
            row = first_row(array <= 0)
            msg = f"deadline_us: row {row} is {array[row]}; it must be > 0, or null for none"
            raise BadValueError(msg)
    return None if np.isinf(array).all() else array


def _priorities(values: Any, rows: int) -> NDArray[np.int32] | None:
    if values is None:
        return None
    if np.isscalar(values):
        return frozen(np.full(rows, check_integer(values, "priority"), np.int32))
    array = _integers(values, "priority", np.int32)
    _check_length(array, "priority", rows)
    check_range(array, "priority", 0, 2**31 - 1, "a priority is 0 (default), 1 (highest), or larger (lower)")
    return frozen(array)


def _identifiers(values: Any, rows: int) -> Any:
    if values is None:
        return None
    import pyarrow as pa

    try:
        column = values.to_arrow() if type(values).__module__.partition(".")[0] == "polars" else values
        column = pa.array(column) if not isinstance(column, pa.Array | pa.ChunkedArray) else column
        column = one_chunk(column)
        column = column.cast(pa.int64() if pa.types.is_integer(column.type) else pa.string())
    except (pa.ArrowException, TypeError, ValueError) as error:
        msg = f"request_id must be integers or strings: {str(error).splitlines()[0]}"
        raise BadValueError(msg) from error
    _check_length(column, "request_id", rows)
    return column


# ---- files -------------------------------------------------------------------------------------------------


def _check_schema(schema: Any, ignore_extra: bool) -> tuple[tuple[str, ...] | None, list[str]]:
    """Return the nodes that a file lists, None for a foreign file, and the names of its columns to read."""
    metadata = check_metadata((schema.metadata or {}).get(METADATA_KEY), "trace", _OPENERS)
    for name in _COLUMNS[:3]:
        if name not in schema.names:
            found = ", ".join(schema.names[:12]) or "none"
            msg = f"column {name!r} is missing; a trace has arrival_ns, ingress and sample, this file has: {found}"
            raise BadFileError(msg)
    for name in schema.names:
        if name not in _COLUMNS and not ignore_extra:
            msg = f"column {name!r} is not part of a trace; {nearest(name, _COLUMNS)} (ignore_extra=True skips it)"
            raise UnknownNameError(msg)
    nodes = metadata.get("nodes")
    return None if nodes is None else tuple(nodes), [name for name in _COLUMNS if name in schema.names]


def _record_batches(
    path: Path, suffix: str, rows: int, ignore_extra: bool
) -> Iterator[tuple[Any, tuple[str, ...] | None, list[str]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with reading(path, f"a trace ({_KIND[suffix]})"):
        if suffix == ".parquet":
            with pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
                nodes, names = _check_schema(file.schema_arrow, ignore_extra)
                for batch in file.iter_batches(rows, columns=names):
                    batch.validate(full=True)
                    yield batch, nodes, names
            return
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            nodes, names = _check_schema(reader.schema, ignore_extra)
            for index in range(reader.num_record_batches):
                whole = reader.get_batch(index)
                whole.validate(full=True)
                for start in range(0, whole.num_rows, rows):
                    yield whole.slice(start, rows), nodes, names
