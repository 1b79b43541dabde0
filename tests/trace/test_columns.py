"""What is asked of a trace is read, nothing else, and of a small run once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from trace_cases import SHAPE, batch, routing, write_run, writer

import routestats as rs
from routestats.errors import InvalidValueError, TraceError
from routestats.schema import RequestRecord, RoutingBatch
from routestats.trace import Trace, join

ALL = ("request_id", "position", "token_id", "phase", "step", "experts", "weights")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Rows that pyarrow decodes, by column."""
    rows: Counter[str] = Counter()
    read = pq.ParquetFile.iter_batches

    def iter_batches(self: pq.ParquetFile, *args: Any, **more: Any) -> Iterator[Any]:
        for part in read(self, *args, **more):
            rows.update(dict.fromkeys(part.schema.names, part.num_rows))
            yield part

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)
    return rows


@pytest.fixture(params=["held", "streamed"])
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param == "streamed":
        monkeypatch.setattr("routestats.trace._sources.HELD_BYTES", 0)
    return bool(request.param == "held")


@pytest.mark.parametrize("column", ALL)
def test_no_other_column_is_decoded(
    tmp_path: Path, decoded: Counter[str], held: bool, column: str
) -> None:
    write_run(tmp_path / "run")
    trace = Trace.open(tmp_path / "run")
    assert trace.columns == ALL
    for one in trace.batches(column):
        assert one.domain in ("d0", "d1")
        assert bool(one.request_ids) is (column == "request_id")
        assert len(one.columns()) == 1
        with pytest.raises(InvalidValueError, match="read without it"):
            getattr(one, "phase" if column != "phase" else "experts")
    assert decoded == {column: 60}


def test_batches_hold_the_rows(tmp_path: Path, held: bool) -> None:
    write_run(tmp_path / "run")
    trace = Trace.open(tmp_path / "run")
    names = []
    for one in trace.batches(["experts", "request_id", "weights"], rows=7):
        assert len(one) <= 7
        names += [one.request_ids[code] for code in one.request_index]
    assert names == trace.rows["request_id"].to_pylist()
    parts = list(trace.batches(["weights", "experts"], rows=7))
    np.testing.assert_array_equal(np.concatenate([p.experts for p in parts]), trace.experts)
    np.testing.assert_array_equal(np.concatenate([p.weights for p in parts]), trace.weights)


def test_counting_decodes_no_weights(tmp_path: Path, decoded: Counter[str], held: bool) -> None:
    write_run(tmp_path / "run")
    trace = Trace.open(tmp_path / "run")
    assert rs.count(trace).tokens == 60
    assert trace.experts.shape == (60, 4, 2)
    assert decoded == {"experts": 60 if held else 120}


def test_parts_of_a_trace_read_nothing_again(tmp_path: Path, decoded: Counter[str]) -> None:
    write_run(tmp_path / "run", requests=12)
    trace = Trace.open(tmp_path / "run")
    for _ in range(2):
        train, test = trace.split(test=0.4, seed=1)
        for part in (trace, train, test, test.filter(domain="d1"), train.filter(phase="prefill")):
            assert len(part.rows) == len(part.experts) == len(part.row_groups()) == len(part)
            assert len(part.row_domains()) == sum(map(len, part.iter_experts()))
    steps = decoded.pop("step")  # few statistics read it, so it is not kept
    assert steps > 0
    assert decoded == dict.fromkeys(("request_id", "position", "token_id", "phase", "experts"), 120)


