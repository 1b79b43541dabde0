"""Everything that the report shows, computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar, overload

from routestats.counts import PathCounts, RouteCounts, count
from routestats.errors import RouteStatsError
from routestats.stats import (
    Coactivation,
    Confidence,
    Correlation,
    DomainDifference,
    ExpertLoad,
    HopAccuracy,
    Information,
    Lookahead,
    Paths,
    Repetition,
    SegmentRouting,
    Specialization,
    Speculation,
    Timing,
    Transfer,
)
from routestats.trace import Trace, VerifyResult

TEST_SHARE, SPLIT_SEED = 0.2, 0
PAIRING = "any"

Found = TypeVar("Found")


class Work:
    """A trace while it is analysed, and what several parts need of it, each made once.

    Attributes
    ----------
    trace : Trace
    results : dict of str to Any
        What the parts before this one found, by part.
    missing : dict of str to str
        Why something could not be computed, by its name.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.results: dict[str, Any] = {}
        self.missing: dict[str, str] = {}

    @cached_property
    def split(self) -> tuple[Trace, Trace]:
        """What predictions are fitted on, and what they are measured on."""
        return self.trace.split(test=TEST_SHARE, seed=SPLIT_SEED)

    @cached_property
    def counts(self) -> RouteCounts:
        """All hops, pairing `PAIRING`."""
        return count(self.trace, hops="all", pairing=PAIRING)

    @cached_property
    def domain_counts(self) -> dict[str, RouteCounts]:
        """Experts of each domain, pairing `PAIRING`."""
        return {
            domain: count(self.trace.filter(domain=domain), hops=(), pairing=PAIRING)
            for domain in self.trace.domains
        }

    @property
    def several_layers(self) -> bool:
        return self.trace.shape.num_layers > 1

    def attempt(self, name: str, compute: Callable[[], Found]) -> Found | None:
        """What `compute` gives; None, and a note of why, where it cannot be computed."""
        try:
            return compute()
        except RouteStatsError as error:
            self.missing[name] = str(error)
            return None


class Predicted(NamedTuple):
    """What was measured of predictors; see `Analysis`."""

    accuracy: HopAccuracy
    first_choices: HopAccuracy | None
    by_domain: dict[str, HopAccuracy]


class _Of(Generic[Found]):
    """Attribute of an analysis: what the part of that name found."""

    def __init__(self, part: str) -> None:
        self.part = part

    @overload
    def __get__(self, analysis: None, owner: type) -> _Of[Found]: ...
    @overload
    def __get__(self, analysis: Analysis, owner: type) -> Found: ...
    def __get__(self, analysis: Analysis | None, owner: type) -> Any:
        return self if analysis is None else analysis.results.get(self.part)


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """Results of one run. A part that could not be computed is None, and `missing` says why.

    Attributes
    ----------
    trace : Trace
    counts : RouteCounts
        All hops, pairing `PAIRING`.
    results : dict of str to Any
        What every part of the report found, by the part's name; the attributes below look there.
    missing : dict of str to str
    verification : VerifyResult
    load : ExpertLoad
    load_by_domain : dict of str to ExpertLoad
    accuracy : HopAccuracy or None
        All predictors, fitted and measured on all domains; pairing `PAIRING`, so that they learn
        which experts a later layer's set holds.
    first_choices : HopAccuracy or None
        The same with pairing ``top1``: they learn its first choice, and are to be compared there.
        None where first choices are not known.
    accuracy_by_domain : dict of str to HopAccuracy
        Single hop, fitted on all domains, measured on one.
    information : Information or None
        Of some hops; first choices where they are known.
    paths : dict of str to Paths
        By kind, ``top1`` and ``set``.
    flow : PathCounts or None
        The most frequent paths of first choices themselves.
    differences : tuple of DomainDifference
        Pairs of domains within each phase.
    transfer : Transfer or None
        Of two domains.
    repetition : Repetition or None
    segments : SegmentRouting or None
    correlation : Correlation or None
    coactivation : Coactivation or None
    specialization : Specialization or None
    lookahead, confidence : Lookahead, Confidence or None
        Of a run that was captured with lookahead.
    timing, speculation : Timing, Speculation or None
        Of a run that was timed.
    """

    trace: Trace
    counts: RouteCounts
    results: dict[str, Any]
    missing: dict[str, str]

    verification = _Of[VerifyResult]("verification")
    load = _Of[ExpertLoad]("load")
    load_by_domain = _Of[dict[str, ExpertLoad]]("load by domain")
    predicted = _Of[Predicted | None]("prediction")
    information = _Of[Information | None]("information")
    paths = _Of[dict[str, Paths]]("paths")
    flow = _Of[PathCounts | None]("most frequent paths")
    differences = _Of[tuple[DomainDifference, ...]]("domains")
    transfer = _Of[Transfer | None]("transfer")
    repetition = _Of[Repetition | None]("repetition")
    segments = _Of[SegmentRouting | None]("segment routing")
    correlation = _Of[Correlation | None]("correlation")
    coactivation = _Of[Coactivation | None]("co-activation")
    specialization = _Of[Specialization | None]("specialization")
    timing = _Of[Timing | None]("timing")
    lookahead = _Of[Lookahead | None]("lookahead")
    confidence = _Of[Confidence | None]("confidence of gates")
    speculation = _Of[Speculation | None]("speculation")

    @property
    def accuracy(self) -> HopAccuracy | None:
        return None if self.predicted is None else self.predicted.accuracy

    @property
    def first_choices(self) -> HopAccuracy | None:
        return None if self.predicted is None else self.predicted.first_choices

    @property
    def accuracy_by_domain(self) -> dict[str, HopAccuracy]:
        return {} if self.predicted is None else self.predicted.by_domain

    @property
    def of_first_choice(self) -> HopAccuracy | None:
        """Where top-1 accuracy is to be read: predictors that learn first choices, if any do."""
        return self.first_choices or self.accuracy
