"""Interactive figure: what speculation gains, under assumptions that sliders change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from routestats.plots._draw.bokeh import (
    add_hover,
    caption,
    headline,
    new_plot,
    require_bokeh,
    stack,
)
from routestats.plots._draw.predictors import mark
from routestats.stats._predictors.table import PREDICTORS

if TYPE_CHECKING:
    from routestats.stats import Speculation

# `Speculation.expected_ns` once more, in the browser; a test holds the two together.
_MOVE = """
const share = share_of.value / 100;
const prepared = share / (1 - share) * (moe_ns - measured_ns);
const others = layer_ns - measured_ns;
const whole = others + prepared;
const miss = miss_of.value / 100 * prepared;
const overlap = overlap_of.value / 100;
const ahead = Number(hop.value);
const over = Number(fetched.value) / top_k;
const time = (recall, predict) => others + predict
  + Math.max(0, over * prepared - overlap * ahead * others) + (1 - recall) * (prepared + miss);
const predict = predict_of.value * 1e3;
const line = curve.data;
line.speed_up = line.recall.map((r) => whole / time(r / 100, predict));
curve.change.emit();
const view = points.data;
for (const name of Object.keys(view)) view[name] = [];
cases.forEach((c) => {
  if (c.hop !== ahead || c.over_fetch !== Number(fetched.value)) return;
  const cost = predict + (c.predictor.startsWith("lookahead") ? gate_ns : 0);
  view.predictor.push(c.predictor);
  view.label.push(c.label);
  view.recall.push(c.recall * 100);
  view.speed_up.push(whole / time(c.recall, cost));
  view.colour.push(c.colour);
  view.marker.push(c.marker);
});
points.change.emit();
const best = view.speed_up.reduce((b, s, i) => s > view.speed_up[b] ? i : b, 0);
verdict.text = view.speed_up.length === 0 ? "No predictor was measured here." :
  `Best here: ${view.label[best]}, ${((view.speed_up[best] - 1) * 100).toFixed(2)}% of `
  + `${((whole / others - 1) * 100).toFixed(2)}% that a free and perfect predictor gains.`;
