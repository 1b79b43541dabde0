"""Everything that the report shows, computed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from routestats.counts import RouteCounts, count
from routestats.errors import RouteStatsError
from routestats.stats import ExpertLoad, HopAccuracy, expert_load, hop_accuracy
from routestats.trace import Trace, VerifyResult, verify

TEST_SHARE, SPLIT_SEED = 0.2, 0
PAIRING = "any"


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """Results of one run.

    Attributes
    ----------
    trace : Trace
    verification : VerifyResult
    counts : RouteCounts
        Hop 1 (none with a single layer), pairing `PAIRING`.
    load : ExpertLoad
    load_by_domain : dict of str to ExpertLoad
    accuracy : HopAccuracy or None
    accuracy_by_domain : dict of str to HopAccuracy
        Fitted on all domains, measured on one.
    no_accuracy : str
        Why `accuracy` is None.
    """

    trace: Trace
    verification: VerifyResult
    counts: RouteCounts
    load: ExpertLoad
    load_by_domain: dict[str, ExpertLoad]
    accuracy: HopAccuracy | None
    accuracy_by_domain: dict[str, HopAccuracy]
    no_accuracy: str


def analyse(trace: Trace, target: Any) -> Analysis:
    """Compute all results of `trace`; `target` (the run folder, or the trace) is verified.

    Raises
    ------
    InvalidValueError
        If the trace has no rows.
    """
    hops = (1,) if trace.shape.num_layers > 1 else (0,)
    by_domain = {
        domain: count(trace.filter(domain=domain), hops=hops, pairing=PAIRING)
        for domain in trace.domains
    }
    counts = RouteCounts.empty(trace.shape, hops=hops, pairing=PAIRING, layer_ids=trace.layer_ids)
    for part in by_domain.values():
        counts = counts + part
    accuracy, accuracy_by_domain, reason = _predict(trace)
    return Analysis(
        trace=trace,
        verification=verify(target),
        counts=counts,
        load=expert_load(counts),
        load_by_domain={d: expert_load(part) for d, part in by_domain.items() if part.tokens},
        accuracy=accuracy,
        accuracy_by_domain=accuracy_by_domain,
        no_accuracy=reason,
    )


def _predict(trace: Trace) -> tuple[HopAccuracy | None, dict[str, HopAccuracy], str]:
    if trace.shape.num_layers < 2:
        return None, {}, "The model has one MoE layer: there is no later layer to predict."
    prompts = len(set(trace.row_groups().tolist()))
    if prompts < 2:
        return (
            None,
            {},
            (
                "Not computed: the run has one prompt only, and a prediction is measured on "
                "prompts it was not fitted on."
            ),
        )
    try:
        train, test = trace.split(test=TEST_SHARE, seed=SPLIT_SEED)
        fitted = count(train, hops=range(1, trace.shape.num_layers), pairing=PAIRING)
        top1 = bool(trace.ordered)
        overall = hop_accuracy(fitted, test, PAIRING, top1=top1)
        each = {}
        if len(overall.domains) > 1:
            for domain in overall.domains:
                each[domain] = hop_accuracy(fitted, test.filter(domain=domain), PAIRING, top1=top1)
    except RouteStatsError as error:
        return None, {}, f"Not computed: the run cannot be split into two parts ({error})."
    return overall, each, ""
