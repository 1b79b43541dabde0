"""The line on top: state, rows, rows per second, losses, and what the view follows."""

from __future__ import annotations

from html import escape
from typing import Any

from bokeh.models import Div

from routestats.live._state import LiveState
from routestats.live.views._style import BLUE, DARK, FONT, GREEN, GREY, ORANGE, VERMILION

_STATES = {
    "waiting": (GREY, "there is no run in this folder yet"),
    "live": (GREEN, "rows are coming in"),
    "idle": (BLUE, "the engine is there and has nothing to do"),
    "lost": (VERMILION, "the engine has stopped without closing the run"),
    "finished": (GREY, "the run is complete"),
    "incomplete": (ORANGE, "the run is not closed, and has no live feed"),
}
_SOURCES = {
    "feed": "newest rows from the live feed",
    "files": "newest rows from the run's files",
    None: "",
}


class Counters:
    """State, rows, rows per second, drops, lag and window, as large figures."""

    def __init__(self, state: LiveState) -> None:
        self.layout = Div(name="counters", sizing_mode="stretch_width", height=90)
        self.update(state)

    def update(self, state: LiveState) -> None:
        """Show how the run stands."""
        text = self._text(state)
        if text != self.layout.text:
            self.layout.text = text

    def _text(self, state: LiveState) -> str:
        standing = state.standing
        colour, meaning = _STATES[standing.state]
        lines = [
            standing.problem or meaning,
            _SOURCES[standing.source],
            f"{state.model} · {state.shape}" if state.shape else str(state.run_dir),
        ]
        about = "<br>".join(escape(line) for line in lines if line)
        window = state.window
        held = f"{len(window):,} of {window.size:,}" if window is not None else "0"
        fed = standing.source == "feed"  # without a feed, rows come a file at a time
        tiles: list[tuple[str, Any, str]] = [
            ("rows", f"{standing.rows:,}", DARK),
            ("rows per second", f"{state.rate:,.0f}" if fed else "–", DARK),
            ("dropped", f"{standing.dropped:,}", VERMILION if standing.dropped else DARK),
            ("lag, rows", f"{standing.lag_rows:,}" if fed else "–", DARK),
            ("not seen by this view", f"{standing.skipped:,}", DARK),
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
            f'<div style="font-size:24px;font-weight:600;color:{colour}">● {standing.state}</div>'
            f'<div style="font-size:12px;color:{GREY}">{about}</div>'
            f"</div>{cells}</div>"
        )
