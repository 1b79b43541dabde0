"""How well a layer's first choice is known from the previous layer's, against the marginal."""

from __future__ import annotations

import numpy as np
from bokeh.models import ColumnDataSource, HoverTool, Range1d

from routestats.live._state import LiveState
from routestats.live.views._style import FONT, label_layers, panel
from routestats.stats._predictors.table import PREDICTORS

_HEIGHT = 310
_TOPS = (10, 25, 50, 75)
_MEANINGS = {
    "single_hop": "from the previous layer",
    "marginal": "always the most frequent expert",
}


class PredictabilityChart:
    """Two lines over the layers: single hop, and the marginal that it must beat."""

    def __init__(self, state: LiveState) -> None:
        shape = state.shape
        assert shape is not None
        self._version = -1
        self.source = ColumnDataSource(
            {name: [] for name in ("place", "layer", "single_hop", "marginal")},
            name="predictability",
        )
        self.layout = plot = panel(
            "Predictability", _HEIGHT, x_axis_label="predicted layer",
            y_axis_label="first choice guessed right, %",
            x_range=Range1d(0.5, max(shape.num_layers - 0.5, 1)), y_range=Range1d(0, 100),
        )  # fmt: skip
        label_layers(plot.xaxis, state.layer_ids, 17)
        looks = {name: PREDICTORS[name] for name in _MEANINGS}
        plot.varea(
            x="place", y1="marginal", y2="single_hop", source=self.source,
            color=looks["single_hop"].colour, alpha=0.15,
        )  # fmt: skip
        lines = []
        for name, look in looks.items():
            line = plot.line(
                x="place", y=name, source=self.source, color=look.colour, line_width=2,
                line_dash=look.line, legend_label=f"{look.label}: {_MEANINGS[name]}",
            )  # fmt: skip
            lines.append(line)
            if look.marker:
                plot.scatter(
                    x="place", y=name, source=self.source, color=look.colour, size=5,
                    marker=look.marker,
                )  # fmt: skip
        plot.legend.location = "top_right"
        plot.legend.orientation = "horizontal"
        plot.legend.label_text_font = FONT
        plot.legend.label_text_font_size = "12px"
        plot.legend.background_fill_alpha = 0.7
        plot.legend.border_line_color = None
        plot.add_tools(
            HoverTool(
                renderers=lines[:1],
                mode="vline",
                tooltips=[
                    ("layer", "@layer"),
                    *((look.label, f"@{name}{{0.0}} %") for name, look in looks.items()),
                ],
            )
        )
        self.update(state)

    def update(self, state: LiveState) -> None:
        """Show the window's newer half, predicted from its older half."""
        if state.version == self._version or len(state.layer_ids) < 2:
            return
        self._version = state.version
        found = state.predictability()
        self.source.data = {
            "place": np.arange(1, len(state.layer_ids)),
            "layer": np.array(state.layer_ids[1:]),
            "single_hop": 100 * found.single_hop,
            "marginal": 100 * found.marginal,
        }
        if found.tested:
            highest = 115 * float(np.nanmax([found.single_hop, found.marginal]))
            self.layout.y_range.end = next((top for top in _TOPS if top >= highest), 100)
            self.layout.title.text = (
                f"The previous layer tells {100 * found.single_hop.mean():.0f} % of first choices; "
                f"the marginal {100 * found.marginal.mean():.0f} %"
            )
            self.layout.xaxis.axis_label = (
                f"predicted layer  (the {found.tested:,} newest tokens, fitted on those before)"
            )
