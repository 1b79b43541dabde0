"""What paths are and how they are counted, in plain NumPy: the specification of the C++ kernels.

Nothing here is fast, and nothing outside the tests and benchmarks uses it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.integer[Any]]
Path = tuple[int, ...]


def paths(experts: Ids, kind: str, start: int, length: int) -> list[Path]:
    """Each token's path through layers ``start`` to ``start + length - 1``, as a flat tuple.

    Parameters
    ----------
    experts : ndarray of integers, shape [T, L, K]
    kind : {"top1", "set"}
        The first choice of each layer, or its K ids in ascending order.
    start, length : int
    """
    window = experts[:, start : start + length]
    chosen = window[:, :, :1] if kind == "top1" else np.sort(window, axis=2)
    return [tuple(row.ravel().tolist()) for row in chosen]


def path_counts(experts: Ids, kind: str, start: int, length: int) -> list[tuple[Path, int]]:
    """All distinct paths with their tokens, by falling count, then lexicographically."""
    counts = Counter(paths(experts, kind, start, length))
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
