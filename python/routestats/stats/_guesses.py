"""Which expert each predictor takes for a token's first choice, and the chance it gives it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from routestats.counts import RouteCounts
from routestats.stats._history_hits import history_hits
from routestats.stats._intervals import Floats
from routestats.stats._token_hits import previous_rows
from routestats.trace import Trace

Ids = npt.NDArray[np.integer[Any]]


class Guesses(NamedTuple):
    """Of one predictor.

    Attributes
    ----------
    expert : ndarray of integers, shape [T, L - hop]
        Its best guess of each test token's first choice, by source layer.
    chance : ndarray of float64, shape [T, L - hop], or None
        Probability that it gives it; None where it knows of none.
    """

    expert: Ids
    chance: Floats | None


def guesses(
    names: tuple[str, ...], counts: RouteCounts, train: Trace, test: Trace, hop: int, seed: int
) -> Iterator[tuple[str, Guesses]]:
    """Guesses of the named predictors, one after the other; ties go to the lowest id.

    Parameters
    ----------
    names : tuple of str
        As `hop_accuracy` names them; ``uniform`` and ``history_longest`` guess nothing here.
    counts : RouteCounts
        Of `train`, of first choices, with `hop`.
    train, test : Trace
    hop : int
    seed : int
        Of the inner split that history is selected on.

    Notes
    -----
    What training never saw falls back to the marginal: a first choice, a token id. The previous
    token's guess is its own first choice, the marginal where there is none before; it is fitted on
    nothing and gives no chance. History is that of first choices, with the order and support that
    did best on the inner split.
    """
    first_train, first_test = train.experts[:, :, 0], test.experts[:, :, 0]
    marginal = np.asarray(counts.expert[hop:], np.float64) / counts.tokens  # [L - hop, E]
    for name in names:
        if name == "marginal":
            yield name, _constant(marginal, len(test))
        elif name == "single_hop":
            yield name, _single_hop(counts, marginal, first_test, hop)
        elif name == "token_id":
            yield name, _token_id(train, test, first_train, marginal, hop)
        elif name == "previous_token":
            previous = previous_rows(test)
            guessed = first_test[previous, hop:].astype(np.intp)
            guessed[previous < 0] = marginal.argmax(axis=1)
            yield name, Guesses(guessed, None)
        elif name == "history_selected":
            chosen = history_hits(
                train, test, context="top1", names=("top1_accuracy",), seed=seed, inner_test=0.2
            )
            yield (
                name,
                _history(
                    first_train,
                    first_test,
                    hop,
                    chosen.selected_order,
                    chosen.selected_support,
                    counts,
                ),
            )


def _constant(marginal: Floats, tokens: int) -> Guesses:
    best = marginal.argmax(axis=1)
    shape = (tokens, len(marginal))
    return Guesses(np.broadcast_to(best, shape), np.broadcast_to(marginal.max(axis=1), shape))


def _single_hop(counts: RouteCounts, marginal: Floats, first: Ids, hop: int) -> Guesses:
    """By the first choice at the source layer."""
    expert = np.empty((len(first), len(marginal)), np.intp)
    chance = np.empty(expert.shape)
    for source, fallback in enumerate(marginal):
        pairs = counts.pair(source, source + hop).astype(np.float64)
        seen = np.asarray(counts.expert[source], np.float64)[:, None]
        table = np.divide(pairs, seen, out=np.tile(fallback, (len(pairs), 1)), where=seen > 0)
        known = first[:, source]
        expert[:, source] = table.argmax(axis=1)[known]
        chance[:, source] = table.max(axis=1)[known]
    return Guesses(expert, chance)


def _token_id(train: Trace, test: Trace, first: Ids, marginal: Floats, hop: int) -> Guesses:
    """By the first choices of training tokens of the same id."""
    ids, codes = np.unique(test.rows.column("token_id").to_numpy(), return_inverse=True)
    train_ids = train.rows.column("token_id").to_numpy()
    places = np.minimum(np.searchsorted(ids, train_ids), len(ids) - 1)
    wanted = np.flatnonzero(ids[places] == train_ids)
    places = places[wanted]
    seen = np.bincount(places, minlength=len(ids))[:, None]
    expert = np.empty((len(codes), len(marginal)), np.intp)
    chance = np.empty(expert.shape)
    for source, fallback in enumerate(marginal):
        table = _counted(places, first[wanted, source + hop], len(ids), len(fallback))
        share = np.divide(table, seen, out=np.tile(fallback, (len(ids), 1)), where=seen > 0)
        expert[:, source] = share.argmax(axis=1)[codes]
        chance[:, source] = share.max(axis=1)[codes]
    return Guesses(expert, chance)


def _history(
    train: Ids,
    test: Ids,
    hop: int,
    order: npt.NDArray[np.int64],
    support: npt.NDArray[np.int64],
    counts: RouteCounts,
) -> Guesses:
    """By the longest context of at most `order` layers that `support` training tokens share."""
    layers, experts = counts.shape.num_layers, counts.shape.num_experts
    of_pair = np.zeros((layers, layers), np.intp)
    of_pair[np.triu_indices(layers, 1)] = np.arange(len(order))
    expert = np.empty((len(test), layers - hop), np.intp)
    chance = np.empty(expert.shape)
    for source in range(layers - hop):
        pair = of_pair[source, source + hop]
        fitted, asked = np.arange(len(train)), np.arange(len(test))
        context = np.zeros(len(train) + len(test), np.intp)  # of both sides' tokens, by number
        for length in range(min(int(order[pair]), source + 1) + 1):
            if length:
                symbols = np.concatenate(
                    [train[fitted, source + 1 - length], test[asked, source + 1 - length]]
                )
                _, context = np.unique(context * experts + symbols, return_inverse=True)
            of_train, of_test = context[: len(fitted)], context[len(fitted) :]
            size = int(context.max(initial=-1)) + 1
            table = _counted(of_train, train[fitted, source + hop], size, experts)
            enough = table.sum(axis=1) >= (support[pair] if length else 1)
            kept = enough[of_test]
            asked, of_test = asked[kept], of_test[kept]
            expert[asked, source] = table.argmax(axis=1)[of_test]
            chance[asked, source] = (table.max(axis=1) / np.maximum(table.sum(axis=1), 1))[of_test]
            # A longer context has no more tokens than the part of it that is shorter.
            kept = enough[of_train]
            fitted, of_train = fitted[kept], of_train[kept]
            context = np.concatenate([of_train, of_test])
            if len(asked) == 0:
                break
    return Guesses(expert, chance)


def _counted(
    codes: npt.NDArray[np.intp], experts: Ids, num_codes: int, num_experts: int
) -> npt.NDArray[np.int64]:
    """How often tokens of each code chose each expert, [codes, E]."""
    cells = codes * num_experts + experts
    return np.bincount(cells, minlength=num_codes * num_experts).reshape(num_codes, num_experts)
