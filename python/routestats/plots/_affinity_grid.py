"""Figure: affinity of adjacent layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from routestats.plots._style import (
    DARK,
    heat_map,
    join,
    label_ticks,
    message_figure,
    new_figure,
    set_title,
)
from routestats.stats import affinity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from routestats.counts import RouteCounts

# Cells of a map have to be seen one by one: many small maps, or fewer large ones.
SMALL_MAPS, LARGE_MAPS, SMALL_EXPERTS = 32, 12, 16


def affinity_grid(counts: RouteCounts, *, max_maps: int | None = None, note: str = "") -> Figure:
    """Small maps of the affinity of adjacent layers, all on one scale.

    Parameters
    ----------
    counts : RouteCounts
        With hop 1.
    max_maps : int, optional
        Most maps to draw; of more adjacent pairs an even selection is drawn, and the title says
        so. Default 32 up to 16 experts, else 12.
    note : str
        Appended to the caption.

    Returns
    -------
    matplotlib.figure.Figure
        1,000 pixels wide. With one layer only, a figure that says that there is no next layer.

    Raises
    ------
    InvalidValueError
        If hop 1 was not counted.
    RouteStatsError
        If matplotlib is not installed.
    """
    shape = counts.shape
    source = join(f"{counts.tokens:,} tokens", f"pairing: {counts.pairing}", str(shape), note)
    title = "Affinity of adjacent layers"
    if shape.num_layers < 2:
        return message_figure(title, "The model has one MoE layer: there is no next one.", source)
    small = shape.num_experts <= SMALL_EXPERTS
    most = max_maps or (SMALL_MAPS if small else LARGE_MAPS)
    pairs = shape.num_layers - 1
    shown = np.unique(np.linspace(0, pairs - 1, min(pairs, most)).round().astype(int))
    results = [affinity(counts, int(layer), int(layer) + 1) for layer in shown]

    columns = min(len(shown), 8 if small else 4)
    if len(shown) <= 4 and small:
        columns = len(shown)
    rows = -(-len(shown) // columns)
    figure = new_figure(min(1.9 + rows * 9.4 / columns * 1.08, 13.0))
    grid = figure.subplots(rows, columns, squeeze=False)
    largest = np.nanmax([np.nanmax(r.matrix, initial=0.0) for r in results])
    top = float(max(largest, 1e-9))
    image = None
    for place, axes in enumerate(grid.flat):
        if place >= len(results):
            axes.set_axis_off()
            continue
        result = results[place]
        image = heat_map(axes, result.matrix, vmin=0.0, vmax=top)
        axes.set_title(f"{result.layer_ids[0]} → {result.layer_ids[1]}", fontsize=9.5, pad=3)
        ticks = 5 if columns > 4 else 9
        label_ticks(axes.xaxis, range(shape.num_experts), ticks)
        label_ticks(axes.yaxis, range(shape.num_experts), ticks)
        first_column, last_row = place % columns == 0, place + columns >= len(results)
        axes.tick_params(labelleft=first_column, labelbottom=last_row, labelsize=7.5, pad=1)
        if first_column:
            axes.set_ylabel("expert", fontsize=9)
        if last_row:
            axes.set_xlabel("next expert", fontsize=9)
    bar = figure.colorbar(
        cast(Any, image), ax=grid, orientation="horizontal", fraction=0.04, pad=0.02, aspect=50
    )
    bar.outline.set_visible(False)
    bar.ax.xaxis.set_major_formatter(lambda value, _: f"{value * 100:.0f}%")
    even = (shape.top_k if counts.pairing == "any" else 1) / shape.num_experts
    if even < top:
        bar.ax.axvline(even, color="white", linewidth=2)
        bar.ax.annotate(
            f"even: {even:.1%}",
            (even, 1.05),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            fontsize=8.5,
            color=DARK,
        )
    verb, total = (
        ("choose", f"{shape.top_k}00%") if counts.pairing == "any" else ("put first", "100%")
    )
    bar.set_label(
        f"of the tokens of the row's expert, share that {verb} the column's expert at the next "
        f"layer (a row sums to {total}; grey: expert never used)",
        fontsize=9.5,
        color=DARK,
    )
    if len(shown) < pairs:
        title += f" ({len(shown)} of {pairs} pairs, evenly spaced)"
    set_title(figure, title, source)
    return figure
