"""`count_ngrams`: paths of every length from every start layer, in one sweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats import _core
from routestats.arguments import check_integer
from routestats.counts._path_counts import (
    Ids,
    Numbers,
    check_kind,
    check_window,
    path_text,
)
from routestats.counts._source import Source, open_source
from routestats.counts.device.choice import choose_threads
from routestats.errors import InvalidValueError
from routestats.result import Result, plain
from routestats.shape import RouteShape

MAX_LISTED_BYTES = 1 << 29
"""Of all listed n-grams together: half a gigabyte."""


@dataclass(frozen=True, slots=True, eq=False)
class NgramCounts(Result):
    """Exact counts of all n-grams of first choices; made by `count_ngrams`.

    Attributes
    ----------
    shape : RouteShape
    layer_ids : tuple of int, length L
        Decoder-layer number of each MoE layer.
    tokens : int
    top : int
        How many of the most frequent n-grams of each window are listed.
    distinct : ndarray of uint64, shape [L, L]
        At [start, n - 1] the number of distinct paths through the n layers from `start` on; 0 where
        they do not fit.
    """

    shape: RouteShape
    layer_ids: tuple[int, ...]
    tokens: int
    top: int
    distinct: Numbers
    _counts: Numbers
    _ids: npt.NDArray[np.uint16]

    def most_frequent(self, start: int, length: int) -> tuple[Ids, Numbers]:
        """The most frequent paths through `length` layers from `start` on, and their tokens.

        From the most frequent on; of equally frequent ones the lexicographically smallest first.

        Returns
        -------
        paths : ndarray of uint8 or uint16, shape [N, length]
            N = min(top, distinct).
        counts : ndarray of uint64, shape [N]

        Raises
        ------
        InvalidTypeError, InvalidValueError
            If the window does not exist.
        """
        start, length = check_window(start, length, self.shape.num_layers)
        counts = self._counts[start, length - 1]
        listed = int(np.count_nonzero(counts))
        paths = self._ids[start, length - 1, :listed, :length].astype(self.shape.id_dtype)
        return paths, counts[:listed].copy()

    def to_table(self) -> pa.Table:
        """One row per window and listed n-gram: start, length, distinct, rank, path, tokens."""
        columns: dict[str, list[object]] = {
            name: [] for name in ("start", "length", "distinct", "rank", "path", "tokens")
        }
        layers = self.shape.num_layers
        for start in range(layers):
            for length in range(1, layers - start + 1):
                paths, counts = self.most_frequent(start, length)
                columns["start"] += [start] * len(paths)
                columns["length"] += [length] * len(paths)
                columns["distinct"] += [int(self.distinct[start, length - 1])] * len(paths)
                columns["rank"] += range(1, len(paths) + 1)
                columns["path"] += paths.tolist()
                columns["tokens"] += counts.tolist()
        types = [*[pa.int64()] * 4, pa.list_(pa.int32()), pa.uint64()]
        return pa.table(
            {
                name: pa.array(values, kind)
                for (name, values), kind in zip(columns.items(), types, strict=True)
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """All values as plain Python numbers and lists, the rows of `to_table` among them."""
        return {**plain(self), "ngrams": self.to_table().to_pylist()}

    def summary(self) -> str:
        """Distinct n-grams by length, averaged over the start layers, and the commonest path."""
        layers = self.shape.num_layers
        lines = [f"n-grams of first choices: {self.tokens:,} tokens, {self.shape}"]
        for n in sorted({1, 2, 3, 4, 8, 16, layers}):
            if n <= layers:
                mean = self.distinct[: layers - n + 1, n - 1].mean()
                lines.append(f"  n = {n:<3d} {mean:>14,.1f} distinct on average over start layers")
        paths, counts = self.most_frequent(0, layers)
        if len(counts):
            lines.append(f"  most frequent full path, {counts[0]:,} tokens: {path_text(paths[0])}")
        return "\n".join(lines)


def count_ngrams(
    source: Source,
    top: int = 20,
    num_experts: int | None = None,
    threads: int | None = None,
) -> NgramCounts:
    """Count the paths of first choices of every length from every start layer, exactly.

    Parameters
    ----------
    source : Trace, RoutingBatch or array of integers, shape [T, L, K]
        Read chunk by chunk. Where a sample of the first chunk has many repeated paths, the distinct
        ones are held, else the first choices of all tokens, one byte each up to 256 experts and
        two above. While it counts, as much again, and per path and thread about 15 bytes. Fewer
        than 2^32 tokens.
    top : int
        How many of the most frequent n-grams to list for each start and length; at least 0. Memory
        is taken for no more than there can be: ``L**2 * (8 + 2 * L)`` bytes for each, of at most
        half a gigabyte.
    num_experts : int, optional
        Experts E per layer; needed unless `source` is a trace.
    threads : int, optional
        The sweep takes at most four. By default one for each CPU that this process may use.

    Returns
    -------
    NgramCounts

    Raises
    ------
    InvalidTypeError
        If an array holds no integers, a number is no integer, or `num_experts` is missing.
    InvalidValueError
        If an id is not below E (the first one is named), the trace does not know the order of its
        slots, or `top` asks for lists that take more than half a gigabyte.

    Notes
    -----
    The positional Burrows-Wheeler transform (Durbin, 2014, Bioinformatics 30(9)), from the last
    layer backwards: at each start layer the tokens are sorted by all layers from there on.
    """
    opened = open_source(source, num_experts)
    check_kind("top1", opened)
    top = check_integer("top", top, 0)
    chosen_threads = choose_threads(threads)
    shape = opened.shape
    counter = _core.NgramCounter(layers=shape.num_layers, num_experts=shape.num_experts)
    for experts in opened.on_host():
        counter.add(experts, threads=chosen_threads, first_token=counter.tokens)
    most = MAX_LISTED_BYTES // (shape.num_layers**2 * (8 + 2 * shape.num_layers))
    if min(top, counter.paths) > most:
        raise InvalidValueError(
            f"top: expected at most {most} n-grams of each start and length (half a gigabyte at "
            f"{shape.num_layers} layers), got {top}"
        )
    distinct, counts, ids = counter.count(top, threads=chosen_threads)
    layer_ids = opened.layer_ids or tuple(range(shape.num_layers))
    return NgramCounts(shape, layer_ids, counter.tokens, top, distinct, counts, ids)
