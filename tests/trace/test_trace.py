"""Traces: what is written is read back, whatever is wrong is said in one line."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trace_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_cases import SHAPE, batch, routing, write_run, writer

from routestats.errors import InvalidTypeError, InvalidValueError, RouteStatsError, TraceError
from routestats.schema import RequestRecord, RoutingBatch
from routestats.shape import RouteShape
from routestats.trace import Trace, verify


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    experts = data.draw(st.sampled_from([2, 8, 256, 257, 512]))
    shape = RouteShape(
        data.draw(st.integers(1, 6)), experts, data.draw(st.integers(1, min(experts, 8)))
    )
    weights = data.draw(st.booleans())
    lengths = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=6))
    path = tmp_path_factory.mktemp("run") / "run"
    flush_rows = data.draw(st.integers(1, 60))
    batches = [batch(f"r{i}", n, f"d{i % 2}", shape, seed=i) for i, n in enumerate(lengths)]
    with writer(path, shape, weights=weights, flush_rows=flush_rows) as out:
        for one in batches:
            kept = one if weights else RoutingBatch(
                one.domain, one.request_ids, one.request_index, one.positions, one.token_ids,
                one.phase, one.experts,
            )  # fmt: skip
            out.write(kept)
            n = len(one)
            out.write_requests([RequestRecord(one.request_ids[0], one.domain, "g", n, 1)])
    trace = Trace.open(path)
    assert trace.shape == shape
    assert trace.complete
    assert len(trace) == sum(lengths)
    in_order = sorted(batches, key=lambda b: b.domain)
    np.testing.assert_array_equal(trace.experts, np.concatenate([b.experts for b in in_order]))
    assert trace.experts.dtype == shape.id_dtype
    if weights:
        np.testing.assert_array_equal(trace.weights, np.concatenate([b.weights for b in in_order]))
    else:
        assert trace.weights is None
    assert trace.rows["position"].to_pylist() == [p for b in in_order for p in b.positions]
    assert trace.rows["request_id"].to_pylist() == [
        b.request_ids[0] for b in in_order for _ in range(len(b))
    ]
    result = verify(trace)
    assert result.ok, result.render()


def test_any_arrow_reader_can_read_it(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    file = next((tmp_path / "run").glob("tokens/domain=d0/*.parquet"))
    table = pq.read_table(file)
    assert table.schema.field("experts").type == pa.list_(pa.uint8(), 8)
    assert json.loads(table.schema.metadata[b"routestats"])["num_experts"] == 8
    alone = Trace.open(file)
    assert (len(alone), alone.shape, alone.domains) == (30, SHAPE, ("d0",))


def test_filters(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    trace = Trace.open(tmp_path / "run")
    assert trace.domains == ("d0", "d1")
    one = trace.filter(domain="d1", layers=slice(1, 3))
    assert (len(one), one.shape.num_layers, one.layer_ids) == (30, 2, (1, 2))
    np.testing.assert_array_equal(one.experts, trace.experts[30:, 1:3])
    assert one.filter(layers=[1]).layer_ids == (2,)
    assert len(trace.filter(requests=["r0", "r3"])) == 20
    assert trace.filter(requests=["r3"]).requests["request_id"].to_pylist() == ["r3"]
    assert len(trace.filter(phase="decode")) == 0
    assert len(trace.filter(phase="prefill")) == 60
    with pytest.raises(InvalidValueError, match="domain: expected one of d0, d1, got 'x'"):
        trace.filter(domain="x")
    with pytest.raises(InvalidValueError, match="layers: expected 0 to 3, got 4"):
        trace.filter(layers=[4])


def test_split_keeps_groups_together(tmp_path: Path) -> None:
    write_run(tmp_path / "run", requests=40)
    trace = Trace.open(tmp_path / "run")
    train, test = trace.split(test=0.25, seed=3)
    groups = [set(part.requests["group"].to_pylist()) for part in (train, test)]
    assert groups[0].isdisjoint(groups[1])
    assert len(train) + len(test) == len(trace)
    assert len(groups[1]) == 5
    assert set(test.row_domains()) == {0, 1}
    again = trace.split(test=0.25, seed=3)[1]
    np.testing.assert_array_equal(again.experts, test.experts)
    with pytest.raises(InvalidValueError, match="at least 2 prompt groups"):
        trace.filter(requests=["r0"]).split()


def test_a_run_larger_than_the_chunk_is_read_in_chunks(tmp_path: Path) -> None:
    with writer(tmp_path / "run", flush_rows=1000) as out:
        for i in range(20):
            out.write(batch(f"r{i}", 1000, seed=i))
    trace = Trace.open(tmp_path / "run")
    before = pa.total_allocated_bytes()
    peak, seen = 0, 0
    for chunk in trace.iter_batches(rows=100):
        seen += len(chunk)
        peak = max(peak, pa.total_allocated_bytes() - before)
        assert len(chunk) <= 100
    assert seen == 20_000
    assert trace.weights is not None
    whole = trace.experts.nbytes + trace.weights.nbytes
    assert peak < whole / 4


def test_appending(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with writer(path) as out:
        out.write(batch("a", 5))
    with writer(path) as out:
        out.write(batch("b", 6))
        assert not Trace.open(path).complete
    trace = Trace.open(path)
    assert trace.complete
    assert trace.info["totals"]["rows"] == 11 == len(trace)
    with pytest.raises(TraceError, match="is a run with model"):
        writer(path, model="other")
    with pytest.raises(TraceError, match="is a run with shape"):
        writer(path, RouteShape(4, 8, 1))
    assert Trace.open(path).complete


def test_totals_are_the_writers_own_and_add_up(tmp_path: Path) -> None:
    path = tmp_path / "run"
    for request, duplicates in (("a", 2), ("b", 3)):
        out = writer(path)
        out.write(batch(request, 5))
        out.write_requests([RequestRecord(request, "d", "g", 5, 1)])
        out.close(
            dropped_rows=duplicates + 1,
            totals={"duplicate_rows": duplicates, "rows": 99, "requests": 99},
            not_saved={"counts-any.npz": "too large"} if request == "a" else None,
        )
        out.close(complete=False)  # a second close says nothing
        info = Trace.open(path).info
        assert info.get("not_saved") == (
            {"counts-any.npz": "too large"} if request == "a" else None
        )
    assert info["totals"] == {"duplicate_rows": 5, "rows": 10, "requests": 2, "dropped_rows": 7}
    out = writer(path)
    assert [out.before(name) for name in ("rows", "dropped_rows", "requests")] == [10, 7, 2]
    out.write(batch("c", 5))
    out.close(complete=False, error="the engine died")
    info = Trace.open(path).info
    assert (info["complete"], info["error"], "totals" in info) == (False, "the engine died", False)
    with writer(path) as out:  # what was cut off is counted from its files
        assert [out.before(name) for name in ("rows", "dropped_rows", "requests")] == [15, 7, 2]
    assert "error" not in Trace.open(path).info


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with writer(tmp_path / "run") as out:
        out.write(batch("a", 5))
        with pytest.raises(TraceError, match="another process is writing"):
            writer(tmp_path / "run")


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(TraceError, match="is no run and not empty: it holds thesis.txt"):
        writer(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_run_without_rows_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), writer(tmp_path / "run"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_an_exception_makes_the_run_incomplete(tmp_path: Path) -> None:
    def interrupted() -> None:
        with writer(tmp_path / "run") as out:
            out.write(batch("a", 5))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    trace = Trace.open(tmp_path / "run")
    assert (trace.complete, len(trace)) == (False, 5)


@pytest.mark.parametrize("domain", ["", "..", "a/b", "a b", "."])
def test_domains_that_cannot_be_folders(tmp_path: Path, domain: str) -> None:
    with pytest.raises(InvalidValueError, match="domain: expected"), writer(tmp_path / "r") as out:
        out.write(batch("a", 5, domain))
    assert list(tmp_path.iterdir()) == []


def test_batches_of_another_shape(tmp_path: Path) -> None:
    with writer(tmp_path / "r") as out:
        with pytest.raises(InvalidValueError, match=r"experts: expected \[T, 4, 2\] of uint8"):
            out.write(batch("a", 5, shape=RouteShape(5, 8, 2)))
        out.write(batch("a", 5))


def test_unreadable_things(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no such folder"):
        Trace.open(tmp_path / "none")
    with pytest.raises(TraceError, match=r"is no run: it has no run\.json"):
        Trace.open(tmp_path)
    foreign = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1]}), foreign)
    with pytest.raises(TraceError, match="is no trace: its schema lacks"):
        Trace.open(foreign)
    write_run(tmp_path / "run")
    file = next((tmp_path / "run").glob("tokens/domain=d0/*.parquet"))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TraceError, match="cannot be read as Parquet"):
        len(Trace.open(tmp_path / "run"))
    file.write_bytes(whole)
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(TraceError, match=r"run.json: cannot be read"):
        Trace.open(tmp_path / "run")


_KILLED = """
    import sys, os, signal
    from pathlib import Path
    sys.path[:0] = {path!r}
    from trace_cases import batch, writer
    out = writer(Path(sys.argv[1]), flush_rows=100)
    for i in range(10):
        out.write(batch(f"r{{i}}", 70, seed=i))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_leaves_what_was_flushed(tmp_path: Path) -> None:
    code = textwrap.dedent(_KILLED.format(path=[str(Path(trace_cases.__file__).parent)]))
    run = tmp_path / "run"
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, check=False)
    assert done.returncode == -9, done.stderr.decode()
    (run / "tokens" / "domain=d" / ".tmp-part-000099.parquet-1").write_bytes(b"half")
    trace = Trace.open(run)
    assert (trace.complete, len(trace)) == (False, 700)
    result = verify(run)
    assert result.ok, result.render()
    assert "INCOMPLETE" in result.render()
    with writer(run) as out:  # the dead writer's lock does not hold
        out.write(batch("late", 5))
    assert Trace.open(run).info["totals"]["rows"] == 705
    assert not list(run.rglob(".tmp-*"))


