"""Rows per second over the last minutes."""

from __future__ import annotations

import time

from bokeh.models import ColumnDataSource, DataRange1d, DatetimeTickFormatter

from routestats.live._state import LiveState
from routestats.live.views._style import BLUE, FONT, VERMILION, panel

_HEIGHT = 210
POINTS = 1_200
"""Ten minutes at two points a second; older points go."""


class Throughput:
    """Lines of rows taken in and rows dropped per second, since the page was opened."""

    def __init__(self, state: LiveState) -> None:
        self.source = ColumnDataSource(
            {name: [] for name in ("time", "rate", "dropped")}, name="throughput"
        )
        self._before = (time.monotonic(), state.standing.dropped)
        self.layout = plot = panel(
            "Rows per second", _HEIGHT, x_axis_type="datetime", y_range=DataRange1d(start=0),
        )  # fmt: skip
        plot.xaxis.formatter = DatetimeTickFormatter(
            context=None, milliseconds="%H:%M:%S", seconds="%H:%M:%S", minsec="%H:%M:%S"
        )
        for name, label, colour in (("rate", "rows", BLUE), ("dropped", "dropped", VERMILION)):
            plot.line(
                x="time", y=name, source=self.source, color=colour, line_width=2,
                legend_label=label,
            )  # fmt: skip
        plot.legend.location = "top_left"
        plot.legend.orientation = "horizontal"
        plot.legend.label_text_font = FONT
        plot.legend.label_text_font_size = "12px"
        plot.legend.border_line_color = None

    def update(self, state: LiveState) -> None:
        """Add a point."""
        now, dropped = time.monotonic(), state.standing.dropped
        then, before = self._before
        self._before = (now, dropped)
        rate = max(dropped - before, 0) / (now - then) if now > then else 0.0
        point = {"time": [time.time() * 1e3], "rate": [state.rate], "dropped": [rate]}
        self.source.stream(point, rollover=POINTS)
