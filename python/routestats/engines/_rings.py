"""The rings that routers write into, as a recorder sees them."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from routestats._core import CaptureRing, CaptureTarget
from routestats.engines.recorder_options import RecorderOptions
from routestats.shape import RouteShape


class Ring(Protocol):
    """What a recorder needs of a ring: `CaptureRing`, or one in a device's memory.

    ``drain`` gives ``(step, rows)`` spans, ids, weights or None, and, where they come with the
    routing, positions and token ids, int32 ``[rows, 2]``. Steps are numbered from 0; some numbers
    may be missing.
    """

    def begin_step(self, rows: int) -> bool: ...
    def commit_step(self) -> int: ...
    def abandon_step(self) -> None: ...
    def drain(self, *, max_rows: int, wait_rows: int, seconds: float) -> tuple[Any, ...]: ...
    def close(self) -> None: ...
    def fail(self, reason: str) -> None: ...
    @property
    def dropped_rows(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...


@runtime_checkable
class HoldingRing(Ring, Protocol):
    """A ring that keeps what ``drain`` gave until `release`, to be counted in its memory."""

    def release(self) -> None: ...
    @property
    def near_ties(self) -> int: ...
    @property
    def device(self) -> str: ...
    @property
    def target(self) -> CaptureTarget: ...


def host_ring(shape: RouteShape, options: RecorderOptions) -> CaptureRing:
    """A ring in the host's memory."""
    return CaptureRing(
        layers=shape.num_layers,
        experts=shape.num_experts,
        top_k=shape.top_k,
        capacity=options.rows_of_ring(),
        weights=options.weights,
        block=options.policy == "block",
    )
