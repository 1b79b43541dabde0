"""Interactive figure: the most travelled paths through a window of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from routestats.errors import InvalidValueError
from routestats.plots._draw.bokeh import (
    add_hover,
    caption,
    colour_of,
    headline,
    new_plot,
    number_axis,
    require_bokeh,
    stack,
)

if TYPE_CHECKING:
    from routestats.counts import PathCounts

SPREAD = 0.36  # paths through one expert lie beside each other within this much of its line
MAX_WIDTH = 14.0

_MOVE = """
const window = windows[at.value];
const most = Math.min(number.value, window.xs.length);
const view = lines.data;
for (const name of ["xs", "ys", "share", "tokens", "path", "width", "colour", "rank"]) {
  view[name] = window[name].slice(0, most);
}
lines.change.emit();
plot.x_range.start = window.start - 0.3;
plot.x_range.end = window.start + window.length - 0.7;
const covered = view.tokens.reduce((a, b) => a + b, 0) / window.all_tokens * 100;
plot.title.text = `layers ${window.names[0]} to ${window.names[1]}: the ${most} most frequent of `
  + `${window.distinct.toLocaleString("en")} paths carry ${covered.toFixed(1)}% of the tokens`;
"""


def path_flow(*counts: PathCounts, shown: int = 10) -> Any:
    """The most frequent paths of first choices as lines through layers and experts.

    A slider moves over the windows, another says how many paths are drawn. A line is as wide as
    the share of tokens on the path.

    Parameters
    ----------
    *counts : PathCounts
        From `routestats.count_paths`, of first choices, one per window, in the order of the slider.
        As many paths can be drawn as they keep (``top``), at most 50.
    shown : int
        Paths that are drawn first.

    Returns
    -------
    bokeh.models.Column

    Raises
    ------
    InvalidValueError
        If there are no counts, they are of sets or of no token, or their shapes differ.
    RouteStatsError
        If Bokeh is not installed.
    """
    require_bokeh()
    from bokeh.models import ColumnDataSource, CustomJS, Range1d, Slider

    if not counts:
        raise InvalidValueError("counts: expected those of one window at least, got none")
    for each in counts:
        if each.kind != "top1":
            raise InvalidValueError(f"counts: expected kind 'top1', got {each.kind!r}")
        if each.shape != counts[0].shape:
            raise InvalidValueError(f"counts: expected {counts[0].shape}, got {each.shape}")
        if each.tokens == 0 or len(each.paths) == 0:
            raise InvalidValueError("counts: expected at least 1 token and 1 path kept")
    most = min(50, max(len(each.paths) for each in counts))
    widest = max(float(each.counts[0]) / each.tokens for each in counts)
    windows = [_window(each, most, widest) for each in counts]
    first = windows[0]
    count = min(shown, len(first["xs"]))
    fields = ("xs", "ys", "share", "tokens", "path", "width", "colour", "rank")
    lines = ColumnDataSource({name: first[name][:count] for name in fields}, name="paths")

    experts = counts[0].shape.num_experts
    covered = sum(first["tokens"][:count]) / first["all_tokens"]
    plot = new_plot(
        f"layers {first['names'][0]} to {first['names'][1]}: the {count} most frequent of "
        f"{first['distinct']:,} paths carry {covered:.1%} of the tokens",
        960, int(np.clip(220 + 28 * experts, 380, 640)), "MoE layer", "expert, first choice",
        x_range=Range1d(first["start"] - 0.3, first["start"] + first["length"] - 0.7),
        y_range=Range1d(experts - 0.4, -0.6),
    )  # fmt: skip
    number_axis(plot.yaxis, range(experts), 16)
    number_axis(plot.xaxis, counts[0].layer_ids, 64)
    drawn = plot.multi_line(
        "xs", "ys", source=lines, line_width="width", line_color="colour", line_alpha=0.65,
        line_join="round", hover_line_color="#1A1A1A", hover_line_alpha=1.0, name="flow",
    )  # fmt: skip
    add_hover(
        plot,
        [drawn],
        [("path", "@path"), ("rank", "@rank"), ("tokens", "@tokens{0,0} (@share{0.00}%)")],
    )
    at = Slider(
        start=0, end=max(len(windows) - 1, 1), step=1, value=0, width=320, name="window",
        title="window of layers", disabled=len(windows) == 1,
    )  # fmt: skip
    number = Slider(
        start=1, end=max(most, 2), step=1, value=count, width=320, name="paths shown",
        title="paths shown",
    )  # fmt: skip
    move = CustomJS(
        args={"windows": windows, "at": at, "number": number, "lines": lines, "plot": plot},
        code=_MOVE,
    )
    at.js_on_change("value", move)
    number.js_on_change("value", move)
    return stack(
        "most travelled paths",
        headline("The most travelled paths through the layers"),
        [at, number],
        plot,
        caption(
            f"{counts[0].tokens:,} tokens, first choices",
            str(counts[0].shape),
            "a line is as wide as its share of the tokens; hover names the path",
        ),
    )


def _window(counts: PathCounts, most: int, widest: float) -> dict[str, Any]:
    paths = counts.paths[:most].astype(int)
    tokens = counts.counts[:most].astype(int)
    layers = np.arange(counts.start, counts.start + counts.length)
    offsets = np.linspace(-SPREAD, SPREAD, len(paths)) if len(paths) > 1 else np.zeros(1)
    share = tokens / counts.tokens
    last = counts.start + counts.length - 1
    return {
        "start": counts.start,
        "length": counts.length,
        "names": [int(counts.layer_ids[counts.start]), int(counts.layer_ids[last])],
        "distinct": int(counts.distinct),
        "all_tokens": int(counts.tokens),
        "xs": [layers.tolist()] * len(paths),
        "ys": (paths + offsets[:, None]).round(3).tolist(),
        "share": (share * 100).round(4).tolist(),
        "tokens": tokens.tolist(),
        "path": [" ".join(map(str, path)) for path in paths],
        "width": np.maximum(1.2, share / widest * MAX_WIDTH).round(2).tolist(),
        "colour": [colour_of(place) for place in range(len(paths))],
        "rank": list(range(1, len(paths) + 1)),
    }
