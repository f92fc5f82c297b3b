"""What every combiner is, before it is known for which classes and models: a small hashable description.

A plan (`coinfer.strategy.PlanSpec`) names its combiner or holds one of these. The compiler asks three things of it:
what it *needs* of a member's answers, a *key* under which evidence may be shared, and to be *built* into what the
engine runs. A combiner that was fitted, or that a user wrote, is a `CombinerSpec` of its own; the built-in ones are
looked up by name with `combiner`. What must see labelled samples first is `Learned`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self

from coinfer._core import plan as core
from coinfer.errors import UnknownNameError, nearest

if TYPE_CHECKING:
    from coinfer.combiner.answers import Answers

__all__ = ["BUILT_IN", "CombinerSpec", "Learned", "Named", "Needs", "combiner"]

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

    def check_classes(self, names: tuple[str, ...] | None) -> None:
        """Refuse shared classes of other names than it was made for; most combiners do not care."""
        del names


class Learned(CombinerSpec):
    """A combiner with something to learn first: coefficients, weights, an order.

    Subclasses register under their `how`, which is what `coinfer.Ensemble` is told.
    """

    how: ClassVar[str]
    requires: ClassVar[Needs]
    hows: ClassVar[dict[str, type[Learned]]] = {}

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        Learned.hows[cls.how] = cls

    @property
    def name(self) -> str:
        """A short name for messages."""
        return self.how

    @property
    def needs(self) -> Needs:
        """Which answers it reads, and learns from."""
        return self.requires

    @property
    @abstractmethod
    def models(self) -> tuple[str, ...]:
        """Models to ask, in order."""

    @property
    def weights(self) -> Mapping[str, float]:
        """Weight per model; 1 where absent."""
        return {}

    @classmethod
    @abstractmethod
    def learn(cls, answers: Answers) -> Self:
        """Learn from labelled samples."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Give what was learned, as it stands in a strategy file; lists of numbers may be long."""

    @classmethod
    @abstractmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Self:
        """Build from `to_dict`'s table."""


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
