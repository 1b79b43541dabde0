"""Interactive figure: how well each predictor knows a later layer, by distance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from routestats.errors import InvalidValueError
from routestats.plots._draw.bokeh import (
    add_hover,
    caption,
    headline,
    new_plot,
    require_bokeh,
    small,
    stack,
)
from routestats.plots._draw.predictors import mark
from routestats.stats._predictors.table import PREDICTORS

if TYPE_CHECKING:
    from routestats.stats import HopAccuracy, Lookahead, Prediction

_SHOW = """
for (const source of sources) {
  for (const name of ["value", "low", "high", "gain"]) {
    source.data[name] = source.data[`${name}_${names[select.value]}`];
  }
  source.change.emit();
}
plot.left[0].axis_label = `${select.value} (%)`;
"""


def prediction(
    accuracy: HopAccuracy, lookahead: Lookahead | None = None, *, measure: str | None = None
) -> Any:
    """One line per predictor against distance, with intervals; a name in the legend hides its line.

    Parameters
    ----------
    accuracy : HopAccuracy
        From `routestats.stats.hop_accuracy`.
    lookahead : Lookahead, optional
        From `routestats.stats.lookahead`, of the same tokens; its hops only.
    measure : str, optional
        The one that is shown first, as in `HopAccuracy`. By default top-1 accuracy where it was
        measured.

    Returns
    -------
    bokeh.models.Column

    Raises
    ------
    InvalidValueError
        If there is no such measure, or the two results are of different tokens.
    RouteStatsError
        If Bokeh is not installed.
    """
    require_bokeh()
    from bokeh.models import ColumnDataSource, CustomJS, FixedTicker, Range1d, Select

    measures = list(accuracy.measures)
    if lookahead is not None:
        if (lookahead.shape, lookahead.tokens) != (accuracy.shape, accuracy.test_tokens):
            raise InvalidValueError(
                f"lookahead: expected {accuracy.test_tokens:,} tokens of {accuracy.shape} as in "
                f"accuracy, got {lookahead.tokens:,} of {lookahead.shape}"
            )
        there = {m.name for m in lookahead.measures}
        measures = [m for m in measures if m.name in there]
    shown = measures[0] if measure is None else accuracy[measure]
    if shown.name not in [m.name for m in measures]:
        raise InvalidValueError(f"measure: lookahead has no {shown.name}")

    hops = np.arange(1, accuracy.shape.num_layers)
    lines: list[tuple[str, Any, dict[str, Prediction]]] = [
        (p.name, hops, {m.name: m[p.name] for m in measures}) for p in shown.predictions
    ]
    if lookahead is not None:
        there_hops = np.array(lookahead.hops)
        lines += [
            (p.name, there_hops, {m.name: lookahead[m.name][p.name] for m in measures})
            for p in lookahead[shown.name].predictions
        ]
    plot = new_plot(
        "", 960, 460, "layers between source and target (hop k)", f"{shown.label} (%)",
        y_range=Range1d(0, 100), x_range=Range1d(0.5, float(hops[-1]) + 0.5),
    )  # fmt: skip
    step = max(1, -(-len(hops) // 31))
    plot.xaxis.ticker = FixedTicker(ticks=hops[::step].tolist())
    sources = []
    for predictor, at, by_measure in lines:
        look = PREDICTORS[predictor]
        label = look.label
        data: dict[str, Any] = {"hop": at, "name": [label] * len(at)}
        for name, found in by_measure.items():
            for field, part in zip(("value", "low", "high"), found.by_hop, strict=True):
                data[f"{field}_{name}"] = small(part[at - 1] * 100)
            data[f"gain_{name}"] = small(found.gain_by_hop.value[at - 1] * 100)
        for field in ("value", "low", "high", "gain"):
            data[field] = data[f"{field}_{shown.name}"]
        source = ColumnDataSource(data, name=label)
        sources.append(source)
        band = plot.varea(
            "hop",
            "low",
            "high",
            source=source,
            alpha=0.2,
            color=look.colour,
            name=f"{label}, interval",
        )
        plot.line(
            "hop", "value", source=source, color=look.colour, line_width=2, legend_label=label,
            line_dash=look.line,
        )  # fmt: skip
        points = plot.scatter(
            "hop",
            "value",
            source=source,
            color=look.colour,
            # A baseline's line has no marks; what cannot be seen still answers the mouse.
            size=6,
            alpha=1.0 if look.marker else 0.0,
            legend_label=label,
            name=label,
            marker=mark(look),
        )  # fmt: skip
        points.js_link("visible", band, "visible")  # hidden by the legend, which has no band
        add_hover(
            plot,
            [points],
            [
                ("predictor", "@name"),
                ("layers ahead", "@hop"),
                ("value", "@value{0.0}% [@low{0.0}, @high{0.0}]"),
                ("above the marginal", "@gain{+0.0} points"),
            ],
        )
    plot.legend.click_policy = "hide"
    plot.legend.label_text_font_size = "11px"
    plot.add_layout(plot.legend[0], "right")
    labels = {m.label: m.name for m in measures}
    select = Select(title="measure", value=shown.label, options=list(labels), name="measure")
    select.js_on_change(
        "value",
        CustomJS(
            args={"select": select, "sources": sources, "names": labels, "plot": plot}, code=_SHOW
        ),
    )
    return stack(
        "prediction by distance",
        headline("Predicting a later layer's experts: mean over the layer pairs of a distance"),
        select,
        plot,
        caption(
            f"fitted on {accuracy.train_tokens:,} tokens, measured on {accuracy.test_tokens:,} "
            f"others ({accuracy.test_groups:,} prompts)",
            f"pairing: {accuracy.pairing}",
            f"shaded: {accuracy.confidence:.0%} interval over prompts",
            "a name in the legend hides its line",
        ),
    )
