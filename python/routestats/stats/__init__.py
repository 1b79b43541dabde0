"""Statistics of routing counts and traces; one module per question."""

from routestats.stats._affinity import Affinity as Affinity
from routestats.stats._affinity import affinity as affinity
from routestats.stats._agreement import Agreement as Agreement
from routestats.stats._agreement import agreement as agreement
from routestats.stats._base.estimate import Estimate as Estimate
from routestats.stats._coactivation import Coactivation as Coactivation
from routestats.stats._coactivation import coactivation as coactivation
from routestats.stats._compare_domains.compare import DomainDifference as DomainDifference
from routestats.stats._compare_domains.compare import compare_domains as compare_domains
from routestats.stats._compare_domains.divergence import Divergence as Divergence
from routestats.stats._compare_domains.expert_difference import ExpertDifference as ExpertDifference
from routestats.stats._confidence import Calibration as Calibration
from routestats.stats._confidence import Confidence as Confidence
from routestats.stats._confidence import MarginCurve as MarginCurve
from routestats.stats._confidence import confidence as confidence
from routestats.stats._correlation import Correlation as Correlation
from routestats.stats._correlation import correlation as correlation
from routestats.stats._expert_load import ExpertLoad as ExpertLoad
from routestats.stats._expert_load import expert_load as expert_load
from routestats.stats._history.distribution import History as History
from routestats.stats._history.distribution import history as history
from routestats.stats._history.hits import HistoryHits as HistoryHits
from routestats.stats._history.hits import history_hits as history_hits
from routestats.stats._hop_accuracy.accuracy import HopAccuracy as HopAccuracy
from routestats.stats._hop_accuracy.accuracy import hop_accuracy as hop_accuracy
from routestats.stats._hop_accuracy.measure import HopMeasure as HopMeasure
from routestats.stats._hop_accuracy.measure import Prediction as Prediction
from routestats.stats._information.information import Information as Information
from routestats.stats._information.information import information as information
from routestats.stats._lookahead.hits import LookaheadHits as LookaheadHits
from routestats.stats._lookahead.hits import lookahead_hits as lookahead_hits
from routestats.stats._lookahead.lookahead import Lookahead as Lookahead
from routestats.stats._lookahead.lookahead import LookaheadMeasure as LookaheadMeasure
from routestats.stats._lookahead.lookahead import lookahead as lookahead
from routestats.stats._paths import Paths as Paths
from routestats.stats._paths import WindowPaths as WindowPaths
from routestats.stats._paths import paths as paths
from routestats.stats._repetition import Repetition as Repetition
from routestats.stats._repetition import repetition as repetition
from routestats.stats._segment_routing import SegmentRouting as SegmentRouting
from routestats.stats._segment_routing import segment_routing as segment_routing
from routestats.stats._specialization import Specialization as Specialization
from routestats.stats._specialization import specialization as specialization
from routestats.stats._speculation import Assumptions as Assumptions
from routestats.stats._speculation import Speculation as Speculation
from routestats.stats._speculation import SpeculationCase as SpeculationCase
from routestats.stats._speculation import speculation as speculation
from routestats.stats._timing.result import PartAgreement as PartAgreement
from routestats.stats._timing.result import StepGroup as StepGroup
from routestats.stats._timing.result import Timing as Timing
from routestats.stats._timing.timing import timing as timing
from routestats.stats._transfer import Transfer as Transfer
from routestats.stats._transfer import TransferMeasure as TransferMeasure
from routestats.stats._transfer import transfer as transfer

__all__ = [
    "Affinity",
    "Agreement",
    "Assumptions",
    "Calibration",
    "Coactivation",
    "Confidence",
    "Correlation",
    "Divergence",
    "DomainDifference",
    "Estimate",
    "ExpertDifference",
    "ExpertLoad",
    "History",
    "HistoryHits",
    "HopAccuracy",
    "HopMeasure",
    "Information",
    "Lookahead",
    "LookaheadHits",
    "LookaheadMeasure",
    "MarginCurve",
    "PartAgreement",
    "Paths",
    "Prediction",
    "Repetition",
    "SegmentRouting",
    "Specialization",
    "Speculation",
    "SpeculationCase",
    "StepGroup",
    "Timing",
    "Transfer",
    "TransferMeasure",
    "WindowPaths",
    "affinity",
    "agreement",
    "coactivation",
    "compare_domains",
    "confidence",
    "correlation",
    "expert_load",
    "history",
    "history_hits",
    "hop_accuracy",
    "information",
    "lookahead",
    "lookahead_hits",
    "paths",
    "repetition",
    "segment_routing",
    "specialization",
    "speculation",
    "timing",
    "transfer",
]
