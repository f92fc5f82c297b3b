"""Find the parameters that meet constraints, and certify them."""

from coinfer.tuning.certificate import Certificate, Guarantee, ShiftWarning, p_value
from coinfer.tuning.constraint import Constraint
from coinfer.tuning.tuned import Tuned, tune

__all__ = ["Certificate", "Constraint", "Guarantee", "ShiftWarning", "Tuned", "p_value", "tune"]
