"""Figure: does what was learnt on one domain predict another?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np

from routestats.arguments import check_integer
from routestats.errors import InvalidValueError
from routestats.plots._draw.style import (
    DARK,
    SERIES,
    around,
    canvas,
    check_result,
    colour_bar,
    heat_map,
    interval,
    join,
    mark_baseline,
    new_figure,
    plain_axes,
    set_title,
    show_part,
    small_title,
    text_colour,
)
from routestats.stats import Transfer, TransferMeasure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@overload
def transfer(
    result: Transfer,
    measure: str | None = ...,
    *,
    hop: int = ...,
    ax: None = ...,
    note: str = ...,
) -> Figure: ...
@overload
def transfer(
    result: Transfer,
    measure: str | None = ...,
    *,
    hop: int = ...,
    ax: Axes,
    note: str = ...,
) -> Axes: ...
def transfer(
    result: Transfer,
    measure: str | None = None,
    *,
    hop: int = 1,
    ax: Axes | None = None,
    note: str = "",
) -> Figure | Axes:
    """Matrix [trained on, tested on] of one measure; beside it what training elsewhere loses.

    Each cell has the value in %, its interval and the marginal baseline; colours diverge around
    the mean of that baseline. The lines are the loss in percentage points by hop, with intervals.

    Parameters
    ----------
    result : Transfer
        From `routestats.stats.transfer`.
    measure : str, optional
        Default the first of the result: top-1 accuracy where it was measured.
    hop : int
        Of the matrix: layers between source and target, 1 to L - 1.
    ax : matplotlib.axes.Axes, optional
        Where to draw the matrix alone; by default both, on a new figure.
    note : str
        Appended to the caption of a new figure.

    Returns
    -------
    matplotlib.figure.Figure or matplotlib.axes.Axes
        `ax` where it was given, else a figure 1,000 pixels wide.

    Raises
    ------
    InvalidTypeError
        If `result` is no Transfer, `ax` no Axes or `hop` no integer.
    InvalidValueError
        If the measure or hop does not exist.
    RouteStatsError
        If matplotlib is not installed.
    """
    check_result(result, Transfer)
    shown = result.measures[0] if measure is None else result[measure]
    hops = shown.hop.value.shape[-1]
    hop = check_integer("hop", hop, 1)
    if hop > hops:
        raise InvalidValueError(f"hop: expected 1 to {hops}, got {hop}")
    label = shown.label
    if ax is not None:
        _, axes = canvas(ax, 1.0)
        _matrix(axes, result, shown, hop, label)
        small_title(axes, f"Transfer: {label}, hop {hop}")
        return axes
    figure = new_figure(5.0)
    matrix, lines = figure.subplots(1, 2, width_ratios=[1, 1.1])
    _matrix(matrix, result, shown, hop, label)
    matrix.set_title(f"{label} at hop {hop}", fontsize=11)
    _loss(lines, result, shown)
    set_title(
        figure,
        "What a table learnt on one domain is worth on another",
        join(
            f"single hop, trained on {result.train_tokens:,} tokens of each domain",
            f"tested on {result.test_tokens[0]:,} and {result.test_tokens[1]:,} tokens of other "
            f"prompts ({result.phase or 'prefill and decode'})",
            f"{result.confidence:.0%} intervals" if result.bootstrap else "",
            f"pairing: {result.pairing}",
            str(result.shape),
            note,
        ),
    )
    return figure


def _matrix(axes: Axes, result: Transfer, shown: TransferMeasure, hop: int, label: str) -> None:
    value, low, high = (part[:, :, hop - 1] * 100 for part in shown.hop)
    marginal = shown.marginal.value[:, :, hop - 1] * 100
    baseline = float(marginal.mean())
    image = heat_map(axes, value, **around(value, baseline, 1.0), aspect="auto")
    for trained, tested in np.ndindex(2, 2):
        place = (trained, tested)
        lines = [f"{value[place]:.1f}%"]
        if np.isfinite(low[place]):
            lines.append(f"[{low[place]:.1f}, {high[place]:.1f}]")
        lines.append(f"marginal {marginal[place]:.1f}%")
        axes.text(
            tested,
            trained,
            "\n".join(lines),
            ha="center",
            va="center",
            fontsize=min(11.0, axes.bbox.width / axes.figure.dpi * 3.4),
            color=text_colour(image, value[place]),
        )
    axes.set_xticks([0, 1], result.domains, fontsize=10)
    axes.set_yticks([0, 1], result.domains, fontsize=10, rotation=90, va="center")
    axes.set_xlabel("tested on", fontsize=10)
    axes.set_ylabel("trained on", fontsize=10)
    bar = colour_bar(axes.figure, image, axes, f"{label} (%)\nline: marginal, mean {baseline:.1f}%")
    show_part(bar, min(baseline, float(value.min())), max(baseline, float(value.max())))
    mark_baseline(bar, baseline)


def _loss(axes: Axes, result: Transfer, shown: TransferMeasure) -> None:
    plain_axes(axes)
    hop = np.arange(1, shown.loss.value.shape[-1] + 1)
    for tested, (domain, colour) in enumerate(zip(result.domains, SERIES, strict=False)):
        value, low, high = (part[tested] * 100 for part in shown.loss)
        axes.plot(hop, value, "o-", ms=3.5, lw=1.6, color=colour, label=f"tested on {domain}")
        interval(axes, hop, low, high, colour)
    axes.axhline(0, color=DARK, linestyle="--", linewidth=1.2, label="nothing lost")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.margins(y=0.15)
    axes.set_xlabel("layers between source and target (hop k)", fontsize=10)
    axes.set_ylabel("lost by training on the other (percentage points)", fontsize=10)
    axes.set_title("trained on the other domain instead", fontsize=11)
    axes.legend(fontsize=9.5, frameon=False)
    locator: Any = axes.xaxis.get_major_locator()
    locator.set_params(integer=True)
