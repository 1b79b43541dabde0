"""One order of a trace's requests, prompts and rows, whatever order they were written in.

An engine writes the rows of many requests by turns, and the next capture of the same prompts does
so in another order. Random draws follow the order here, so that both captures give equal numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from routestats.trace import Trace

Codes = npt.NDArray[np.int64]

_held: WeakKeyDictionary[Trace, RowOrder] = WeakKeyDictionary()
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True, eq=False)
class RowOrder:
    """Requests by domain and then by id (2 before 10), prompts by their first request.

    Attributes
    ----------
    names : tuple of str
        Ids of the requests that have rows, in order.
    request, group : ndarray of int64, shape [T]
        Number of each row's request and prompt group, from 0.
    domain : ndarray of int32, shape [T]
        Index of each row's domain into the trace's.
    """

    names: tuple[str, ...]
    request: Codes
    group: Codes
    domain: npt.NDArray[np.int32]

    @classmethod
    def of(cls, trace: Trace) -> RowOrder:
        """The order of a trace, computed once."""
        if trace not in _held:
            _held[trace] = cls._of(trace)
        return _held[trace]

    @classmethod
    def _of(cls, trace: Trace) -> RowOrder:
        (names, codes), domain = trace.row_requests(), trace.row_domains()
        of_domain = _least(domain, codes, len(names))
        order = sorted(range(len(names)), key=lambda i: (of_domain[i], natural(names[i])))
        request = _places(order)[codes]
        number, of_row = np.unique(trace.row_groups(), return_inverse=True)
        by_request = np.argsort(_least(request, of_row, len(number)), kind="stable")
        return cls(
            tuple(names[i] for i in order),
            request,
            _places(by_request.tolist())[of_row],
            domain,
        )


def rows_in_order(trace: Trace) -> Codes:
    """All rows by request, as `RowOrder` has them, and then by position."""
    rows: Codes = np.lexsort((trace.rows["position"].to_numpy(), RowOrder.of(trace).request))
    return rows


def rows_within(trace: Trace, part: Trace) -> npt.NDArray[np.bool_]:
    """Which rows of `trace` are of the requests of `part`, a part of it by requests: [T]."""
    names = set(part.row_requests()[0])
    order = RowOrder.of(trace)
    return np.array([name in names for name in order.names], bool)[order.request]


def natural(name: str) -> tuple[list[str | int], str]:
    """A key that sorts names as people do: ``r2`` before ``r10``."""
    parts: list[str | int] = list(_DIGITS.split(name))
    parts[1::2] = [int(part) for part in parts[1::2]]
    return parts, name


def _least(values: npt.NDArray[np.integer], codes: npt.NDArray[np.integer], number: int) -> Codes:
    """Least value of the rows of each code 0..number-1."""
    least = np.full(number, np.iinfo(np.int64).max)
    np.minimum.at(least, codes, values)
    return least


def _places(order: list[int]) -> Codes:
    """Where each of 0..n-1 stands in `order`."""
    places = np.empty(len(order), np.int64)
    places[np.array(order, np.intp)] = np.arange(len(order))
    return places
