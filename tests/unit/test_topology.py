from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import pytest

import coinfer as ci
from coinfer.topology import KM_PER_MS, Topology

DATA = Path(__file__).parents[3] / "shared/data"
abilene = pytest.mark.skipif(not (DATA / "abilene.gml").exists(), reason="shared/data/abilene.gml is absent")
planetlab = pytest.mark.skipif(
    not (DATA / "planetlab_rtt_ms.npz").exists(), reason="shared/data/planetlab_rtt_ms.npz is absent"
)


@abilene
def test_abilene_has_its_cities_and_light_takes_its_time():
    found = Topology.open(DATA / "abilene.gml")
    assert len(found.nodes) == 11
    assert len(found.links) == 14
    delays = {frozenset((a, b)): ms for a, b, ms in found.links}
    # New York to Chicago is 1,145 km along the great circle.
    assert delays[frozenset(("New York", "Chicago"))] == pytest.approx(1145 / KM_PER_MS, rel=0.005)
    longer = Topology.open(DATA / "abilene.gml", stretch=1.5)
    assert longer.links[0][2] == pytest.approx(1.5 * found.links[0][2])


@abilene
def test_routes_are_the_shortest_by_delay():
    found = Topology.open(DATA / "abilene.gml")
    net = found.network({"small": list(found.nodes), "large": ["Chicago"]}, service_ms={"small": 2.0, "large": 20.0})
    graph = nx.Graph()
    graph.add_weighted_edges_from(found.links)
    shortest = nx.single_source_dijkstra_path_length(graph, "Chicago")
    for city in found.nodes:
        target = "Chicago/large"
        assert net.routes.delay_ms(city, target) == pytest.approx(shortest[city])
    assert set(net.ingress) == set(found.nodes)
    plan = ci.Forward(threshold=0.5).plan(net, "Seattle")
    assert [stage.members[0].name for stage in plan.stages] == ["small@Seattle", "large@Chicago/large"]


@planetlab
def test_a_matrix_of_round_trips_is_a_full_mesh():
    with np.load(DATA / "planetlab_rtt_ms.npz") as data:
        rtt = data["rtt"]
    found = Topology.from_rtt(rtt)
    assert len(found.nodes) == 490
    part = found.select([f"host{i}" for i in range(20)])
    net = part.network({"small": part.nodes[:10], "large": part.nodes[19]})
    assert net.routes.reaches("host0", "host19")
    a, b, ms = part.links[0]
    i, j = int(a[4:]), int(b[4:])
    assert ms == pytest.approx((rtt[i, j] + rtt[j, i]) / 4)


def test_graphml_round_trip_and_an_attribute_as_delay(tmp_path):
    graph = nx.MultiGraph()
    graph.add_node(0, label="a")
    graph.add_node(1, label="b")
    graph.add_edge(0, 1, latency=2500.0)
    graph.add_edge(0, 1, latency=1500.0)
    graph.add_edge(1, 1, latency=1.0)
    nx.write_graphml(graph, tmp_path / "g.graphml")
    nx.write_gml(graph, tmp_path / "g.gml")
    expected = (("a", "b", 1.5),)
    assert Topology.open(tmp_path / "g.graphml", delay="latency", unit="us").links == expected
    assert Topology.from_graph(graph, delay="latency", unit="us").links == expected


def test_a_directed_graph_stays_directed():
    graph = nx.DiGraph()
    graph.add_edge("a", "b", ms=3)
    graph.add_edge("b", "a", ms=5)
    net = Topology.from_graph(graph, delay="ms").network({"small": "a", "large": "b"})
    assert (net.routes.delay_ms("a", "b"), net.routes.delay_ms("b", "a")) == (3.0, 5.0)


def test_a_node_with_two_models_is_laid_out_as_two():
    topology = Topology(("a", "b"), (("a", "b", 4.0),))
    net = topology.network(
        {"small": ["a", "b"], "large": "b"},
        service_ms={"small": 1.0, "large": ci.service.Exponential(9.0)},
        price_usd={"small": 0.0, "large": 1e-4},
        instances={"small": 1, "large": 3},
        ingress=["a"],
    )
    assert net.ingress == ("a",)
    assert net.routes.delay_ms("a", "b/large") == 4.0
    assert net.deployment("large@b/large").instances == 3
    assert net.deployment("large@b/large").service_ms_mean == 9.0


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Topology.open("net.txt"), ci.BadValueError, "net.txt"),
        (lambda: Topology.open("missing.gml"), ci.BadFileError, "missing.gml"),
        (lambda: Topology.from_graph(nx.path_graph(2)), ci.UnsupportedError, "node '0' has no Latitude"),
        (lambda: Topology.from_graph(nx.path_graph(2), delay="ms"), ci.BadValueError, "edge '0' -- '1' has no"),
        (lambda: Topology.from_graph(nx.path_graph(2), delay="ms", unit="h"), ci.UnknownNameError, "unit 'h'"),
        (lambda: Topology.from_graph(nx.path_graph(2), stretch=0.5), ci.BadValueError, "stretch"),
        (lambda: Topology.from_rtt(np.ones((2, 3))), ci.BadValueError, "square"),
        (lambda: Topology.from_rtt(-np.ones((2, 2))), ci.BadValueError, r"rtt_ms\[0, 1\]"),
        (lambda: Topology.from_rtt(np.ones((2, 2)), names=["a"]), ci.BadValueError, "1 names"),
        (lambda: Topology.from_rtt(np.ones((2, 2)), names=["a", "a"]), ci.BadValueError, "twice"),
        (lambda: Topology(("a",), ()).network({"m": "b"}), ci.UnknownNameError, "no node 'b'"),
        (lambda: Topology(("a",), ()).network({"m": []}), ci.BadValueError, "placed nowhere"),
        (lambda: Topology(("a",), ()).network({"m": "a"}, price_usd={}), ci.UnknownNameError, "price_usd"),
        (lambda: Topology(("a",), ()).select(["z"]), ci.UnknownNameError, "'z'"),
    ],
)
def test_what_is_no_topology_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_truncated_graph_is_named(tmp_path):
    (tmp_path / "cut.gml").write_text("graph [ node [ id 0")
    with pytest.raises(ci.BadFileError, match=r"cut\.gml"):
        Topology.open(tmp_path / "cut.gml")
