"""The recorder: what goes wrong on its drain thread reaches the engine in one line."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import routestats as rs
from routestats._core import CaptureRing
from routestats.engines._requests import NewRequest
from routestats.engines._steps import StepRows
from routestats.engines.recorder import Recorder
from routestats.engines.recorder_options import Outcome, RecorderOptions
from routestats.errors import CaptureError, InvalidValueError
from routestats.schema import LookaheadLayout
from routestats.shape import RouteShape

SHAPE = RouteShape(2, 8, 2)
REQUEST = "a-00000001"


def recorder(path: Path, **options: Any) -> Recorder:
    made = Recorder(
        path,
        SHAPE,
        [0, 1],
        model="m",
        engine={},
        settings={},
        options=RecorderOptions(**options),
        hold_records=True,
    )
    made.domains.append("d")
    return made


def step(start: int, rows: int, *, new: bool = False) -> StepRows:
    tokens = np.arange(rows, dtype=np.int32)
    return StepRows(
        [REQUEST],
        [rows],
        np.arange(start, start + rows, dtype=np.int32),
        tokens,
        new=[NewRequest(REQUEST, "d", tokens)] if new else [],
    )


def run_step(target: Recorder, one: StepRows, layers: tuple[int, ...] = (0, 1)) -> bool:
    if not target.begin(one.rows):
        target.note(one)
        return False
    assert isinstance(target.ring, CaptureRing)
    random = np.random.default_rng(0)
    for layer in layers:
        ids = np.argsort(random.random((one.rows, 8)), axis=1)[:, :2].copy()
        target.ring.write_layer(layer, ids, random.random((one.rows, 2)).astype(np.float32))
    target.commit(one)
    return True


def test_a_run_with_its_outcome(tmp_path: Path) -> None:
    made = recorder(tmp_path / "run", counts=True)
    run_step(made, step(0, 5, new=True))
    run_step(made, step(5, 1))
    made.add_outcomes({("a", 0): Outcome(output_tokens=2, task_id="t", finish_reason="stop")})
    totals = made.close()
    assert (totals["rows"], totals["requests"], totals["error"]) == (6, 1, None)
    trace = rs.Trace.open(tmp_path / "run")
    assert rs.verify(trace).ok
    (record,) = trace.requests.to_pylist()
    assert (record["task_id"], record["finish_reason"], record["external_id"]) == ("t", "stop", "a")
    counts = rs.RouteCounts.load(tmp_path / "run" / "counts-any.npz")
    assert counts == rs.count(trace, hops=(0, 1), pairing="any")


def test_the_run_says_what_processor_time_its_drain_thread_took(tmp_path: Path) -> None:
    begin = time.perf_counter()
    made = recorder(tmp_path / "run")
    run_step(made, step(0, 5, new=True))
    taken = made.close()["drain_cpu_ms"]
    assert 0 < taken <= 1e3 * (time.perf_counter() - begin)
    assert rs.Trace.open(tmp_path / "run").info["totals"]["drain_cpu_ms"] == taken


@pytest.mark.parametrize("output_tokens", [1, 3])
def test_rows_that_do_not_make_the_output_are_an_error(tmp_path: Path, output_tokens: int) -> None:
    made = recorder(tmp_path / "run")
    run_step(made, step(0, 5, new=True))
    run_step(made, step(5, 1))
    made.add_outcomes({("a", 0): Outcome(output_tokens=output_tokens)})
    expected = f"put out {output_tokens} tokens, but the captured rows make 2"
    assert expected in made.close()["error"]
    assert not rs.Trace.open(tmp_path / "run").complete


def test_a_stop_string_may_leave_rows_behind_the_output(tmp_path: Path) -> None:
    made = recorder(tmp_path / "run")
    run_step(made, step(0, 5, new=True))
    run_step(made, step(5, 1))
    made.add_outcomes({("a", 0): Outcome(output_tokens=1, exact=False)})
    assert made.close()["error"] is None


def test_a_missing_layer_stops_the_run(tmp_path: Path) -> None:
    made = recorder(tmp_path / "run")
    run_step(made, step(0, 5, new=True))
    with pytest.raises(CaptureError, match="step 1: MoE layer 1 was not written"):
        run_step(made, step(5, 1), layers=(0,))
    with pytest.raises(CaptureError, match="step 1: MoE layer 1 was not written"):
        made.begin(1)
    assert "MoE layer 1" in made.close()["error"]
    trace = rs.Trace.open(tmp_path / "run")
    assert not trace.complete
    assert "MoE layer 1" in trace.info["error"]
    assert len(trace) == 5


def test_what_the_writer_cannot_write_reaches_the_engine(tmp_path: Path) -> None:
    made = recorder(tmp_path / "run", flush_rows=1)
    (tmp_path / "run" / "tokens").write_text("a file where a folder must be")
    run_step(made, step(0, 5, new=True))

    def until_refused() -> None:
        for i in range(10_000):
            run_step(made, step(5 + i, 1))

    with pytest.raises(CaptureError, match="cannot be written"):
        until_refused()
    assert "cannot be written" in made.close()["error"]
    made.close()  # any number of times


def test_a_run_that_cannot_be_closed_says_so_every_time(tmp_path: Path) -> None:
    made = recorder(tmp_path / "run")
    run_step(made, step(0, 5, new=True))
    (tmp_path / "run" / "run.json").unlink()
    (tmp_path / "run" / "run.json").mkdir()  # a folder where a file must be
    first = made.close()["error"]
    assert "cannot be written" in first
    assert made.close()["error"] == first


def test_drop_counts_what_it_leaves_out(tmp_path: Path) -> None:
    made = recorder(tmp_path / "run", policy="drop", ring_rows=4)
    kept = [run_step(made, step(0, 4, new=True))]
    kept += [run_step(made, step(4 + i, 1)) for i in range(50)]
    totals = made.close()
    assert totals["dropped_rows"] == kept.count(False)
    assert totals["rows"] == 4 + sum(kept[1:])
    result = rs.verify(tmp_path / "run")
    dropped = next(check for check in result.checks if check.name == "no drops")
    assert dropped.ok == (totals["dropped_rows"] == 0)


def steps_of(run: Path) -> list[int]:
    """The step of each row, in the order of positions."""
    table = rs.Trace.open(run).rows
    order = np.argsort(table["position"].to_numpy(), kind="stable")
    found: list[int] = table["step"].take(order).to_pylist()
    return found


def test_rows_have_the_step_that_computed_them(tmp_path: Path) -> None:
    made = recorder(tmp_path / "run")
    run_step(made, step(0, 3, new=True))
    made.note(StepRows())  # ran no rows
    run_step(made, step(3, 2))  # the rest of the prompt
    run_step(made, replace(step(5, 4), drafts={REQUEST: 3}))
    run_step(made, step(7, 1))  # one draft of three was accepted
    run_step(made, step(0, 9))  # a preemption: run again, and one further
    assert made.close()["error"] is None
    assert steps_of(tmp_path / "run") == [0, 0, 0, 1, 1, 2, 2, 3, 4]


def test_a_later_capture_counts_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for _ in range(3):
        made = recorder(run)
        run_step(made, step(0, 2, new=True))
        run_step(made, step(2, 1))
        assert made.close()["error"] is None
    found = steps_of(run)
    assert sorted(found) == [0, 0, 1, 2, 2, 3, 4, 4, 5]
    assert found[-3:] == [1, 3, 5]  # position 2 of each capture


def test_an_abandoned_step_shares_no_number(tmp_path: Path) -> None:
    made = recorder(tmp_path / "run")
    run_step(made, step(0, 2, new=True))
    assert made.begin(1)
    made.ring.abandon_step()
    run_step(made, step(2, 1))
    made.close()
    first, _, last = steps_of(tmp_path / "run")
    assert first != last


def test_lookahead_is_fetched_behind_the_engines_back(tmp_path: Path) -> None:
    made = Recorder(
        tmp_path / "run",
        SHAPE,
        [0, 1],
        model="m",
        engine={},
        settings={},
        options=RecorderOptions(),
        hold_records=True,
        lookahead=LookaheadLayout((1,), 2, ("as_is",)),
    )
    made.domains.append("d")
    ids = np.arange(10, dtype=np.uint8).reshape(5, 1, 1, 2) % 8
    fetchers: list[str] = []

    def fetch() -> np.ndarray:
        fetchers.append(threading.current_thread().name)
        return ids

    run_step(made, replace(step(0, 5, new=True), lookahead=fetch))
    assert made.close()["error"] is None
    assert fetchers == ["routestats-drain"]
    trace = rs.Trace.open(tmp_path / "run")
    (batch,) = trace.iter_lookahead()
    np.testing.assert_array_equal(batch.lookahead, ids)


def test_options_are_checked() -> None:
    with pytest.raises(InvalidValueError, match="policy: expected 'block' or 'drop', got 'x'"):
        RecorderOptions(policy="x")  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="ring_rows: expected at least 1, got 0"):
        RecorderOptions(ring_rows=0)
