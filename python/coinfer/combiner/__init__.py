"""How the answers so far become one, one file each."""

from coinfer.combiner.base import CombinerSpec, combiner

__all__ = ["CombinerSpec", "combiner"]
