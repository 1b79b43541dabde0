"""Figure: how well each layer predicts each later one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from routestats.plots._draw.predictors import predictor_line, uniform_level
from routestats.plots._draw.style import (
    DIVERGING,
    GREY,
    colour_bar,
    hatch_missing,
    heat_map,
    join,
    label_ticks,
    new_figure,
    plain_axes,
    set_title,
    show_part,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from routestats.stats import HopAccuracy, HopMeasure


def hop_accuracy(result: HopAccuracy, *, measure: str | None = None, note: str = "") -> Figure:
    """Matrices of accuracy and of gain over the marginal; below, means by distance.

    Parameters
    ----------
    result : HopAccuracy
        From `routestats.stats.hop_accuracy`.
    measure : str, optional
        Which measure the matrices show. Default top-1 accuracy where it was measured.
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
    RouteStatsError
        If matplotlib is not installed.
    """
    shown = result.main if measure is None else result[measure]
    recall = result[f"recall_at_{result.shape.top_k}"]
    figure = new_figure(9.6)
    panels: Any = figure.subfigures(2, 1, height_ratios=[1.75, 1])
    upper, lower = panels
    _matrices(upper, result, shown)
    curves = [shown] if shown is recall else [shown, recall]
    for axes, each in zip(lower.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        _curve(axes, each, result.confidence)
    source = "top-K set" if result.pairing == "any" else "first choice"
    set_title(
        figure,
        f"Predicting a later layer's experts from an earlier layer's {source}: {shown.label}",
        join(
            f"fitted on {result.train_tokens:,} tokens, measured on {result.test_tokens:,} others "
            f"({result.test_groups:,} prompts)",
            f"pairing: {result.pairing}",
            str(result.shape),
            note,
        ),
    )
    return figure


def _matrices(figure: Any, result: HopAccuracy, shown: HopMeasure) -> None:
    """Accuracy with the marginal as a strip below it, and the gain over that marginal."""
    # One row of the matrix would be too thin to read: the strip is as high as two of 32.
    panels = figure.subplot_mosaic(
        [["accuracy", "gain"], ["strip", "gain"]],
        height_ratios=[16, 1],
        gridspec_kw={"hspace": 0.0},
    )
    accuracy, gain, strip = panels["accuracy"], panels["gain"], panels["strip"]
    values = np.concatenate([shown.hop.value.ravel(), shown.marginal.value])
    limits = {
        "vmin": min(float(np.nanmin(values)), shown.uniform),
        "vmax": float(np.nanmax(values)),
    }
    if limits["vmax"] - limits["vmin"] < 1e-3:
        limits["vmax"] = limits["vmin"] + 1e-3
    image = heat_map(accuracy, shown.hop.value * 100, aspect="auto", **_percent(limits))
    heat_map(strip, shown.marginal.value[None] * 100, aspect="auto", **_percent(limits))
    bound = max(float(np.nanmax(np.abs(shown.gain.value))) * 100, 1.0)
    change = heat_map(
        gain, shown.gain.value * 100, aspect="auto", cmap=DIVERGING, vmin=-bound, vmax=bound
    )
    accuracy.set_title(f"{shown.label}: single hop", fontsize=11)
    gain.set_title("gain over the marginal baseline", fontsize=11)
    strip.set_yticks([0], ["marginal"], fontsize=8.5)
    strip.set_xlabel("target layer (predicted)", fontsize=10)
    gain.set_xlabel("target layer (predicted)", fontsize=10)
    accuracy.set_ylabel("source layer (known)", fontsize=10)
    for axes, shown_map in ((accuracy, image), (gain, change)):
        hatch_missing(axes, shown_map)
        label_ticks(axes.yaxis, result.layer_ids, 17)
        axes.text(
            0.04,
            0.05,
            "not predicted:\ntarget is not after source",
            transform=axes.transAxes,
            fontsize=8.5,
            color=GREY,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 2.0},
        )
    accuracy.set_xticks([])
    for axes in (strip, gain):
        label_ticks(axes.xaxis, result.layer_ids, 17)
    for mappable, axes, label in (
        (image, [accuracy, strip], f"{shown.label} (%), uniform guess {shown.uniform:.1%}"),
        (change, [gain], "percentage points (orange: better than marginal)"),
    ):
        bar = colour_bar(figure, mappable, axes, label)
        if mappable is change:
            lowest = float(np.nanmin(shown.gain.value)) * 100
            show_part(bar, min(lowest, 0.0), max(float(np.nanmax(shown.gain.value)) * 100, 0.0))


def _percent(limits: dict[str, float]) -> dict[str, float]:
    return {name: value * 100 for name, value in limits.items()}


def _curve(axes: Axes, measure: HopMeasure, confidence: float) -> None:
    """Mean by distance, with interval, for the predictor and both baselines."""
    plain_axes(axes)
    hop = np.arange(1, len(measure.hop_by_distance.value) + 1)
    predictor_line(axes, "single_hop", hop, measure.hop_by_distance)
    predictor_line(axes, "marginal", hop, measure.marginal_by_distance)
    uniform_level(axes, measure.uniform)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("layers between source and target (hop k)", fontsize=10)
    axes.set_ylabel(f"{measure.label} (%)", fontsize=10)
    with_interval = not np.isnan(measure.hop_by_distance.low).all()
    level = f", {confidence:.0%} interval" if with_interval else ""
    axes.set_title(f"{measure.label}: mean over pairs{level}", fontsize=11)
    axes.legend(fontsize=9, frameon=False)
    locator: Any = axes.xaxis.get_major_locator()
    locator.set_params(integer=True)
