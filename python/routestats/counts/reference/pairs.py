"""What is counted, in plain NumPy: the specification of the C++ kernels.

Nothing here is fast, and nothing outside the tests and benchmarks uses it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.integer[Any]]
Counts = npt.NDArray[np.uint64]


def paired_slots(experts: Ids, pairing: str) -> Ids:
    """The slots that a pairing counts, of ids of shape [T, L, K].

    ``top1`` keeps slot 0, the choice of greatest weight; ``any`` keeps all K slots.
    """
    return experts[:, :, :1] if pairing == "top1" else experts


def expert_counts(experts: Ids, num_experts: int, *, pairing: str) -> Counts:
    """Counts of shape [L, E]: how often each expert stands in a counted slot of each layer.

    Parameters
    ----------
    experts : ndarray of integers, shape [T, L, K]
    num_experts : int
    pairing : {"any", "top1"}
    """
    slots = paired_slots(experts, pairing)
    counts = np.zeros((experts.shape[1], num_experts), np.uint64)
    for layer in range(experts.shape[1]):
        np.add.at(counts[layer], slots[:, layer].ravel().astype(np.int64), 1)
    return counts


def pair_counts(experts: Ids, num_experts: int, src: int, dst: int, *, pairing: str) -> Counts:
    """Counts of shape [E, E] of one pair of layers.

    Cell [e, f] is how often a token has e in a counted slot at layer `src` and f in one at layer
    `dst`, over all ordered pairs of slots: the cells sum to T * K^2 for ``any`` and to T for
    ``top1``. That holds for ``src == dst`` too, where the diagonal counts each slot with itself.

    Parameters
    ----------
    experts : ndarray of integers, shape [T, L, K]
    num_experts : int
    src, dst : int
        Layers 0..L-1.
    pairing : {"any", "top1"}
    """
    slots = paired_slots(experts, pairing).astype(np.int64)
    counts = np.zeros((num_experts, num_experts), np.uint64)
    for i in range(slots.shape[2]):
        for j in range(slots.shape[2]):
            np.add.at(counts, (slots[:, src, i], slots[:, dst, j]), 1)
    return counts


def reordered(experts: Ids, row_order: npt.NDArray[np.integer[Any]]) -> Ids:
    """The trace of shape [N, L, K] whose layer l holds the rows ``row_order[l]`` of `experts`.

    Parameters
    ----------
    experts : ndarray of integers, shape [T, L, K]
    row_order : ndarray of integers, shape [L, N]
    """
    layers = [experts[rows, layer] for layer, rows in enumerate(row_order)]
    return np.stack(layers, axis=1)
