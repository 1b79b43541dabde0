"""Scores of the predictors, in fixed point so that they are exact and ties fall the same.

A score is a sum of probabilities. As floats, two scores that are equal could come out unequal in
the last bit, by the order in which they are added, and ties would fall differently from one machine
to the next. So probabilities are rounded to fixed point and the sums are integers that float64
holds exactly, in any order. The low bits hold the expert id upside down: a larger score is a better
expert, and of equal scores the lowest id wins.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from routestats.counts import RouteCounts
from routestats.shape import RouteShape

Floats = npt.NDArray[np.float64]

MAX_FRACTION_BITS = 40


class ScoreTables(NamedTuple):
    """What `routestats.counts.rank_hits` adds up, for P target layers.

    Attributes
    ----------
    tables : ndarray of float64, shape [P, R, E]
    base : ndarray of float64, shape [P, E]
    """

    tables: Floats
    base: Floats


def fraction_bits(shape: RouteShape) -> int:
    """Binary digits kept of a probability: the 53 of a float64, less the id's and the sum's."""
    id_bits = (shape.num_experts - 1).bit_length()
    return min(MAX_FRACTION_BITS, 53 - id_bits - shape.top_k.bit_length())


def _fixed_point(probabilities: Floats, shape: RouteShape) -> Floats:
    """Probabilities rounded to `fraction_bits`, shifted to leave room for the id below them."""
    id_bits = (shape.num_experts - 1).bit_length()
    return np.rint(probabilities * 2.0 ** fraction_bits(shape)) * 2.0**id_bits


def _tie_break(num_targets: int, num_experts: int) -> Floats:
    """What the id adds, [P, E]: the lowest id the most, and always less than one score unit."""
    upside_down = np.arange(num_experts - 1, -1, -1, dtype=np.float64)
    return np.tile(upside_down, (num_targets, 1))


def _load(counts: RouteCounts, layer: int) -> Floats:
    """Share of the training tokens that chose each expert of a layer, [E]."""
    share: Floats = np.asarray(counts.expert[layer], dtype=np.float64) / counts.tokens
    return share


def marginal_scores(counts: RouteCounts) -> ScoreTables:
    """Of the predictor that knows only how often each expert is used: layers 1..L-1, no rows."""
    targets, experts = counts.shape.num_layers - 1, counts.shape.num_experts
    load = np.stack([_load(counts, layer) for layer in range(1, targets + 1)])
    base = _fixed_point(load, counts.shape) + _tie_break(targets, experts)
    return ScoreTables(np.empty((targets, 0, experts)), base)


def single_hop_scores(counts: RouteCounts, src: int) -> ScoreTables:
    """Of all layers after `src`; row e is what expert e of layer `src` adds (R = E).

    An expert that was never used in training adds what the marginal predictor knows, so a token
    of such experts alone is predicted by the marginal.
    """
    shape = counts.shape
    source = np.asarray(counts.expert[src], dtype=np.float64)[:, None]
    seen = source > 0
    tables = np.empty((shape.num_layers - 1 - src, shape.num_experts, shape.num_experts))
    for table, dst in zip(tables, range(src + 1, shape.num_layers), strict=True):
        table[:] = _load(counts, dst)
        np.divide(counts.pair(src, dst).astype(np.float64), source, out=table, where=seen)
    return ScoreTables(_fixed_point(tables, shape), _tie_break(len(tables), shape.num_experts))


def token_id_scores(
    counts: RouteCounts,
    layer: int,
    codes: npt.NDArray[np.integer],
    experts: npt.NDArray[np.integer],
    num_codes: int,
) -> ScoreTables:
    """Of one layer; row v is how often training tokens of id v chose each expert (R = V).

    Parameters
    ----------
    counts : RouteCounts
        Of all training tokens: an id that they lack has the marginal's row.
    layer : int
    codes : ndarray of integers, shape [T]
        Number (0..V-1) of each training token's id.
    experts : ndarray of integers, shape [T, S]
        What it chose at `layer`.
    num_codes : int
        V.
    """
    side = counts.shape.num_experts
    cells = (codes[:, None] * side + experts).ravel()
    chose = np.bincount(cells, minlength=num_codes * side).reshape(num_codes, side)
    tokens = np.bincount(codes, minlength=num_codes)[:, None]
    table = np.tile(_load(counts, layer), (num_codes, 1))
    np.divide(chose, tokens, out=table, where=tokens > 0)
    return ScoreTables(_fixed_point(table, counts.shape)[None], _tie_break(1, side))


def previous_token_scores(counts: RouteCounts, layer: int, slots: int) -> ScoreTables:
    """Of one layer: the previous token's experts in their order, then the marginal's order.

    Row ``slot * E + e`` is expert e in that slot; the last row adds nothing, which leaves the
    marginal (R = slots * E + 1). The scores are ranks, and no probabilities.
    """
    side = counts.shape.num_experts
    marginal = _fixed_point(_load(counts, layer), counts.shape) + _tie_break(1, side)[0]
    rank_from_below = np.argsort(np.argsort(marginal)).astype(np.float64)
    table = np.zeros((slots * side + 1, side))
    for slot in range(slots):
        table[slot * side + np.arange(side), np.arange(side)] = (slots - slot) * side
    return ScoreTables(table[None], rank_from_below[None])
