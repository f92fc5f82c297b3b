"""Reading and checking what servers say, and their errors; on real servers where they can be made to say it."""

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

import coinfer as ci
from coinfer import service
from coinfer.errors import (
    BadValueError,
    ServerError,
    TimedOutError,
    UnavailableError,
    UnknownNameError,
    UnsupportedError,
)
from coinfer.live.connector import Asking, Facts, ask_of, connect, decode, from_bf16, one, split, to_bf16
from coinfer.live.running import run
from coinfer.network import Deployment, Network, Node
from live_servers import chain, require_triton

TENSORS = {"input": "X", "output": "Y", "form": "probs"}
FACTS = Facts({"X": ("FP32", (-1, 4))}, {"Y": ("FP32", (-1, 3))})
ROWS = np.zeros((5, 4), np.float32)


def deployment(**tensors):
    return Deployment("m", "n", tensors={**TENSORS, **tensors})


def test_bfloat16_rounds_half_to_even_and_widens_exactly():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32)
    values = np.concatenate([bits.view(np.float32), np.float32([0.0, -0.0, np.inf, -np.inf, 3.3e38])])
    values = values[~np.isnan(values)]
    with np.errstate(over="ignore"):
        expected = values.astype(ml_dtypes.bfloat16)
    assert np.array_equal(to_bf16(values), expected.view(np.uint16))
    assert np.array_equal(from_bf16(to_bf16(values)), expected.astype(np.float32))
    assert np.isnan(from_bf16(to_bf16(np.float32([np.nan])))[0])


@pytest.mark.parametrize(
    ("facts", "tensors", "rows", "error", "says"),
    [
        (FACTS, {"input": "Z"}, ROWS, UnknownNameError, "no input 'Z'"),
        (FACTS, {"output": "y"}, ROWS, UnknownNameError, "no output 'y'; known: 'Y'"),
        (FACTS, {}, np.zeros((5, 3), np.float32), BadValueError, r"shape \[any, 4\], but one sample has shape \[3\]"),
        (
            Facts({"X": ("INT32", (-1, 4))}, FACTS.outputs),
            {},
            ROWS,
            BadValueError,
            "is INT32, but the samples are float32",
        ),
        (Facts({"X": ("BYTES", (-1, 4))}, FACTS.outputs), {}, ROWS, UnsupportedError, "of type BYTES"),
        (Facts(FACTS.inputs, {"Y": ("INT64", (-1, 3))}), {}, ROWS, BadValueError, "is INT64; form 'probs' needs"),
        (FACTS, {"form": "label"}, ROWS, BadValueError, "is FP32; form 'label' needs"),
        (
            Facts({**FACTS.inputs, "MASK": ("FP32", (-1, 4))}, FACTS.outputs),
            {},
            ROWS,
            UnsupportedError,
            "also wants input 'MASK'",
        ),
        (FACTS, {"output": {"cat": "C", "dog": "D"}}, ROWS, UnknownNameError, "no output 'C'"),
        (FACTS, {"output": {"cat": "Y"}}, ROWS, BadValueError, r"'Y' has shape \[any, 3\]; an output named for one"),
    ],
)
def test_what_does_not_fit_is_a_sentence(facts, tensors, rows, error, says):
    with pytest.raises(error, match=says):
        ask_of(deployment(**tensors), facts, rows, "m@n at grpc://h:1")


def test_half_precision_inputs_are_converted_once():
    for datatype, width in (("FP16", 2), ("BF16", 2), ("FP32", 4), ("FP64", 8)):
        asking = ask_of(deployment(), Facts({"X": (datatype, (-1, 4))}, FACTS.outputs), ROWS, "m@n")
        view, size = asking.rows(ROWS + 0.5)
        assert size == 4 * width
        assert len(view) == 5 * size


def asked(form="probs", classes=3, confidence=None):
    return Asking("m@n", "m", "", "X", "FP32", (1, 4), form, ("Y",), confidence, classes)


def test_outputs_of_the_wrong_size_or_missing_are_errors():
    with pytest.raises(ServerError, match="holds 2 numbers, not 3"):
        one({"Y": np.zeros(2, np.float32)}, asked())
    with pytest.raises(ServerError, match="lacks output 'Y'; it has 'Z'"):
        one({"Z": np.zeros(3, np.float32)}, asked())
    with pytest.raises(ServerError, match="type BYTES"):
        decode(b"abc", "BYTES")


