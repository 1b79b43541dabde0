"""How often later gates were right on earlier hidden states, summed per prompt group."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.counts._plan import layer_pairs, pair_layers
from routestats.result import Result
from routestats.schema import LOOKAHEAD_VARIANTS, RoutingBatch
from routestats.shape import RouteShape
from routestats.stats._base.checks import check_flag, check_order, check_trace
from routestats.stats._predictors.hits import Hits, Tally
from routestats.stats._predictors.measure import TOP1
from routestats.stats._predictors.table import LOOKAHEAD, PREDICTORS
from routestats.trace import Trace

NAMES = dict(zip(LOOKAHEAD_VARIANTS, LOOKAHEAD, strict=True))
BATCH_ROWS = 2048


@dataclass(frozen=True, slots=True, eq=False)
class LookaheadHits(Result):
    """Hits of lookahead, summed per prompt group, in the layout of the other predictors' hits.

    Attributes
    ----------
    tally : Tally
        Of the same trace; its measures are those that enough ranks were kept for.
    hits : dict of ndarray of int64, shape [m, G, P]
        Of ``lookahead`` and ``lookahead_renormed``, for the P = L * (L - 1) / 2 layer pairs by hop,
        then by source; 0 for pairs that were not captured.
    captured : ndarray of bool, shape [P]
        The pairs that were captured.
    shape : RouteShape
    """

    tally: Tally
    hits: dict[str, Hits]
    captured: npt.NDArray[np.bool_]
    shape: RouteShape

    def to_table(self) -> pa.Table:
        """One row per captured layer pair: source, target and hits of each predictor's measures."""
        source, target = (part[self.captured] for part in pair_layers(self.shape.num_layers))
        columns: dict[str, npt.NDArray[Any]] = {"source": source, "target": target}
        for predictor, hits in self.hits.items():
            for measure, found in zip(self.tally.measures, hits, strict=True):
                of_pairs = found.sum(axis=0)[self.captured]
                columns[f"{predictor}_{measure.name}_hits"] = of_pairs
        return pa.table(columns)

    def summary(self) -> str:
        """Shares of every measure, means over the captured pairs."""
        tokens = int(self.tally.tokens.sum())
        lines = [
            f"hits of later gates, {self.shape}: {tokens:,} tokens of {len(self.tally.tokens):,} "
            f"prompt groups; means over {int(self.captured.sum())} layer pairs"
        ]
        for predictor, hits in self.hits.items():
            shares = []
            for measure, found in zip(self.tally.measures, hits, strict=True):
                of_pairs = found.sum(axis=0)[self.captured]
                share = of_pairs.mean() / (tokens * measure.most(self.shape.top_k))
                shares.append(f"{measure.label} {share:.1%}")
            lines.append(f"  {PREDICTORS[predictor].label}: {', '.join(shares)}")
        return "\n".join(lines)


def lookahead_hits(trace: Trace, *, top1: bool = True) -> LookaheadHits:
    """Hits of what was captured, in one pass over the trace in batches.

    Raises
    ------
    InvalidTypeError
        If `trace` is none.
    InvalidValueError
        If the trace has no lookahead, or its order is not known and first choices are needed.
    """
    check_trace(trace)
    top1 = check_flag("top1", top1)
    batches = trace.iter_lookahead(BATCH_ROWS, ["experts", "lookahead"])
    layout = trace.lookahead
    assert layout is not None
    if top1:
        check_order(trace, "top-1 accuracy")
    shape = trace.shape
    tally = _kept(Tally.of(trace, top1=top1), layout.ranks)
    held = layout.pairs(shape.num_layers)
    target = np.array([dst for _, dst in held])
    place = {pair: number for number, pair in enumerate(layer_pairs(shape.num_layers))}
    columns = [place[pair] for pair in held]
    extents = (len(tally.measures), len(tally.tokens), len(place))
    hits = {NAMES[variant]: np.zeros(extents, np.int64) for variant in layout.variants}
    row = 0
    for batch in batches:
        groups = tally.group_of[row : row + len(batch)].astype(np.intp)
        row += len(batch)
        for index, variant in enumerate(layout.variants):
            measured = _measured(batch, index, target, tally, top1=top1)
            into = hits[NAMES[variant]]
            for group in np.unique(groups):
                mine = groups == group
                into[:, group, columns] += measured[:, mine].sum(axis=1, dtype=np.int64)
    captured = np.zeros(len(place), np.bool_)
    captured[columns] = True
    return LookaheadHits(tally, hits, captured, shape)


def _kept(tally: Tally, ranks: int) -> Tally:
    """The tally without recalls at more experts than were kept."""
    kept = (m for m in tally.measures if m.size is None or m.size <= ranks)
    return replace(tally, measures=tuple(kept))


def _measured(
    batch: RoutingBatch, variant: int, target: npt.NDArray[np.intp], tally: Tally, *, top1: bool
) -> npt.NDArray[np.uint8]:
    """Hits [m, t, pairs] of every row and captured pair."""
    assert batch.lookahead is not None
    guessed = batch.lookahead[:, variant]  # [t, pairs, M]
    chosen = batch.experts[:, target]  # [t, pairs, K]
    return _score(guessed, chosen, tally.sizes, top1=top1)


def _score(
    guessed: npt.NDArray[np.integer],
    chosen: npt.NDArray[np.integer],
    sizes: tuple[int, ...],
    *,
    top1: bool,
) -> npt.NDArray[np.uint8]:
    """Hits [m, ...] of guesses [..., M], best first, on choices [..., K]."""
    size = chosen.shape[-1]
    found = np.zeros(guessed.shape, np.uint8)
    for slot in range(size):
        found |= guessed == chosen[..., slot : slot + 1]
    recalls = [found[..., :m].sum(axis=-1, dtype=np.uint8) for m in sizes]
    first = [(guessed[..., 0] == chosen[..., 0]).astype(np.uint8)] * top1
    exact = (recalls[0] == size).astype(np.uint8)
    return np.stack([*first, *recalls, exact])


def marginal_hits(trace: Trace, tally: Tally, load: npt.NDArray[np.uint64]) -> Hits:
    """Hits [m, G, L - 1] of the experts used most at each target layer."""
    top1 = TOP1 in tally.measures
    best = np.argsort(-load.astype(np.float64), axis=1, kind="stable")[1:, : max(tally.sizes)]
    hits = np.zeros((len(tally.measures), len(tally.tokens), len(best)), np.int64)
    row = 0
    for experts in trace.iter_experts(rows=65_536):
        groups = tally.group_of[row : row + len(experts)].astype(np.intp)
        row += len(experts)
        guessed = np.broadcast_to(best, (len(experts), *best.shape))
        measured = _score(guessed, experts[:, 1:], tally.sizes, top1=top1)
        for group in np.unique(groups):
            hits[:, group] += measured[:, groups == group].sum(axis=1, dtype=np.int64)
    return hits
