"""Routes and paths, against brute force and by hand."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import coinfer as ci
from coinfer import Deployment, Link, Model, Network, Node, UnsupportedError
from coinfer.compiling import Compiler
from coinfer.paths import Routes, path


def build(count: int, links: list[Link]) -> Network:
    # Ties must go by name, not by position; and routes up and down the tiers are found in different ways.
    nodes = [Node(f"n{i}", tier=i % 3) for i in reversed(range(count))]
    return Network(nodes, links, [], [Deployment("m", "n0")])


def brute_force(network: Network, a: str, b: str) -> tuple[int, int, tuple[str, ...]] | None:
    """The best (delay_ns, hops) over all simple paths from a to b."""
    best = None
    ways: dict[str, list[tuple[str, int]]] = {n.name: [] for n in network.nodes}
    for link in network.links:
        ways[link.a].append((link.b, round(link.delay_ms * 1e6)))
        if not link.directed:
            ways[link.b].append((link.a, round(link.delay_ms * 1e6)))

    def walk(node: str, delay: int, seen: tuple[str, ...]) -> None:
        nonlocal best
        if node == b:
            # ties: fewer hops, then the smaller name before the end, before that, ...
            key = (delay, len(seen) - 1, tuple(reversed(seen)))
            best = key if best is None or key < best else best
            return
        for neighbour, more in ways[node]:
            if neighbour not in seen:
                walk(neighbour, delay + more, (*seen, neighbour))

    walk(a, 0, (a,))
    return best


@st.composite
def networks(draw: st.DrawFn) -> Network:
    count = draw(st.integers(1, 6))
    pairs = list(itertools.combinations(range(count), 2))
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    links = []
    for a, b in chosen:
        delay = draw(st.sampled_from([0.0, 0.1, 0.2, 0.3, 1.0]))  # 0.1 + 0.2 must tie with 0.3
        if draw(st.booleans()):
            links.append(Link((f"n{a}", f"n{b}"), delay_ms=delay))
        else:
            links.append(Link(from_=f"n{b}", to=f"n{a}", delay_ms=delay))
    return build(count, links)


@given(networks(), st.booleans())
def test_routes_equal_the_best_of_all_simple_paths(network: Network, dense: bool) -> None:
    routes = Routes(network)
    routes._dense = dense
    for a, b in itertools.product((n.name for n in network.nodes), repeat=2):
        expected = brute_force(network, a, b)
        assert routes.reaches(a, b) == (expected is not None)
        if expected is None:
            with pytest.raises(UnsupportedError, match="cannot be reached"):
                routes.hops(a, b)
            continue
        delay, hops, nodes = expected
        assert routes.delay_ms(a, b) == delay / 1e6
        steps = routes.hops(a, b)
        assert len(steps) == hops
        walked = [a]
        for index, forward in steps:
            link = network.links[index]
            start, end = (link.a, link.b) if forward else (link.b, link.a)
            assert start == walked[-1]
            assert forward or not link.directed
            walked.append(end)
        assert tuple(reversed(walked)) == nodes


def test_path_takes_the_nearest_deployment_of_each_tier_and_skips_empty_ones() -> None:
    network = Network(
        [Node("d", 0), Node("x", 1), Node("e1", 2), Node("e2", 2), Node("c", 3), Node("far", 3)],
        [
            Link(("d", "x"), delay_ms=1),
            Link(("x", "e1"), delay_ms=2),
            Link(("x", "e2"), delay_ms=2),
            Link(("e1", "c"), delay_ms=5),
            Link(("e2", "far"), delay_ms=9),
        ],
        [],
        [
            Deployment("m", "e2"),
            Deployment("b", "e1"),
            Deployment("a", "e1"),
            Deployment("l", "far"),
            Deployment("l", "c"),
        ],
    )
    assert [d.name for d in path(network, "d")] == ["a@e1", "l@c"]
    assert [d.name for d in path(network, "e2")] == ["m@e2", "l@c"]  # both 9 ms away: the smaller name
    assert [d.name for d in path(network, "far")] == ["l@far"]


def test_an_ingress_without_a_reachable_deployment_is_an_error() -> None:
    network = Network([Node("a", 0), Node("b", 0)], [], [], [Deployment("m", "a")])
    with pytest.raises(UnsupportedError, match=r"node 'b': no deployment can be reached.*tier \(0\)"):
        path(network, "b")


@pytest.mark.parametrize("links_per_node", [2, 249])
@pytest.mark.timed
def test_all_paths_of_500_nodes_are_found_quickly(links_per_node: int) -> None:
    count, random = 500, np.random.default_rng(0)
    nodes = [Node(f"n{i}", 0 if i < 400 else 1 if i < 490 else 2) for i in range(count)]
    pairs = {(i, (i * 7 + 1 + step) % i) for i in range(1, count) for step in range(min(i, links_per_node))}
    links = [Link((f"n{a}", f"n{b}"), delay_ms=float(random.integers(1, 100))) for a, b in sorted(pairs)]
    network = Network(nodes, links, [], [Deployment("m", node.name) for node in nodes])
    start = time.perf_counter()
    found = [path(network, name) for name in network.ingress]
    taken = time.perf_counter() - start
    assert all(len(deployments) == 3 for deployments in found)
    assert taken < 10.0, f"took {taken:.2f} s"  # about 0.6 s on an idle machine


def test_a_network_of_3000_devices_compiles_in_time_proportional_to_its_size() -> None:
    devices, sites = [f"d{i}" for i in range(3000)], [f"s{i}" for i in range(10)]
    nodes = [Node(d, 0) for d in devices] + [Node(s, 1) for s in sites] + [Node("cloud", 2)]
    links = [Link((d, sites[i % 10]), delay_ms=5 + i % 7) for i, d in enumerate(devices)]
    links += [Link((s, "cloud"), delay_ms=40) for s in sites]
    deployments = [Deployment("small", d) for d in devices] + [Deployment("medium", s) for s in sites]
    network = Network(
        nodes, links, [Model(m) for m in ("small", "medium", "large")], [*deployments, Deployment("large", "cloud")]
    )
    z = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    predictions = ci.Predictions({model: ci.ModelOutput(logits=z) for model in ("small", "medium", "large")})
    strategy = ci.Forward(score="margin", threshold=0.5)
    start = time.process_time()  # what others do on the machine does not count
    compiler = Compiler(predictions, network)
    lanes = [compiler.lane(compiler.plan(strategy, ingress), ingress) for ingress in network.ingress]
    taken = time.process_time() - start
    assert len(lanes) == len(devices)
    assert [d.name for d in path(network, "d13")] == ["small@d13", "medium@s3", "large@cloud"]
    assert compiler.leg("d13", "cloud", 0.0)[0] == 51_000_000 == compiler.leg("cloud", "d13", 0.0)[0]
    assert taken < 6.0, f"took {taken:.2f} s"  # 0.9 to 2.3 s; 20 s when each device cost a search of its own