def test_outputs_named_by_class_make_one_vector():
    parts = Asking("m@n", "m", "", "X", "FP32", (1, 4), "probs", ("A", "B"), None, 2)
    columns = {"B": np.float32([[0.25], [0.5]]), "A": np.float32([[0.75], [0.5]])}
    assert [a.vector.tolist() for a in split(columns, parts, 2)] == [[0.75, 0.25], [0.5, 0.5]]
    with pytest.raises(ServerError, match="'A' holds 3 numbers, not 2"):
        split({**columns, "A": np.zeros(3, np.float32)}, parts, 2)


def test_labels_with_confidence():
    columns = {"Y": np.array([3, 1]), "C": np.array([0.5, 0.25])}
    answers = split(columns, asked("label_confidence", None, "C"), 2)
    assert [(a.label, a.confidence) for a in answers] == [(3, 0.5), (1, 0.25)]


def test_typed_contents_are_read_as_raw_ones_are():
    """tritonclient reads raw contents alone; other servers of the protocol may send typed ones."""
    pytest.importorskip("tritonclient.grpc")
    from tritonclient.grpc import service_pb2 as pb

    async def made():  # a channel belongs to a loop
        return connect(Node("n", 0, triton="grpc://127.0.0.1:9"), "grpc://127.0.0.1:9")

    connection = asyncio.run(made())
    reply = pb.ModelInferResponse()
    tensor = reply.outputs.add(name="Y", datatype="FP32", shape=[1, 3])
    tensor.contents.fp32_contents.extend([0.25, 0.5, 0.25])
    assert connection._read(reply, asked()).vector.tolist() == [0.25, 0.5, 0.25]
    reply.raw_output_contents.append(np.float32([0.5, 0.25, 0.25]).tobytes())
    assert connection._read(reply, asked()).vector.tolist() == [0.5, 0.25, 0.25]
    half = pb.ModelInferResponse()
    half.outputs.add(name="Y", datatype="BF16", shape=[1, 3])
    half.raw_output_contents.append(to_bf16(np.float32([0.5, 0.25, 0.25])).tobytes())
    assert connection._read(half, asked()).vector.tolist() == [0.5, 0.25, 0.25]


def test_nobody_there_is_unavailable_for_every_client():
    pytest.importorskip("tritonclient.grpc")

    async def ask(url):
        connection = connect(Node("n", 0, triton=url), url)
        try:
            with pytest.raises(UnavailableError):
                await connection.describe("m")
        finally:
            await connection.close()

    for scheme in ("grpc", "http"):
        asyncio.run(ask(f"{scheme}://127.0.0.1:9"))


def test_token_and_certificates_are_looked_for_before_anything_is_sent(tmp_path):
    pytest.importorskip("tritonclient.grpc")
    node = Node("n", 0, triton="grpc://127.0.0.1:9", token_env="COINFER_NO_SUCH_TOKEN")
    with pytest.raises(UnsupportedError, match="COINFER_NO_SUCH_TOKEN that holds its token is not set"):
        connect(node, "grpc://127.0.0.1:9")
    node = Node("n", 0, triton="grpcs://127.0.0.1:9", tls={"ca": str(tmp_path / "ca.pem")})
    with pytest.raises(OSError, match=r"node .n.: tls: ca: .*ca\.pem cannot be read: No such file"):
        connect(node, "grpcs://127.0.0.1:9")


