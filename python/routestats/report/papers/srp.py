"""Segment routing best performance over 16 tokens, of many models."""

from __future__ import annotations

from routestats.report._segments import check_segments
from routestats.report.papers import published
from routestats.report.papers.table import PaperRow, PaperTable
from routestats.stats import segment_routing
from routestats.stats._base.estimate import Estimate
from routestats.trace import Trace


def srp(trace: Trace) -> PaperTable:
    """This model among those of the paper.

    Raises
    ------
    InvalidValueError
        If no request has as many consecutive tokens as the paper's segments.
    """
    check_segments("table srp", trace, published.SRP_TOKENS, whose="the paper's")
    found = segment_routing(trace, m=published.SRP_TOKENS)

    def row(name: str, estimate: Estimate) -> PaperRow:
        value, low, high = ((float(part) * 100,) for part in estimate)
        return PaperRow("measured", name, value, low, high)

    info = trace.info.get("model")
    name = str(info.get("name", "this model")) if isinstance(info, dict) else "this model"
    rows = [
        row(name, found.srp),
        PaperRow("random", "its tokens permuted", (found.permuted_srp * 100,)),
        *(PaperRow("published", model, (value,)) for model, value in published.SRP.items()),
    ]
    return PaperTable(
        name="srp",
        title=f"Segment routing best performance over {published.SRP_TOKENS} tokens",
        source=published.OFFLOADING,
        unit="F1, %",
        columns=("SRP",),
        rows=tuple(rows),
        notes=(
            f"Here {found.windows:,} windows of {len(trace):,} tokens; the paper's corpus has "
            "22,528 texts of 512 tokens.",
            "A model with a larger K / E scores higher by that alone: compare with the permuted "
            "tokens.",
            f"Interval: {found.confidence:.0%}, prompt groups resampled (seed {found.seed}).",
        ),
    )
