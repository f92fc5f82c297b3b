"""A vote, scored by the posterior probability that what is to come leaves the leader where it is.

``src/coinfer/combine/posterior.hpp`` states the model and the contract.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from coinfer._core import plan as core
from coinfer._core import sequential
from coinfer.combiner.base import CombinerSpec, Needs
from coinfer.errors import UnsupportedError

__all__ = ["Posterior"]


@dataclass(frozen=True, slots=True)
class Posterior(CombinerSpec):
    """A vote of equal members; `to_come` holds, per stage, how many members later stages have."""

    to_come: tuple[int, ...]
    name = "vote"

    @property
    def needs(self) -> Needs:
        """Which answers it can read."""
        return "labels"

    def build(self, classes: int, members: Sequence[str], score: str) -> core.Combiner:
        """Make the engine's combiner; `score` is the posterior, whatever is asked for."""
        return sequential.Probable(_table(len(members), classes), self.to_come)


@functools.lru_cache(maxsize=8)
def _table(voters: int, classes: int) -> sequential.Posterior:
    try:
        return sequential.Posterior(voters, classes)
    except ValueError as error:
        msg = f"{error}; stop='qwyc' and 'decided' have no such limit"
        raise UnsupportedError(msg) from None
