"""What a recorder needs of the ring that the routers write into."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from routestats._core import CaptureTarget


class Ring(Protocol):
    """What a recorder needs of a ring: `CaptureRing`, or one in a device's memory.

    ``drain`` gives ``(step, rows)`` spans, ids, weights or None, and, where they come with the
    routing, positions and token ids, int32 ``[rows, 2]``.
    """

    def begin_step(self, rows: int) -> bool: ...
    def commit_step(self) -> int: ...
    def abandon_step(self) -> None: ...
    def drain(self, *, max_rows: int, wait_rows: int, seconds: float) -> tuple[Any, ...]: ...
    def close(self) -> None: ...
    def fail(self, reason: str) -> None: ...
    @property
    def dropped_rows(self) -> int: ...


@runtime_checkable
class HoldingRing(Ring, Protocol):
    """A ring that holds what ``drain`` gave until `release`, so that it can be counted there."""

    def release(self) -> None: ...
    @property
    def device(self) -> str: ...
    @property
    def target(self) -> CaptureTarget: ...
