"""Preconditions that several statistics share; each error names the thing."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import combinations
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from routestats.arguments import MOST as MOST
from routestats.arguments import check_choice as check_choice
from routestats.arguments import check_flag as check_flag
from routestats.arguments import check_integer as check_integer
from routestats.arguments import check_integers as check_integers
from routestats.arguments import check_number as check_number
from routestats.arguments import check_share
from routestats.counts import RouteCounts
from routestats.errors import InvalidTypeError, InvalidValueError, one_of
from routestats.trace import Trace

Ids = npt.NDArray[np.integer[Any]]


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_Part = TypeVar("_Part", bound=_Named)


def by_name(what: str, parts: Sequence[_Part], name: str) -> _Part:
    """The part of a result that has this name; `what` is what such a part is called."""
    for part in parts:
        if part.name == name:
            return part
    raise InvalidValueError(f"{what}: {one_of((part.name for part in parts), name)}")


def check_trace(trace: object, name: str = "trace") -> Trace:
    """`trace`, if it is one and holds tokens."""
    if not isinstance(trace, Trace):
        raise InvalidTypeError(f"{name}: expected a Trace, got {type(trace).__name__}")
    if len(trace) == 0:
        raise InvalidValueError(f"{name}: expected at least 1 token, got 0")
    return trace


def check_sides(train: Trace | RouteCounts, test: Trace) -> None:
    """Refuse a test side of one layer, and sides that differ in shape or layers."""
    if test.shape.num_layers < 2:
        raise InvalidValueError("test: expected at least 2 layers to predict between, got 1")
    if train.shape != test.shape:
        raise InvalidValueError(f"train.shape: expected {test.shape} as in test, got {train.shape}")
    if tuple(train.layer_ids) != tuple(test.layer_ids):
        raise InvalidValueError(
            f"train.layer_ids: expected {tuple(test.layer_ids)} as in test, "
            f"got {tuple(train.layer_ids)}"
        )


def check_order(trace: Trace, needed_by: str) -> None:
    """Refuse a trace that does not know each token's first choice."""
    if not trace.ordered:
        raise InvalidValueError(
            f"trace.ordered: expected experts in order of weight, which {needed_by} needs, got a "
            "trace of unknown order"
        )


def check_counts(counts: object) -> RouteCounts:
    """`counts`, if they are some and hold tokens."""
    if not isinstance(counts, RouteCounts):
        raise InvalidTypeError(f"counts: expected RouteCounts, got {type(counts).__name__}")
    if counts.tokens == 0:
        raise InvalidValueError("counts.tokens: expected at least 1, got 0")
    return counts


def check_pairs(name: str, pairs: object) -> list[tuple[int, int]]:
    """`pairs` of integers, or InvalidTypeError; what they may be is the caller's to check."""
    try:
        return [(operator.index(a), operator.index(b)) for a, b in pairs]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise InvalidTypeError(f"{name}: expected pairs of integers, got {pairs!r}") from None


def check_confidence(confidence: float) -> float:
    return check_share("confidence", confidence)


def checked_experts(trace: Trace, *, distinct: bool = False) -> Ids:
    """All ids of a trace, [T, L, K]; see `check_ids`."""
    experts: Ids = trace.experts
    check_ids("experts", experts, trace.shape.num_experts, distinct=distinct)
    return experts


def check_ids(
    name: str, experts: Ids, num_experts: int, *, distinct: bool, first_row: int = 0
) -> None:
    """Refuse ids [T, L, K] that are not all below E and, if asked, of which a token has two equal.

    A file can hold anything; an id too large would be counted as another's. `first_row` is the
    number by which the caller knows row 0.
    """
    if experts.size and experts.max() >= num_experts:
        t, layer, k = np.argwhere(experts >= num_experts)[0]
        raise InvalidValueError(
            f"{name}[{first_row + t}, {layer}, {k}] = {experts[t, layer, k]}, but num_experts is "
            f"{num_experts}"
        )
    if distinct:
        for i, j in combinations(range(experts.shape[2]), 2):
            same = experts[:, :, i] == experts[:, :, j]
            if same.any():
                t, layer = np.argwhere(same)[0]
                raise InvalidValueError(
                    f"{name}[{first_row + t}, {layer}]: expected distinct experts, got "
                    f"{experts[t, layer, i]} in slots {i} and {j}"
                )


def check_sets(counts: RouteCounts) -> None:
    """Refuse counts in which a token can be seen to hold an expert twice at one layer.

    With hop 0 among the hops every such token shows; without it, only an expert that has more
    slots than there are tokens.
    """
    for layer in range(counts.shape.num_layers):
        load = counts.expert[layer]
        bad = load > counts.tokens
        if 0 in counts.hops:
            bad = bad | (np.diagonal(counts.pair(layer, layer)) != load)
        if bad.any():
            raise InvalidValueError(
                f"counts: expected distinct experts per token, but some token holds expert "
                f"{int(np.argmax(bad))} twice at layer {layer}"
            )
