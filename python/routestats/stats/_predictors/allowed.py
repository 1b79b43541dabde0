"""Which predictors two sides of a trace allow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from routestats.counts import RouteCounts
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.stats._history.hits import INNER_TEST
from routestats.stats._predictors.table import ALWAYS, FITTED, HISTORY
from routestats.stats._predictors.token_hits import token_ids_known
from routestats.trace import Trace

FITTED_ON_A_TRACE = "it is fitted on a trace, and train is counts"


class Allowed(NamedTuple):
    """What two sides allow.

    Attributes
    ----------
    names : tuple of str
        Predictors to measure, in the order of `FITTED`.
    left_out : dict of str to str
        Of ``all`` those that cannot be measured, and why.
    inner : tuple of two Trace, or None
        The training side parted in two, on which history is selected; None without history.
    """

    names: tuple[str, ...]
    left_out: dict[str, str]
    inner: tuple[Trace, Trace] | None


def choose_predictors(
    predictors: str | Iterable[str], train: Trace | RouteCounts, test: Trace, *, seed: int
) -> Allowed:
    """The predictors that are asked for and can be measured; `seed` is that of the inner split.

    Raises
    ------
    InvalidTypeError
        If `predictors` holds anything but strings.
    InvalidValueError
        If a name is unknown, or one that was named cannot be had.
    """
    asked = FITTED if isinstance(predictors, str) and predictors == "all" else _named(predictors)
    obstacles = {name: _obstacle(name, train, test) for name in asked if name not in HISTORY}
    inner = None
    if set(HISTORY) & set(asked):
        inner, why = _inner_split(train, seed)
        obstacles |= dict.fromkeys([name for name in HISTORY if name in asked], why)
    left_out = {name: obstacles[name] for name in asked if obstacles[name]}
    if not (isinstance(predictors, str) and predictors == "all"):
        for name, why in left_out.items():
            raise InvalidValueError(f"predictors: {name!r} cannot be measured: {why}")
        asked = (*ALWAYS, *asked, *(HISTORY if inner else ()))
    names = tuple(name for name in FITTED if name in asked and name not in left_out)
    return Allowed(names, left_out, inner)


def _named(predictors: str | Iterable[str]) -> tuple[str, ...]:
    try:
        names = (predictors,) if isinstance(predictors, str) else tuple(predictors)
    except TypeError:
        raise InvalidTypeError(f"predictors: expected 'all' or names, got {predictors!r}") from None
    for name in names:
        if not isinstance(name, str):
            raise InvalidTypeError(f"predictors: expected names, got {name!r}")
        if name not in FITTED:
            raise InvalidValueError(
                f"predictors: expected 'all' or some of {', '.join(FITTED)}, got {name!r}"
            )
    return names


def _inner_split(train: Trace | RouteCounts, seed: int) -> tuple[tuple[Trace, Trace] | None, str]:
    """The training side parted in two, or why it cannot be."""
    if isinstance(train, RouteCounts):
        return None, FITTED_ON_A_TRACE
    try:
        return train.split(test=INNER_TEST, seed=seed), ""
    except InvalidValueError as error:
        return None, f"its order is chosen on a part of train ({error})"


def _obstacle(name: str, train: Trace | RouteCounts, test: Trace) -> str:
    """Why `name` cannot be measured, or nothing."""
    if name in ALWAYS or name == "previous_token":
        return ""
    if isinstance(train, RouteCounts):
        return FITTED_ON_A_TRACE
    for side, trace in (("train", train), ("test", test)):
        if not token_ids_known(trace):
            return f"{side} has rows without a token id"
    return ""
