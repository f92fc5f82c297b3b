"""Talking to one inference server, over gRPC or HTTP, in the Open Inference Protocol that Triton speaks.

What is asked is known before the first request: names, shapes and types come from the server's own metadata and are
checked once, so that a request is a prebuilt frame with one row of bytes appended. (A serialised Protocol Buffers
message may be continued by appending fields; building it anew for each request costs more than sending it.)

What comes back is checked always, because a server can be replaced while we talk to it. Both ways of carrying a
tensor are read, typed contents and raw ones; `tritonclient` reads only the latter.

Whatever a client library raises becomes one of four errors of `coinfer.errors`: `UnavailableError`, `QueueFullError`,
`TimedOutError`, `ServerError`.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from coinfer.errors import (
    BadFileError,
    BadValueError,
    LiveError,
    QueueFullError,
    ServerError,
    TimedOutError,
    UnavailableError,
    UnknownNameError,
    UnsupportedError,
    nearest,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer.network import Deployment, Node

__all__ = ["Answer", "Asking", "Batching", "Connection", "Facts", "connect", "from_bf16", "to_bf16"]

Headers = tuple[tuple[str, str], ...]

_NUMPY: Final[dict[str, Any]] = {
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BF16": np.uint16,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "BOOL": np.bool_,
}
_FLOATS: Final = ("FP16", "BF16", "FP32", "FP64")
_WHOLE: Final = tuple(name for name in _NUMPY if "INT" in name)
_VECTORS: Final = ("logits", "probs")
_MESSAGE_BYTES_MAX: Final = 2**31 - 1
_DESCRIBE_S: Final = 5.0


def to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round float32 to the bits of bfloat16, half to even; NaN stays NaN.

    Examples
    --------
    >>> from_bf16(to_bf16(np.array([1.0, 0.1, np.inf], np.float32)))
    array([1.        , 0.10009766,        inf], dtype=float32)
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded.astype(np.uint16))


def from_bf16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Widen the bits of bfloat16 to float32, exactly."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says about one model: (datatype, shape) by tensor name; -1 is any size."""

    inputs: Mapping[str, tuple[str, tuple[int, ...]]]
    outputs: Mapping[str, tuple[str, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class Batching:
    """How a server serves one model; the words of a deployment in a network file."""

    instances: int
    max_batch: int
    preferred_batch: tuple[int, ...]
    batch_delay_us: float
    queue_max: int | None


@dataclass(slots=True)
class Answer:
    """One row of one model: float32 vector, or label with or without confidence."""

    vector: NDArray[np.float32] | None = None
    label: int = -1
    confidence: float = float("nan")

    @property
    def there(self) -> bool:
        """Whether it is an answer: a vector with a NaN is none."""
        return self.label >= 0 if self.vector is None else not math.isnan(self.vector.sum())


@dataclass(slots=True)
class Asking:
    """How one deployment is asked on one connection, checked against the server's metadata.

    Attributes
    ----------
    place : str
        Deployment and endpoint, for messages.
    datatype : str
        The input tensor's.
    shape : tuple of int
        Of one request, its batch axis of 1 included if the model has one.
    outputs : tuple of str
        The tensor with the answer, or those of its numbers, one per class.
    classes : int or None
        Width of the answer, for vectors.
    """

    place: str
    model: str
    version: str
    input: str
    datatype: str
    shape: tuple[int, ...]
    form: str
    outputs: tuple[str, ...]
    confidence: str | None
    classes: int | None
    frame: Any = field(default=None, repr=False)

    @property
    def wanted(self) -> tuple[str, ...]:
        """Names of the output tensors to ask for."""
        return self.outputs if self.confidence is None else (*self.outputs, self.confidence)

    def rows(self, inputs: NDArray[Any]) -> tuple[memoryview, int]:
        """Convert the samples to what goes over the wire: all bytes, and bytes per row."""
        values = np.ascontiguousarray(inputs)
        if self.datatype == "BF16":
            values = to_bf16(values.astype(np.float32))
        values = np.ascontiguousarray(values, _NUMPY[self.datatype])
        size = values.nbytes // len(values) if len(values) else 0
        return values.data.cast("B") if values.size else memoryview(b""), size


def ask_of(deployment: Deployment, facts: Facts, inputs: NDArray[Any], place: str) -> Asking:
    """Check a deployment's tensors against what its server says and what the samples are.

    Raises
    ------
    UnknownNameError
        If the server's model has no tensor of that name.
    BadValueError
        If shapes or types do not fit.
    """
    tensors = deployment.tensors
    if tensors is None:
        msg = (
            f"{place}: the network does not say how it is asked; add "
            'tensors = {input = "...", output = "...", form = "probs"} to the deployment'
        )
        raise BadValueError(msg)
    if tensors.input not in facts.inputs:
        msg = f"{place}: the model has no input {tensors.input!r}; {nearest(tensors.input, facts.inputs)}"
        raise UnknownNameError(msg)
    others = [name for name in facts.inputs if name != tensors.input]
    if others:
        msg = f"{place}: the model also wants input {others[0]!r}; only models with one input can be asked"
        raise UnsupportedError(msg)
    datatype, declared = facts.inputs[tensors.input]
    if datatype not in _NUMPY:
        msg = f"{place}: input {tensors.input!r} is of type {datatype}; allowed are {', '.join(_NUMPY)}"
        raise UnsupportedError(msg)
    kind = inputs.dtype.kind
    if kind not in "fiub" or (kind == "f" and datatype not in _FLOATS):
        msg = f"{place}: input {tensors.input!r} is {datatype}, but the samples are {inputs.dtype}"
        raise BadValueError(msg)
    row = tuple(int(n) for n in inputs.shape[1:])
    shape = next((s for s in ((1, *row), row) if _fits(s, declared)), None)
    if shape is None:
        msg = (
            f"{place}: input {tensors.input!r} has shape {_shown(declared)}, but one sample has shape {_shown(row)} "
            f"({_shown((1, *row))} with a batch axis)"
        )
        raise BadValueError(msg)
    for name in (*tensors.outputs, *([] if tensors.confidence is None else [tensors.confidence])):
        if name not in facts.outputs:
            msg = f"{place}: the model has no output {name!r}; {nearest(name, facts.outputs)}"
            raise UnknownNameError(msg)
    classes = None if tensors.classes is None else len(tensors.classes)
    whole = tensors.form in _VECTORS and classes is None
    allowed = _FLOATS if tensors.form in _VECTORS else _WHOLE
    for name in tensors.outputs:
        out_type, out_shape = facts.outputs[name]
        if out_type not in allowed:
            msg = f"{place}: output {name!r} is {out_type}; form {tensors.form!r} needs {' or '.join(allowed)}"
            raise BadValueError(msg)
        if whole and not out_shape:
            msg = f"{place}: output {name!r} is a single number; form {tensors.form!r} needs one per class"
            raise BadValueError(msg)
        if whole:
            classes = out_shape[-1] if out_shape[-1] > 0 else None
        elif any(n > 1 for n in out_shape):
            form = f"form {tensors.form!r}" if tensors.classes is None else "an output named for one class"
            msg = f"{place}: output {name!r} has shape {_shown(out_shape)}; {form} needs one number"
            raise BadValueError(msg)
    return Asking(
        place,
        tensors.model or deployment.model,
        tensors.version or "",
        tensors.input,
        datatype,
        shape,
        tensors.form,
        tensors.outputs,
        tensors.confidence,
        classes,
    )


def _fits(shape: tuple[int, ...], declared: tuple[int, ...]) -> bool:
    return len(shape) == len(declared) and all(d in (-1, n) for n, d in zip(shape, declared, strict=True))


def _shown(shape: Sequence[int]) -> str:
    return "[" + ", ".join("any" if n < 0 else str(n) for n in shape) + "]"


class Connection:
    """One long-lived connection to one server; one per endpoint and process."""

    def __init__(self, url: str, headers: Headers) -> None:
        self.url = url
        self.headers = headers

    async def describe(self, model: str, version: str = "") -> Facts:
        """Ask the server what a model takes and gives."""
        raise NotImplementedError

    async def server(self) -> str:
        """Ask the server what it is: name and version."""
        raise NotImplementedError

    async def batching(self, model: str, version: str = "") -> Batching:
        """Ask the server how it batches: Triton's own extension of the protocol."""
        raise NotImplementedError

    def frame(self, asking: Asking) -> Any:
        """Prebuild all of a request that does not depend on the sample."""
        raise NotImplementedError

    async def infer(self, asking: Asking, row: memoryview, timeout_s: float, headers: Headers = ()) -> Answer:
        """Ask about one row."""
        raise NotImplementedError

    async def infer_many(
        self, asking: Asking, rows: memoryview, count: int, timeout_s: float, headers: Headers = ()
    ) -> list[Answer]:
        """Ask about several rows in one request, for models that have a batch axis."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close it."""
        raise NotImplementedError


def connect(node: Node, url: str) -> Connection:
    """Open a connection (lazily: nothing is sent) to one endpoint of a node.

    Raises
    ------
    UnsupportedError
        If `tritonclient` is not installed, or the token's environment variable is not set.
    BadFileError
        If a certificate cannot be read.
    """
    headers: Headers = ()
    if node.token_env is not None:
        token = os.environ.get(node.token_env)
        if not token:
            msg = f"node {node.name!r}: the environment variable {node.token_env} that holds its token is not set"
            raise UnsupportedError(msg)
        headers = (("authorization", f"Bearer {token}"),)
    scheme, _, address = url.partition("://")
    pem = {key: _read_pem(node.name, key, file) for key, file in (node.tls or {}).items()}
    if scheme in ("grpc", "grpcs"):
        return _Grpc(url, address, headers, pem if scheme == "grpcs" else None)
    return _Http(url, address, headers, node.tls or {} if scheme == "https" else None)


def _read_pem(node: str, key: str, file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        msg = f"node {node!r}: tls: {key}: {file} cannot be read: {os.strerror(error.errno or 0)}"
        raise BadFileError(msg) from error


def _client(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        msg = f"live runs need tritonclient, which is not installed ({error}); pip install 'coinfer[triton]'"
        raise UnsupportedError(msg) from error


# gRPC -------------------------------------------------------------------------------------------------------


class _Grpc(Connection):
    def __init__(self, url: str, address: str, headers: Headers, pem: Mapping[str, bytes] | None) -> None:
        super().__init__(url, headers)
        self._pb = _client("tritonclient.grpc.service_pb2")
        grpc = _client("grpc")
        aio = _client("grpc.aio")
        self._error = aio.AioRpcError
        self._code = grpc.StatusCode
        options = [
            ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX),
            ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
            # Without these a server that was away for a while is tried again after two minutes only.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
            # An idle connection through a middlebox dies silently; Triton allows a ping every five minutes.
            ("grpc.keepalive_time_ms", 310_000),
            # Two connections in one process may share a channel otherwise, and with it one fate.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if pem is None:
            self._channel = aio.insecure_channel(address, options)
        else:
            credentials = grpc.ssl_channel_credentials(pem.get("ca"), pem.get("key"), pem.get("cert"))
            self._channel = aio.secure_channel(address, credentials, options)
        self._infer = self._channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        self._parse = self._pb.ModelInferResponse.FromString

    async def _ask(self, method: str, request: Any, response: Any) -> Any:
        call = self._channel.unary_unary(
            f"/inference.GRPCInferenceService/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        try:
            return await call(request, timeout=_DESCRIBE_S, metadata=self.headers)
        except self._error as error:
            self._raise(error, self.url)

    async def server(self) -> str:
        said = await self._ask("ServerMetadata", self._pb.ServerMetadataRequest(), self._pb.ServerMetadataResponse)
        return f"{said.name} {said.version}"

    async def describe(self, model: str, version: str = "") -> Facts:
        request = self._pb.ModelMetadataRequest(name=model, version=version)
        said = await self._ask("ModelMetadata", request, self._pb.ModelMetadataResponse)
        return Facts(
            {t.name: (t.datatype, tuple(t.shape)) for t in said.inputs},
            {t.name: (t.datatype, tuple(t.shape)) for t in said.outputs},
        )

    async def batching(self, model: str, version: str = "") -> Batching:
        request = self._pb.ModelConfigRequest(name=model, version=version)
        said = (await self._ask("ModelConfig", request, self._pb.ModelConfigResponse)).config
        dynamic = said.dynamic_batching if said.HasField("dynamic_batching") else None
        return Batching(
            sum(group.count for group in said.instance_group) or 1,
            max(said.max_batch_size, 1) if dynamic is not None else 1,
            () if dynamic is None else tuple(dynamic.preferred_batch_size),
            0.0 if dynamic is None else float(dynamic.max_queue_delay_microseconds),
            None if dynamic is None else dynamic.default_queue_policy.max_queue_size or None,
        )

    def frame(self, asking: Asking) -> bytes:
        return self._frame(asking, asking.shape)

    def _frame(self, asking: Asking, shape: Sequence[int]) -> bytes:
        request = self._pb.ModelInferRequest(model_name=asking.model, model_version=asking.version)
        tensor = request.inputs.add(name=asking.input, datatype=asking.datatype)
        tensor.shape.extend(shape)
        for name in asking.wanted:
            request.outputs.add(name=name)
        serialised: bytes = request.SerializeToString()
        return serialised + b"\x3a"  # field 7, raw_input_contents: its length and bytes follow

    async def infer(self, asking: Asking, row: memoryview, timeout_s: float, headers: Headers = ()) -> Answer:
        message = b"".join((asking.frame, _varint(len(row)), row))
        try:
            reply = await self._infer(message, timeout=timeout_s, metadata=self.headers + headers)
        except self._error as error:
            self._raise(error, asking.place)
        try:
            return self._read(self._parse(reply), asking)
        except LiveError:
            raise
        except Exception as error:  # whatever a foreign server sent
            msg = f"{asking.place}: the answer cannot be read: {type(error).__name__}: {error}"
            raise ServerError(msg) from error

    async def infer_many(
        self, asking: Asking, rows: memoryview, count: int, timeout_s: float, headers: Headers = ()
    ) -> list[Answer]:
        frame = self._frame(asking, (count, *asking.shape[1:]))
        message = b"".join((frame, _varint(len(rows)), rows))
        try:
            reply = self._parse(await self._infer(message, timeout=timeout_s, metadata=self.headers + headers))
        except self._error as error:
            self._raise(error, asking.place)
        columns = {t.name: self._values(reply, at) for at, t in enumerate(reply.outputs)}
        return split(columns, asking, count)

    def _read(self, reply: Any, asking: Asking) -> Answer:
        outputs = reply.outputs
        raw = reply.raw_output_contents
        if len(outputs) == 1 and len(raw) == 1 and asking.classes is not None:  # what all but every answer is
            tensor = outputs[0]
            if tensor.datatype == "FP32" and (tensor.name,) == asking.outputs:
                vector = np.frombuffer(raw[0], np.float32)
                if len(vector) == asking.classes:
                    return Answer(vector)
        columns = {t.name: self._values(reply, at) for at, t in enumerate(outputs)}
        return one(columns, asking)

    def _values(self, reply: Any, at: int) -> NDArray[Any]:
        tensor = reply.outputs[at]
        if reply.raw_output_contents:
            return decode(reply.raw_output_contents[at], tensor.datatype)
        contents = tensor.contents
        by_type = {
            "FP32": contents.fp32_contents,
            "FP64": contents.fp64_contents,
            "INT64": contents.int64_contents,
            "UINT64": contents.uint64_contents,
            "BOOL": contents.bool_contents,
        }
        whole = contents.uint_contents if tensor.datatype.startswith("U") else contents.int_contents
        return np.array(by_type.get(tensor.datatype, whole), _NUMPY[tensor.datatype])

    def _raise(self, error: Any, place: str) -> NoReturn:
        code, said = error.code(), (error.details() or "").strip()
        kind: type[LiveError] = ServerError
        if code in (self._code.UNAVAILABLE, self._code.CANCELLED):
            kind = QueueFullError if "maximum queue size" in said else UnavailableError
        elif code == self._code.RESOURCE_EXHAUSTED:
            kind = QueueFullError
        elif code == self._code.DEADLINE_EXCEEDED:
            kind = TimedOutError
        msg = f"{place}: {code.name}: {said}"
        raise kind(msg) from error

    async def close(self) -> None:
        await self._channel.close()


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


# HTTP -------------------------------------------------------------------------------------------------------


class _Http(Connection):
    def __init__(self, url: str, address: str, headers: Headers, tls: Mapping[str, str] | None) -> None:
        super().__init__(url, headers)
        self._sync = _client("tritonclient.http")
        self._module = _client("tritonclient.http.aio")
        self._aiohttp = _client("aiohttp")
        self._error = _client("tritonclient.utils").InferenceServerException
        self._address = address
        self._tls = tls
        self._made: Any = None

    def _open(self) -> Any:
        """Give the client; aiohttp wants to be made inside the running loop."""
        if self._made is None:
            context: Any = None
            if self._tls is not None:
                import ssl

                context = ssl.create_default_context(cafile=self._tls.get("ca"))
                if "cert" in self._tls:
                    context.load_cert_chain(self._tls["cert"], self._tls["key"])
            self._made = self._module.InferenceServerClient(
                self._address, conn_limit=1024, ssl=self._tls is not None, ssl_context=context
            )
        return self._made

    async def _ask(self, call: Callable[[], Any], timeout_s: float, place: str) -> Any:
        """Run a call of the client, which has no time limit of its own, and normalise what it raises."""
        try:
            async with asyncio.timeout(timeout_s):
                return await call()
        except TimeoutError as error:
            msg = f"{place}: no answer in {timeout_s:.3g} s"
            raise TimedOutError(msg) from error
        except self._error as error:
            status, said = str(error.status() or ""), str(error.message())
            kind: type[LiveError] = ServerError
            if status == "503":
                kind = QueueFullError if "maximum queue size" in said else UnavailableError
            elif status == "429":
                kind = QueueFullError
            msg = f"{place}: HTTP {status or 'error'}: {said}"
            raise kind(msg) from error
        except (self._aiohttp.ClientError, OSError) as error:
            msg = f"{place}: {error or type(error).__name__}"
            raise UnavailableError(msg) from error

    async def server(self) -> str:
        said = await self._ask(lambda: self._open().get_server_metadata(self._dict(())), _DESCRIBE_S, self.url)
        return f"{said.get('name')} {said.get('version')}"

    async def describe(self, model: str, version: str = "") -> Facts:
        said = await self._ask(
            lambda: self._open().get_model_metadata(model, version, self._dict(())), _DESCRIBE_S, self.url
        )

        def tensors(key: str) -> dict[str, tuple[str, tuple[int, ...]]]:
            return {t["name"]: (t["datatype"], tuple(int(n) for n in t["shape"])) for t in said.get(key, ())}

        return Facts(tensors("inputs"), tensors("outputs"))

    async def batching(self, model: str, version: str = "") -> Batching:
        said = await self._ask(
            lambda: self._open().get_model_config(model, version, self._dict(())), _DESCRIBE_S, self.url
        )
        dynamic = said.get("dynamic_batching")
        queue = (dynamic or {}).get("default_queue_policy", {})
        return Batching(
            sum(int(group.get("count", 1)) for group in said.get("instance_group", ())) or 1,
            max(int(said.get("max_batch_size", 1)), 1) if dynamic is not None else 1,
            tuple(int(n) for n in (dynamic or {}).get("preferred_batch_size", ())),
            float((dynamic or {}).get("max_queue_delay_microseconds", 0)),
            int(queue.get("max_queue_size", 0)) or None,
        )

    def frame(self, asking: Asking) -> Any:
        return [self._sync.InferRequestedOutput(name, binary_data=True) for name in asking.wanted]

    def _dict(self, headers: Headers) -> dict[str, str]:
        return dict(self.headers + headers)

    async def _columns(
        self, asking: Asking, rows: memoryview, shape: Sequence[int], timeout_s: float, headers: Headers
    ) -> dict[str, NDArray[Any]]:
        tensor = self._sync.InferInput(asking.input, list(shape), asking.datatype)
        tensor._raw_data = bytes(rows)
        tensor._parameters["binary_data_size"] = len(rows)

        def call() -> Any:
            return self._open().infer(
                asking.model, [tensor], asking.version, outputs=asking.frame, headers=self._dict(headers)
            )

        result = await self._ask(call, timeout_s, asking.place)
        columns = {}
        for said in result.get_response().get("outputs", ()):
            if "data" in said:
                columns[said["name"]] = np.array(said["data"], _NUMPY[said["datatype"]])
                continue
            values = result.as_numpy(said["name"])
            # The client hands bfloat16 out as ml_dtypes or, before, as float32.
            columns[said["name"]] = values.astype(np.float32) if said["datatype"] == "BF16" else values
        return columns

    async def infer(self, asking: Asking, row: memoryview, timeout_s: float, headers: Headers = ()) -> Answer:
        return one(await self._columns(asking, row, asking.shape, timeout_s, headers), asking)

    async def infer_many(
        self, asking: Asking, rows: memoryview, count: int, timeout_s: float, headers: Headers = ()
    ) -> list[Answer]:
        shape = (count, *asking.shape[1:])
        return split(await self._columns(asking, rows, shape, timeout_s, headers), asking, count)

    async def close(self) -> None:
        if self._made is not None:
            await self._made.close()
            self._made = None


# Reading answers --------------------------------------------------------------------------------------------


def decode(raw: bytes, datatype: str) -> NDArray[Any]:
    """Read the bytes of a tensor; half precision becomes float32, exactly."""
    if datatype not in _NUMPY:
        msg = f"an output of type {datatype} cannot be read; allowed are {', '.join(_NUMPY)}"
        raise ServerError(msg)
    values = np.frombuffer(raw, _NUMPY[datatype])
    return from_bf16(values) if datatype == "BF16" else values


def one(columns: Mapping[str, NDArray[Any]], asking: Asking) -> Answer:
    """Read the answer about one row."""
    return split(columns, asking, 1)[0]


def split(columns: Mapping[str, NDArray[Any]], asking: Asking, count: int) -> list[Answer]:
    """Read the answers about `count` rows.

    Raises
    ------
    ServerError
        If an output is missing or has another size than promised.
    """
    for name in asking.wanted:
        if name not in columns:
            msg = f"{asking.place}: the answer lacks output {name!r}; it has {', '.join(map(repr, columns)) or 'none'}"
            raise ServerError(msg)
    vector = asking.form in _VECTORS
    parts = []
    for name in asking.wanted:
        values = columns[name]
        width = (asking.classes or values.size // count) if vector and len(asking.outputs) == 1 else 1
        if values.size != width * count or width == 0:
            msg = f"{asking.place}: output {name!r} holds {values.size} numbers, not {max(width, 1) * count}"
            raise ServerError(msg)
        parts.append(values.reshape(count, width))
    if vector:
        vectors = np.ascontiguousarray(parts[0] if len(parts) == 1 else np.hstack(parts), np.float32)
        return [Answer(row) for row in vectors]
    labels = [int(v) for v in parts[0][:, 0]]
    if asking.confidence is None:
        return [Answer(None, label) for label in labels]
    sure = parts[1][:, 0].astype(np.float32)
    return [Answer(None, label, float(c)) for label, c in zip(labels, sure, strict=True)]
