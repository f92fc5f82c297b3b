"""Votes within a stage, scored by the share that agrees: what `coinfer.Agreement` stops on.

``src/coinfer/combine/agreement.hpp`` states the contract.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coinfer._core import plan as core
from coinfer._core import sequential
from coinfer.combiner.base import CombinerSpec, Needs

__all__ = ["Agreement"]


@dataclass(frozen=True, slots=True)
class Agreement(CombinerSpec):
    """A vote per stage; `members` says how many each stage asks."""

    members: tuple[int, ...]
    name = "agreement"

    @property
    def needs(self) -> Needs:
        """Which answers it can read."""
        return "labels"

    def build(self, classes: int, members: Sequence[str], score: str) -> core.Combiner:
        """Make the engine's combiner; `score` is the share that agrees, whatever is asked for."""
        return sequential.Agreement(classes, self.members)
