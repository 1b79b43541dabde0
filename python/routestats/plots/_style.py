"""What all figures share: size, colours, titles and layer ticks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from routestats.errors import RouteStatsError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES = 10.0
DPI = 100

# Okabe and Ito's palette, which readers with colour vision deficiencies tell apart.
BLUE, ORANGE, GREEN, PURPLE, VERMILION = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE)
GREY, PALE, DARK = "#6B6B6B", "#E4E4E4", "#1A1A1A"
SEQUENTIAL, DIVERGING = "cividis", "PuOr_r"


def new_figure(height: float) -> Figure:
    """Empty figure, 1,000 pixels wide, `height` inches high."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise RouteStatsError(
            "figures need matplotlib, which is not installed: pip install 'routestats[plots]'"
        ) from None
    return Figure(figsize=(WIDTH_INCHES, height), dpi=DPI, layout="constrained")


def set_title(figure: Figure, title: str, caption: str) -> None:
    """Title in bold, and below it, smaller, what the figure shows and of how much data."""
    text = figure.suptitle(title, x=0.012, ha="left", fontsize=14, fontweight="bold", color=DARK)
    # The caption is part of the layout: a title of its own row in the grid would be cut.
    text.set_text(title)
    figure.supxlabel(caption, x=0.012, ha="left", fontsize=9.5, color=GREY)


def pairing_text(pairing: str, top_k: int) -> str:
    """The pairing and what it means, in words."""
    if pairing == "top1":
        return "first choice only (pairing: top1)"
    return f"all {top_k} choices of a token (pairing: any)"


def join(*parts: str) -> str:
    """Parts of a caption, empty ones left out."""
    return "  ·  ".join(part for part in parts if part)


def tick_step(count: int, most: int) -> int:
    """Smallest pleasant step that leaves at most `most` of `count` ticks."""
    for step in (1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 128, 256, 512, 1024, 4096):
        if -(-count // step) <= most:
            return step
    return count


def label_ticks(axis: Any, labels: Sequence[int], most: int) -> None:
    """Ticks at 0..n-1 with `labels`, thinned to at most `most`."""
    places = range(0, len(labels), tick_step(len(labels), most))
    axis.set_ticks(list(places), [str(labels[place]) for place in places], fontsize=8.5)


def heat_map(axes: Axes, values: npt.NDArray[np.float64], **options: Any) -> Any:
    """`values` as cells, first row on top; missing ones are pale."""
    import matplotlib as mpl

    cmap = mpl.colormaps[options.pop("cmap", SEQUENTIAL)].with_extremes(bad=PALE)
    image = axes.imshow(
        np.ma.masked_invalid(values),
        cmap=cmap,
        interpolation="nearest",
        **options,
    )
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    return image


def plain_axes(axes: Axes) -> None:
    """Only the two spines that carry scales, and a pale grid behind the data."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5)


def message_figure(title: str, message: str, caption: str) -> Figure:
    """A figure that says in words why there is nothing to draw."""
    figure = new_figure(2.2)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.text(0.5, 0.5, message, ha="center", va="center", fontsize=12, color=GREY)
    set_title(figure, title, caption)
    return figure
