"""Figure: what a MoE layer's time is made of, by kind of step and by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from routestats.plots._draw.style import (
    GREY,
    SERIES,
    join,
    new_figure,
    plain_axes,
    set_title,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from routestats.stats import Timing

PARTS = ("gate", "topk", "dispatch", "combine", "experts", "host")
NAMES = {"topk": "top-k", "host": "engine's own code between"}
LINES = 4
"""Kinds of steps that are drawn by layer."""
WIDE_ENOUGH = 5.0
"""Percent from which a part has its number in it."""


def timing(result: Timing, *, note: str = "") -> Figure:
    """Shares of the MoE layer per kind of step; routing, dispatch and combine per layer.

    Parameters
    ----------
    result : Timing
        From `routestats.stats.timing`.
    note : str
        Appended to the caption.

    Returns
    -------
    matplotlib.figure.Figure
        1,000 pixels wide.
    """
    figure = new_figure(3.4 + 0.32 * len(result.groups))
    bars, lines = figure.subplots(1, 2, width_ratios=[1.25, 1])
    plain_axes(bars)
    plain_axes(lines)
    places = np.arange(len(result.groups))
    left = np.zeros(len(places))
    shares = np.array(
        [[float(g.total_share_of_moe[part].value[0]) for g in result.groups] for part in PARTS]
    )
    shares *= 100 / shares.sum(axis=0)  # medians of shares, which do not quite add up
    for part, share, colour in zip(PARTS, shares, (*SERIES, GREY), strict=True):
        bars.barh(places, share, left=left, color=colour, label=NAMES.get(part, part))
        for place, start, width in zip(places, left, share, strict=True):
            if width >= WIDE_ENOUGH:
                bars.text(
                    start + width / 2, place, f"{width:.0f}", color="white", fontsize=9,
                    ha="center", va="center",
                )  # fmt: skip
        left = left + share
    bars.set_yticks(places, [group.label for group in result.groups], fontsize=8.5)
    bars.invert_yaxis()
    bars.set_xlim(0, 100)
    bars.set_xlabel("share of the MoE layer (%)", fontsize=10)
    bars.legend(fontsize=8, frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    layers = np.array(result.layer_ids)
    drawn = sorted(result.groups, key=lambda group: -group.steps)[:LINES]
    for group, colour in zip(drawn, SERIES, strict=False):
        value, low, high = (part * 100 for part in group.share_of_moe["overhead"])
        lines.plot(layers, value, "o-", ms=3, lw=1.3, color=colour, label=group.label)
        if not np.isnan(low).all():
            lines.fill_between(layers, low, high, color=colour, alpha=0.2, linewidth=0)
    lines.set_ylim(bottom=0)
    lines.set_xlabel("layer", fontsize=10)
    lines.set_ylabel("routing, dispatch and combine (%)", fontsize=10)
    lines.legend(fontsize=8, frameon=False)
    set_title(
        figure,
        "Where the time of a MoE layer goes",
        join(
            f"{result.model} on {result.engine.get('device', '?')}",
            f"{result.steps:,} steps, medians, {result.confidence:.0%} intervals",
            result.measured,
            f"by layer: the {LINES} kinds with the most steps"
            if len(result.groups) > LINES
            else "",
            note,
        ),
    )
    return figure
