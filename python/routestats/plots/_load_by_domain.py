"""Figure: expert load of several domains side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from routestats.errors import InvalidValueError
from routestats.plots._draw.load_panels import (
    MAX_DOMAINS,
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
    DIVERGING,
    SERIES,
    heat_map,
    join,
    new_figure,
    pairing_text,
    set_title,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from routestats.stats import ExpertLoad


def load_by_domain(
    results: Mapping[str, ExpertLoad],
    *,
    order: str | None = None,
    note: str = "",
    title: str = "Expert load by domain",
) -> Figure:
    """Heat maps of load relative to even use, one per domain, on one scale.

    With two domains a further map shows the first less the second, in points of share; with more,
    their effective experts are drawn over each other.

    Parameters
    ----------
    results : mapping of str to ExpertLoad
        By domain, two to five, all of one shape and pairing.
    order : {"id", "load"}, optional
        Experts of each layer by id, or by their mean share over the domains from the busiest on,
        alike in every map. By default by id up to 64 experts, else by load.
    note : str
        Appended to the caption.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        1,000 pixels wide.

    Raises
    ------
    InvalidValueError
        If there are fewer than two or more than five domains, their shapes or pairings differ, or
        `order` is none of these.
    RouteStatsError
        If matplotlib is not installed.
    """
    if not 2 <= len(results) <= MAX_DOMAINS:
        raise InvalidValueError(f"results: expected 2 to {MAX_DOMAINS} domains, got {len(results)}")
    names, loads = list(results), list(results.values())
    first = loads[0]
    for name, load in results.items():
        if (load.shape, load.pairing) != (first.shape, first.pairing):
            raise InvalidValueError(
                f"results[{name!r}]: expected {first.shape}, pairing {first.pairing!r}, "
                f"got {load.shape}, pairing {load.pairing!r}"
            )
    figure = new_figure(height_for(first.shape.num_layers) + 0.2)
    panels = figure.subplots(1, len(loads) + 1)
    order = check_order(order, first.shape.num_experts)
    place = places(loads, order)
    ratios = [np.take_along_axis(relative_share(load), place, axis=1) for load in loads]
    limit = ratio_limit(*ratios)
    most = max(2, 30 // len(panels))
    image = None
    for axes, name, load, ratio in zip(panels, names, loads, ratios, strict=False):
        image = ratio_map(axes, ratio, limit)
        axes.set_title(f"{name}\n{load.tokens:,} tokens", fontsize=10.5)
    last = panels[-1]
    ratio_bar(figure, image, list(panels[:-1]), limit)
    for axes, load in zip(panels, loads, strict=False):
        expert_axis(axes, first.shape.num_experts, most, order)
        layer_axis(axes, load, label=axes is panels[0])
    layer_axis(last, first, label=False)
    if len(loads) == 2:
        points = np.take_along_axis(loads[0].share - loads[1].share, place, axis=1) * 100
        bound = max(float(np.abs(points).max()), 0.1)
        difference = heat_map(last, points, cmap=DIVERGING, vmin=-bound, vmax=bound, aspect="auto")
        last.set_title(f"{names[0]} − {names[1]}", fontsize=10.5)
        expert_axis(last, first.shape.num_experts, most, order)
        bar = figure.colorbar(
            difference, ax=last, orientation="horizontal", fraction=0.05, pad=0.02, aspect=20
        )
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8.5)
        bar.set_label("difference of share (points)", fontsize=9.5)
    else:
        profile(last, dict(results), "effective_experts", SERIES, first.shape.num_experts)
        last.set_xlabel(f"effective experts of {first.shape.num_experts}", fontsize=10)
        effective_limits(last, loads)
        last.legend(fontsize=8.5, frameon=False, loc="lower left")
    set_title(
        figure,
        title,
        join(pairing_text(first.pairing, first.shape.top_k), str(first.shape), note),
    )
    return figure
