"""Phi coefficients against NumPy's, of indicators written out."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from stats_cases import make_trace

import routestats as rs
from routestats.errors import InvalidValueError


def oracle(experts, num_experts: int, pairing: str, src: int, dst: int):  # type: ignore[no-untyped-def]
    slots = experts[:, :, :1] if pairing == "top1" else experts
    first, second = (
        np.array([[e in token[layer] for e in range(num_experts)] for token in slots.tolist()])
        for layer in (src, dst)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        both = np.corrcoef(first.T.astype(float), second.T.astype(float))
    return both[:num_experts, num_experts:]


@pytest.mark.parametrize("pairing", ["any", "top1"])
@pytest.mark.parametrize("seed", range(5))
def test_equals_numpy_on_indicators(pairing: str, seed: int) -> None:
    trace, _ = make_trace(seed, layers=4, experts=6)
    counts = rs.count(trace, hops="all", pairing=pairing)
    pairs = [(src, dst) for src in range(4) for dst in range(4)]
    found = rs.stats.correlation(counts, pairs=pairs)
    assert found.pairing == pairing
    assert found.pairs.tolist() == [list(pair) for pair in pairs]
    for matrix, (src, dst) in zip(found.matrices, pairs, strict=True):
        expected = oracle(trace.experts, 6, pairing, src, dst)
        np.testing.assert_allclose(matrix, expected, atol=1e-12)
        size = np.abs(expected)
        if src == dst:
            np.fill_diagonal(size, np.nan)
        e, f = found.largest_experts[src, dst]
        assert size[e, f] == pytest.approx(np.nanmax(size))
        assert found.largest[src, dst] == pytest.approx(expected[e, f])
        assert found.mean_abs[src, dst] == pytest.approx(np.nanmean(size))


def test_without_variance_or_counts_there_is_no_coefficient() -> None:
    # Layer 0: expert 0 always, 1 or 2, 3 never. Layer 1: 0 and 1 always.
    experts = np.array([[[0, 1], [0, 1]], [[0, 2], [1, 0]], [[0, 1], [0, 1]]], np.uint8)
    found = rs.stats.correlation(rs.count(experts, num_experts=4, hops=(0, 1)), pairs=[(0, 0)])
    known = np.isfinite(found.matrices[0])
    assert known.tolist() == [[False] * 4, *[[False, True, True, False]] * 2, [False] * 4]
    assert found.matrices[0][1, 2] == pytest.approx(-1.0)
    assert found.largest[0, 0] == pytest.approx(-1.0)
    assert np.isnan(found.largest[0, 1])
    assert found.largest_experts[0, 1].tolist() == [-1, -1]
    assert found.to_table().num_rows == 1
    some = rs.stats.correlation(rs.count(make_trace(0)[0], hops=(1,), pairing="any"))
    assert np.isfinite(some.largest).tolist() == [
        [False, True, False],
        [True, False, True],
        [False, True, False],
    ]
    assert "hop 1 (independent" in some.summary()


def test_independent_layers_reach_the_stated_level() -> None:
    rng = np.random.default_rng(0)
    experts = rng.integers(0, 8, (20_000, 6, 1)).astype(np.uint8)
    found = rs.stats.correlation(rs.count(experts, num_experts=8, hops=range(1, 6)))
    mean = np.nanmean(found.mean_abs)
    assert mean == pytest.approx(found.independent_mean_abs, rel=0.05)


def test_bad_counts_are_refused() -> None:
    twice = np.array([[[0, 1]], [[2, 2]]], np.uint8)
    with pytest.raises(InvalidValueError, match="token holds expert 2 twice at layer 0"):
        rs.stats.correlation(rs.count(twice, num_experts=3, hops=(0,)))
    with pytest.raises(InvalidValueError, match=r"counts\.tokens: expected at least 1, got 0"):
        rs.stats.correlation(rs.count(twice[:0], num_experts=3))
    counts = rs.count(make_trace(0)[0], hops=(1,), pairing="any")
    with pytest.raises(InvalidValueError, match="hop 2 was not counted"):
        rs.stats.correlation(counts, pairs=[(0, 2)])
