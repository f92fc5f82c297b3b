"""Delivery strategies: where a request is answered, one file each."""

from coinfer.strategy.agreement import Agreement
from coinfer.strategy.base import PlanSpec, StageSpec, Strategy
from coinfer.strategy.calibrated import Calibrated
from coinfer.strategy.deadline_aware import DeadlineAware
from coinfer.strategy.ensemble import Ensemble
from coinfer.strategy.expected_gain import ExpectedGain
from coinfer.strategy.forward import Forward
from coinfer.strategy.load_aware import LoadAware
from coinfer.strategy.local import Local
from coinfer.strategy.oracle import SelectionOracle
from coinfer.strategy.remote import Remote
from coinfer.strategy.router import Router
from coinfer.strategy.sequential import Sequential

__all__ = [
    "Agreement",
    "Calibrated",
    "DeadlineAware",
    "Ensemble",
    "ExpectedGain",
    "Forward",
    "LoadAware",
    "Local",
    "PlanSpec",
    "Remote",
    "Router",
    "SelectionOracle",
    "Sequential",
    "StageSpec",
    "Strategy",
]
