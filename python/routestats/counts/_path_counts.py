"""`count_paths`: how often tokens take each path through the layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats import _core
from routestats.arguments import check_choice, check_integer
from routestats.counts._source import Chunks, Source, open_source
from routestats.counts.device.choice import choose_device, choose_threads
from routestats.counts.device.counts import count_paths_on_cuda
from routestats.counts.device.paths import fill_table
from routestats.errors import InvalidValueError
from routestats.result import Result
from routestats.shape import RouteShape

PathKind = Literal["top1", "set"]
Ids = npt.NDArray[Any]  # uint8 or uint16
Numbers = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class PathCounts(Result):
    """Exact counts of paths through a window of layers; made by `count_paths`.

    All distinct paths are kept, in C++, 8 bytes and a packed key each: that is what makes sums of
    counts exact. Only the most frequent ones are unpacked into `paths`.

    Attributes
    ----------
    shape : RouteShape
        Of the trace.
    layer_ids : tuple of int, length L
        Decoder-layer number of each MoE layer of the trace.
    kind : {"top1", "set"}
        Whether a path is made of first choices or of sets of choices.
    start, length : int
        The window: layers ``start`` to ``start + length - 1``.
    tokens : int
    distinct : int
        Number of distinct paths.
    top : int
        How many of the most frequent paths were asked for.
    paths : ndarray of uint8 or uint16, shape [N, length] or [N, length, K]
        The N most frequent paths, N = min(top, distinct), from the most frequent on; sets in
        ascending order. Of equally frequent paths the lexicographically smallest comes first.
    counts : ndarray of uint64, shape [N]
        Tokens on each of `paths`.
    device : {"cpu", "cuda"}
        Where they were counted; of a sum, where the last of its tokens were.
    """

    shape: RouteShape
    layer_ids: tuple[int, ...]
    kind: PathKind
    start: int
    length: int
    tokens: int
    distinct: int
    top: int
    paths: Ids
    counts: Numbers
    device: str
    _table: _core.PathCounter = field(repr=False)

    def frequencies(self) -> tuple[Numbers, Numbers]:
        """The counts that occur, from the largest on, and how many paths have each.

        Returns
        -------
        counts, paths : ndarray of uint64
            ``paths.sum()`` is `distinct`, ``(counts * paths).sum()`` is `tokens`.
        """
        return self._table.frequencies()

    def coverage_curve(self) -> tuple[Numbers, Numbers]:
        """Tokens on the N most frequent paths, exactly, at the corners of the curve over N.

        Returns
        -------
        paths, tokens : ndarray of uint64
            From (0, 0) to (`distinct`, `tokens`). Between two corners all paths have the same
            count, so the curve is a straight line there and `numpy.interp` is exact for every N.
        """
        counts, paths = self.frequencies()
        zero = np.zeros(1, np.uint64)
        return (
            np.concatenate((zero, np.cumsum(paths, dtype=np.uint64))),
            np.concatenate((zero, np.cumsum(counts * paths, dtype=np.uint64))),
        )

    def coverage(self, n: int) -> float:
        """Share of tokens on the `n` most frequent paths, 0 to 1; NaN without tokens.

        Raises
        ------
        InvalidTypeError, InvalidValueError
            If `n` is no integer, or negative.
        """
        n = check_integer("n", n, 0)
        if self.tokens == 0:
            return float("nan")
        paths, tokens = self.coverage_curve()
        corner = int(np.searchsorted(paths, np.uint64(min(n, self.distinct)), side="right")) - 1
        covered = int(tokens[corner])
        if corner + 1 < len(paths):
            each = int(tokens[corner + 1] - tokens[corner]) // int(
                paths[corner + 1] - paths[corner]
            )
            covered += (n - int(paths[corner])) * each
        return covered / self.tokens

    def most_frequent(self, n: int) -> tuple[Ids, Numbers]:
        """`paths` and `counts` of the `n` most frequent paths, or all that there are.

        Raises
        ------
        InvalidValueError
            If `n` is negative.
        """
        return _most_frequent(self._table, n, self.kind, self.shape)

    def __add__(self, other: object) -> PathCounts:
        """Counts of both, as if their tokens had been counted together.

        Raises
        ------
        InvalidValueError
            If the shape, layer numbers, kind or window differ.
        """
        if not isinstance(other, PathCounts):
            return NotImplemented
        for name in ("shape", "layer_ids", "kind", "start", "length"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise InvalidValueError(f"{name}: expected {mine} as in the sum, got {theirs}")
        table = new_table(self.shape, self.kind, self.start, self.length)
        threads = choose_threads(None)
        table.merge(self._table, threads=threads)
        table.merge(other._table, threads=threads)
        return finish_paths(
            table,
            self.shape,
            self.layer_ids,
            self.kind,
            self.start,
            self.length,
            max(self.top, other.top),
            device=other.device,
        )

    def to_table(self) -> pa.Table:
        """One row per listed path: rank, path (ids, layer by layer), tokens, share."""
        width = int(np.prod(self.paths.shape[1:]))
        return pa.table(
            {
                "rank": np.arange(1, len(self.paths) + 1),
                "path": pa.FixedSizeListArray.from_arrays(pa.array(self.paths.ravel()), width),
                "tokens": self.counts,
                "share": self.counts / self.tokens if self.tokens else np.zeros(0),
            }
        )

    def summary(self, rows: int = 5) -> str:
        """What was counted, how concentrated it is, and the first paths."""
        last = self.start + self.length - 1
        lines = [
            f"{self.kind} paths over layers {self.layer_ids[self.start]} to "
            f"{self.layer_ids[last]}: {self.tokens:,} tokens on {self.distinct:,} distinct paths"
        ]
        if self.tokens:
            shares = (f"{self.coverage(n):.1%} on the top {n}" for n in (1, 10, 100, 1000))
            lines.append("  tokens: " + ", ".join(shares))
        rows = check_integer("rows", rows, 0)
        for path, count in zip(self.paths[:rows], self.counts, strict=False):
            lines.append(f"  {count:>10,}  {path_text(path)}")
        return "\n".join(lines)


def path_text(path: Ids) -> str:
    """A path in one line: ids by layer, those of a set joined by commas."""
    return " ".join(
        str(layer) if np.ndim(layer) == 0 else ",".join(str(e) for e in layer)
        for layer in path.tolist()
    )


def count_paths(
    source: Source,
    kind: str = "top1",
    start: int = 0,
    length: int | None = None,
    top: int = 100,
    num_experts: int | None = None,
    threads: int | None = None,
    device: str = "auto",
) -> PathCounts:
    """Count the distinct paths of tokens through a window of layers, exactly.

    Parameters
    ----------
    source : Trace, RoutingBatch or array of integers, shape [T, L, K]
        A trace is read chunk by chunk. Memory holds the distinct paths, not the trace.
    kind : {"top1", "set"}
        A path of first choices (slot 0 of each layer), or of sets of K choices, in which the order
        within a layer does not matter.
    start : int
        First layer of the window, 0..L-1.
    length : int, optional
        Layers of the window; by default all from `start` on.
    top : int
        How many of the most frequent paths to list; at least 0.
    num_experts : int, optional
        Experts E per layer; needed unless `source` is a trace.
    threads : int, optional
        Of the CPU; by default one for each CPU that this process may use.
    device : {"auto", "cpu", "cuda"}
        ``auto`` counts where the data are: an array in a CUDA device's memory (torch, CuPy,
        whatever has ``__cuda_array_interface__``) there, everything else on the CPU. The result's
        ``device`` says where that was, and is all that differs. ``cuda`` has not run on a GPU yet.

    Returns
    -------
    PathCounts

    Raises
    ------
    InvalidTypeError
        If an array holds no integers, a number is no integer, `num_experts` is missing, or `device`
        is ``cpu`` and the array lies in a device's memory.
    InvalidValueError
        If an id is not below E (the first one found is named), a layer of a set path names an
        expert twice, the window or the kind does not exist, or the kind is ``top1`` and the trace
        does not know the order of its slots.
    DeviceUnavailableError
        If the device is not there.

    Examples
    --------
    >>> counts = count_paths(np.array([[[0, 1], [2, 0]], [[1, 0], [2, 3]]]), num_experts=4)
    >>> counts.paths.tolist(), counts.counts.tolist()
    ([[0, 2], [1, 2]], [1, 1])
    """
    opened = open_source(source, num_experts)
    chosen = check_kind(kind, opened)
    first, layers = check_window(start, length, opened.shape.num_layers)
    top = check_integer("top", top, 0)
    chosen_threads = choose_threads(threads)
    shape = opened.shape
    chosen_device = choose_device(device, data_on_cuda=opened.on_cuda)
    table = new_table(shape, chosen, first, layers)
    if chosen_device == "cuda":
        found = count_paths_on_cuda(opened.chunks, shape, kind=chosen, start=first, length=layers)
        fill_table(table, shape, first, *found, threads=chosen_threads)
    else:
        first_token = 0
        for experts in opened.on_host():
            table.add(experts, threads=chosen_threads, first_token=first_token)
            first_token += len(experts)
    layer_ids = opened.layer_ids or tuple(range(shape.num_layers))
    return finish_paths(table, shape, layer_ids, chosen, first, layers, top, device=chosen_device)


def check_kind(kind: str, opened: Chunks) -> PathKind:
    """Return `kind`, or raise InvalidValueError if there is none or the source cannot serve it."""
    if check_choice("kind", kind, get_args(PathKind)) == "set":
        return "set"
    if not opened.ordered:
        raise InvalidValueError(
            "kind: 'top1' needs slots in descending order of weight, but the trace does not say "
            "that they are"
        )
    return "top1"


def check_window(start: int, length: int | None, num_layers: int) -> tuple[int, int]:
    """The window of `length` layers from `start` on, by default to the last layer.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        If a number is no integer, or the window is empty or reaches beyond the layers.
    """
    first = check_integer("start", start, 0)
    if first >= num_layers:
        raise InvalidValueError(f"start: expected a layer from 0 to {num_layers - 1}, got {first}")
    most = num_layers - first
    layers = most if length is None else check_integer("length", length, 1)
    if layers > most:
        raise InvalidValueError(
            f"length: expected 1 to {most} layers from layer {first} on, got {layers}"
        )
    return first, layers


def new_table(shape: RouteShape, kind: PathKind, start: int, length: int) -> _core.PathCounter:
    return _core.PathCounter(
        kind=kind, num_experts=shape.num_experts, top_k=shape.top_k, start=start, length=length
    )


def _most_frequent(
    table: _core.PathCounter, n: int, kind: PathKind, shape: RouteShape
) -> tuple[Ids, Numbers]:
    ids, counts = table.most_frequent(check_integer("n", n, 0))
    paths = ids.astype(shape.id_dtype)
    return (paths[:, :, 0] if kind == "top1" else paths), counts


def finish_paths(
    table: _core.PathCounter,
    shape: RouteShape,
    layer_ids: tuple[int, ...],
    kind: PathKind,
    start: int,
    length: int,
    top: int,
    *,
    device: str = "cpu",
) -> PathCounts:
    paths, counts = _most_frequent(table, top, kind, shape)
    return PathCounts(
        shape=shape,
        layer_ids=layer_ids,
        kind=kind,
        start=start,
        length=length,
        tokens=table.tokens,
        distinct=table.distinct,
        top=top,
        paths=paths,
        counts=counts,
        device=device,
        _table=table,
    )
