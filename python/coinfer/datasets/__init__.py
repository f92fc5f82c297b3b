"""Data that needs no download: a ladder of real models with their predictions, and a network to run it on."""

from coinfer.datasets._digits import digits
from coinfer.datasets._network import demo_network

__all__ = ["demo_network", "digits"]
