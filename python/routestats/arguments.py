"""Checks of single arguments, with errors that name them."""

from __future__ import annotations

import numbers
import operator
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, SupportsIndex, TypeGuard

from routestats.errors import InvalidTypeError, InvalidValueError, one_of

MOST = 2**31 - 1
"""The largest number of threads, slots or draws that an argument may ask for."""


def check_integer(name: str, value: object, least: int, most: int = 2**63 - 1) -> int:
    """`value` as an int from `least` to `most`, or InvalidTypeError or InvalidValueError."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise InvalidTypeError(f"{name}: expected an integer, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:  # an array of several
        raise InvalidTypeError(f"{name}: expected an integer, got {value!r}") from None
    if number < least:
        raise InvalidValueError(f"{name}: expected at least {least}, got {number}")
    if number > most:
        raise InvalidValueError(f"{name}: expected at most {most}, got {number}")
    return number


def is_iterable(values: object) -> TypeGuard[Iterable[Any]]:
    """Whether `values` can be iterated; an array without dimensions only looks as if it could."""
    return isinstance(values, Iterable) and getattr(values, "ndim", 1) > 0


def check_integers(name: str, values: object, least: int) -> tuple[int, ...]:
    """`values` as ints of at least `least`, or InvalidTypeError or InvalidValueError."""
    if isinstance(values, str) or not is_iterable(values):
        raise InvalidTypeError(f"{name}: expected integers, got {values!r}")
    return tuple(check_integer(name, value, least) for value in values)


def check_share(name: str, value: object) -> float:
    """`value` as a number between 0 and 1, without them, or an error that names it."""
    if not isinstance(value, numbers.Real):
        raise InvalidTypeError(f"{name}: expected a number between 0 and 1, got {value!r}")
    share = float(value)
    if not 0.0 < share < 1.0:
        raise InvalidValueError(f"{name}: expected between 0 and 1, got {value}")
    return share


def check_number(name: str, value: object, least: float = 0.0) -> float:
    """`value` as a number of at least `least`, or an error that names it."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InvalidTypeError(f"{name}: expected a number, got {value!r}")
    number = float(value)
    if not number >= least:  # NaN is no number either
        raise InvalidValueError(f"{name}: expected at least {least:g}, got {value}")
    return number


def check_flag(name: str, value: object) -> bool:
    """`value` as a bool, or InvalidTypeError."""
    if value is True or value is False or type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    raise InvalidTypeError(f"{name}: expected True or False, got {value!r}")


def check_choice(name: str, value: object, choices: Sequence[str], none: str = "") -> str:
    """`value`, if it is one of `choices`, or InvalidValueError; `none` is told as one more."""
    if isinstance(value, str) and value in choices:
        return value
    raise InvalidValueError(f"{name}: {one_of(choices, value, none)}")


def check_path(name: str, value: object) -> Path:
    """`value` as a path, or InvalidTypeError."""
    if not isinstance(value, (str, os.PathLike)):
        raise InvalidTypeError(f"{name}: expected a path, got {value!r}")
    return Path(value)
