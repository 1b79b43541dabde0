"""Following a run through everything that engines do to it."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from live_cases import SHAPE, FakeEngine, wait_until

import routestats as rs
from routestats.errors import DataError
from routestats.live import _follow
from routestats.live._follow import RunFollower
from routestats.live._state import LiveState
from routestats.live._tokens import TokenText
from routestats.schema import RoutingBatch
from routestats.shape import RouteShape
from routestats.trace import TraceWriter
from routestats.trace.feed import FeedReader, feed_path
from routestats.trace.timings import STAGES, StepFigures, TimingInfo, write_timings
from routestats.trace.token_file import FIGURES_KEY


class Taker:
    """Takes everything that a follower gives; fresh rows replace what was given before."""

    def __init__(self, run: Path, limit: int = 10_000) -> None:
        self.follower = RunFollower(run, limit)
        self.pieces: list[np.ndarray] = []

    def poll(self) -> _follow.Standing:
        rows, standing = self.follower.poll()
        if standing.fresh:
            self.pieces.clear()
        if rows is not None and len(rows):
            self.pieces.append(rows["experts"])
        return standing

    @property
    def rows(self) -> int:
        return sum(map(len, self.pieces))

    def all(self) -> np.ndarray:
        return np.concatenate(self.pieces)


def test_from_the_first_row_to_the_finished_run_and_on(tmp_path: Path) -> None:
    taker = Taker(tmp_path / "run")
    assert taker.poll() == _follow.Standing("waiting")
    engine = FakeEngine(tmp_path / "run")
    assert taker.poll().state == "idle"
    captured = [engine.step() for _ in range(10)]
    wait_until(lambda: taker.poll().rows == 160)
    standing = taker.poll()
    assert (standing.state, standing.lag_rows, standing.dropped) == ("live", 0, 0)
    assert standing.silent_seconds is not None
    assert standing.silent_seconds < _follow.LOST_SECONDS
    captured.append(engine.step())  # published by closing at the latest, and read after it
    engine.close()
    assert taker.poll().rows == 176
    standing = taker.poll()
    assert (standing.state, standing.rows, standing.silent_seconds) == ("finished", 176, None)
    # A second engine into the same folder: the same run goes on, and no row comes twice.
    engine = FakeEngine(tmp_path / "run", seed=1)
    captured += [engine.step() for _ in range(3)]
    wait_until(lambda: taker.poll().rows == 224)
    engine.close()
    assert taker.poll().state == "live"
    assert taker.poll().state == "finished"
    np.testing.assert_array_equal(taker.all(), np.concatenate(captured))
    assert taker.follower.epoch == 1
    taker.follower.close()


def test_no_row_comes_twice_where_the_feed_closes_before_the_last_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine(tmp_path / "run")
    taker = Taker(tmp_path / "run")
    captured = [engine.step() for _ in range(3)]
    wait_until(lambda: taker.poll().rows == 48)
    captured.append(engine.step())
    close = TraceWriter.close
    between: list[_follow.Standing] = []

    def polled_before(writer: TraceWriter, *args: Any, **totals: Any) -> None:
        assert not feed_path(tmp_path / "run").exists()
        between.extend(taker.poll() for _ in range(3))
        close(writer, *args, **totals)

    monkeypatch.setattr(TraceWriter, "close", polled_before)
    engine.close()
    assert [s.rows for s in between] == [64] * 3
    assert between[-1].state == "incomplete"
    last = [taker.poll() for _ in range(2)]
    assert [(s.state, s.rows, s.skipped) for s in last] == [("finished", 64, 0)] * 2
    np.testing.assert_array_equal(taker.all(), np.concatenate(captured))


def test_a_follower_that_comes_late_knows_what_it_did_not_see(tmp_path: Path) -> None:
    run = tmp_path / "run"
    engine = FakeEngine(run, flush_rows=32)  # much of it is in files by then
    captured = np.concatenate([engine.step() for _ in range(10)])
    wait_until(lambda: Taker(run).poll().rows == 160)
    late = Taker(run, limit=20)
    standing = late.poll()
    assert (standing.source, standing.rows, standing.skipped) == ("feed", 160, 140)
    np.testing.assert_array_equal(late.all(), captured[-20:])  # no file was asked
    engine.close()
    # The next capture has published nothing yet, and its feed states the whole run's rows.
    with FakeEngine(run, seed=1, pause=60.0):
        standing = Taker(run).poll()
        assert (standing.source, standing.rows, standing.skipped) == ("feed", 160, 160)


def test_where_the_feed_fails_the_files_are_followed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    engine = FakeEngine(run, flush_rows=32)
    captured = [engine.step() for _ in range(4)]
    taker = Taker(run)
    assert wait_until(lambda: (s := taker.poll()).rows == 64 and s).source == "feed"
    with FeedReader(run) as reader:
        os.truncate(feed_path(run), 100)
        assert "feed.bin: is damaged" in str(taker.poll().problem)
        feed_path(run).unlink()  # as of a writer that gives it up
        assert reader.replaced
    captured += [engine.step() for _ in range(4)]
    assert wait_until(lambda: (s := taker.poll()).rows == 128 and s).source == "files"
    np.testing.assert_array_equal(taker.all(), np.concatenate(captured))
    engine.close()
    assert (taker.poll().rows, taker.poll().skipped) == (128, 0)


def test_a_feed_that_has_ended_and_could_not_be_removed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    engine = FakeEngine(run)
    captured = engine.step()
    taker = Taker(run)
    wait_until(lambda: taker.poll().rows == 16)
    (tmp_path / "kept").hardlink_to(feed_path(run))
    engine.close()
    feed_path(run).parent.mkdir()
    feed_path(run).hardlink_to(tmp_path / "kept")
    standings = [taker.poll() for _ in range(4)]
    assert [standing.source for standing in standings[1:]] == ["files"] * 3
    assert (standings[-1].state, standings[-1].rows) == ("finished", 16)
    np.testing.assert_array_equal(taker.all(), captured)


def test_counts_stay_while_nothing_can_be_read(tmp_path: Path) -> None:
    run, description = tmp_path / "run", tmp_path / "run" / "run.json"
    taker = Taker(run)
    with FakeEngine(run):
        wait_until(lambda: taker.poll().rows > 100)
        whole = description.read_text()
        before = taker.poll()
        description.write_text("{")
        for _ in range(2):
            lost = taker.poll()
            assert (lost.state, lost.rows, lost.dropped) == ("lost", before.rows, 0)
        description.unlink()
        gone = taker.poll()
        assert (gone.state, gone.rows) == ("waiting", before.rows)
        description.write_text(whole)
        after = wait_until(lambda: (s := taker.poll()).rows > before.rows and s)
        assert (after.state, after.skipped, taker.follower.epoch) == ("live", 0, 1)
        assert taker.rows == after.rows
    shutil.rmtree(run)
    taker.poll()
    rows = taker.poll().rows
    assert rows >= after.rows
    engine = FakeEngine(run, RouteShape(3, 8, 2), seed=1)
    new = taker.poll()
    assert (new.state, new.rows, taker.follower.epoch) == ("idle", 0, 2)
    engine.close()
    taker.follower.close()


def test_another_run_in_the_same_folder_is_a_new_epoch(tmp_path: Path) -> None:
    taker = Taker(tmp_path / "run")
    with FakeEngine(tmp_path / "run"):
        wait_until(lambda: taker.poll().rows > 100)
    shutil.rmtree(tmp_path / "run")
    taker.poll()  # what the feed had last
    assert taker.poll().state == "waiting"
    with FakeEngine(tmp_path / "run", RouteShape(3, 300, 4), seed=1) as engine:
        wait_until(lambda: taker.poll().state == "live" and taker.follower.epoch == 2)
        wait_until(lambda: taker.poll() and taker.pieces[-1].shape[1:] == (3, 4))
        assert taker.follower.shape == engine.shape
    taker.follower.close()


def test_an_engine_that_dies_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine(tmp_path / "run")
    engine.step()
    taker = Taker(tmp_path / "run")
    wait_until(lambda: taker.poll().rows == 16)
    left = feed_path(tmp_path / "run").read_bytes()
    engine.close()
    taker.poll()
    feed_path(tmp_path / "run").parent.mkdir()
    feed_path(tmp_path / "run").write_bytes(left)  # as a killed process leaves it
    monkeypatch.setattr(_follow, "LOST_SECONDS", 0.2)
    standing = wait_until(lambda: (s := taker.poll()).state == "lost" and s)
    assert standing.silent_seconds > 0.2
    monkeypatch.undo()
    # Its successor writes a feed of its own over it.
    with FakeEngine(tmp_path / "run", seed=1):
        wait_until(lambda: taker.poll().state == "live" and taker.poll().rows > 100)
    taker.follower.close()


def test_a_run_without_a_feed_is_read_from_its_files_as_they_appear(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path / "run", live=False, flush_rows=32)
    taker = Taker(tmp_path / "run", limit=20)
    assert taker.poll().state == "incomplete"
    captured = [engine.step() for _ in range(4)]
    wait_until(lambda: taker.poll().rows == 64)
    captured += [engine.step() for _ in range(2)]
    standing = wait_until(lambda: (s := taker.poll()).rows == 96 and s)
    engine.close()
    everything = np.concatenate(captured)
    # 20 rows at most each time, the newest, and in their order.
    np.testing.assert_array_equal(taker.all()[-20:], everything[-20:])
    assert standing.skipped == 96 - taker.rows
    rows, _ = RunFollower(tmp_path / "run", 1000).poll()
    assert rows is not None
    trace = rs.Trace.open(tmp_path / "run")
    np.testing.assert_array_equal(rows["experts"], everything[-len(rows) :])
    np.testing.assert_array_equal(rows["experts"], trace.experts)
    assert rows["token_id"].tolist() == trace.rows["token_id"].to_pylist()
    assert rows["position"].tolist() == trace.rows["position"].to_pylist()
    assert set(rows["phase"].tolist()) == {0}
    assert len(np.unique(rows["request"])) == 6


def write_parts(run: Path, experts: np.ndarray) -> list[Path]:
    """Ten rows to a file."""
    shape = RouteShape(experts.shape[1], 8, experts.shape[2])
    with TraceWriter(run, shape, weights=False, model="m", engine={}, flush_rows=10) as writer:
        for first in range(0, len(experts), 10):
            writer.write(
                RoutingBatch(
                    domain="d",
                    request_ids=("r",),
                    request_index=np.zeros(10, np.int32),
                    positions=np.arange(first, first + 10, dtype=np.int32),
                    token_ids=np.zeros(10, np.int32),
                    phase=np.zeros(10, np.uint8),
                    experts=experts[first : first + 10],
                )
            )
    return sorted((run / "tokens" / "domain=d").glob("part-*"))


def test_files_are_read_once_whatever_their_times(tmp_path: Path) -> None:
    experts = np.random.default_rng(0).integers(0, 8, (40, 3, 2), np.uint8)
    paths = write_parts(tmp_path / "run", experts)
    assert len(paths) == 4
    for path, at in zip(paths, (3, 0, 2, 1), strict=True):  # as a copy may leave them
        os.utime(path, (at, at))
    taker = Taker(tmp_path / "run")
    assert [taker.poll().rows for _ in range(3)] == [40] * 3
    np.testing.assert_array_equal(taker.all(), experts)


def test_a_damaged_file_costs_its_own_rows_only(tmp_path: Path) -> None:
    experts = np.random.default_rng(0).integers(0, 8, (40, 3, 2), np.uint8)
    paths = write_parts(tmp_path / "run", experts)
    table = pq.read_table(paths[1])
    bad = pa.array(np.full((10, 6), 200, np.uint8).tolist(), table["experts"].type)
    place = table.column_names.index("experts")
    pq.write_table(table.set_column(place, table.schema.field("experts"), bad), paths[1])
    footer = b"[1]"
    table = pq.read_table(paths[2]).replace_schema_metadata(
        {**table.schema.metadata, FIGURES_KEY: footer}
    )
    pq.write_table(table, paths[2])
    taker = Taker(tmp_path / "run")
    found = [taker.poll() for _ in range(5)]
    problems = [standing.problem for standing in found if standing.problem]
    assert len(problems) == 2
    assert any("footer is not a trace's: 'list' object" in problem for problem in problems)
    assert any("expert 200, but num_experts is 8" in problem for problem in problems)
    assert (found[-1].rows, found[-1].skipped) == (20, 0)
    rows = np.concatenate(taker.pieces)
    expected = np.concatenate([experts[:10], experts[30:]])
    assert sorted(rows.tolist()) == sorted(expected.tolist())


def test_what_cannot_be_read_is_said_and_tried_again(tmp_path: Path) -> None:
    FakeEngine(tmp_path / "run").close()
    taker = Taker(tmp_path / "run")
    assert taker.poll().state == "finished"
    description = (tmp_path / "run" / "run.json").read_text()
    (tmp_path / "run" / "run.json").write_text("{")
    assert "run.json: cannot be read" in str(taker.poll().problem)
    (tmp_path / "run" / "run.json").write_text(description + "\n")
    assert taker.poll().problem is None
    feed_path(tmp_path / "run").parent.mkdir()
    feed_path(tmp_path / "run").write_bytes(b"x" * 20_000)
    assert "feed.bin: is damaged" in str(taker.poll().problem)
    feed_path(tmp_path / "run").unlink()
    assert taker.poll().state == "finished"


def test_a_state_keeps_its_window_through_a_restart_and_not_through_another_run(
    tmp_path: Path,
) -> None:
    state = LiveState(tmp_path / "run", window=64, least_seconds=0.0)
    state.refresh()
    assert (state.shape, state.epoch) == (None, 0)
    with FakeEngine(tmp_path / "run"):
        wait_until(lambda: state.refresh() and state.window and len(state.window) == 64)
        assert wait_until(lambda: state.refresh() and state.rate) > 0
    for _ in range(3):
        state.refresh()
    assert (state.standing.state, state.rate) == ("finished", 0.0)
    assert state.model == "synthetic"
    assert state.text.known
    rows = state.standing.rows
    with FakeEngine(tmp_path / "run", seed=1):
        state.refresh()
        assert state.window is not None
        assert len(state.window) == 64
        wait_until(lambda: state.refresh() and state.standing.rows > rows)
        assert state.rate >= 0
    shutil.rmtree(tmp_path / "run")
    state.refresh()
    engine = FakeEngine(tmp_path / "run", replace(SHAPE, num_layers=2), seed=2)
    wait_until(lambda: state.refresh() and state.epoch == 2)
    assert state.shape == engine.shape
    assert len(state.window) == 0
    engine.close()
    state.close()


def test_timings_are_seen_when_they_come(tmp_path: Path) -> None:
    FakeEngine(tmp_path / "run").close()
    state = LiveState(tmp_path / "run")
    assert state.timing() is None
    stage_ns = np.arange(2 * 4 * len(STAGES)).reshape(2, 4, len(STAGES))
    write_timings(
        tmp_path / "run",
        TimingInfo("hooks", (0, 1, 2, 3), "c", "m", {}),
        [StepFigures("d", 1, 0, 1, False)] * 2,
        np.ones(2, np.int64),
        stage_ns,
    )
    times = state.timing()
    assert times is not None
    np.testing.assert_array_equal(times.stage_ns["gate"], stage_ns[:, :, 0])
    assert state.timing() is times  # not read again
    state.close()


def test_text_of_tokens() -> None:
    text = TokenText(None, "no-such/model", "tiny")
    assert text.known
    from tokenizers import Tokenizer

    folder = Path(rs.__file__).parent / "models" / "tiny"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode("def f(x):\n    return the sum").ids
    shown = "".join(map(text, ids)).replace("␣", " ").replace("⏎", "\n")
    assert shown.replace(" ", "") == "deff(x):\nreturnthesum"
    assert any(text(i).startswith("␣") for i in ids)
    assert TokenText(str(folder))(ids[0]) == text(ids[0])
    assert text(10**6) == "[1000000]"
    assert text(-1) == "[-1]"
    assert TokenText("no-such/model")(5) == "[5]"
    with pytest.raises(DataError, match="tokenizer: expected a folder .*, got no-such/model"):
        TokenText("no-such/model", required=True)
