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
    capture : str
        `TraceWriter.capture` of the run's files.
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
        capture: str,
        on: bool,
    ) -> None:
        self._feed: FeedWriter | None = None
        if on:
            try:
                self._feed = FeedWriter(
                    run_dir, shape, layer_ids=layer_ids, tokenizer=tokenizer, capture=capture
                )
            except TraceError as error:
                self._give_up(error)

    def publish(
        self, batches: Sequence[RoutingBatch], *, rows: int, dropped: int, waiting: int
    ) -> None:
        """Hand on the rows of `batches`; `rows` and `dropped` are the run's, them included."""
        if self._feed is None:
            return
        try:
            self._feed.publish(batches, rows=rows, dropped=dropped, waiting=max(waiting, 0))
        except TraceError as error:
            self._feed.close(rows=rows, dropped=dropped)
            self._give_up(error)

    def close(self, *, rows: int, dropped: int) -> None:
        """The run is over."""
        if self._feed is not None:
            self._feed.close(rows=rows, dropped=dropped)
            self._feed = None

    def _give_up(self, error: TraceError) -> None:
        self._feed = None
        logging.getLogger("routestats").warning("no live view of this capture: %s", error)
