"""Figure: does a token go where the one before it went, by layer?"""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import numpy as np

from routestats.errors import InvalidValueError, one_of
from routestats.plots._draw.style import (
    DARK,
    GREY,
    SERIES,
    canvas,
    check_result,
    interval,
    join,
    layers_along_x,
    new_figure,
    plain_axes,
    set_title,
    small_title,
)
from routestats.stats import Repetition

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = {
    "first_choice": ("the same first choice", "random_first_choice"),
    "shared": ("an expert in common", "random_shared"),
}


@overload
def repetition(
    result: Repetition, measure: str | None = ..., *, ax: None = ..., note: str = ...
) -> Figure: ...
@overload
def repetition(
    result: Repetition, measure: str | None = ..., *, ax: Axes, note: str = ...
) -> Axes: ...
def repetition(
    result: Repetition,
    measure: str | None = None,
    *,
    ax: Axes | None = None,
    note: str = "",
) -> Figure | Axes:
    """Share of consecutive tokens routed alike, in %, by layer: one line per domain.

    Bands are intervals, the broken line is what tokens routed at random give. With more than five
    domains, all of them together are one line.

    Parameters
    ----------
    result : Repetition
        From `routestats.stats.repetition`.
    measure : {"first_choice", "shared"}, optional
        By default both, in two panels, or ``shared`` alone where first choices were left out.
    ax : matplotlib.axes.Axes, optional
        Where to draw one measure, by default ``first_choice``; else a new figure.
    note : str
        Appended to the caption of a new figure.

    Returns
    -------
    matplotlib.figure.Figure or matplotlib.axes.Axes
        `ax` where it was given, else a figure 1,000 pixels wide.

    Raises
    ------
    InvalidTypeError
        If `result` is no Repetition, or `ax` no Axes.
    InvalidValueError
        If the measure does not exist or was left out.
    RouteStatsError
        If matplotlib is not installed.
    """
    check_result(result, Repetition)
    known = [name for name in PANELS if np.isfinite(getattr(result, name).value).any()]
    if measure is not None and measure not in known:
        raise InvalidValueError(f"measure: {one_of(known, measure)}")
    shown = known if measure is None else [measure]
    if ax is not None:
        _, axes = canvas(ax, 1.0)
        _panel(axes, result, shown[0])
        small_title(axes, f"Consecutive tokens with {PANELS[shown[0]][0]}")
        axes.legend(fontsize=8.5, frameon=False)
        return axes
    figure = new_figure(1.5 + 2.9 * len(shown))
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(panels, shown, strict=True):
        _panel(axes, result, name)
        axes.set_title(f"consecutive tokens with {PANELS[name][0]}", fontsize=11)
        axes.label_outer()
    set_title(
        figure,
        "Does a token go where the one before it went?",
        join(
            f"{sum(result.pairs):,} pairs of consecutive tokens of {sum(result.groups):,} prompts",
            f"{result.confidence:.0%} intervals" if result.bootstrap else "",
            str(result.shape),
            note,
        ),
    )
    return figure


def _panel(axes: Axes, result: Repetition, name: str) -> None:
    plain_axes(axes)
    estimate = getattr(result, name)
    random = float(getattr(result, PANELS[name][1])) * 100
    if len(result.domains) <= len(SERIES):
        lines = [
            (domain, [part[d] for part in estimate]) for d, domain in enumerate(result.domains)
        ]
    else:
        together = getattr(result, f"{name}_all")
        lines = [(f"all {len(result.domains)} domains", list(together))]
    layer = np.arange(result.shape.num_layers)
    for (label, parts), colour in zip(lines, SERIES, strict=False):
        value, low, high = (part * 100 for part in parts)
        axes.plot(layer, value, "o-", ms=3.5, lw=1.6, color=colour, label=label)
        interval(axes, layer, low, high, colour)
    axes.axhline(random, color=DARK, linestyle="--", lw=1.4, label=f"at random, {random:.1f}%")
    axes.set_ylim(0, None)
    axes.margins(y=0.08)
    layers_along_x(axes, result.layer_ids)
    axes.set_ylabel("pairs of tokens (%)", fontsize=10)
    legend = axes.legend(fontsize=9.5, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    for text in legend.get_texts()[-1:]:
        text.set_color(GREY)
