"""Which expert each predictor takes for a token's first choice, and the chance it gives it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from routestats.counts import RouteCounts
from routestats.counts._plan import layer_pairs
from routestats.stats._base.estimate import Floats
from routestats.stats._history.hits import measure_history
from routestats.stats._predictors.measure import TOP1
from routestats.stats._predictors.token_hits import previous_rows
from routestats.trace import Trace

Ids = npt.NDArray[np.integer[Any]]

TABLE_CELLS = 1 << 22  # of experts by context, counted at once: 32 MB


class Guesses(NamedTuple):
    """Of one predictor, from one source layer.

    Attributes
    ----------
    expert : ndarray of integers, shape [T]
        Its best guess of each test token's first choice.
    chance : ndarray of float64, shape [T], or None
        Probability that it gives it; None where it knows of none.
    """

    expert: Ids
    chance: Floats | None


def guesses(
    names: tuple[str, ...],
    counts: RouteCounts,
    train: Trace,
    test: Trace,
    inner: tuple[Trace, Trace] | None,
    hop: int,
    seed: int,
) -> Iterator[tuple[str, int, Guesses]]:
    """Guesses of the named predictors from each source layer in turn; ties go to the lowest id.

    Parameters
    ----------
    names : tuple of str
        As `hop_accuracy` names them; ``uniform`` and ``history_longest`` guess nothing here.
    counts : RouteCounts
        Of `train`, of first choices, with `hop`.
    train, test : Trace
    inner : tuple of two Trace, or None
        `train` parted in two, on which history is selected.
    hop : int
    seed : int
        Of that split.

    Yields
    ------
    name : str
    source : int
        0 to L - 1 - hop. One layer's guesses are made at a time, so that memory does not grow with
        the layers.
    guesses : Guesses

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
            of_source = _constant(marginal, len(test))
        elif name == "single_hop":
            of_source = _single_hop(counts, marginal, first_test, hop)
        elif name == "token_id":
            of_source = _token_id(train, test, first_train, marginal, hop)
        elif name == "previous_token":
            of_source = _previous_token(first_test, previous_rows(test), marginal, hop)
        elif name == "history_selected":
            assert inner is not None
            chosen = measure_history(
                train, test, inner, context="top1", measures=(TOP1,), seed=seed
            )
            order, support = chosen.selected_order, chosen.selected_support
            of_source = _history(first_train, first_test, hop, order, support, counts)
        else:
            continue
        for source, guess in enumerate(of_source):
            yield name, source, guess


def _constant(marginal: Floats, tokens: int) -> Iterator[Guesses]:
    for share in marginal:
        best = np.broadcast_to(share.argmax(), tokens)
        yield Guesses(best, np.broadcast_to(share.max(), tokens))


def _single_hop(counts: RouteCounts, marginal: Floats, first: Ids, hop: int) -> Iterator[Guesses]:
    """By the first choice at the source layer."""
    for source, fallback in enumerate(marginal):
        pairs = counts.pair(source, source + hop).astype(np.float64)
        seen = np.asarray(counts.expert[source], np.float64)[:, None]
        table = np.divide(pairs, seen, out=np.tile(fallback, (len(pairs), 1)), where=seen > 0)
        known = first[:, source]
        yield Guesses(table.argmax(axis=1)[known], table.max(axis=1)[known])


def _token_id(
    train: Trace, test: Trace, first: Ids, marginal: Floats, hop: int
) -> Iterator[Guesses]:
    """By the first choices of training tokens of the same id."""
    ids, codes = np.unique(test.rows.column("token_id").to_numpy(), return_inverse=True)
    train_ids = train.rows.column("token_id").to_numpy()
    places = np.minimum(np.searchsorted(ids, train_ids), len(ids) - 1)
    wanted = np.flatnonzero(ids[places] == train_ids)
    places = places[wanted]
    seen = np.bincount(places, minlength=len(ids))[:, None]
    for source, fallback in enumerate(marginal):
        table = _counted(places, first[wanted, source + hop], len(ids), len(fallback))
        share = np.divide(table, seen, out=np.tile(fallback, (len(ids), 1)), where=seen > 0)
        yield Guesses(share.argmax(axis=1)[codes], share.max(axis=1)[codes])


