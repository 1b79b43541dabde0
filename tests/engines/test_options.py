"""What is asked of a capture or a timing is checked at the entry, in one line that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import routestats as rs
from routestats.engines.recorder_options import RecorderOptions, labels
from routestats.errors import CaptureError, InvalidTypeError, InvalidValueError


class Llm:
    """Looks like ``vllm.LLM``; nothing may reach its workers."""

    llm_engine = None

    def collective_rpc(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("an engine was asked")


class Transformers:
    """Looks like a transformers model."""

    config = None

    def forward(self) -> None:
        raise AssertionError("a model was run")


MODELS = pytest.mark.parametrize("model", [Llm(), Transformers()], ids=["vllm", "transformers"])

WRONG_VALUES = [
    ("policy", "x", "policy: expected 'block' or 'drop', got 'x'"),
    ("ring_rows", 0, "ring_rows: expected at least 1, got 0"),
    ("flush_rows", -5, "flush_rows: expected at least 1, got -5"),
    ("flush_seconds", -1, "flush_seconds: expected a finite number of at least 0, got -1.0"),
    ("flush_seconds", float("nan"), "flush_seconds: expected a finite number of at least 0"),
    ("flush_seconds", float("inf"), "flush_seconds: expected a finite number of at least 0"),
    ("lookahead", [0], "lookahead: expected hops of at least 1"),
    *(
        ("domain", name, "domain: expected up to 100 letters, digits")
        for name in ("..", ".", "", "a/b", "a b", "größe", "x" * 101, "a\n", None, 3)
    ),
]
WRONG_TYPES = [
    ("weights", "no", "weights: expected True or False, got 'no'"),
    ("counts", 1, "counts: expected True or False, got 1"),
    ("paths", None, "paths: expected True or False, got None"),
    ("live", "yes", "live: expected True or False, got 'yes'"),
    ("ring_rows", 2.5, "ring_rows: expected an integer, got 2.5"),
    ("flush_rows", 1.5, "flush_rows: expected an integer, got 1.5"),
    ("flush_rows", True, "flush_rows: expected an integer, got True"),
    ("flush_seconds", "x", "flush_seconds: expected a number of seconds, got 'x'"),
    ("flush_seconds", None, "flush_seconds: expected a number of seconds, got None"),
    ("lookahead", 1.5, "lookahead: expected an integer or integers, got 1.5"),
    ("lookahead", None, "lookahead: expected an integer or integers, got None"),
    ("lookahead", "12", "lookahead: expected an integer or integers, got '12'"),
    ("run_dir", 5, "run_dir: expected a path, got 5"),
]


@MODELS
@pytest.mark.parametrize(("name", "value", "message"), WRONG_VALUES)
def test_a_wrong_value(tmp_path: Path, model: Any, name: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        rs.capture(model, **{"run_dir": tmp_path / "run", name: value})
    assert not (tmp_path / "run").exists()


@MODELS
@pytest.mark.parametrize(("name", "value", "message"), WRONG_TYPES)
def test_a_wrong_type(tmp_path: Path, model: Any, name: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidTypeError, match=message):
        rs.capture(model, **{"run_dir": tmp_path / "run", name: value})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("domain", "..", InvalidValueError, "domain: expected up to 100 letters"),
        ("source", "x", InvalidValueError, "source: expected one of hooks, outline, profiler"),
        ("warm_up", -1, InvalidValueError, "warm_up: expected at least 0, got -1"),
        ("max_steps", 0, InvalidValueError, "max_steps: expected at least 1, got 0"),
        ("max_steps", "x", InvalidTypeError, "max_steps: expected an integer, got 'x'"),
        ("run_dir", None, InvalidTypeError, "run_dir: expected a path, got None"),
    ],
)
def test_timing(name: str, value: Any, error: type[Exception], message: str) -> None:
    timing = rs.time_stages(Llm(), **{"run_dir": "run", name: value})
    with pytest.raises(error, match=message):
        timing.__enter__()


def test_options_travel_as_plain_numbers() -> None:
    given: dict[str, Any] = {
        "ring_rows": np.int64(64),
        "flush_seconds": np.float32(0.5),
        "lookahead": [np.int32(2)],
    }
    options = RecorderOptions(**given)
    values = (options.ring_rows, options.flush_seconds, options.lookahead)
    assert values == (64, 0.5, (2,))
    assert [type(value) for value in values] == [int, float, tuple]


def test_a_ring_holds_four_of_the_largest_steps() -> None:
    default = RecorderOptions()
    sizes = {step: default.rows_of_ring(step) for step in (0, 2_048, 16_384, 65_536)}
    assert sizes == {0: 32_768, 2_048: 32_768, 16_384: 65_536, 65_536: 262_144}
    given = RecorderOptions(ring_rows=64)
    assert given.rows_of_ring() == given.rows_of_ring(64) == 64
    with pytest.raises(CaptureError, match="ring_rows: expected at least max_num_.* = 65, got 64"):
        given.rows_of_ring(65)


def test_labels() -> None:
    assert labels(2, ["a", "b"], None) == [{"task_id": "a"}, {"task_id": "b"}]
    assert labels(1, ["a"], ["g"]) == [{"task_id": "a", "group": "g"}]
    with pytest.raises(InvalidValueError, match="groups: expected 2, one per request, got 1"):
        labels(2, None, ["g"])
    with pytest.raises(InvalidTypeError, match=r"task_ids\[1\]: expected a string, got 7"):
        labels(2, ["a", 7], None)  # type: ignore[list-item]
