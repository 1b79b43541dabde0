"""The newest rows of a run, and sliding counts of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from routestats.shape import RouteShape
from routestats.trace.feed import row_dtype

Rows = npt.NDArray[np.void]
Ints = npt.NDArray[np.int64]


class RoutingWindow:
    """The last `size` rows, in memory that is allocated once.

    Parameters
    ----------
    shape : RouteShape
    size : int
        Rows held.

    Attributes
    ----------
    load : ndarray of int64, shape [L, E]
        Rows of the window in which the expert is among the K (pairing ``any``).
    seen : int
        Rows ever added.
    """

    def __init__(self, shape: RouteShape, size: int) -> None:
        self.shape = shape
        self.size = size
        self.load = np.zeros((shape.num_layers, shape.num_experts), np.int64)
        self.seen = 0
        self._rows = np.zeros(size, row_dtype(shape))
        self._held = self._next = 0

    def __len__(self) -> int:
        return self._held

    def add(self, rows: Rows) -> None:
        """Add `rows`, and forget the oldest rows that no longer fit."""
        self.seen += len(rows)
        rows = rows[-self.size :]
        before_end = self.size - self._next
        for part in (rows[:before_end], rows[before_end:]):
            there = self._rows[self._next : self._next + len(part)]
            if self._held == self.size:  # until then the places ahead are empty
                self.load -= self._count(there)
            there[:] = part
            self.load += self._count(part)
            self._held = min(self._held + len(part), self.size)
            self._next = (self._next + len(part)) % self.size

    def _count(self, rows: Rows) -> Ints:
        layers, experts = self.load.shape
        ids = rows["experts"].reshape(len(rows), layers, self.shape.top_k)
        codes = ids + np.arange(layers, dtype=np.int64)[:, None] * experts
        return np.bincount(codes.ravel(), minlength=layers * experts).reshape(layers, experts)

    def rows(self, count: int | None = None) -> Rows:
        """The last `count` rows, oldest first; by default all."""
        return self._rows[self._places(count)]

    def first_choices(self) -> Ints:
        """First choices of all rows, oldest first, shape [n, L]."""
        return self._rows["experts"][:, :, 0][self._places(None)].astype(np.int64)

    def _places(self, count: int | None) -> Ints:
        count = self._held if count is None else min(count, self._held)
        return (self._next - count + np.arange(count)) % self.size
