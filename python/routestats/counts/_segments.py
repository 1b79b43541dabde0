"""Windows and a cache over runs of consecutive tokens, counted by the C++ kernel."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from routestats import _core
from routestats.counts.device.choice import choose_threads

Counts = npt.NDArray[np.uint64]


class SegmentCounts(NamedTuple):
    """What `count_segments` counts.

    Attributes
    ----------
    uses : ndarray of uint64, shape [G, L, m + 1]
        ``[g, l, c]``: (window, expert) of group g's runs where c of the m tokens chose the expert.
    hits : ndarray of uint64, shape [G, L]
        Choices that found their expert in the cache.
    """

    uses: Counts
    hits: Counts


def count_segments(
    experts: npt.NDArray[np.integer[Any]],
    num_experts: int,
    *,
    tokens: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    num_groups: int,
    m: int,
    capacity: int,
    threads: int | None = None,
) -> SegmentCounts:
    """Slide a window and a cache over runs of tokens; see `counts.reference.segments`.

    Parameters
    ----------
    experts : ndarray of integers, shape [T, L, K]
    num_experts : int
    tokens : ndarray of int64, shape [n]
        Rows of `experts`, run after run.
    starts : ndarray of int64, shape [R + 1]
        Run r is ``tokens[starts[r]:starts[r + 1]]``.
    groups : ndarray of int64, shape [R]
        Group, 0..num_groups-1, that each run adds to.
    num_groups : int
    m, capacity : int
        Tokens of a window and of the cache's view ahead; experts that the cache holds per layer.
    threads : int, optional

    Raises
    ------
    InvalidValueError
        If an id is not below `num_experts`, or a token names an expert twice at a layer.
    """
    layers = experts.shape[1]
    counted = SegmentCounts(
        np.zeros((num_groups, layers, m + 1), np.uint64), np.zeros((num_groups, layers), np.uint64)
    )
    _core.count_segments(
        experts,
        num_experts=num_experts,
        tokens=tokens,
        starts=starts,
        groups=groups,
        m=m,
        capacity=capacity,
        uses=counted.uses,
        hits=counted.hits,
        threads=choose_threads(threads),
    )
    return counted
