"""Lines and points of predictors, whose looks are those of the one table of predictors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from routestats.plots._draw.style import interval
from routestats.stats import Estimate
from routestats.stats._predictors.table import PREDICTORS, Predictor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Matplotlib's names of the table's markers, which are Bokeh's.
MARKERS = {
    "circle": "o",
    "square": "s",
    "triangle": "^",
    "inverted_triangle": "v",
    "diamond": "D",
    "plus": "P",
    "x": "X",
    "hex": "h",
}
CROSSES = ("plus", "x")  # thin: drawn small they would be dots
BASELINES = ("uniform", "marginal")
OVERFITTED = "history_longest"
"""Not drawn where `history_selected` stands for it: the caption then says so."""
NOT_DRAWN = f"not drawn: {PREDICTORS[OVERFITTED].label}, which overfits"


def mark(predictor: Predictor) -> str:
    """Bokeh's marker of a point that stands alone: of a baseline, whose line has none, too."""
    return predictor.marker or "hex"


def predictor_line(
    axes: Axes, name: str, x: npt.ArrayLike, estimate: Estimate, *, label: str = "", **options: Any
) -> None:
    """A line of shares in %, with its interval where it has one; `label` is said of it besides."""
    look = PREDICTORS[name]
    value, low, high = (part * 100 for part in estimate)
    size = 6.5 if look.marker in CROSSES else 3.8
    axes.plot(
        x,
        value,
        **{"linewidth": 1.7, "markersize": size, **options},
        color=look.colour,
        marker=MARKERS.get(look.marker, ""),
        linestyle=look.line,
        label=look.label + label,
    )
    if name != "uniform":  # which is exact
        interval(axes, x, low, high, look.colour)


def uniform_level(axes: Axes, share: float) -> None:
    """The uniform guess, which is the same at every place."""
    look = PREDICTORS["uniform"]
    axes.axhline(share * 100, color=look.colour, linestyle=look.line, label=look.label)


def predictor_point(axes: Axes, name: str, x: float, y: float, *, label: str) -> None:
    """One value of a predictor; `label` is said of it besides."""
    look = PREDICTORS[name]
    axes.plot(
        x,
        y,
        color=look.colour,
        marker=MARKERS[mark(look)],
        markersize=8,
        linestyle="",
        label=look.label + label,
    )
