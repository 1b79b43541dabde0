"""Everything that the report shows, computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeVar

import numpy as np

from routestats.counts import PathCounts, RouteCounts, count, count_paths
from routestats.errors import RouteStatsError
from routestats.report._limits import affinity_pairs, null_draws
from routestats.schema import PHASES
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
    coactivation,
    compare_domains,
    confidence,
    correlation,
    expert_load,
    hop_accuracy,
    information,
    lookahead,
    paths,
    repetition,
    segment_routing,
    specialization,
    speculation,
    timing,
    transfer,
)
from routestats.trace import Trace, VerifyResult, verify
from routestats.trace.timings import timing_sources

TEST_SHARE, SPLIT_SEED = 0.2, 0
PAIRING = "any"
HOPS_SHOWN = (1, 2, 4, 8, 16, 31)
# Predictors whose accuracy is also shown for each domain alone.
QUICK = ("marginal", "single_hop")
MAX_DOMAIN_PAIRS = 6
SEGMENT = 16
FLOW_PATHS = 12

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """Results of one run. A part that could not be computed is None, and `missing` says why.

    Attributes
    ----------
    trace : Trace
    verification : VerifyResult
    counts : RouteCounts
        All hops, pairing `PAIRING`.
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
        Of the hops `HOPS_SHOWN`; first choices where they are known.
    paths : dict of str to Paths
        By kind, ``top1`` and ``set``.
    flow : PathCounts or None
        The most frequent paths of first choices themselves.
    differences : tuple of DomainDifference
        Each pair of domains within each phase.
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
    missing : dict of str to str
    """

    trace: Trace
    verification: VerifyResult
    counts: RouteCounts
    load: ExpertLoad
    load_by_domain: dict[str, ExpertLoad]
    accuracy: HopAccuracy | None
    first_choices: HopAccuracy | None
    accuracy_by_domain: dict[str, HopAccuracy]
    information: Information | None
    paths: dict[str, Paths]
    flow: PathCounts | None
    differences: tuple[DomainDifference, ...]
    transfer: Transfer | None
    repetition: Repetition | None
    segments: SegmentRouting | None
    correlation: Correlation | None
    coactivation: Coactivation | None
    specialization: Specialization | None
    lookahead: Lookahead | None
    confidence: Confidence | None
    timing: Timing | None
    speculation: Speculation | None
    missing: dict[str, str]

    @property
    def of_first_choice(self) -> HopAccuracy | None:
        """Where top-1 accuracy is to be read: predictors that learn first choices, if any do."""
        return self.first_choices or self.accuracy


def analyse(trace: Trace, target: Any) -> Analysis:
    """Compute all results of `trace`; `target` (the run folder, or the trace) is verified.

    Raises
    ------
    InvalidValueError
        If the trace has no rows.
    """
    missing: dict[str, str] = {}

    def part(name: str, compute: Callable[[], Part]) -> Part | None:
        try:
            return compute()
        except RouteStatsError as error:
            missing[name] = str(error)
            return None

    # Before the counts of all pairs: it counts as many for itself, and lets go of them.
    accuracy, first_choices, accuracy_by_domain = _predict(trace, missing)
    counts = count(trace, hops="all", pairing=PAIRING)
    by_domain = {
        domain: count(trace.filter(domain=domain), hops=(), pairing=PAIRING)
        for domain in trace.domains
    }
    several = trace.shape.num_layers > 1
    ahead = sure = timed = judged = None
    if trace.lookahead is not None:
        ahead = part("lookahead", lambda: _look_ahead(trace))
        if several and trace.has_weights and trace.ordered:
            sure = part("gates' confidence", lambda: confidence(trace, hop=1))
    if trace.path is not None and timing_sources(trace.path):
        timed = part("timing", lambda: _time(trace))
    if timed is not None and several and any(group.phase == "decode" for group in timed.groups):
        judged = part("speculation", lambda: _judge(trace, timed, accuracy))
    pairs = list(combinations(trace.domains, 2))[:MAX_DOMAIN_PAIRS]
    return Analysis(
        trace=trace,
        verification=verify(target),
        counts=counts,
        load=expert_load(counts),
        load_by_domain={d: expert_load(part) for d, part in by_domain.items() if part.tokens},
        accuracy=accuracy,
        first_choices=first_choices,
        accuracy_by_domain=accuracy_by_domain,
        information=part("information", lambda: _inform(trace)) if several else None,
        paths=_paths(trace, missing),
        flow=count_paths(trace, top=FLOW_PATHS) if trace.ordered else None,
        differences=_differences(trace, pairs, missing),
        transfer=(
            part("transfer", lambda: transfer(trace, top1=trace.ordered))
            if len(trace.domains) == 2 and several
            else None
        ),
        repetition=part("repetition", lambda: repetition(trace, top1=trace.ordered)),
        segments=part("segment routing", lambda: segment_routing(trace, m=SEGMENT)),
        correlation=part("correlation", lambda: correlation(counts)) if several else None,
        coactivation=(
            part("co-activation", lambda: coactivation(counts)) if trace.shape.top_k > 1 else None
        ),
        specialization=part("specialization", lambda: specialization(trace)),
        lookahead=ahead,
        confidence=sure,
        timing=timed,
        speculation=judged,
        missing=missing,
    )


def _predict(
    trace: Trace, missing: dict[str, str]
) -> tuple[HopAccuracy | None, HopAccuracy | None, dict[str, HopAccuracy]]:
    if trace.shape.num_layers < 2:
        missing["prediction"] = "the model has one MoE layer: there is no later layer to predict"
        return None, None, {}
    if len(np.unique(trace.row_groups())) < 2:
        missing["prediction"] = (
            "the run has one prompt only, and a prediction is measured on prompts it was not "
            "fitted on"
        )
        return None, None, {}
    try:
        train, test = trace.split(test=TEST_SHARE, seed=SPLIT_SEED)
        top1 = bool(trace.ordered)
        overall = hop_accuracy(train, test, PAIRING, top1=top1)
        first = hop_accuracy(train, test, "top1") if top1 else None
        each = {}
        if len(overall.domains) > 1:
            fitted = count(train, hops=range(1, trace.shape.num_layers), pairing=PAIRING)
            for domain in overall.domains:
                side = test.filter(domain=domain)
                each[domain] = hop_accuracy(fitted, side, PAIRING, predictors=QUICK, top1=top1)
    except RouteStatsError as error:
        missing["prediction"] = f"the run cannot be split into two parts ({error})"
        return None, None, {}
    return overall, first, each


def _inform(trace: Trace) -> Information:
    hops = [hop for hop in HOPS_SHOWN if hop < trace.shape.num_layers]
    pairing = "top1" if trace.ordered else "any"
    return information(trace, pairing, hops=hops, null_draws=null_draws(trace.shape))


def _look_ahead(trace: Trace) -> Lookahead:
    train, test = trace.split(test=TEST_SHARE, seed=SPLIT_SEED)
    return lookahead(test, train=train, top1=trace.ordered)


def _judge(trace: Trace, timed: Timing, accuracy: HopAccuracy | None) -> Speculation:
    # Of the held-out prompts, on which the other accuracies were measured.
    _, test = trace.split(test=TEST_SHARE, seed=SPLIT_SEED)
    return speculation(test, timed, accuracy=accuracy)


def _time(trace: Trace) -> Timing:
    assert trace.path is not None
    return timing(trace, source=timing_sources(trace.path)[0])


def _paths(trace: Trace, missing: dict[str, str]) -> dict[str, Paths]:
    found = {}
    for kind in ("top1", "set"):
        try:
            found[kind] = paths(trace, kind=kind)
        except RouteStatsError as error:
            missing[f"paths, {kind}"] = str(error)
    return found


def _differences(
    trace: Trace, pairs: list[tuple[str, str]], missing: dict[str, str]
) -> tuple[DomainDifference, ...]:
    found = []
    adjacent = affinity_pairs(trace.shape)
    for first, second in pairs:
        for phase in PHASES:
            try:
                found.append(compare_domains(trace, first, second, phase=phase, pairs=adjacent))
            except RouteStatsError as error:
                missing[f"{first} against {second}, {phase}"] = str(error)
    return tuple(found)