plot.y_range.start = Math.min(0.98, Math.min(...line.speed_up, ...view.speed_up) - 0.01);
plot.y_range.end = Math.max(1.02, Math.max(...line.speed_up, ...view.speed_up) + 0.01);
"""


def speculation(result: Speculation) -> Any:
    """Speed-up of a decoder layer against recall, with the measured predictors on it.

    Sliders change what `routestats.stats.speculation` took for granted: what share of the MoE
    layer can be prepared early (it starts at the measured one), what a miss costs beyond preparing
    then, how much of preparing overlaps with other work, and what a prediction costs.

    Parameters
    ----------
    result : Speculation
        From `routestats.stats.speculation`.

    Returns
    -------
    bokeh.models.Column

    Raises
    ------
    RouteStatsError
        If Bokeh is not installed.
    """
    require_bokeh()
    from bokeh.layouts import column
    from bokeh.models import ColumnDataSource, CustomJS, Div, Range1d, Select, Slider, Span

    chosen = result.assumptions
    prepared = result.prepared_ns
    hops = sorted({case.hop for case in result.cases})
    sizes = sorted({case.over_fetch for case in result.cases})
    size = result.top_k if result.top_k in sizes else sizes[0]
    shown = [case for case in result.cases if (case.hop, case.over_fetch) == (hops[0], size)]

    recall = np.arange(0, 101, dtype=np.float64)
    # At the hop and over-fetch that are shown, as `expected_ns` has it.
    times = [result.expected_ns(r / 100, hop=hops[0], over_fetch=size) for r in recall]
    curve = ColumnDataSource(
        {"recall": recall.tolist(), "speed_up": [result.layer_ns / t for t in times]}, name="curve"
    )
    points = ColumnDataSource(
        {
            "predictor": [case.predictor for case in shown],
            "recall": [case.recall * 100 for case in shown],
            "speed_up": [case.speed_up for case in shown],
            "label": [PREDICTORS[case.predictor].label for case in shown],
            "colour": [PREDICTORS[case.predictor].colour for case in shown],
            "marker": [mark(PREDICTORS[case.predictor]) for case in shown],
        },
        name="predictors",
    )
    values = np.array(curve.data["speed_up"] + points.data["speed_up"])
    plot = new_plot(
        "", 620, 460, f"recall@M of the {result.top_k} chosen experts (%)",
        "speed-up of a decoder layer", x_range=Range1d(0, 100),
        y_range=Range1d(min(0.98, values.min() - 0.01), max(1.02, values.max() + 0.01)),
    )  # fmt: skip
    plot.add_layout(Span(location=1.0, dimension="width", line_color="#6B6B6B"))
    line = plot.line("recall", "speed_up", source=curve, color="#1A1A1A", line_width=2)
    marks = plot.scatter(
        "recall", "speed_up", source=points, size=11, marker="marker", fill_color="colour",
        line_color="colour", name="predictors",
    )  # fmt: skip
    # Entries of their own: the points come and go as menus are used, in any number.
    measured = {case.predictor for case in result.cases}
    for look in (look for name, look in PREDICTORS.items() if name in measured):
        plot.scatter(
            [np.nan], [np.nan], size=11, marker=mark(look), color=look.colour,
            legend_label=look.label,
        )  # fmt: skip
    plot.legend.label_text_font_size = "11px"
    plot.add_layout(plot.legend[0], "below")
    plot.legend.ncols = 4
    add_hover(plot, [line], [("recall", "@recall{0}%"), ("speed-up", "@speed_up{0.0000}")])
    add_hover(
        plot,
        [marks],
        [
            ("predictor", "@label"),
            ("recall, measured", "@recall{0.0}%"),
            ("speed-up", "@speed_up{0.0000}"),
        ],
    )

    def slider(name: str, title: str, end: float, value: float, step: float) -> Any:
        return Slider(
            start=0, end=max(end, value), value=value, step=step, title=title, name=name, width=300
        )

    share = slider(
        "share", "can be prepared early, of the MoE layer (%)", 90,
        100 * prepared / result.moe_ns, 0.1,
    )  # fmt: skip
    miss = slider(
        "miss", "a miss costs, beyond preparing then (% of preparing)", 300,
        100 * chosen.miss_ns / prepared if prepared else 0.0, 1,
    )  # fmt: skip
    overlap = slider("overlap", "overlap with other work (%)", 100, 100 * chosen.overlap, 1)
    predict = slider(
        "predict", "a prediction costs (us per layer and step)",
        max(5.0, round(result.layer_ns / 1e3 * 0.2, 1)), chosen.predict_ns / 1e3, 0.1,
    )  # fmt: skip
    hop = Select(title="layers ahead", value=str(hops[0]), options=[str(h) for h in hops],
                 name="hop", width=140)  # fmt: skip
    fetched = Select(title="experts prepared (M)", value=str(size),
                     options=[str(s) for s in sizes], name="over-fetch", width=140)  # fmt: skip
    best = max(shown, key=lambda case: case.speed_up, default=None)
    verdict = Div(
        width=300,
        name="verdict",
        text="No predictor was measured here." if best is None else (
            f"Best here: {PREDICTORS[best.predictor].label}, {best.speed_up - 1:.2%} of "
            f"{result.bound - 1:.2%} that a free and perfect predictor gains."
        ),
    )  # fmt: skip
    move = CustomJS(
        args={
            "share_of": share, "miss_of": miss, "overlap_of": overlap, "predict_of": predict,
            "hop": hop, "fetched": fetched, "curve": curve, "points": points, "plot": plot,
            "verdict": verdict, "moe_ns": result.moe_ns, "layer_ns": result.layer_ns,
            "measured_ns": prepared, "gate_ns": result.gate_ns, "top_k": result.top_k,
            "cases": [
                {"predictor": c.predictor, "hop": c.hop, "over_fetch": c.over_fetch,
                 "recall": c.recall, "label": PREDICTORS[c.predictor].label,
                 "colour": PREDICTORS[c.predictor].colour,
                 "marker": mark(PREDICTORS[c.predictor])}
                for c in result.cases
            ],
        },
        code=_MOVE,
    )  # fmt: skip
    for widget in (share, miss, overlap, predict, hop, fetched):
        widget.js_on_change("value", move)
    return stack(
        "what speculation gains",
        headline("What preparing a later layer early could gain"),
        [plot, column(share, miss, overlap, predict, hop, fetched, verdict)],
        caption(
            f"{result.model}, {result.steps}: {result.layer_ns / 1e3:.1f} us per layer",
            f"measured share that can be prepared ({', '.join(chosen.hides)}): "
            f"{prepared / result.moe_ns:.1%} of the MoE layer",
        ),
    )
