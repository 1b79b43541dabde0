"""What whoever starts a capture says: settings of the run, its domain, outcomes of requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

from routestats.errors import InvalidValueError


class Outcome(TypedDict, total=False):
    """What the caller of an engine knows of a finished request."""

    output_tokens: int
    exact: bool  # whether the engine stopped where the output ends (not so for stop strings)
    finish_reason: str | None
    task_id: str | None
    group: str | None


@dataclass(frozen=True, slots=True)
class RecorderOptions:
    """Settings of one run.

    Attributes
    ----------
    weights : bool
        Keep gate weights. Ids are ordered by them either way.
    policy : {"block", "drop"}
        When the ring is full: make the engine wait, or leave out the step's rows and count them.
    ring_rows : int
        Capacity of the ring. It must hold the largest step.
    flush_rows, flush_seconds
        A file is written when either is reached.
    counts : bool
        Also count expert loads, co-activation and adjacent layers as rows arrive, and save them
        beside the trace as ``counts-any.npz``.
    paths : bool
        Also count full paths, of first choices and of sets, and save the most frequent ones beside
        the trace as ``paths-top1.parquet`` and ``paths-set.parquet``. All distinct paths are in
        memory until then.
    lookahead : tuple of int
        Hops at which later gates are applied, ascending; none by default.
    live : bool
        Publish the newest rows to ``live/feed.bin``, for the live view and its metrics.
    """

    weights: bool = True
    policy: Literal["block", "drop"] = "block"
    ring_rows: int = 32_768
    flush_rows: int = 65_536
    flush_seconds: float = 10.0
    counts: bool = False
    paths: bool = False
    lookahead: tuple[int, ...] = ()
    live: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "lookahead", tuple(self.lookahead))  # a list when it has travelled
        if self.policy not in ("block", "drop"):
            raise InvalidValueError(f"policy: expected 'block' or 'drop', got {self.policy!r}")
        for name in ("ring_rows", "flush_rows"):
            if getattr(self, name) < 1:
                raise InvalidValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
