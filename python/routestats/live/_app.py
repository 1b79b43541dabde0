"""The page: its panels, and their updates."""

from __future__ import annotations

from typing import Any

from bokeh.document import Document
from bokeh.layouts import column, row
from bokeh.models import Spacer

from routestats.live import views
from routestats.live._state import LiveState

PERIOD_MS = 500


class Page:
    """One viewer's page.

    Parameters
    ----------
    document : bokeh.document.Document
    state : LiveState
        Shared by all viewers.
    """

    def __init__(self, document: Document, state: LiveState) -> None:
        self._state = state
        self._epoch = -1
        self._panels: list[Any] = []
        self._root = column(sizing_mode="stretch_width")
        document.title = f"routestats · {state.run_dir.name}"
        state.refresh()
        self._build()
        document.add_root(self._root)
        document.add_periodic_callback(self.update, PERIOD_MS)

    def update(self) -> None:
        """Show what is new; another run gets panels of its own shape."""
        self._state.refresh()
        if self._state.epoch != self._epoch:
            self._build()
            return
        for panel in self._panels:
            panel.update(self._state)

    def _build(self) -> None:
        state = self._state
        self._epoch = state.epoch
        counters = views.Counters(state)
        self._panels = [counters]
        parts: list[Any] = [counters.layout]
        if state.shape is not None:
            tokens, load = views.TokenStream(state), views.LoadMap(state)
            chart = views.PredictabilityChart(state)
            rate, stages = views.Throughput(state), views.StageTimes(state)
            self._panels += [tokens, load, chart, rate, stages]
            right = column(load.layout, chart.layout, sizing_mode="stretch_width")
            parts.append(row(tokens.layout, Spacer(width=12), right, sizing_mode="stretch_width"))
            parts.append(row(rate.layout, stages.layout, sizing_mode="stretch_width"))
        self._root.children = parts
