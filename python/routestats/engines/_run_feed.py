"""The live feed of a capture, whose failure does not end the capture."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from routestats.errors import TraceError
from routestats.schema import RoutingBatch
from routestats.shape import RouteShape
from routestats.trace.feed import FeedWriter


class RunFeed:
    """Writes a run's feed; one that cannot be written is given up, with a warning.

    Parameters
    ----------
    run_dir : Path
    shape : RouteShape
    layer_ids : list of int
    tokenizer : str or None
    on : bool
        Whether to publish at all.
    """

    def __init__(
        self,
        run_dir: Path,
        shape: RouteShape,
        layer_ids: list[int],
        *,
        tokenizer: str | None,
        on: bool,
    ) -> None:
        self._feed: FeedWriter | None = None
        if on:
            try:
                self._feed = FeedWriter(run_dir, shape, layer_ids=layer_ids, tokenizer=tokenizer)
            except TraceError as error:
                self._give_up(error)

    def publish(self, batches: Sequence[RoutingBatch], *, waiting: int, **standing: int) -> None:
        """Hand on the rows of `batches`, and the run's totals with them included."""
        if self._feed is None:
            return
        try:
            self._feed.publish(batches, waiting=max(waiting, 0), **standing)
        except TraceError as error:
            self._feed.close(**standing)
            self._give_up(error)

    def close(self, **standing: int) -> None:
        """The run is over; `standing` are its totals."""
        if self._feed is not None:
            self._feed.close(**standing)
            self._feed = None

    def _give_up(self, error: TraceError) -> None:
        self._feed = None
        logging.getLogger("routestats").warning("no live view of this capture: %s", error)
