"""The specification of `rank_hits`, readable rather than fast; the C++ core must equal it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def rank_hits(
    tables: npt.NDArray[np.float64],
    base: npt.NDArray[np.float64],
    rows: npt.NDArray[np.integer],
    chosen: npt.NDArray[np.integer],
    group_of: npt.NDArray[np.integer],
    *,
    best: Sequence[int],
    num_groups: int,
) -> npt.NDArray[np.int64]:
    """Hits of scored predictions per target layer and group; see `routestats.counts.rank_hits`."""
    targets, tokens, slots = chosen.shape
    hits = np.zeros((targets, num_groups, 2 + len(best)), dtype=np.int64)
    for target in range(targets):
        picked = rows[target if len(rows) > 1 else 0]
        for token in range(tokens):
            score = base[target] + tables[target][picked[token]].sum(axis=0)
            ranking = np.argsort(-score)
            found = [int(np.isin(ranking[:m], chosen[target, token]).sum()) for m in best]
            exact = int(np.isin(ranking[:slots], chosen[target, token]).sum()) == slots
            first = ranking[0] == chosen[target, token, 0]
            hits[target, group_of[token]] += [int(first), *found, int(exact)]
    return hits
