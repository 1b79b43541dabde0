"""One HTML file that says where the tokens of a run went, and how well that can be predicted."""

from routestats.report._write import write_report as write_report

__all__ = ["write_report"]
