"""`rank_hits` against its readable specification, over random shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routestats import _core
from routestats.counts import rank_hits
from routestats.counts.reference.ranks import rank_hits as reference
from routestats.errors import InvalidValueError


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    targets, table_rows = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    experts = draw(st.sampled_from([1, 2, 3, 7, 8, 9, 16, 31, 33, 64, 130]))
    slots = draw(st.integers(1, min(experts, 9)))
    tokens, picks, groups = (draw(st.integers(0, high)) for high in (30, 9, 5))
    groups += 1
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    # Few different scores: ties are decided by the ids in the base.
    spread = draw(st.sampled_from([1, 3, 2**40]))
    return {
        "tables": rng.integers(0, spread, (targets, table_rows, experts)) * float(experts),
        "base": np.tile(np.arange(experts - 1, -1, -1.0), (targets, 1)),
        "rows": rng.integers(0, table_rows, (draw(st.sampled_from([1, targets])), tokens, picks)),
        "chosen": rng.random((targets, tokens, experts)).argsort(axis=2)[:, :, :slots],
        "group_of": rng.integers(0, groups, tokens),
        "best": draw(st.lists(st.integers(1, 2 * experts), max_size=3)),
        "num_groups": groups,
    }


@settings(max_examples=150, deadline=None)
@given(cases(), st.sampled_from(_core.build_info()["isas"]), st.integers(1, 8))
def test_the_core_equals_the_specification(case: dict[str, Any], isa: str, threads: int) -> None:
    hits = rank_hits(**case, isa=isa, threads=threads)
    assert np.array_equal(hits, reference(**case))


def test_many_tokens_on_many_threads() -> None:
    # More tokens than one run of the core, so that several threads add to the same groups.
    rng = np.random.default_rng(0)
    case: dict[str, Any] = {
        "tables": rng.integers(0, 2**40, (3, 8, 8)) * 8.0,
        "base": np.tile(np.arange(7, -1, -1.0), (3, 1)),
        "rows": rng.integers(0, 8, (1, 9000, 2)),
        "chosen": rng.random((3, 9000, 8)).argsort(axis=2)[:, :, :2],
        "group_of": rng.integers(0, 3, 9000),
        "best": [2, 4],
        "num_groups": 3,
    }
    assert np.array_equal(rank_hits(**case, threads=4), reference(**case))


def test_wrong_shapes_and_values_are_refused() -> None:
    good: dict[str, Any] = {
        "tables": np.zeros((2, 3, 4)),
        "base": np.tile(np.arange(4.0), (2, 1)),
        "rows": np.zeros((1, 5, 2), int),
        "chosen": np.zeros((2, 5, 1), int),
        "group_of": np.zeros(5, int),
        "best": [1],
        "num_groups": 1,
    }
    assert rank_hits(**good).shape == (2, 1, 3)
    for name, value, message in (
        ("base", np.zeros((2, 5)), r"base: expected shape \[2, 4\], got \[2, 5\]"),
        ("rows", np.zeros((1, 4, 2), int), r"rows: expected shape \[1, 5, 2\], got \[1, 4, 2\]"),
        ("rows", np.zeros((5, 2), int), r"rows: expected shape \[any, any, any\], got \[5, 2\]"),
        (
            "chosen",
            np.zeros((1, 5, 1), int),
            r"chosen: expected shape \[2, 5, 1\], got \[1, 5, 1\]",
        ),
        ("group_of", np.zeros(4, int), r"group_of: expected shape \[5\], got \[4\]"),
    ):
        with pytest.raises(InvalidValueError, match=message):
            rank_hits(**{**good, name: value})
    for name, value, message in (
        ("rows", np.full((1, 5, 2), 3), "rows: expected values below 3, got 3"),
        ("chosen", np.full((2, 5, 1), 4), "chosen: expected values below 4, got 4"),
        ("group_of", np.ones(5, int), "group_of: expected values below 1, got 1"),
    ):
        with pytest.raises(InvalidValueError, match=message):
            rank_hits(**{**good, name: value})
