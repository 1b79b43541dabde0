"""What all panels share: colours, fonts, axes, ticks of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bokeh.models import FixedTicker
from bokeh.plotting import figure

# Okabe and Ito's palette, which readers with colour vision deficiencies tell apart.
BLUE, ORANGE, GREEN, PURPLE, VERMILION = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00"
SKY, YELLOW = "#56B4E9", "#F0E442"
GREY, PALE, DARK = "#6B6B6B", "#E4E4E4", "#1A1A1A"
FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"


def panel(title: str, height: int, **options: Any) -> Any:
    """An empty figure as wide as its place, with a title on its own line."""
    options.setdefault("tools", "")
    options.setdefault("sizing_mode", "stretch_width")
    made = figure(title=title, height=height, toolbar_location=None, **options)
    made.title.text_font = FONT
    made.title.text_font_size = "15px"
    made.title.text_color = DARK
    made.outline_line_color = None
    made.min_border_right = 16
    made.axis.axis_line_color = GREY
    made.axis.minor_tick_line_color = None
    made.axis.major_tick_line_color = None
    made.axis.axis_label_text_font = FONT
    made.axis.axis_label_text_font_style = "normal"
    made.axis.axis_label_text_font_size = "12px"
    made.axis.axis_label_text_color = GREY
    made.axis.major_label_text_font = FONT
    made.axis.major_label_text_font_size = "12px"
    made.grid.grid_line_color = PALE
    return made


def tick_places(count: int, most: int) -> list[int]:
    """Places among 0..count-1, evenly apart, at most `most` of them."""
    steps = (1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 128, 256)
    step = next((s for s in steps if -(-count // s) <= most), count)
    return list(range(0, count, step))


def label_layers(axis: Any, layer_ids: Sequence[int], most: int) -> None:
    """Ticks at places 0..L-1, thinned to at most `most`, that show decoder-layer numbers."""
    places = tick_places(len(layer_ids), most)
    axis.ticker = FixedTicker(ticks=places)
    axis.major_label_overrides = {place: str(layer_ids[place]) for place in places}
