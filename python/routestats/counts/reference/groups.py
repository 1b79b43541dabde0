"""Counts by group and permutations within classes, in plain Python: the specification of the C++.

Nothing here is fast, and nothing outside the tests and benchmarks uses it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from routestats.counts.reference.pairs import Ids, expert_counts, pair_counts, reordered

_WORD = 2**64 - 1
_GAMMA = 0x9E3779B97F4A7C15


def mix(z: int) -> int:
    """The finaliser of SplitMix64, of 64-bit words."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _WORD
    return z ^ (z >> 31)


class SplitMix64:
    """The generator of Steele, Lea and Flood (2014), with even bounded integers after Lemire."""

    def __init__(self, state: int) -> None:
        self.state = state

    def below(self, bound: int) -> int:
        """An integer 0..bound-1 (Lemire 2019, with 32 random bits)."""
        while True:
            self.state = (self.state + _GAMMA) & _WORD
            product = (mix(self.state) >> 32) * bound
            if product % 2**32 >= 2**32 % bound:
                return product >> 32


def shuffle_rows(
    rows: npt.NDArray[np.uint32],
    starts: npt.NDArray[np.uint64],
    layers: int,
    *,
    seed: int,
    stream: int,
    first_group: int = 0,
) -> npt.NDArray[np.uint32]:
    """`rows` [n], permuted within groups, with a new permutation for each layer: [layers, n].

    Group g is ``rows[starts[g]:starts[g + 1]]``. Its generator starts from `seed`, `stream`, the
    layer and ``first_group + g``.
    """
    stream_key = mix((mix((seed + _GAMMA) & _WORD) + stream) & _WORD)
    orders = np.tile(rows, (layers, 1))
    for layer in range(layers):
        layer_key = mix((stream_key + layer) & _WORD)
        for g in range(len(starts) - 1):
            random = SplitMix64(mix((layer_key + first_group + g) & _WORD))
            begin, end = int(starts[g]), int(starts[g + 1])
            for n in range(end - begin, 1, -1):
                i, j = begin + n - 1, begin + random.below(n)
                orders[layer, [i, j]] = orders[layer, [j, i]]
    return orders


def sum_changes_without_groups(
    experts: Ids,
    num_experts: int,
    layer_pairs: Sequence[tuple[int, int]],
    rows: npt.NDArray[np.uint32],
    starts: npt.NDArray[np.uint64],
    *,
    pairing: str,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What sums of n log2 n change by when a group's rows are taken out of the counts.

    Parameters
    ----------
    experts : ndarray of integers, shape [T, L, K]
    num_experts : int
    layer_pairs : sequence of (int, int), length P
    rows : ndarray of uint32, shape [n] or [L, n]
        Group g is entries ``starts[g]`` to ``starts[g + 1] - 1``; entry i stands for row
        ``rows[i]``, or at layer l for row ``rows[l, i]``.
    starts : ndarray of uint64, shape [G + 1]
    pairing : {"any", "top1"}

    Returns
    -------
    pairs : ndarray of float64, shape [G, P]
        Over the cells of the layer pair's table.
    layers : ndarray of float64, shape [G, L]
        Over the margin of any table of the layer: K times the counts of its experts for ``any``.
    """
    num_layers = experts.shape[1]
    trace = reordered(experts, np.broadcast_to(rows, (num_layers, rows.shape[-1])))
    slots = trace.shape[2] if pairing == "any" else 1

    def sums(part: Ids) -> tuple[list[float], list[float]]:
        tables = [pair_counts(part, num_experts, *pair, pairing=pairing) for pair in layer_pairs]
        margins = slots * expert_counts(part, num_experts, pairing=pairing)
        return [_sum(table) for table in tables], [_sum(margin) for margin in margins]

    whole = [np.array(values) for values in sums(trace)]
    pairs = np.empty((len(starts) - 1, len(layer_pairs)))
    layers = np.empty((len(starts) - 1, num_layers))
    for g in range(len(starts) - 1):
        kept = np.delete(trace, slice(int(starts[g]), int(starts[g + 1])), axis=0)
        pairs[g], layers[g] = (
            np.array(without) - full for without, full in zip(sums(kept), whole, strict=True)
        )
    return pairs, layers


def _sum(counts: npt.NDArray[np.uint64]) -> float:
    n = counts[counts > 0].astype(np.float64)
    return float((n * np.log2(n)).sum())
