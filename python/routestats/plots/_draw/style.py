"""What all figures share: size, colours, titles, ticks, and where they are drawn."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from routestats.errors import InvalidTypeError, InvalidValueError, RouteStatsError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES = 10.0
DPI = 100

# Okabe and Ito's palette, which readers with colour vision deficiencies tell apart.
BLUE, ORANGE, GREEN, PURPLE, VERMILION = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE)
GREY, PALE, DARK = "#6B6B6B", "#E4E4E4", "#1A1A1A"
# Both are told apart by readers with colour vision deficiencies. Diverging: orange is above the
# centre, purple below.
SEQUENTIAL, DIVERGING = "cividis", "PuOr_r"
LAYER_AXIS = "MoE layer (decoder layer number)"
SEPARATOR = "  ·  "  # between the parts of a caption
CAPTION_WIDTH = 150  # characters of a caption's line
LEVEL = 0.05  # a difference is drawn as beyond chance up to this q
VEIL, VEIL_ALPHA = "#B4B4B4", 0.85  # over what may be chance
MAX_PANELS = 4
FEW_POINTS = 4  # lines of fewer points have bars as intervals: a band would hardly be seen


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
    figure.suptitle(title, x=0.012, ha="left", fontsize=14, fontweight="bold", color=DARK)
    # The caption is part of the layout: a title of its own row in the grid would be cut.
    figure.supxlabel(wrap(caption), x=0.012, ha="left", fontsize=9.5, color=GREY)


def wrap(caption: str) -> str:
    """`caption` in lines that fit the figure's width, broken between its parts where possible."""
    lines: list[str] = []
    for line in caption.split("\n"):
        lines.append("")
        for part in line.split(SEPARATOR):
            joined = join(lines[-1], part)
            if len(joined) <= CAPTION_WIDTH:
                lines[-1] = joined
            else:
                lines += textwrap.wrap(part, CAPTION_WIDTH)
    return "\n".join(line for line in lines if line)


def canvas(ax: Axes | None, height: float) -> tuple[Figure | None, Axes]:
    """The Axes to draw on: `ax` itself, or the only ones of a new figure, `height` inches high.

    Raises
    ------
    InvalidTypeError
        If `ax` is neither Axes nor None.
    RouteStatsError
        If matplotlib is not installed.
    """
    if ax is None:
        figure = new_figure(height)
        return figure, figure.add_subplot()
    # Axes come with matplotlib: where it is missing there are none to be given.
    from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        raise InvalidTypeError(f"ax: expected matplotlib Axes or None, got {type(ax).__name__}")
    return None, ax


def finish(figure: Figure | None, axes: Axes, title: str, caption: str) -> Figure | Axes:
    """A new figure with title and caption, or the Axes that were given, with a small title."""
    if figure is None:
        small_title(axes, title)
        return axes
    set_title(figure, title, caption)
    return figure


def small_title(axes: Axes, title: str, **options: Any) -> None:
    """Title of Axes that were given, in lines that are as wide as they are."""
    width = int(axes.bbox.width * 72 / axes.figure.dpi / 5.6)
    axes.set_title(textwrap.fill(title, max(width, 24)), fontsize=10.5, **options)


def check_result(value: object, *expected: type, name: str = "result") -> None:
    """Refuse a `value` that is none of the results that the figure shows."""
    if not isinstance(value, expected):
        kinds = " or ".join(kind.__name__ for kind in expected)
        raise InvalidTypeError(f"{name}: expected {kinds}, got {type(value).__name__}")


def check_panels(results: int, one: bool) -> None:
    """Refuse fewer or more `results` than there can be panels; `one`: Axes were given."""
    most = 1 if one else MAX_PANELS
    if not 1 <= results <= most:
        expected = "1 for ax" if one else f"1 to {most}"
        raise InvalidValueError(f"results: expected {expected}, got {results}")


