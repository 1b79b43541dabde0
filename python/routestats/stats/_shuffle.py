"""Permutations of tokens within classes: what the information nulls are made of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class ShuffleWithin:
    """Permute rows among those of the same class, anew for each layer.

    Parameters
    ----------
    classes : integer array, shape [T]
    """

    def __init__(self, classes: npt.NDArray[np.integer]) -> None:
        _, codes = np.unique(classes, return_inverse=True)
        self._key = codes.astype(np.uint64) << np.uint64(32)
        self._order = np.argsort(codes, kind="stable")

    def __call__(
        self, experts: npt.NDArray[np.integer], rng: np.random.Generator
    ) -> npt.NDArray[np.integer]:
        """A copy of `experts` [T, L, K] with every layer's rows permuted within their classes."""
        shuffled = np.empty_like(experts)
        for layer in range(experts.shape[1]):
            draw = rng.integers(0, 1 << 32, len(self._key), np.uint64)
            # Sorted by class, and at random within it.
            shuffled[self._order, layer] = experts[np.argsort(self._key | draw), layer]
        return shuffled
