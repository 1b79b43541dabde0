"""Figure: expert load by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import numpy as np

from routestats.plots._draw.load_panels import (
    check_order,
    effective_limits,
    expert_axis,
    height_for,
    layer_axis,
    places,
    profile,
    relative_share,
)
from routestats.plots._draw.ratio_map import ratio_bar, ratio_limit, ratio_map
from routestats.plots._draw.style import (
    BLUE,
    canvas,
    check_result,
    join,
    new_figure,
    pairing_text,
    set_title,
    small_title,
)
from routestats.stats import ExpertLoad

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@overload
def expert_load(
    result: ExpertLoad, *, order: str | None = ..., ax: None = ..., note: str = ...
) -> Figure: ...
@overload
def expert_load(
    result: ExpertLoad, *, order: str | None = ..., ax: Axes, note: str = ...
) -> Axes: ...
def expert_load(
    result: ExpertLoad,
    *,
    order: str | None = None,
    ax: Axes | None = None,
    note: str = "",
) -> Figure | Axes:
    """Heat map of load relative to even use; beside it imbalance and effective experts.

    Parameters
    ----------
    result : ExpertLoad
        From `routestats.stats.expert_load`.
    order : {"id", "load"}, optional
        Experts of each layer by id, or from the busiest on. By default by id up to 64 experts,
        else by load: more cannot be told apart.
    ax : matplotlib.axes.Axes, optional
        Where to draw the heat map alone; by default on a new figure.
    note : str
        Where the tokens come from; appended to the caption of a new figure.

    Returns
    -------
    matplotlib.figure.Figure or matplotlib.axes.Axes
        `ax` where it was given, else a figure 1,000 pixels wide.

    Raises
    ------
    InvalidTypeError
        If `result` is no ExpertLoad, or `ax` no Axes.
    InvalidValueError
        If `order` is none of these.
    RouteStatsError
        If matplotlib is not installed.
    """
    check_result(result, ExpertLoad)
    shape = result.shape
    order = check_order(order, shape.num_experts)
    if ax is not None:
        _, heat = canvas(ax, 1.0)
        _heat(heat, result, order, [heat])
        small_title(heat, "Expert load by layer")
        return heat
    figure = new_figure(height_for(shape.num_layers))
    heat, imbalance, effective = figure.subplots(1, 3, width_ratios=[2.6, 1, 1])
    _heat(heat, result, order, [heat, imbalance, effective])
    profile(imbalance, {"": result}, "imbalance", (BLUE,), 1.0)
    imbalance.set_xlabel("imbalance:\nbusiest / mean load", fontsize=10)
    imbalance.set_xlim(left=0.9 if result.imbalance.max() < 2 else 0.5)
    profile(effective, {"": result}, "effective_experts", (BLUE,), shape.num_experts)
    effective.set_xlabel(f"effective experts\nof {shape.num_experts}", fontsize=10)
    effective_limits(effective, [result])
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


def _heat(axes: Axes, result: ExpertLoad, order: str, beside: list[Axes]) -> None:
    """The map, with its colour bar below all of `beside`, so that their rows stay level."""
    ratio = np.take_along_axis(relative_share(result), places([result], order), axis=1)
    limit = ratio_limit(ratio)
    image = ratio_map(axes, ratio, limit)
    expert_axis(axes, result.shape.num_experts, order=order)
    layer_axis(axes, result)
    ratio_bar(axes.figure, image, beside, limit)
