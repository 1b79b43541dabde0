"""Figure: what every predictor reaches, against how far ahead it must look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from routestats.plots._draw.predictors import BASELINES, predictor_line
from routestats.plots._draw.style import (
    GREY,
    canvas,
    check_result,
    finish,
    join,
    plain_axes,
    tick_step,
)
from routestats.stats import HopAccuracy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from routestats.stats import Prediction

INSIDE: dict[str, Any] = {"loc": "best", "fontsize": 8.5}
BESIDE: dict[str, Any] = {
    "loc": "upper left",
    "bbox_to_anchor": (1.01, 1.0),
    "fontsize": 10,
    "labelspacing": 0.75,
}


@overload
def prediction(
    result: HopAccuracy, *, measure: str | None = ..., ax: None = ..., note: str = ...
) -> Figure: ...
@overload
def prediction(
    result: HopAccuracy, *, measure: str | None = ..., ax: Axes, note: str = ...
) -> Axes: ...
def prediction(
    result: HopAccuracy,
    *,
    measure: str | None = None,
    ax: Axes | None = None,
    note: str = "",
) -> Figure | Axes:
    """One line per predictor by hop, in %, with its interval as a band; baselines are broken lines.

    Parameters
    ----------
    result : HopAccuracy
        From `routestats.stats.hop_accuracy`.
    measure : str, optional
        Default top-1 accuracy where it was measured.
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
        If `result` is no HopAccuracy, or `ax` no Axes.
    InvalidValueError
        If there is no such measure.
    RouteStatsError
        If matplotlib is not installed.
    """
    check_result(result, HopAccuracy)
    shown = result.main if measure is None else result[measure]
    figure, axes = canvas(ax, 5.4)
    plain_axes(axes)
    hops = len(shown.hop_by_distance.value)
    for each in shown.predictions:
        predictor_line(axes, each.name, np.arange(1, hops + 1), each.by_hop)
    axes.set_xlim(1 - 0.02 * hops, hops * 1.02)
    axes.set_xticks(_hop_ticks(hops))
    tops = [np.nanmax(np.concatenate(list(each.by_hop))) for each in shown.predictions]
    axes.set_ylim(0, min(float(max(tops)) * 106, 104))
    axes.set_xlabel("hop k: layers between what is known and what is predicted", fontsize=10)
    axes.set_ylabel(f"{shown.label} (%)", fontsize=10)
    _name_lines(axes, shown.predictions, inside=figure is None)
    with_interval = not np.isnan(shown.hop_by_distance.low).all()
    bands = f", bands: {result.confidence:.0%} intervals" if with_interval else ""
    return finish(
        figure,
        axes,
        f"How well each predictor knows a later layer's experts: {shown.label}",
        "\n".join(
            (
                join(
                    str(result.shape),
                    f"pairing: {result.pairing}",
                    f"means over the layer pairs of a hop{bands}",
                ),
                join(
                    f"fitted on {result.train_tokens:,} tokens, measured on "
                    f"{result.test_tokens:,} others ({result.test_groups:,} prompts)",
                    note,
                ),
            )
        ),
    )


def _hop_ticks(hops: int) -> list[int]:
    """The first and the last hop, and round ones between them."""
    step = tick_step(hops, 10)
    return sorted({1, hops, *(k for k in range(step, hops, step) if hops - k >= step)})


def _name_lines(axes: Axes, predictions: Sequence[Prediction], *, inside: bool) -> None:
    """Legend right of the lines in the order in which they start, with what they start at.

    At the other end, where one pair of layers is left, lines often meet.
    """
    lines = dict(zip((each.name for each in predictions), axes.get_lines(), strict=True))
    ordered = sorted(predictions, key=lambda each: -float(each.by_hop.value[0]))
    legend = axes.legend(
        [lines[each.name] for each in ordered],
        [_entry(each) for each in ordered],
        title="at hop 1",
        frameon=False,
        alignment="left",
        **(INSIDE if inside else BESIDE),
    )
    legend.get_title().set_color(GREY)


def _entry(prediction: Prediction) -> str:
    baseline = " (baseline)" if prediction.name in BASELINES else ""
    return f"{prediction.by_hop.value[0]:.1%}  {prediction.label}{baseline}"
