"""Panels that the two figures of expert load share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from routestats.errors import InvalidValueError
from routestats.plots._draw.style import (
    DARK,
    LAYER_AXIS,
    label_ticks,
    plain_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from routestats.stats import ExpertLoad


READABLE = 64  # experts that can be told apart beside each other
MAX_DOMAINS = 5  # whose maps stand beside each other


def height_for(num_layers: int) -> float:
    """Inches that let every layer up to 64 have its own visible row."""
    return float(np.clip(2.2 + 0.17 * num_layers, 3.4, 12.0))


def relative_share(result: ExpertLoad) -> npt.NDArray[np.float64]:
    """Share over the uniform 1 / E; NaN for an expert without any token."""
    ratio = result.share * result.shape.num_experts
    return np.where(result.load > 0, ratio, np.nan)


def check_order(order: str | None, num_experts: int) -> str:
    """``id`` or ``load``; by default by load where experts are too many to be read one by one."""
    if order is None:
        return "id" if num_experts <= READABLE else "load"
    if order not in ("id", "load"):
        raise InvalidValueError(f"order: expected 'id', 'load' or None, got {order!r}")
    return order


def places(loads: Iterable[ExpertLoad], order: str) -> npt.NDArray[np.intp]:
    """Expert at each place of each layer, [L, E]: by id, or by mean share, the busiest first."""
    share = np.mean([load.share for load in loads], axis=0)
    if order == "id":
        return np.broadcast_to(np.arange(share.shape[1]), share.shape)
    return np.argsort(-share, axis=1, kind="stable")


def expert_axis(axes: Axes, num_experts: int, most: int = 16, order: str = "id") -> None:
    """Expert ids, or ranks, along x."""
    label_ticks(axes.xaxis, range(num_experts), most)
    axes.set_xlabel(
        "expert" if order == "id" else "rank of expert in its\nlayer, 0 the busiest", fontsize=10
    )


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


def effective_limits(axes: Axes, results: Iterable[ExpertLoad]) -> None:
    """From a little below the least effective experts to a little beyond all."""
    several = list(results)
    num_experts = several[0].shape.num_experts
    spread = num_experts - min(float(result.effective_experts.min()) for result in several)
    spread = max(spread, 0.02 * num_experts)
    axes.set_xlim(max(0.0, num_experts - 1.25 * spread), num_experts + 0.15 * spread)
