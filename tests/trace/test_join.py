"""Traces joined into one keep their rows, their requests and their prompt groups."""

from __future__ import annotations

from pathlib import Path

import lookahead_cases
import numpy as np
import pytest

import routestats as rs
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.trace import join


def some_trace(seed: int, tokens: int = 12, layers: int = 3) -> rs.Trace:
    rng = np.random.default_rng(seed)
    experts = np.stack([rng.permuted(np.arange(4)) for _ in range(tokens * layers)])[:, :2]
    return rs.Trace.from_arrays(
        experts.reshape(tokens, layers, 2),
        num_experts=4,
        request_ids=[f"r{i // 4}" for i in range(tokens)],
        token_ids=np.arange(tokens),
        groups={f"r{i}": f"prompt {i}" for i in range(3)},
        ordered=True,
    )


def test_joined_rows_are_the_rows_of_the_parts() -> None:
    a, b = some_trace(0), some_trace(1, tokens=8)
    both = join({"one": a, "two": b})
    assert both.domains == ("one", "two")
    assert len(both) == 20
    assert np.array_equal(both.experts, np.concatenate((a.experts, b.experts)))
    assert np.array_equal(both.filter(domain="two").experts, b.experts)
    assert both.requests["request_id"].to_pylist()[:3] == ["one/r0", "one/r1", "one/r2"]
    # The same prompt is the same group in both.
    assert both.row_groups().tolist()[:12] == a.row_groups().tolist()
    assert set(both.row_groups().tolist()) == {0, 1, 2}


def test_order_and_weights_hold_where_they_hold_for_all() -> None:
    a = some_trace(0)
    unknown = rs.Trace.from_arrays(some_trace(1).experts, num_experts=4)
    assert join({"a": a, "b": a}).ordered
    assert not join({"a": a, "b": unknown}).ordered


def test_traces_that_do_not_fit_are_named() -> None:
    with pytest.raises(InvalidValueError, match="two: expected shape"):
        join({"one": some_trace(0), "two": some_trace(1, layers=2)})
    with pytest.raises(InvalidTypeError, match="two: expected a Trace, got int"):
        join({"one": some_trace(0), "two": 3})  # type: ignore[dict-item]
    with pytest.raises(InvalidValueError, match="at least 1"):
        join({})


def test_parts_of_some_layers_have_no_lookahead(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    experts = lookahead_cases.random_ids(rng, 20, 5, best=2)
    ahead = lookahead_cases.random_ids(rng, 20, 2, len(lookahead_cases.PAIRS), best=4)
    lookahead_cases.write_run(tmp_path / "run", experts, ahead)
    whole = rs.Trace.open(tmp_path / "run")
    part = whole.filter(layers=[0, 1])
    assert join({"one": whole, "two": whole}).lookahead == whole.lookahead is not None
    both = join({"one": part, "two": part})
    assert both.lookahead is None
    assert both.columns == part.columns
    assert sum(map(len, both.batches())) == 2 * len(whole)
