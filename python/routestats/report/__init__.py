"""Where the tokens of a run went and how well that can be predicted, written down for people."""

from routestats.report._analysis import Analysis as Analysis
from routestats.report._compare_runs import RunComparison as RunComparison
from routestats.report._compare_runs import compare_runs as compare_runs
from routestats.report._text import summary as summary
from routestats.report._text import to_dict as to_dict
from routestats.report._write import analyse_run as analyse_run
from routestats.report._write import write_report as write_report
from routestats.report.papers.catalogue import PAPER_TABLES as PAPER_TABLES
from routestats.report.papers.catalogue import paper_table as paper_table
from routestats.report.papers.claim import claim_check as claim_check
from routestats.report.papers.table import PaperRow as PaperRow
from routestats.report.papers.table import PaperTable as PaperTable
from routestats.report.sections.second_run import Compared as Compared
from routestats.report.sections.second_run import compare_with as compare_with

__all__ = [
    "PAPER_TABLES",
    "Analysis",
    "Compared",
    "PaperRow",
    "PaperTable",
    "RunComparison",
    "analyse_run",
    "claim_check",
    "compare_runs",
    "compare_with",
    "paper_table",
    "summary",
    "to_dict",
    "write_report",
]
