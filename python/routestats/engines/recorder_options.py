"""Settings of a capture, and what its caller knows of requests."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

from routestats.arguments import check_flag, check_integer, check_integers
from routestats.errors import CaptureError, InvalidTypeError, InvalidValueError

_LEAST_RING_ROWS = 32_768
_STEPS_IN_RING = 4


class Outcome(TypedDict, total=False):
    """What the caller of an engine knows of a finished request."""

    output_tokens: int
    exact: bool  # whether the engine stopped where the output ends (not so for stop strings)
    finish_reason: str | None
    task_id: str | None
    group: str | None


def labels(
    count: int, task_ids: Sequence[str] | None, groups: Sequence[str] | None
) -> list[Outcome]:
    """What a caller says of `count` requests.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        If there are more or fewer, or one is no string.
    """
    found = [Outcome() for _ in range(count)]
    for argument, key, values in (("task_ids", "task_id", task_ids), ("groups", "group", groups)):
        if values is None:
            continue
        if len(values) != count:
            raise InvalidValueError(
                f"{argument}: expected {count}, one per request, got {len(values)}"
            )
        for i, value in enumerate(values):
            if not isinstance(value, str):
                raise InvalidTypeError(f"{argument}[{i}]: expected a string, got {value!r}")
            found[i][key] = value  # type: ignore[literal-required]
    return found


@dataclass(frozen=True, slots=True)
class RecorderOptions:
    """Settings of one capture.

    Attributes
    ----------
    weights : bool
        Keep gate weights. Ids are ordered by weight in any case.
    policy : {"block", "drop"}
        When the ring is full: the engine waits, or the step's rows are dropped and counted.
    ring_rows : int or None
        Capacity of the ring, at least the rows of the largest step; None: `rows_of_ring`.
    flush_rows : int
    flush_seconds : float
        A file is written when either is reached.
    counts : bool
        Also count expert loads, co-activation and adjacent layers as rows arrive, and save the
        counts of the whole run as ``counts-any.npz``.
    paths : bool
        Also count full paths, of first choices and of sets, and save the most frequent ones of the
        whole run as ``paths-top1.parquet`` and ``paths-set.parquet``. All distinct paths are in
        memory until then. A run of several captures is counted again, if it is not too large.
    lookahead : tuple of int
        Hops at which later gates are applied, ascending; none by default.
    live : bool
        Publish the newest rows to ``live/feed.bin``, for the live view and its metrics.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        If an option is wrong; the message names it.
    """

    weights: bool = True
    policy: Literal["block", "drop"] = "block"
    ring_rows: int | None = None
    flush_rows: int = 65_536
    flush_seconds: float = 10.0
    counts: bool = False
    paths: bool = False
    lookahead: tuple[int, ...] = ()
    live: bool = True

    def __post_init__(self) -> None:
        for name in ("weights", "counts", "paths", "live"):
            object.__setattr__(self, name, check_flag(name, getattr(self, name)))
        if self.policy not in ("block", "drop"):
            raise InvalidValueError(f"policy: expected 'block' or 'drop', got {self.policy!r}")
        for name in ("ring_rows", "flush_rows"):
            if (value := getattr(self, name)) is not None or name == "flush_rows":
                object.__setattr__(self, name, check_integer(name, value, 1))
        object.__setattr__(self, "flush_seconds", _seconds("flush_seconds", self.flush_seconds))
        hops = check_integers("lookahead", self.lookahead, 1)  # a list when it has travelled
        object.__setattr__(self, "lookahead", hops)

    def rows_of_ring(self, largest_step: int = 0) -> int:
        """Capacity of the ring of an engine whose steps have up to `largest_step` rows.

        By default four steps, so that an engine does not wait while a step is written, and at least
        32,768 rows.

        Raises
        ------
        CaptureError
            If `ring_rows` is below `largest_step`.
        """
        if self.ring_rows is None:
            return max(_LEAST_RING_ROWS, _STEPS_IN_RING * largest_step)
        if self.ring_rows < largest_step:
            raise CaptureError(
                f"ring_rows: expected at least max_num_batched_tokens = {largest_step}, "
                f"got {self.ring_rows}"
            )
        return self.ring_rows


def _seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InvalidTypeError(f"{name}: expected a number of seconds, got {value!r}")
    seconds = float(value)
    if not (math.isfinite(seconds) and seconds >= 0):
        raise InvalidValueError(f"{name}: expected a finite number of at least 0, got {seconds}")
    return seconds
