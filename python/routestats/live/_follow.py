"""Following a run that may be written, closed, killed, replaced or not there yet.

A run is followed from one source at a time: from its feed while a capture publishes one, else from
its Parquet files. The rows of the two are never merged.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from routestats import schema
from routestats.errors import RouteStatsError, TraceError
from routestats.live._run_files import RunFiles
from routestats.shape import RouteShape
from routestats.trace import files
from routestats.trace.feed import FeedCounters, FeedReader, feed_path

State = Literal["waiting", "live", "idle", "lost", "finished", "incomplete"]

Source = Literal["feed", "files"]

# The writer gives a sign of life four times a second, but a slow disk may hold it up.
LOST_SECONDS = 10.0
_IDLE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How a run stands.

    The totals `rows`, `dropped` and `illegal_domain_requests` are of the whole run, as its feed or
    its files state them. They only go down where another run takes the folder.

    Attributes
    ----------
    state : str
        ``waiting``: there is no run (yet). ``live``: rows come. ``idle``: the engine is there and
        has nothing to do. ``lost``: a writer has stopped without closing the run, or the run cannot
        be read. ``finished``: complete. ``incomplete``: not closed, and without a feed; its files
        may still grow.
    rows : int
        Rows of the run. They include rows that a killed writer had published and not saved.
    dropped : int
        Rows that the run lost.
    lag_rows : int
        Rows that the engine has handed over and that are not in the feed yet.
    skipped : int
        Rows of the run that this follower did not give: from before it joined, lost in between, or
        beyond its limit. They are in the run's files.
    silent_seconds : float or None
        Since the writer's last sign of life; None where there is no feed.
    problem : str or None
        What could not be read.
    source : {"feed", "files"} or None
        What is followed; None where nothing can be read.
    fresh : bool
        The rows that come with this standing replace all rows that were given before: the feed has
        ended, and the files are read from their newest rows.
    illegal_domain_requests : int
        Requests whose id named no legal domain.
    """

    state: State = "waiting"
    rows: int = 0
    dropped: int = 0
    lag_rows: int = 0
    skipped: int = 0
    silent_seconds: float | None = None
    problem: str | None = None
    source: Source | None = None
    fresh: bool = False
    illegal_domain_requests: int = 0


class _Run:
    """A run as ``run.json`` describes it; `stamp` tells one state of the file from another."""

    def __init__(self, run_dir: Path, stamp: tuple[int, int, int]) -> None:
        self.stamp = stamp
        self.info = files.read_run_file(run_dir)
        self.shape, self.layer_ids, _ = files.description(run_dir, self.info)
        self.identity = (self.info.get("created"), self.shape, self.layer_ids)


