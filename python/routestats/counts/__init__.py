"""Counts of experts and of pairs of experts: exact, and mergeable in any order."""

from routestats.counts._count import count as count
from routestats.counts._recount import recount as recount
from routestats.counts._route_counts import RouteCounts as RouteCounts

__all__ = ["RouteCounts", "count", "recount"]
