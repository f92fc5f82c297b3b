"""Find the thresholds that meet a constraint."""

from coinfer.tuning.constraint import Constraint
from coinfer.tuning.threshold import Tuned, tune

__all__ = ["Constraint", "Tuned", "tune"]
