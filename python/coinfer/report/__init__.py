"""The report: what a comparison found, as one HTML file that needs nothing else."""

from coinfer.report._page import finding, write

__all__ = ["finding", "write"]
