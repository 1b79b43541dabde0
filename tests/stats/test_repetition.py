"""Repetition against loops over requests and positions, and against its random values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from stats_cases import Row, claim_fewer_experts, make_trace, trace_of

import routestats as rs
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.stats import _repetition


def oracle(rows: list[Row], layer: int, domain: str | None) -> tuple[float, float, int]:
    at = {(row.request, row.position): row for row in rows if domain in (None, row.domain)}
    pairs = [(row, at[r, p + 1]) for (r, p), row in at.items() if (r, p + 1) in at]
    same = sum(a.experts[layer][0] == b.experts[layer][0] for a, b in pairs)
    shared = sum(bool(set(a.experts[layer]) & set(b.experts[layer])) for a, b in pairs)
    return same / len(pairs), shared / len(pairs), len(pairs)


@pytest.mark.parametrize("seed", range(5))
def test_equals_loops(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_repetition, "BLOCK_ROWS", 7)
    trace, rows = make_trace(seed, top_k=1 + seed % 3)
    found = rs.stats.repetition(trace, bootstrap=0)
    for layer in range(3):
        for d, domain in enumerate("ab"):
            same, shared, pairs = oracle(rows, layer, domain)
            assert found.first_choice.value[d, layer] == pytest.approx(same)
            assert found.shared.value[d, layer] == pytest.approx(shared)
            assert found.pairs[d] == pairs
        same, shared, _ = oracle(rows, layer, None)
        assert found.first_choice_all.value[layer] == pytest.approx(same)
        assert found.shared_all.value[layer] == pytest.approx(shared)
    assert np.isnan(found.shared.low).all()


def test_random_routing_reaches_the_random_values() -> None:
    rng = np.random.default_rng(0)
    experts = rng.random((20_000, 2, 8)).argsort(axis=2)[:, :, :2].astype(np.uint8)
    requests = np.arange(20_000) // 100
    trace = rs.Trace.from_arrays(experts, num_experts=8, request_ids=requests, ordered=True)
    found = rs.stats.repetition(trace, seed=3)
    assert found.random_first_choice == 0.125
    assert found.random_shared == pytest.approx(1 - 15 / 28)  # 46.4 %
    assert found.first_choice_all.value == pytest.approx(0.125, abs=0.01)
    assert found.shared_all.value == pytest.approx(1 - 15 / 28, abs=0.015)
    assert (found.shared.low < found.shared.value).all()
    assert (found.shared.value < found.shared.high).all()
    assert found.to_table()["shared_low"].to_pylist()[2:] == found.shared_all.low.tolist()


def test_tokens_of_one_prompt_widen_the_interval() -> None:
    """Twice the same requests under one prompt each: no more information than once."""
    trace, rows = make_trace(0, samples=1, prompts=20)
    again = [replace(row, request=row.request + "x") for row in rows]
    found, doubled = (rs.stats.repetition(t).shared.low for t in (trace, trace_of(rows + again, 5)))
    np.testing.assert_allclose(found, doubled)


def test_what_is_refused() -> None:
    trace, rows = make_trace(0, ordered=False)
    with pytest.raises(InvalidValueError, match=r"trace\.ordered: .* which top1=True needs"):
        rs.stats.repetition(trace)
    without = rs.stats.repetition(trace, top1=False)
    assert np.isnan(without.first_choice.value).all()
    assert np.isfinite(without.shared.value).all()
    assert "first choice" not in without.summary()
    with pytest.raises(InvalidTypeError, match="trace: expected a Trace, got ndarray"):
        rs.stats.repetition(trace.experts)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match=r"experts\[\d+, \d, \d\] = 4, but num_experts is"):
        rs.stats.repetition(claim_fewer_experts(trace, 4), top1=False)
    lonely = [row for row in rows if row.domain == "a"] + [
        next(row for row in rows if row.domain == "b")
    ]
    with pytest.raises(InvalidValueError, match="domain 'b': expected two consecutive positions"):
        rs.stats.repetition(trace_of(lonely, 5))
    with pytest.raises(InvalidValueError, match=r"request 'a\d-\d' has position \d+ twice"):
        rs.stats.repetition(trace_of(rows + [row for row in rows if row.domain == "a"][:1], 5))
    with pytest.raises(InvalidValueError, match="trace: expected at least 1 token, got 0"):
        rs.stats.repetition(trace.filter(phase="decode"))
    with pytest.raises(InvalidValueError, match="confidence: expected between 0 and 1, got 95"):
        rs.stats.repetition(trace, top1=False, confidence=95)


def test_one_request_has_a_value_and_no_interval() -> None:
    trace, rows = make_trace(0)
    one = trace.filter(requests=[rows[0].request], domain=rows[0].domain)
    found = rs.stats.repetition(one)
    assert np.isfinite(found.shared.value).all()
    assert np.isnan(found.shared.low).all()
    assert "[" not in found.summary().split("\n")[1]
