"""Each fault is found by the check that is named for it, and by no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trace_cases import SHAPE, batch, routing, write_run, writer

from routestats.schema import RequestRecord, RoutingBatch
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
