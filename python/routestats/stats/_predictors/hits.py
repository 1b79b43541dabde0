"""Hits of the predictors, summed per prompt group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from routestats.counts import RouteCounts, rank_hits
from routestats.counts._plan import pair_layers
from routestats.stats._base.checks import check_ids
from routestats.stats._base.units import Units
from routestats.stats._predictors.measure import EXACT, TOP1, Measure
from routestats.stats._predictors.scores import ScoreTables, marginal_scores, single_hop_scores
from routestats.trace import Trace

BATCH_ROWS = 65_536

Hits = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """What is measured, and for which prompt groups.

    Attributes
    ----------
    measures : tuple of Measure, length m
        Top-1 accuracy (unless left out), recalls, exact set.
    group_of : ndarray of uint32, shape [T]
        Group (0..G-1) of each test token.
    tokens : ndarray of int64, shape [G]
        Test tokens of each group.
    strata : ndarray of intp, shape [G]
        Domain of each group: see `Units.whole`.
    """

    measures: tuple[Measure, ...]
    group_of: npt.NDArray[np.uint32]
    tokens: npt.NDArray[np.int64]
    strata: npt.NDArray[np.intp]

    @classmethod
    def of(cls, test: Trace, *, top1: bool) -> Tally:
        size, experts = test.shape.top_k, test.shape.num_experts
        sizes = tuple(m for m in (size, 2 * size, 4 * size) if m == size or m < experts)
        recalls = map(Measure.recall, sizes)
        units = Units.whole(test)
        return cls(
            measures=(*[TOP1] * top1, *recalls, EXACT),
            group_of=units.of_row.astype(np.uint32),
            tokens=units.tokens,
            strata=units.domain,
        )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(measure.name for measure in self.measures)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The M of the recalls."""
        return tuple(measure.size for measure in self.measures if measure.size is not None)

    def hits(
        self,
        scores: ScoreTables,
        rows: npt.NDArray[np.integer],
        chosen: npt.NDArray[np.integer],
        group_of: npt.NDArray[np.integer],
    ) -> Hits:
        """Hits [m, G, P] of tokens of the groups `group_of`; see `routestats.counts.rank_hits`."""
        hits = rank_hits(
            scores.tables,
            scores.base,
            rows,
            chosen,
            group_of,
            best=self.sizes,
            num_groups=len(self.tokens),
        )
        # The core always measures the first choice; it means nothing where the order is unknown.
        return hits.transpose(2, 1, 0)[2 + len(self.sizes) - len(self.measures) :]


def hop_hits(fitted: RouteCounts, test: Trace, tally: Tally) -> tuple[Hits, Hits]:
    """One pass over `test` in batches; scratch memory does not grow with its length.

    Returns
    -------
    single_hop : ndarray of int64, shape [m, G, P]
        Hits of the P = L * (L - 1) / 2 layer pairs, by hop, then by source.
    marginal : ndarray of int64, shape [m, G, L - 1]
        Hits at target layers 1..L-1.

    Raises
    ------
    InvalidValueError
        If an id of `test` is not below E, or a row has an expert twice in one layer.
    """
    shape = test.shape
    layers = shape.num_layers
    measures, groups = len(tally.measures), len(tally.tokens)
    sources, _ = pair_layers(layers)
    single_hop = np.zeros((measures, groups, len(sources)), dtype=np.int64)
    marginal = np.zeros((measures, groups, layers - 1), dtype=np.int64)
    slots = shape.top_k if fitted.pairing == "any" else 1
    marginal_tables = marginal_scores(fitted)
    first_row = 0
    for batch in test.iter_experts(rows=BATCH_ROWS):
        check_ids("test.experts", batch, shape.num_experts, distinct=True, first_row=first_row)
        group_of = tally.group_of[first_row : first_row + len(batch)]
        first_row += len(batch)
        order = np.argsort(group_of, kind="stable")
        group_of = group_of[order]
        chosen = layer_major(batch[order])
        no_rows = np.empty((1, len(batch), 0), dtype=np.uint32)
        marginal += tally.hits(marginal_tables, no_rows, chosen[1:], group_of)
        for src in range(layers - 1):
            columns = np.flatnonzero(sources == src)  # targets ascending, as the hops are
            rows = chosen[src : src + 1, :, :slots]
            scores = single_hop_scores(fitted, src)
            single_hop[:, :, columns] += tally.hits(scores, rows, chosen[src + 1 :], group_of)
    return single_hop, marginal


def layer_major(experts: npt.NDArray[np.integer]) -> npt.NDArray[np.uint16]:
    """Experts [T, L, K] as [L, T, K], in which one layer is one run of memory."""
    return np.ascontiguousarray(experts.transpose(1, 0, 2), dtype=np.uint16)
