"""Figure: affinity of one pair of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from routestats.arguments import check_integer
from routestats.errors import InvalidValueError
from routestats.plots._load_panels import ratio_map
from routestats.plots._style import (
    canvas,
    check_result,
    colour_bar,
    finish,
    heat_map,
    join,
    label_ticks,
    pairing_text,
    text_colour,
)
from routestats.stats import Affinity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Ratios beyond 8 times more, or less, often have the last colour: with few tokens they are noise.
LIMIT = 8.0
RATIO_TICKS = {1 / 8: "≤ ⅛×", 1 / 4: "¼×", 1 / 2: "½×", 1.0: "as all", 2.0: "2×", 4.0: "4×"}
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
    over all tokens, purple less often, on a logarithmic scale from ⅛ to 8 times. Up to 16 experts
    the affinity itself, in %, stands in the cells.

    Parameters
    ----------
    result : Affinity
        From `routestats.stats.affinity`.
    relative : bool
        False: colours are the affinity itself, in %.
    top : int, optional
        Draw the `top` experts with the most tokens of either layer only, in order of their ids.
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
        If `top` is less than 1.
    RouteStatsError
        If matplotlib is not installed.
    """
    check_result(result, Affinity)
    rows, columns = _experts(result, top)
    matrix = result.matrix[np.ix_(rows, columns)]
    figure, axes = canvas(ax, 8.6)
    owner = axes.figure
    if relative:
        share = result.target_share[columns]
        ratio = np.divide(matrix, share, out=np.full_like(matrix, np.nan), where=share > 0)
        image = ratio_map(axes, ratio, LIMIT)
        bar = colour_bar(owner, image, axes, "affinity over the target's share of all tokens")
        bar.set_ticks([*RATIO_TICKS, LIMIT], labels=[*RATIO_TICKS.values(), "≥ 8×"])
        bar.ax.minorticks_off()
    else:
        image = heat_map(axes, matrix * 100, vmin=0.0, aspect="auto")
        colour_bar(owner, image, axes, "affinity (%)")
    source, target = result.layer_ids
    if len(rows) <= NUMBERED:
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
            _meaning(result, numbers=len(rows) <= NUMBERED),
            "grey: expert without tokens" if np.isnan(matrix).any() else "",
            f"{result.tokens:,} tokens",
            pairing_text(result.pairing, _top_k(result)),
            f"the {len(rows)} busiest of {len(result.matrix)} experts" if selected else "",
            note,
        ),
    )


def _experts(result: Affinity, top: int | None) -> tuple[npt.NDArray[np.intp], ...]:
    """Ids of the source and target experts to draw, ascending."""
    if top is None:
        every = np.arange(len(result.matrix))
        return every, every
    top = check_integer("top", top, 1)
    if top > len(result.matrix):
        raise InvalidValueError(f"top: expected at most {len(result.matrix)} experts, got {top}")
    loads = (result.source_tokens.astype(np.float64), result.target_share)
    return tuple(np.sort(np.argsort(-load, kind="stable")[:top]) for load in loads)


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
    values = image.get_array()
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
