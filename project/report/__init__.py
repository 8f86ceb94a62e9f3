"""Write the report of a run as one HTML file. Imports no torch."""

from project.report.page import write_report

__all__ = ["write_report"]
