"""Information, its nulls and intervals, against formulas written out the long way."""

from __future__ import annotations

import itertools
from math import log2

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import routestats as rs
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.stats import _tables
from routestats.stats._jackknife import information_without_groups
from routestats.stats._shuffle import ShuffleWithin


def naive_information(first: list[int], second: list[int]) -> float:
    total = len(first)
    value = 0.0
    for a, b in set(zip(first, second, strict=True)):
        joint = sum(x == a and y == b for x, y in zip(first, second, strict=True)) / total
        value += joint * log2(joint * total * total / (first.count(a) * second.count(b)))
    return value


def markov(tokens: int, layers: int, experts: int, seed: int) -> npt.NDArray[np.uint8]:
    """First choices that keep the layer before's with probability 1/2; second ones beside them."""
    rng = np.random.default_rng(seed)
    top = rng.integers(0, experts, (tokens, layers))
    for layer in range(1, layers):
        keep = rng.random(tokens) < 0.5
        top[keep, layer] = top[keep, layer - 1]
    return np.stack((top, (top + 1) % experts), axis=2).astype(np.uint8)


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.integers(1, 40),
    experts=st.integers(2, 6),
    slots=st.integers(1, 2),
    seed=st.integers(0, 999),
)
def test_tables_and_jackknife_equal_the_long_way(
    tokens: int, experts: int, slots: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    source = np.argsort(rng.random((tokens, experts)), axis=1)[:, :slots]
    target = np.argsort(rng.random((tokens, experts)), axis=1)[:, :slots]
    groups = rng.integers(0, 4, tokens)

    def pairs(keep: npt.NDArray[np.bool_]) -> tuple[list[int], list[int]]:
        found = [
            (a, b)
            for s, t in zip(source[keep].tolist(), target[keep].tolist(), strict=True)
            for a, b in itertools.product(s, t)
        ]
        return [a for a, _ in found], [b for _, b in found]

    everything = np.ones(tokens, bool)
    table = np.zeros((experts, experts), np.uint64)
    np.add.at(table, pairs(everything), 1)
    expected = naive_information(*pairs(everything))
    assert _tables.mutual_information_bits(table) == pytest.approx(expected, abs=1e-9)
    without = information_without_groups(source, target, groups, 4, experts)
    for group in range(4):
        keep = groups != group
        if keep.any():
            assert without[group] == pytest.approx(naive_information(*pairs(keep)), abs=1e-9)
        else:
            assert np.isnan(without[group])


def test_known_tables() -> None:
    same = np.diag([5, 5, 5, 5])
    assert _tables.mutual_information_bits(same) == pytest.approx(2.0)
    assert _tables.miller_madow_bits(same) == pytest.approx(2 + 3 / (40 * np.log(2)))
    assert _tables.cramers_v(same) == pytest.approx(1.0)
    even = np.full((4, 4), 5)
    assert _tables.mutual_information_bits(even) == pytest.approx(0.0)
    assert _tables.cramers_v(even) == 0.0
    assert _tables.entropy_bits(np.array([1, 1, 2])) == pytest.approx(1.5)
    assert np.isnan(_tables.cramers_v(np.array([[5, 5], [0, 0]])))
    from scipy.spatial.distance import jensenshannon

    p, q = np.array([1, 2, 3, 0]), np.array([4, 1, 0, 1])
    assert _tables.divergence_bits(p, q) == pytest.approx(jensenshannon(p, q, base=2) ** 2)
    assert _tables.divergence_bits(p, 3 * p) == pytest.approx(0.0, abs=1e-12)


def test_shuffled_rows_stay_in_their_class_and_layers_part() -> None:
    experts = np.arange(400, dtype=np.uint16).reshape(100, 2, 2)
    classes = np.arange(100) % 7
    shuffled = ShuffleWithin(classes)(experts, np.random.default_rng(0))
    for layer in range(2):
        for c in range(7):
            before = experts[classes == c, layer]
            after = shuffled[classes == c, layer]
            assert sorted(before.tolist()) == sorted(after.tolist())
        assert (shuffled[:, layer] != experts[:, layer]).any()
    assert (shuffled[:, 0, 0] + 2 != shuffled[:, 1, 0]).any()


def test_nulls_tell_a_real_chain_from_a_request_and_from_a_token() -> None:
    """Three ways for two layers to agree; only the first is structure across layers."""
    rng = np.random.default_rng(1)
    tokens, experts = 6_000, 4
    request, token = np.repeat(np.arange(60), 100), rng.integers(0, 12, tokens)
    noise = rng.integers(0, experts, (tokens, 2))

    def trace(top: npt.NDArray[np.int64]) -> rs.Trace:
        return rs.Trace.from_arrays(
            top[:, :, None], num_experts=experts, request_ids=request, token_ids=token
        )

    def mixed(choice: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.where(rng.random((tokens, 2)) < 0.7, choice[:, None], noise)

    chain = rs.stats.information(trace(mixed(noise[:, 0])))
    by_request = rs.stats.information(trace(mixed(request % experts)))
    by_token = rs.stats.information(trace(mixed(token % experts)))
    whole = [found.mean_by_hop.value[0] for found in (chain, by_request, by_token)]
    assert min(whole) > 0.2
    assert chain.request_null_by_hop[0] < 0.02
    assert chain.token_null_by_hop[0] < 0.02
    assert by_request.request_null_by_hop[0] == pytest.approx(
        by_request.mean_by_hop.value[0], abs=0.02
    )
    assert by_request.token_null_by_hop[0] < 0.02
    assert by_token.token_null_by_hop[0] == pytest.approx(whole[2], abs=0.02)
    assert by_token.request_null_by_hop[0] < 0.02


@pytest.mark.parametrize("pairing", ["top1", "any"])
def test_matrices_hops_table_and_intervals(pairing: str) -> None:
    experts = markov(3_000, 5, 6, seed=2)
    trace = rs.Trace.from_arrays(
        experts, num_experts=6, ordered=True, request_ids=np.repeat(np.arange(30), 100)
    )
    found = rs.stats.information(trace, pairing, hops="all", null_draws=2)
    assert found.hops == (1, 2, 3, 4)
    defined = np.isfinite(found.mi_bits.value)
    assert (defined == np.triu(np.ones((5, 5), bool), 1)).all()
    assert found.to_table().num_rows == 10
    value, low, high = found.mean_by_hop
    assert (np.diff(value) < 0).all()
    assert (low < value).all()
    assert (value < high).all()
    assert found.excess_over_request_bits[0, 1] > 0.2
    assert np.isnan(found.token_null_bits).all()
    assert np.isfinite(found.normalised).any() == (pairing == "top1")
    again = rs.stats.information(trace, pairing, hops=(1,), null_draws=2)
    assert again.mi_bits.value[0, 1] == found.mi_bits.value[0, 1]
    assert np.isnan(again.mi_bits.value[0, 2])
    assert "hop  1" in found.summary()
    assert '"token_null_by_hop": [null' in found.to_json()


def test_the_interval_covers_the_truth() -> None:
    """95 % intervals of a chain whose information is known, over 40 traces."""
    experts, keep = 4, 0.5
    same, other = keep + (1 - keep) / experts, (1 - keep) / experts
    truth = 2 + same * log2(same) + (experts - 1) * other * log2(other)
    covered = 0
    for seed in range(40):
        trace = rs.Trace.from_arrays(
            markov(2_000, 2, experts, seed)[:, :, :1],
            num_experts=experts,
            request_ids=np.repeat(np.arange(40), 50),
        )
        _, low, high = rs.stats.information(trace, null_draws=0).mean_by_hop
        covered += bool(low[0] <= truth <= high[0])
    assert covered >= 34


def test_wrong_arguments_are_named() -> None:
    trace = rs.Trace.from_arrays(markov(10, 3, 4, 0), num_experts=4)
    with pytest.raises(InvalidValueError, match="ordered"):
        rs.stats.information(trace)
    with pytest.raises(InvalidValueError, match="hops: expected some of 1 to 2"):
        rs.stats.information(trace, "any", hops=(3,))
    with pytest.raises(InvalidTypeError, match="trace: expected a Trace"):
        rs.stats.information(np.zeros((3, 2, 1)))  # type: ignore[arg-type]
