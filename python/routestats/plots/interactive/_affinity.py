"""Interactive figure: affinity of any two layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from routestats.errors import InvalidValueError
from routestats.plots._draw.bokeh import (
    TAKE,
    add_hover,
    caption,
    cell_plot,
    colour_bar,
    diverging,
    headline,
    number_axis,
    percent_small,
    require_bokeh,
    sequential,
    small,
    stack,
)
from routestats.plots._draw.style import pairing_text

if TYPE_CHECKING:
    from routestats.counts import RouteCounts

# Cells that stay quick to draw and small to keep: 32 x 32 in one map, half a million in all (2 MB).
MAX_SIDE, MAX_CELLS = 32, 500_000

_MOVE = (
    TAKE
    + """
const hop = Number(hops.value);
const last = layers.length - 1 - hop;
if (source.value > last) { source.value = last; return; }
const [src, dst] = [source.value, source.value + hop];
const cells = side * side;
const pair = pairs.data.source.findIndex((s, i) => s === src && pairs.data.hop[i] === hop);
const affinity = take(all.data.affinity, pair * cells, cells);
const load = take(loads.data.load, dst * side, side);
const tokens = take(loads.data.tokens, src * side, side);
const view = cell_source.data;
view.affinity = affinity;
// Not target.map: integers come as a typed array, whose map would cut these values to integers.
view.load = Array.from(view.target, (e) => load[e]);
view.tokens = Array.from(view.source, (e) => tokens[e]);
view.difference = affinity.map((a, i) => a - view.load[i]);
cell_source.change.emit();
plot.title.text = `layer ${layers[src]} to layer ${layers[dst]}`;
let best = -1;
view.difference.forEach((d, i) => {
  if (view.tokens[i] >= least && !isNaN(d) && (best < 0 || d > view.difference[best])) best = i;
});
const some = best < 0 ? "" : view.tokens[best].toLocaleString("en");
strongest.text = best < 0 ? "" : `The strongest link: of the ${some} `
  + `${choices} of ${unit} ${view.source_name[best]} at layer ${layers[src]}, `
  + `${affinity[best].toFixed(1)}% go with ${unit} ${view.target_name[best]} at layer `
  + `${layers[dst]}, against ${view.load[best].toFixed(1)}% of all.`;
