"""The panels of the live view, one file each: made once per viewer, then told what is new."""

from routestats.live.views._counters import Counters as Counters
from routestats.live.views._load_map import LoadMap as LoadMap
from routestats.live.views._predictability import PredictabilityChart as PredictabilityChart
from routestats.live.views._stage_times import StageTimes as StageTimes
from routestats.live.views._throughput import Throughput as Throughput
from routestats.live.views._token_stream import TokenStream as TokenStream

__all__ = [
    "Counters",
    "LoadMap",
    "PredictabilityChart",
    "StageTimes",
    "Throughput",
    "TokenStream",
]
