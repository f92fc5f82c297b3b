"""The network, and its file both ways."""

from __future__ import annotations

import dataclasses
import pickle
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coinfer import BadValueError, Deployment, Link, Model, Network, Node, UnknownNameError, service
from coinfer.network import Tensors

FILE = """\
control = "ingress"

[[node]]
name = "phone"
tier = 0

[[node]]
name = "edge"
tier = 1
triton = "127.0.0.1:8001"

[[link]]
between = ["phone", "edge"]
delay_ms = 10
jitter_ms = 2
bandwidth_mbps = 50
price_usd_per_mb = 1e-5

[[model]]
name = "small"
classes = ["cat", "dog", "unknown"]
request_kb = 30
abstain = ["unknown"]

[[model]]
name = "large"

[[deployment]]
model = "small"
node = "phone"
service = {law = "measured"}

[[deployment]]
model = "large"
node = "edge"
instances = 2
max_batch = 8
preferred_batch = [8, 4]
batch_delay_us = 500
queue_max = 100
price_usd = 1e-4
service = {law = "linear", base_ms = 2, per_item_ms = 0.3}
tensors = {input = "IN", output = "OUT", form = "logits"}
"""


def test_a_file_reads_as_the_objects_it_describes(tmp_path: Path) -> None:
    path = tmp_path / "network.toml"
    path.write_text(FILE)
    network = Network.open(path)
    assert network == Network(
        nodes=[Node("phone", 0), Node("edge", 1, triton="127.0.0.1:8001")],
        links=[
            Link(("phone", "edge"), delay_ms=10, jitter_ms=2, bandwidth_mbps=50, price_usd_per_mb=1e-5),
        ],
        models=[
            Model("small", classes=["cat", "dog", "unknown"], request_kb=30, abstain=["unknown"]),
            Model("large"),
        ],
        deployments=[
            Deployment("small", "phone", service=service.Measured()),
            Deployment(
                "large",
                "edge",
                instances=2,
                max_batch=8,
                preferred_batch=[4, 8],
                batch_delay_us=500,
                queue_max=100,
                price_usd=1e-4,
                service=service.Linear(2, 0.3),
                tensors={"input": "IN", "output": "OUT", "form": "logits"},
            ),
        ],
        control="ingress",
    )
    assert network.ingress == ("phone",)
    assert network.tiers == (0, 1)
    assert network.deployment("large@edge").service_ms_mean == 2.3
    assert pickle.loads(pickle.dumps(network)) == network


