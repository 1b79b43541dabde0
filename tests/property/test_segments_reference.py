"""The C++ windows and cache equal the plain Python reference, whatever the shape and the runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routestats.counts._segments import count_segments
from routestats.counts.reference.segments import cache_hits, window_uses
from routestats.errors import InvalidValueError


@st.composite
def routings(draw: st.DrawFn) -> tuple[npt.NDArray[Any], int]:
    L = draw(st.integers(1, 4))
    E = draw(st.integers(1, 40) | st.just(300))
    K = draw(st.integers(1, min(6, E)))
    T = draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    skew = draw(st.sampled_from([0.0, 3.0])) * rng.normal(size=(L, E))
    ids = (rng.gumbel(size=(T, L, E)) + skew).argsort(axis=2)[:, :, :K]
    ids = ids.astype(np.uint16 if E > 256 else draw(st.sampled_from([np.uint8, np.int64])))
    return (np.asfortranarray(ids) if draw(st.booleans()) else ids), E


@settings(max_examples=200, deadline=None)
@given(routings(), st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.data())
def test_equals_reference(
    routing: tuple[npt.NDArray[Any], int], m: int, capacity: int, threads: int, data: st.DataObject
) -> None:
    experts, E = routing
    T, L, _ = experts.shape
    order = np.array(data.draw(st.permutations(range(T))), np.int64)
    cuts = sorted(data.draw(st.lists(st.integers(0, T), max_size=5)))
    starts = np.array([0, *cuts, T], np.int64)
    groups = np.array([data.draw(st.integers(0, 2)) for _ in starts[1:]], np.int64)
    got = count_segments(
        experts,
        E,
        tokens=order,
        starts=starts,
        groups=groups,
        num_groups=3,
        m=m,
        capacity=capacity,
        threads=threads,
    )
    uses, hits = np.zeros((3, L, m + 1), np.uint64), np.zeros((3, L), np.uint64)
    for first, last, group in zip(starts[:-1], starts[1:], groups, strict=True):
        run = experts[order[first:last]]
        uses[group] += window_uses(run, E, m)
        hits[group] += cache_hits(run, m, capacity)
    np.testing.assert_array_equal(got.uses, uses)
    np.testing.assert_array_equal(got.hits, hits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": np.array([0, 4], np.int64)}, "tokens: expected below 4"),
        ({"starts": np.array([0, 1], np.int64)}, "starts: expected ascending"),
        ({"groups": np.array([-1], np.int64)}, "groups: expected below 1"),
        ({"m": 0}, "m: expected at least 1, got 0"),
        ({"capacity": 0}, "capacity: expected at least 1, got 0"),
        ({"num_experts": 3}, r"experts\[1, 0, 0\] = 3, but num_experts is 3"),
    ],
)
def test_wrong_runs_are_refused(change: dict[str, Any], message: str) -> None:
    experts = np.array([[[0, 1]], [[3, 1]], [[0, 1]], [[2, 2]]], np.uint8)
    arguments: dict[str, Any] = {
        "experts": experts,
        "num_experts": 4,
        "tokens": np.array([2, 0], np.int64),
        "starts": np.array([0, 2], np.int64),
        "groups": np.array([0], np.int64),
        "num_groups": 1,
        "m": 2,
        "capacity": 2,
    }
    assert count_segments(**arguments).hits.tolist() == [[2]]
    with pytest.raises(InvalidValueError, match=message):
        count_segments(**(arguments | change))
    with pytest.raises(InvalidValueError, match=r"experts\[3, 0\]: expected distinct .* 2 twice"):
        count_segments(**(arguments | {"tokens": np.array([0, 3], np.int64)}))
