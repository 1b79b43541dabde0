"""Maps of ratios on a logarithmic scale, on which half and twice are equally far from even."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from routestats.plots._draw.style import DIVERGING, colour_bar, heat_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 99.5  # percentile of the ratios, or differences, that the colours reach


def ratio_limit(*ratios: npt.NDArray[np.float64]) -> float:
    """Power of two, from 2 to 8, that bounds nearly all ratios on both sides of 1."""
    logs = [np.abs(np.log2(ratio[ratio > 0])) for ratio in ratios]
    largest = float(np.percentile(np.concatenate(logs), SHOWN)) if any(map(len, logs)) else 1.0
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
    """Colour bar below `axes`, with ticks such as ½×, even, 2×."""
    bar = colour_bar(
        figure,
        image,
        axes,
        "load relative to even use (grey: never used)",
        orientation="horizontal",
        aspect=40,
    )
    ratio_ticks(bar, limit, "even")


def ratio_ticks(bar: Any, limit: float, middle: str) -> None:
    """Ticks of a colour bar at the powers of two up to `limit`, whose ends hold all beyond."""
    reach = int(np.log2(limit))
    names = {-3: "⅛×", -2: "¼×", -1: "½×", 0: middle, 1: "2×", 2: "4×", 3: "8×"}
    labels = [names[power] for power in range(-reach, reach + 1)]
    labels[0], labels[-1] = f"≤ {labels[0]}", f"≥ {labels[-1]}"
    bar.set_ticks([2.0**power for power in range(-reach, reach + 1)], labels=labels)
    bar.ax.minorticks_off()
