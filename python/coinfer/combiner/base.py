"""What every combiner is, before it is known for which classes and models: a small hashable description.

A plan (`coinfer.strategy.PlanSpec`) names its combiner or holds one of these. The compiler asks three things of it:
what it *needs* of a member's answers, a *key* under which evidence may be shared, and to be *built* into what the
engine runs. A combiner that was fitted, or that a user wrote, is a `CombinerSpec` of its own; the built-in ones are
looked up by name with `combiner`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from coinfer._core import plan as core
from coinfer.errors import UnknownNameError, nearest

__all__ = ["BUILT_IN", "CombinerSpec", "Named", "Needs", "combiner"]

Needs = Literal["vectors", "labels"]
"""What a combiner reads: probabilities or logits, or labels, which every model gives."""

BUILT_IN: Final[dict[str, Needs]] = {"last": "labels", "mean": "vectors", "logpool": "vectors", "vote": "labels"}
"""The combiners that the engine knows by name, with what they need."""


class CombinerSpec(ABC):
    """How the answers so far become one."""

    @property
    @abstractmethod
    def name(self) -> str:
        """A short name for messages."""

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """Which answers it can read; the compiler refuses others with the model's name."""

    @property
    def key(self) -> Hashable:
        """Equal keys give equal answers: what evidence is shared by. Default: the description itself."""
        return self

    @abstractmethod
    def build(self, classes: int, members: Sequence[str], score: str) -> core.Combiner:
        """Make the engine's combiner.

        Parameters
        ----------
        classes : int
            Number of shared classes.
        members : sequence of str
            Models in the order of the plan; one model may occur at several deployments.
        score : {"max_prob", "margin"}
            Which number of the combination the stop rule compares.

        Raises
        ------
        CoinferError
            If it does not fit these classes or models.
        """


@dataclass(frozen=True, slots=True)
class Named(CombinerSpec):
    """A combiner that the engine knows by name."""

    known: str

    @property
    def name(self) -> str:
        """A short name for messages."""
        return self.known

    @property
    def needs(self) -> Needs:
        """Which answers it can read."""
        return BUILT_IN[self.known]

    def build(self, classes: int, members: Sequence[str], score: str) -> core.Combiner:
        """Make the engine's combiner."""
        return core.Combiner(self.known, classes, score)


def combiner(given: str | CombinerSpec) -> CombinerSpec:
    """Look up a combiner by name; a description is returned as it is.

    Raises
    ------
    UnknownNameError
        If no built-in combiner has that name.
    """
    if isinstance(given, CombinerSpec):
        return given
    if given not in BUILT_IN:
        msg = f"no combiner is called {given!r}; {nearest(str(given), BUILT_IN)}"
        raise UnknownNameError(msg)
    return Named(given)
