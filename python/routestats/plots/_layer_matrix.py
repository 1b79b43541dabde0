"""Figure: one measure of every pair of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np

from routestats.plots._draw.layer_measures import LayerValues, layer_values
from routestats.plots._draw.style import (
    GREY,
    around,
    canvas,
    colour_bar,
    finish,
    hatch_missing,
    heat_map,
    join,
    label_ticks,
    mark_baseline,
    show_part,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from routestats.stats import Correlation, HopAccuracy, Information

TICKS = 24


@overload
def layer_matrix(
    result: HopAccuracy | Information | Correlation,
    measure: str | None = ...,
    *,
    predictor: str = ...,
    baseline: str | None = ...,
    gain: bool = ...,
    ax: None = ...,
    note: str = ...,
) -> Figure: ...
@overload
def layer_matrix(
    result: HopAccuracy | Information | Correlation,
    measure: str | None = ...,
    *,
    predictor: str = ...,
    baseline: str | None = ...,
    gain: bool = ...,
    ax: Axes,
    note: str = ...,
) -> Axes: ...
def layer_matrix(
    result: HopAccuracy | Information | Correlation,
    measure: str | None = None,
    *,
    predictor: str = "single_hop",
    baseline: str | None = None,
    gain: bool = False,
    ax: Axes | None = None,
    note: str = "",
) -> Figure | Axes:
    """Heat map [source, target] of one measure over all pairs of layers.

    Where the measure has a baseline, the map diverges around its mean over the pairs drawn, which
    a line marks on the colour bar: orange is above, purple below. Pairs without a value (target
    not after source, hop not measured) are hatched.

    Parameters
    ----------
    result : HopAccuracy, Information or Correlation
        From the functions of `routestats.stats` of these names.
    measure : str, optional
        HopAccuracy, in %: ``top1_accuracy`` (default where it was measured), ``recall_at_<M>``,
        ``exact_set``. Information: ``normalised`` (default with pairing ``top1``; % of the
        target's entropy), ``mi_bits`` (default with ``any``), ``jackknife_bits``,
        ``miller_madow_bits``, ``cramers_v``. Correlation: ``mean_abs`` (default), ``largest``.
    predictor : str
        Of HopAccuracy: whose measure is drawn.
    baseline : str, optional
        HopAccuracy: ``marginal`` (default) or ``uniform``. Information, of ``normalised`` and
        ``mi_bits``: ``request`` (default where it was drawn) or ``token``, the null with tokens
        permuted within their request or within their token id.
    gain : bool
        Draw each pair's value less its own baseline: percentage points or bits, around 0.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.
    note : str
        Appended to the caption of a new figure.

    Returns
    -------
    matplotlib.figure.Figure or matplotlib.axes.Axes
        `ax` where it was given, else a figure 1,000 pixels wide.

    Raises
    ------
    InvalidTypeError
        If `result` is none of these, or `ax` no Axes.
    InvalidValueError
        If the measure, predictor or baseline does not exist, has no values, or `gain` is asked of
        a measure without a baseline.
    RouteStatsError
        If matplotlib is not installed.
    """
    shown = layer_values(result, measure, predictor=predictor, baseline=baseline, gain=gain)
    figure, axes = canvas(ax, 8.2)
    image = heat_map(axes, shown.values, **_colours(shown))
    hatch_missing(axes, image)
    bar = colour_bar(axes.figure, image, axes, _bar_label(shown))
    if shown.baseline is not None:
        low, high = float(np.nanmin(shown.values)), float(np.nanmax(shown.values))
        centre = shown.baseline
        show_part(bar, min(low, centre), max(high, centre))
        mark_baseline(bar, centre)
    most = TICKS if figure is not None else TICKS // 2
    label_ticks(axes.xaxis, result.layer_ids, most)
    label_ticks(axes.yaxis, result.layer_ids, most)
    axes.set_xlabel("target layer (predicted)" if shown.directed else "later layer", fontsize=10)
    axes.set_ylabel("source layer (known)" if shown.directed else "earlier layer", fontsize=10)
    axes.text(
        0.04,
        0.05,
        "hatched: not measured,\nor target not after source",
        transform=axes.transAxes,
        fontsize=9 if figure is not None else 7.5,
        color=GREY,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 2.0},
    )
    return finish(figure, axes, shown.title, join(*shown.caption, str(result.shape), note))


def _colours(shown: LayerValues) -> dict[str, Any]:
    if shown.baseline is not None:
        return around(shown.values, shown.baseline, shown.least)
    return {"vmin": 0.0, "vmax": max(float(np.nanmax(shown.values)), shown.least)}


def _bar_label(shown: LayerValues) -> str:
    if shown.baseline is None:
        return shown.label
    return f"{shown.label}\nline: {shown.baseline_label}"
