"""Print the table of docs/load.md and write its report: a production arrival trace on a real backbone.

The Azure LLM conversation trace (an hour, 19,366 requests, as bursty at every rate) enters at the eleven cities
of Abilene. Every city hosts a small network, three host a larger one, one hosts the best; CIFAR-10 answers of real
networks. The thresholds are tuned without queues on half of the images; everything is measured on the other half.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import coinfer as ci
from coinfer.demo import halves

SHARED = Path(__file__).parents[2] / "shared" / "data"
PLACES = {"resnet56": ["Chicago", "Atlanta", "Sunnyvale"], "vgg16": ["Kansas City"]}
LOADS = (0.2, 0.5, 0.8, 0.95, 1.1, 1.5)
DEADLINE_US = 250_000.0


def predictions():
    with np.load(SHARED / "cifar10_models.npz") as data:
        names = {"resnet20": "softjpeg_resnet20", "resnet56": "softjpeg_resnet56", "vgg16": "soft_vgg16"}
        return ci.Predictions(
            {name: ci.ModelOutput(probs=data[key]) for name, key in names.items()}, labels=data["labels"]
        )


def network():
    topology = ci.Topology.open(SHARED / "abilene.gml")
    return topology.network(
        {"resnet20": topology.nodes, **PLACES},
        service_ms={
            "resnet20": ci.service.Constant(4.0),
            "resnet56": ci.service.Constant(8.0),
            "vgg16": ci.service.Exponential(12.0),
        },
        price_usd={"resnet20": 0.0, "resnet56": 1e-6, "vgg16": 1e-5},
        instances={"resnet20": 1, "resnet56": 2, "vgg16": 4},
    )


def strategies(fit, net):
    """Tune for the accuracy of the best model less half a point, at the lowest mean latency without queues."""
    goal = fit.accuracy("vgg16") - 0.005
    forward = ci.tune(
        ci.Forward(score="max_prob"),
        fit,
        replace(net, queues=False),
        minimise="latency_us_mean",
        subject_to=[f"accuracy >= {goal}"],
        split=None,
        ingress="Denver",
    ).strategy
    gain = ci.ExpectedGain(1500.0).fit(fit, net)
    return {
        "local": ci.Local("resnet20"),
        "cloud": ci.Remote(model="vgg16"),
        "forward": forward,
        "load-aware forward": ci.LoadAware(forward, per_ms=0.002),
        "expected gain": gain,
        "load-aware gain": ci.LoadAware(gain),
    }


def sweep(requests=200_000, loads=LOADS, progress=None):
    """Load 1 is where plain forwarding saturates the best model."""
    fit, held = halves(predictions(), 0)
    net = network()
    with np.load(SHARED / "azure_llm2023_conv.npz") as data:
        times = data["t"]
    chosen = strategies(fit, net)
    options = {"requests": requests, "arrivals": times, "warmup": 0.05, "deadline_us": DEADLINE_US}
    probe = ci.sweep_load(held, net, {"forward": chosen["forward"]}, rates_rps=[20.0], **options)
    full = probe.saturation["forward"][0].rate_rps
    return ci.sweep_load(held, net, chosen, rates_rps=[load * full for load in loads], progress=progress, **options)


if __name__ == "__main__":
    found = sweep()
    found.report(sys.argv[1] if len(sys.argv) > 1 else "load.html", "Azure conversations on Abilene")
    sys.stdout.write(f"{found}\n")
