"""Statistics of routing counts and traces; one module per question."""

from routestats.stats._affinity import Affinity as Affinity
from routestats.stats._affinity import affinity as affinity
from routestats.stats._domains import Divergence as Divergence
from routestats.stats._domains import DomainDifference as DomainDifference
from routestats.stats._domains import compare_domains as compare_domains
from routestats.stats._expert_load import ExpertLoad as ExpertLoad
from routestats.stats._expert_load import expert_load as expert_load
from routestats.stats._hop_accuracy import HopAccuracy as HopAccuracy
from routestats.stats._hop_accuracy import HopMeasure as HopMeasure
from routestats.stats._hop_accuracy import hop_accuracy as hop_accuracy
from routestats.stats._information import Information as Information
from routestats.stats._information import information as information
from routestats.stats._intervals import Estimate as Estimate
from routestats.stats._paths import Paths as Paths
from routestats.stats._paths import WindowPaths as WindowPaths
from routestats.stats._paths import paths as paths

__all__ = [
    "Affinity",
    "Divergence",
    "DomainDifference",
    "Estimate",
    "ExpertLoad",
    "HopAccuracy",
    "HopMeasure",
    "Information",
    "Paths",
    "WindowPaths",
    "affinity",
    "compare_domains",
    "expert_load",
    "hop_accuracy",
    "information",
    "paths",
]
