"""Hits of scored predictions, by the C++ core."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from routestats import _core
from routestats.counts.device.choice import choose_threads


def rank_hits(
    tables: npt.NDArray[np.float64],
    base: npt.NDArray[np.float64],
    rows: npt.NDArray[np.integer],
    chosen: npt.NDArray[np.integer],
    group_of: npt.NDArray[np.integer],
    *,
    best: Sequence[int],
    num_groups: int,
    threads: int | None = None,
    isa: str | None = None,
) -> npt.NDArray[np.int64]:
    """Rank all experts of each target layer by score, and count how many were chosen.

    The score of expert f for token t at target p is ``base[p, f]`` plus the sum over i of
    ``tables[p, rows[p, t, i], f]``; the best has rank 0.

    Parameters
    ----------
    tables : ndarray of float64, shape [P, R, E]
        Integers that float64 holds exactly in any order of addition, at least 0.
    base : ndarray of float64, shape [P, E]
        The same; must make the scores of any token distinct.
    rows : ndarray of integers, shape [P, T, S] or [1, T, S]
        Rows of the tables that a token's score adds up, each of 0..R-1.
    chosen : ndarray of integers, shape [P, T, K]
        The experts chosen, each of 0..E-1 and below 65,536, first choice first.
    group_of : ndarray of integers, shape [T]
        Group of each token, of 0..`num_groups`-1. Fastest where equal ones lie together.
    best : sequence of int, length m
    num_groups : int
        G.
    threads : int, optional
        By default one for each CPU that this process may use.
    isa : str, optional
        Instruction set, by default the best that this machine has.

    Returns
    -------
    ndarray of int64, shape [P, G, 2 + m]
        Summed over the tokens of each group: whether the first choice has rank 0; for each M of
        `best` how many of the K chosen have a rank below M; whether all have a rank below K.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        If an argument is of the wrong kind, the shapes do not fit together, or a row, an expert or
        a group is out of range.
    """
    hits = np.zeros((len(tables), num_groups, 2 + len(best)), dtype=np.int64)
    _core.add_rank_hits(
        tables=np.ascontiguousarray(tables, dtype=np.float64),
        base=np.ascontiguousarray(base, dtype=np.float64),
        rows=np.ascontiguousarray(rows, dtype=np.uint32),
        chosen=np.ascontiguousarray(chosen, dtype=np.uint16),
        group_of=np.ascontiguousarray(group_of, dtype=np.uint32),
        best=list(best),
        hits=hits,
        threads=choose_threads(threads),
        isa=isa,
    )
    return hits
