"""The report of a run: one HTML file. Nothing in here imports torch."""

from project.report.write import write_report

__all__ = ["write_report"]
