"""The feed: what a reader gets is what was published, and it knows what it did not get."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_cases import SHAPE, FakeEngine, wait_until

import routestats as rs
from routestats.errors import TraceError
from routestats.schema import RoutingBatch
from routestats.shape import RouteShape
from routestats.trace.feed import FeedReader, FeedWriter, feed_path, request_number


def batch(start: int, rows: int, shape: RouteShape = SHAPE) -> RoutingBatch:
    """Rows `start` on, everything in them made of their number."""
    number = np.arange(start, start + rows)
    cells: Any = number[:, None, None] + np.arange(shape.row_width).reshape(1, -1, shape.top_k)
    return RoutingBatch(
        domain="d",
        request_ids=("even", "odd"),
        request_index=(number % 2).astype(np.int32),
        positions=number.astype(np.int32),
        token_ids=(7 * number % 1000).astype(np.int32),
        phase=(number % 3 == 0).astype(np.uint8),
        experts=(cells % shape.num_experts).astype(shape.id_dtype),
    )


def check_rows(rows: np.ndarray, start: int, shape: RouteShape = SHAPE) -> None:
    expected = batch(start, len(rows), shape)
    np.testing.assert_array_equal(rows["position"], expected.positions)
    np.testing.assert_array_equal(rows["token_id"], expected.token_ids)
    np.testing.assert_array_equal(rows["phase"], expected.phase)
    np.testing.assert_array_equal(rows["experts"], expected.experts)
    names = [request_number(expected.request_ids[i]) for i in expected.request_index]
    assert rows["request"].tolist() == names


def writer(run: Path, capacity: int = 100, shape: RouteShape = SHAPE) -> FeedWriter:
    return FeedWriter(run, shape, layer_ids=range(shape.num_layers), capacity=capacity)


@pytest.mark.parametrize("shape", [SHAPE, RouteShape(3, 300, 4)])
def test_rows_come_out_as_they_went_in(tmp_path: Path, shape: RouteShape) -> None:
    feed = writer(tmp_path, shape=shape)
    with FeedReader(tmp_path) as reader:
        assert (reader.shape, reader.capacity) == (shape, 100)
        done = 0
        for size in (1, 60, 39, 70, 100, 3):  # around the end of the ring, and all of it at once
            feed.publish([batch(done, size, shape)], rows=done + size, dropped=2, waiting=5)
            rows, skipped, counters = reader.read()
            assert (len(rows), skipped) == (size, 0)
            assert (counters.rows, counters.dropped, counters.waiting) == (done + size, 2, 5)
            check_rows(rows, done, shape)
            done += size
        assert len(reader.read()[0]) == 0
    feed.close(rows=done, dropped=2)


def test_a_reader_that_falls_behind_knows_how_much_it_missed(tmp_path: Path) -> None:
    feed = writer(tmp_path)
    with FeedReader(tmp_path) as reader:
        feed.publish([batch(0, 170), batch(170, 80)], rows=250, dropped=0, waiting=0)
        rows, skipped, _ = reader.read()
        assert (len(rows), skipped) == (100, 150)
        check_rows(rows, 150)
        feed.publish([batch(250, 50)], rows=300, dropped=0, waiting=0)
        rows, skipped, _ = reader.read(limit=20)
        assert (len(rows), skipped) == (20, 30)
        check_rows(rows, 280)
    feed.close(rows=300, dropped=0)


def test_nothing_torn_is_read_beside_a_writer_in_full_flight(tmp_path: Path) -> None:
    feed, total = writer(tmp_path, capacity=64), 60_000
    taken = skipped = 0

    def write() -> None:
        done = 0
        while done < total:
            size = done % 41 + 1
            feed.publish([batch(done, size)], rows=done + size, dropped=0, waiting=0)
            done += size
        feed.publish([], rows=done, dropped=1, waiting=0)

    thread = threading.Thread(target=write)
    with FeedReader(tmp_path) as reader:
        thread.start()
        while True:
            rows, missed, counters = reader.read()
            skipped += missed
            if len(rows):
                check_rows(rows, taken + skipped)
            taken += len(rows)
            assert taken + skipped == counters.rows  # never of rows that are not published yet
            if counters.dropped:
                break
        thread.join()
        assert counters.rows >= total
    assert taken > 0
    feed.close(rows=0, dropped=0)


def test_closing_takes_the_file_away_and_tells_who_has_it_open(tmp_path: Path) -> None:
    feed = writer(tmp_path)
    reader = FeedReader(tmp_path)
    assert not reader.replaced
    feed.publish([batch(0, 5)], rows=5, dropped=0, waiting=3, illegal_domain_requests=1)
    assert not reader.closed
    feed.close(rows=5, dropped=0, illegal_domain_requests=2)
    feed.close(rows=5, dropped=0)
    assert reader.closed
    assert list(tmp_path.iterdir()) == []
    rows, _, counters = reader.read()
    assert (len(rows), counters.closed, counters.waiting) == (5, True, 0)
    assert counters.illegal_domain_requests == 2
    assert reader.replaced
    with pytest.raises(TraceError, match="cannot be read: No such file"):
        FeedReader(tmp_path)
    writer(tmp_path)
    assert reader.replaced  # by another, which perhaps has the same number
    reader.close()


def test_damaged_feeds_are_one_line(tmp_path: Path) -> None:
    feed = writer(tmp_path)
    path = feed_path(tmp_path)
    whole = path.read_bytes()
    reader = FeedReader(tmp_path)
    feed.publish([batch(0, 5)], rows=5, dropped=0, waiting=0)
    with path.open("r+b") as file:
        file.truncate(16_390)
    with pytest.raises(TraceError, match="is damaged: it was cut short"):
        reader.read()
    with path.open("r+b") as file:
        file.truncate(100)
    with pytest.raises(TraceError, match="is damaged: it was cut short"):
        reader.read()
    reader.close()
    for content, expected in (
        (b"", "not a feed"),
        (b"x" * len(whole), "not a feed"),
        (whole[:-1], "of another size than it says"),
        (whole[:16] + b"{]" + whole[18:], "Expecting"),
        (whole.replace(b'"num_experts": 8', b'"num_experts": 0'), "num_experts"),
        (whole.replace(b'"capacity"', b'"capacitx"'), "capacity"),
    ):
        path.write_bytes(content)
        with pytest.raises(TraceError, match=f"feed.bin: is damaged: .*{expected}"):
            FeedReader(tmp_path)
    small = RouteShape(4, 6, 2)
    feed = writer(tmp_path, shape=small)
    feed.publish([batch(0, 9)], rows=9, dropped=0, waiting=0)
    with FeedReader(tmp_path) as reader, pytest.raises(TraceError, match="expert 7, but .* is 6"):
        reader.read()


def test_a_recorder_publishes_what_it_writes(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path / "run")
    with FeedReader(tmp_path / "run") as reader:
        assert reader.tokenizer == "tiny"
        captured = np.concatenate([engine.step() for _ in range(20)])
        pieces: list[np.ndarray] = []

        def all_there() -> bool:
            pieces.append(reader.read()[0])
            return sum(map(len, pieces)) == len(captured)

        wait_until(all_there)
        np.testing.assert_array_equal(np.concatenate(pieces)["experts"], captured)
        first = engine.close()["rows"]
        _, _, counters = reader.read()
        assert (counters.rows, counters.closed) == (first, True)
    assert not feed_path(tmp_path / "run").parent.exists()
    assert rs.verify(tmp_path / "run").ok
    # A second capture into the same folder goes on counting.
    engine = FakeEngine(tmp_path / "run", seed=1)
    with FeedReader(tmp_path / "run") as reader:
        engine.step(7)
        wait_until(lambda: reader.read()[2].rows == first + 7)
    engine.close()
    assert len(rs.Trace.open(tmp_path / "run")) == first + 7


def test_no_feed_where_none_is_wanted(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path / "run", live=False)
    engine.step()
    assert not feed_path(tmp_path / "run").exists()
    engine.close()


def test_a_feed_that_cannot_be_written_is_said_and_the_capture_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    FakeEngine(tmp_path / "run").close()
    (tmp_path / "run" / "live").write_text("a file where a folder must be")
    with caplog.at_level(logging.WARNING, logger="routestats"):
        engine = FakeEngine(tmp_path / "run", seed=1)
    assert "no live view of this capture" in caplog.text
    engine.step()
    assert engine.close()["rows"] == engine.rows
