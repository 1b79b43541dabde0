"""Rows in groups: permuted within them, and counts without each of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from routestats import _core
from routestats.counts._route_counts import RouteCounts
from routestats.counts.device.choice import choose_threads
from routestats.errors import InvalidTypeError, InvalidValueError

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.uint32]
Starts = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class GroupedRows:
    """Rows of a trace, sorted by group; made by `of`.

    Attributes
    ----------
    rows : ndarray of uint32, shape [T]
        Rows of each group side by side.
    starts : ndarray of uint64, shape [G + 1]
        Group g is ``rows[starts[g]:starts[g + 1]]``.
    first_group : int
        Number of the first group; not 0 for a part of others.
    """

    rows: Rows
    starts: Starts
    first_group: int = 0

    @classmethod
    def of(
        cls, codes: npt.NDArray[np.integer[Any]], order: npt.NDArray[np.integer[Any]] | None = None
    ) -> GroupedRows:
        """Groups of equal `codes` [T], in ascending order of the codes.

        The rows of a group stand as in `order` [T], a permutation of all rows; by default as in the
        trace.

        Raises
        ------
        InvalidValueError
            If there are more than 2**32 rows.
        """
        if len(codes) > 2**32:
            raise InvalidValueError(f"rows: expected at most 2**32, got {len(codes)}")
        if order is None:
            order = np.arange(len(codes))
        order = order[np.argsort(codes[order], kind="stable")]
        in_order = codes[order]
        first = np.flatnonzero(np.r_[True, in_order[1:] != in_order[:-1]])[: len(codes)]
        starts = np.r_[first, len(codes)].astype(np.uint64)
        return cls(order.astype(np.uint32), starts)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Rows of each group, shape [G]."""
        return np.diff(self.starts.astype(np.int64))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def part(self, first: int, last: int) -> GroupedRows:
        """Groups `first` to ``last - 1``, which keep their numbers."""
        begin, end = self.starts[first], self.starts[last]
        return GroupedRows(
            self.rows[int(begin) : int(end)],
            self.starts[first : last + 1] - begin,
            self.first_group + first,
        )

    def parts(self, rows: int) -> Iterator[GroupedRows]:
        """The groups in runs of at most `rows` rows, or of one group that has more."""
        first = 0
        while first < len(self):
            limit = int(self.starts[first]) + rows
            last = int(np.searchsorted(self.starts, limit, side="right")) - 1
            last = min(max(last, first + 1), len(self))
            yield self.part(first, last)
            first = last

    def shuffled(
        self, num_layers: int, *, seed: int, stream: int, threads: int | None = None
    ) -> Rows:
        """The rows permuted within each group, evenly at random and anew for each layer.

        Parameters
        ----------
        num_layers : int
        seed, stream : int, 0 to 2**64 - 1
            A group's permutations follow from them, the layer and the group's number alone:
            `parts` have those of the whole. `counts.reference.groups` states the generator.
        threads : int, optional
            By default one for each CPU that this process may use.

        Returns
        -------
        ndarray of uint32, shape [L, T]
            As `recount` takes them.

        Raises
        ------
        InvalidTypeError, InvalidValueError
            If `seed` or `stream` is no such integer.
        """
        for name, value in (("seed", seed), ("stream", stream)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise InvalidTypeError(f"{name}: expected an integer, got {value!r}")
            if not 0 <= value < 2**64:
                raise InvalidValueError(f"{name}: expected 0 to 2**64 - 1, got {value}")
        orders = np.empty((num_layers, len(self.rows)), np.uint32)
        _core.shuffle_rows(
            rows=self.rows,
            starts=self.starts,
            seed=int(seed),
            stream=int(stream),
            first_group=self.first_group,
            orders=orders,
            threads=choose_threads(threads),
        )
        return orders


def sum_changes_without_groups(
    experts: npt.NDArray[np.integer[Any]],
    counts: RouteCounts,
    grouped: GroupedRows,
    row_order: Rows | None = None,
    *,
    threads: int | None = None,
) -> tuple[Floats, Floats]:
    """What the sums of n log2 n over cells change by when a group's rows are taken out.

    With them every entropy and information of the counts without each group is known, for one
    count of the rows and not one for every group.

    Parameters
    ----------
    experts : integer array, shape [T, L, K]
    counts : RouteCounts
        Of the rows of all groups, and maybe more.
    grouped : GroupedRows
    row_order : ndarray of uint32, shape [L, n], optional
        Stands for ``grouped.rows`` at each layer, as `GroupedRows.shuffled` gives it.
    threads : int, optional
        By default one for each CPU that this process may use.

    Returns
    -------
    pairs : ndarray of float64, shape [G, P]
        Over the table of each layer pair, by hop and then by source layer.
    layers : ndarray of float64, shape [G, L]
        Over the margin of any table of the layer, which is K times the counts of its experts for
        ``any`` and these counts for ``top1``.
    """
    pairs = np.empty((len(grouped), len(counts._plan.pairs)))
    layers = np.empty((len(grouped), counts.shape.num_layers))
    _core.sum_changes_without_groups(
        experts,
        num_experts=counts.shape.num_experts,
        counted_slots=1 if counts.pairing == "top1" else counts.shape.top_k,
        layer_pairs=counts._plan.pairs,
        rows=grouped.rows if row_order is None else row_order,
        starts=grouped.starts,
        expert=counts._expert,
        pairs=counts._pairs,
        pair_changes=pairs,
        layer_changes=layers,
        threads=choose_threads(threads),
    )
    return pairs, layers
