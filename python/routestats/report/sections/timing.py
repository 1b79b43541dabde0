"""Where the time of a MoE layer goes."""

from __future__ import annotations

from collections.abc import Iterator

from routestats import plots
from routestats.report import _blocks as page
from routestats.report._analysis import Analysis, Work
from routestats.report._blocks import number, percent
from routestats.report._part import Drawing, Finding, Part
from routestats.report.papers.claim import claim_check
from routestats.report.papers.published import CITED_RANGE
from routestats.stats import StepGroup, Timing, timing
from routestats.stats._timing.result import HOST, MOE_STAGES
from routestats.trace.timings import timing_sources


class TimingPart(Part[Timing]):
    """Shares of the MoE layer's time by stage, beside what is cited."""

    name = "timing"

    def compute(self, work: Work) -> Timing | None:
        trace = work.trace
        sources = timing_sources(trace.path) if trace.path is not None else ()
        if not sources:
            return None
        return work.attempt(self.name, lambda: timing(trace, source=sources[0]))

    def figures(self, found: Timing, analysis: Analysis) -> Iterator[Drawing]:
        yield Drawing(
            "timing",
            lambda: plots.timing(found),
            "Shares of a MoE layer's time by stage",
            f"Measured: {found.measured}.",
        )

    def findings(self, analysis: Analysis) -> Iterator[Finding]:
        timed = analysis.timing
        if timed is None or not timed.groups:
            return
        decode = [group for group in timed.groups if group.phase == "decode"] or timed.groups
        group = max(decode, key=lambda group: group.steps)
        low, high = CITED_RANGE
        yield Finding(
            "What does routing cost?",
            f"{percent(group.total_share_of_moe['overhead'], 0).text} of the MoE layer’s time",
            f"is routing, dispatch and combine ({group.label}, {group.steps:,} steps; "
            f"{percent(group.total_share_of_layer['overhead'], 0).text} of the decoder layer). "
            f"Cited for large deployments: {low:.0f}-{high:.0f} %, communication included.",
        )

    def sections(self, analysis: Analysis) -> dict[str, list[page.Block]]:
        found = analysis.timing
        if found is None:
            return {}
        return {
            "timing": [
                page.Paragraph(f"What is measured: {found.measured}."),
                *(page.Paragraph(line) for line in claim_check(found)),
                page.Image("timing"),
                _stages_table(found.groups, found.confidence),
                *_remainders(found),
                *_agreement(found),
            ]
        }


def _stages_table(groups: tuple[StepGroup, ...], confidence: float) -> page.Block:
    rows: list[page.Row] = [
        (
            group.label,
            number(group.steps),
            *(percent(group.total_share_of_moe[part], 0) for part in (*MOE_STAGES, "overhead")),
            percent(group.total_share_of_layer["overhead"], 0),
        )
        for group in groups
    ]
    return page.Table(
        "stages",
        (
            "Steps of",
            "Steps",
            *MOE_STAGES,
            "Routing, dispatch, combine",
            "The same, of the decoder layer",
        ),
        rows,
        caption=f"Shares of the MoE layer's time, medians over steps with {confidence:.0%} "
        "intervals.",
    )


def _remainders(found: Timing) -> list[page.Block]:
    """What no stage explains, and what the clocks cost."""
    texts = [
        f"{found.outside_stages:.1%} of all MoE time is the engine's own code on the way from "
        f"one stage to the next ({', '.join(HOST)})."
    ]
    if found.unexplained is not None:
        each = "; ".join(
            f"{group.label} {group.unexplained.text(0)}"
            for group in found.groups
            if group.unexplained is not None
        )
        texts.append(
            f"All parts together leave {found.unexplained:.1%} unexplained of what the MoE layers "
            f"took in steps that were clocked from outside alone: {each}. {found.call_ns:,.0f} ns "
            "have been taken off for each clocked call."
        )
    if found.clock_cost is not None:
        texts.append(
            f"The clocks themselves cost {float(found.clock_cost.value[0]) - 1:+.1%} of the time "
            f"(median of {found.clock_pairs} pairs)."
        )
    return [page.Paragraph(text) for text in texts]


def _agreement(found: Timing) -> list[page.Block]:
    """What torch.profiler says of the same parts."""
    if not found.agreement:
        return []
    of = {(part.group, part.part): part for part in found.agreement}
    groups = list(dict.fromkeys(part.group for part in found.agreement))
    shares = [
        (group, *(f"{of[group, p].hooks:.1%} / {of[group, p].profiler:.1%}" for p in MOE_STAGES))
        for group in groups
    ]
    verdict = "agree" if found.agrees else "do not agree"
    return [
        page.Table(
            "profiler",
            ("Steps", *MOE_STAGES),
            shares,
            caption="Shares of the MoE layer by hooks / by torch.profiler: the two "
            f"{verdict} within 15 %.",
        )
    ]
