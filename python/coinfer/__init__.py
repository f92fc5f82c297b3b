"""Cooperative inference over delivery networks: replay, tune and run strategies."""

from coinfer import cpu, service
from coinfer._core import __version__
from coinfer.errors import BadFileError, BadValueError, CoinferError, UnknownNameError, UnsupportedError
from coinfer.network import Deployment, Link, Model, Network, Node
from coinfer.predictions import ModelOutput, Predictions
from coinfer.scoring import score, scores
from coinfer.trace import Trace

__all__ = [
    "BadFileError",
    "BadValueError",
    "CoinferError",
    "Deployment",
    "Link",
    "Model",
    "ModelOutput",
    "Network",
    "Node",
    "Predictions",
    "Trace",
    "UnknownNameError",
    "UnsupportedError",
    "__version__",
    "cpu",
    "score",
    "scores",
    "service",
]