_FULL = """
    import resource, signal, sys
    from pathlib import Path
    sys.path[:0] = {path!r}
    from routestats.errors import TraceError
    from trace_cases import batch, writer
    out = writer(Path(sys.argv[1]), flush_rows=1000)
    out.write(batch("fits", 1000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    for _ in range(2):
        try:
            out.write(batch("full", 1000))
        except TraceError as error:
            print(error)
    out.close(complete=True)
"""


def test_a_full_disk_stops_the_run_and_keeps_what_is_there(tmp_path: Path) -> None:
    code = textwrap.dedent(_FULL.format(path=[str(Path(trace_cases.__file__).parent)]))
    run = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert lines[0] == lines[1]
    assert "part-000001.parquet: cannot be written: File too large" in lines[0]
    trace = Trace.open(run)
    assert (trace.complete, len(trace)) == (False, 1000)
    assert not list(run.rglob(".tmp-*"))


def test_an_unwritable_place() -> None:
    with pytest.raises(TraceError, match="cannot be written"):
        writer(Path("/proc/none/run"))


def test_from_arrays_checks_its_arguments() -> None:
    ids, weights = routing(6)
    trace = Trace.from_arrays(ids, num_experts=8)
    assert not trace.ordered
    assert Trace.from_arrays(ids, num_experts=8, weights=weights).ordered
    assert trace.rows["position"].to_pylist() == list(range(6))
    bad = ids.astype(np.int64)
    bad[3, 1, 0] = 9
    with pytest.raises(InvalidValueError, match=r"experts\[3, 1, 0\] = 9, but num_experts is 8"):
        Trace.from_arrays(bad, num_experts=8)
    with pytest.raises(InvalidTypeError, match="experts: expected integers, got float64"):
        Trace.from_arrays(ids.astype(float), num_experts=8)
    with pytest.raises(InvalidValueError, match="sort_by_weight"):
        Trace.from_arrays(ids, num_experts=8, weights=weights[..., ::-1])
    with pytest.raises(InvalidValueError, match="request_ids: expected 6"):
        Trace.from_arrays(ids, num_experts=8, request_ids=["a"])


