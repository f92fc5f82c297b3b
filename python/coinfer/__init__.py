"""Cooperative inference over delivery networks: replay, tune and run strategies.

A public name is imported when it is first used, so that `import coinfer` costs next to nothing however much there is.
It stands in three places, which a test compares: the imports that type checkers see, `__all__`, and its home.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from coinfer._core import __version__

if TYPE_CHECKING:
    from coinfer import arrivals, cpu, datasets, live, rule, service
    from coinfer.calibrating import Calibration, calibrate
    from coinfer.combiner import Boost, Stack
    from coinfer.combining import Combined, combine
    from coinfer.comparing import Comparison, compare
    from coinfer.diversifying import Diversity, diversity
    from coinfer.errors import (
        BadFileError,
        BadValueError,
        CoinferError,
        OverloadWarning,
        QueueWarning,
        UnknownNameError,
        UnsupportedError,
    )
    from coinfer.exploring import Exploration, explore
    from coinfer.network import Deployment, Link, Model, Network, Node
    from coinfer.outage import Outage
    from coinfer.predictions import ModelOutput, Predictions
    from coinfer.replaying import Run, replay
    from coinfer.results import Estimate, Summary
    from coinfer.scoring import score, scores
    from coinfer.sequencing import SequentialFit
    from coinfer.strategy import (
        Agreement,
        Calibrated,
        DeadlineAware,
        Ensemble,
        ExpectedGain,
        Forward,
        LoadAware,
        Local,
        Remote,
        Router,
        SelectionOracle,
        Sequential,
        Strategy,
    )
    from coinfer.sweeping import LoadSweep, sweep_load
    from coinfer.topology import Topology
    from coinfer.trace import Trace
    from coinfer.tuning import Certificate, Problem, Sensitivity, ShiftWarning, Tuned, sensitivity, tune

__all__ = [
    "Agreement",
    "BadFileError",
    "BadValueError",
    "Boost",
    "Calibrated",
    "Calibration",
    "Certificate",
    "CoinferError",
    "Combined",
    "Comparison",
    "DeadlineAware",
    "Deployment",
    "Diversity",
    "Ensemble",
    "Estimate",
    "ExpectedGain",
    "Exploration",
    "Forward",
    "Link",
    "LoadAware",
    "LoadSweep",
    "Local",
    "Model",
    "ModelOutput",
    "Network",
    "Node",
    "Outage",
    "OverloadWarning",
    "Predictions",
    "Problem",
    "QueueWarning",
    "Remote",
    "Router",
    "Run",
    "SelectionOracle",
    "Sensitivity",
    "Sequential",
    "SequentialFit",
    "ShiftWarning",
    "Stack",
    "Strategy",
    "Summary",
    "Topology",
    "Trace",
    "Tuned",
    "UnknownNameError",
    "UnsupportedError",
    "__version__",
    "arrivals",
    "calibrate",
    "combine",
    "compare",
    "cpu",
    "datasets",
    "diversity",
    "explore",
    "live",
    "replay",
    "rule",
    "score",
    "scores",
    "sensitivity",
    "service",
    "sweep_load",
    "tune",
]

_MODULES = frozenset({"arrivals", "cpu", "datasets", "live", "rule", "service"})
_HOMES = {
    "calibrating": "Calibration calibrate",
    "combiner": "Boost Stack",
    "combining": "Combined combine",
    "comparing": "Comparison compare",
    "diversifying": "Diversity diversity",
    "errors": "BadFileError BadValueError CoinferError OverloadWarning QueueWarning UnknownNameError UnsupportedError",
    "exploring": "Exploration explore",
    "network": "Deployment Link Model Network Node",
    "outage": "Outage",
    "predictions": "ModelOutput Predictions",
    "replaying": "Run replay",
    "results": "Estimate Summary",
    "scoring": "score scores",
    "sequencing": "SequentialFit",
    "strategy": (
        "Agreement Calibrated DeadlineAware Ensemble ExpectedGain Forward LoadAware Local Remote Router "
        "SelectionOracle Sequential Strategy"
    ),
    "sweeping": "LoadSweep sweep_load",
    "topology": "Topology",
    "trace": "Trace",
    "tuning": "Certificate Problem Sensitivity ShiftWarning Tuned sensitivity tune",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"coinfer.{name}")
    if name not in _HOME_OF:
        msg = f"module 'coinfer' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(f"coinfer.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
