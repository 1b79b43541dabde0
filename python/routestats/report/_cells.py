"""Cells of tables: what is read, and the numbers behind it, which sorting and CSV take."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from routestats.stats import Estimate

NONE = "–"


class Cell(NamedTuple):
    """A cell's text; its value, or its value and the two ends of its interval."""

    text: str
    values: tuple[float, ...] = ()


def number(value: float | int, form: str = ",") -> Cell:
    """`value` in the format `form`."""
    if np.isnan(value):
        return Cell(NONE)
    return Cell(f"{value:{form}}", (value,))


def share(value: float, decimals: int = 1) -> Cell:
    """A share of 1 in percent; its value stays of 1."""
    return number(value, f".{decimals}%")


def percent(estimate: Estimate, place: int | tuple[int, ...] = (), decimals: int = 1) -> Cell:
    """One entry of `estimate`, a share of 1, in percent and with its interval where it has one."""
    return _estimate(estimate, place, 100, f".{decimals}f", "%")


def points(estimate: Estimate, place: int | tuple[int, ...] = ()) -> Cell:
    """A difference of shares, in percentage points."""
    return _estimate(estimate, place, 100, "+.1f", " points")


def bits(estimate: Estimate, place: int | tuple[int, ...] = (), form: str = ".4f") -> Cell:
    """An information in bits."""
    return _estimate(estimate, place, 1, form, "")


def _estimate(
    estimate: Estimate, place: int | tuple[int, ...], scale: float, form: str, unit: str
) -> Cell:
    value, low, high = (float(np.asarray(part)[place]) for part in estimate)
    if np.isnan(value):
        return Cell(NONE)
    text = f"{value * scale:{form}}{unit}"
    if np.isnan(low):
        return Cell(text, (value,))
    interval = f"[{low * scale:{form}}, {high * scale:{form}}]"
    return Cell(f"{text} {interval}", (value, low, high))
