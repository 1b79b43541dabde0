"""The errors that routestats raises, all children of `RouteStatsError`.

Every message is one line that names the thing, what was expected and what was got.
"""

from __future__ import annotations

from collections.abc import Iterable


class RouteStatsError(Exception):
    """Base of every error that routestats raises on purpose."""

    def __str__(self) -> str:
        # A message may show a value of several lines, e.g. an array.
        return " ".join(line.strip() for line in super().__str__().splitlines())


class InvalidTypeError(RouteStatsError, TypeError):
    """An argument of the wrong kind, e.g. an array that holds no integers."""


class InvalidValueError(RouteStatsError, ValueError):
    """A broken precondition, e.g. an expert id that is not below ``num_experts``."""


class OutOfMemoryError(RouteStatsError, MemoryError):
    """The host has too little memory for what was asked."""


class NoCommonTokensError(InvalidValueError):
    """Two runs that hold no token after the same tokens."""


class TraceError(RouteStatsError):
    """A run folder or Parquet file that cannot be read or written as a trace."""


class CaptureError(RouteStatsError):
    """Routing that cannot be captured, or was not captured completely."""


class DeviceError(RouteStatsError):
    """A device failed, e.g. ran out of memory."""


class DeviceUnavailableError(DeviceError):
    """A device that was asked for by name is not there."""


class DataError(RouteStatsError):
    """Prompts or a model that cannot be had: an unknown name, a missing file or field."""


def one_of(names: Iterable[str], got: object, also: str = "") -> str:
    """The end of an error: which names were expected, what was got, and the nearest of the names.

    `also` is told after the names, for what is no name.

    >>> one_of(["top1", "set"], "top")
    "expected one of top1, set, got 'top'; did you mean top1?"
    """
    known = list(names)
    return f"expected one of {', '.join(known)}{also}, got {got!r}{did_you_mean(got, known)}"


def did_you_mean(got: object, names: Iterable[str]) -> str:
    """``; did you mean ...?`` with the nearest of `names`, or nothing if none is near."""
    from difflib import get_close_matches  # only where something is wrong

    near = get_close_matches(got, list(names), n=1) if isinstance(got, str) else []
    return f"; did you mean {near[0]}?" if near else ""
