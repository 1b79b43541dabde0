"""Figure: what predicting routing could gain, by how often it is right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from routestats.plots._draw.predictors import NOT_DRAWN, OVERFITTED, predictor_point
from routestats.plots._draw.style import (
    DARK,
    GREY,
    join,
    new_figure,
    plain_axes,
    set_title,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from routestats.stats import Speculation

SHARES = (0.1, 0.3, 0.592)
"""Shares of the MoE block that the lines beside the measured one assume; the last is cited."""


def speculation(result: Speculation, *, note: str = "") -> Figure:
    """Speed-up against recall for several shares of preparing; the measured points on it.

    Parameters
    ----------
    result : Speculation
        From `routestats.stats.speculation`.
    note : str
        Appended to the caption.

    Returns
    -------
    matplotlib.figure.Figure
        1,000 pixels wide.
    """
    figure = new_figure(5.6)
    axes = figure.add_subplot()
    plain_axes(axes)
    recall = np.linspace(0, 1, 101)
    # Grey, as colours are of predictors.
    for share, style in zip(SHARES, (":", "-.", "--"), strict=True):
        cited = " (cited for 8 GPUs)" if share == SHARES[-1] else ""
        gains = [result.speed_up_at(float(x), share) for x in recall]
        axes.plot(recall * 100, gains, style, color=GREY, lw=1.4,
                  label=f"if it took {share:.0%} of the MoE layer{cited}")  # fmt: skip
    measured = result.prepared_ns / result.moe_ns
    own = [result.speed_up_at(float(x)) for x in recall]
    axes.plot(recall * 100, own, color=DARK, lw=2, label=f"measured: {measured:.1%}")
    points = [case for case in result.cases if case.hop == 1 and case.over_fetch == result.top_k]
    for case in sorted(points, key=lambda case: -case.recall):
        if case.predictor != OVERFITTED:
            gain = f": {case.speed_up:.3f}"
            predictor_point(axes, case.predictor, case.recall * 100, case.speed_up, label=gain)
    overfits = NOT_DRAWN if OVERFITTED in (case.predictor for case in points) else ""
    axes.axhline(1.0, color=GREY, lw=1)
    axes.set_xlabel(f"recall@{result.top_k} one layer ahead (%)", fontsize=10)
    axes.set_ylabel("speed-up of a decoder layer", fontsize=10)
    axes.legend(fontsize=8.5, frameon=False, ncols=2)
    chosen, best = result.assumptions, result.best
    set_title(
        figure,
        f"Preparing {' and '.join(chosen.hides)} early: {best.speed_up:.3f} times as fast at best, "
        f"{result.bound:.3f} if it were always right",
        join(
            f"{result.model}, {result.steps}",
            f"prepared early: {', '.join(chosen.hides)}",
            f"overlap {chosen.overlap:g}, miss {chosen.miss_ns:g} ns, fetch {chosen.fetch_ns:g} ns",
            overfits,
            note,
        ),
    )
    return figure
