"""The newest tokens, and for each the expert that it went to at every layer."""

from __future__ import annotations

import colorsys

import numpy as np
from bokeh.core.properties import value
from bokeh.layouts import row
from bokeh.models import (
    ColorBar,
    ColumnDataSource,
    FixedTicker,
    HoverTool,
    LinearColorMapper,
    Range1d,
)
from bokeh.palettes import Turbo256, interp_palette

from routestats.live._state import LiveState
from routestats.live.views._style import (
    BLUE,
    DARK,
    FONT,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    YELLOW,
    label_layers,
    panel,
    tick_places,
)
from routestats.schema import DECODE, PHASES

TOKENS = 32
_HEIGHT = 690
_TEXT_WIDTH = 250
_MOST_CHARACTERS = 16
_FEW = (BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY, YELLOW, "#404040")


def expert_palette(num_experts: int) -> list[str]:
    """One colour per expert: distinct for few experts, from a rainbow for many."""
    if num_experts <= len(_FEW):
        return list(_FEW[:num_experts])
    return list(interp_palette(Turbo256, num_experts)) if num_experts <= 256 else list(Turbo256)


class TokenStream:
    """Text on the left, newest on top; a layer x token picture of first choices beside it."""

    def __init__(self, state: LiveState) -> None:
        shape = state.shape
        assert shape is not None
        self._layers, self._choices = shape.num_layers, shape.top_k
        self._version = -1
        rows = Range1d(TOKENS - 0.5, -0.5)
        self.tokens = ColumnDataSource(
            {name: [] for name in ("y", "text", "place", "ink", "request", "colour", "phase")},
            name="tokens",
        )
        self.experts = ColumnDataSource({}, name="token-experts")

        text = panel(
            "Tokens (grey: prompt)",
            _HEIGHT,
            x_range=Range1d(0, 1),
            y_range=rows,
            width=_TEXT_WIDTH,
            sizing_mode="fixed",
        )
        text.axis.visible = False
        text.grid.visible = False
        text.rect(
            x=0.03, y="y", width=0.025, height=0.8, color="colour", source=self.tokens
        )  # fmt: skip
        text.text(
            x=0.07, y="y", text="place", source=self.tokens, text_baseline="middle",
            text_font_size="11px", text_color=GREY, text_font=value(FONT),
        )  # fmt: skip
        text.text(
            x=0.98, y="y", text="text", source=self.tokens, text_baseline="middle",
            text_align="right", text_font_size="13px", text_color="ink",
            text_font=value("monospace"),
        )  # fmt: skip

        picture = panel(
            "… and the expert each chose first, by layer", _HEIGHT, y_range=rows,
            x_range=Range1d(-0.5, self._layers - 0.5), x_axis_label="layer",
        )  # fmt: skip
        picture.yaxis.visible = False
        picture.grid.visible = False
        label_layers(picture.xaxis, state.layer_ids, 16)
        mapper = LinearColorMapper(
            palette=expert_palette(shape.num_experts),
            low=-0.5,
            high=shape.num_experts - 0.5,
            nan_color="white",
        )
        glyph = picture.image(
            image="first", x=-0.5, y=-0.5, dw=self._layers, dh=TOKENS,
            color_mapper=mapper, source=self.experts,
        )  # fmt: skip
        picture.add_layout(
            ColorBar(
                color_mapper=mapper,
                title="expert",
                width=10,
                padding=4,
                ticker=FixedTicker(ticks=tick_places(shape.num_experts, 17)),
                title_text_font=FONT,
                title_text_font_style="normal",
                major_label_text_font=FONT,
                major_label_text_font_size="12px",
            ),
            "right",
        )
        shown = ", ".join(f"@choice{k}{{0}}" for k in range(self._choices))
        tips = [("layer", "@layer{0}"), ("experts, first choice first", shown)]
        picture.add_tools(HoverTool(renderers=[glyph], tooltips=tips))
        self.layout = row(text, picture, sizing_mode="stretch_width")
        self._layer_of_cell = np.tile(np.array(state.layer_ids, np.float32), (TOKENS, 1))
        self.update(state)

    def update(self, state: LiveState) -> None:
        """Show the newest tokens."""
        if state.version == self._version:
            return
        self._version = state.version
        rows = state.latest(TOKENS)
        count = len(rows)
        requests, positions, ids, phases = (
            rows[name].tolist() for name in ("request", "position", "token_id", "phase")
        )
        places = zip(requests, positions, strict=True)
        self.tokens.data = {
            "y": np.arange(count),
            "text": [_short(state.text(token)) for token in ids],
            "place": [f"{request & 0xFFFF:04x} @ {position}" for request, position in places],
            "ink": [DARK if phase == DECODE else GREY for phase in phases],
            "request": requests,
            "colour": [_colour(number) for number in requests],
            "phase": [PHASES[phase] for phase in phases],
        }
        cells = np.full((self._choices, TOKENS, self._layers), np.nan, np.float32)
        cells[:, :count] = rows["experts"].transpose(2, 0, 1)
        self.experts.data = {
            "first": [cells[0]],
            "layer": [self._layer_of_cell],
            **{f"choice{k}": [cells[k]] for k in range(self._choices)},
        }


def _short(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + "…"


def _colour(number: int) -> str:
    """The same colour for the same request; neighbours rarely alike."""
    red, green, blue = colorsys.hls_to_rgb(number * 0.61803398875 % 1, 0.5, 0.6)
    return f"#{int(255 * red):02x}{int(255 * green):02x}{int(255 * blue):02x}"
