"""Figure: expert load by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from routestats.plots._load_panels import (
    expert_axis,
    height_for,
    layer_axis,
    profile,
    ratio_bar,
    ratio_limit,
    ratio_map,
    relative_share,
)
from routestats.plots._style import BLUE, join, new_figure, pairing_text, set_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from routestats.stats import ExpertLoad


def expert_load(result: ExpertLoad, *, note: str = "") -> Figure:
    """Heat map of load relative to even use; beside it imbalance and effective experts.

    Parameters
    ----------
    result : ExpertLoad
        From `routestats.stats.expert_load`.
    note : str
        Where the tokens come from; appended to the caption.

    Returns
    -------
    matplotlib.figure.Figure
        1,000 pixels wide.

    Raises
    ------
    RouteStatsError
        If matplotlib is not installed.
    """
    shape = result.shape
    figure = new_figure(height_for(shape.num_layers))
    heat, imbalance, effective = figure.subplots(1, 3, width_ratios=[2.6, 1, 1])
    ratio = relative_share(result)
    limit = ratio_limit(ratio)
    image = ratio_map(heat, ratio, limit)
    expert_axis(heat, shape.num_experts)
    layer_axis(heat, result)
    ratio_bar(figure, image, [heat], limit)
    profile(imbalance, {"": result}, "imbalance", (BLUE,), 1.0)
    imbalance.set_xlabel("imbalance:\nbusiest / mean load", fontsize=10)
    imbalance.set_xlim(left=0.9 if result.imbalance.max() < 2 else 0.5)
    profile(effective, {"": result}, "effective_experts", (BLUE,), shape.num_experts)
    effective.set_xlabel(f"effective experts\nof {shape.num_experts}", fontsize=10)
    effective.set_xlim(0, shape.num_experts * 1.08)
    for axes in (imbalance, effective):
        layer_axis(axes, result, label=False)
    set_title(
        figure,
        "Expert load by layer",
        join(
            f"{result.tokens:,} tokens", pairing_text(result.pairing, shape.top_k), str(shape), note
        ),
    )
    return figure
