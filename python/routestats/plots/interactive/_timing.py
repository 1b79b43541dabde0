"""Interactive figure: where the time of each MoE layer goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from routestats.plots._draw.bokeh import (
    add_hover,
    caption,
    colour_of,
    headline,
    new_plot,
    number_axis,
    require_bokeh,
    small,
    stack,
)
from routestats.stats._timing.result import MOE_STAGES

if TYPE_CHECKING:
    from routestats.stats import Timing

STACKED = (*MOE_STAGES, "host")  # of the MoE block; host: the engine's own code between them
COLOURS = (*(colour_of(i) for i in range(5)), "#9A9A9A")

_SHOW = """
const at = select.options.indexOf(select.value);
const unit = unit_of.active === 0 ? "share" : "us";
for (const part of parts) {
  stacked.data[part] = stacked.data[`${unit}_${part}_${at}`];
  stacked.data[`hover_${part}`] = stacked.data[`us_${part}_${at}`];
}
for (const name of ["value", "low", "high"]) {
  overhead.data[name] = overhead.data[`${name}_${at}`];
}
bars.left[0].axis_label = unit === "share" ? "of the MoE layer's time (%)" : "microseconds";
bars.y_range.end = unit === "share" ? 105 : tops[at];
stacked.change.emit();
overhead.change.emit();
"""


def timing(result: Timing, *, cited: tuple[float, float] | None = None) -> Any:
    """Stages of every MoE layer, stacked; routing, dispatch and combine together by layer.

    Parameters
    ----------
    result : Timing
        From `routestats.stats.timing`; a menu chooses the kind of step.
    cited : (low, high), optional
        A range of shares, 0 to 1, that is drawn behind the measured ones for comparison.

    Returns
    -------
    bokeh.models.Column

    Raises
    ------
    RouteStatsError
        If Bokeh is not installed.
    """
    require_bokeh()
    from bokeh.models import (
        BoxAnnotation,
        ColumnDataSource,
        CustomJS,
        RadioButtonGroup,
        Range1d,
        Select,
    )

    size = len(result.layer_ids)
    base = {"layer": np.arange(size), "layer_id": np.array(result.layer_ids)}
    parts: dict[str, Any] = dict(base)
    over: dict[str, Any] = dict(base)
    tops = []
    for place, group in enumerate(result.groups):
        height = np.zeros(size)
        for part in STACKED:
            ns = group.part_ns[part].value
            height = height + ns
            parts[f"us_{part}_{place}"] = small(ns / 1e3)
            parts[f"share_{part}_{place}"] = small(group.share_of_moe[part].value * 100)
        tops.append(float(height.max()) / 1e3 * 1.05)
        share = group.share_of_moe["overhead"]
        for name, values in zip(("value", "low", "high"), share, strict=True):
            over[f"{name}_{place}"] = small(values * 100)
    for part in STACKED:
        parts[part] = parts[f"share_{part}_0"]
        parts[f"hover_{part}"] = parts[f"us_{part}_0"]
    for name in ("value", "low", "high"):
        over[name] = over[f"{name}_0"]
    stacked = ColumnDataSource(parts, name="stages")
    overhead = ColumnDataSource(over, name="overhead")

    bars = new_plot(
        "stages of each layer", 540, 400, "MoE layer", "of the MoE layer's time (%)",
        x_range=Range1d(-0.5, size - 0.5), y_range=Range1d(0, 105),
    )  # fmt: skip
    drawn = bars.vbar_stack(
        list(STACKED), x="layer", width=0.9, source=stacked, color=list(COLOURS[: len(STACKED)]),
        legend_label=list(STACKED),
    )  # fmt: skip
    for part, glyph in zip(STACKED, drawn, strict=True):
        tips = [
            ("layer", "@layer_id"),
            (part, f"@hover_{part}{{0.0}} us"),
            ("shown", f"@{part}{{0.0}}"),
        ]
        add_hover(bars, [glyph], tips)
    lines = new_plot(
        "gate, top-k, dispatch and combine together", 420, 400, "MoE layer",
        "of the MoE layer's time (%)",
        x_range=Range1d(-0.5, size - 0.5), y_range=Range1d(0, 100),
    )  # fmt: skip
    if cited is not None:
        lines.add_layout(
            BoxAnnotation(
                bottom=cited[0] * 100, top=cited[1] * 100, fill_color="#E69F00", fill_alpha=0.25
            )
        )
    lines.varea("layer", "low", "high", source=overhead, alpha=0.25, color="#0072B2")
    lines.line("layer", "value", source=overhead, color="#0072B2", line_width=2)
    points = lines.scatter("layer", "value", source=overhead, color="#0072B2", size=5)
    add_hover(
        lines,
        [points],
        [("layer", "@layer_id"), ("share", "@value{0.0}% [@low{0.0}, @high{0.0}]")],
    )
    for plot in (bars, lines):
        number_axis(plot.xaxis, result.layer_ids, 16)
    bars.legend.orientation = "horizontal"
    bars.legend.label_text_font_size = "10px"
    bars.legend.spacing = 2
    bars.add_layout(bars.legend[0], "below")

    labels = [group.label for group in result.groups]
    select = Select(title="kind of step", value=labels[0], options=labels, name="steps")
    unit = RadioButtonGroup(labels=["share", "microseconds"], active=0, name="unit")
    show = CustomJS(
        args={
            "select": select, "unit_of": unit, "stacked": stacked, "overhead": overhead,
            "bars": bars, "parts": list(STACKED), "tops": tops,
        },
        code=_SHOW,
    )  # fmt: skip
    select.js_on_change("value", show)
    unit.js_on_change("active", show)
    return stack(
        "time of each MoE layer by stage",
        headline("Where the time of a MoE layer goes"),
        [select, unit],
        [bars, lines],
        caption(
            f"{result.model} on {result.engine.get('device', '?')}, {result.steps:,} steps",
            f"medians over steps, {result.confidence:.0%} intervals",
            result.measured,
            "band: cited for communication between 8 GPUs" if cited is not None else "",
        ),
    )