class RunFollower:
    """Gives the newest rows of a run, from its feed or from its files.

    Parameters
    ----------
    run_dir : path
    limit : int
        Rows wanted at once, at most.

    Attributes
    ----------
    epoch : int
        Goes up when the folder holds another run than before; 0 before the first.
    tokenizer : str or None
        Folder or hub id of the model's tokenizer, as the run's last feed said.
    """

    def __init__(self, run_dir: str | Path, limit: int) -> None:
        self.run_dir = Path(run_dir)
        self.epoch = 0
        self._limit = limit
        self._run: _Run | None = None
        # At most one of the two is there.
        self._feed: FeedReader | None = None
        self._files: RunFiles | None = None
        self._start()

    def _start(self) -> None:
        self._leave_feed()
        self._files = None
        self.tokenizer: str | None = None
        self._fresh = False
        self._given = 0  # rows, since the last fresh ones
        self._standing = Standing()
        self._last_rows = float("-inf")

    @property
    def info(self) -> dict[str, Any]:
        """Contents of ``run.json``; empty before there is one."""
        return self._run.info if self._run else {}

    @property
    def shape(self) -> RouteShape | None:
        return self._run.shape if self._run else None

    @property
    def layer_ids(self) -> tuple[int, ...]:
        """Decoder-layer number of each MoE layer; empty before there is a run."""
        return self._run.layer_ids if self._run else ()

    def poll(self) -> tuple[npt.NDArray[np.void] | None, Standing]:
        """New rows, or None where there is no run, and how the run stands; never raises."""
        rows: npt.NDArray[np.void] | None = None
        standing = Standing("waiting")
        try:
            if (run := self._look()) is not None:
                rows, standing = self._from_feed(run) or self._from_files(run)
        except (RouteStatsError, OSError) as error:
            # A damaged folder, or one that is being replaced: the next poll looks again.
            standing = Standing("lost", problem=files.one_line(error))
        if standing.source is None and self._feed is not None and self._feed.replaced:
            self._leave_feed()
        if standing.fresh:
            self._given = 0
        self._given += 0 if rows is None else len(rows)
        # Totals do not go down: Prometheus takes that for a restart.
        before, total = self._standing, max(self._standing.rows, standing.rows)
        self._standing = replace(
            standing,
            rows=total,
            dropped=max(before.dropped, standing.dropped),
            illegal_domain_requests=max(
                before.illegal_domain_requests, standing.illegal_domain_requests
            ),
            skipped=max(total - self._given, 0),
        )
        return rows, self._standing

    def close(self) -> None:
        """Close the feed."""
        self._leave_feed()

    def _look(self) -> _Run | None:
        """What ``run.json`` says; None where there is none."""
        try:
            stat = (self.run_dir / schema.RUN_FILE).stat()
        except OSError:
            return None
        stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if self._run is None or self._run.stamp != stamp:
            found = _Run(self.run_dir, stamp)
            if self._run is None or found.identity != self._run.identity:
                self.epoch += 1
                self._start()
            self._run = found
        return self._run

    def _from_feed(self, run: _Run) -> tuple[npt.NDArray[np.void], Standing] | None:
        if self._feed is None:
            self._feed = self._open_feed(run.shape)
        if (feed := self._feed) is None:
            return None
        rows, _, counters = feed.read(self._limit)
        if len(rows):
            self._last_rows = time.monotonic()
        if counters.closed or feed.replaced:
            self._leave_feed()
        return rows, self._of_feed(counters)

    def _open_feed(self, shape: RouteShape) -> FeedReader | None:
        """The feed of the capture that runs; None where there is none."""
        try:
            feed = FeedReader(self.run_dir)
        except TraceError:
            if feed_path(self.run_dir).is_file():
                raise
            return None
        if feed.shape != shape or feed.closed:
            feed.close()
            if feed.shape != shape:
                raise TraceError(f"{feed.path}: expected the run's shape {shape}, got {feed.shape}")
            return None
        # What the files gave is of earlier captures, so the feed's rows come after it.
        self._files, self._fresh = None, False
        self.tokenizer = feed.tokenizer or self.tokenizer
        return feed

    def _leave_feed(self) -> None:
        if feed := self._feed:
            feed.close()
            self._feed = None

    def _of_feed(self, counters: FeedCounters) -> Standing:
        silent = max(time.time_ns() - counters.beat_ns, 0) / 1e9
        busy = time.monotonic() - self._last_rows < _IDLE_SECONDS
        state: State = "live" if busy else "idle"
        if silent > LOST_SECONDS and not counters.closed:
            state = "lost"
        return Standing(
            state,
            rows=counters.rows,
            dropped=counters.dropped,
            lag_rows=counters.waiting,
            silent_seconds=silent,
            source="feed",
            illegal_domain_requests=counters.illegal_domain_requests,
        )

    def _from_files(self, run: _Run) -> tuple[npt.NDArray[np.void], Standing]:
        if self._files is None:
            self._files, self._fresh = RunFiles(self.run_dir, run.shape), True
        rows, problem = self._files.read(self._limit)
        # Until a file is there, what the feed gave stays.
        fresh = self._fresh and len(rows) > 0
        self._fresh = self._fresh and not fresh
        totals = run.info.get("totals") or {}
        return rows, Standing(
            "finished" if run.info.get("complete") else "incomplete",
            rows=self._files.rows,
            dropped=int(totals.get("dropped_rows", self._files.dropped)),
            problem=problem,
            source="files",
            fresh=fresh,
            illegal_domain_requests=int(totals.get("illegal_domain_requests", 0)),
        )
