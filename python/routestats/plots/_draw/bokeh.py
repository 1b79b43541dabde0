"""What the interactive figures share: size, colours, axes, hover, and data for sliders."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from routestats.errors import RouteStatsError
from routestats.plots._draw.style import DARK, GREY, PALE, SERIES

WIDTH = 960
FONT = "Helvetica, Arial, sans-serif"

# JavaScript: `count` values of a column from `start` on, as a plain array (columns are typed
# arrays whose own slice would ask for a shape).
TAKE = """
const take = (column, start, count) => {
  const part = new Array(count);
  for (let i = 0; i < count; i++) part[i] = column[start + i];
  return part;
};
"""


def require_bokeh() -> None:
    """Refuse in one line where Bokeh is missing."""
    try:
        import bokeh.models  # noqa: F401
    except ImportError:
        raise RouteStatsError(
            "interactive figures need Bokeh, which is not installed: "
            "pip install 'routestats[notebook]'"
        ) from None


def new_plot(
    title: str, width: int, height: int, x_label: str, y_label: str, **options: Any
) -> Any:
    """Empty plot in the style of `routestats.plots`."""
    from bokeh.plotting import figure

    options.setdefault("tools", "save,reset")
    plot = figure(
        title=title,
        width=width,
        height=height,
        x_axis_label=x_label,
        y_axis_label=y_label,
        **options,
    )
    plot.toolbar.logo = None
    plot.title.text_font_size = "13px"
    plot.title.text_color = DARK
    plot.outline_line_color = None
    for axis in (*plot.xaxis, *plot.yaxis):
        axis.axis_line_color = axis.major_tick_line_color = GREY
        axis.minor_tick_line_color = None
        axis.axis_label_text_font_style = "normal"
    plot.grid.grid_line_color = PALE
    return plot


def cell_plot(
    title: str, width: int, height: int, x_label: str, y_label: str, **options: Any
) -> Any:
    """Plot for cells of a matrix: no grid, the first row on top comes from the caller's range."""
    plot = new_plot(title, width, height, x_label, y_label, **options)
    plot.grid.grid_line_color = None
    plot.background_fill_color = PALE
    return plot


def number_axis(axis: Any, labels: Sequence[object], most: int = 16) -> None:
    """Ticks at 0..n-1, thinned to about `most`, with `labels`."""
    from bokeh.models import FixedTicker

    step = max(1, -(-len(labels) // most))
    places = list(range(0, len(labels), step))
    axis.ticker = FixedTicker(ticks=places)
    axis.major_label_overrides = {place: str(labels[place]) for place in places}


def add_hover(plot: Any, renderers: Sequence[Any], tips: Sequence[tuple[str, str]]) -> None:
    """A hover of its own for `renderers`."""
    from bokeh.models import HoverTool

    plot.add_tools(HoverTool(renderers=list(renderers), tooltips=list(tips), visible=False))


def colour_bar(plot: Any, mapper: Any, title: str, **options: Any) -> Any:
    """Colour bar on the right."""
    from bokeh.models import ColorBar

    bar = ColorBar(
        color_mapper=mapper,
        title=title,
        title_text_font_style="normal",
        title_text_font_size="12px",
        width=14,
        label_standoff=5,
        bar_line_color=None,
        **options,
    )
    plot.add_layout(bar, "right")
    return bar


def sequential(low: float, high: float) -> Any:
    """Cividis, pale where there is no value."""
    from bokeh.models import LinearColorMapper
    from bokeh.palettes import Cividis256

    return LinearColorMapper(palette=Cividis256, low=low, high=_above(low, high), nan_color=PALE)


def diverging(bound: float) -> Any:
    """Purple below zero, orange above, white at zero."""
    from bokeh.models import LinearColorMapper
    from bokeh.palettes import PuOr11, interp_palette

    bound = _above(0.0, bound)
    palette = interp_palette(PuOr11, 255)
    return LinearColorMapper(palette=palette, low=-bound, high=bound, nan_color=PALE)


def _above(low: float, high: float) -> float:
    return high if np.isfinite(high) and high > low else low + 1e-3


def small(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Values as a column: float32, in row-major order, as it is a third of JSON's numbers."""
    return np.ascontiguousarray(values, dtype=np.float32).ravel()


def percent_small(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Shares as percent."""
    return small(np.asarray(values, dtype=np.float64) * 100)


def caption(*parts: str) -> Any:
    """A line below the plots."""
    from bokeh.models import Div

    text = html.escape("  ·  ".join(part for part in parts if part))
    return Div(text=text, styles={"color": GREY, "font-size": "12px"}, width=WIDTH)


def headline(title: str) -> Any:
    """The figure's title."""
    from bokeh.models import Div

    return Div(
        text=f"<b>{html.escape(title)}</b>",
        styles={"color": DARK, "font-size": "15px"},
        width=WIDTH,
    )


def stack(name: str, *rows: Any) -> Any:
    """Rows below each other, as one layout that is called `name`."""
    from bokeh.layouts import column, row

    parts = [row(*part) if isinstance(part, (list, tuple)) else part for part in rows]
    return column(*parts, name=name)


def colour_of(index: int) -> str:
    return SERIES[index % len(SERIES)]
