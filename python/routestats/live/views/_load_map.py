"""Load of every expert of every layer over the window, against an even load."""

from __future__ import annotations

import numpy as np
from bokeh.models import (
    ColorBar,
    ColumnDataSource,
    FixedTicker,
    HoverTool,
    LinearColorMapper,
    Range1d,
)
from bokeh.palettes import PuOr11, interp_palette

from routestats.live._measures import imbalance, times_even
from routestats.live._state import LiveState
from routestats.live.views._style import FONT, label_layers, panel

_HEIGHT = 370
_OCTAVES = 2
_COLD_TO_HOT = interp_palette(PuOr11, 255)


class LoadMap:
    """Layer x expert; white is an even load, orange more, purple less."""

    def __init__(self, state: LiveState) -> None:
        shape = state.shape
        assert shape is not None
        self._version = -1
        self.source = ColumnDataSource({}, name="load")
        layers, experts = shape.num_layers, shape.num_experts
        self.layout = plot = panel(
            "Expert load", _HEIGHT, x_axis_label="expert", y_axis_label="layer",
            x_range=Range1d(-0.5, experts - 0.5), y_range=Range1d(layers - 0.5, -0.5),
        )  # fmt: skip
        plot.grid.visible = False
        label_layers(plot.yaxis, state.layer_ids, 16)
        label_layers(plot.xaxis, range(experts), 17)
        mapper = LinearColorMapper(
            palette=_COLD_TO_HOT, low=-_OCTAVES, high=_OCTAVES, nan_color="white"
        )
        glyph = plot.image(
            image="octaves", x=-0.5, y=-0.5, dw=experts, dh=layers,
            color_mapper=mapper, source=self.source,
        )  # fmt: skip
        plot.add_layout(
            ColorBar(
                color_mapper=mapper,
                width=12,
                padding=4,
                ticker=FixedTicker(ticks=[-2, -1, 0, 1, 2]),
                major_label_overrides={
                    -2: "¼× or less", -1: "½×", 0: "even", 1: "2×", 2: "4× or more",
                },
                major_label_text_font=FONT,
                major_label_text_font_size="12px",
            ),
            "right",
        )  # fmt: skip
        tips = [
            ("layer", "@layer{0}"),
            ("expert", "@expert{0}"),
            ("load", "@times{0.00} times even, @tokens{0,0} tokens"),
        ]
        plot.add_tools(HoverTool(renderers=[glyph], tooltips=tips))
        grid = np.meshgrid(np.array(state.layer_ids), np.arange(experts), indexing="ij")
        self._layer, self._expert = (axis.astype(np.float32) for axis in grid)
        self.update(state)

    def update(self, state: LiveState) -> None:
        """Show the window's loads."""
        if state.version == self._version or state.window is None:
            return
        self._version = state.version
        load = state.window.load
        times = times_even(load)
        with np.errstate(divide="ignore"):
            octaves = np.clip(np.log2(times), -_OCTAVES, _OCTAVES)
        self.source.data = {
            "octaves": [octaves.astype(np.float32)],
            "times": [times.astype(np.float32)],
            "tokens": [load.astype(np.float32)],
            "layer": [self._layer],
            "expert": [self._expert],
        }
        if len(state.window):
            ratio = imbalance(load)
            worst = int(ratio.argmax())
            self.layout.title.text = (
                f"Expert load, last {len(state.window):,} tokens: at most {ratio[worst]:.1f}× even "
                f"(layer {state.layer_ids[worst]}, expert {int(load[worst].argmax())})"
            )
