"""Counts of experts, of pairs of experts and of paths: exact, and mergeable in any order."""

from routestats.counts._count import count as count
from routestats.counts._groups import GroupedRows as GroupedRows
from routestats.counts._groups import sum_changes_without_groups as sum_changes_without_groups
from routestats.counts._live import LiveCounts as LiveCounts
from routestats.counts._ngram_counts import NgramCounts as NgramCounts
from routestats.counts._ngram_counts import count_ngrams as count_ngrams
from routestats.counts._path_counts import PathCounts as PathCounts
from routestats.counts._path_counts import PathKind as PathKind
from routestats.counts._path_counts import count_paths as count_paths
from routestats.counts._rank_hits import rank_hits as rank_hits
from routestats.counts._recount import recount as recount
from routestats.counts._route_counts import RouteCounts as RouteCounts
from routestats.counts.device.choice import why_no_cuda as why_no_cuda

__all__ = [
    "GroupedRows",
    "LiveCounts",
    "NgramCounts",
    "PathCounts",
    "PathKind",
    "RouteCounts",
    "count",
    "count_ngrams",
    "count_paths",
    "rank_hits",
    "recount",
    "sum_changes_without_groups",
    "why_no_cuda",
]
