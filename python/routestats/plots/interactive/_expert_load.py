"""Interactive figure: expert load by layer and domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from routestats.errors import InvalidValueError
from routestats.plots._draw.bokeh import (
    TAKE,
    add_hover,
    caption,
    cell_plot,
    colour_bar,
    colour_of,
    diverging,
    headline,
    new_plot,
    number_axis,
    percent_small,
    require_bokeh,
    small,
    stack,
)
from routestats.plots._draw.load_panels import MAX_DOMAINS
from routestats.plots._draw.style import pairing_text

if TYPE_CHECKING:
    from routestats.stats import ExpertLoad

_SHOW = """
const name = "abcde"[select.options.indexOf(select.value)];
cells.data.share = cells.data[`share_${name}`];
cells.data.log_ratio = cells.data[`log_ratio_${name}`];
cells.data.ratio = cells.data[`ratio_${name}`];
cells.change.emit();
"""
_MOVE = (
    TAKE
    + """
const experts = bars.data.expert.length;
for (let i = 0; i < names; i++) {
  const column = `share_${"abcde"[i]}`;
  bars.data[column] = take(cells.data[column], layer.value * experts, experts);
}
bars.change.emit();
plot.title.text = `layer ${layers[layer.value]}: share of each expert`;
"""
)


def expert_load(results: ExpertLoad | Mapping[str, ExpertLoad], *, layer: int = 0) -> Any:
    """Map of load over layers and experts by domain; one layer's domains beside each other.

    Parameters
    ----------
    results : ExpertLoad or mapping of str to ExpertLoad
        By domain, up to five, all of one shape and pairing.
    layer : int
        The layer, 0..L-1, whose bars are shown first.

    Returns
    -------
    bokeh.models.Column

    Raises
    ------
    InvalidValueError
        If there are no domains or more than five, their shapes or pairings differ, or there is no
        such layer.
    RouteStatsError
        If Bokeh is not installed.
    """
    require_bokeh()
    from bokeh.models import ColumnDataSource, CustomJS, Range1d, Select, Slider, Span
    from bokeh.transform import dodge

    loads = dict(results) if isinstance(results, Mapping) else {"all": results}
    if not 1 <= len(loads) <= MAX_DOMAINS:
        raise InvalidValueError(f"results: expected 1 to {MAX_DOMAINS} domains, got {len(loads)}")
    first = next(iter(loads.values()))
    for name, load in loads.items():
        if (load.shape, load.pairing) != (first.shape, first.pairing):
            raise InvalidValueError(
                f"results[{name!r}]: expected {first.shape}, pairing {first.pairing!r}, "
                f"got {load.shape}, pairing {load.pairing!r}"
            )
    layers, experts = first.shape.num_layers, first.shape.num_experts
    if not 0 <= layer < layers:
        raise InvalidValueError(f"layer: expected 0 to {layers - 1}, got {layer}")

    at, expert = (axis.ravel() for axis in np.indices((layers, experts)))
    columns: dict[str, Any] = {
        "layer": at.astype(np.uint16),
        "layer_id": np.array(first.layer_ids)[at].astype(np.uint16),
        "expert": expert.astype(np.uint16),
    }
    bar_columns: dict[str, Any] = {"expert": np.arange(experts)}
    for letter, load in zip("abcde", loads.values(), strict=False):
        share = percent_small(load.share)
        ratio = small(load.share * experts)
        columns[f"share_{letter}"], columns[f"ratio_{letter}"] = share, ratio
        # Half and twice are equally far from even.
        known = np.where(ratio > 0, ratio, np.nan)
        columns[f"log_ratio_{letter}"] = np.log2(known)
        bar_columns[f"share_{letter}"] = share[layer * experts : (layer + 1) * experts]
    for column in ("share", "ratio", "log_ratio"):
        columns[column] = columns[f"{column}_a"]
    cells = ColumnDataSource(columns, name="cells")
    bars = ColumnDataSource(bar_columns, name="bars")

    height = int(np.clip(150 + 12 * layers, 300, 700))
    names = list(loads)
    map_plot = cell_plot(
        "load relative to even use", 500, height, "expert", "MoE layer",
        x_range=Range1d(-0.5, experts - 0.5), y_range=Range1d(layers - 0.5, -0.5),
    )  # fmt: skip
    number_axis(map_plot.xaxis, range(experts), 16)
    number_axis(map_plot.yaxis, first.layer_ids, 32)
    logs = [columns[f"log_ratio_{letter}"] for letter in "abcde"[: len(names)]]
    mapper = diverging(float(np.clip(max(np.nanmax(np.abs(log)) for log in logs), 0.25, 3)))
    drawn = map_plot.rect(
        "expert", "layer", 1, 1, source=cells, name="load",
        line_color=None, fill_color={"field": "log_ratio", "transform": mapper},
    )  # fmt: skip
    colour_bar(map_plot, mapper, "log2(load / even)")
    add_hover(
        map_plot,
        [drawn],
        [
            ("expert", "@expert of layer @layer_id"),
            ("share", f"@share{{0.00}}% (even: {100 / experts:.2f}%)"),
            ("relative to even", "@ratio{0.00}×"),
        ],
    )

    bar_plot = new_plot(
        f"layer {first.layer_ids[layer]}: share of each expert", 450, height, "expert",
        "share of the layer's choices (%)",
        x_range=Range1d(-0.7, experts - 0.3),
        y_range=Range1d(0, float(max(load.share.max() for load in loads.values())) * 108),
    )  # fmt: skip
    number_axis(bar_plot.xaxis, range(experts), 16)
    wide = 0.8 / len(names)
    for place, (letter, name) in enumerate(zip("abcde", names, strict=False)):
        bar = bar_plot.vbar(
            dodge("expert", (place - (len(names) - 1) / 2) * wide), top=f"share_{letter}",
            width=wide * 0.94, source=bars, color=colour_of(place), legend_label=name, name=name,
        )  # fmt: skip
        add_hover(
            bar_plot,
            [bar],
            [("domain", name), ("expert", "@expert"), ("share", f"@share_{letter}{{0.00}}%")],
        )
    bar_plot.add_layout(
        Span(location=100 / experts, dimension="width", line_color="black", line_dash="dotted")
    )
    bar_plot.legend.label_text_font_size = "11px"
    bar_plot.legend.orientation = "horizontal"
    bar_plot.legend.click_policy = "hide"
    bar_plot.add_layout(bar_plot.legend[0], "below")

    select = Select(title="domain", value=names[0], options=names, width=160, name="domain")
    select.js_on_change("value", CustomJS(args={"select": select, "cells": cells}, code=_SHOW))
    slider = Slider(
        start=0, end=max(layers - 1, 1), step=1, value=layer, width=300, name="layer",
        title="layer, counted from 0",
    )  # fmt: skip
    slider.js_on_change(
        "value",
        CustomJS(
            args={
                "layer": slider, "bars": bars, "cells": cells, "names": len(names),
                "plot": bar_plot, "layers": [int(i) for i in first.layer_ids],
            },
            code=_MOVE,
        ),
    )  # fmt: skip
    tokens = ", ".join(f"{name} {load.tokens:,} tokens" for name, load in loads.items())
    return stack(
        "expert load by layer and domain",
        headline("Expert load by layer and domain"),
        [select, slider],
        [map_plot, bar_plot],
        caption(
            tokens,
            pairing_text(first.pairing, first.shape.top_k),
            "dotted: even use; colour +1: twice as much as even, -1: half",
        ),
    )
