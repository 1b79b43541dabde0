"""Prompt groups of a trace as the units of resampling, and sums and shares over them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from routestats.errors import InvalidValueError
from routestats.stats._base.estimate import Estimate, Floats, percentile_interval
from routestats.stats._base.row_order import RowOrder
from routestats.trace import Trace


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """What is drawn when prompt groups are resampled within their domains, in `RowOrder`.

    A prompt that several domains hold is one unit in each for a statistic by domain (`of`), and
    one unit in the first of them for a statistic over all tokens (`whole`).

    Attributes
    ----------
    of_row : ndarray of intp, shape [T]
        Unit 0..U-1 of each row.
    domain : ndarray of intp, shape [U]
        Index of each unit's domain into the trace's.
    tokens : ndarray of int64, shape [U]
    """

    of_row: npt.NDArray[np.intp]
    domain: npt.NDArray[np.intp]
    tokens: npt.NDArray[np.int64]

    @classmethod
    def of(cls, trace: Trace) -> Units:
        """Prompts, parted by domain."""
        order, number = RowOrder.of(trace), max(len(trace.domains), 1)
        keys, of_row, tokens = np.unique(
            order.group * number + order.domain, return_inverse=True, return_counts=True
        )
        return cls(of_row, keys % number, tokens)

    @classmethod
    def whole(cls, trace: Trace) -> Units:
        """Prompts, each in the first domain that holds it."""
        order = RowOrder.of(trace)
        return cls.by_code(order.group, order.domain)

    @classmethod
    def by_code(cls, codes: npt.NDArray[np.integer], domains: npt.NDArray[np.integer]) -> Units:
        """Units of equal `codes` [T], each in the first of its rows' `domains` [T]."""
        _, of_row, tokens = np.unique(codes, return_inverse=True, return_counts=True)
        domain = np.full(len(tokens), np.iinfo(np.intp).max)
        np.minimum.at(domain, of_row, domains)
        return cls(of_row, domain, tokens)

    def __len__(self) -> int:
        return len(self.domain)


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Rows of consecutive positions of one request each, sorted by unit.

    Attributes
    ----------
    rows : ndarray of int64, shape [T]
        Rows of the trace, run after run.
    starts : ndarray of int64, shape [R + 1]
        Run r is ``rows[starts[r]:starts[r + 1]]``.
    units : ndarray of int64, shape [R]
    """

    rows: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    units: npt.NDArray[np.int64]

    @classmethod
    def of(cls, trace: Trace, units: Units) -> Runs:
        """Cut requests wherever a position is missing.

        Raises
        ------
        InvalidValueError
            If a request has a position twice.
        """
        table, request = trace.rows, RowOrder.of(trace).request
        position = table["position"].to_numpy()
        rows = np.lexsort((position, request, units.of_row))
        request, position, unit = request[rows], position[rows], units.of_row[rows]
        same = (request[1:] == request[:-1]) & (unit[1:] == unit[:-1])
        step = np.diff(position.astype(np.int64))
        if (twice := same & (step == 0)).any():
            row = rows[int(np.argmax(twice)) + 1]
            raise InvalidValueError(
                f"position: request {table['request_id'][int(row)].as_py()!r} has position "
                f"{table['position'][int(row)].as_py()} twice"
            )
        cuts = np.flatnonzero(~(same & (step == 1))) + 1
        starts = np.concatenate(([0], cuts, [len(rows)])).astype(np.int64)
        return cls(rows.astype(np.int64), starts, unit[starts[:-1]].astype(np.int64))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return np.diff(self.starts)


def share_estimate(
    hits: npt.NDArray[np.number],
    trials: npt.NDArray[np.number],
    weights: Floats | None,
    confidence: float,
) -> Estimate:
    """Sum of hits over sum of trials, with a bootstrap interval.

    Parameters
    ----------
    hits : ndarray, shape [U, ...]
        Sums of each unit.
    trials : ndarray, shape [U]
    weights : ndarray, shape [B, U], or None
        From `resampling_weights`.
    confidence : float

    Returns
    -------
    Estimate of shape [...]
        NaN where nothing was tried.
    """
    counts, tried = hits.astype(np.float64), trials.astype(np.float64)

    def shares(drawn: Floats) -> Floats:
        flat = drawn @ counts.reshape(len(counts), -1)
        with np.errstate(invalid="ignore", divide="ignore"):
            flat = flat / (drawn @ tried)[:, None]
        return flat.reshape(len(drawn), *counts.shape[1:])

    value = shares(np.ones((1, len(counts))))[0]
    return percentile_interval(value, None if weights is None else shares(weights), confidence)


def stack_estimates(parts: Iterable[Estimate]) -> Estimate:
    """Estimates of one shape as one of shape [n, ...]."""
    return Estimate(*(np.stack(columns) for columns in zip(*parts, strict=True)))
