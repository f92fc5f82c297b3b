"""Cooperative inference over delivery networks: replay, tune and run strategies."""

from coinfer._core import __version__

__all__ = ["__version__"]
