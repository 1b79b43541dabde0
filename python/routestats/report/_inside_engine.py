"""Sections on what was measured inside the engine: gate weights, lookahead, times, the verdict."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from routestats import plots, stats
from routestats.report import _html as html
from routestats.report._claim import claim_check
from routestats.stats._timing_result import FIVE, HOST, with_bounds
from routestats.trace import Trace
from routestats.trace.timings import timing_sources

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PNG_DPI = 150


def inside_engine(trace: Trace) -> list[str]:
    """HTML of the sections that this trace has something for; none for a plain one."""
    body: list[str] = []
    if trace.lookahead is not None:
        body += _lookahead(trace)
    if trace.path is not None and timing_sources(trace.path):
        body += _timing(trace)
    return body


def _lookahead(trace: Trace) -> list[str]:
    train, test = trace.split(test=0.2, seed=0)
    found = stats.lookahead(test, train=train, top1=trace.ordered)
    recall = found.recall
    rows = []
    for name, at in [
        ("uniform guess", [f"{recall.uniform:.1%}"] * len(found.hops)),
        ("marginal", [_percent(recall.marginal_by_hop, hop) for hop in found.hops]),
        *((p.label, [_percent(p.by_hop, hop) for hop in found.hops]) for p in recall.predictions),
    ]:
        rows.append((name, *at))
    body = [
        html.heading(2, "How far ahead a gate can see"),
        html.paragraph(
            "Gates of later layers, applied to the hidden state that enters this layer's experts: "
            "as it is, and with the later layer's own norm before it (renormed). "
            f"{found.tokens:,} tokens of {found.groups:,} held-out prompts; nothing is fitted but "
            "the marginal."
        ),
        html.table(
            (recall.label, *(f"{hop} ahead" for hop in found.hops)),
            rows,
            caption="Mean over the layer pairs of a hop, 95 % intervals by prompt.",
        ),
        _picture(plots.lookahead(found), "Recall by distance"),
    ]
    if trace.has_weights and trace.ordered and found.hops[0] < trace.shape.num_layers:
        sure = stats.confidence(trace, hop=found.hops[0])
        body += [_picture(plots.confidence(sure), "Gate weights and predictability by margin")]
    return body


def _timing(trace: Trace) -> list[str]:
    assert trace.path is not None
    source = "hooks" if "hooks" in timing_sources(trace.path) else "profiler"
    found = stats.timing(trace, source=source)
    lines = claim_check(found)
    body = [
        html.heading(2, "Where the time of a MoE layer goes"),
        _picture(plots.timing(found), "Shares of a MoE layer's time by stage", found.clock),
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
                    f"{group.label} {with_bounds(group.unexplained)}"
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
                *(f"{of[group, p].hooks:.1%} / {of[group, p].profiler:.1%}" for p in FIVE),
            )
            for group in groups
        ]
        verdict = "agree" if found.agrees else "do not agree"
        body.append(
            html.table(
                ("steps", *FIVE),
                shares,
                caption="Shares of the MoE layer by hooks / by torch.profiler: the two "
                f"{verdict} within 15 %.",
            )
        )
    body += [html.paragraph(line) for line in lines]
    if trace.shape.num_layers > 1 and any(group.phase == "decode" for group in found.groups):
        judged = stats.speculation(trace, found)
        body += [
            html.heading(2, "Whether speculation can pay"),
            html.paragraph(judged.verdict),
            _picture(plots.speculation(judged), "Speed-up by recall"),
        ]
    return body


def _percent(estimate: stats.Estimate, hop: int) -> str:
    value, low, high = (float(part[hop - 1]) for part in estimate)
    return f"{value:.1%}" if low != low else f"{value:.1%} [{low:.1%}, {high:.1%}]"


def _picture(figure: Figure, alt: str, caption: str = "") -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=PNG_DPI)
    return html.image(buffer.getvalue(), alt, caption)
