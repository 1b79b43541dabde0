"""Following a run that may be written, closed, killed, replaced or not there yet."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from routestats import schema
from routestats.errors import RouteStatsError, TraceError
from routestats.live._parts import PartFollower
from routestats.shape import RouteShape
from routestats.trace import files
from routestats.trace.feed import FeedCounters, FeedReader, feed_path

State = Literal["waiting", "live", "idle", "lost", "finished", "incomplete"]

# The writer gives a sign of life four times a second, but may be held up by a slow disk.
LOST_SECONDS = 10.0
_IDLE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How a run stands.

    Attributes
    ----------
    state : str
        ``waiting``: there is no run (yet). ``live``: rows come. ``idle``: the engine is there and
        has nothing to do. ``lost``: a writer has gone without a word. ``finished``: complete.
        ``incomplete``: nobody publishes it; its files may still grow.
    rows : int
        Of the whole run, as far as it has been seen: rows given and rows skipped. What a killed
        writer had published and not saved is among them where it was seen in time.
    dropped : int
        As the run's writers say; the most that one of them has said. Like `rows` it goes down only
        where another run is there.
    lag_rows : int
        Rows that the engine has handed over and that nobody outside can see yet.
    skipped : int
        Rows that this follower was too slow for, or did not want: they are in the run's files.
    silent_seconds : float or None
        Since the writer's last sign of life; None where there is no feed.
    problem : str or None
        What could not be read.
    """

    state: State = "waiting"
    rows: int = 0
    dropped: int = 0
    lag_rows: int = 0
    skipped: int = 0
    silent_seconds: float | None = None
    problem: str | None = None


@dataclass(slots=True)
class _Run:
    """A run as ``run.json`` describes it."""

    info: dict[str, Any]
    stamp: tuple[int, int, int]
    shape: RouteShape = field(init=False)

    def __post_init__(self) -> None:
        try:
            self.shape = RouteShape(**self.info["shape"])
        except TypeError as error:
            raise TraceError(f"run.json: shape: {error}") from None

    @property
    def identity(self) -> tuple[Any, ...]:
        return self.info.get("created"), self.shape, tuple(self.info.get("layer_ids", ()))


class RunFollower:
    """Gives the newest rows of a run from its feed or, where it has none, from its files.

    Parameters
    ----------
    run_dir : path
    limit : int
        Rows wanted at once, at most.

    Attributes
    ----------
    epoch : int
        Goes up when the folder holds another run than before; 0 before the first.
    """

    def __init__(self, run_dir: str | Path, limit: int) -> None:
        self.run_dir = Path(run_dir)
        self.epoch = 0
        self._limit = limit
        self._run: _Run | None = None
        self._feed: FeedReader | None = None
        self._parts: PartFollower | None = None
        self._given = self._dropped = self._skipped = 0
        self._seen: dict[str, int] = {}  # rows that feeds gave or skipped, by capture
        self._last_rows = float("-inf")
        self.tokenizer: str | None = None

    @property
    def info(self) -> dict[str, Any]:
        """Contents of ``run.json``; empty before there is one."""
        return self._run.info if self._run else {}

    @property
    def shape(self) -> RouteShape | None:
        return self._run.shape if self._run else None

    @property
    def layer_ids(self) -> tuple[int, ...]:
        """Decoder-layer number of each MoE layer."""
        ids = self.info.get("layer_ids") or range(self.shape.num_layers if self.shape else 0)
        return tuple(int(i) for i in ids)

    def poll(self) -> tuple[npt.NDArray[np.void] | None, Standing]:
        """New rows, or None where there is no run, and how the run stands; never raises."""
        rows: npt.NDArray[np.void] | None = None
        try:
            if self._look():
                rows, standing = self._from_feed() or self._from_files()
            else:
                standing = Standing("waiting")
        except (RouteStatsError, OSError) as error:
            # Half of a folder that is being replaced, or a damaged one: look again next time.
            self._drop_feed()
            standing = Standing("lost", problem=files.one_line(error))
        if rows is not None and len(rows):
            self._last_rows = time.monotonic()
            self._given += len(rows)
        # A counter that went down would be taken for a restart, by Prometheus for one.
        self._dropped = max(self._dropped, standing.dropped)
        return rows, replace(
            standing,
            rows=self._given + self._skipped,
            dropped=self._dropped,
            skipped=self._skipped,
        )

    def close(self) -> None:
        """Let go of the feed."""
        self._drop_feed()

    def _look(self) -> bool:
        """Take note of ``run.json``; whether there is one."""
        try:
            stat = (self.run_dir / schema.RUN_FILE).stat()
        except OSError:
            self._drop_feed()
            return False
        stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if self._run is not None and self._run.stamp == stamp:
            return True
        found = _Run(files.read_run_file(self.run_dir), stamp)
        if self._run is None or found.identity != self._run.identity:
            self.epoch += 1
            self._given = self._dropped = self._skipped = 0
            self._seen.clear()
            self._last_rows = float("-inf")
            self._parts = PartFollower(self.run_dir, found.shape)
            self._drop_feed()
        self._run = found
        return True

    def _drop_feed(self) -> None:
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    def _from_feed(self) -> tuple[npt.NDArray[np.void], Standing] | None:
        if self._feed is None:
            self._feed = self._open_feed()
        if (feed := self._feed) is None:
            return None
        rows, skipped, counters = feed.read(self._limit)
        self._skipped += skipped
        self._seen[feed.capture] = feed.position
        if counters.closed or feed.replaced:
            self._drop_feed()
        return rows, self._of_feed(len(rows), counters)

    def _open_feed(self) -> FeedReader | None:
        """The run's feed, to be read on from where it was left; None where there is none."""
        assert self._run is not None
        assert self._parts is not None
        try:
            feed = FeedReader(self.run_dir)
        except TraceError:
            if feed_path(self.run_dir).is_file():
                raise
            return None
        try:
            if feed.shape != self._run.shape:
                raise TraceError(f"{feed.path}: is of another shape than the run")
            if feed.capture not in self._seen:
                # Files of earlier captures are older than what comes; its own are in the feed.
                _, skipped = self._parts.read(0, {**self._seen, feed.capture: sys.maxsize})
                self._skipped += skipped
        except TraceError:
            feed.close()
            raise
        feed.position = self._seen.setdefault(feed.capture, 0)
        self.tokenizer = feed.tokenizer or self.tokenizer
        return feed

    def _of_feed(self, new: int, counters: FeedCounters) -> Standing:
        silent = max(time.time_ns() - counters.beat_ns, 0) / 1e9
        busy = new > 0 or time.monotonic() - self._last_rows < _IDLE_SECONDS
        state: State = "live" if busy else "idle"
        if silent > LOST_SECONDS and not counters.closed:
            state = "lost"
        return Standing(
            state, dropped=counters.dropped, lag_rows=counters.waiting, silent_seconds=silent
        )

    def _from_files(self) -> tuple[npt.NDArray[np.void], Standing]:
        assert self._run is not None
        assert self._parts is not None
        rows, skipped = self._parts.read(self._limit, self._seen)
        self._skipped += skipped
        totals = self.info.get("totals") or {}
        state: State = "finished" if self.info.get("complete") else "incomplete"
        dropped = int(totals.get("dropped_rows", self._parts.dropped))
        return rows, Standing(state, dropped=dropped)
