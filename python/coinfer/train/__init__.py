"""Training for the network: early-exit networks, federated over the nodes, under the strategy's own distribution."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coinfer.train.costs import ExitCost
    from coinfer.train.evaluating import Served, Shift, served, shift, temperatures
    from coinfer.train.exits import EarlyExit, convolutional, dense
    from coinfer.train.fitting import DivergedError, Round, Settings, Training, aggregate, boost, federated, fit
    from coinfer.train.flow import Profile, serving_rates, strategy_for, thresholds_for
    from coinfer.train.objective import Delivered, weights_for
    from coinfer.train.placing import Client, clients, deploy, tree
    from coinfer.train.repository import export
    from coinfer.train.splits import difficulty, split

_WHERE = {
    "Client": "placing",
    "Delivered": "objective",
    "DivergedError": "fitting",
    "EarlyExit": "exits",
    "ExitCost": "costs",
    "Profile": "flow",
    "Round": "fitting",
    "Served": "evaluating",
    "Settings": "fitting",
    "Shift": "evaluating",
    "Training": "fitting",
    "aggregate": "fitting",
    "boost": "fitting",
    "clients": "placing",
    "convolutional": "exits",
    "dense": "exits",
    "deploy": "placing",
    "difficulty": "splits",
    "export": "repository",
    "federated": "fitting",
    "fit": "fitting",
    "served": "evaluating",
    "serving_rates": "flow",
    "shift": "evaluating",
    "split": "splits",
    "strategy_for": "flow",
    "temperatures": "evaluating",
    "thresholds_for": "flow",
    "tree": "placing",
    "weights_for": "objective",
}

__all__ = [
    "Client",
    "Delivered",
    "DivergedError",
    "EarlyExit",
    "ExitCost",
    "Profile",
    "Round",
    "Served",
    "Settings",
    "Shift",
    "Training",
    "aggregate",
    "boost",
    "clients",
    "convolutional",
    "dense",
    "deploy",
    "difficulty",
    "export",
    "federated",
    "fit",
    "served",
    "serving_rates",
    "shift",
    "split",
    "strategy_for",
    "temperatures",
    "thresholds_for",
    "tree",
    "weights_for",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
