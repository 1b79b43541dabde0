"""Interactive figure: how differently two domains route, beside what chance gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from routestats.errors import InvalidValueError
from routestats.plots._draw.bokeh import (
    add_hover,
    caption,
    cell_plot,
    colour_bar,
    diverging,
    headline,
    new_plot,
    number_axis,
    percent_small,
    require_bokeh,
    small,
    stack,
)
from routestats.plots._draw.style import LEVEL, VEIL, VEIL_ALPHA

if TYPE_CHECKING:
    from routestats.stats import DomainDifference

_SHOW = """
const at = select.options.indexOf(select.value);
for (const source of [cells, layers]) {
  for (const name of Object.keys(source.data)) {
    if (name.endsWith(`_${at}`)) source.data[name.slice(0, -2)] = source.data[name];
  }
  source.change.emit();
}
plot.title.text = titles[at];
"""


def domain_difference(*results: DomainDifference) -> Any:
    """Difference of two domains' load by layer and expert, and the divergence of each layer.

    Grey lies over the experts whose difference may be chance, by q over all experts.

    Parameters
    ----------
    *results : DomainDifference
        Of one shape, one for each phase or pair of domains, up to nine; a menu chooses.

    Returns
    -------
    bokeh.models.Column

    Raises
    ------
    InvalidValueError
        If there is none, there are more than nine, or their shapes differ.
    RouteStatsError
        If Bokeh is not installed.
    """
    require_bokeh()
    from bokeh.models import ColumnDataSource, CustomJS, Range1d, Select

    if not 1 <= len(results) <= 9:
        raise InvalidValueError(f"results: expected 1 to 9, got {len(results)}")
    first = results[0]
    for each in results:
        if each.shape != first.shape:
            raise InvalidValueError(f"results: expected {first.shape}, got {each.shape}")
    size, experts = first.shape.num_layers, first.shape.num_experts
    ids = np.array(first.layer_ids)
    at, expert = (axis.ravel() for axis in np.indices((size, experts)))
    cell_data: dict[str, Any] = {
        "layer": at.astype(np.uint16), "layer_id": ids[at].astype(np.uint16),
        "expert": expert.astype(np.uint16),
    }  # fmt: skip
    layer_data: dict[str, Any] = {"layer": np.arange(size), "layer_id": ids}
    for place, each in enumerate(results):
        cell_data[f"first_{place}"] = percent_small(each.load_share[0])
        cell_data[f"second_{place}"] = percent_small(each.load_share[1])
        cell_data[f"points_{place}"] = percent_small(each.load_share[0] - each.load_share[1])
        cell_data[f"expert_q_{place}"] = small(each.experts.q_value)
        chance = np.where(each.experts.beyond(LEVEL), 0.0, VEIL_ALPHA)
        cell_data[f"chance_{place}"] = small(chance)
        layer_data[f"bits_{place}"] = small(each.load.bits)
        layer_data[f"null_{place}"] = small(each.load.null_mean_bits)
        layer_data[f"p_{place}"] = small(each.load.p_value)
        layer_data[f"q_{place}"] = small(each.load.q_value)
    for data, names in (
        (cell_data, ("first", "second", "points", "expert_q", "chance")),
        (layer_data, ("bits", "null", "p", "q")),
    ):
        for name in names:
            data[name] = data[f"{name}_0"]
    cells = ColumnDataSource(cell_data, name="cells")
    layers = ColumnDataSource(layer_data, name="layers")

    titles = [f"{e.domains[0]} − {e.domains[1]}, {e.phase}" for e in results]
    height = int(np.clip(150 + 12 * size, 300, 700))
    plot = cell_plot(
        titles[0], 500, height, "expert", "MoE layer",
        x_range=Range1d(-0.5, experts - 0.5), y_range=Range1d(size - 0.5, -0.5),
    )  # fmt: skip
    bound = max(
        float(np.nanmax(np.abs(e.load_share[0] - e.load_share[1]), initial=0.0)) for e in results
    )
    mapper = diverging(bound * 100)
    plot.rect(
        "expert", "layer", 1, 1, source=cells, line_color=None, name="difference",
        fill_color={"field": "points", "transform": mapper},
    )  # fmt: skip
    veil = plot.rect(
        "expert", "layer", 1, 1, source=cells, line_color=None, name="chance",
        fill_color=VEIL, fill_alpha="chance",
    )  # fmt: skip
    colour_bar(plot, mapper, "points")
    add_hover(
        plot,
        [veil],
        [
            ("expert", "@expert of layer @layer_id"),
            ("shares", "@first{0.0}% and @second{0.0}%"),
            ("difference", "@points{+0.0} points"),
            ("q over all experts", "@expert_q{0.000}"),
        ],
    )
    top = max(float(np.nanmax(e.load.bits, initial=0.0)) for e in results)
    lines = new_plot(
        "divergence of the two loads", 450, height, "MoE layer", "Jensen-Shannon divergence (bits)",
        x_range=Range1d(-0.5, size - 0.5), y_range=Range1d(0, max(top * 1.08, 1e-6)),
    )  # fmt: skip
    number_axis(plot.xaxis, range(experts))
    number_axis(plot.yaxis, ids.tolist(), 32)
    number_axis(lines.xaxis, ids.tolist())
    bars = lines.vbar("layer", 0.75, "bits", source=layers, color="#0072B2", name="bits",
                      legend_label="between the domains")  # fmt: skip
    lines.line("layer", "null", source=layers, color="#D55E00", line_width=2,
               legend_label="prompts permuted between them")  # fmt: skip
    lines.legend.label_text_font_size = "11px"
    lines.legend.orientation = "horizontal"
    lines.add_layout(lines.legend[0], "below")
    add_hover(
        lines,
        [bars],
        [
            ("layer", "@layer_id"),
            ("divergence", "@bits{0.00000} bits"),
            ("permuted prompts", "@null{0.00000} bits"),
            ("p, and q over the layers", "@p{0.000}, @q{0.000}"),
        ],
    )
    select = Select(title="compared", value=titles[0], options=titles, width=300, name="compared")
    select.js_on_change(
        "value",
        CustomJS(
            args={
                "select": select, "cells": cells, "layers": layers, "plot": plot, "titles": titles,
            },
            code=_SHOW,
        ),
    )  # fmt: skip
    tokens = "; ".join(
        f"{e.phase}: {e.tokens[0]:,} and {e.tokens[1]:,} tokens of {e.groups[0]} and "
        f"{e.groups[1]} prompts"
        for e in results
    )
    return stack(
        "difference of two domains",
        headline("Two domains: difference of load by expert, divergence by layer"),
        select,
        [plot, lines],
        caption(
            f"grey: may be chance, q > {LEVEL} over all experts",
            tokens,
            f"pairing: {first.pairing}",
            f"{first.permutations} permutations",
        ),
    )