"""
)
_COLOUR = """
const by_difference = colour.active === 0;
difference.visible = difference_bar.visible = by_difference;
probability.visible = probability_bar.visible = !by_difference;
"""


def affinity(counts: RouteCounts, *, source: int = 0, hop: int = 1, min_tokens: int = 100) -> Any:
    """Affinity of a layer's experts to those of any later layer, with sliders for both.

    Colours show the difference from the target's load, which is what affinity would be if the
    source layer told nothing, or the affinity itself. The scale is the same for all pairs.

    Parameters
    ----------
    counts : RouteCounts
        With one hop at least.
    source, hop : int
        The pair that is shown first.
    min_tokens : int
        Tokens that a source expert needs for a link to be named as the strongest.

    Returns
    -------
    bokeh.models.Column
        More than 32 experts are shown as up to 32 groups of consecutive ones: choices in the target
        group for each choice in the source group. Where that is not small enough, hops are left out
        (powers of two stay), and the caption says both.

    Raises
    ------
    InvalidValueError
        If no token or no hop was counted, or the first pair does not exist.
    RouteStatsError
        If Bokeh is not installed.
    """
    require_bokeh()
    from bokeh.layouts import column
    from bokeh.models import (
        ColumnDataSource,
        CustomJS,
        Div,
        RadioButtonGroup,
        Range1d,
        Select,
        Slider,
    )

    shape = counts.shape
    if counts.tokens == 0:
        raise InvalidValueError("counts: expected at least 1 token, got 0")
    width = -(-shape.num_experts // MAX_SIDE)
    edges = np.arange(0, shape.num_experts, width)
    side = len(edges)
    hops = _hops(counts, side)
    if not hops:
        raise InvalidValueError(f"counts.hops: expected one from 1 on, got {counts.hops}")
    if hop not in hops or not 0 <= source < shape.num_layers - hop:
        raise InvalidValueError(
            f"source, hop: expected a counted pair of {shape.num_layers} layers and hops {hops}, "
            f"got {source}, {hop}"
        )
    pairs = [(src, h) for h in hops for src in range(shape.num_layers - h)]
    matrices, chosen, load = _matrices(counts, pairs, edges)
    names = _names(edges, shape.num_experts)
    at, to = (axis.ravel() for axis in np.indices((side, side)))
    first = pairs.index((source, hop))
    shown = matrices[first].ravel() * 100
    base = load[source + hop][to] * 100
    cells = ColumnDataSource(
        {
            "source": at,
            "target": to,
            "source_name": [names[e] for e in at],
            "target_name": [names[e] for e in to],
            "affinity": small(shown),
            "load": small(base),
            "difference": small(shown - base),
            "tokens": chosen[source][at].astype(np.float64),
        },
        name="cells",
    )
    targets = np.stack([load[src + h] for src, h in pairs])
    bound = float(np.nanmax(np.abs(matrices - targets[:, None, :]), initial=0.0)) * 100
    top = float(np.nanmax(matrices, initial=0.0)) * 100

    unit = "expert" if width == 1 else "experts"
    plot = cell_plot(
        f"layer {counts.layer_ids[source]} to layer {counts.layer_ids[source + hop]}",
        640,
        560,
        f"{unit} of the target layer",
        f"{unit} of the source layer",
        x_range=Range1d(-0.5, side - 0.5),
        y_range=Range1d(side - 0.5, -0.5),
    )
    number_axis(plot.xaxis, names)
    number_axis(plot.yaxis, names)
    drawn = {}
    for field, mapper, label in (
        ("difference", diverging(bound), "points above load"),
        ("affinity", sequential(0.0, top), "affinity (%)"),
    ):
        drawn[field] = plot.rect(
            "target", "source", 1, 1, source=cells, line_color="white", line_width=0.5,
            fill_color={"field": field, "transform": mapper}, name=field,
        )  # fmt: skip
        drawn[f"{field}_bar"] = colour_bar(plot, mapper, label)
    drawn["affinity"].visible = drawn["affinity_bar"].visible = False
    given = "choices of the source" if counts.pairing == "any" else "first choices of the source"
    add_hover(
        plot,
        [drawn["difference"], drawn["affinity"]],
        [
            ("link", f"{unit} @source_name → @target_name"),
            ("affinity", "@affinity{0.0}%"),
            ("load of the target", "@load{0.0}%"),
            ("difference", "@difference{+0.0} points"),
            (given, "@tokens{0,0}"),
        ],
    )

    slider = Slider(
        start=0, end=max(shape.num_layers - 2, 1), step=1, value=source, width=300,
        title="source layer, counted from 0", name="source layer",
    )  # fmt: skip
    select = Select(
        title="layers ahead (hop)", value=str(hop), options=[str(h) for h in hops], width=120,
        name="hop",
    )  # fmt: skip
    colour = RadioButtonGroup(
        labels=["difference from load", "affinity"], active=0, name="colour", width=260
    )
    words = {"unit": unit, "choices": "tokens" if width == 1 else "choices"}
    text = _strongest(
        cells.data, min_tokens, [counts.layer_ids[source], counts.layer_ids[source + hop]], words
    )
    strongest = Div(width=280, text=text, name="strongest link")
    everything = ColumnDataSource({"affinity": percent_small(matrices)}, name="all pairs")
    loads = ColumnDataSource({"load": percent_small(load), "tokens": chosen.ravel()})
    index = ColumnDataSource({"source": [p[0] for p in pairs], "hop": [p[1] for p in pairs]})
    move = CustomJS(
        args={
            "source": slider, "hops": select, "pairs": index, "all": everything, "loads": loads,
            "side": side,
            "cell_source": cells, "plot": plot, "layers": [int(i) for i in counts.layer_ids],
            "strongest": strongest, "least": min_tokens, **words,
        },
        code=_MOVE,
    )  # fmt: skip
    slider.js_on_change("value", move)
    select.js_on_change("value", move)
    colour.js_on_change(
        "active",
        CustomJS(
            args={
                "colour": colour,
                "difference": drawn["difference"],
                "difference_bar": drawn["difference_bar"],
                "probability": drawn["affinity"],
                "probability_bar": drawn["affinity_bar"],
            },
            code=_COLOUR,
        ),
    )
    left_out = len(counts.hops) - (0 in counts.hops) - len(hops)
    notes = (
        f"{counts.tokens:,} tokens",
        pairing_text(counts.pairing, shape.top_k),
        str(shape),
        f"groups of {width} consecutive experts" if width > 1 else "",
        f"{left_out} hops left out" if left_out else "",
    )
    return stack(
        "affinity of any two layers",
        headline("Affinity: of the tokens of an expert, which choose which expert later"),
        [plot, column(slider, select, colour, strongest)],
        caption(*notes),
    )


def _hops(counts: RouteCounts, side: int) -> list[int]:
    """Hops whose maps fit: all, or powers of two, or as many of these as fit."""
    counted = [hop for hop in counts.hops if hop > 0]
    layers = counts.shape.num_layers

    def size(hops: list[int]) -> int:
        return sum(layers - hop for hop in hops) * side * side

    if size(counted) <= MAX_CELLS:
        return counted
    fewer = [hop for hop in counted if hop & (hop - 1) == 0] or counted
    while len(fewer) > 1 and size(fewer) > MAX_CELLS:
        fewer.pop()
    return fewer


def _matrices(
    counts: RouteCounts, pairs: list[tuple[int, int]], edges: Any
) -> tuple[Any, Any, Any]:
    """Affinity [P, side, side]; choices [L, side]; share of tokens per target [L, side]."""
    chosen = np.add.reduceat(counts.expert.astype(np.float64), edges, axis=1)
    matrices = np.empty((len(pairs), len(edges), len(edges)))
    for place, (src, hop) in enumerate(pairs):
        both = counts.pair(src, src + hop).astype(np.float64)
        both = np.add.reduceat(np.add.reduceat(both, edges, axis=0), edges, axis=1)
        seen = (chosen[src] > 0)[:, None]
        empty = np.full_like(both, np.nan)
        matrices[place] = np.divide(both, chosen[src][:, None], out=empty, where=seen)
    return matrices, chosen, chosen / counts.tokens


def _names(edges: Any, num_experts: int) -> list[str]:
    ends = [*edges[1:], num_experts]
    return [
        str(a) if b - a == 1 else f"{a}–{b - 1}" for a, b in zip(edges.tolist(), ends, strict=True)
    ]


def _strongest(cells: Any, least: int, layers: list[int], words: dict[str, str]) -> str:
    """What the browser writes when a slider moves, for the first pair."""
    rise = np.where(cells["tokens"] >= least, cells["difference"], np.nan)
    if np.isnan(rise).all():
        return ""
    best = int(np.nanargmax(rise))
    of = {name: column[best] for name, column in cells.items()}
    return (
        f"The strongest link: of the {of['tokens']:,.0f} {words['choices']} of {words['unit']} "
        f"{of['source_name']} at layer {layers[0]}, {of['affinity']:.1f}% go with {words['unit']} "
        f"{of['target_name']} at layer {layers[1]}, against {of['load']:.1f}% of all."
    )
