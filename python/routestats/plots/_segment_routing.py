"""Figure: how steady are the experts of a stretch of text, by its length and by layer?"""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import numpy as np

from routestats.errors import InvalidValueError, one_of
from routestats.plots._draw.style import (
    BLUE,
    GREY,
    SERIES,
    canvas,
    check_result,
    interval,
    join,
    layers_along_x,
    new_figure,
    plain_axes,
    set_title,
)
from routestats.stats import SegmentRouting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEASURES = ("srp", "sch")
SRP, SCH = "SRP: F1 (%)", "SCH: cache hits (%)"


@overload
def segment_routing(
    *results: SegmentRouting, measure: str = ..., ax: None = ..., note: str = ...
) -> Figure: ...
@overload
def segment_routing(
    *results: SegmentRouting, measure: str = ..., ax: Axes, note: str = ...
) -> Axes: ...
def segment_routing(
    *results: SegmentRouting,
    measure: str = "srp",
    ax: Axes | None = None,
    note: str = "",
) -> Figure | Axes:
    """SRP's F1 by window m, or by layer where there is one m; SCH's hit rate by layer.

    In %, with intervals; broken lines are the same with all tokens permuted: what the loads alone
    give.

    Parameters
    ----------
    *results : SegmentRouting
        From `routestats.stats.segment_routing`, one to five, of one trace, each of another m.
    measure : {"srp", "sch"}
        Which of the two is drawn on `ax`.
    ax : matplotlib.axes.Axes, optional
        Where to draw one measure; by default both, on a new figure.
    note : str
        Appended to the caption of a new figure.

    Returns
    -------
    matplotlib.figure.Figure or matplotlib.axes.Axes
        `ax` where it was given, else a figure 1,000 pixels wide.

    Raises
    ------
    InvalidTypeError
        If a result is no SegmentRouting, or `ax` no Axes.
    InvalidValueError
        If there are none or more than five, two have the same m, their shapes or capacities
        differ, or the measure does not exist.
    RouteStatsError
        If matplotlib is not installed.
    """
    ordered = _check(results)
    if measure not in MEASURES:
        raise InvalidValueError(f"measure: {one_of(MEASURES, measure)}")
    if ax is not None:
        _, axes = canvas(ax, 1.0)
        (_srp if measure == "srp" else _sch)(axes, ordered)
        return axes
    several = len(ordered) > 1
    figure = new_figure(4.9 if several else 6.6)
    srp, sch = figure.subplots(1, 2, width_ratios=[1, 1.5]) if several else figure.subplots(2, 1)
    _srp(srp, ordered)
    _sch(sch, ordered)
    first = ordered[0]
    set_title(
        figure,
        "How steady are the experts of a stretch of text?",
        join(
            f"{first.tokens:,} tokens of {first.groups:,} prompts",
            "tokens permuted: what the loads alone give",
            f"{first.confidence:.0%} intervals" if first.bootstrap else "",
            f"pairing: {first.pairing}",
            str(first.shape),
            note,
        ),
    )
    return figure


def _check(results: tuple[SegmentRouting, ...]) -> list[SegmentRouting]:
    """The results by m, ascending."""
    if not 1 <= len(results) <= len(SERIES):
        raise InvalidValueError(f"results: expected 1 to {len(SERIES)}, got {len(results)}")
    for result in results:
        check_result(result, SegmentRouting, name="results")
    first = results[0]
    for result in results[1:]:
        if (result.shape, result.capacity) != (first.shape, first.capacity):
            raise InvalidValueError(
                f"results: expected {first.shape} and capacity {first.capacity} as in the first, "
                f"got {result.shape} and {result.capacity}"
            )
    lengths = [result.m for result in results]
    if len(set(lengths)) < len(lengths):
        raise InvalidValueError(f"results: expected each of another m, got {lengths}")
    return sorted(results, key=lambda result: result.m)


def _srp(axes: Axes, results: list[SegmentRouting]) -> None:
    plain_axes(axes)
    axes.set_ylabel(SRP, fontsize=10)
    if len(results) == 1:
        (result,) = results
        _by_layer(axes, result, "srp", BLUE, f"m = {result.m}")
        axes.set_title("fixed experts for m tokens in a row", fontsize=11)
        axes.plot([], [], "--", color=GREY, lw=1.3, label="tokens permuted")
        _limits(axes)
        return
    m = np.array([result.m for result in results])
    value, low, high = (
        np.array([float(result.srp[part]) for result in results]) * 100 for part in range(3)
    )
    permuted = np.array([result.permuted_srp for result in results]) * 100
    axes.plot(m, value, "o-", color=BLUE, ms=4.5, lw=1.8, label="as it is")
    interval(axes, m, low, high, BLUE)
    axes.plot(m, permuted, "s--", color=GREY, ms=4, lw=1.4, label="tokens permuted")
    axes.set_xscale("log", base=2)
    axes.set_xticks(m, [str(each) for each in m])
    axes.minorticks_off()
    axes.set_xlabel("m, tokens of a segment", fontsize=10)
    axes.set_title("fixed experts for m tokens in a row", fontsize=11)
    _limits(axes)


def _sch(axes: Axes, results: list[SegmentRouting]) -> None:
    plain_axes(axes)
    for result, colour in zip(results, SERIES, strict=False):
        _by_layer(axes, result, "sch", colour, f"m = {result.m}")
    axes.set_ylabel(SCH, fontsize=10)
    axes.set_title(
        f"a cache of {results[0].capacity} experts per layer that knows the next m tokens",
        fontsize=11,
    )
    axes.plot([], [], "--", color=GREY, lw=1.3, label="tokens permuted")
    _limits(axes)


def _by_layer(axes: Axes, result: SegmentRouting, measure: str, colour: str, label: str) -> None:
    layer = np.arange(result.shape.num_layers)
    value, low, high = (part * 100 for part in getattr(result, f"{measure}_by_layer"))
    axes.plot(layer, value, "o-", color=colour, ms=3.2, lw=1.5, label=label)
    interval(axes, layer, low, high, colour)
    permuted = getattr(result, f"permuted_{measure}_by_layer") * 100
    axes.plot(layer, permuted, "--", color=colour, lw=1.3, label="_tokens permuted")
    layers_along_x(axes, result.layer_ids, 17)


def _limits(axes: Axes) -> None:
    """From 0 to a little above all lines, where the legend has room."""
    lines = [np.asarray(line.get_ydata(), float) for line in axes.get_lines()]
    top = max(float(np.nanmax(values)) for values in lines if len(values))
    axes.set_ylim(0, top * 1.35)
    axes.legend(fontsize=9, frameon=False, ncols=2, loc="upper left")
