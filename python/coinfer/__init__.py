"""Cooperative inference over delivery networks: replay, tune and run strategies."""

from coinfer import arrivals, cpu, datasets, service
from coinfer._core import __version__
from coinfer.calibrating import Calibration, calibrate
from coinfer.combining import Combined, combine
from coinfer.comparing import Comparison, compare
from coinfer.diversifying import Diversity, diversity
from coinfer.errors import BadFileError, BadValueError, CoinferError, UnknownNameError, UnsupportedError
from coinfer.network import Deployment, Link, Model, Network, Node
from coinfer.predictions import ModelOutput, Predictions
from coinfer.replaying import Run, replay
from coinfer.results import Estimate, Summary
from coinfer.scoring import score, scores
from coinfer.strategy import Calibrated, Ensemble, ExpectedGain, Forward, Local, Remote, SelectionOracle, Strategy
from coinfer.topology import Topology
from coinfer.trace import Trace
from coinfer.tuning import Tuned, tune

__all__ = [
    "BadFileError",
    "BadValueError",
    "Calibrated",
    "Calibration",
    "CoinferError",
    "Combined",
    "Comparison",
    "Deployment",
    "Diversity",
    "Ensemble",
    "Estimate",
    "ExpectedGain",
    "Forward",
    "Link",
    "Local",
    "Model",
    "ModelOutput",
    "Network",
    "Node",
    "Predictions",
    "Remote",
    "Run",
    "SelectionOracle",
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
    "replay",
    "score",
    "scores",
    "service",
    "tune",
]
