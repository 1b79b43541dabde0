"""Figure: the most travelled paths through the layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from routestats.arguments import check_integer
from routestats.counts import PathCounts
from routestats.errors import InvalidValueError
from routestats.plots._draw.flow_rows import ribbon, rows_by_straightness, stack
from routestats.plots._draw.style import (
    DARK,
    GREY,
    LAYER_AXIS,
    PALE,
    SERIES,
    canvas,
    check_result,
    finish,
    join,
    label_ticks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIXED = 16  # experts, and layers, up to which every expert has its own row at every layer
COLUMN = 0.6  # of a column's width, by the widest line
FILLED = 0.84  # of a row's height, by the most travelled expert
DIGIT_PIXELS, PLOT_PIXELS = 6.5, 760


@overload
def path_flow(counts: PathCounts, *, top: int = ..., ax: None = ..., note: str = ...) -> Figure: ...
@overload
def path_flow(counts: PathCounts, *, top: int = ..., ax: Axes, note: str = ...) -> Axes: ...
def path_flow(
    counts: PathCounts, *, top: int = 12, ax: Axes | None = None, note: str = ""
) -> Figure | Axes:
    """The most frequent paths as lines through the layers, as wide as their share of tokens.

    Columns are layers, rows experts; the five most frequent paths have colours of their own, and
    lines that run together share experts. Up to 16 experts and 16 layers each expert has its own
    row. Of more, only the experts on the paths drawn are there, in rows that keep the lines
    straight, and their ids stand at the lines: then a row is not one expert.

    Parameters
    ----------
    counts : PathCounts
        Of first choices, from `routestats.count_paths`; its window is drawn.
    top : int
        Paths to draw, 1 to 40; all if there are fewer.
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
        If `counts` are no PathCounts, `ax` no Axes or `top` no integer.
    InvalidValueError
        If the paths are of sets, no token was counted, the window has one layer only, or `top` is
        out of range.
    RouteStatsError
        If matplotlib is not installed.
    """
    check_result(counts, PathCounts, name="counts")
    top = check_integer("top", top, 1)
    if top > 40:
        raise InvalidValueError(f"top: expected at most 40 paths, got {top}")
    if counts.kind != "top1":
        raise InvalidValueError(f"counts.kind: expected 'top1', got {counts.kind!r}")
    if counts.length < 2:
        raise InvalidValueError("counts.length: expected at least 2 layers, got 1")
    if counts.tokens == 0:
        raise InvalidValueError("counts.tokens: expected at least 1, got 0")
    paths, tokens = counts.most_frequent(top)
    experts = paths.astype(np.int64)
    fixed = max(counts.shape.num_experts, counts.length) <= FIXED
    rows = experts.astype(np.float64) if fixed else rows_by_straightness(experts, tokens)
    num_rows = counts.shape.num_experts if fixed else int(rows.max()) + 1

    figure, axes = canvas(ax, min(2.4 + 0.42 * max(num_rows, 6), 8.5))
    # The height of a row over the width of a column, as they are seen.
    aspect = (axes.bbox.height / num_rows) / (axes.bbox.width / counts.length)
    widths, offsets = stack(experts, rows, tokens.astype(np.float64))
    filled = min(FILLED, COLUMN / aspect / float(widths.max()))
    widths, offsets = widths * filled, offsets * filled
    _rows(axes, num_rows, fixed=fixed)
    handles = _ribbons(axes, rows + offsets, widths, aspect)
    ids = "" if fixed else _ids(axes, experts, rows, counts.shape.num_experts)
    layers = counts.layer_ids[counts.start : counts.start + counts.length]
    label_ticks(axes.xaxis, layers, 24 if figure is not None else 12)
    axes.set_xlim(-0.6, counts.length - 0.4)
    axes.set_ylim(num_rows - 0.4, -0.6)
    axes.set_xlabel(LAYER_AXIS, fontsize=10)
    _legend(axes, handles, tokens / counts.tokens, tokens)
    carried = float(tokens.sum()) / counts.tokens
    return finish(
        figure,
        axes,
        f"The {len(paths)} most travelled paths of first choices, layers {layers[0]} to "
        f"{layers[-1]}: {carried:.1%} of the tokens",
        join(
            f"{counts.tokens:,} tokens on {counts.distinct:,} paths",
            "width of a line: its share of the tokens",
            ids,
            str(counts.shape),
            note,
        ),
    )


def _rows(axes: Axes, num_rows: int, *, fixed: bool) -> None:
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)
    if not fixed:
        axes.set_yticks([])
        axes.set_ylabel("experts on these paths", fontsize=10)
        return
    for row in range(num_rows):
        axes.axhspan(row - FILLED / 2, row + FILLED / 2, color=PALE, alpha=0.5, linewidth=0)
    label_ticks(axes.yaxis, range(num_rows), FIXED)
    axes.set_ylabel("expert", fontsize=10)


def _ribbons(
    axes: Axes, centres: npt.NDArray[np.float64], widths: npt.NDArray[np.float64], aspect: float
) -> list[Any]:
    from matplotlib.patches import Polygon

    handles = []
    for number, (centre, width) in enumerate(zip(centres, widths, strict=True)):
        outline, _ = ribbon(centre, width, aspect)
        main = number < len(SERIES)
        patch = Polygon(
            outline,
            closed=True,
            color=SERIES[number] if main else GREY,
            alpha=0.9 if main else 0.4,
            linewidth=0,
            zorder=3 if main else 2,
            label=f"path {number + 1}",
        )
        handles.append(axes.add_patch(patch))
    return handles


def _ids(
    axes: Axes,
    experts: npt.NDArray[np.int64],
    rows: npt.NDArray[np.float64],
    num_experts: int,
) -> str:
    """Expert ids at the lines, at as many layers as have room for them; a line that says so."""
    length = experts.shape[1]
    step = int(np.ceil(len(str(num_experts - 1)) * DIGIT_PIXELS * length / PLOT_PIXELS))
    for layer in range(0, length, step):
        for row in np.unique(rows[:, layer]):
            expert = experts[int(np.argmax(rows[:, layer] == row)), layer]
            text = axes.text(
                layer,
                row,
                str(expert),
                ha="center",
                va="center",
                fontsize=7,
                color=DARK,
                zorder=4,
                bbox={"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 0.8},
            )
            text.set_in_layout(False)
    place = {1: "", 2: " at every other layer"}.get(step, f" at every {step}th layer")
    return f"numbers: expert ids{place}; a row is not one expert"


def _legend(
    axes: Axes,
    handles: list[Any],
    share: npt.NDArray[np.float64],
    tokens: npt.NDArray[np.uint64],
) -> None:
    main = min(len(handles), len(SERIES))
    labels = [f"{number + 1}: {share[number]:.2%} ({tokens[number]:,})" for number in range(main)]
    shown = handles[:main]
    if len(handles) > main:
        shown.append(handles[main])
        labels.append(f"{main + 1} to {len(handles)}: {share[main]:.2%}\nto {share[-1]:.2%} each")
    legend = axes.legend(
        shown,
        labels,
        title="path: share (tokens)",
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        fontsize=9.5,
        labelspacing=0.75,
        alignment="left",
    )
    legend.get_title().set_color(GREY)
