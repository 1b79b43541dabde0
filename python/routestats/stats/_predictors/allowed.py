"""Which predictors two sides of a trace allow."""

from __future__ import annotations

from collections.abc import Iterable

from routestats.counts import RouteCounts
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.stats._history.hits import INNER_TEST
from routestats.stats._predictors.table import ALWAYS, FITTED, HISTORY
from routestats.stats._predictors.token_hits import token_ids_known
from routestats.trace import Trace


def choose_predictors(
    predictors: str | Iterable[str], train: Trace | RouteCounts, test: Trace, *, seed: int
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Names to measure, in the order of `FITTED`, and why the others of ``all`` cannot be.

    `seed` is that of the inner split of `train`, by which history is selected.

    Raises
    ------
    InvalidTypeError
        If `predictors` holds anything but strings.
    InvalidValueError
        If a name is unknown, or one that was named cannot be had.
    """
    if predictors == "all":
        reasons = {name: _obstacle(name, train, test, seed) for name in FITTED}
        left_out = {name: reason for name, reason in reasons.items() if reason}
        return tuple(name for name in FITTED if name not in left_out), left_out
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
        reason = _obstacle(name, train, test, seed)
        if reason:
            raise InvalidValueError(f"predictors: {name!r} cannot be measured: {reason}")
    asked = {*ALWAYS, *names, *(HISTORY if set(HISTORY) & set(names) else ())}
    return tuple(name for name in FITTED if name in asked), {}


def _obstacle(name: str, train: Trace | RouteCounts, test: Trace, seed: int) -> str:
    """Why `name` cannot be measured, or nothing."""
    if name in ALWAYS or name == "previous_token":
        return ""
    if isinstance(train, RouteCounts):
        return "it is fitted on a trace, and train is counts"
    if name in HISTORY:
        try:
            train.split(test=INNER_TEST, seed=seed)
        except InvalidValueError as error:
            return f"its order is chosen on a part of train ({error})"
        return ""
    for side, trace in (("train", train), ("test", test)):
        if not token_ids_known(trace):
            return f"{side} has rows without a token id"
    return ""
