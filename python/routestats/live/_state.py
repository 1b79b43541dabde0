"""What a live view shows of a run at one moment, worked out once for all viewers."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Any

from routestats.errors import RouteStatsError
from routestats.live import _measures
from routestats.live._follow import RunFollower, Standing
from routestats.live._tokens import TokenText
from routestats.live._window import RoutingWindow, Rows
from routestats.shape import RouteShape
from routestats.trace.timings import FOLDER, StepTimes, read_timings, timing_sources

WINDOW_ROWS = 4096
_RATE_SECONDS = 3.0


class LiveState:
    """Follows a run, keeps its window, and works out what is shown. Used by one thread.

    Everything is worked out on `refresh`, at most once in `least_seconds`: without viewers nothing
    is done, and many viewers cost as much as one.

    Parameters
    ----------
    run_dir : path
    window : int
        Rows of the sliding window.
    tokenizer : str, optional
        Folder, file or hub id of the run's tokenizer; by default looked for.
    least_seconds : float

    Attributes
    ----------
    version : int
        Goes up whenever there are new rows.
    standing : Standing
    rate : float
        Rows per second, over the last few seconds.
    """

    def __init__(
        self,
        run_dir: str | Path,
        *,
        window: int = WINDOW_ROWS,
        tokenizer: str | None = None,
        least_seconds: float = 0.4,
    ) -> None:
        self.run_dir = Path(run_dir)
        self.version = 0
        self.standing = Standing()
        self.rate = 0.0
        self.window: RoutingWindow | None = None
        self._size = window
        self._least_seconds = least_seconds
        self._follower = RunFollower(run_dir, window)
        self._epoch = 0
        self._refreshed = float("-inf")
        self._counted: deque[tuple[float, int]] = deque()
        self._tokenizer = tokenizer
        self._text = TokenText(tokenizer, required=tokenizer is not None)
        self._text_of: tuple[str | None, ...] = ()
        self._kept: dict[str, tuple[int, Any]] = {}
        self._timing: tuple[tuple[Any, ...], StepTimes | None] = ((), None)

    # --- what it is of ---

    @property
    def epoch(self) -> int:
        """Goes up when the folder holds another run, perhaps of another shape."""
        return self._epoch

    @property
    def shape(self) -> RouteShape | None:
        """Shape of the run, or None before there is one."""
        return self.window.shape if self.window is not None else None

    @property
    def layer_ids(self) -> tuple[int, ...]:
        """Decoder-layer number of each MoE layer."""
        return self._follower.layer_ids

    @property
    def model(self) -> str:
        """Name of the run's model."""
        model = self._follower.info.get("model")
        return str(model.get("name", "?") if isinstance(model, dict) else model or "?")

    @property
    def text(self) -> TokenText:
        """Text of the run's tokens."""
        return self._text

    # --- keeping up ---

    def refresh(self) -> bool:
        """Take in what is new; False where the last look was less than `least_seconds` ago."""
        now = time.monotonic()
        if now - self._refreshed < self._least_seconds:
            return False
        self._refreshed = now
        rows, self.standing = self._follower.poll()
        shape = self._follower.shape
        another = self._follower.epoch != self._epoch
        if shape is not None and (another or self.standing.fresh):
            self._epoch = self._follower.epoch
            self.window = RoutingWindow(shape, self._size)
            self._kept.clear()
            self.version += 1
        if another:
            self._counted.clear()
        self._find_tokenizer()
        if rows is not None and len(rows) and self.window is not None:
            self.window.add(rows)
            self.version += 1
        self._count_rate(now)
        return True

    def close(self) -> None:
        """Close the run's files."""
        self._follower.close()

    def _find_tokenizer(self) -> None:
        names = (self._follower.tokenizer, self.model if self._follower.info else None)
        if self._tokenizer is None and names != self._text_of:
            self._text_of = names
            self._text = TokenText(*names)

    def _count_rate(self, now: float) -> None:
        counted = self._counted
        counted.append((now, self.standing.rows))
        while len(counted) > 2 and now - counted[1][0] >= _RATE_SECONDS:
            counted.popleft()
        (then, before), (_, after) = counted[0], counted[-1]
        live = self.standing.silent_seconds is not None
        self.rate = (after - before) / (now - then) if live and now > then else 0.0

    # --- what is shown ---

    def latest(self, count: int) -> Rows:
        """The newest `count` rows, newest first."""
        assert self.window is not None
        return self.window.rows(count)[::-1]

    def predictability(self) -> _measures.Predictability:
        """How well a layer's first choice is known from the previous layer's."""
        found: _measures.Predictability = self._once(_measures.predictability)
        return found

    def information(self) -> _measures.Information:
        """Mutual information of adjacent layers' first choices."""
        found: _measures.Information = self._once(_measures.adjacent_information)
        return found

    def _once(self, measure: Any) -> Any:
        assert self.window is not None
        version, result = self._kept.get(measure.__name__, (-1, None))
        if version != self.version:
            result = measure(self.window.first_choices(), self.window.shape.num_experts)
            self._kept[measure.__name__] = (self.version, result)
        return result

    def timing(self) -> StepTimes | None:
        """Stage times of the run, if it was timed and they can be read."""
        paths = sorted((self.run_dir / FOLDER).glob("*-*.parquet"))
        key = tuple((path.name, path.stat().st_mtime_ns) for path in paths)
        if key != self._timing[0]:
            times = None
            try:
                sources = timing_sources(self.run_dir)
                # An outline has no stages to show.
                staged = [source for source in sources if source != "outline"]
                times = read_timings(self.run_dir, staged[0]) if staged else None
            except RouteStatsError:
                times = None
            self._timing = (key, times)
        return self._timing[1]
