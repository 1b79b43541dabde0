"""What goes wrong with a capture inside the engine's forward pass, which must go on."""

from __future__ import annotations

import logging

from routestats.errors import CaptureError, RouteStatsError
from routestats.trace.files import one_line


class ForwardFault:
    """The first error inside forward passes, kept until it can be raised without harm.

    An exception there would end the engine.

    Attributes
    ----------
    reason : str or None
        The error in one line.
    """

    def __init__(self) -> None:
        self.reason: str | None = None

    def keep(self, layer: int, error: Exception) -> None:
        """Note an error in a layer, and say so in the engine's log."""
        if self.reason is not None:
            return
        text = str(error) if isinstance(error, RouteStatsError) else ""
        self.reason = text or f"MoE layer {layer}: {type(error).__name__}: {one_line(error)}"
        logging.getLogger("vllm.routestats").warning("routing is not captured: %s", self.reason)

    def clear(self) -> None:
        """Forget the error."""
        self.reason = None

    def check(self) -> None:
        """Raise `CaptureError` if there was an error."""
        if self.reason is not None:
            raise CaptureError(self.reason)
