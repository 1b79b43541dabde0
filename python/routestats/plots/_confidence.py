"""Figure: how sure the gates are, and what can be predicted of sure and unsure choices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from routestats.plots._draw.predictors import predictor_line, uniform_level
from routestats.plots._draw.style import (
    BLUE,
    GREY,
    VERMILION,
    interval,
    join,
    new_figure,
    plain_axes,
    set_title,
)
from routestats.stats._predictors.table import PREDICTORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from routestats.stats import Confidence, Estimate


def confidence(result: Confidence, *, note: str = "") -> Figure:
    """Gate weights per layer, accuracy by margin, and calibration.

    Parameters
    ----------
    result : Confidence
        From `routestats.stats.confidence`.
    note : str
        Appended to the caption.

    Returns
    -------
    matplotlib.figure.Figure
        1,000 pixels wide.
    """
    figure = new_figure(5.2)
    weights, margins, stated = figure.subplots(1, 3)
    for axes in (weights, margins, stated):
        plain_axes(axes)
    layers = np.array(result.layer_ids, dtype=np.float64)
    _line(weights, layers, result.top1_weight, BLUE, "first choice's weight")
    _line(weights, layers, result.margin, VERMILION, "margin to the second")
    weights.set_ylim(0, 1)
    weights.set_xlabel("layer", fontsize=10)
    weights.set_ylabel("mean gate weight", fontsize=10)
    weights.legend(fontsize=8.5, frameon=False)
    for curve in sorted(result.curves, key=lambda curve: list(PREDICTORS).index(curve.predictor)):
        predictor_line(margins, curve.predictor, curve.margin, curve.accuracy)
    uniform_level(margins, 1 / result.shape.num_experts)
    margins.set_ylim(0, 100)
    margins.set_xlabel(f"margin at the {result.margin_at}", fontsize=10)
    margins.set_ylabel(f"top-1 accuracy, {result.hop} ahead (%)", fontsize=10)
    for one in result.calibration:
        there = one.choices > 0
        accuracy = type(one.accuracy)(*(part[there] for part in one.accuracy))
        label = f": {one.error:.1%}"
        predictor_line(stated, one.predictor, one.stated[there] * 100, accuracy, label=label)
    stated.axline((0, 0), slope=1, color=GREY, lw=1)
    stated.set_xlim(0, 100)
    stated.set_ylim(0, 100)
    stated.set_xlabel("stated chance of the guess (%)", fontsize=10)
    stated.set_ylabel("share that was right (%)", fontsize=10)
    stated.legend(fontsize=8.5, frameon=False, title="off on average", title_fontsize=8.5)
    # Above its panel, since there are lines all over it; the same colours hold in the next one.
    margins.legend(
        fontsize=8.5, frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0)
    )
    set_title(
        figure,
        "The surer a gate is, the better its choice is predicted"
        if _rises(result)
        else "How sure gates are, and what is predicted of their choices",
        join(
            f"{result.tokens:,} tokens, curves on {result.test_tokens:,} of "
            f"{result.test_groups:,} prompts",
            f"{result.level:.0%} intervals",
            str(result.shape),
            note,
        ),
    )
    return figure


def _rises(result: Confidence) -> bool:
    """Whether every predictor does better on the surest choices than on the least sure."""
    return all(curve.accuracy.value[-1] > curve.accuracy.value[0] for curve in result.curves)


def _line(
    axes: Axes, x: npt.NDArray[np.float64], estimate: Estimate, colour: str, label: str
) -> None:
    axes.plot(x, estimate.value, "o-", ms=3, lw=1.3, color=colour, label=label)
    interval(axes, x, estimate.low, estimate.high, colour)
