"""Held-out hits of history prediction, counted in C++."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from routestats import _core
from routestats.arguments import check_choice, check_integers
from routestats.counts._plan import layer_pairs
from routestats.counts._source import Ids, as_ids
from routestats.counts.device.choice import choose_threads
from routestats.errors import InvalidValueError

Context = Literal["top1", "set"]
Sums = npt.NDArray[np.int64]
MAX_SETTINGS = 64  # of one sweep
MAX_LAYERS = 255


def check_context(context: str) -> Context:
    """Return `context`, or raise InvalidValueError if there is none of that name."""
    return "top1" if check_choice("context", context, get_args(Context)) == "top1" else "set"


def ascending(name: str, values: Sequence[int]) -> tuple[int, ...]:
    """`values` as distinct ascending integers from 1; errors begin with `name`."""
    numbers = check_integers(name, values, 1)
    if not numbers:
        raise InvalidValueError(f"{name}: expected at least one number, got none")
    if max(numbers) >= 2**32:
        raise InvalidValueError(f"{name}: expected less than 2**32, got {max(numbers)}")
    return tuple(sorted(set(numbers)))


@dataclass(frozen=True, slots=True, eq=False)
class HistoryQuestion:
    """What is predicted from what, and how it is measured.

    Attributes
    ----------
    num_experts : int
    context : {"top1", "set"}
        Whether a context is made of first choices or of whole sets.
    top1 : bool
        Measure whether the most frequent first choice is the token's.
    best : tuple of int
        Measure how many of a token's K experts are among the most frequent M, for each M; the
        first is K. After them comes whether the K most frequent are the token's set. May be empty.
    """

    num_experts: int
    context: Context
    top1: bool
    best: tuple[int, ...]

    @property
    def measures(self) -> int:
        """Measures in the results: top1, one for each of `best`, exact set."""
        return int(self.top1) + (len(self.best) + 1 if self.best else 0)


def history_totals(
    train: npt.ArrayLike,
    test: npt.ArrayLike,
    question: HistoryQuestion,
    *,
    orders: Sequence[int],
    supports: Sequence[int],
    threads: int | None = None,
) -> tuple[Sums, Sums]:
    """Hits over all test tokens, for every order and minimum support, in one sweep.

    Parameters
    ----------
    train, test : array of integers, shape [T, L, K]
        Views are read as they are; the ids that are needed are copied once, layer by layer.
    question : HistoryQuestion
    orders : sequence of int
        Most layers in a context; any number from L on means all.
    supports : sequence of int
        Training tokens that a context needs.
    threads : int, optional
        By default one for each CPU that this process may use.

    Returns
    -------
    hits : ndarray of int64, shape [supports, orders, measures, P]
        The P = L * (L - 1) / 2 layer pairs: by hop, then by source, as `layer_pairs` has them.
    resolved : ndarray of int64, shape [supports, L - 1, L]
        Test tokens whose longest context with so much support has 0..L-1 layers, at each source
        layer and without a limit on the order.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        If an array or a number is of the wrong kind, an id not below E, an expert named twice in a
        set, there is no training token, or there are more than 255 layers.

    Notes
    -----
    Memory: the copied ids (slot 0, twice if it is context and target; all K slots where `best` or
    sets ask for them; 4 bytes per token and layer for sets), 10 bytes per token, and for each
    thread about 60 bytes per token with one setting and 100 with 60.
    """
    train, test = _sides(train, test)
    orders, supports = ascending("orders", orders), ascending("supports", supports)
    if len(orders) > MAX_SETTINGS:
        raise InvalidValueError(f"orders: expected at most {MAX_SETTINGS}, got {len(orders)}")
    step = MAX_SETTINGS // len(orders)
    parts = [
        _sweep(train, test, question, orders=orders, supports=part, threads=threads)
        for part in (supports[first : first + step] for first in range(0, len(supports), step))
    ]
    hits = np.concatenate([found for found, _ in parts])
    pairs = hits.shape[-1]
    return (
        hits.reshape(len(supports), len(orders), question.measures, pairs),
        np.concatenate([resolved for _, resolved in parts]),
    )


def history_group_hits(
    train: npt.ArrayLike,
    test: npt.ArrayLike,
    question: HistoryQuestion,
    *,
    orders: Sequence[int],
    supports: Sequence[int],
    chosen_order: npt.NDArray[np.integer[Any]],
    chosen_support: npt.NDArray[np.integer[Any]],
    groups: npt.NDArray[np.integer[Any]],
    num_groups: int,
    threads: int | None = None,
) -> tuple[Sums, Sums]:
    """Hits per group of test tokens, each layer pair with an order and a support of its own.

    Parameters
    ----------
    train, test, question, orders, supports, threads
        As of `history_totals`; at most 64 combinations.
    chosen_order, chosen_support : ndarray of integers, shape [P]
        One of `orders` and one of `supports` for each layer pair.
    groups : ndarray of integers, shape [T of test]
        Group 0..num_groups-1 of each test token.
    num_groups : int

    Returns
    -------
    hits : ndarray of int64, shape [measures, num_groups, P]
    resolved : ndarray of int64, shape [supports, L - 1, L]
    """
    train, test = _sides(train, test)
    orders, supports = ascending("orders", orders), ascending("supports", supports)
    chosen = np.searchsorted(supports, chosen_support) * len(orders) + np.searchsorted(
        orders, chosen_order
    )
    return _sweep(
        train,
        test,
        question,
        orders=orders,
        supports=supports,
        threads=threads,
        chosen=chosen,
        groups=groups,
        num_groups=num_groups,
    )


def _sides(train: npt.ArrayLike, test: npt.ArrayLike) -> tuple[Ids, Ids]:
    first, second = as_ids(train), as_ids(test)
    if first.shape[1:] != second.shape[1:]:
        raise InvalidValueError(
            f"test: expected [T, {first.shape[1]}, {first.shape[2]}] as in train, "
            f"got {list(second.shape)}"
        )
    if len(first) == 0:
        raise InvalidValueError("train: expected at least 1 token, got 0")
    if first.shape[1] > MAX_LAYERS:
        raise InvalidValueError(
            f"train: expected at most {MAX_LAYERS} layers, got {first.shape[1]}"
        )
    return first, second


def _sweep(
    train: Ids,
    test: Ids,
    question: HistoryQuestion,
    *,
    orders: tuple[int, ...],
    supports: tuple[int, ...],
    threads: int | None,
    chosen: npt.NDArray[np.integer[Any]] | None = None,
    groups: npt.NDArray[np.integer[Any]] | None = None,
    num_groups: int = 0,
) -> tuple[Sums, Sums]:
    """One sweep of the core: hits [settings, m, P], or [m, G, P] of a setting `chosen` per pair.

    The core goes from source to source, so its pairs are by source and then by target. They get
    the order of `layer_pairs` here, and nowhere else.
    """
    layers = train.shape[1]
    pairs = layer_pairs(layers)
    place = {pair: number for number, pair in enumerate(pairs)}
    of_core = np.array([place[pair] for pair in sorted(pairs)], np.intp)
    by_group: dict[str, Any] = {}
    extents = (len(supports) * len(orders), question.measures)
    if chosen is not None and groups is not None:
        extents = (question.measures, num_groups)
        by_group = {
            "groups": np.ascontiguousarray(groups, np.uint32),
            "num_groups": num_groups,
            "chosen": np.ascontiguousarray(chosen[of_core], np.uint32),
        }
    found = np.zeros((*extents, len(pairs)), np.int64)
    resolved = np.zeros((len(supports), max(layers - 1, 0), layers), np.int64)
    _core.history_hits(
        train,
        test,
        num_experts=question.num_experts,
        sets=question.context == "set",
        top1=question.top1,
        best=list(question.best),
        orders=orders,
        supports=supports,
        hits=found,
        resolved=resolved,
        threads=choose_threads(threads),
        **by_group,
    )
    hits = np.empty_like(found)
    hits[..., of_core] = found
    return hits, resolved
