"""How the answers so far become one, one file each."""

from coinfer.combiner.agreement import Agreement
from coinfer.combiner.answers import Answers
from coinfer.combiner.base import CombinerSpec, Learned, combiner
from coinfer.combiner.boost import Boost
from coinfer.combiner.lead import Lead
from coinfer.combiner.posterior import Posterior
from coinfer.combiner.stack import Stack

__all__ = [
    "HOWS",
    "Agreement",
    "Answers",
    "Boost",
    "CombinerSpec",
    "Lead",
    "Learned",
    "Posterior",
    "Stack",
    "combiner",
]

HOWS = ("mean", "weighted", "logpool", "vote", "weighted_vote", *Learned.hows)
"""Every way to combine all members: what `coinfer.combine` and `coinfer.Ensemble` take."""
