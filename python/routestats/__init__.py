"""Routing statistics of Mixture-of-Experts models: capture, count, analyse, show."""

from routestats import live as live
from routestats import plots as plots
from routestats import stats as stats
from routestats.counts import NgramCounts as NgramCounts
from routestats.counts import PathCounts as PathCounts
from routestats.counts import RouteCounts as RouteCounts
from routestats.counts import count as count
from routestats.counts import count_ngrams as count_ngrams
from routestats.counts import count_paths as count_paths
from routestats.engines.capture import capture as capture
from routestats.engines.capture import enable as enable
from routestats.engines.timing import time_stages as time_stages
from routestats.errors import RouteStatsError as RouteStatsError
from routestats.shape import RouteShape as RouteShape
from routestats.trace import Trace as Trace
from routestats.trace import TraceWriter as TraceWriter
from routestats.trace import verify as verify

__all__ = [
    "NgramCounts",
    "PathCounts",
    "RouteCounts",
    "RouteShape",
    "RouteStatsError",
    "Trace",
    "TraceWriter",
    "capture",
    "count",
    "count_ngrams",
    "count_paths",
    "enable",
    "live",
    "plots",
    "stats",
    "time_stages",
    "verify",
]
