"""Cooperative inference over delivery networks: replay, tune and run strategies."""

from coinfer import cpu
from coinfer._core import __version__
from coinfer.scoring import score, scores

__all__ = ["__version__", "cpu", "score", "scores"]
