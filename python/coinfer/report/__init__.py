"""The report: what a comparison or a load sweep found, as one HTML file that needs nothing else."""

from coinfer.report._load import write_load
from coinfer.report._page import finding, write

__all__ = ["finding", "write", "write_load"]
