"""Panels that the two figures of expert load share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from routestats.plots._style import (
    DARK,
    DIVERGING,
    LAYER_AXIS,
    heat_map,
    label_ticks,
    plain_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from routestats.stats import ExpertLoad


def height_for(num_layers: int) -> float:
    """Inches that let every layer up to 64 have its own visible row."""
    return float(np.clip(2.2 + 0.17 * num_layers, 3.4, 12.0))


def relative_share(result: ExpertLoad) -> npt.NDArray[np.float64]:
    """Share over the uniform 1 / E; NaN for an expert without any token."""
    ratio = result.share * result.shape.num_experts
    return np.where(result.load > 0, ratio, np.nan)


def ratio_limit(*ratios: npt.NDArray[np.float64]) -> float:
    """Power of two, from 2 to 8, that bounds the ratios on both sides of 1 (or clips them)."""
    largest = max(float(np.nanmax(np.abs(np.log2(ratio)))) for ratio in ratios)
    return float(2 ** np.clip(np.ceil(largest), 1, 3))


def ratio_map(axes: Axes, ratio: npt.NDArray[np.float64], limit: float) -> Any:
    """Heat map on a logarithmic scale on which half and twice are equally far from even."""
    from matplotlib.colors import LogNorm

    return heat_map(
        axes,
        np.clip(ratio, 1 / limit, limit),
        cmap=DIVERGING,
        norm=LogNorm(1 / limit, limit),
        aspect="auto",
    )


def ratio_bar(figure: Any, image: Any, axes: list[Axes], limit: float) -> None:
    """Colour bar below `axes`, with ticks such as ½×, 1×, 2×."""
    ticks = [2.0**power for power in range(-int(np.log2(limit)), int(np.log2(limit)) + 1)]
    names = {0.125: "⅛×", 0.25: "¼×", 0.5: "½×", 1.0: "even"}
    bar = figure.colorbar(
        image, ax=axes, orientation="horizontal", ticks=ticks, fraction=0.05, pad=0.02, aspect=40
    )
    bar.ax.minorticks_off()
    bar.ax.set_xticklabels([names.get(tick, f"{tick:.0f}×") for tick in ticks], fontsize=8.5)
    bar.outline.set_visible(False)
    bar.set_label("load relative to even use (grey: never used)", fontsize=9.5, color=DARK)


def expert_axis(axes: Axes, num_experts: int, most: int = 16) -> None:
    """Expert ids along x."""
    label_ticks(axes.xaxis, range(num_experts), most)
    axes.set_xlabel("expert", fontsize=10)


def layer_axis(axes: Axes, result: ExpertLoad, *, label: bool = True) -> None:
    """Layers along y, the first on top, by decoder-layer number."""
    label_ticks(axes.yaxis, result.layer_ids, 34)
    if label:
        axes.set_ylabel(LAYER_AXIS, fontsize=10)


def profile(
    axes: Axes, results: dict[str, ExpertLoad], values: str, colours: tuple[str, ...], even: float
) -> None:
    """One value per layer, layers along y as in the heat maps, with a line at even use."""
    plain_axes(axes)
    for (name, result), colour in zip(results.items(), colours, strict=False):
        layers = np.arange(result.shape.num_layers)
        axes.plot(getattr(result, values), layers, "o-", color=colour, ms=3.5, lw=1.3, label=name)
    axes.axvline(even, color=DARK, linestyle="--", linewidth=1)
    axes.annotate(
        "even",
        (even, 1.0),
        xycoords=("data", "axes fraction"),
        ha="center",
        va="bottom",
        fontsize=8.5,
        color=DARK,
    )
    num_layers = next(iter(results.values())).shape.num_layers
    axes.set_ylim(num_layers - 0.5, -0.5)