def test_from_arrays_takes_any_stride() -> None:
    ids, _ = routing(12)
    trace = Trace.from_arrays(ids[::2, ::-1], num_experts=8, request_ids=[0, 1] * 3)
    np.testing.assert_array_equal(trace.experts, ids[::2, ::-1])
    assert trace.rows["position"].to_pylist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("rows", [0, -1, 2.5, "many", True])
def test_chunks_of_no_size(tmp_path: Path, rows: Any, held: bool) -> None:
    write_run(tmp_path / "run")
    trace = Trace.open(tmp_path / "run")
    if held:
        assert len(trace.experts) == 60
    for read in (trace.batches, trace.iter_batches, trace.iter_experts):
        with pytest.raises((InvalidTypeError, InvalidValueError), match="^rows: expected a"):
            list(read(rows=rows))


def test_arrow_and_pandas(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    trace = Trace.open(tmp_path / "run")
    table = trace.to_arrow()
    assert table.column_names[-2:] == ["experts", "weights"]
    assert len(table) == 60
    pytest.importorskip("pandas")
    assert len(trace.to_pandas()) == 60


def test_errors_are_routestats_errors() -> None:
    assert issubclass(TraceError, RouteStatsError)


@pytest.mark.parametrize("name", ["", "..", "a b", "a\n", "é", "a" * 101, "\udcff"])
def test_a_folder_that_is_named_after_no_domain(tmp_path: Path, name: str) -> None:
    write_run(tmp_path / "run")
    tokens = tmp_path / "run" / "tokens"
    folder = next(tokens.iterdir()).rename(tokens / f"domain={name}")
    for path in (tmp_path / "run", next(folder.iterdir())):
        with pytest.raises(TraceError, match="its name holds no legal domain") as raised:
            Trace.open(path)
        assert str(raised.value).encode().count(b"\n") == 0


def test_a_batch_of_some_columns_says_what_it_has() -> None:
    trace = Trace.from_arrays(np.zeros((3, 2, 1), np.uint8), num_experts=4)
    (batch,) = trace.batches(columns=["token_id", "experts"])
    assert repr(batch) == "<RoutingBatch of 3 rows of default: token_ids, experts>"
    with pytest.raises(InvalidValueError, match="request_index: .*name 'request_id' in columns="):
        _ = batch.request_index
