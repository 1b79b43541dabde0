"""Hits of the predictors that look at tokens instead of earlier layers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from routestats.counts import RouteCounts
from routestats.stats._predictors.hits import Hits, Tally
from routestats.stats._predictors.scores import previous_token_scores, token_id_scores
from routestats.trace import Trace


def token_ids_known(trace: Trace) -> bool:
    """Whether every row has a token id; an unknown one is negative."""
    return bool((_token_ids(trace) >= 0).all())


def token_id_hits(fitted: RouteCounts, train: Trace, test: Trace, tally: Tally) -> tuple[Hits, int]:
    """What training tokens of the same id chose at the target layer.

    Both sides' experts are held in memory; one layer is fitted and measured at a time.

    Returns
    -------
    hits : ndarray of int64, shape [m, G, L - 1]
        At target layers 1..L-1.
    fallback : int
        Test tokens whose id training never saw, predicted by the marginal.
    """
    ids, codes = np.unique(_token_ids(test), return_inverse=True)
    # Only ids that are asked for need a row.
    train_ids = _token_ids(train)
    places = np.minimum(np.searchsorted(ids, train_ids), len(ids) - 1)
    wanted = np.flatnonzero(ids[places] == train_ids)
    places = places[wanted]
    slots = test.shape.top_k if fitted.pairing == "any" else 1
    order = np.argsort(tally.group_of, kind="stable")
    rows, group_of = codes[order][None, :, None], tally.group_of[order]
    hits = []
    for layer in range(1, test.shape.num_layers):
        chose = train.experts[wanted, layer, :slots]
        scores = token_id_scores(fitted, layer, places, chose, len(ids))
        hits.append(tally.hits(scores, rows, test.experts[order, layer][None], group_of))
    unseen = np.bincount(places, minlength=len(ids)) == 0
    return np.concatenate(hits, axis=2), int(unseen[codes].sum())


def previous_token_hits(fitted: RouteCounts, test: Trace, tally: Tally) -> tuple[Hits, int]:
    """What the token one position before chose at the target layer, guessed to be chosen again.

    The guess is its experts in their order (its first choice alone with pairing ``top1``), and
    after them the others in the order of the marginal. `test`'s experts are held in memory.

    Returns
    -------
    hits : ndarray of int64, shape [m, G, L - 1]
        At target layers 1..L-1.
    fallback : int
        Test tokens without a row one position before, predicted by the marginal.
    """
    side = test.shape.num_experts
    slots = test.shape.top_k if fitted.pairing == "any" else 1
    order = np.argsort(tally.group_of, kind="stable")
    previous, group_of = previous_rows(test)[order], tally.group_of[order]
    hits = []
    for layer in range(1, test.shape.num_layers):
        scores = previous_token_scores(fitted, layer, slots)
        rows = test.experts[previous, layer, :slots].astype(np.uint32)
        rows += np.arange(slots, dtype=np.uint32) * np.uint32(side)
        rows[previous < 0] = slots * side
        hits.append(tally.hits(scores, rows[None], test.experts[order, layer][None], group_of))
    return np.concatenate(hits, axis=2), int((previous < 0).sum())


def previous_rows(trace: Trace) -> npt.NDArray[np.int64]:
    """Row of the same request at the position before, for each row [T]; -1 where there is none."""
    requests = trace.rows.column("request_id").combine_chunks().indices.to_numpy()
    positions = trace.rows.column("position").to_numpy()
    order = np.lexsort((positions, requests))
    request, position = requests[order], positions[order]
    follows = (request[1:] == request[:-1]) & (position[1:] == position[:-1] + 1)
    previous = np.full(len(order), -1, dtype=np.int64)
    previous[order[1:][follows]] = order[:-1][follows]
    return previous


def _token_ids(trace: Trace) -> npt.NDArray[np.int32]:
    ids: npt.NDArray[np.int32] = trace.rows.column("token_id").to_numpy()
    return ids
