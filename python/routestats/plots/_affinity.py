"""Figure: affinity of one pair of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from routestats.arguments import check_integer
from routestats.errors import InvalidValueError
from routestats.plots._draw.affinity_cells import ALL, BUSIEST, busiest, relative_affinity
from routestats.plots._draw.ratio_map import ratio_limit, ratio_map, ratio_ticks
from routestats.plots._draw.style import (
    canvas,
    check_result,
    colour_bar,
    finish,
    heat_map,
    join,
    label_ticks,
    pairing_text,
    text_colour,
    tick_room,
)
from routestats.stats import Affinity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUMBERED = 16  # experts up to which the affinity itself stands in every cell


@overload
def affinity(
    result: Affinity,
    *,
    relative: bool = ...,
    top: int | None = ...,
    ax: None = ...,
    note: str = ...,
) -> Figure: ...
@overload
def affinity(
    result: Affinity, *, relative: bool = ..., top: int | None = ..., ax: Axes, note: str = ...
) -> Axes: ...
def affinity(
    result: Affinity,
    *,
    relative: bool = True,
    top: int | None = None,
    ax: Axes | None = None,
    note: str = "",
) -> Figure | Axes:
    """Heat map of the affinity between the experts of any two layers.

    Rows are experts of the source layer, columns those of the target layer. Colours are the
    affinity over the share of all tokens that the column's expert has: orange is more often than
    over all tokens, purple less often, on a logarithmic scale that ends at 2, 4 or 8 times. Up to
    16 experts the affinity itself, in %, stands in the cells where there is room.

    Parameters
    ----------
    result : Affinity
        From `routestats.stats.affinity`.
    relative : bool
        False: colours are the affinity itself, in %.
    top : int, optional
        Draw the `top` experts with the most tokens of either layer only, in order of their ids.
        By default all up to 64, else 32, as more cells cannot be told apart; pass E for all.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.
    note : str
        Appended to the caption of a new figure.

    Returns
    -------
    matplotlib.figure.Figure or matplotlib.axes.Axes
        `ax` where it was given, else a figure 1,000 pixels wide.

    Raises
    ------
    InvalidTypeError
        If `result` is no Affinity, `ax` no Axes or `top` no integer.
    InvalidValueError
        If `top` is less than 1 or more than E.
    RouteStatsError
        If matplotlib is not installed.
    """
    check_result(result, Affinity)
    rows, columns = _experts(result, top)
    matrix = result.matrix[np.ix_(rows, columns)]
    figure, axes = canvas(ax, 8.6)
    owner = axes.figure
    if relative:
        ratio = relative_affinity(result)[np.ix_(rows, columns)]
        limit = ratio_limit(ratio)
        image = ratio_map(axes, ratio, limit)
        bar = colour_bar(owner, image, axes, "affinity over the target's share of all tokens")
        ratio_ticks(bar, limit, "as all")
    else:
        image = heat_map(axes, matrix * 100, vmin=0.0, aspect="auto")
        colour_bar(owner, image, axes, "affinity (%)")
    source, target = result.layer_ids
    numbered = len(rows) <= NUMBERED and len(rows) <= tick_room(axes.xaxis, 2)
    if numbered:
        _write_numbers(axes, matrix, image)
    most = 17 if figure is not None else 9
    label_ticks(axes.xaxis, columns.tolist(), most)
    label_ticks(axes.yaxis, rows.tolist(), most)
    axes.set_xlabel(f"expert of layer {target}", fontsize=10)
    axes.set_ylabel(f"expert of layer {source}", fontsize=10)
    selected = len(rows) < len(result.matrix)
    return finish(
        figure,
        axes,
        f"Affinity: experts of layer {target}, given those of layer {source}",
        join(
            _meaning(result, numbers=numbered),
            "grey: expert without tokens" if np.isnan(matrix).any() else "",
            f"{result.tokens:,} tokens",
            pairing_text(result.pairing, _top_k(result)),
            f"the {len(rows)} busiest of the {len(result.matrix)} experts of either layer"
            if selected
            else "",
            note,
        ),
    )


def _experts(
    result: Affinity, top: int | None
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Ids of the source and target experts to draw, ascending."""
    total = len(result.matrix)
    if top is None:
        top = total if total <= ALL else BUSIEST
    top = check_integer("top", top, 1)
    if top > total:
        raise InvalidValueError(f"top: expected at most {total} experts, got {top}")
    source, target = busiest(result, top)
    return np.sort(source), np.sort(target)


def _top_k(result: Affinity) -> int:
    """Experts per token, from the sums."""
    return round(float(result.source_tokens.sum()) / result.tokens)


def _meaning(result: Affinity, *, numbers: bool) -> str:
    verb = "choose" if result.pairing == "any" else "put first"
    return (
        f"{'numbers: ' if numbers else ''}of the tokens of the row's expert, the share that {verb} "
        f"the column's{' (%)' if numbers else ''}"
    )


def _write_numbers(axes: Axes, matrix: npt.NDArray[np.float64], image: Any) -> None:
    values = np.ma.filled(image.get_array().astype(np.float64), np.nan)
    size = 9.5 if len(matrix) <= 8 else 7.5
    for row, column in np.ndindex(matrix.shape):
        if np.isfinite(matrix[row, column]):
            axes.text(
                column,
                row,
                f"{matrix[row, column] * 100:.0f}",
                ha="center",
                va="center",
                fontsize=size,
                color=text_colour(image, values[row, column]),
            )