def test_the_example_of_the_documentation_is_a_network(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    (tmp_path / "n.toml").write_text(page.partition("```toml\n")[2].partition("```")[0])
    network = Network.open(tmp_path / "n.toml")
    assert network.deployment("large@edge").tensors == Tensors("IMAGE", "LOGITS", "logits")
    documented = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `") and "_ms`" in line}
    assert {"constant", "linear", "exponential", "lognormal", "gamma"} <= documented


def test_look_ups_name_the_nearest() -> None:
    network = Network.chain({"device": "small", "cloud": "large"}, delay_ms=10)
    assert network.node("cloud").tier == 1
    assert network.model("large").name == "large"
    with pytest.raises(UnknownNameError, match="no node 'clod'; did you mean 'cloud'"):
        network.node("clod")
    with pytest.raises(UnknownNameError, match="no deployment 'large@clod'; did you mean 'large@cloud'"):
        network.deployment("large@clod")
    with pytest.raises(UnknownNameError, match="no model 'smal'; did you mean 'small'"):
        network.model("smal")


def test_ingress_nodes_are_the_lowest_tier_unless_they_say_otherwise() -> None:
    nodes = [Node("a", 1), Node("b", 1, ingress=False), Node("c", 2, ingress=True), Node("d", 2)]
    assert Network(nodes, [], [], [Deployment("m", "a")]).ingress == ("a", "c")


def test_models_are_implied_only_if_none_is_declared() -> None:
    deployments = [Deployment("m", "a"), Deployment("n", "a")]
    network = Network([Node("a", 0)], [], [], deployments)
    assert network.models == (Model("m"), Model("n"))
    with pytest.raises(UnknownNameError, match=r"deployment 'n@a': there is no model 'n'.*declare all models or none"):
        Network([Node("a", 0)], [], [Model("m")], deployments)


def test_outputs_named_by_class_name_the_classes() -> None:
    tensors = Tensors("in", {"cat": "P_CAT", "dog": "P_DOG"}, "probs")
    deployments = [Deployment("m", "a", tensors=tensors)]
    assert Network([Node("a", 0)], [], [], deployments).model("m").classes == ("cat", "dog")
    with pytest.raises(BadValueError, match=r"for the classes cat, dog, but the model has dog, cat, in this order"):
        Network([Node("a", 0)], [], [Model("m", classes=["dog", "cat"])], deployments)
    with pytest.raises(BadValueError, match="named by class are for form 'logits' or 'probs', not 'label'"):
        Tensors("in", {"cat": "P_CAT"}, "label")
    with pytest.raises(BadValueError, match="output must name a tensor, or one for each class"):
        Tensors("in", {}, "probs")


def test_a_link_can_be_replaced_and_shows_how_to_build_it() -> None:
    link = Link(from_="a", to="b", delay_ms=3)
    assert dataclasses.replace(link, delay_ms=4.0) == Link(from_="a", to="b", delay_ms=4)
    assert repr(link) == "Link(from_='a', to='b', delay_ms=3.0)"
    assert eval(repr(link)) == link
    both = Link(("a", "b"), delay_ms=0, bandwidth_mbps=10)
    assert eval(repr(both)) == both
    assert both != Link(from_="a", to="b", delay_ms=0, bandwidth_mbps=10)
    with pytest.raises(AttributeError):
        link.delay_ms = 5.0  # type: ignore[misc]


def test_parallel_links_are_refused_per_direction() -> None:
    nodes, deployments = [Node("a", 0), Node("b", 0)], [Deployment("m", "a")]
    there, back = Link(from_="a", to="b", delay_ms=1), Link(from_="b", to="a", delay_ms=2)
    Network(nodes, [there, back], [], deployments)
    for more in (Link(("b", "a"), delay_ms=1), there):
        with pytest.raises(BadValueError, match="already a link"):
            Network(nodes, [there, more], [], deployments)
    with pytest.raises(BadValueError, match="already a link"):
        Network(nodes, [Link(("a", "b"), delay_ms=1), back], [], deployments)


def test_chain_takes_laws_numbers_and_one_value_for_all() -> None:
    network = Network.chain(
        {"d": "m", "e": "m", "c": "n"},
        delay_ms=[10, 40],
        price_usd=[0, 0, 1e-4],
        service_ms=[2, service.Gamma(5, 0.5), 20],
        instances=[1, 2, 8],
        request_kb=3,
        control="ingress",
    )
    assert [n.tier for n in network.nodes] == [0, 1, 2]
    assert [link.delay_ms for link in network.links] == [10, 40]
    assert network.models == (Model("m", request_kb=3), Model("n", request_kb=3))
    assert [d.service for d in network.deployments] == [
        service.Constant(2),
        service.Gamma(5, 0.5),
        service.Constant(20),
    ]
    assert Network.chain({"only": "m"}, delay_ms=[]).links == ()
    with pytest.raises(BadValueError, match="delay_ms must have one value per link, 1 in all, not 2"):
        Network.chain({"d": "m", "c": "n"}, delay_ms=[10, 40])


# Names with what TOML must escape; numbers of every size.
names = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="@"), min_size=1, max_size=8)
amounts = st.floats(0, 1e9, allow_nan=False) | st.just(1e-300) | st.integers(0, 10**6)
positive = st.floats(1e-9, 1e9)
laws = st.one_of(
    st.builds(service.Constant, amounts),
    st.builds(service.Linear, amounts, amounts),
    st.builds(service.Exponential, amounts),
    st.builds(service.LogNormal, amounts, positive),
    st.builds(service.Gamma, amounts, positive),
)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    node_names = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    nodes = [
        Node(
            name,
            draw(st.integers(0, 3)),
            triton=draw(st.none() | st.just("host:8001")),
            ingress=draw(st.none() | st.just(True)),
        )
        for name in node_names
    ]
    links = []
    for i, b in enumerate(node_names[1:]):
        a = draw(st.sampled_from(node_names[: i + 1]))
        values = {
            "delay_ms": draw(amounts),
            "jitter_ms": draw(amounts),
            "bandwidth_mbps": draw(st.none() | positive),
            "price_usd_per_mb": draw(amounts),
        }
        links.append(Link((a, b), **values) if draw(st.booleans()) else Link(from_=a, to=b, **values))
    models = []
    for name in draw(st.lists(names, min_size=1, max_size=3, unique=True)):
        classes = draw(st.none() | st.lists(names, min_size=1, max_size=4, unique=True))
        abstain = draw(st.lists(st.sampled_from(classes) | st.integers(0, len(classes) - 1))) if classes else ()
        models.append(Model(name, classes, draw(amounts), draw(amounts), abstain))
    places = st.tuples(st.sampled_from(models), st.sampled_from(node_names))
    deployments = []
    for model, node in draw(st.lists(places, min_size=1, max_size=5, unique_by=lambda p: (p[0].name, p[1]))):
        batch = draw(st.integers(1, 64))
        label_confidence = Tensors("in", "out", "label_confidence", confidence="c")
        by_class = Tensors("in", {name: f"P{k}" for k, name in enumerate(model.classes or ("a", "b"))}, "logits")
        deployments.append(
            Deployment(
                model.name,
                node,
                instances=draw(st.integers(1, 10)),
                max_batch=batch,
                preferred_batch=draw(st.lists(st.integers(1, batch), max_size=3)),
                batch_delay_us=draw(amounts),
                queue_max=draw(st.none() | st.integers(0, 100)),
                price_usd=draw(amounts),
                service=draw(laws if batch > 1 else laws | st.builds(service.Measured, positive)),
                tensors=draw(st.sampled_from([None, Tensors("in", "out", "probs"), label_confidence, by_class])),
            )
        )
    return Network(nodes, links, models, deployments, control=draw(st.sampled_from(["path", "ingress"])))


@settings(deadline=None)
@given(networks())
def test_any_network_survives_its_file(network: Network) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.toml"
        network.save(path)
        again = Network.open(path)
        assert again == network
        first = path.read_bytes()
        again.save(path)
        assert path.read_bytes() == first
        assert [p.name for p in Path(folder).iterdir()] == ["network.toml"]


@pytest.mark.timed
def test_a_large_network_is_written_and_read_in_seconds(tmp_path: Path) -> None:
    nodes = [Node(f"n{i}", int(i > 0)) for i in range(500)]
    links = [Link((f"n{i // 2}", f"n{i}"), delay_ms=i / 7) for i in range(1, 500)]
    network = Network(nodes, links, [], [Deployment("m", node.name) for node in nodes])
    start = time.perf_counter()
    network.save(tmp_path / "n.toml")
    assert Network.open(tmp_path / "n.toml") == network
    assert time.perf_counter() - start < 5.0
