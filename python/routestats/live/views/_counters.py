"""The line on top: is it alive, how much, how fast, was anything lost."""

from __future__ import annotations

from html import escape
from typing import Any

from bokeh.models import Div

from routestats.live._state import LiveState
from routestats.live.views._style import BLUE, DARK, FONT, GREEN, GREY, ORANGE, VERMILION

_STATES = {
    "waiting": (GREY, "waiting", "there is no run in this folder yet"),
    "live": (GREEN, "live", "rows are coming in"),
    "idle": (BLUE, "idle", "the engine is there and has nothing to do"),
    "lost": (VERMILION, "lost", "the engine has gone without closing the run"),
    "finished": (GREY, "finished", "the run is complete"),
    "incomplete": (ORANGE, "incomplete", "nothing writes this run, and it was not closed"),
}


class Counters:
    """State, rows, rows per second, drops, lag and window, as large figures."""

    def __init__(self, state: LiveState) -> None:
        self.layout = Div(name="counters", sizing_mode="stretch_width", height=74)
        self.update(state)

    def update(self, state: LiveState) -> None:
        """Show how the run stands."""
        text = self._text(state)
        if text != self.layout.text:
            self.layout.text = text

    def _text(self, state: LiveState) -> str:
        standing = state.standing
        colour, name, meaning = _STATES[standing.state]
        meaning = standing.problem or meaning
        shape = f"{state.model} · {state.shape}" if state.shape else str(state.run_dir)
        window = state.window
        held = f"{len(window):,} of {window.size:,}" if window is not None else "0"
        tiles: list[tuple[str, Any, str]] = [
            ("rows", f"{standing.rows:,}", DARK),
            ("rows per second", f"{state.rate:,.0f}", DARK),
            ("dropped", f"{standing.dropped:,}", VERMILION if standing.dropped else DARK),
            ("lag, rows", f"{standing.lag_rows:,}", DARK),
            ("skipped by this view", f"{standing.skipped:,}", DARK),
            ("tokens in the window", held, DARK),
        ]
        cells = "".join(
            f'<div style="padding:0 22px;border-left:1px solid #ddd">'
            f'<div style="font-size:24px;font-weight:600;color:{tint};'
            f'font-variant-numeric:tabular-nums">{value}</div>'
            f'<div style="font-size:12px;color:{GREY}">{label}</div></div>'
            for label, value, tint in tiles
        )
        return (
            f'<div style="display:flex;align-items:center;flex-wrap:wrap;font-family:{FONT}">'
            f'<div style="padding-right:22px;min-width:260px">'
            f'<div style="font-size:24px;font-weight:600;color:{colour}">● {name}</div>'
            f'<div style="font-size:12px;color:{GREY}">{escape(meaning)}<br>{escape(shape)}</div>'
            f"</div>{cells}</div>"
        )
