"""Statistics of routing counts and traces; one module per question."""

from routestats.stats._affinity import Affinity as Affinity
from routestats.stats._affinity import affinity as affinity
from routestats.stats._domains import Divergence as Divergence
from routestats.stats._domains import DomainDifference as DomainDifference
from routestats.stats._domains import compare_domains as compare_domains
from routestats.stats._expert_load import ExpertLoad as ExpertLoad
from routestats.stats._expert_load import expert_load as expert_load
from routestats.stats._history import History as History
from routestats.stats._history import history as history
from routestats.stats._history_hits import HistoryHits as HistoryHits
from routestats.stats._history_hits import history_hits as history_hits
from routestats.stats._hop_accuracy import HopAccuracy as HopAccuracy
from routestats.stats._hop_accuracy import HopMeasure as HopMeasure
from routestats.stats._hop_accuracy import hop_accuracy as hop_accuracy
from routestats.stats._information import Information as Information
from routestats.stats._information import information as information
from routestats.stats._intervals import Estimate as Estimate

__all__ = [
    "Affinity",
    "Divergence",
    "DomainDifference",
    "Estimate",
    "ExpertLoad",
    "History",
    "HistoryHits",
    "HopAccuracy",
    "HopMeasure",
    "Information",
    "affinity",
    "compare_domains",
    "expert_load",
    "history",
    "history_hits",
    "hop_accuracy",
    "information",
]