def _previous_token(
    first: Ids, previous: npt.NDArray[np.int64], marginal: Floats, hop: int
) -> Iterator[Guesses]:
    """The first choice of the token before."""
    for source, fallback in enumerate(marginal):
        guessed = first[previous, source + hop].astype(np.intp)
        guessed[previous < 0] = fallback.argmax()
        yield Guesses(guessed, None)


def _history(
    train: Ids,
    test: Ids,
    hop: int,
    order: npt.NDArray[np.int64],
    support: npt.NDArray[np.int64],
    counts: RouteCounts,
) -> Iterator[Guesses]:
    """By the longest context of at most `order` layers that `support` training tokens share."""
    layers, experts = counts.shape.num_layers, counts.shape.num_experts
    pairs = layer_pairs(layers)
    for source in range(layers - hop):
        pair = pairs.index((source, source + hop))
        expert, chance = np.empty(len(test), np.intp), np.empty(len(test))
        fitted, asked = np.arange(len(train)), np.arange(len(test))
        context = np.zeros(len(train) + len(test), np.intp)  # of both sides' tokens, by number
        for length in range(min(int(order[pair]), source + 1) + 1):
            if length:
                symbols = np.concatenate(
                    [train[fitted, source + 1 - length], test[asked, source + 1 - length]]
                )
                _, context = np.unique(context * experts + symbols, return_inverse=True)
            of_train, of_test = context[: len(fitted)], context[len(fitted) :]
            best, share, seen = _best_of(of_train, train[fitted, source + hop], context, experts)
            enough = seen >= (support[pair] if length else 1)
            kept = enough[of_test]
            asked, of_test = asked[kept], of_test[kept]
            expert[asked], chance[asked] = best[of_test], share[of_test]
            # A longer context has no more tokens than the part of it that is shorter.
            kept = enough[of_train]
            fitted, of_train = fitted[kept], of_train[kept]
            context = np.concatenate([of_train, of_test])
            if len(asked) == 0:
                break
        yield Guesses(expert, chance)


def _best_of(
    codes: npt.NDArray[np.intp],
    experts: Ids,
    contexts: npt.NDArray[np.intp],
    num_experts: int,
) -> tuple[npt.NDArray[np.intp], Floats, npt.NDArray[np.intp]]:
    """Of each context the expert that most tokens chose, their share, and the tokens, some at once.

    `codes` are the contexts of the tokens that chose `experts`; `contexts` are all that there are.
    """
    size = int(contexts.max(initial=-1)) + 1
    best, share, seen = np.zeros(size, np.intp), np.zeros(size), np.zeros(size, np.intp)
    by_code = np.argsort(codes, kind="stable")
    codes, experts = codes[by_code], experts[by_code]
    step = max(1, TABLE_CELLS // num_experts)
    for begin in range(0, size, step):
        count = min(step, size - begin)
        first, last = np.searchsorted(codes, (begin, begin + count))
        table = _counted(codes[first:last] - begin, experts[first:last], count, num_experts)
        some = slice(begin, begin + count)
        seen[some] = table.sum(axis=1)
        best[some] = table.argmax(axis=1)
        share[some] = table.max(axis=1) / np.maximum(seen[some], 1)
    return best, share, seen


def _counted(
    codes: npt.NDArray[np.intp], experts: Ids, num_codes: int, num_experts: int
) -> npt.NDArray[np.int64]:
    """How often tokens of each code chose each expert, [codes, E]."""
    cells = codes * num_experts + experts
    return np.bincount(cells, minlength=num_codes * num_experts).reshape(num_codes, num_experts)
