"""Other people's simulators: SimPy, fed the same draws, to the nanosecond; Ciw within its interval."""

from __future__ import annotations

import math

import ciw
import numpy as np
import pytest
import simpy
from scipy import stats

import coinfer as ci
from coinfer._core import sim
from reference_theory import mmk

SAMPLES = 1000
SERVICE_MS = {"small": 2.0, "medium": 4.0, "large": 4.0}
INSTANCES = {"small": 2, "medium": 8, "large": 32}
DELAY_NS = {"edge": 10 * 10**6, "cloud": 40 * 10**6}


def thirteen_stations():
    """Ten edges (k=2), two regions (k=8), one cloud (k=32)."""
    nodes = [ci.Node(f"e{i}", 0) for i in range(10)] + [ci.Node(f"r{i}", 1) for i in range(2)] + [ci.Node("c", 2)]
    links = [ci.Link((f"e{i}", f"r{i // 5}"), delay_ms=10) for i in range(10)]
    links += [ci.Link((f"r{i}", "c"), delay_ms=40) for i in range(2)]
    at = {"small": [f"e{i}" for i in range(10)], "medium": ["r0", "r1"], "large": ["c"]}
    deployments = [
        ci.Deployment(m, node, instances=INSTANCES[m], service=ci.service.Exponential(SERVICE_MS[m]))
        for m, where in at.items()
        for node in where
    ]
    return ci.Network(nodes, links, [], deployments)


def predictions():
    """Of 100 samples, 40 go on from the edge and 15 of these from the region."""
    part = np.arange(SAMPLES) % 100
    sure = {"small": part < 60, "medium": part < 85, "large": part >= 0}
    labels = np.zeros(SAMPLES, np.int64)
    outputs = {m: ci.ModelOutput(label=labels, confidence=s.astype(np.float32)) for m, s in sure.items()}
    return ci.Predictions(outputs, labels=labels)


def exponential_ns(seed, request, deployment, mean_ms):
    """Draw as the engine says it does: Philox, key (seed, stream 0), counter (request, deployment, 0)."""
    bits = sim.philox([request & 0xFFFFFFFF, request >> 32, deployment, 0], [seed & 0xFFFFFFFF, seed >> 32])
    uniform = ((((bits[0] << 32) | bits[1]) >> 11) + 0.5) * 2.0**-53
    return round(-mean_ms * 1e6 * math.log(uniform))


def departures(trace, preds, seed):
    """The same network as SimPy processes."""
    env = simpy.Environment()
    stations = [
        simpy.Resource(env, INSTANCES["small" if d < 10 else "medium" if d < 12 else "large"]) for d in range(13)
    ]
    left = [0] * len(trace)
    small = preds["small"].confidence
    medium = preds["medium"].confidence

    def request(row, ingress, sample):
        where = [(ingress, "small", 0)]
        if small[sample] < 0.5:
            where.append((10 + ingress // 5, "medium", DELAY_NS["edge"]))
            if medium[sample] < 0.5:
                where.append((12, "large", DELAY_NS["cloud"]))
        for station, model, delay in where:
            if delay:
                yield env.timeout(delay)
            with stations[station].request() as turn:
                yield turn
                yield env.timeout(exponential_ns(seed, row, station, SERVICE_MS[model]))
        back = sum(delay for _, _, delay in where)
        left[row] = env.now + back

    def source():
        for row in range(len(trace)):
            yield env.timeout(int(trace.arrival_ns[row]) - env.now)
            env.process(request(row, int(trace.ingress[row]), int(trace.sample[row])))

    env.process(source())
    env.run()
    return left


def test_simpy_gives_the_same_departures_to_the_nanosecond():
    net, preds, seed = thirteen_stations(), predictions(), 11
    trace = ci.Trace.poisson(net, rate_rps=8000, requests=100_000, samples=SAMPLES, seed=4)
    assert trace.nodes == tuple(f"e{i}" for i in range(10))
    expected = np.array(departures(trace, preds, seed))
    strategy = ci.Forward(score="confidence", thresholds=[0.5, 0.5])
    for engine in ("hops", "events"):
        run = ci.replay(trace, preds, net, strategy, seed=seed, engine=engine)
        latency_ns = np.rint(run.outcomes()["latency_us"].to_numpy() * 1e3).astype(np.int64)
        assert np.array_equal(trace.arrival_ns + latency_ns, expected)
        assert run.summary.queue_us > 500  # they did wait


def test_ciw_agrees_within_its_interval():
    """The same three kinds of station, as a network of queues in Ciw; both against each other and theory."""
    rate, seeds, horizon = 1.4, 6, 4000.0  # per ms
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(rate), None],
        service_distributions=[ciw.dists.Exponential(1 / 2.0), ciw.dists.Exponential(1 / 4.0)],
        routing=[[0.0, 0.5], [0.0, 0.0]],
        number_of_servers=[4, 4],
    )
    waits = [[], []]
    for seed in range(seeds):
        ciw.seed(seed)
        simulation = ciw.Simulation(network)
        simulation.simulate_until_max_time(horizon)
        for node in (1, 2):
            found = [r.waiting_time for r in simulation.get_all_records() if r.node == node and r.arrival_date > 400]
            waits[node - 1].append(float(np.mean(found)))
    net = ci.Network.chain(
        {"x": "small", "y": "medium"}, delay_ms=1, instances=4, service_ms=[ci.service.Exponential(m) for m in (2, 4)]
    )
    half = (np.arange(SAMPLES) % 2).astype(np.float32)
    labels = np.zeros(SAMPLES, np.int64)
    preds = ci.Predictions({m: ci.ModelOutput(label=labels, confidence=half) for m in ("small", "medium")})
    trace = ci.Trace.poisson(net, rate_rps=rate * 1e3, requests=1_000_000, samples=SAMPLES, seed=1)
    run = ci.replay(trace, preds, net, ci.Forward(score="confidence", thresholds=[0.5]))
    ours = [run.summary.stations[name].wait_us_mean / 1e3 for name in ("small@x", "medium@y")]
    quantile = float(stats.t.ppf(0.9975, seeds - 1))
    for node in (0, 1):
        mean, error = np.mean(waits[node]), np.std(waits[node], ddof=1) / math.sqrt(seeds)
        assert abs(ours[node] - mean) < quantile * error
        assert ours[node] == pytest.approx(mmk(rate / (1 + node), 2.0 * (1 + node), 4), rel=0.03)
