"""Where the tokens of a run went and how well that can be predicted, written down for people."""

from routestats.report._compare import RunComparison as RunComparison
from routestats.report._compare import compare_runs as compare_runs
from routestats.report._paper_table import PaperRow as PaperRow
from routestats.report._paper_table import PaperTable as PaperTable
from routestats.report._paper_tables import PAPER_TABLES as PAPER_TABLES
from routestats.report._paper_tables import paper_table as paper_table
from routestats.report._write import write_report as write_report

__all__ = [
    "PAPER_TABLES",
    "PaperRow",
    "PaperTable",
    "RunComparison",
    "compare_runs",
    "paper_table",
    "write_report",
]
