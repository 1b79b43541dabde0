"""Information of permuted tokens: what is left when the layers of a token are parted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add

import numpy as np
import numpy.typing as npt

from routestats.counts import GroupedRows, RouteCounts, recount
from routestats.stats._base.estimate import Floats
from routestats.stats._information.without_groups import (
    cell_sums,
    information,
    information_without_groups,
)

# Rows whose permutations are held at once, 4 bytes per row and layer. Of a longer trace an eighth
# is held, because every part costs one check of all ids.
HELD_ROWS = 262_144


@dataclass(frozen=True, slots=True, eq=False)
class Null:
    """Information of layer pairs under a null.

    Attributes
    ----------
    draws : ndarray, shape [D, P]
        In bits, of each draw.
    without : ndarray of shape [G, P], or None
        Mean over draws of the same without each prompt group; None where that is not known.
    """

    draws: Floats
    without: Floats | None = None

    @property
    def mean(self) -> Floats:
        """[P]; NaN without draws."""
        if len(self.draws) == 0:
            return np.full(self.draws.shape[1], np.nan)
        mean: Floats = self.draws.mean(axis=0)
        return mean

    def p(self, value: Floats, weights: Floats | None = None) -> Floats:
        """Share of draws, `value` among them, that reach `value`: ``(1 + b) / (1 + D)``.

        With `weights` [W, P], of the W sums that they take over pairs.
        """
        draws = self.draws if weights is None else self.draws @ weights.T
        if len(draws) == 0:
            return np.full(value.shape, np.nan)
        # Sums in another order must not part what is equal.
        reached = (draws >= value - 1e-12).sum(axis=0)
        p: Floats = (1 + reached) / (1 + len(draws))
        return p


@dataclass(frozen=True, slots=True, eq=False)
class Permutable:
    """A trace's ids, and how their permutations are counted.

    Attributes
    ----------
    experts : integer array, shape [T, L, K]
    counts : RouteCounts
        Of the trace as it is; they name the pairing and the hops.
    order : integer array, shape [T]
        All rows in an order that does not depend on the trace's; draws follow it.
    seed : int
    """

    experts: npt.NDArray[np.integer]
    counts: RouteCounts
    order: npt.NDArray[np.integer]
    seed: int

    @property
    def _pairs(self) -> int:
        return sum(self.counts.shape.num_layers - hop for hop in self.counts.hops)

    def no_draws(self) -> Null:
        """A null of which nothing is known."""
        return Null(np.empty((0, self._pairs)))

    def within_requests(
        self, groups: npt.NDArray[np.integer], requests: npt.NDArray[np.integer], draws: int
    ) -> Null:
        """Tokens permuted within their request, anew for each layer.

        Requests lie within prompt groups, so that the draws without a group are draws of the null
        without it, and the jackknife of the null is exact.
        """
        if draws == 0:
            return self.no_draws()
        by_group = GroupedRows.of(groups)
        by_request = GroupedRows.of(groups * (np.int64(requests.max()) + 1) + requests, self.order)
        # The same rows, so sorted that requests lie side by side within their group.
        by_group = GroupedRows(by_request.rows, by_group.starts)
        parts = list(by_group.parts(self._part_rows()))
        ends = np.cumsum([0] + [len(part.rows) for part in parts])
        requests_end = np.searchsorted(by_request.starts, ends)
        shuffles = [by_request.part(int(a), int(b)) for a, b in pairwise(requests_end)]
        found: list[Floats] = []
        without = np.zeros((len(by_group), self._pairs))
        for draw in range(draws):
            held = [] if len(parts) > 1 else [self._shuffled(shuffles[0], 2 * draw)]
            counts = self._count(held or (self._shuffled(s, 2 * draw) for s in shuffles))
            sums = cell_sums(counts)
            found.append(information(counts, sums))
            # Drawn again, not kept, where there are several parts.
            for part, shuffle in zip(parts, shuffles, strict=True):
                order = held[0] if held else self._shuffled(shuffle, 2 * draw)
                rows = slice(part.first_group, part.first_group + len(part))
                without[rows] += information_without_groups(self.experts, counts, sums, part, order)
        return Null(np.stack(found), without / draws)

    def within_token_ids(self, token_ids: npt.NDArray[np.integer], draws: int) -> Null:
        """Tokens permuted among equal token ids over the whole trace, anew for each layer."""
        if draws == 0:
            return self.no_draws()
        by_id = GroupedRows.of(token_ids, self.order)
        found = []
        for draw in range(draws):
            counts = self._count(
                self._shuffled(part, 2 * draw + 1) for part in by_id.parts(self._part_rows())
            )
            found.append(information(counts, cell_sums(counts)))
        return Null(np.stack(found))

    def _part_rows(self) -> int:
        return max(HELD_ROWS, len(self.experts) // 8)

    def _shuffled(self, groups: GroupedRows, stream: int) -> npt.NDArray[np.uint32]:
        return groups.shuffled(self.counts.shape.num_layers, seed=self.seed, stream=stream)

    def _count(self, orders: Iterable[npt.NDArray[np.uint32]]) -> RouteCounts:
        return reduce(
            add,
            (
                recount(
                    self.experts,
                    order,
                    num_experts=self.counts.shape.num_experts,
                    hops=self.counts.hops,
                    pairing=self.counts.pairing,
                )
                for order in orders
            ),
        )
