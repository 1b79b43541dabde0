"""Figure: how many tokens each path has, from the most frequent path on."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

from routestats.counts import PathCounts
from routestats.errors import InvalidValueError
from routestats.plots._draw.style import (
    BLUE,
    GREY,
    VERMILION,
    canvas,
    check_result,
    finish,
    join,
    plain_axes,
)
from routestats.stats import Paths

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]
NULLS = (
    ("markov", "neighbouring layers linked", VERMILION, "D", 9.0),
    ("independent", "independent layers", GREY, "s", 4.5),
)


@overload
def path_frequencies(result: Paths | PathCounts, *, ax: None = ..., note: str = ...) -> Figure: ...
@overload
def path_frequencies(result: Paths | PathCounts, *, ax: Axes, note: str = ...) -> Axes: ...
def path_frequencies(
    result: Paths | PathCounts, *, ax: Axes | None = None, note: str = ""
) -> Figure | Axes:
    """Tokens per path against the path's rank, both axes logarithmic.

    A `Paths` has what routing without memory of the path gives beside it: marks at the mean number
    of tokens per path between two of its N, with bars over the ranks that the mean is over. Its
    own line is exact at the first ranks, then the mean over up to 200 ranges of ranks.

    Parameters
    ----------
    result : Paths or PathCounts
        From `routestats.stats.paths`, of which all tokens of the first window are drawn, or from
        `routestats.count_paths`, which knows every frequency exactly and has no null.
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
        If `result` is neither of these, or `ax` no Axes.
    InvalidValueError
        If no token was counted.
    RouteStatsError
        If matplotlib is not installed.
    """
    check_result(result, Paths, PathCounts)
    window = result.windows[0] if isinstance(result, Paths) else result
    if window.tokens == 0:
        raise InvalidValueError("result: expected at least 1 token, got 0")
    figure, axes = canvas(ax, 5.2)
    plain_axes(axes)
    if isinstance(result, Paths):
        part = result.windows[0]
        ranks, tokens = _steps(part.curve_paths, part.curve_share, part.tokens)
        remark = (
            f"marks: means over the ranks under their bars, {result.simulations} simulations of "
            "routing that remembers one layer (first-order Markov) or none, with the same loads"
        )
    else:
        counts, paths = result.frequencies()
        ranks, tokens = np.cumsum(paths).astype(np.float64), counts.astype(np.float64)
        remark = f"{int(paths[counts == 1].sum()) / result.distinct:.0%} of the paths taken once"
    distinct = int(ranks[-1])
    # Rank 1 begins at the left edge, so that a path of its own has a visible width.
    axes.plot(
        np.append(0.7, ranks),
        np.append(tokens[0], tokens),
        drawstyle="steps-pre",
        color=BLUE,
        linewidth=2.2,
        label=f"as it is: {distinct:,} paths",
    )
    if isinstance(result, Paths):
        for null in NULLS:
            _null(axes, result, *null)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(0.7, max(distinct * 1.3, 2))
    axes.set_ylim(0.7, None)
    axes.set_xlabel("rank of the path, from the most frequent on", fontsize=10)
    axes.set_ylabel("tokens per path", fontsize=10)
    axes.legend(fontsize=9.5 if figure is not None else 8, frameon=False, loc="upper right")
    first, last = (
        result.layer_ids[layer] for layer in (window.start, window.start + window.length - 1)
    )
    kind = "first choices" if result.kind == "top1" else f"sets of {result.shape.top_k}"
    return finish(
        figure,
        axes,
        f"How often each path of {kind} is taken, layers {first} to {last}",
        join(
            f"{window.tokens:,} tokens",
            str(result.shape),
            remark,
            note,
        ),
    )


def _steps(ranks: npt.NDArray[np.number], share: Floats, tokens: int) -> tuple[Floats, Floats]:
    """Last rank of each range of a coverage curve, and mean tokens per path in it."""
    last = np.asarray(ranks, np.float64)
    covered = np.diff(share, prepend=0.0) * tokens
    return last, covered / np.diff(last, prepend=0.0)


def _null(
    axes: Axes, result: Paths, name: str, label: str, colour: str, marker: str, size: float
) -> None:
    window = result.windows[0]
    null = getattr(window, name)
    # Beyond the last path there is none: the ranks that an N adds end there.
    ranks, places = np.unique(np.minimum(result.top, null.distinct), return_index=True)
    share = np.asarray(null.coverage)[places]
    last, tokens = _steps(ranks, share, window.tokens)
    first = np.append(0.0, last[:-1]) + 1
    middle = np.sqrt(first * last)
    axes.errorbar(
        middle,
        tokens,
        xerr=(middle - first, last - middle),
        fmt=marker,
        markersize=size,
        markerfacecolor="white" if size > 6 else colour,  # the two are often at one place
        color=colour,
        linewidth=1.6,
        label=f"{label}: {null.distinct:,.0f} paths",
    )
