"""What `count_segments` counts, in plain Python: the specification of the C++ kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.integer[Any]]
Counts = npt.NDArray[np.uint64]


def window_uses(experts: Ids, num_experts: int, m: int) -> Counts:
    """Counts of shape [L, m + 1] for one run of consecutive tokens.

    Cell [l, c] is for how many (window of m tokens, expert) exactly c of the tokens chose the
    expert at layer l.

    Parameters
    ----------
    experts : ndarray of integers, shape [t, L, K]
    num_experts : int
    m : int
    """
    uses = np.zeros((experts.shape[1], m + 1), np.uint64)
    for layer in range(experts.shape[1]):
        for first in range(len(experts) - m + 1):
            window = experts[first : first + m, layer]
            for expert in range(num_experts):
                uses[layer, (window == expert).any(axis=1).sum()] += np.uint64(1)
    return uses


def cache_hits(experts: Ids, m: int, capacity: int) -> Counts:
    """Hits of shape [L] of a cache that knows the next m tokens, over one run.

    It starts empty. A choice hits if the expert was in the cache before the token. After the token
    all its experts are there, and those used least in the next m tokens of the run leave, the
    highest id first among equals, until `capacity` are left.
    """
    hits = np.zeros(experts.shape[1], np.uint64)
    for layer in range(experts.shape[1]):
        tokens: Sequence[list[int]] = experts[:, layer].tolist()
        cache: set[int] = set()
        for t, chosen in enumerate(tokens):
            hits[layer] += np.uint64(len(cache & set(chosen)))
            cache |= set(chosen)
            ahead = Counter(e for later in tokens[t + 1 : t + 1 + m] for e in later)
            while len(cache) > capacity:
                cache.remove(min(cache, key=lambda e: (ahead[e], -e)))
    return hits
