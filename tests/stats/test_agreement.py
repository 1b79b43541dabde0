"""Agreement of two runs: which rows are compared, and what is counted about them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

import routestats as rs
from routestats.errors import InvalidValueError
from routestats.stats import agreement


def trace_of(
    experts: npt.ArrayLike,
    requests: list[str],
    tokens: list[int],
    groups: dict[str, str],
    positions: list[int] | None = None,
) -> rs.Trace:
    return rs.Trace.from_arrays(
        np.asarray(experts, np.uint8),
        num_experts=4,
        request_ids=requests,
        token_ids=tokens,
        positions=positions,
        groups=groups,
        ordered=True,
    )


def test_rows_count_until_the_text_differs() -> None:
    # Prompt p: tokens 1 2 3 against 1 2 9 then 4 again; prompt q: in the other run only as a
    # second sample; prompt r is in one run alone.
    first = trace_of(
        [[[0, 1]], [[2, 3]], [[0, 1]], [[0, 1]], [[1, 0]], [[3, 2]]],
        ["a", "a", "a", "a", "b", "c"],
        [1, 2, 3, 4, 7, 8],
        {"a": "p", "b": "q", "c": "r"},
    )
    second = trace_of(
        [[[1, 0]], [[2, 0]], [[0, 1]], [[0, 1]], [[0, 3]], [[1, 0]]],
        ["x", "x", "x", "x", "y", "z"],
        [1, 2, 9, 4, 7, 7],
        {"x": "p", "y": "q", "z": "q"},
    )
    found = agreement(first, second, bootstrap=0)
    # Compared: p at 0 and 1, q at 0 (request y, its first).
    assert (found.tokens, found.groups) == (3, 2)
    assert found.same_first.value.tolist() == pytest.approx([1 / 3])
    assert found.same_set.value.tolist() == pytest.approx([1 / 3])
    assert found.overlap.value.tolist() == pytest.approx([(2 + 1 + 1) / 6])
    # First choices 0, 2, 1 against 1, 2, 0.
    assert found.chance_first.tolist() == pytest.approx([3 / 9])
    # Sets 01, 23, 01 against 01, 02, 03: 2 x 1 equal pairs of 9.
    assert found.chance_set.tolist() == pytest.approx([2 / 9])
    assert found.pairing == {"same_first": "top1", "same_set": "any", "overlap": "any"}
    assert "whole set (any) 33.33% (chance 22.22%)" in found.summary()
    assert found.to_table()["chance_set"].to_pylist() == pytest.approx([2 / 9])


@pytest.mark.parametrize("experts", [4, 300])
def test_chance_of_equal_sets_is_that_of_shuffled_tokens(experts: int) -> None:
    rng = np.random.default_rng(1)
    tokens = 3000

    def run(favourite: int) -> rs.Trace:
        score = rng.gumbel(size=(tokens, 2, 4)) + 1.5 * (np.arange(4) == favourite)
        ids = np.argsort(-score, axis=2)[:, :, :2] + experts - 4
        return rs.Trace.from_arrays(
            ids, num_experts=experts, token_ids=np.zeros(tokens, int), ordered=True
        )

    first, second = run(0), run(1)
    found = agreement(first, second, bootstrap=0)
    sets = [np.sort(side.experts, axis=2) for side in (first, second)]
    every = [
        (sets[0] == sets[1][rng.permutation(tokens)]).all(axis=2).mean(axis=0) for _ in range(200)
    ]
    np.testing.assert_allclose(found.chance_set, np.mean(every, axis=0), atol=0.002)


def test_evenly_drawn_sets_agree_by_chance_as_often_as_sets_are_few() -> None:
    sets = [[0, 1], [2, 0], [0, 3], [1, 2], [3, 1], [2, 3]]
    trace = trace_of([[s] for s in sets], list("abcdef"), [1] * 6, {})
    assert agreement(trace, trace, bootstrap=0).chance_set.tolist() == pytest.approx([1 / 6])


def test_rows_match_by_position_whatever_their_order() -> None:
    rng = np.random.default_rng(0)
    experts = rng.permuted(np.tile(np.arange(4), (40, 3, 1)), axis=2)[:, :, :2]
    requests = [f"r{i // 8}" for i in range(40)]
    positions = [i % 8 for i in range(40)]
    groups = {f"r{i}": f"p{i}" for i in range(5)}
    tokens = rng.integers(0, 99, 40)
    order = rng.permutation(40)
    first = trace_of(experts, requests, tokens.tolist(), groups, positions)
    second = trace_of(
        experts[order],
        [requests[i] for i in order],
        tokens[order].tolist(),
        groups,
        [positions[i] for i in order],
    )
    found = agreement(first, second, bootstrap=50)
    assert found.tokens == 40
    for estimate in (found.same_first, found.same_set, found.overlap):
        assert np.array_equal(estimate.value, np.ones(3))
        assert np.array_equal(estimate.low, np.ones(3))
    assert found.to_table().num_rows == 3
    assert "40 tokens" in found.summary()


def test_what_cannot_be_compared_is_named() -> None:
    a = trace_of([[[0, 1]]], ["a"], [1], {"a": "p"})
    with pytest.raises(InvalidValueError, match="tokens that first holds too"):
        agreement(a, trace_of([[[0, 1]]], ["a"], [1], {"a": "other"}))
    with pytest.raises(InvalidValueError, match="token_ids"):
        agreement(a, trace_of([[[0, 1]]], ["a"], [-1], {"a": "p"}))
    with pytest.raises(InvalidValueError, match=r"second\.shape"):
        agreement(a, trace_of([[[0, 1], [0, 1]]], ["a"], [1], {"a": "p"}))


def of_domains(slots: list[int], domains: dict[str, str]) -> rs.Trace:
    """Requests r0, r1, ... of one token each, with these first choices."""
    return rs.Trace.from_arrays(
        np.array([[[first]] for first in slots], np.uint8),
        num_experts=4,
        request_ids=[f"r{i}" for i in range(len(slots))],
        token_ids=[0] * len(slots),
        domain=domains,
        ordered=True,
    )


def test_groups_are_drawn_within_their_domain() -> None:
    # All tokens of domain a agree, none of b: the share is one half however groups are drawn.
    domains = {f"r{i}": "ab"[i % 2] for i in range(12)}
    found = agreement(of_domains([0] * 12, domains), of_domains([0, 1] * 6, domains), bootstrap=200)
    for part in found.same_first:
        assert part.tolist() == [0.5]


def test_one_group_of_a_domain_has_no_interval() -> None:
    domains = {"r0": "a", "r1": "a", "r2": "b"}
    trace = of_domains([0, 1, 2], domains)
    found = agreement(trace, trace, bootstrap=50)
    assert found.same_set.value.tolist() == [1.0]
    assert np.isnan(found.same_set.low).all()


def test_unknown_order_is_said() -> None:
    trace = rs.Trace.from_arrays(np.array([[[0, 1]]] * 3), num_experts=4, token_ids=[1, 2, 3])
    found = agreement(trace, trace, bootstrap=0)
    assert "first choice not known" in found.summary()
    assert "nan" not in found.summary()
