"""Counting pairs of experts the way people do today, one function per package.

Each takes a trace [T, L, K] of uint8, E, and the layer pairs, and returns counts [pairs, E, E].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from _workload import Ids
from routestats.counts.device.choice import choose_threads

Pairs = Sequence[tuple[int, int]]
Tiles = npt.NDArray[Any]
Baseline = Callable[[Ids, int, Pairs], Tiles]

ONE_HOT_BYTES = 1 << 29  # of one chunk of one-hot rows; float32 counts to 2^24


def with_bincount(experts: Ids, E: int, pairs: Pairs) -> Tiles:
    # One contiguous layer each, made once: indexing the trace anew for each pair is slower.
    layers = np.ascontiguousarray(experts.transpose(1, 0, 2)).astype(np.int32)
    tiles = np.empty((len(pairs), E * E), np.int64)
    for place, (src, dst) in enumerate(pairs):
        cells = layers[src][:, :, None] * E + layers[dst][:, None, :]
        tiles[place] = np.bincount(cells.ravel(), minlength=E * E)
    return tiles.reshape(-1, E, E)


def with_numpy_one_hot(experts: Ids, E: int, pairs: Pairs) -> Tiles:
    T, L, _ = experts.shape
    total = np.zeros((L * E, L * E), np.float32)
    offsets = (np.arange(L) * E)[None, :, None]
    rows = _chunk_rows(L * E)
    for first in range(0, T, rows):
        columns = (experts[first : first + rows] + offsets).reshape(-1, L * experts.shape[2])
        one_hot = np.zeros((len(columns), L * E), np.float32)
        np.put_along_axis(one_hot, columns, 1, axis=1)
        total += one_hot.T @ one_hot
    return _tiles_of(total, E, pairs)


def with_torch_one_hot(experts: Ids, E: int, pairs: Pairs) -> Tiles:
    import torch

    torch.set_num_threads(choose_threads(None))
    L = experts.shape[1]
    total = torch.zeros(L * E, L * E)
    offsets = torch.arange(L)[:, None] * E
    for chunk in torch.from_numpy(experts).split(_chunk_rows(L * E)):
        one_hot = torch.zeros(len(chunk), L * E)
        one_hot.scatter_(1, (chunk.long() + offsets).flatten(1), 1.0)
        total.addmm_(one_hot.T, one_hot)
    return _tiles_of(total.numpy(), E, pairs)


def with_scipy(experts: Ids, E: int, pairs: Pairs) -> Tiles:
    from scipy import sparse

    T, L, K = experts.shape
    offsets = (np.arange(L, dtype=np.int32) * E)[None, :, None]
    total: Any = 0
    for first in range(0, T, 20_000):
        columns = (experts[first : first + 20_000] + offsets).ravel()
        starts = np.arange(0, len(columns) + 1, L * K, dtype=np.int32)
        rows = sparse.csr_array(
            (np.ones(len(columns), np.int32), columns, starts), shape=(len(starts) - 1, L * E)
        )
        total = total + rows.T.tocsr() @ rows
    return np.stack([total[s * E : (s + 1) * E, d * E : (d + 1) * E].toarray() for s, d in pairs])


def with_numba(experts: Ids, E: int, pairs: Pairs) -> Tiles:
    sources, targets = np.array(pairs).T
    return _numba_kernel()(experts, E, sources, targets)


@cache
def _numba_kernel() -> Callable[..., Tiles]:
    import numba

    numba.set_num_threads(choose_threads(None))

    @numba.njit(parallel=True, boundscheck=False)
    def kernel(experts: Ids, E: int, sources: Ids, targets: Ids) -> Tiles:
        T, L, K = experts.shape
        layers = np.empty((L, T, K), np.uint8)
        for block in numba.prange((T + 255) // 256):
            for t in range(block * 256, min(T, block * 256 + 256)):
                for layer in range(L):
                    for k in range(K):
                        layers[layer, t, k] = experts[t, layer, k]
        tiles = np.zeros((len(sources), E, E), np.uint32)
        for p in numba.prange(len(sources)):
            tile = np.zeros((E, E), np.uint32)  # private, so that it stays in a cache
            src, dst = sources[p], targets[p]
            for t in range(T):
                for i in range(K):
                    e = layers[src, t, i]
                    for j in range(K):
                        tile[e, layers[dst, t, j]] += np.uint32(1)
            tiles[p] = tile
        return tiles

    made: Callable[..., Tiles] = kernel
    return made


def with_polars(experts: Ids, E: int, pairs: Pairs) -> Tiles:
    import polars as pl

    def count(src: Ids, dst: Ids) -> tuple[Any, Any, Any]:
        counted = pl.DataFrame({"e": src, "f": dst}).group_by(["e", "f"]).len()
        return counted["e"].to_numpy(), counted["f"].to_numpy(), counted["len"].to_numpy()

    return _grouped(experts, E, pairs, count)


def with_pandas(experts: Ids, E: int, pairs: Pairs) -> Tiles:
    import pandas as pd

    def count(src: Ids, dst: Ids) -> tuple[Any, Any, Any]:
        counted = pd.DataFrame({"e": src, "f": dst}).groupby(["e", "f"]).size()
        return (
            counted.index.get_level_values(0).to_numpy(),
            counted.index.get_level_values(1).to_numpy(),
            counted.to_numpy(),
        )

    return _grouped(experts, E, pairs, count)


def with_duckdb(experts: Ids, E: int, pairs: Pairs) -> Tiles:
    import duckdb
    import pyarrow as pa

    connection = duckdb.connect()
    connection.execute(f"set threads = {choose_threads(None)}")

    def count(src: Ids, dst: Ids) -> tuple[Any, Any, Any]:
        connection.register("slots", pa.table({"e": src, "f": dst}))
        counted = connection.execute(
            "select e, f, count(*) as n from slots group by e, f"
        ).fetchnumpy()
        return counted["e"], counted["f"], counted["n"]

    return _grouped(experts, E, pairs, count)


def _grouped(
    experts: Ids, E: int, pairs: Pairs, count: Callable[[Ids, Ids], tuple[Any, Any, Any]]
) -> Tiles:
    """A group-by per pair of layers, over one row per pair of slots."""
    K = experts.shape[2]
    tiles = np.zeros((len(pairs), E, E), np.int64)
    for place, (src, dst) in enumerate(pairs):
        sources: Any = np.repeat(experts[:, src], K, axis=1).ravel()
        targets: Any = np.tile(experts[:, dst], (1, K)).ravel()
        e, f, n = count(sources, targets)
        tiles[place, e, f] = n
    return tiles


def _chunk_rows(columns: int) -> int:
    return max(256, min(8192, ONE_HOT_BYTES // (columns * 4)))


def _tiles_of(total: npt.NDArray[np.float32], E: int, pairs: Pairs) -> Tiles:
    table = total.reshape(len(total) // E, E, -1, E)
    return np.stack([table[src, :, dst] for src, dst in pairs]).astype(np.int64)


BASELINES: dict[str, Baseline] = {
    "numba prange": with_numba,
    "numpy.bincount": with_bincount,
    "numpy one-hot matmul": with_numpy_one_hot,
    "torch one-hot matmul": with_torch_one_hot,
    "scipy.sparse CSR.T @ CSR": with_scipy,
    "polars group-by": with_polars,
    "pandas group-by": with_pandas,
    "duckdb group-by": with_duckdb,
}