def test_importing_coinfer_live_does_not_import_tritonclient():
    code = (
        "import sys, coinfer.live, coinfer.live.connector; print('tritonclient' in sys.modules, 'grpc' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]


@pytest.mark.live
@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_real_server_answers_errs_and_times_out(scheme, tmp_path):
    require_triton()
    from coinfer.live import LocalNetwork, ladder
    from coinfer.live.served_model import probabilities

    network = chain(scheme, pads_ms={"tree": 0.0, "mlp": 0.0, "ensemble": 0.0})
    mlp = network.deployment("mlp@edge")
    apart = {"output": {str(k): f"P{k}" for k in range(10)}, "model": "apart"}
    tree = replace(network.deployment("tree@device"), node="edge", tensors=replace(mlp.tensors, **apart))
    network = type(network)(network.nodes[1:2], (), (), (mlp, tree), control="ingress")
    rows = ladder.images().asked
    expected, by_class = (
        probabilities(rows[:8].astype(np.float64), ladder.arrays(model)).astype(np.float32) for model in ("mlp", "tree")
    )

    async def ask(local):
        url = network.nodes[0].endpoints[0]
        connection = connect(network.nodes[0], url)
        try:
            assert (await connection.server()).startswith("triton 2.")
            facts = await connection.describe("mlp")
            assert facts.inputs["IMAGE"] == ("FP32", (-1, 64))
            asking = ask_of(mlp, facts, rows, "mlp@edge")
            asking.frame = connection.frame(asking)
            view, size = asking.rows(rows)
            answer = await connection.infer(asking, view[:size], 5.0)
            assert np.allclose(answer.vector, expected[0], atol=1e-6)
            many = await connection.infer_many(asking, view[: 8 * size], 8, 5.0)
            assert np.allclose([a.vector for a in many], expected, atol=1e-6)
            named = ask_of(tree, await connection.describe("apart"), rows, "tree@edge")
            named.frame = connection.frame(named)
            answer = await connection.infer(named, view[:size], 5.0)
            assert np.allclose(answer.vector, by_class[0], atol=1e-6)
            many = await connection.infer_many(named, view[: 8 * size], 8, 5.0)
            assert np.allclose([a.vector for a in many], by_class, atol=1e-6)
            local.fault("tree@edge", shape=True)
            with pytest.raises(ServerError, match="output 'P7'"):
                await connection.infer(named, view[:size], 5.0)
            batching = await connection.batching("mlp")
            assert (batching.instances, batching.max_batch, batching.queue_max) == (1, 8, None)
            local.fault("mlp@edge", error=True)
            with pytest.raises(ServerError, match="told to fail"):
                await connection.infer(asking, view[:size], 5.0)
            local.fault("mlp@edge", shape=True)
            with pytest.raises(ServerError, match="holds 7 numbers, not 10"):
                await connection.infer(asking, view[:size], 5.0)
            local.fault("mlp@edge", nan=True)
            assert np.isnan((await connection.infer(asking, view[:size], 5.0)).vector).all()
            local.fault("mlp@edge", sleep_ms=500)
            with pytest.raises(TimedOutError):
                await connection.infer(asking, view[:size], 0.05)
            asking.model = "absent"
            asking.frame = connection.frame(asking)
            with pytest.raises((ServerError, UnavailableError), match="absent"):
                await connection.infer(asking, view[:size], 5.0)
        finally:
            await connection.close()

    with LocalNetwork(network, tmp_path) as local:
        asyncio.run(ask(local))


def test_the_arrays_of_the_ladder_answer_as_scikit_learn_does():
    from coinfer.live import ladder
    from coinfer.live.served_model import probabilities

    images = ladder.images().asked[:300]
    for model in ladder.MODELS:
        ours = probabilities(images.astype(np.float64), ladder.arrays(model))
        theirs = ladder.fitted(model).predict_proba(images)
        assert np.allclose(ours, theirs, atol=1e-5), model


def test_a_padded_model_says_what_its_law_says(tmp_path):
    import json

    from coinfer.live.triton import write_model

    law = service.Linear(5.0, 0.5)
    given = Deployment("tree", "n", service=law, max_batch=4, batch_delay_us=100, preferred_batch=(2, 4), queue_max=9,
                       tensors={**TENSORS})  # fmt: skip
    write_model(tmp_path, given)
    settings = json.loads((tmp_path / "tree/1/settings.json").read_text())
    assert (settings["base_ms"], settings["per_item_ms"]) == (5.0, 0.5)
    config = (tmp_path / "tree/config.pbtxt").read_text()
    for line in ("max_batch_size: 4", "preferred_batch_size: [ 2, 4 ]", "max_queue_size: 9", "microseconds: 100"):
        assert line in config


CA = """
[ca]
default_ca = own
[own]
database = index.txt
serial = serial
new_certs_dir = .
default_md = sha256
policy = any
x509_extensions = names
[any]
commonName = supplied
[names]
subjectAltName = DNS:localhost,IP:127.0.0.1
basicConstraints = critical,CA:TRUE
"""


def certificate(folder, name="server", start="20200101000000Z", end="20990101000000Z"):
    """Make a self-signed certificate for this machine, `name`.pem with `name`.key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    (folder / "ca.cnf").write_text(CA)
    (folder / "index.txt").write_text("")
    (folder / "serial").write_text("01\n")
    new = "req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=localhost"
    request = f"{new} -keyout {name}.key -out csr.pem"
    sign = f"ca -config ca.cnf -selfsign -batch -notext -in csr.pem -keyfile {name}.key -out {name}.pem"
    for command in (request, f"{sign} -startdate {start} -enddate {end}"):
        subprocess.run([openssl, *command.split()], cwd=folder, check=True, capture_output=True)
    return folder / f"{name}.pem", folder / f"{name}.key"


@contextlib.contextmanager
def tls_listener(context, handle):
    """Accept TLS connections on the loopback interface, each handled by a thread of its own; gives the port."""

    def one(connection):
        with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
            handle(secure)

    def serve(listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.mark.live
def test_an_expired_certificate_is_said_before_any_load(tmp_path):
    """Triton's HTTP endpoint speaks no TLS: what ends it stands before the server, as everywhere."""
    require_triton()
    pem, key = certificate(tmp_path, end="20200201000000Z")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    tls = {"grpc_use_ssl": "true", "grpc_server_cert": pem, "grpc_server_key": key}
    with serving(tmp_path, GUARDED, GUARDED_CONFIG, **tls) as server, tls_listener(context, lambda _: None) as port:
        for url in (f"grpcs://localhost:{server.grpc_port}", f"https://localhost:{port}"):
            node = Node("n", 0, triton=url, tls={"ca": str(pem)})
            network = Network((node,), (), (), (deployment(),), control="ingress")
            with pytest.raises(UnavailableError, match=f"m@n at {url} cannot be reached: .*certificate has expired"):
                run(network, ci.Local(), np.zeros((2, 4), np.float32), concurrency=1, out=tmp_path / "run")
            assert not (tmp_path / "run").exists()


@contextlib.contextmanager
def serving(folder, code, config, **options):
    """Start a real server for the model m."""
    from coinfer.live.triton import Server, free_ports

    (folder / "models/m/1").mkdir(parents=True)
    (folder / "models/m/1/model.py").write_text(code)
    (folder / "models/m/config.pbtxt").write_text(config)
    server = Server("n", folder / "models", folder, *free_ports(2),
                    [f"--{name.replace('_', '-')}={value}" for name, value in options.items()])  # fmt: skip
    server.start()
    try:
        yield server
    finally:
        server.stop()


GUARDED = """
import json
import numpy as np
import triton_python_backend_utils as backend

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(json.loads(r.parameters()), backend.get_input_tensor_by_name(r, "X")) for r in requests]

    def answer(self, headers, rows):
        if headers.get("authorization") != "Bearer open sesame" or not headers.get("traceparent", "").startswith("00-"):
            return backend.InferenceResponse([], error=backend.TritonError(f"not let in: {sorted(headers)}"))
        probs = np.tile(np.float32([0.1, 0.2, 0.7]), (len(rows.as_numpy()), 1))
        return backend.InferenceResponse([backend.Tensor("Y", probs)])
"""
GUARDED_CONFIG = """
name: "m"
backend: "python"
max_batch_size: 8
input [ { name: "X", data_type: TYPE_FP32, dims: [ 4 ] } ]
output [ { name: "Y", data_type: TYPE_FP32, dims: [ 3 ] } ]
"""


@pytest.mark.live
def test_certificates_token_and_traceparent_reach_a_real_server(tmp_path, monkeypatch):
    """A model that answers nobody without token and trace, on a server that wants a client's certificate."""
    require_triton()
    from coinfer.live import Settings

    pem, key = certificate(tmp_path)
    own_pem, own_key = certificate(tmp_path, "client")
    tls = {"use_ssl": "true", "use_ssl_mutual": "true", "server_cert": pem, "server_key": key, "root_cert": own_pem}
    options = {f"grpc_{name}": value for name, value in tls.items()}
    options |= {f"{protocol}_header_forward_pattern": ".*" for protocol in ("grpc", "http")}
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=own_pem)
    context.load_cert_chain(pem, key)
    context.verify_mode = ssl.CERT_REQUIRED

    def relay(secure):
        """Triton's HTTP endpoint speaks no TLS: what ends it stands before the server, as everywhere."""
        with socket.create_connection(("127.0.0.1", server.http_port)) as plain:
            back = threading.Thread(target=pump, args=(plain, secure), daemon=True)
            back.start()
            pump(secure, plain)
            back.join(5)

    def pump(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def answers(url, out, *, traceparent=True, **tls):
        node = Node("n", 0, triton=url, token_env="COINFER_TEST_TOKEN", tls={"ca": str(pem), **tls})
        network = Network((node,), (), (), (deployment(),), control="ingress")
        result = run(network, ci.Local(), np.zeros((20, 4), np.float32), concurrency=4, out=tmp_path / out, warm_up=0,
                     settings=Settings(traceparent=traceparent))  # fmt: skip
        return {name: n for name, n in result.summary.status.items() if n}

    monkeypatch.setenv("COINFER_TEST_TOKEN", "open sesame")
    own = {"cert": str(own_pem), "key": str(own_key)}
    with serving(tmp_path, GUARDED, GUARDED_CONFIG, **options) as server, tls_listener(context, relay) as port:
        for scheme, at in (("grpcs", server.grpc_port), ("https", port)):
            url = f"{scheme}://localhost:{at}"
            assert answers(url, scheme, **own) == {"answered": 20}
            assert answers(url, f"{scheme}-untraced", traceparent=False, **own) == {"failed": 20}
            with pytest.raises(UnavailableError, match=f"m@n at {url} cannot be reached"):
                answers(url, f"{scheme}-none")
            assert not (tmp_path / f"{scheme}-none").exists()


FORMS = """
import numpy as np
import triton_python_backend_utils as backend

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(backend.get_input_tensor_by_name(r, "X").as_numpy()) for r in requests]

    def answer(self, rows):
        best = rows[:, :3].argmax(axis=1)[:, None]
        given = {"LOGITS": rows[:, :3], "LABEL": best.astype(np.int64), "SURE": rows.max(axis=1)[:, None]}
        return backend.InferenceResponse([backend.Tensor(name, np.ascontiguousarray(v)) for name, v in given.items()])
"""
FORMS_CONFIG = """
name: "m"
backend: "python"
max_batch_size: 8
input [ { name: "X", data_type: TYPE_FP16, dims: [ 4 ] } ]
output [
  { name: "LOGITS", data_type: TYPE_FP16, dims: [ 3 ] },
  { name: "LABEL", data_type: TYPE_INT64, dims: [ 1 ] },
  { name: "SURE", data_type: TYPE_FP16, dims: [ 1 ] }
]
"""


@pytest.mark.live
def test_every_form_of_answer_comes_from_a_real_server_in_half_precision(tmp_path):
    require_triton()
    from coinfer.live import collect

    rows = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    half = rows.astype(np.float16)
    best = half[:, :3].argmax(axis=1)
    forms = {
        "logits": {"output": "LOGITS"},
        "label_confidence": {"output": "LABEL", "confidence": "SURE"},
        "label": {"output": "LABEL"},
    }
    with serving(tmp_path, FORMS, FORMS_CONFIG) as server:
        for scheme, port in (("grpc", server.grpc_port), ("http", server.http_port)):
            deployments = [
                Deployment(form, "n", tensors={"input": "X", "form": form, "model": "m", **tensors})
                for form, tensors in forms.items()
            ]
            node = Node("n", 0, triton=f"{scheme}://127.0.0.1:{port}")
            network = Network((node,), (), (), deployments, control="ingress")
            said = collect(network, rows, labels=best)
            assert np.array_equal(said["logits"].vector, half[:, :3].astype(np.float32))
            assert np.array_equal(said["label_confidence"].confidence, half.max(axis=1).astype(np.float32))
            for form in forms:
                assert np.array_equal(said[form].answers(), best)
            result = run(network, ci.Ensemble("vote"), rows, labels=best, concurrency=4, out=tmp_path / scheme)
            assert (result.summary.status["answered"], result.redecide().identical) == (40, 40)
            assert result.summary.accuracy == 1.0
            assert result.against(said).largest["logits"] == 0.0
