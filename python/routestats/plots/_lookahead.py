"""Figure: recall of later gates by distance, with the predictors that count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from routestats.plots._predictor_lines import LOOKS
from routestats.plots._style import (
    GREY,
    join,
    new_figure,
    plain_axes,
    set_title,
)

HIDDEN = ("uniform", "history_longest")
"""A line of its own, and the one that overfits and lies on the selected."""

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from routestats.stats import HopAccuracy, Lookahead


def lookahead(
    result: Lookahead,
    accuracy: HopAccuracy | None = None,
    *,
    measure: str | None = None,
    note: str = "",
) -> Figure:
    """One measure by distance: later gates, and the predictors of `accuracy` on the same axes.

    Parameters
    ----------
    result : Lookahead
        From `routestats.stats.lookahead`.
    accuracy : HopAccuracy, optional
        Of the same test tokens.
    measure : str, optional
        Default recall at K.
    note : str
        Appended to the caption.

    Returns
    -------
    matplotlib.figure.Figure
        1,000 pixels wide.

    Raises
    ------
    InvalidValueError
        If there is no such measure.
    """
    shown = result.recall if measure is None else result[measure]
    figure = new_figure(5.4)
    axes = figure.add_subplot()
    plain_axes(axes)
    hops = np.array(result.hops)
    found = {p.name: p.by_hop for p in shown.predictions}
    fitted = ""
    if accuracy is None:
        found["marginal"] = shown.marginal_by_hop
        fitted = f"marginal of the {result.marginal_of}"
    else:
        others = accuracy[shown.name].predictions
        found |= {p.name: p.by_hop for p in others if p.name not in HIDDEN}
    for name, look in LOOKS.items():
        if name not in found:
            continue
        value, low, high = (part[hops - 1] * 100 for part in found[name])
        axes.plot(
            hops, value, "o", ls=look.style, color=look.colour, ms=4, lw=1.6, label=look.label
        )
        if not np.isnan(low).all():
            axes.fill_between(hops, low, high, color=look.colour, alpha=0.2, linewidth=0)
    axes.axhline(shown.uniform * 100, color=GREY, ls=":", label="uniform guess")
    axes.set_ylim(0, 100)
    axes.set_xscale("log", base=2)
    axes.set_xticks(hops, [str(hop) for hop in hops])
    axes.minorticks_off()
    axes.set_xlabel("layers between source and target (hop k)", fontsize=10)
    axes.set_ylabel(f"{shown.label} (%)", fontsize=10)
    axes.legend(fontsize=9, frameon=False, ncols=2, loc="lower left")
    set_title(
        figure,
        f"How far ahead a gate can see: {shown.label} by distance",
        join(
            f"{result.tokens:,} tokens of {result.groups:,} prompts",
            f"means over layer pairs, {result.confidence:.0%} intervals",
            str(result.shape),
            fitted,
            note,
        ),
    )
    return figure
