"""Co-activation against loops over tokens, and its independent value against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from stats_cases import make_trace

import routestats as rs
from routestats.errors import InvalidValueError


@pytest.mark.parametrize("seed", range(4))
def test_equals_loops(seed: int) -> None:
    trace, rows = make_trace(seed, experts=7, top_k=3, prompts=2)
    found = rs.stats.coactivation(rs.count(trace, hops=(0, 1), pairing="any"), top=4)
    for layer in range(3):
        sets = [set(row.experts[layer]) for row in rows]
        shares = {}
        for i in range(7):
            mine = [s for s in sets if i in s]
            others = [f for s in sets for f in s if f != i]
            for j in range(7):
                if not mine:
                    assert np.isnan(found.matrix[layer, i, j])
                    continue
                share = sum(j in s for s in mine) / len(mine)
                assert found.matrix[layer, i, j] == pytest.approx(share)
                if i != j:
                    shares[i, j] = share
                    load = others.count(j) / len(others)
                    assert found.independent[layer, i, j] == pytest.approx(2 * load)
        best = sorted(shares, key=lambda pair: (-shares[pair], pair))[:4]
        assert [tuple(pair) for pair in found.strongest[layer].tolist()] == best
    assert "co-activation (any)" in found.summary()
    assert found.to_table().num_rows == 3 * 7 * 6


def test_rows_sum_to_what_is_left_of_k() -> None:
    found = rs.stats.coactivation(rs.count(make_trace(1, top_k=3)[0], hops=(0,), pairing="any"))
    for matrix in (found.matrix, found.independent):
        assert np.nansum(matrix, axis=2) == pytest.approx(3.0)
        assert matrix.max() <= 1.0


def test_a_layer_with_fewer_pairs_than_asked() -> None:
    experts = np.array([[[0, 1]], [[1, 0]]], np.uint8)
    found = rs.stats.coactivation(rs.count(experts, num_experts=2, hops=(0,)), top=5)
    assert found.strongest[0].tolist() == [[0, 1], [1, 0], [-1, -1], [-1, -1]]


def test_what_it_is_not_defined_for() -> None:
    trace, _ = make_trace(0)
    for counts, message in (
        (rs.count(trace, hops=(0,), pairing="top1"), r"counts\.pairing: expected 'any'"),
        (rs.count(trace, hops=(1,), pairing="any"), r"counts\.hops: expected 0 among them"),
        (rs.count(trace.experts[:, :, :1], num_experts=5), "top_k: expected at least 2, got 1"),
    ):
        with pytest.raises(InvalidValueError, match=message):
            rs.stats.coactivation(counts)
