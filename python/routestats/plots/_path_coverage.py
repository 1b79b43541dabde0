"""Figure: how few paths carry how many tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import numpy as np

from routestats.plots._draw.style import (
    DARK,
    GREY,
    ORANGE,
    SERIES,
    canvas,
    check_panels,
    check_result,
    join,
    new_figure,
    plain_axes,
    set_title,
)
from routestats.stats import Paths, WindowPaths

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Y_AXIS = "tokens on the N most frequent paths (%)"


@overload
def path_coverage(*results: Paths, ax: None = ..., note: str = ...) -> Figure: ...
@overload
def path_coverage(*results: Paths, ax: Axes, note: str = ...) -> Axes: ...
def path_coverage(*results: Paths, ax: Axes | None = None, note: str = "") -> Figure | Axes:
    """Share of tokens on the N most frequent paths, against N; one panel per result.

    Parameters
    ----------
    *results : Paths
        From `routestats.stats.paths`; the first window of each is drawn, and up to five domains.
    ax : matplotlib.axes.Axes, optional
        Where to draw the only result; by default on a new figure.
    note : str
        Appended to the caption of a new figure.

    Returns
    -------
    matplotlib.figure.Figure or matplotlib.axes.Axes
        `ax` where it was given, else a figure 1,000 pixels wide.

    Raises
    ------
    InvalidTypeError
        If a result is no Paths, or `ax` no Axes.
    InvalidValueError
        If there is no result, or more than one for `ax`, or more than four.
    RouteStatsError
        If matplotlib is not installed.
    """
    check_panels(len(results), ax is not None)
    for result in results:
        check_result(result, Paths, name="results")
    if ax is not None:
        _, axes = canvas(ax, 1.0)
        _panel(axes, results[0])
        axes.set_ylabel(Y_AXIS, fontsize=10)
        return axes
    figure = new_figure(4.8)
    panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for axes, result in zip(panels, results, strict=True):
        _panel(axes, result)
    panels[0].set_ylabel(Y_AXIS, fontsize=10)
    first = results[0]
    simulations, domains = first.simulations, len(_domains(first))
    set_title(
        figure,
        "How few paths through the layers carry how many tokens",
        join(
            str(first.shape),
            f"diamonds: routing without memory of the path (means of {simulations} simulations)",
            f"{domains} domains are not drawn apart" if domains > len(SERIES) else "",
            note,
        ),
    )
    return figure


def _domains(result: Paths) -> list[WindowPaths]:
    """The first window in each domain."""
    first = result.windows[0]
    return [w for w in result.windows[1:] if (w.start, w.length) == (first.start, first.length)]


def _panel(axes: Axes, result: Paths) -> None:
    plain_axes(axes)
    window = result.windows[0]
    colors = iter(SERIES)
    domains = _domains(result)
    for part in [window, *(domains if len(domains) <= len(SERIES) else ())]:
        color = DARK if part is window else next(colors)
        name = "all tokens" if part is window else part.domain
        axes.plot(
            part.curve_paths,
            part.curve_share * 100,
            color=color,
            linewidth=2.2 if part is window else 1.6,
            label=f"{name}: {part.observed.distinct:,.0f} paths, {part.tokens:,} tokens",
        )
    for name, null, color in (
        ("neighbouring layers linked", window.markov, ORANGE),
        ("independent layers", window.independent, GREY),
    ):
        shown = [n <= null.distinct for n in result.top]
        axes.plot(
            np.array(result.top)[shown],
            np.array(null.coverage)[shown] * 100,
            color=color,
            marker="D",
            linestyle=":",
            label=f"{name}: {null.distinct:,.0f} paths",
        )
    _name_a_point(axes, result, window)
    axes.set_xscale("log")
    axes.set_xlim(left=1)
    axes.set_ylim(0, 104)
    kind = "first choices" if result.kind == "top1" else f"sets of {result.shape.top_k}"
    last = window.start + window.length - 1
    axes.set_title(
        f"{kind}, layers {result.layer_ids[window.start]} to {result.layer_ids[last]}", fontsize=11
    )
    axes.set_xlabel("N, paths from the most frequent on", fontsize=10)
    axes.legend(fontsize=8.5, frameon=False, loc="upper left")


def _name_a_point(axes: Axes, result: Paths, window: WindowPaths) -> None:
    """What the largest N of the result covers, beside independent layers, in words."""
    known = [(n, i) for i, n in enumerate(result.top) if n <= window.observed.distinct]
    if not known:
        return
    number, place = max(known)
    value = float(window.observed.coverage[place]) * 100
    axes.plot(number, value, "o", color=DARK, markersize=5)
    axes.annotate(
        f"{number:,} {'paths' if number > 1 else 'path'}: {value:.1f}%\n"
        f"linked {float(window.markov.coverage[place]):.1%}, "
        f"independent {float(window.independent.coverage[place]):.1%}",
        (number, value),
        xytext=(-12, 36),
        textcoords="offset points",
        ha="right",
        fontsize=9,
        color=DARK,
        arrowprops={"arrowstyle": "-", "color": GREY},
    )
