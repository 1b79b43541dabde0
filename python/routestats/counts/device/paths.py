"""Paths that a device has counted, brought into the host's table, which orders and sums them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from routestats import _core
from routestats.shape import RouteShape

_CHUNK_PATHS = 65_536


def fill_table(
    table: _core.PathCounter,
    shape: RouteShape,
    start: int,
    paths: npt.NDArray[Any],
    counts: npt.NDArray[np.uint64],
    threads: int,
) -> None:
    """Give an empty `table` ``counts[i]`` tokens on each of the distinct ``paths[i]``.

    A table takes tokens, and its own sum with itself, so the counts go in bit by bit, the highest
    first: all that is there twice, and one token more on each path whose count has the bit. A path
    that occurs c times is handled about log2(c) times, and most occur once.

    Parameters
    ----------
    table : _core.PathCounter
        Empty, of the window of layers that begins with `start`.
    shape : RouteShape
    start : int
    paths : ndarray of uint8 or uint16, shape [n, layers of the window, slots]
    counts : ndarray of uint64, shape [n]
    threads : int
    """
    for bit in reversed(range(int(counts.max()).bit_length() if len(counts) else 0)):
        table.merge(table, threads=threads)
        having = np.flatnonzero(counts >> np.uint64(bit) & np.uint64(1))
        for first in range(0, len(having), _CHUNK_PATHS):
            rows = having[first : first + _CHUNK_PATHS]
            # Outside the window, and behind first choices, any expert will do.
            tokens = np.zeros((len(rows), shape.num_layers, shape.top_k), paths.dtype)
            tokens[:, start : start + paths.shape[1], : paths.shape[2]] = paths[rows]
            table.add(tokens, threads=threads)
