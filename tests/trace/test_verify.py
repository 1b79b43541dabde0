"""Each fault is found by the check that is named for it, and by no other."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
import pytest
from trace_cases import SHAPE, batch, routing, write_run, writer

from routestats.counts import RouteCounts, count, count_paths
from routestats.errors import TraceError
from routestats.schema import COUNTS_FILE, PATHS_FILES, SAVED_PATHS, RequestRecord, RoutingBatch
from routestats.trace import Trace, verify
from routestats.trace._row_scan import WARM_UP_ROWS


def failures(trace: Any) -> set[str]:
    return {check.name for check in verify(trace).checks if not check.ok}


def arrays(rows: int = 40) -> dict[str, Any]:
    ids, weights = routing(rows)
    return {
        "experts": ids,
        "weights": weights,
        "positions": np.arange(rows),
        "token_ids": np.arange(rows),
    }


def test_a_sound_trace_passes(tmp_path: Path) -> None:
    assert failures(Trace.from_arrays(num_experts=8, **arrays())) == set()
    write_run(tmp_path / "run")
    result = verify(tmp_path / "run")
    assert result.ok
    assert result.complete
    assert {check.name for check in result.checks} >= {"totals", "no drops", "all confirmed"}
    assert json.loads(json.dumps(result.to_dict()))["ok"] is True


def _double(a: dict[str, Any]) -> None:
    a["positions"][7] = 6
    a["positions"][8:] -= 1


def _gap(a: dict[str, Any]) -> None:
    a["positions"][20:] += 1


def _repeat(a: dict[str, Any]) -> None:
    a["experts"][5, 2] = 3


def _infinite(a: dict[str, Any]) -> None:
    a["weights"][5, 2, 0] = np.inf


@pytest.mark.parametrize(
    ("spoil", "check"),
    [
        (_double, "rows unique"),
        (_gap, "positions contiguous"),
        (_repeat, "experts distinct"),
        (_infinite, "weights finite"),
    ],
)
def test_one_fault_fails_one_check(spoil: Callable[[dict[str, Any]], None], check: str) -> None:
    values = arrays()
    spoil(values)
    assert failures(Trace.from_arrays(num_experts=8, **values)) == {check}


def spoiled_run(path: Path, spoil: Callable[[RoutingBatch], None]) -> Path:
    one = batch("r", 40)
    spoil(one)
    with writer(path) as out:
        out.write(one)
        out.write_requests([RequestRecord("r", "d", "g", 40, 1)])
    return path


def test_faults_that_only_a_file_can_hold(tmp_path: Path) -> None:
    def range_(one: RoutingBatch) -> None:
        one.experts[3, 1, 0] = 200

    def order(one: RoutingBatch) -> None:
        assert one.weights is not None
        one.weights[3, 1] = one.weights[3, 1, ::-1]

    assert failures(spoiled_run(tmp_path / "a", range_)) == {"ids in range"}
    assert failures(spoiled_run(tmp_path / "b", order)) == {"weights descending"}


def test_requests_must_be_whole(tmp_path: Path) -> None:
    for name, record in {
        "ends early": RequestRecord("r", "d", "g", 40, 5),
        "begins late": RequestRecord("r", "d", "g", 40, 1, cached_tokens=4),
        "unknown": RequestRecord("q", "d", "g", 40, 1),
    }.items():
        with writer(tmp_path / name) as out:
            out.write(batch("r", 40))
            out.write_requests([record])
        assert failures(tmp_path / name) == {"requests whole"}, name


def test_totals_drops_and_drafts(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    info = json.loads(file.read_text())
    for name, change, check in (
        ("rows", 61, "totals"),
        ("dropped_rows", 3, "no drops"),
        ("unconfirmed_rows", 2, "all confirmed"),
    ):
        file.write_text(json.dumps({**info, "totals": {**info["totals"], name: change}}))
        assert failures(tmp_path / "run") == {check}
    next((tmp_path / "run").glob("tokens/domain=d0/*.parquet")).unlink()
    file.write_text(json.dumps(info))
    assert failures(tmp_path / "run") == {"totals", "requests whole"}


def with_block(rows: int, *, same_token: bool = True, phase: str = "prefill") -> Trace:
    values = arrays(rows + 20)
    values["experts"][10 : 10 + rows] = values["experts"][10]
    values["weights"][10 : 10 + rows] = values["weights"][10]
    if same_token:
        values["token_ids"][10 : 10 + rows] = 0
    return Trace.from_arrays(num_experts=8, phase=[phase] * (rows + 20), **values)


def test_warm_up_rows_are_found() -> None:
    assert failures(with_block(WARM_UP_ROWS)) == {"no warm-up rows"}
    assert failures(with_block(WARM_UP_ROWS - 1)) == set()
    assert failures(with_block(2 * WARM_UP_ROWS, same_token=False)) == set()


def test_a_model_that_repeats_itself_is_no_warm_up() -> None:
    values = arrays(600)
    values["experts"][100:] = values["experts"][100]
    values["weights"][100:] = values["weights"][100]
    values["token_ids"][100:] = 5
    phase = ["prefill"] * 100 + ["decode"] * 500
    assert failures(Trace.from_arrays(num_experts=8, phase=phase, **values)) == set()


def test_a_warm_up_block_over_several_chunks_is_found(tmp_path: Path) -> None:
    ids, weights = routing(1)
    with writer(tmp_path / "run", flush_rows=100) as out:
        for start in range(0, 400, 100):
            out.write(
                RoutingBatch(
                    "d",
                    ("r",),
                    np.zeros(100, np.int32),
                    np.arange(start, start + 100, dtype=np.int32),
                    np.zeros(100, np.int32),
                    np.zeros(100, np.uint8),
                    np.repeat(ids, 100, axis=0),
                    np.repeat(weights, 100, axis=0),
                )
            )
        out.write_requests([RequestRecord("r", "d", "g", 400, 1)])
    assert failures(tmp_path / "run") == {"no warm-up rows"}
    assert SHAPE.num_layers == 4


def test_the_result_is_written_down_as_every_other(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    result = verify(tmp_path / "run")
    table = result.to_table()
    assert table.column_names == ["check", "ok", "detail"]
    assert table["check"].to_pylist() == [check.name for check in result.checks]
    assert table["ok"].to_pylist() == [True] * len(result.checks)
    assert json.loads(result.to_json()) == json.loads(json.dumps(result.to_dict()))
    assert str(result) == result.render() == result.summary()


def save_counts(run: Path) -> None:
    """What a capture with ``counts=True, paths=True`` saves beside the rows."""
    trace = Trace.open(run)
    count(trace, hops=(0, 1), pairing="any").save(run / COUNTS_FILE)
    for kind, name in PATHS_FILES.items():
        paths = count_paths(trace, kind, top=SAVED_PATHS)
        notes = {"tokens": str(paths.tokens), "distinct": str(paths.distinct)}
        pq.write_table(paths.to_table().replace_schema_metadata(notes), run / name)


SAVED = {f"saved {name}" for name in (COUNTS_FILE, *PATHS_FILES.values())}


def test_saved_counts_of_the_run_pass(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    assert SAVED.isdisjoint(check.name for check in verify(tmp_path / "run").checks)
    save_counts(tmp_path / "run")
    result = verify(tmp_path / "run")
    assert result.ok, result.render()
    assert {check.name for check in result.checks} > SAVED
    # A part of the run has nothing to compare with.
    part = verify(Trace.open(tmp_path / "run").filter(domain="d0"))
    assert SAVED.isdisjoint(check.name for check in part.checks)


def test_saved_counts_that_lack_a_capture_fail(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    save_counts(tmp_path / "run")
    with writer(tmp_path / "run") as out:
        out.write(batch("late", 4, "d0", seed=9))
        out.write_requests([RequestRecord("late", "d0", "g", 4, 1)])
    result = verify(tmp_path / "run")
    assert {check.name for check in result.checks if not check.ok} == SAVED
    assert "counts 60 tokens, but the run has 64 rows" in result.render()
    assert "tokens 60, but the rows have 64" in result.render()


def _other_expert(run: Path) -> None:
    counts = RouteCounts.load(run / COUNTS_FILE)
    counts._expert[2, [3, 4]] = counts._expert[2, [4, 3]] + np.array([1, -1]).astype(np.uint64)
    counts.save(run / COUNTS_FILE)


def _other_pair(run: Path) -> None:
    counts = RouteCounts.load(run / COUNTS_FILE)
    counts._pairs[1, 0, 0] += np.uint64(1)
    place = np.unravel_index(counts._pairs[1].argmax(), (8, 8))
    counts._pairs[1][place] -= np.uint64(1)
    counts.save(run / COUNTS_FILE)


def _other_layers(run: Path) -> None:
    trace = Trace.open(run).filter(layers=[0, 1])
    count(trace, hops=(0, 1), pairing="any").save(run / COUNTS_FILE)


def _damage(run: Path) -> None:
    (run / COUNTS_FILE).write_bytes(b"PK")


@pytest.mark.parametrize(
    ("spoil", "detail"),
    [
        (_other_expert, r"expert\[2, 3\] = \d+, but it is in \d+ rows"),
        (_other_pair, "pairs of experts are not those of the rows"),
        (_other_layers, "is of another shape or other layers"),
        (_damage, "no file of routestats counts"),
    ],
)
def test_saved_counts_of_something_else_fail(
    tmp_path: Path, spoil: Callable[[Path], None], detail: str
) -> None:
    run = tmp_path / "run"
    write_run(run)
    save_counts(run)
    spoil(run)
    (failed,) = (check for check in verify(run).checks if not check.ok)
    assert failed.name == f"saved {COUNTS_FILE}"
    assert re.search(detail, failed.detail), failed.detail


@pytest.mark.parametrize("kind", ["top1", "set"])
def test_saved_paths_of_something_else_fail(tmp_path: Path, kind: Literal["top1", "set"]) -> None:
    run = tmp_path / "run"
    write_run(run)
    save_counts(run)
    path = run / PATHS_FILES[kind]
    table = pq.read_table(path)
    rows = len(table)
    for spoiled, detail in (
        (table.set_column(1, "path", table["path"].take(np.r_[1, 0, 2:rows])), "other"),
        (table.slice(1), f"lists {rows - 1} paths, expected {rows}"),
        (table.replace_schema_metadata({"tokens": "60", "distinct": "7"}), "distinct 7, but"),
        (table.drop_columns(["rank"]), "holds no paths of a run"),
    ):
        pq.write_table(spoiled, path)
        (failed,) = (check for check in verify(run).checks if not check.ok)
        assert failed.name == f"saved {PATHS_FILES[kind]}"
        assert detail in failed.detail


def test_rows_that_cannot_be_counted_fail_the_saved_counts_too(tmp_path: Path) -> None:
    def repeat(one: RoutingBatch) -> None:
        one.experts[3, 1] = 5

    run = spoiled_run(tmp_path / "run", repeat)
    count(Trace.open(run), hops=(0, 1), pairing="any").save(run / COUNTS_FILE)
    assert failures(run) == {"experts distinct"}
    notes = {"tokens": "40", "distinct": "40"}
    table = count_paths(Trace.open(run), "top1").to_table().replace_schema_metadata(notes)
    pq.write_table(table, run / PATHS_FILES["set"])
    failed = {check.name: check.detail for check in verify(run).checks if not check.ok}
    assert failed.keys() == {
        "experts distinct",
        f"saved {COUNTS_FILE}",
        f"saved {PATHS_FILES['set']}",
    }
    assert "the rows cannot be counted: experts[3, 1, 1] = 5" in failed[f"saved {COUNTS_FILE}"]


def test_a_file_that_is_no_run_is_said_in_one_line() -> None:
    readme = Path(__file__).parents[2] / "README.md"
    with pytest.raises(TraceError) as raised:
        verify(readme)
    assert str(raised.value) == f"{readme}: expected a run's folder, with its run.json, got a file"
