"""Figure: which experts two domains use differently, and at which layers that is not chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np

from routestats.plots._draw.load_panels import expert_axis, height_for
from routestats.plots._draw.ratio_map import SHOWN
from routestats.plots._draw.style import (
    DARK,
    DIVERGING,
    LAYER_AXIS,
    LEVEL,
    VEIL,
    VEIL_ALPHA,
    canvas,
    check_result,
    colour_bar,
    finish,
    heat_map,
    join,
    label_ticks,
    pairing_text,
    small_title,
)
from routestats.stats import DomainDifference

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@overload
def load_difference(result: DomainDifference, *, ax: None = ..., note: str = ...) -> Figure: ...
@overload
def load_difference(result: DomainDifference, *, ax: Axes, note: str = ...) -> Axes: ...
def load_difference(
    result: DomainDifference, *, ax: Axes | None = None, note: str = ""
) -> Figure | Axes:
    """Heat map [layer, expert] of the first domain's share of load less the second's.

    In percentage points of the layer's load, around 0: orange is more in the first domain. Grey
    lies over the experts whose difference may be chance, a dot at the right edge marks each layer
    whose loads differ beyond it (q of Benjamini and Hochberg over all experts, and over the layers,
    of the permutation of prompts, at most 0.05).

    Parameters
    ----------
    result : DomainDifference
        From `routestats.stats.compare_domains`.
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
        If `result` is no DomainDifference, or `ax` no Axes.
    RouteStatsError
        If matplotlib is not installed.
    """
    check_result(result, DomainDifference)
    first, second = result.domains
    shape = result.shape
    points = (result.load_share[0] - result.load_share[1]) * 100
    figure, axes = canvas(ax, height_for(shape.num_layers) + 0.4)
    size = np.abs(points)
    reach = max(float(np.percentile(size, SHOWN)), 1e-3)
    image = heat_map(axes, points, cmap=DIVERGING, vmin=-reach, vmax=reach, aspect="auto")
    colour_bar(
        axes.figure,
        image,
        axes,
        f"share of load, {first} less {second}\n(percentage points)",
        extend="both" if size.max() > reach else "neither",
        extendfrac=0.02,
        pad=0.04,
        aspect=45,
    )
    marks = _mark(axes, result)
    expert_axis(axes, shape.num_experts, 32 if figure is not None else 12)
    label_ticks(axes.yaxis, result.layer_ids, 34 if figure is not None else 17)
    axes.set_ylabel(LAYER_AXIS, fontsize=10)
    axes.legend(
        handles=marks,
        loc="lower right",
        bbox_to_anchor=(1.03, 1.0),
        ncols=2 if figure is not None else 1,
        columnspacing=1.5,
        frameon=False,
        fontsize=9,
        handletextpad=0.5,
        borderpad=0.1,
        handlelength=1.2,
    )
    title = f"Which experts {first} uses more than {second} ({result.phase})"
    if figure is None:
        small_title(axes, title, pad=34)  # above the legend
        return axes
    return finish(
        figure,
        axes,
        title,
        join(
            f"{result.tokens[0]:,} and {result.tokens[1]:,} tokens of {result.groups[0]:,} and "
            f"{result.groups[1]:,} prompts",
            f"{result.permutations:,} permutations of prompts, q of Benjamini and Hochberg",
            pairing_text(result.pairing, shape.top_k),
            str(shape),
            note,
        ),
    )


def _mark(axes: Axes, result: DomainDifference) -> list[Any]:
    """Grey over experts that may differ by chance, dots beside layers that differ beyond it.

    Grey over what may be chance can be seen at any size of the cells; a mark in a cell cannot.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    shape = result.shape
    chance = ~result.experts.beyond(LEVEL)
    axes.imshow(
        np.ma.masked_equal(chance, False),
        cmap=ListedColormap([VEIL]),
        alpha=VEIL_ALPHA,
        aspect="auto",
        interpolation="nearest",
    )
    veil = Patch(
        color=VEIL,
        label=f"expert: may be chance (q > {LEVEL}): {chance.sum():,} of {chance.size:,}",
    )
    beyond = np.flatnonzero(result.load.q_value <= LEVEL)
    (dots,) = axes.plot(
        np.full(len(beyond), 1.012),
        beyond,
        "o",
        color=DARK,
        markersize=4,
        clip_on=False,
        transform=axes.get_yaxis_transform(),
        label=f"layer: differs beyond chance (q ≤ {LEVEL}): {len(beyond)} of {shape.num_layers}",
    )
    # Without any dot, their extent would be taken for a point at the figure's corner.
    dots.set_in_layout(len(beyond) > 0)
    return [veil, dots]
