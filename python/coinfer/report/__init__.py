"""The report: what a comparison found, as one HTML file that needs nothing else."""

from coinfer.report._page import write

__all__ = ["write"]
