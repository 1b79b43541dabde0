"""The canonical order of a row's choices."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from routestats.errors import InvalidTypeError, InvalidValueError


def sort_by_weight(
    experts: npt.ArrayLike, weights: npt.ArrayLike
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float16]]:
    """Order experts by descending gate weight, ties to the lowest id.

    Parameters
    ----------
    experts : integer array, shape [..., K]
    weights : float array, shape [..., K]
        Compared in float32, before they are rounded to float16.

    Returns
    -------
    experts, weights : ndarray, shape [..., K]
        The weights as float16.

    Raises
    ------
    InvalidTypeError
        If `weights` are no numbers.
    InvalidValueError
        If the shapes differ.
    """
    ids = np.asarray(experts)
    try:
        gate = np.asarray(weights, dtype=np.float32)
    except (TypeError, ValueError):
        raise InvalidTypeError(f"weights: expected numbers, got {weights!r}") from None
    if ids.shape != gate.shape:
        raise InvalidValueError(f"weights: expected shape {ids.shape}, got {gate.shape}")
    # lexsort's last key counts first; NaN sorts last, as in the capture ring.
    order = np.lexsort((ids, -gate), axis=-1)
    return (
        np.take_along_axis(ids, order, axis=-1),
        np.take_along_axis(gate, order, axis=-1).astype(np.float16),
    )


def first_disorder(
    experts: npt.NDArray[Any], weights: npt.NDArray[np.float16]
) -> tuple[int, int, int] | None:
    """Index ``(t, l, k)`` of the first weight that is larger than the one before it, or None.

    Rounding to float16 makes ties of unequal weights, so ids may be in any order among them.
    """
    bad = weights[..., 1:] > weights[..., :-1]
    if not bad.any():
        return None
    t, layer, k = (int(i) for i in np.argwhere(bad)[0])
    return t, layer, k + 1
