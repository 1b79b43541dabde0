"""Specialization against loops over rows."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from stats_cases import claim_fewer_experts, make_trace

import routestats as rs
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.stats._base.estimate import resampling_weights
from routestats.stats._base.units import Units


@pytest.mark.parametrize("seed", range(3))
def test_equals_loops(seed: int) -> None:
    trace, rows = make_trace(seed)
    tokens = Counter(row.token_id for row in rows)
    least = sorted(tokens.values())[2]
    found = rs.stats.specialization(trace, min_tokens=least, top=7, bootstrap=0)

    def shares(chosen: list) -> np.ndarray:  # type: ignore[type-arg]
        return np.array(
            [
                [sum(e in r.experts[layer] for r in chosen) / len(chosen) for e in range(5)]
                for layer in range(3)
            ]
        )

    for d, domain in enumerate("ab"):
        mine = [row for row in rows if row.domain == domain]
        np.testing.assert_allclose(found.share.value[d], shares(mine))
        assert found.domain_tokens[d] == len(mine)
    np.testing.assert_allclose(found.overall, shares(rows))
    listed = sorted((i for i in tokens if tokens[i] >= least), key=lambda i: (-tokens[i], i))
    assert found.token_ids.tolist() == listed
    assert found.id_tokens.tolist() == [tokens[i] for i in listed]
    excess = {}
    for place, token_id in enumerate(listed):
        expected = shares([row for row in rows if row.token_id == token_id])
        np.testing.assert_allclose(found.id_share[place], expected)
        for layer in range(3):
            for e in range(5):
                excess[token_id, layer, e] = expected[layer, e] - found.overall[layer, e]
    got = [excess[tuple(entry)] for entry in found.most_specialised.tolist()]
    assert got == pytest.approx(sorted(excess.values(), reverse=True)[:7])
    assert found.uniform == 0.4
    assert np.nansum(found.id_share, axis=2) == pytest.approx(2.0)
    table = found.to_id_table()
    assert table.num_rows == np.count_nonzero(found.id_share)
    assert found.to_table().num_rows == 2 * 3 * 5


def test_ids_beyond_the_most_frequent_are_counted_and_unknown_ones_are_none() -> None:
    trace, rows = make_trace(0)
    found = rs.stats.specialization(trace, min_tokens=1, max_ids=2, bootstrap=0)
    assert len(found.token_ids) == 2
    assert found.ids_left_out == len({row.token_id for row in rows}) - 2
    unknown = rs.Trace.from_arrays(trace.experts, num_experts=5)
    found = rs.stats.specialization(unknown, min_tokens=1, bootstrap=0)
    assert found.id_share.shape == (0, 3, 5)
    assert found.most_specialised.shape == (0, 3)
    assert "no token id has 1 tokens or more" in found.summary()


def test_the_bootstrap_draws_groups_of_the_domain() -> None:
    trace, _ = make_trace(3, prompts=9)
    found = rs.stats.specialization(trace, min_tokens=5, seed=4)
    assert found.domain_groups == (9, 9)
    assert (found.share.low <= found.share.value).all()
    assert (found.share.value <= found.share.high).all()
    assert (found.share.low < found.share.high).any()


def test_intervals_are_quantiles_over_draws_of_groups() -> None:
    trace, rows = make_trace(3, prompts=9)
    kept = {row.request for row in rows if row.group not in ("a0", "a1", "a2")}
    trace, rows = trace.filter(requests=kept), [row for row in rows if row.request in kept]
    found = rs.stats.specialization(trace, min_tokens=5, bootstrap=200, seed=4)
    assert found.domain_groups == (6, 9)
    units = Units.of(trace)
    weights = resampling_weights(units.domain, resamples=200, seed=4)
    assert weights is not None
    # The trace gives its rows by domain: a row's unit is that of its request.
    requests = trace.rows["request_id"].to_pylist()
    unit_of = dict(zip(requests, units.of_row, strict=True))
    for d, domain in enumerate("ab"):
        mine = [row for row in rows if row.domain == domain]
        times = np.array([weights[:, unit_of[row.request]] for row in mine])
        hit = np.array([2 in row.experts[1] for row in mine])
        shares = times[hit].sum(axis=0) / times.sum(axis=0)
        low, high = np.quantile(shares, [0.025, 0.975])
        assert found.share.low[d, 1, 2] == pytest.approx(low)
        assert found.share.high[d, 1, 2] == pytest.approx(high)


def test_what_is_refused() -> None:
    trace, rows = make_trace(0)
    with pytest.raises(InvalidValueError, match=r"= 4, but num_experts is 4"):
        rs.stats.specialization(claim_fewer_experts(trace, 4))
    twice = rs.Trace.from_arrays(np.zeros((4, 1, 2), np.uint8), num_experts=2)
    with pytest.raises(InvalidValueError, match=r"experts\[0, 0\]: .* got 0 in slots 0 and 1"):
        rs.stats.specialization(twice)
    with pytest.raises(InvalidValueError, match="min_tokens: expected at least 1, got 0"):
        rs.stats.specialization(trace, min_tokens=0)
    with pytest.raises(InvalidTypeError, match="bootstrap: expected an integer, got True"):
        rs.stats.specialization(trace, bootstrap=True)
    only_a = trace.filter(requests={row.request for row in rows if row.domain == "a"})
    with pytest.raises(InvalidValueError, match="domain 'b': expected at least 1 token, got 0"):
        rs.stats.specialization(only_a)
