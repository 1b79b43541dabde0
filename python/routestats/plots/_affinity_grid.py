"""Figure: affinity of adjacent layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from routestats.plots._draw.affinity_cells import ALL, BUSIEST, busiest, relative_affinity
from routestats.plots._draw.ratio_map import ratio_limit, ratio_map, ratio_ticks
from routestats.plots._draw.style import (
    colour_bar,
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

    Colours are the affinity over the share of all tokens that the column's expert has: orange is
    more often than over all tokens, purple less often. Of more than 64 experts, the 32 busiest of
    either layer are drawn, from the busiest on.

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
    zoomed = shape.num_experts > ALL
    side = BUSIEST if zoomed else shape.num_experts
    ratios = [
        relative_affinity(result)[np.ix_(*busiest(result, side))]
        if zoomed
        else relative_affinity(result)
        for result in results
    ]
    limit = ratio_limit(*ratios)
    image = None
    for place, axes in enumerate(grid.flat):
        if place >= len(results):
            axes.set_axis_off()
            continue
        result = results[place]
        image = ratio_map(axes, ratios[place], limit)
        axes.set_aspect("equal")
        axes.set_title(f"{result.layer_ids[0]} → {result.layer_ids[1]}", fontsize=9.5, pad=3)
        ticks = 5 if columns > 4 else 9
        label_ticks(axes.xaxis, range(side), ticks)
        label_ticks(axes.yaxis, range(side), ticks)
        first_column, last_row = place % columns == 0, place // columns == rows - 1
        axes.tick_params(labelleft=first_column, labelbottom=last_row, labelsize=7.5, pad=1)
        if first_column:
            axes.set_ylabel("rank of expert" if zoomed else "expert", fontsize=9)
        if last_row:
            axes.set_xlabel("rank of next expert" if zoomed else "next expert", fontsize=9)
    verb = "choose" if counts.pairing == "any" else "put first"
    bar = colour_bar(
        figure,
        cast(Any, image),
        grid,
        f"of the tokens of the row's expert, the share that {verb} the column's expert at the next "
        "layer,\nover the share of all tokens that do (grey: expert without tokens)",
        orientation="horizontal",
        fraction=0.04,
        aspect=50,
    )
    ratio_ticks(bar, limit, "as all")
    if len(shown) < pairs:
        title += f" ({len(shown)} of {pairs} pairs, evenly spaced)"
    if zoomed:
        source = join(
            f"the {side} busiest of {shape.num_experts} experts of each layer, from rank 0, the "
            "busiest, on",
            source,
        )
    set_title(figure, title, source)
    return figure
