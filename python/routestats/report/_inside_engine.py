"""Sections on what was measured inside the engine: gate weights, lookahead, times, the verdict."""

from __future__ import annotations

from routestats.report import _html as html
from routestats.report._analysis import Analysis
from routestats.report._cells import Cell, number, percent, share
from routestats.report._claim import claim_check
from routestats.report._figures import Pictures
from routestats.stats import StepGroup
from routestats.stats._timing.result import HOST, MOE_STAGES


def timing_section(analysis: Analysis, pictures: Pictures) -> list[str]:
    """Where the time of a MoE layer goes, beside what is cited."""
    found = analysis.timing
    if found is None:
        return []
    body = [
        html.heading(2, "Where the time of a MoE layer goes", "timing"),
        *(html.paragraph(line) for line in claim_check(found)),
        pictures.html("timing"),
        _stages_table(found.groups, found.confidence),
        html.paragraph(
            f"{found.outside_stages:.1%} of all MoE time is the engine's own code on the way from "
            f"one stage to the next ({', '.join(HOST)})."
        ),
    ]
    if found.unexplained is not None:
        body.append(
            html.paragraph(
                f"All parts together leave {found.unexplained:.1%} unexplained of what the MoE "
                "layers took in steps that were clocked from outside alone: "
                + "; ".join(
                    f"{group.label} {group.unexplained.text(0)}"
                    for group in found.groups
                    if group.unexplained is not None
                )
                + f". {found.call_ns:,.0f} ns have been taken off for each clocked call."
            )
        )
    if found.clock_cost is not None:
        body.append(
            html.paragraph(
                "The clocks themselves cost "
                f"{float(found.clock_cost.value[0]) - 1:+.1%} of the time "
                f"(median of {found.clock_pairs} pairs)."
            )
        )
    if found.agreement:
        of = {(part.group, part.part): part for part in found.agreement}
        groups = list(dict.fromkeys(part.group for part in found.agreement))
        shares = [
            (
                group,
                *(f"{of[group, p].hooks:.1%} / {of[group, p].profiler:.1%}" for p in MOE_STAGES),
            )
            for group in groups
        ]
        verdict = "agree" if found.agrees else "do not agree"
        body.append(
            html.table(
                "profiler",
                ("Steps", *MOE_STAGES),
                shares,
                caption="Shares of the MoE layer by hooks / by torch.profiler: the two "
                f"{verdict} within 15 %.",
            )
        )
    return body


def _stages_table(groups: tuple[StepGroup, ...], confidence: float) -> str:
    rows: list[html.Row] = [
        (
            group.label,
            number(group.steps),
            *(percent(group.total_share_of_moe[part], 0) for part in (*MOE_STAGES, "overhead")),
            percent(group.total_share_of_layer["overhead"], 0),
        )
        for group in groups
    ]
    return html.table(
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


def lookahead_section(analysis: Analysis, pictures: Pictures) -> list[str]:
    """Gates of later layers on this layer's hidden state."""
    found = analysis.lookahead
    if found is None:
        return []
    recall = found.recall
    rows: list[html.Row] = [
        ("uniform guess", *(share(recall.uniform) for _ in found.hops)),
        ("marginal", *(percent(recall.marginal_by_hop, hop - 1) for hop in found.hops)),
    ]
    for prediction in recall.predictions:
        cells: list[Cell] = [percent(prediction.by_hop, hop - 1) for hop in found.hops]
        rows.append((prediction.label, *cells))
    return [
        html.heading(2, "How far ahead a gate can see", "lookahead"),
        html.paragraph(
            "Gates of later layers, applied to the hidden state that enters this layer's experts: "
            "as it is, and with the later layer's own norm before it (renormed). "
            f"{found.tokens:,} tokens of {found.groups:,} held-out prompts; nothing is fitted but "
            "the marginal."
        ),
        html.table(
            "lookahead",
            (recall.label, *(f"{hop} ahead" for hop in found.hops)),
            rows,
            caption=f"Mean over the layer pairs of a hop, {found.confidence:.0%} intervals by "
            "prompt.",
        ),
        pictures.html("lookahead"),
        pictures.html("confidence"),
    ]


def speculation_section(analysis: Analysis, pictures: Pictures) -> list[str]:
    """Whether preparing a later layer early could pay."""
    judged = analysis.speculation
    if judged is None:
        return []
    cases = sorted(judged.cases, key=lambda case: -case.speed_up)
    rows: list[html.Row] = [
        (
            case.predictor,
            number(case.hop),
            number(case.over_fetch),
            share(case.recall),
            share(case.break_even_recall),
            number(case.speed_up, ".4f"),
        )
        for case in cases
    ]
    chosen = judged.assumptions
    return [
        html.heading(2, "Whether speculation can pay", "speculation"),
        html.paragraph(judged.verdict),
        pictures.html("speculation"),
        html.details(
            f"All {len(rows)} cases, in numbers",
            html.table(
                "speculation",
                ("Predictor", "Hop", "Experts prepared", "Recall", "Break-even", "Speed-up"),
                rows,
                caption=f"{judged.steps}: {judged.layer_ns / 1e3:.1f} µs per layer, of which "
                f"{', '.join(chosen.hides)} takes {judged.prepared_ns / 1e3:.2f} µs; at most "
                f"{judged.bound:.4f} times as fast. Assumed: overlap {chosen.overlap:g}, a miss "
                f"costs {chosen.miss_ns:g} ns more, fetching {chosen.fetch_ns:g} ns, a prediction "
                f"{chosen.predict_ns:g} ns.",
            ),
        ),
    ]
