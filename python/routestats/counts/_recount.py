"""`recount`: counts of rows chosen anew for each layer, without a copy of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from routestats.counts._plan import Hops
from routestats.counts._route_counts import RouteCounts
from routestats.counts._source import as_ids
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.shape import RouteShape


def recount(
    experts: npt.ArrayLike,
    row_order: npt.ArrayLike,
    *,
    num_experts: int,
    hops: Hops = "all",
    pairing: str = "any",
    threads: int | None = None,
) -> RouteCounts:
    """Count a trace whose rows are permuted or resampled, each layer by itself.

    Equal to counting ``experts[row_order[l], l]`` in place of ``experts[:, l]`` at every layer l,
    which is never built. A permutation per layer gives the nulls of `information`; the same rows
    at every layer give a resample.

    Parameters
    ----------
    experts : array of integers, shape [T, L, K]
    row_order : array of integers, shape [L, N]
        Row 0..T-1 that token n of layer l is read from. Rows may repeat or be left out; uint32 in
        C order is not copied.
    num_experts : int
    hops : "all", int or iterable of int
    pairing : {"any", "top1"}
    threads : int, optional
        By default one for each CPU that this process may use.

    Returns
    -------
    RouteCounts
        Of N tokens.

    Raises
    ------
    InvalidTypeError
        If either array holds no integers.
    InvalidValueError
        If an id is not below E or a row not below T (the first one is named), the shapes do not
        fit, or a hop or the pairing does not exist.
    """
    ids = as_ids(experts)
    shape = RouteShape(ids.shape[1], num_experts, ids.shape[2])
    counts = RouteCounts.empty(shape, hops=hops, pairing=pairing)
    counts._add_rows(ids, _as_rows(row_order, shape.num_layers), threads=threads)
    return counts


def _as_rows(row_order: npt.ArrayLike, num_layers: int) -> npt.NDArray[np.uint32]:
    rows = np.asarray(row_order)
    if rows.dtype.kind not in "iu":
        raise InvalidTypeError(f"row_order: expected an integer array, got {rows.dtype}")
    if rows.ndim != 2 or len(rows) != num_layers:
        raise InvalidValueError(
            f"row_order: expected shape [{num_layers}, N], got {list(rows.shape)}"
        )
    if rows.dtype != np.uint32 and rows.size:
        for limit in (rows.min(), rows.max()):
            if not 0 <= limit < 2**32:
                raise InvalidValueError(f"row_order: expected rows 0 to 2**32 - 1, got {limit}")
    return np.ascontiguousarray(rows, np.uint32)
