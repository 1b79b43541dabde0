"""Counts of experts and of pairs of experts: exact, and mergeable in any order."""

from routestats.counts._count import count as count
from routestats.counts._groups import GroupedRows as GroupedRows
from routestats.counts._groups import sum_changes_without_groups as sum_changes_without_groups
from routestats.counts._rank_hits import rank_hits as rank_hits
from routestats.counts._recount import recount as recount
from routestats.counts._route_counts import RouteCounts as RouteCounts

__all__ = [
    "GroupedRows",
    "RouteCounts",
    "count",
    "rank_hits",
    "recount",
    "sum_changes_without_groups",
]
