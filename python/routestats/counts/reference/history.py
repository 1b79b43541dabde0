"""Prediction from a token's history, in plain Python: the specification of the C++ kernel.

Nothing here is fast, and nothing outside the tests and benchmarks uses it.

A test token's *context* at a source layer is what it chose at the last m layers up to that one: its
first choices, or its sets. The longest context of at most `order` layers that at least
`min_support` training tokens have decides, with the latest layers kept; the context of no layers,
which all training tokens have, always remains. What those training tokens chose most often at the
target layer is the prediction; of equally frequent experts the lowest id comes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class TokenHits:
    """What the prediction for each test token is worth, for one source and one target layer.

    Attributes
    ----------
    length : ndarray of int64, shape [T]
        Layers in the context that decided.
    first : ndarray of int64, shape [T]
        1 where the most frequent first choice is the token's.
    best : dict of ndarray of int64, shape [T]
        For each M, how many of the token's K experts are among the M most frequent.
    exact : ndarray of int64, shape [T]
        1 where the K most frequent are the token's set.
    """

    length: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    best: dict[int, npt.NDArray[np.int64]]
    exact: npt.NDArray[np.int64]


def symbol(row: Ids, context: str) -> Hashable:
    """What a token's experts [K] at one layer are to a context: its first choice, or its set."""
    return int(row[0]) if context == "top1" else frozenset(int(e) for e in row)


def most_frequent(experts: Ids, num_experts: int) -> list[int]:
    """All experts, the most frequent first, of equally frequent ones the lowest id."""
    counts = Counter(int(e) for e in experts.ravel())
    return sorted(range(num_experts), key=lambda e: (-counts[e], e))


def history_hits(
    train: Ids,
    test: Ids,
    num_experts: int,
    source: int,
    target: int,
    *,
    context: str,
    order: int,
    min_support: int,
    best: Sequence[int] = (),
) -> TokenHits:
    """Predict the experts at `target` from those at layers 0..`source`.

    Parameters
    ----------
    train, test : ndarray of integers, shape [T, L, K]
        Experts, first choice first, distinct within a layer if sets are asked for.
    num_experts : int
    source, target : int
        Layers, source < target.
    context : {"top1", "set"}
    order : int
        Most layers in a context.
    min_support : int
        Training tokens that a context needs.
    best : sequence of int
        Sizes M.
    """

    def history(token: Ids) -> tuple[Hashable, ...]:
        return tuple(symbol(token[layer], context) for layer in range(source + 1))

    longest = min(order, source + 1)
    having: dict[tuple[Hashable, ...], list[int]] = {}
    for t, token in enumerate(train):
        past = history(token)
        for length in range(longest + 1):
            having.setdefault(past[source + 1 - length :], []).append(t)
    lengths, first, exact = [], [], []
    found: dict[int, list[int]] = {m: [] for m in best}
    for token in test:
        past = history(token)
        length = next(
            n
            for n in range(longest, -1, -1)
            if n == 0 or len(having.get(past[source + 1 - n :], ())) >= min_support
        )
        tokens = having[past[source + 1 - length :]]
        chosen = {int(e) for e in token[target]}
        firsts = most_frequent(train[tokens, target, :1], num_experts)
        members = most_frequent(train[tokens, target], num_experts)
        lengths.append(length)
        first.append(firsts[0] == int(token[target, 0]))
        exact.append(set(members[: token.shape[1]]) == chosen)
        for m in best:
            found[m].append(len(chosen.intersection(members[:m])))
    return TokenHits(
        np.array(lengths, np.int64),
        np.array(first, np.int64),
        {m: np.array(values, np.int64) for m, values in found.items()},
        np.array(exact, np.int64),
    )
