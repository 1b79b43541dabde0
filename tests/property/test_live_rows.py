"""A follower gives or skips every row once, whatever happens and whenever it looks."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import routestats as rs
from routestats.live._follow import RunFollower
from routestats.schema import RoutingBatch
from routestats.shape import RouteShape
from routestats.trace import TraceWriter
from routestats.trace.feed import FeedWriter

SHAPE = RouteShape(2, 8, 2)
DOMAINS = ("a", "b", "c")


class Capture:
    """One writer of a run, with its feed, in the order in which the recorder has them work."""

    def __init__(self, run: Path, *, live: bool) -> None:
        self.writer = TraceWriter(
            run, SHAPE, weights=False, model="m", engine={}, flush_rows=40, flush_seconds=1e9
        )
        self.feed: FeedWriter | None = None
        if live:
            self.feed = FeedWriter(
                run, SHAPE, layer_ids=range(2), capture=self.writer.capture, capacity=200
            )

    def write(self, numbers: np.ndarray, domain: str) -> None:
        rows = len(numbers)
        batch = RoutingBatch(
            domain=domain,
            request_ids=("r",),
            request_index=np.zeros(rows, np.int32),
            positions=numbers.astype(np.int32),
            token_ids=np.zeros(rows, np.int32),
            phase=np.zeros(rows, np.uint8),
            experts=np.zeros((rows, 2, 2), np.uint8),
        )
        if self.feed is not None:
            self.feed.publish([batch], waiting=0, **self.standing(rows))
        self.writer.write(batch)

    def standing(self, new: int = 0) -> dict[str, int]:
        return {"rows": self.writer.before("rows") + self.writer.rows_written + new, "dropped": 0}

    def close_feed(self) -> None:
        if self.feed is not None:
            self.feed.close(**self.standing())
            self.feed = None

    def kill(self) -> None:
        """Leave everything as a killed process leaves it; what was in the buffer is lost."""
        self.writer._run.unlock()
        if self.feed is not None:
            os.close(self.feed._file)
            self.feed = None


class Viewer:
    """Takes what a follower gives."""

    def __init__(self, run: Path, limit: int) -> None:
        self.follower = RunFollower(run, limit)
        self.given: list[int] = []
        self.skipped = self.rows = 0

    def poll(self) -> None:
        rows, standing = self.follower.poll()
        self.given.extend([] if rows is None else rows["position"].tolist())
        assert len(set(self.given)) == len(self.given)
        assert standing.rows == len(self.given) + standing.skipped
        assert standing.rows >= self.rows
        self.rows, self.skipped = standing.rows, standing.skipped

    def poll_if(self, wanted: bool) -> None:
        if wanted:
            self.poll()


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    limit=st.sampled_from([1, 7, 50, 10_000]),
    steps=st.lists(
        st.sampled_from(["write"] * 6 + ["flush", "feed ends", "close", "kill", "unreadable"]),
        max_size=25,
    ),
)
def test_every_row_once(data: st.DataObject, limit: int, steps: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as left:
        run = Path(folder) / "run"
        viewer = Viewer(run, limit)
        left.callback(viewer.follower.close)
        perhaps = st.booleans()
        capture: Capture | None = None
        written = 0
        for step in [*steps, "close"]:
            if capture is None:
                capture = Capture(run, live=data.draw(perhaps))
                left.callback(capture.kill)
                viewer.poll_if(data.draw(perhaps))
            if step == "write":
                rows = data.draw(st.integers(1, 60))
                domain = data.draw(st.sampled_from(DOMAINS))
                capture.write(np.arange(written, written + rows), domain)
                written += rows
            elif step == "flush":
                capture.writer.flush()
            elif step == "feed ends":
                capture.close_feed()  # as where its disk is full: the files go on
            elif step == "unreadable":
                (run / "run.json").rename(run / "away")
                viewer.poll_if(data.draw(perhaps))
                (run / "away").rename(run / "run.json")
            elif step == "close":
                capture.close_feed()
                viewer.poll_if(data.draw(perhaps))  # all is published, and not all is in files
                capture.writer.close()
                capture = None
            else:
                capture.kill()
                capture = None
            viewer.poll_if(data.draw(perhaps))
        viewer.poll()
        viewer.poll()
        on_disk = set(rs.Trace.open(run).rows["position"].to_pylist()) if written else set()
    accounted = len(viewer.given) + viewer.skipped
    if "kill" not in steps:
        assert len(on_disk) == accounted == written
    # What a killed writer had published was seen in time or not.
    assert len(on_disk.union(viewer.given)) <= accounted <= written
