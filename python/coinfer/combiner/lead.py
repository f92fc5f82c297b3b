"""A running sum, scored by its lead over the second class: what `Sequential` stops on.

``src/coinfer/combine/lead.hpp`` states the contract.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coinfer._core import plan as core
from coinfer._core import sequential
from coinfer.combiner.base import BUILT_IN, CombinerSpec, Needs

__all__ = ["Lead"]


@dataclass(frozen=True, slots=True)
class Lead(CombinerSpec):
    """The sum that `how` takes (``"mean"``, ``"logpool"``, ``"vote"``), scored in votes or units of weight."""

    how: str

    @property
    def name(self) -> str:
        """A short name for messages."""
        return self.how

    @property
    def needs(self) -> Needs:
        """Which answers it can read."""
        return BUILT_IN[self.how]

    def build(self, classes: int, members: Sequence[str], score: str) -> core.Combiner:
        """Make the engine's combiner; `score` is the lead, whatever is asked for."""
        return sequential.Lead(self.how, classes)
