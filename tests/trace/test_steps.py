"""The column ``step``, and the versions of the format that have it and lack it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trace_cases import batch, routing, writer

import routestats as rs
from routestats.errors import InvalidTypeError, InvalidValueError, TraceError
from routestats.schema import RoutingBatch
from routestats.trace import Trace, verify
from routestats.trace.token_file import TokenFile

STUDY = Path(__file__).parents[2] / "study" / "tiny-humaneval-gsm8k"


def stepped(request: str, steps: list[int] | None, rows: int = 4) -> RoutingBatch:
    values = None if steps is None else np.array(steps, np.uint32)
    return replace(batch(request, rows), step=values)


def steps_of(trace: Trace) -> list[int | None]:
    found: list[int | None] = trace.rows["step"].to_pylist()
    return found


def test_steps_are_read_back_and_a_later_capture_counts_on(tmp_path: Path) -> None:
    with writer(tmp_path / "run") as out:
        assert out.next_step == 0
        out.write(stepped("a", [0, 0, 7, 2**31 + 5]))
    with writer(tmp_path / "run") as out:
        assert out.next_step == 2**31 + 6
        out.write(stepped("b", [out.next_step] * 4))
    with writer(tmp_path / "run") as out:
        assert out.next_step == 2**31 + 7
    trace = Trace.open(tmp_path / "run")
    assert steps_of(trace) == [0, 0, 7, 2**31 + 5, *[2**31 + 6] * 4]
    table = trace.to_arrow()
    assert table.schema.field("step").type == pa.uint32()
    assert steps_of(trace.filter(requests=["b"])) == [2**31 + 6] * 4
    (one,) = trace.filter(requests=["a"]).batches("step")
    assert one.step is not None
    assert one.step.dtype == np.uint32
    assert one.step.tolist() == [0, 0, 7, 2**31 + 5]


def test_rows_whose_step_is_not_known_are_null(tmp_path: Path) -> None:
    with writer(tmp_path / "run") as out:
        for name, steps in (("a", None), ("b", [3] * 4), ("c", None), ("d", [4] * 4)):
            out.write(stepped(name, steps))
    trace = Trace.open(tmp_path / "run")
    assert steps_of(trace) == [None] * 4 + [3] * 4 + [None] * 4 + [4] * 4
    # One chunk of the file, of which a batch has all steps or none.
    found = [(len(one), None if one.step is None else set(one.step.tolist()))
             for one in trace.batches(["step", "experts"])]  # fmt: skip
    assert found == [(4, None), (4, {3}), (4, None), (4, {4})]
    kept = trace.filter(requests=["b", "c"])
    assert steps_of(kept) == [3] * 4 + [None] * 4
    assert steps_of(rs.trace.join({"x": kept, "y": kept})) == ([3] * 4 + [None] * 4) * 2
    with writer(tmp_path / "run") as out:
        assert out.next_step == 5


def test_the_next_step_without_statistics(tmp_path: Path) -> None:
    """Another program may have written a file again without them."""
    with writer(tmp_path / "run") as out:
        out.write(stepped("a", [5, 9, 2, 1]))
    (path,) = (tmp_path / "run").glob("tokens/*/*.parquet")
    table = pq.read_table(path)
    pq.write_table(table, path, write_statistics=False)
    assert TokenFile(path).next_step() == 10
    with writer(tmp_path / "run") as out:
        assert out.next_step == 10


def test_steps_of_arrays() -> None:
    ids, _ = routing(4)
    trace = Trace.from_arrays(ids, num_experts=8, step=[3, 1, 2, 2**32 - 1])
    assert steps_of(trace) == [3, 1, 2, 2**32 - 1]
    assert steps_of(Trace.from_arrays(ids, num_experts=8)) == [None] * 4
    (one,) = Trace.from_arrays(ids, num_experts=8).batches("step")
    assert (len(one), one.step, len(one[1:3])) == (4, None, 2)
    for wrong in ([-1, 0, 0, 0], [0, 0, 0, 2**32]):
        with pytest.raises(InvalidValueError, match="step: expected values of uint32"):
            Trace.from_arrays(ids, num_experts=8, step=wrong)
    with pytest.raises(InvalidTypeError, match="step: expected integers"):
        Trace.from_arrays(ids, num_experts=8, step=[0.5] * 4)


def test_a_run_of_version_1_is_read() -> None:
    trace = Trace.open(STUDY)
    assert trace.info["format_version"] == 1
    assert "step" not in TokenFile(trace.files[0]).columns
    assert (len(trace), trace.rows["step"].null_count) == (112_425, 112_425)
    assert all(one.step is None for one in trace.batches(["step", "position"]))
    assert trace.filter(domain="gsm8k").experts.shape[1:] == (32, 2)


def test_a_capture_is_added_to_a_run_of_version_1(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(STUDY, run)
    old = Trace.open(run)
    info = old.info
    ids = np.zeros((3, 32, 2), np.uint8)
    ids[:, :, 1] = 1
    with writer(run, old.shape, weights=False, model=info["model"], layer_ids=old.layer_ids) as out:
        assert (out.next_step, out.before("rows")) == (0, 112_425)
        # From the first new file on it is a run that version 1 does not describe.
        assert json.loads((run / "run.json").read_text())["format_version"] == 2
        one = batch("new-0", 3, "humaneval", old.shape)
        out.write(replace(one, experts=ids, weights=None, step=np.array([0, 1, 1], np.uint32)))
    trace = Trace.open(run)
    assert trace.complete
    assert trace.info["totals"]["rows"] == len(trace) == 112_428
    steps = trace.rows["step"]
    assert steps.null_count == 112_425
    assert [step for step in steps.to_pylist() if step is not None] == [0, 1, 1]
    checks = {check.name: check.ok for check in verify(trace).checks}
    assert [name for name, ok in checks.items() if not ok] == ["requests whole"]  # has no record


def test_versions_that_are_not_known(tmp_path: Path) -> None:
    with writer(tmp_path / "run") as out:
        out.write(batch("a", 4))
    path = tmp_path / "run" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 3}))
    with pytest.raises(TraceError, match="expected format version 1 or 2, got 3"):
        Trace.open(tmp_path / "run")
    with pytest.raises(TraceError, match="expected format version 1 or 2, got 3"):
        writer(tmp_path / "run")
