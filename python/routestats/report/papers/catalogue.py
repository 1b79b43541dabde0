"""The published tables by name."""

from __future__ import annotations

from collections.abc import Callable

from routestats.arguments import check_choice
from routestats.report.papers.exflow_affinity import exflow_affinity
from routestats.report.papers.mixtral_repetition import mixtral_repetition
from routestats.report.papers.olmoe_specialization import olmoe_specialization
from routestats.report.papers.srp import srp
from routestats.report.papers.table import PaperTable
from routestats.stats._base.checks import check_trace
from routestats.trace import Trace

_TABLES: dict[str, Callable[[Trace], PaperTable]] = {
    "mixtral-repetition": mixtral_repetition,
    "olmoe-specialization": olmoe_specialization,
    "exflow-affinity": exflow_affinity,
    "srp": srp,
}

PAPER_TABLES = tuple(_TABLES)
"""Names that `paper_table` knows."""


def paper_table(trace: Trace, name: str) -> PaperTable:
    """One of the published tables, with this trace in it.

    Parameters
    ----------
    trace : Trace
    name : {"mixtral-repetition", "olmoe-specialization", "exflow-affinity", "srp"}

    Returns
    -------
    PaperTable

    Raises
    ------
    InvalidTypeError
        If `trace` is no trace.
    InvalidValueError
        If there is no such table, or the trace does not have what it needs.
    """
    table = _TABLES[check_choice("table", name, tuple(_TABLES))]
    return table(check_trace(trace))
