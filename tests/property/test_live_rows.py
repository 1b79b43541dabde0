"""A follower gives no row twice and states exact totals, whatever happens, whenever it looks."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from routestats.live._follow import RunFollower, Standing
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
            self.feed = FeedWriter(run, SHAPE, layer_ids=range(2), capacity=200)
            self.feed.publish([], waiting=0, **self.standing())

    def write(self, numbers: np.ndarray, domain: str, *, fails: bool = False) -> None:
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
        if not fails:
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
    """Takes what a follower gives; fresh rows replace what was given before."""

    def __init__(self, run: Path, limit: int) -> None:
        self.run = run
        self.follower = RunFollower(run, limit)
        self.given: list[int] = []
        self.standing = Standing()

    def poll(self) -> None:
        before = self.standing
        rows, self.standing = self.follower.poll()
        if self.standing.fresh:
            self.given.clear()
        self.given.extend([] if rows is None else rows["position"].tolist())
        assert len(set(self.given)) == len(self.given)
        assert self.standing.skipped == max(self.standing.rows - len(self.given), 0)
        assert self.standing.rows >= before.rows

    def poll_if(self, wanted: bool) -> None:
        if wanted:
            self.poll()

    def look(self, published: int | None) -> None:
        """Poll past a change of source, and compare the total with what is published or saved."""
        self.poll()  # perhaps the last of a feed that has ended
        before = self.standing.rows
        self.poll()
        total = len(on_disk(self.run)) if published is None else published
        assert self.standing.source == ("files" if published is None else "feed")
        assert self.standing.rows == max(before, total)


def on_disk(run: Path) -> set[int]:
    paths = run.glob("tokens/domain=*/part-*")
    return {n for path in paths for n in pq.read_table(path)["position"].to_pylist()}


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    limit=st.sampled_from([1, 7, 50, 10_000]),
    steps=st.lists(
        st.sampled_from(
            ["write"] * 6
            + ["write fails", "flush", "look", "feed ends", "close", "kill", "unreadable"]
        ),
        max_size=25,
    ),
)
def test_no_row_twice_and_exact_totals(data: st.DataObject, limit: int, steps: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as left:
        run = Path(folder) / "run"
        viewer = Viewer(run, limit)
        left.callback(viewer.follower.close)
        perhaps = st.booleans()
        capture: Capture | None = None
        published: int | None = None  # what the feed says, if there is one
        written = 0
        for step in [*steps, "close"]:
            if capture is None and step != "look":
                capture = Capture(run, live=data.draw(perhaps))
                left.callback(capture.kill)
                published = capture.standing()["rows"] if capture.feed else None
                viewer.poll_if(data.draw(perhaps))
            if step in ("write", "write fails"):
                assert capture is not None
                rows = data.draw(st.integers(1, 60))
                domain = data.draw(st.sampled_from(DOMAINS))
                fails = step == "write fails"  # what the feed gave is in no file
                said = capture.standing(rows)["rows"]
                capture.write(np.arange(written, written + rows), domain, fails=fails)
                written += rows
                published = None if published is None else said
            elif step == "flush":
                assert capture is not None
                capture.writer.flush()
            elif step == "look":
                if run.exists():
                    viewer.look(published)
            elif step == "unreadable":
                (run / "run.json").rename(run / "away")
                viewer.poll_if(data.draw(perhaps))
                (run / "away").rename(run / "run.json")
            elif step == "kill":
                assert capture is not None
                capture.kill()
                capture = None
            else:
                assert capture is not None
                capture.close_feed()  # alone as where its disk is full: the files go on
                published = None
                if step == "close":
                    viewer.poll_if(data.draw(perhaps))  # all is published, not all is in files
                    capture.writer.close()
                    capture = None
            viewer.poll_if(data.draw(perhaps))
        viewer.look(None)
        saved = on_disk(run)
    assert len(saved) <= viewer.standing.rows <= written
    if not {"kill", "write fails"}.intersection(steps):
        assert len(saved) == viewer.standing.rows == written
    if saved:
        assert saved.issuperset(viewer.given)
        if limit == 10_000:
            assert saved == set(viewer.given)
