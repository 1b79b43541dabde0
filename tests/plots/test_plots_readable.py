"""Every figure of two large shapes: ticks do not overlap, nothing is cut, everything is named."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

import draw_figures

# Many layers, and many experts: all pairs of both at once would take gigabytes.
SHAPES = {"deep": (96, 8, 2), "wide": (6, 256, 8)}
TOKENS = 600
PLAIN = np.zeros((1, 2, 2), np.uint8)
NAMES = tuple(draw_figures.figures(draw_figures.two_domains(PLAIN, PLAIN, num_experts=2), ""))


@pytest.fixture(scope="module", params=SHAPES)
def drawn(request: pytest.FixtureRequest) -> dict[str, Callable[[], Figure]]:
    layers, experts, top_k = SHAPES[request.param]
    rng = np.random.default_rng(layers)
    # Popular experts, and tokens that repeat whole paths.
    liking = rng.gumbel(size=(2, 150, layers, experts)) - np.log1p(np.arange(experts))
    kinds = np.argsort(-liking, axis=3)[..., :top_k].astype(np.uint8)
    first, second = (kinds[i][rng.zipf(1.5, TOKENS) % 150] for i in range(2))
    return draw_figures.figures(draw_figures.two_domains(first, second, experts), "a note")


def extents(texts: list[Text], figure: Figure) -> list[Any]:
    canvas: Any = figure.canvas
    renderer = canvas.get_renderer()
    return [
        (text.get_window_extent(renderer), text.get_text())
        for text in texts
        if text.get_visible() and text.get_text().strip()
    ]


def tick_labels(axis: Any) -> list[Text]:
    """Those in view: locators give a tick beyond either end too."""
    low, high = sorted(axis.get_view_interval())
    ticks = axis.get_major_ticks()
    return [
        label
        for tick in ticks
        for label in (tick.label1, tick.label2)
        if low - 1e-9 <= tick.get_loc() <= high + 1e-9
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_of_many_layers_or_experts_is_readable(
    name: str, drawn: dict[str, Callable[[], Figure]]
) -> None:
    figure = drawn[name]()
    FigureCanvasAgg(figure)
    figure.canvas.draw()
    if name != "put_together":
        assert figure.get_figwidth() * figure.dpi == 1000
        assert figure.get_suptitle()
        assert figure.get_supxlabel()
    for axes in figure.axes:
        if not axes.axison:
            continue
        for axis, side in ((axes.xaxis, "x"), (axes.yaxis, "y")):
            labels = extents(tick_labels(axis), figure)
            assert len(labels) <= 50
            boxes = sorted(
                (getattr(box, f"{side}0"), getattr(box, f"{side}1"), text) for box, text in labels
            )
            for (_, end, before), (start, _, after) in pairwise(boxes):
                assert start >= end - 0.5, f"{name}: {before!r} and {after!r} overlap"
    ticks = {
        id(label)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for label in (tick.label1, tick.label2)
    }
    in_view = [
        label
        for axes in figure.axes
        if axes.axison
        for axis in (axes.xaxis, axes.yaxis)
        for label in tick_labels(axis)
    ]
    texts = [text for text in figure.findobj(Text) if id(text) not in ticks]
    for box, text in extents(texts + in_view, figure):
        assert box.x0 >= -2, f"{name}: {text!r} is cut on the left"
        assert box.x1 <= figure.bbox.x1 + 2, f"{name}: {text!r} is cut on the right"


def test_every_axis_with_data_says_what_it_is(drawn: dict[str, Callable[[], Figure]]) -> None:
    for name, draw in drawn.items():
        figure = draw()
        data = [axes for axes in figure.axes if axes.axison and axes.get_label() != "<colorbar>"]
        assert data, name
        # Panels of a grid are named at its edge.
        assert any(axes.get_xlabel() for axes in data), name
        assert any(axes.get_ylabel() for axes in data), name
        for axes in figure.axes:
            if axes.get_label() == "<colorbar>":
                assert axes.get_ylabel() or axes.get_xlabel(), name
