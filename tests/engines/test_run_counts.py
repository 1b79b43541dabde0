"""Counts and paths beside a run are of all its rows, or not there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import routestats as rs
from routestats._core import CaptureRing
from routestats.engines import _run_counts
from routestats.engines._requests import NewRequest
from routestats.engines._steps import StepRows
from routestats.engines.recorder import Recorder
from routestats.engines.recorder_options import RecorderOptions
from routestats.schema import COUNTS_FILE, PATHS_FILES
from routestats.shape import RouteShape

SHAPE = RouteShape(3, 8, 2)
BOTH = {"counts": True, "paths": True}
FILES = (COUNTS_FILE, *PATHS_FILES.values())


def start(run: Path, **options: Any) -> Recorder:
    return Recorder(
        run,
        SHAPE,
        [0, 1, 2],
        model="m",
        engine={},
        settings={},
        options=RecorderOptions(live=False, **options),
        hold_records=True,
    )


def step(recorder: Recorder, name: str, rows: int) -> None:
    tokens = np.arange(rows, dtype=np.int32)
    one = StepRows([name], [rows], tokens, tokens, new=[NewRequest(name, "d", tokens)])
    random = np.random.default_rng(rows)
    assert recorder.begin(rows)
    for layer in range(3):
        ids = np.argsort(random.random((rows, 8)), axis=1)[:, :2].copy()
        ring = recorder.ring
        assert isinstance(ring, CaptureRing)
        ring.write_layer(layer, ids, random.random((rows, 2)).astype(np.float32))
    recorder.commit(one)


def capture(run: Path, name: str, rows: int, **options: Any) -> None:
    recorder = start(run, **options)
    step(recorder, name, rows)
    assert recorder.close()["error"] is None


def saved(run: Path) -> list[str]:
    return [name for name in FILES if (run / name).exists()]


def check_saved(run: Path, tokens: int) -> None:
    """What is saved is what counting the whole run gives."""
    trace = rs.Trace.open(run)
    assert len(trace) == tokens
    counts = rs.RouteCounts.load(run / COUNTS_FILE)
    assert counts.tokens == tokens
    assert counts == rs.count(trace, hops=(0, 1), pairing="any")
    for kind, name in PATHS_FILES.items():
        paths = rs.count_paths(trace, kind, top=1000)
        table = pq.read_table(run / name)
        assert table.equals(paths.to_table())
        assert table.schema.metadata[b"tokens"] == str(tokens).encode()


def test_a_second_capture_makes_them_the_whole_runs(tmp_path: Path) -> None:
    run = tmp_path / "run"
    capture(run, "a", 40, **BOTH)
    check_saved(run, 40)
    capture(run, "b", 7, **BOTH)
    check_saved(run, 47)
    capture(run, "c", 1, **BOTH)
    check_saved(run, 48)


def test_counts_are_added_where_they_can_be(tmp_path: Path, monkeypatch: Any) -> None:
    run = tmp_path / "run"
    capture(run, "a", 40, counts=True)
    with monkeypatch.context() as patched:
        patched.setattr(_run_counts, "count", None)  # the run is not read again
        capture(run, "b", 7, counts=True)
    assert rs.RouteCounts.load(run / COUNTS_FILE) == rs.count(rs.Trace.open(run), hops=(0, 1))


@pytest.mark.parametrize("there", ["none", "of fewer rows", "of all hops", "damaged"])
def test_counts_that_cannot_be_added_to_are_made_anew(tmp_path: Path, there: str) -> None:
    run = tmp_path / "run"
    capture(run, "a", 40)
    trace = rs.Trace.open(run)
    if there == "of fewer rows":
        rs.count(trace.experts[:30], num_experts=8, hops=(0, 1)).save(run / COUNTS_FILE)
    elif there == "of all hops":
        rs.count(trace).save(run / COUNTS_FILE)
    elif there == "damaged":
        (run / COUNTS_FILE).write_bytes(b"no counts")
    capture(run, "b", 7, **BOTH)
    check_saved(run, 47)


def test_a_capture_without_them_takes_them_away(tmp_path: Path) -> None:
    run = tmp_path / "run"
    capture(run, "a", 40, **BOTH)
    capture(run, "b", 7, counts=True)
    assert saved(run) == [COUNTS_FILE]
    capture(run, "c", 7)
    assert saved(run) == []


def test_a_capture_that_adds_no_row_leaves_them(tmp_path: Path) -> None:
    run = tmp_path / "run"
    capture(run, "a", 40, **BOTH)
    for options in ({}, BOTH):
        assert start(run, **options).close()["error"] is None
        check_saved(run, 40)
    failed = start(run)
    failed.fail("of something")
    failed.close()
    assert saved(run) == list(FILES)


@pytest.mark.parametrize("options", [{}, BOTH])
def test_a_capture_that_fails_leaves_no_stale_files(tmp_path: Path, options: Any) -> None:
    run = tmp_path / "run"
    capture(run, "a", 40, **BOTH)
    recorder = start(run, **options)
    step(recorder, "b", 7)
    recorder.fail("of something")
    assert recorder.close()["error"] == "of something"
    assert len(rs.Trace.open(run)) == 47
    assert saved(run) == []
    capture(run, "c", 3, **BOTH)
    check_saved(run, 50)


def test_a_killed_capture_leaves_no_stale_files(tmp_path: Path) -> None:
    run = tmp_path / "run"
    capture(run, "a", 40, **BOTH)
    recorder = start(run, flush_rows=1)
    step(recorder, "b", 7)
    while len(rs.Trace.open(run)) < 47:
        assert recorder.error is None
    assert saved(run) == []  # as it would be found after a kill now
    recorder.close()


def test_paths_of_a_run_too_large_to_count_again_are_not_there(
    tmp_path: Path, monkeypatch: Any
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(_run_counts, "_RECOUNTED_BYTES", 47 * 6)
    capture(run, "a", 40, **BOTH)
    capture(run, "b", 7, **BOTH)
    check_saved(run, 47)
    capture(run, "c", 1, **BOTH)
    assert saved(run) == [COUNTS_FILE]
    assert rs.RouteCounts.load(run / COUNTS_FILE).tokens == 48
    not_saved = rs.Trace.open(run).info["not_saved"]
    assert set(not_saved) == set(PATHS_FILES.values())
    assert all("counting all its paths again" in why for why in not_saved.values())
    capture(run, "d", 1, counts=True)
    assert "not_saved" not in rs.Trace.open(run).info


def test_requests_of_rows_that_cannot_be_counted_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = start(tmp_path / "run", counts=True)
    count = recorder._counts.add

    def fails_at_the_end(*arguments: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            raise rs.RouteStatsError("no memory for counts")
        count(*arguments)

    monkeypatch.setattr(recorder._counts, "add", fails_at_the_end)
    step(recorder, "a-00000001", 5)
    assert recorder.close()["error"] == "no memory for counts"
    trace = rs.Trace.open(tmp_path / "run")
    assert (len(trace), trace.complete) == (5, False)
    assert trace.requests["external_id"].to_pylist() == ["a"]
    assert saved(tmp_path / "run") == []


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (lambda table: table.slice(0, 3), "lists 3 paths, expected "),
        (lambda table: table.slice(0, 0), "lists 0 paths, expected "),
        (lambda table: table.replace_schema_metadata({b"\xff": b"\xff"}), "tokens none, but "),
        (lambda table: table.replace_schema_metadata({b"tokens": b"\xff"}), "tokens \ufffd, but "),
    ],
)
def test_verify_finds_what_is_left_out_of_saved_paths(
    tmp_path: Path, changed: Callable[[pa.Table], pa.Table], why: str
) -> None:
    run = tmp_path / "run"
    capture(run, "a", 40, **BOTH)
    file = run / PATHS_FILES["set"]
    pq.write_table(changed(pq.read_table(file)), file)
    (failed,) = (check for check in rs.verify(run).checks if not check.ok)
    assert failed.name == f"saved {file.name}"
    assert failed.detail.startswith(why)
