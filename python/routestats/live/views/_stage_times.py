"""Where the time of each MoE layer goes, if the run was timed."""

from __future__ import annotations

import numpy as np
from bokeh.models import ColumnDataSource, HoverTool, Range1d

from routestats.live._state import LiveState
from routestats.live.views._style import (
    BLUE,
    FONT,
    GREEN,
    ORANGE,
    PURPLE,
    VERMILION,
    label_layers,
    panel,
)

_HEIGHT = 210
_PARTS = ("gate", "topk", "dispatch", "experts", "combine")
_COLOURS = (BLUE, GREEN, PURPLE, ORANGE, VERMILION)


class StageTimes:
    """Stacked bars, one per layer: the mean of the timed steps."""

    def __init__(self, state: LiveState) -> None:
        shape = state.shape
        assert shape is not None
        self._shown: object = None
        self.source = ColumnDataSource(
            {name: [] for name in ("place", "layer", *_PARTS)}, name="stages"
        )
        self.layout = plot = panel(
            "Time in each layer's stages", _HEIGHT, x_axis_label="layer",
            y_axis_label="µs per step", x_range=Range1d(-0.6, shape.num_layers - 0.4),
        )  # fmt: skip
        plot.y_range.start = 0
        label_layers(plot.xaxis, state.layer_ids, 17)
        plot.xgrid.visible = False
        bars = plot.vbar_stack(
            list(_PARTS), x="place", width=0.8, color=list(_COLOURS), source=self.source,
            legend_label=list(_PARTS),
        )  # fmt: skip
        plot.add_layout(plot.legend[0], "right")
        plot.legend.label_text_font = FONT
        plot.legend.label_text_font_size = "12px"
        plot.legend.border_line_color = None
        tips = [("layer", "@layer"), *((part, f"@{part}{{0.0}} µs") for part in _PARTS)]
        plot.add_tools(HoverTool(renderers=bars[-1:], tooltips=tips))
        self.layout.visible = False
        self.update(state)

    def update(self, state: LiveState) -> None:
        """Show the run's timings; without any the panel is hidden."""
        times = state.timing()
        if times is self._shown:
            return
        self._shown = times
        fits = times is not None and len(times.info.layer_ids) == len(state.layer_ids)
        steps = ~times.warm_up if fits and times is not None else np.zeros(0, bool)
        self.layout.visible = bool(steps.any())
        if times is None or not steps.any():
            return
        self.source.data = {
            "place": np.arange(len(state.layer_ids)),
            "layer": np.array(state.layer_ids),
            **{part: times.stage_ns[part][steps].mean(axis=0) / 1e3 for part in _PARTS},
        }
        self.layout.title.text = (
            f"Time in each layer's stages: mean of {int(steps.sum()):,} timed steps"
        )
