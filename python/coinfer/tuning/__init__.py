"""Find the parameters that meet constraints, and certify them."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coinfer.tuning.certificate import Certificate, Guarantee, ShiftWarning, p_value
    from coinfer.tuning.constraint import Constraint
    from coinfer.tuning.problem import Problem
    from coinfer.tuning.sensing import Sensitivity, sensitivity
    from coinfer.tuning.tuned import Tuned, tune
    from coinfer.tuning.waiting import UnderLoad

__all__ = [
    "Certificate",
    "Constraint",
    "Guarantee",
    "Problem",
    "Sensitivity",
    "ShiftWarning",
    "Tuned",
    "UnderLoad",
    "p_value",
    "sensitivity",
    "tune",
]

# Looked up when first used: the command line imports this package only to know the options of ``coinfer tune``.
_HOMES = {
    "certificate": "Certificate Guarantee ShiftWarning p_value",
    "constraint": "Constraint",
    "problem": "Problem",
    "sensing": "Sensitivity sensitivity",
    "tuned": "Tuned tune",
    "waiting": "UnderLoad",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        msg = f"module 'coinfer.tuning' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(f"coinfer.tuning.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
