"""Figure: recall of later gates by distance, with the predictors that count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from routestats.plots._draw.predictors import (
    NOT_DRAWN,
    OVERFITTED,
    predictor_line,
    uniform_level,
)
from routestats.plots._draw.style import (
    join,
    new_figure,
    plain_axes,
    set_title,
)
from routestats.stats import Estimate
from routestats.stats._predictors.table import PREDICTORS

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
    fitted = overfits = ""
    if accuracy is None:
        found["marginal"] = shown.marginal_by_hop
        fitted = f"marginal of the {result.marginal_of}"
    else:
        others = accuracy[shown.name].predictions
        hidden = ("uniform", OVERFITTED)
        found |= {p.name: p.by_hop for p in others if p.name not in hidden}
        overfits = NOT_DRAWN if OVERFITTED in (p.name for p in others) else ""
    for name in PREDICTORS:
        if name in found:
            predictor_line(axes, name, hops, Estimate(*(part[hops - 1] for part in found[name])))
    uniform_level(axes, shown.uniform)
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
            overfits,
            note,
        ),
    )
    return figure