def pairing_text(pairing: str, top_k: int) -> str:
    """The pairing and what it means, in words."""
    if pairing == "top1":
        return "first choice only (pairing: top1)"
    return f"all {top_k} choices of a token (pairing: any)"


def join(*parts: str) -> str:
    """Parts of a caption, empty ones left out."""
    return SEPARATOR.join(part for part in parts if part)


def tick_step(count: int, most: int) -> int:
    """Smallest pleasant step that leaves at most `most` of `count` ticks."""
    for step in (1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 128, 256, 512, 1024, 4096):
        if -(-count // step) <= most:
            return step
    return count


def tick_room(axis: Any, characters: int) -> int:
    """How many labels of so many characters stand beside each other along `axis`, at least 2."""
    axes = axis.axes
    points = 72 / axes.figure.dpi
    if axis.axis_name == "x":
        return max(2, int(axes.bbox.width * points / (5.4 * characters + 5)))
    return max(2, int(axes.bbox.height * points / 10.5))


def label_ticks(axis: Any, labels: Sequence[int], most: int) -> None:
    """Ticks at 0..n-1 with `labels`, thinned to `most` and to what has room."""
    most = min(most, tick_room(axis, max(len(str(label)) for label in labels)))
    places = range(0, len(labels), tick_step(len(labels), most))
    axis.set_ticks(list(places), [str(labels[place]) for place in places], fontsize=8.5)


def hatch_missing(axes: Axes, image: Any) -> None:
    """Cells without a value become transparent, and the hatching behind them shows."""
    image.set_cmap(image.get_cmap().with_extremes(bad=(1.0, 1.0, 1.0, 0.0)))
    axes.patch.set(facecolor="white", hatch="////", edgecolor=PALE, linewidth=0.0)


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


def around(values: npt.NDArray[np.float64], centre: float, least: float = 1e-9) -> dict[str, Any]:
    """Options of a map on which `centre` has the middle colour and both sides one scale.

    `least` is the smallest reach to either side, so that noise is not blown up to full colour.
    """
    from matplotlib.colors import CenteredNorm

    reach = float(np.nanmax(np.abs(values - centre), initial=0.0))
    return {"cmap": DIVERGING, "norm": CenteredNorm(centre, max(reach, least))}


def colour_bar(figure: Any, image: Any, axes: Any, label: str, **options: Any) -> Any:
    """Colour bar of `image` beside `axes`, without a frame; its `label` says the units."""
    bar = figure.colorbar(
        image, ax=axes, **{"fraction": 0.05, "pad": 0.02, "aspect": 30, **options}
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8.5)
    bar.set_label(label, fontsize=9.5, color=DARK)
    return bar


def show_part(bar: Any, low: float, high: float) -> None:
    """Cut a vertical colour bar to the values that occur."""
    if low < high:
        bar.ax.set_ylim(low, high)


def mark_baseline(bar: Any, value: float) -> None:
    """A line across a vertical colour bar at the baseline, which its label names."""
    bar.ax.axhline(value, color=DARK, linewidth=1.8)


def interval(axes: Axes, x: Any, low: Any, high: Any, colour: str) -> None:
    """An interval as a band, or as bars where points are few; nothing where there is none."""
    if np.isnan(low).all():
        return
    if len(x) < FEW_POINTS:
        axes.vlines(x, low, high, color=colour, linewidth=4, alpha=0.35)
    else:
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def layers_along_x(axes: Axes, layer_ids: Sequence[int], most: int = 24) -> None:
    """Layers 0..L-1 along x by decoder-layer number, thinned."""
    label_ticks(axes.xaxis, layer_ids, most)
    axes.set_xlim(-0.5, len(layer_ids) - 0.5)
    axes.set_xlabel(LAYER_AXIS, fontsize=10)


def text_colour(image: Any, value: Any) -> str:
    """Dark or white, whichever can be read on the colour of `value`."""
    if np.isnan(value):
        return DARK
    red, green, blue, _ = image.cmap(image.norm(value))
    return DARK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


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
