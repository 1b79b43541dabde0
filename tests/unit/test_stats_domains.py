"""Two domains: alike when drawn alike, different when they differ, and p-values that hold."""

from __future__ import annotations

import numpy as np
import pytest

import routestats as rs
from routestats.errors import InvalidValueError
from routestats.stats import _tables


def make_trace(seed: int, *, shift: bool = False, groups: int = 20, phase: str = "prefill"):  # type: ignore[no-untyped-def]
    """Requests that each have a taste of their own; with `shift`, domain b prefers expert 0."""
    rng = np.random.default_rng(seed)
    experts, requests, domains = [], [], {}
    for g in range(2 * groups):
        taste = rng.dirichlet(np.ones(4) * 3, size=3)
        if shift and g >= groups:
            taste = taste * 0.5 + np.eye(4)[0] * 0.5
        ids = np.stack([rng.choice(4, 50, p=p) for p in taste], axis=1)
        experts.append(np.stack((ids, (ids + 1 + rng.integers(0, 3, ids.shape)) % 4), axis=2))
        requests += [f"r{g}"] * 50
        domains[f"r{g}"] = "a" if g < groups else "b"
    return rs.Trace.from_arrays(
        np.concatenate(experts).astype(np.uint8),
        num_experts=4,
        request_ids=requests,
        domain=domains,
        phase=[phase] * len(requests),
    )


def test_divergences_equal_the_definition() -> None:
    trace = make_trace(0, shift=True)
    found = rs.stats.compare_domains(trace, permutations=99)
    assert found.domains == ("a", "b")
    assert found.tokens == (1000, 1000)
    assert found.groups == (20, 20)
    sides = [rs.count(trace.filter(domain=d), hops=(1,), pairing="any") for d in "ab"]
    expected = _tables.divergence_bits(sides[0].expert, sides[1].expert)
    np.testing.assert_allclose(found.load.bits, expected, rtol=1e-12)
    np.testing.assert_allclose(found.load_share.sum(axis=2), 1.0)
    for i, (src, dst) in enumerate(found.affinity_pairs.tolist()):
        first, second = (side.pair(src, dst) for side in sides)
        rows = _tables.divergence_bits(first, second)
        pooled = (first + second).sum(axis=1)
        assert found.affinity.bits[i] == pytest.approx((rows * pooled).sum() / pooled.sum())
    assert found.to_table().num_rows == 3 + 2
    assert "of 3 layers" in found.summary()


def test_a_difference_is_found_and_its_absence_too() -> None:
    differs = rs.stats.compare_domains(make_trace(1, shift=True), permutations=199)
    assert (differs.load.p_value == 1 / 200).all()
    assert (differs.load.bits > 3 * differs.load.null_mean_bits).all()
    assert (differs.load.q_value >= differs.load.p_value).all()

    # Prompts have tastes, so tokens permuted one by one would call these different; prompts do not.
    smallest = [
        rs.stats.compare_domains(make_trace(seed), hops=(), permutations=99).load.p_value[0]
        for seed in range(2, 22)
    ]
    assert sum(p <= 0.05 for p in smallest) <= 3
    assert sum(p <= 0.5 for p in smallest) >= 5


def test_one_phase_at_a_time_and_wrong_names() -> None:
    trace = make_trace(0, phase="decode")
    assert (
        rs.stats.compare_domains(trace, "b", "a", phase="decode", permutations=9).phase == "decode"
    )
    with pytest.raises(InvalidValueError, match="a: expected at least 2 prompt groups in prefill"):
        rs.stats.compare_domains(trace)
    with pytest.raises(InvalidValueError, match="second: expected one of a, b, got 'c'"):
        rs.stats.compare_domains(trace, "a", "c")
    with pytest.raises(InvalidValueError, match="hops: expected 1 to 2, got 3"):
        rs.stats.compare_domains(trace, hops=(3,), phase="decode")
