"""Figure: what every predictor reaches, against how far ahead it must look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from routestats.plots._style import (
    BLUE,
    DARK,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILION,
    join,
    new_figure,
    plain_axes,
    set_title,
    tick_step,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from routestats.stats import HopAccuracy, Prediction

# Baselines are broken lines without marks; what looks at the token or at other layers is solid.
STYLES: dict[str, dict[str, Any]] = {
    "uniform": {"color": GREY, "linestyle": ":", "linewidth": 1.6},
    "marginal": {"color": DARK, "linestyle": "--", "linewidth": 1.6},
    "token_id": {"color": GREEN, "marker": "s"},
    "previous_token": {"color": PURPLE, "marker": "^"},
    "single_hop": {"color": BLUE, "marker": "o"},
    "history_longest": {"color": ORANGE, "marker": "v"},
    "history_selected": {"color": VERMILION, "marker": "D"},
}
BASELINES = ("uniform", "marginal")
FEW_POINTS = 4
LABEL_GAP = 0.052  # least distance of two labels, as a share of the height


def prediction(result: HopAccuracy, *, measure: str | None = None, note: str = "") -> Figure:
    """One line per predictor by hop, with its interval as a band, named at its right end.

    Parameters
    ----------
    result : HopAccuracy
        From `routestats.stats.hop_accuracy`.
    measure : str, optional
        Default top-1 accuracy where it was measured.
    note : str
        Appended to the caption.

    Returns
    -------
    matplotlib.figure.Figure
        1,000 pixels wide.

    Raises
    ------
    InvalidValueError
        If there is no such measure.
    RouteStatsError
        If matplotlib is not installed.
    """
    shown = result.main if measure is None else result[measure]
    figure = new_figure(5.4)
    axes = figure.add_subplot()
    plain_axes(axes)
    for each in shown.predictions:
        _line(axes, each)
    hops = len(shown.hop_by_distance.value)
    axes.set_xlim(1 - 0.02 * hops, hops * 1.02)
    axes.set_xticks(_hop_ticks(hops))
    tops = [np.nanmax(np.concatenate(list(each.by_hop))) for each in shown.predictions]
    axes.set_ylim(0, min(float(max(tops)) * 106, 104))
    axes.set_xlabel("hop k: layers between what is known and what is predicted", fontsize=10)
    axes.set_ylabel(f"{shown.label} (%)", fontsize=10)
    _name_lines(axes, shown.predictions)
    with_interval = not np.isnan(shown.hop_by_distance.low).all()
    bands = f", bands: {result.confidence:.0%} intervals" if with_interval else ""
    set_title(
        figure,
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
    return figure


def _hop_ticks(hops: int) -> list[int]:
    """The first and the last hop, and round ones between them."""
    step = tick_step(hops, 10)
    return sorted({1, hops, *(k for k in range(step, hops, step) if hops - k >= step)})


def _line(axes: Axes, prediction: Prediction) -> None:
    value, low, high = (part * 100 for part in prediction.by_hop)
    hop = np.arange(1, len(value) + 1)
    style = STYLES[prediction.name]
    axes.plot(hop, value, **{"linewidth": 1.8, "markersize": 3.8, **style}, label=prediction.label)
    if prediction.name == "uniform" or np.isnan(low).all():
        return
    if len(hop) < FEW_POINTS:
        axes.vlines(hop, low, high, color=style["color"], linewidth=4, alpha=0.35)
    else:
        axes.fill_between(hop, low, high, color=style["color"], alpha=0.2, linewidth=0)


def _name_lines(axes: Axes, predictions: Sequence[Prediction]) -> None:
    """Labels right of the lines' ends, in their order, moved apart where they would overlap."""
    bottom, top = axes.get_ylim()
    ends = [(float(each.by_hop.value[-1]) * 100 - bottom) / (top - bottom) for each in predictions]
    order = np.argsort(ends, kind="stable")
    for index, height in zip(order, _spread([ends[i] for i in order]), strict=True):
        each = predictions[index]
        colour = STYLES[each.name]["color"]
        last = float(each.by_hop.value[-1]) * 100
        baseline = " (baseline)" if each.name in BASELINES else ""
        axes.annotate(
            f"{each.label}{baseline}",
            xy=(len(each.by_hop.value), last),
            xytext=(1.035, height),
            textcoords="axes fraction",
            va="center",
            fontsize=10,
            color=colour,
            fontweight="normal" if baseline else "bold",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.7, "shrinkB": 4},
        )


def _spread(heights: Sequence[float]) -> list[float]:
    """Ascending `heights`, moved as little as leaves `LABEL_GAP` between neighbours."""
    # Blocks of labels that touch; each is centred on the mean of where its labels belong.
    blocks: list[list[float]] = []
    for height in heights:
        blocks.append([height])
        while len(blocks) > 1 and _top(blocks[-2]) + LABEL_GAP > _bottom(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [_bottom(block) + i * LABEL_GAP for block in blocks for i in range(len(block))]


def _bottom(block: list[float]) -> float:
    return sum(block) / len(block) - LABEL_GAP * (len(block) - 1) / 2


def _top(block: list[float]) -> float:
    return _bottom(block) + LABEL_GAP * (len(block) - 1)
