"""Counts of experts, of pairs of experts and of paths: exact, and mergeable in any order."""

from routestats.counts._count import count as count
from routestats.counts._path_counts import PathCounts as PathCounts
from routestats.counts._path_counts import count_paths as count_paths
from routestats.counts._route_counts import RouteCounts as RouteCounts

__all__ = ["PathCounts", "RouteCounts", "count", "count_paths"]
