"""Hits of the single-hop and the marginal predictor, summed per prompt group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from routestats.counts import RouteCounts
from routestats.stats._scores import (
    Ranking,
    distinct_sets,
    marginal_keys,
    source_keys,
    transition_keys,
)
from routestats.trace import Trace

# Bytes of one block of keys: small enough to stay in a core's cache between the passes over it.
BLOCK_BYTES = 8 << 20
BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True, eq=False)
class HitSums:
    """Hits per measure and prompt group; enough for every estimate and its bootstrap.

    Attributes
    ----------
    names : tuple of str, length m
    trials : ndarray of float64, shape [m]
        What one token can score at most: K for a recall, else 1.
    tokens : ndarray of int64, shape [G]
        Test tokens of each group.
    strata : ndarray of int32, shape [G]
        Domain of each group.
    hop : ndarray of int64, shape [m, G, P]
        Hits of the P = L * (L - 1) / 2 layer pairs, in the order of ``numpy.triu_indices(L, 1)``.
    marginal : ndarray of int64, shape [m, G, L - 1]
        Hits at target layers 1..L-1.
    """

    names: tuple[str, ...]
    trials: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]
    strata: npt.NDArray[np.int32]
    hop: npt.NDArray[np.int64]
    marginal: npt.NDArray[np.int64]


def sum_hits(fitted: RouteCounts, test: Trace, *, top1: bool) -> HitSums:
    """One pass over `test` in batches; scratch memory does not grow with its length."""
    shape = fitted.shape
    layers, size = shape.num_layers, shape.top_k
    recalls = [m for m in (size, 2 * size, 4 * size) if m == size or m < shape.num_experts]
    names = ["top1_accuracy"] * top1 + [f"recall_at_{m}" for m in recalls] + ["exact_set"]
    trials = [1.0] * top1 + [float(size)] * len(recalls) + [1.0]
    best = sorted({1, *recalls})

    row_groups, row_domains = test.row_groups(), test.row_domains()
    _, first_row, groups = np.unique(row_groups, return_index=True, return_inverse=True)
    num_groups = len(first_row)
    hop = np.zeros((len(names), num_groups, layers * (layers - 1) // 2), dtype=np.int64)
    marginal = np.zeros((len(names), num_groups, layers - 1), dtype=np.int64)
    marginal_ranking = Ranking.of(marginal_keys(fitted)[None, 1:], best)

    def add(
        into: npt.NDArray[np.int64],
        ranking: Ranking,
        which: npt.NDArray[np.intp],
        targets: npt.NDArray[np.integer],
        codes: npt.NDArray[np.intp],
    ) -> None:
        """Score rows that are sorted by group, and add their hits to their groups' sums."""
        first, found = ranking.hits(which, targets)
        starts = np.flatnonzero(np.diff(codes, prepend=-1))
        hits = [first] * top1 + [found[m] for m in recalls] + [found[size] == size]
        for sums, hit in zip(into, hits, strict=True):
            sums[codes[starts]] += np.add.reduceat(hit, starts, axis=0, dtype=np.int64)

    row = 0
    for batch in test.iter_experts(rows=BATCH_ROWS):
        codes = groups[row : row + len(batch)].astype(np.intp)
        row += len(batch)
        order = np.argsort(codes, kind="stable")
        codes, experts = codes[order], np.ascontiguousarray(batch[order])
        whole = np.zeros(len(codes), dtype=np.intp)
        for rows in _blocks(len(codes), (layers - 1) * shape.num_experts):
            add(marginal, marginal_ranking, whole[rows], experts[rows, 1:], codes[rows])
        column = 0
        for src in range(layers - 1):
            width = layers - 1 - src
            into = hop[:, :, column : column + width]
            column += width
            table = transition_keys(fitted, src)
            slots = size if fitted.pairing == "any" else 1
            sets = experts[:, src, :slots]
            shared = distinct_sets(sets, shape.num_experts)
            ranking = None
            if shared is not None and shared[0].size * table[0].nbytes <= 4 * BLOCK_BYTES:
                ranking = Ranking.of(source_keys(shared[0], table), best)
            for rows in _blocks(len(codes), width * shape.num_experts):
                if ranking is not None and shared is not None:
                    block, which = ranking, shared[1][rows]
                else:
                    block = Ranking.of(source_keys(sets[rows], table), best)
                    which = np.arange(rows.stop - rows.start)
                add(into, block, which, experts[rows, src + 1 :], codes[rows])
    return HitSums(
        names=tuple(names),
        trials=np.array(trials),
        tokens=np.bincount(groups, minlength=num_groups).astype(np.int64),
        strata=row_domains[first_row],
        hop=hop,
        marginal=marginal,
    )


def _blocks(rows: int, keys_per_row: int) -> list[slice]:
    """Slices of `rows` whose keys fill about one block each."""
    step = max(1, BLOCK_BYTES // (8 * keys_per_row))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
