"""Interactive figure: any quantity of layer pairs as an L x L matrix, and one row of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from routestats.errors import InvalidTypeError
from routestats.plots._draw.bokeh import (
    add_hover,
    caption,
    cell_plot,
    colour_bar,
    headline,
    new_plot,
    number_axis,
    require_bokeh,
    sequential,
    small,
    stack,
)
from routestats.plots._draw.predictors import BASELINES
from routestats.plots._draw.style import BLUE
from routestats.stats import Correlation, HopAccuracy, Information
from routestats.stats._predictors.table import PREDICTORS

if TYPE_CHECKING:
    from routestats.stats import Estimate

Floats = npt.NDArray[np.float64]
FIELDS = ("value", "low", "high", "baseline")

_SHOW = """
const at = select.options.indexOf(select.value);
for (const name of ["value", "low", "high", "baseline"]) {
  cells.data[name] = cells.data[`${name}_${at}`];
}
mapper.low = ranges[at][0];
mapper.high = ranges[at][1];
line_plot.y_range.end = ranges[at][2];
bar.title = line_plot.left[0].axis_label = units[at];
const [colour, marker, dash] = looks[at];
curve.glyph.line_color = {value: colour};
curve.glyph.line_dash = {value: dash};
band.glyph.fill_color = {value: colour};
points.glyph.fill_color = points.glyph.line_color = {value: colour};
points.glyph.marker = {value: marker};
cells.change.emit();
"""
_ROW = """
const kept = [];
cells.data.source.forEach((s, i) => { if (s === layer.value) kept.push(i); });
for (const name of ["target", "target_id", "value", "low", "high", "baseline"]) {
  row.data[name] = kept.map((i) => cells.data[name][i]);
}
row.change.emit();
line_plot.title.text = `from layer ${layers[layer.value]}`;
"""


class View(NamedTuple):
    """One quantity: [L, L] values with bounds, and what it has to be compared with."""

    label: str
    unit: str
    value: Floats
    low: Floats
    high: Floats
    baseline: Floats
    look: tuple[str, str, str] = (BLUE, "circle", "solid")
    """Colour, marker and line of one row."""


def layer_pairs(result: HopAccuracy | Information | Correlation, *, layer: int = 0) -> Any:
    """Map over source and target layers with hover, and the row of the layer of a slider.

    Parameters
    ----------
    result : HopAccuracy, Information or Correlation
        A menu chooses measure and predictor, or the kind of information, or of correlation. The
        baseline is the marginal, the mean of a null, or what independent tokens give.
    layer : int
        The source layer, 0..L-2, whose row is shown first.

    Returns
    -------
    bokeh.models.Column

    Raises
    ------
    InvalidTypeError
        If `result` is none of these.
    RouteStatsError
        If Bokeh is not installed.
    """
    require_bokeh()
    from bokeh.models import ColumnDataSource, CustomJS, Range1d, Select, Slider

    title, views, note = _views(result)
    layers = result.shape.num_layers
    source, target = np.nonzero(np.any([np.isfinite(np.triu(v.value, 1)) for v in views], axis=0))
    above = target > source
    source, target = source[above], target[above]
    ids = np.array(result.layer_ids)
    data: dict[str, Any] = {
        "source": source, "target": target, "source_id": ids[source], "target_id": ids[target]
    }  # fmt: skip
    for place, view in enumerate(views):
        for name in FIELDS:
            data[f"{name}_{place}"] = small(getattr(view, name)[source, target])
    for name in FIELDS:
        data[name] = data[f"{name}_0"]
    cells = ColumnDataSource(data, name="cells")
    in_row = source == layer
    row = ColumnDataSource(
        {name: data[name][in_row] for name in ("target", "target_id", *FIELDS)}, name="row"
    )
    ranges = [_range(view) for view in views]
    mapper = sequential(*ranges[0][:2])
    plot = cell_plot(
        "every pair of layers", 520, 480, "target layer", "source layer",
        x_range=Range1d(-0.5, layers - 0.5), y_range=Range1d(layers - 0.5, -0.5),
    )  # fmt: skip
    drawn = plot.rect(
        "target", "source", 1, 1, source=cells, line_color=None, name="pairs",
        fill_color={"field": "value", "transform": mapper},
    )  # fmt: skip
    bar = colour_bar(plot, mapper, views[0].unit)
    line_plot = new_plot(
        f"from layer {result.layer_ids[layer]}", 430, 420, "target layer", views[0].unit,
        x_range=Range1d(-0.5, layers - 0.5), y_range=Range1d(0, ranges[0][2]),
    )  # fmt: skip
    colour, marker, dash = views[0].look
    band = line_plot.varea("target", "low", "high", source=row, alpha=0.25, color=colour)
    curve = line_plot.line(
        "target", "value", source=row, color=colour, line_width=2, line_dash=dash, name="value"
    )
    points = line_plot.scatter(
        "target", "value", source=row, color=colour, size=5, marker=marker, name="points"
    )
    beside = PREDICTORS["marginal" if isinstance(result, HopAccuracy) else "uniform"]
    line_plot.line(
        "target", "baseline", source=row, color=beside.colour, line_dash=beside.line,
        line_width=2, name="baseline",
    )  # fmt: skip
    for axis in (plot.xaxis, plot.yaxis, line_plot.xaxis):
        number_axis(axis, result.layer_ids, 16)
    tips = [("value", "@value{0.0000} [@low{0.0000}, @high{0.0000}]"), (note, "@baseline{0.0000}")]
    add_hover(plot, [drawn], [("layers", "@source_id → @target_id"), *tips])
    add_hover(line_plot, [points], [("target", "@target_id"), *tips])

    select = Select(
        title="shown", value=views[0].label, options=[v.label for v in views], width=320,
        name="shown",
    )  # fmt: skip
    slider = Slider(
        start=0, end=max(layers - 2, 1), step=1, value=layer, width=320, name="source layer",
        title="source layer, counted from 0",
    )  # fmt: skip
    move = CustomJS(
        args={
            "cells": cells, "row": row, "layer": slider, "line_plot": line_plot,
            "layers": [int(i) for i in ids],
        },
        code=_ROW,
    )  # fmt: skip
    show = CustomJS(
        args={
            "select": select, "cells": cells, "mapper": mapper, "bar": bar, "ranges": ranges,
            "units": [view.unit for view in views], "line_plot": line_plot,
            "looks": [list(view.look) for view in views], "curve": curve, "band": band,
            "points": points,
        },
        code=_SHOW,
    )  # fmt: skip
    select.js_on_change("value", show, move)
    slider.js_on_change("value", move)
    return stack(
        title.lower(), headline(title), [select, slider], [plot, line_plot],
        caption(f"pairing: {result.pairing}", str(result.shape), f"{beside.line}: {note}"),
    )  # fmt: skip


def _range(view: View) -> tuple[float, float, float]:
    """Limits of the colours, and the upper end of the lines."""
    both = np.concatenate([view.value[np.isfinite(view.value)], [0.0]])
    lines = np.stack((view.value, view.high, view.baseline))
    top = float(np.nanmax(lines, initial=0.0))
    low = float(np.nanmin(view.value)) if np.isfinite(view.value).any() else 0.0
    return min(low, float(both.max())), max(float(both.max()), 1e-6), max(top * 1.08, 1e-6)


def _views(result: HopAccuracy | Information | Correlation) -> tuple[str, list[View], str]:
    if isinstance(result, HopAccuracy):
        return "Prediction of every layer from every earlier one", _predictions(result), "marginal"
    if isinstance(result, Information):
        return "Information between layers", _information(result), "mean of the null"
    if isinstance(result, Correlation):
        return "Correlation of experts' choices", _correlations(result), "independent tokens"
    raise InvalidTypeError(
        f"result: expected HopAccuracy, Information or Correlation, got {type(result).__name__}"
    )


def _predictions(result: HopAccuracy) -> list[View]:
    recall = result[f"recall_at_{result.shape.top_k}"]
    return [
        View(
            f"{measure.label}, {each.label}",
            f"{measure.label} (%)",
            each.matrix.value * 100,
            each.matrix.low * 100,
            each.matrix.high * 100,
            (each.matrix.value - each.gain.value) * 100,
            (look.colour, look.marker, look.line),
        )
        for measure in dict.fromkeys((result.main, recall))
        for each in sorted(measure.predictions, key=lambda each: each.name != "single_hop")
        if each.name not in BASELINES
        for look in (PREDICTORS[each.name],)
    ]


def _information(result: Information) -> list[View]:
    excess: Estimate = result.request_excess
    views = [
        View("mutual information, null: within requests", "bits", *result.mi_bits,
             result.request_null_bits),
        View("mutual information, null: within token ids", "bits", *result.mi_bits,
             result.token_null_bits),
        View("excess over requests", "bits", *excess, np.zeros_like(excess.value)),
    ]  # fmt: skip
    if result.pairing == "top1":
        nothing = np.full_like(result.normalised, np.nan)
        zero = np.zeros_like(result.normalised)
        views += [
            View("information / entropy of the target", "share", result.normalised, nothing,
                 nothing, zero),
            View("Cramér's V, bias-corrected", "V", result.cramers_v, nothing, nothing, zero),
        ]  # fmt: skip
    return views


def _correlations(result: Correlation) -> list[View]:
    nothing = np.full_like(result.mean_abs, np.nan)
    level = np.full_like(result.mean_abs, result.independent_mean_abs)
    return [
        View("mean absolute phi", "phi", result.mean_abs, nothing, nothing, level),
        View("largest absolute phi", "phi", np.abs(result.largest), nothing, nothing, nothing),
    ]
