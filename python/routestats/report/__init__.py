"""Where the tokens of a run went and how well that can be predicted, written down for people."""

from routestats.report._analysis import Analysis as Analysis
from routestats.report._claim import claim_check as claim_check
from routestats.report._compare import RunComparison as RunComparison
from routestats.report._compare import compare_runs as compare_runs
from routestats.report._comparison import Compared as Compared
from routestats.report._comparison import compare_with as compare_with
from routestats.report._paper_table import PaperRow as PaperRow
from routestats.report._paper_table import PaperTable as PaperTable
from routestats.report._paper_tables import PAPER_TABLES as PAPER_TABLES
from routestats.report._paper_tables import paper_table as paper_table
from routestats.report._text import summary as summary
from routestats.report._text import to_dict as to_dict
from routestats.report._write import analyse_run as analyse_run
from routestats.report._write import write_report as write_report

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