def test_a_large_run_keeps_only_what_selects_rows(
    tmp_path: Path, decoded: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routestats.trace._sources.HELD_BYTES", 60 * SHAPE.row_width - 1)
    write_run(tmp_path / "run")
    trace = Trace.open(tmp_path / "run")
    for _ in range(2):
        part = trace.filter(phase="prefill", requests=["r1", "r2"])
        assert sum(map(len, part.batches(["experts"]))) == 20
        assert len(part.row_groups()) == 20
    assert decoded == {"request_id": 60, "phase": 60, "experts": 120}


def test_files_without_a_chosen_row_are_not_read(
    tmp_path: Path, decoded: Counter[str], held: bool
) -> None:
    write_run(tmp_path / "run", flush_rows=10)  # a file for each request
    trace = Trace.open(tmp_path / "run")
    assert len(trace.filter(requests=["r2"])) == 10
    decoded.clear()
    (one,) = trace.filter(requests=["r2"]).batches(["weights"])
    assert one.weights is not None
    assert decoded == {"weights": 10}


def test_only_the_files_of_the_chunks_taken_are_read(
    tmp_path: Path, decoded: Counter[str], held: bool
) -> None:
    write_run(tmp_path / "run", flush_rows=10)
    chunks = Trace.open(tmp_path / "run").batches(["phase", "experts"])
    assert len(next(chunks)) == 10
    assert decoded == {"phase": 10, "experts": 10}


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    ids, _ = routing(6)
    trace = Trace.from_arrays(ids, num_experts=8)
    expected = "columns: expected one of request_id, position, token_id, phase, step, experts"
    for wrong in ("weights", "lookahead", "domain", "no such"):
        with pytest.raises(InvalidValueError, match=f"{expected}, got '{wrong}'"):
            trace.batches(["experts", wrong])
    with pytest.raises(InvalidValueError, match="columns: expected some of"):
        trace.batches([])
    with pytest.raises(InvalidValueError, match="rows: expected at least 1"):
        trace.batches("experts", rows=0)


def test_experts_of_a_trace_are_read_only(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    ids, _ = routing(6)
    for trace in (Trace.open(tmp_path / "run"), Trace.from_arrays(ids, num_experts=8)):
        for values in (trace.experts, next(trace.iter_experts()), trace.filter(layers=[1]).experts):
            with pytest.raises(ValueError, match="read-only"):
                values[0] = 0


def test_a_file_of_another_shape_or_without_a_column_is_named(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    path = tmp_path / "run" / "tokens" / "domain=d1" / "part-000000.parquet"
    whole = pq.read_table(path)
    pq.write_table(whole.drop_columns(["token_id"]), path)
    with pytest.raises(TraceError, match=r"part-000000.parquet: expected a column 'token_id'"):
        _ = Trace.open(tmp_path / "run").rows
    assert len(Trace.open(tmp_path / "run").experts) == 60
    with writer(tmp_path / "other", rs.RouteShape(3, 8, 2)) as out:
        out.write(batch("a", 5, "d1", rs.RouteShape(3, 8, 2)))
    (tmp_path / "other" / "tokens" / "domain=d1" / path.name).rename(path)
    with pytest.raises(TraceError, match="expected 4 layers x 8 experts, top-2 as in run.json"):
        _ = Trace.open(tmp_path / "run").experts


def test_a_request_in_two_files_and_requests_out_of_order(tmp_path: Path, held: bool) -> None:
    """Requests keep one number wherever their rows lie, also where files are read out of order."""
    with writer(tmp_path / "run", flush_rows=4) as out:
        for domain, names in (("b", ("x", "y")), ("a", ("y2", "x2")), ("b", ("y", "z"))):
            ids, weights = routing(4)
            out.write(
                RoutingBatch(
                    domain,
                    names,
                    np.array([1, 0, 1, 0], np.int32),
                    np.arange(4, dtype=np.int32),
                    np.zeros(4, np.int32),
                    np.zeros(4, np.uint8),
                    ids,
                    weights,
                )
            )
        out.write_requests(
            [RequestRecord("y", "b", "g", 4, 1), RequestRecord("x2", "a", "g", 4, 1)]
        )
    trace = Trace.open(tmp_path / "run")
    last = trace.filter(domain="b")
    read = [[b.request_ids[i] for i in b.request_index] for b in last.batches("request_id")]
    assert read == [["y", "x", "y", "x"], ["z", "y", "z", "y"]]
    ids_of_rows, requests = trace.row_requests()
    assert ids_of_rows == Trace.open(tmp_path / "run").row_requests()[0]
    rows = ["x2", "y2", "x2", "y2", "y", "x", "y", "x", "z", "y", "z", "y"]
    assert [ids_of_rows[code] for code in requests] == rows == trace.rows["request_id"].to_pylist()
    groups = trace.row_groups()
    assert (groups[0] == groups[[2, 4, 6, 9, 11]]).all()
    assert len(set(groups.tolist())) == 4


def test_joined_traces_read_columns_of_their_parts(tmp_path: Path, decoded: Counter[str]) -> None:
    for name in "ab":
        write_run(tmp_path / name)
    both = join({name: Trace.open(tmp_path / name) for name in "ab"})
    for part in (both, both.filter(requests=["a/r0", "b/r3"]), both.filter(domain="b")):
        chunks = list(part.batches(["experts", "request_id"], rows=9))
        np.testing.assert_array_equal(np.concatenate([c.experts for c in chunks]), part.experts)
        assert len(part) == len(part.experts)
    assert decoded == {"experts": 120, "request_id": 120}
