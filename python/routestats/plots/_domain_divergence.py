"""Figure: at which layers two domains are routed differently, and whether that is chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import numpy as np

from routestats.plots._draw.style import (
    BLUE,
    GREY,
    LEVEL,
    VERMILION,
    canvas,
    check_panels,
    check_result,
    join,
    layers_along_x,
    new_figure,
    plain_axes,
    set_title,
)
from routestats.stats import DomainDifference

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@overload
def domain_divergence(
    *results: DomainDifference, ax: None = ..., note: str = ..., title: str = ...
) -> Figure: ...
@overload
def domain_divergence(
    *results: DomainDifference, ax: Axes, note: str = ..., title: str = ...
) -> Axes: ...
def domain_divergence(
    *results: DomainDifference,
    ax: Axes | None = None,
    note: str = "",
    title: str = "At which layers two domains are routed differently",
) -> Figure | Axes:
    """Divergence of the loads by layer beside permuted prompts; one panel per phase.

    Parameters
    ----------
    *results : DomainDifference
        From `routestats.stats.compare_domains`.
    ax : matplotlib.axes.Axes, optional
        Where to draw the only result; by default on a new figure.
    note : str
        Appended to the caption of a new figure.
    title : str
        Of a new figure.

    Returns
    -------
    matplotlib.figure.Figure or matplotlib.axes.Axes
        `ax` where it was given, else a figure 1,000 pixels wide.

    Raises
    ------
    InvalidTypeError
        If a result is no DomainDifference, or `ax` no Axes.
    InvalidValueError
        If there is no result, or more than one for `ax`, or more than four.
    RouteStatsError
        If matplotlib is not installed.
    """
    check_panels(len(results), ax is not None)
    for result in results:
        check_result(result, DomainDifference, name="results")
    if ax is not None:
        _, axes = canvas(ax, 1.0)
        _panel(axes, results[0])
        layers_along_x(axes, results[0].layer_ids)
        axes.legend(fontsize=8.5, frameon=False)
        return axes
    figure = new_figure(1.2 + 2.6 * len(results))
    panels = figure.subplots(len(results), 1, sharex=True, squeeze=False)[:, 0]
    for axes, result in zip(panels, results, strict=True):
        _panel(axes, result)
    layers_along_x(panels[-1], results[0].layer_ids, 32)
    # Below the last panel: above the first, long names of the two would run into it.
    entries = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    panels[-1].legend(
        entries.values(),
        entries.keys(),
        fontsize=8.5,
        frameon=False,
        ncols=3,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.2),
    )
    set_title(
        figure,
        title,
        join(
            str(results[0].shape),
            "Jensen-Shannon divergence of expert loads",
            f"{results[0].permutations:,} permutations of prompts",
            note,
        ),
    )
    return figure


def _panel(axes: Axes, result: DomainDifference) -> None:
    plain_axes(axes)
    axes.grid(visible=False, axis="x")
    layer = np.arange(len(result.layer_ids))
    beyond = result.load.q_value <= LEVEL
    for where, color, label in (
        (beyond, VERMILION, f"beyond chance (q ≤ {LEVEL})"),
        (~beyond, BLUE, "not beyond chance"),
    ):
        if where.any():
            axes.bar(layer[where], result.load.bits[where], color=color, width=0.75, label=label)
    axes.step(
        np.append(layer, layer[-1] + 1) - 0.5,
        np.append(result.load.null_mean_bits, result.load.null_mean_bits[-1]),
        where="post",
        color=GREY,
        linewidth=1.8,
        label="prompts permuted (mean)",
    )
    axes.set_xlim(-0.6, len(layer) - 0.4)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("divergence (bits)", fontsize=10)
    first, second = result.domains
    axes.set_title(
        f"{first} – {second}, {result.phase}: {int(beyond.sum())} of {len(layer)} layers",
        fontsize=10.5,
        loc="right",
    )
