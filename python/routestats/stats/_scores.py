"""Ranking the experts of a target layer by score, exactly and without a full sort.

A score is a sum of K probabilities. As floats, two scores that are equal could come out unequal
in the last bit, by the order in which a matrix product adds, and ties would fall differently from
one machine to the next. So probabilities are rounded to fixed point and the sums are integers
that float64 holds exactly, in any order. The low bits of each key hold the expert id upside down:
a larger key is a better expert, and of equal scores the lowest id wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
import numpy.typing as npt

from routestats.counts import RouteCounts
from routestats.shape import RouteShape

Floats = npt.NDArray[np.float64]

MAX_FRACTION_BITS = 40


def fraction_bits(shape: RouteShape) -> int:
    """Binary digits kept of a probability: the 53 of a float64, less the id's and the sum's."""
    id_bits = (shape.num_experts - 1).bit_length()
    return min(MAX_FRACTION_BITS, 53 - id_bits - shape.top_k.bit_length())


def _keys(probabilities: Floats, shape: RouteShape) -> Floats:
    """Fixed-point probabilities, shifted to leave room for the id below them."""
    id_bits = (shape.num_experts - 1).bit_length()
    return np.rint(probabilities * 2.0 ** fraction_bits(shape)) * 2.0**id_bits


def _tie_break(num_experts: int) -> Floats:
    """What the id adds to a key: the lowest id the most, and always less than one score unit."""
    return np.arange(num_experts - 1, -1, -1, dtype=np.float64)


def marginal_keys(counts: RouteCounts) -> Floats:
    """Keys [L, E] of the predictor that knows only how often each expert is used."""
    shares = np.asarray(counts.expert, dtype=np.float64) / counts.tokens
    return _keys(shares, counts.shape) + _tie_break(counts.shape.num_experts)


def transition_keys(counts: RouteCounts, src: int) -> Floats:
    """What each expert of layer `src` adds to the keys of all later layers: [E, L-1-src, E].

    An expert that was never used in training adds what the marginal predictor knows, so a token
    of such experts alone is predicted by the marginal.
    """
    shape = counts.shape
    source = np.asarray(counts.expert[src], dtype=np.float64)[:, None]
    seen = source > 0
    table = np.empty((shape.num_experts, shape.num_layers - 1 - src, shape.num_experts))
    for column, dst in enumerate(range(src + 1, shape.num_layers)):
        shares = np.asarray(counts.expert[dst], dtype=np.float64) / counts.tokens
        fallback = np.tile(shares, (shape.num_experts, 1))
        pairs = counts.pair(src, dst).astype(np.float64)
        table[:, column] = np.divide(pairs, source, out=fallback, where=seen)
    return _keys(table, shape)


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Keys [U, P, E] of U predictions for P target layers, with the best-M thresholds."""

    keys: Floats
    thresholds: dict[int, Floats]

    @classmethod
    def of(cls, keys: Floats, best: Sequence[int]) -> Ranking:
        """Rank `keys`; `best` lists the sizes M that will be asked for."""
        order = np.sort(keys, axis=-1)
        return cls(keys, {m: np.ascontiguousarray(order[..., -m]) for m in best})

    def hits(
        self, which: npt.NDArray[np.intp], targets: npt.NDArray[np.integer]
    ) -> tuple[npt.NDArray[np.bool_], dict[int, npt.NDArray[np.uint16]]]:
        """Score predictions against what the tokens really chose.

        Parameters
        ----------
        which : ndarray of intp, shape [t]
            Prediction (0..U-1) of each token.
        targets : ndarray of integers, shape [t, P, K]
            Experts chosen at the target layers, first choice first.

        Returns
        -------
        first : ndarray of bool, shape [t, P]
            Whether the best expert is the first choice.
        found : dict of ndarray of uint16, shape [t, P]
            For each M, how many of the K chosen are among the best M.
        """
        _, num_targets, num_experts = self.keys.shape
        flat = self.keys.reshape(-1)
        base = which[:, None] * (num_targets * num_experts)
        base = base + np.arange(num_targets) * num_experts
        limits = {m: limit[which] for m, limit in self.thresholds.items()}
        found = {m: np.zeros(base.shape, dtype=np.uint16) for m in limits}
        first = np.zeros(base.shape, dtype=np.bool_)
        for slot in range(targets.shape[2]):
            chosen = flat.take(base + targets[:, :, slot])
            if slot == 0:
                first = chosen >= limits[1]
            for m, limit in limits.items():
                found[m] += chosen >= limit
        return first, found


def source_keys(sets: npt.NDArray[np.integer], table: Floats) -> Floats:
    """Keys [U, P, E] for U source sets ([U, S] expert ids) from `transition_keys`."""
    num_experts, num_targets, _ = table.shape
    members = np.zeros((len(sets), num_experts))
    np.put_along_axis(members, sets.astype(np.intp), 1.0, axis=1)
    keys = members @ table.reshape(num_experts, -1)
    keys = keys.reshape(len(sets), num_targets, num_experts)
    keys += _tie_break(num_experts)
    return keys


def distinct_sets(
    sets: npt.NDArray[np.integer], num_experts: int
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.intp]] | None:
    """Distinct rows of `sets` ([t, S], order within a row immaterial) and each row's index.

    None where there can be more sets than tokens, so that looking for equal ones does not pay.
    Of 8 experts taken 2 at a time there are 28 sets, and all tokens share 28 predictions.
    """
    size = sets.shape[1]
    if comb(num_experts, size) > len(sets) or num_experts**size >= 2**64:
        return None
    ordered = np.sort(sets, axis=1).astype(np.uint64)
    packed = np.zeros(len(sets), dtype=np.uint64)
    for slot in range(size):
        packed = packed * np.uint64(num_experts) + ordered[:, slot]
    _, index, which = np.unique(packed, return_index=True, return_inverse=True)
    return sets[index], which.astype(np.intp)
