"""SRP and SCH against loops over windows, and on cases with known answers."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from stats_cases import Row, claim_fewer_experts, make_trace

import routestats as rs
from routestats.errors import InvalidTypeError, InvalidValueError


def runs_of(rows: list[Row]) -> list[list[Row]]:
    """Consecutive positions of each request, in order."""
    by_request = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.position):
        by_request[row.request].append(row)
    runs: list[list[Row]] = []
    for request in by_request.values():
        before = None
        for row in request:
            if before is None or row.position != before.position + 1:
                runs.append([])
            runs[-1].append(row)
            before = row
    return runs


def f1(windows: list[list[Row]], layers: list[int], num_experts: int, alpha: float) -> float:
    """Every (window, token, layer, expert) judged by itself."""
    right = predicted = chosen = 0
    for window in windows:
        for layer in layers:
            for e in range(num_experts):
                uses = [e in row.experts[layer] for row in window]
                says = sum(uses) / len(window) >= alpha
                for use in uses:
                    right += says and use
                    predicted += says
                    chosen += use
    return 2 * right / (predicted + chosen)


@pytest.mark.parametrize(("seed", "m"), [(0, 1), (1, 3), (2, 4), (3, 6)])
def test_srp_equals_loops(seed: int, m: int) -> None:
    trace, rows = make_trace(seed)
    found = rs.stats.segment_routing(trace, m=m, bootstrap=0)
    windows = [run[i : i + m] for run in runs_of(rows) for i in range(len(run) - m + 1)]
    assert found.windows == len(windows)
    for layers, value, alpha in (
        ([0, 1, 2], found.srp.value, found.alpha),
        ([1], found.srp_by_layer.value[1], found.alpha_by_layer[1]),
    ):
        # Between two multiples of 1 / m nothing changes.
        scores = {a / 20: f1(windows, layers, 5, a / 20) for a in range(1, 21)}
        assert value == pytest.approx(max(scores.values()))
        assert f1(windows, layers, 5, alpha) == pytest.approx(value)


@pytest.mark.parametrize("capacity", [None, 1, 3, 5])
def test_sch_equals_loops(capacity: int | None) -> None:
    trace, rows = make_trace(4)
    found = rs.stats.segment_routing(trace, m=3, capacity=capacity, bootstrap=0)
    assert found.capacity == (capacity or 2)
    for layer in range(3):
        hits = 0
        for run in runs_of(rows):
            cache: list[int] = []
            for t, row in enumerate(run):
                hits += len(set(cache) & set(row.experts[layer]))
                cache = sorted(set(cache) | set(row.experts[layer]))
                ahead = [e for later in run[t + 1 : t + 4] for e in later.experts[layer]]
                # Stable: of equals the lowest ids come first, and stay.
                cache = sorted(cache, key=lambda e: -ahead.count(e))[: found.capacity]
        assert found.sch_by_layer.value[layer] == pytest.approx(hits / (2 * len(rows)))
    assert found.sch.value == pytest.approx(found.sch_by_layer.value.mean())


def test_steady_and_alternating_requests() -> None:
    steady = np.repeat(np.arange(4), 20)[:, None, None].astype(np.uint8)
    trace = rs.Trace.from_arrays(steady, num_experts=4, request_ids=np.arange(80) // 20)
    found = rs.stats.segment_routing(trace, m=5)
    assert found.srp.value == 1.0
    assert found.sch.value == pytest.approx(19 / 20)  # the first token of each finds it empty
    assert found.permuted_srp < 0.6
    assert found.permuted_sch < 0.6

    alternating = np.tile([[[0]], [[1]]], (10, 1, 1)).astype(np.uint8)
    trace = rs.Trace.from_arrays(alternating, num_experts=4)
    found = rs.stats.segment_routing(trace, m=2)
    # Both experts in half of each window: predicting both is right half of the time.
    assert found.srp.value == pytest.approx(2 / 3)
    assert found.alpha == 0.5
    assert np.isnan(found.srp.low)
    # One place, and both are used once in the next two: the lowest id stays, and hits from its
    # second use on. At the last token but one, only the other is ahead.
    assert found.sch.value == pytest.approx(9 / 20)
    assert rs.stats.segment_routing(trace, m=2, capacity=2).sch.value == pytest.approx(18 / 20)


def test_permuted_tokens_are_drawn_from_the_seed_and_intervals_hold_the_value() -> None:
    trace, _ = make_trace(5, prompts=12, length=20)
    first, again, other = (rs.stats.segment_routing(trace, m=4, seed=s) for s in (1, 1, 2))
    assert first.permuted_srp == again.permuted_srp != other.permuted_srp
    assert first.permuted_srp < first.srp.value
    for estimate in (first.srp, first.sch, first.srp_by_layer, first.sch_by_layer):
        assert (estimate.low < estimate.value).all()
        assert (estimate.value < estimate.high).all()
    assert first.to_table()["srp"].to_pylist()[:3] == first.srp_by_layer.value.tolist()
    assert "SRP" in first.summary()


def test_what_is_refused() -> None:
    trace, rows = make_trace(0)
    longest = max(len(run) for run in runs_of(rows))
    with pytest.raises(InvalidValueError, match=f"m: expected at most {longest}, .* got 50"):
        rs.stats.segment_routing(trace, m=50)
    with pytest.raises(InvalidTypeError, match=r"m: expected an integer, got 2\.5"):
        rs.stats.segment_routing(trace, m=2.5)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="capacity: expected at least 1, got 0"):
        rs.stats.segment_routing(trace, m=2, capacity=0)
    with pytest.raises(InvalidValueError, match=r"= 4, but num_experts is 4"):
        rs.stats.segment_routing(claim_fewer_experts(trace, 4), m=2)
    twice = rs.Trace.from_arrays(np.zeros((4, 1, 2), np.uint8), num_experts=2)
    with pytest.raises(InvalidValueError, match=r"experts\[0, 0\]: expected distinct experts"):
        rs.stats.segment_routing(twice, m=2)
