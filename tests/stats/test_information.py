"""Information, its nulls and intervals, against formulas written out the long way."""

from __future__ import annotations

import itertools
from math import log2
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import routestats as rs
from routestats.counts import GroupedRows, count
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.stats._base import contingency
from routestats.stats._information.without_groups import (
    cell_sums,
    information_without_groups,
    jackknife,
)
from simulated_groups import TwoLayers


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
    assert contingency.mutual_information_bits(table) == pytest.approx(expected, abs=1e-9)
    ids = np.stack((source, target), axis=1)
    counts = count(ids, num_experts=experts, hops=(1,))
    present = np.unique(groups)
    without = information_without_groups(ids, counts, cell_sums(counts), GroupedRows.of(groups))
    assert without.shape == (len(present), 1)
    for value, group in zip(without[:, 0], present, strict=True):
        keep = groups != group
        if keep.any():
            assert value == pytest.approx(naive_information(*pairs(keep)), abs=1e-9)
        else:
            assert np.isnan(value)


def test_known_tables() -> None:
    same = np.diag([5, 5, 5, 5])
    assert contingency.mutual_information_bits(same) == pytest.approx(2.0)
    assert contingency.miller_madow_bits(same) == pytest.approx(2 + 3 / (40 * np.log(2)))
    assert contingency.cramers_v(same) == pytest.approx(1.0)
    even = np.full((4, 4), 5)
    assert contingency.mutual_information_bits(even) == pytest.approx(0.0)
    assert contingency.cramers_v(even) == 0.0
    assert contingency.entropy_bits(np.array([1, 1, 2])) == pytest.approx(1.5)
    assert np.isnan(contingency.cramers_v(np.array([[5, 5], [0, 0]])))
    from scipy.spatial.distance import jensenshannon

    p, q = np.array([1, 2, 3, 0]), np.array([4, 1, 0, 1])
    assert contingency.divergence_bits(p, q) == pytest.approx(jensenshannon(p, q, base=2) ** 2)
    assert contingency.divergence_bits(p, 3 * p) == pytest.approx(0.0, abs=1e-12)


def test_a_table_worked_by_hand() -> None:
    """N = 8, margins 5 and 3 both ways."""
    table = np.array([[4, 1], [1, 2]])
    by_hand = 0.5 * log2(32 / 25) + 0.25 * log2(8 / 15) + 0.25 * log2(16 / 9)
    assert by_hand == pytest.approx(0.15887, abs=1e-5)
    assert contingency.mutual_information_bits(table) == pytest.approx(by_hand)
    # 8 (4 * 2 - 1 * 1)^2 / (5 * 3 * 5 * 3); Bergsma: (phi^2 - 1 / 7) / (2 - 1 / 7 - 1).
    assert contingency.chi_square(table) == pytest.approx(392 / 225)
    assert contingency.cramers_v(table, corrected=False) == pytest.approx((49 / 225) ** 0.5)
    assert contingency.cramers_v(table) == pytest.approx(((49 / 225 - 1 / 7) / (6 / 7)) ** 0.5)
    assert contingency.miller_madow_bits(table) == pytest.approx(by_hand - 1 / (16 * np.log(2)))
    assert np.isnan(contingency.chi_square(np.zeros((2, 2))))


@pytest.mark.parametrize("seed", range(5))
def test_tables_equal_scipy_and_scikit_learn(seed: int) -> None:
    from scipy.stats.contingency import association, chi2_contingency

    experts = markov(500, 4, 6, seed)
    found = rs.stats.information(
        rs.Trace.from_arrays(experts, num_experts=6, ordered=True), hops="all", null_draws=0
    )
    for src, dst in itertools.combinations(range(4), 2):
        table = count(experts, num_experts=6, pairing="top1").pair(src, dst).astype(np.int64)
        cramer = association(table, method="cramer")
        assert found.cramers_v_uncorrected[src, dst] == pytest.approx(cramer)
        statistic = chi2_contingency(table, correction=False).statistic
        assert contingency.chi_square(table) == pytest.approx(statistic)
    scores = pytest.importorskip("sklearn.metrics")
    for src, dst in itertools.combinations(range(4), 2):
        nats = scores.mutual_info_score(experts[:, src, 0], experts[:, dst, 0])
        assert found.mi_bits.value[src, dst] == pytest.approx(nats / np.log(2))


def test_jackknife_of_a_mean_is_students_interval() -> None:
    """A mean has no bias, and the jackknife's error of it is the usual one."""
    from scipy.stats import t

    x = np.random.default_rng(0).normal(size=30)
    x = np.concatenate((x, 2 * x.mean() - x))  # symmetric, so that no skewness is corrected
    without = (x.sum() - x) / (len(x) - 1)
    found = jackknife(np.array(x.mean()), without, np.zeros(len(x), int), 0.9)
    assert found.corrected == pytest.approx(x.mean())
    low, high = t.interval(0.9, len(x) - 1, x.mean(), x.std(ddof=1) / len(x) ** 0.5)
    assert found.low == pytest.approx(low)
    assert found.high == pytest.approx(high)


def test_jackknife_takes_the_bias_off_and_keeps_strata_apart() -> None:
    """The plug-in variance is short by 1 / n of itself; domains far apart widen nothing."""
    x = np.random.default_rng(1).normal(size=20)
    without = np.array([np.delete(x, i).var() for i in range(20)])
    found = jackknife(np.array(x.var()), without, np.zeros(20, int), 0.95)
    assert found.corrected == pytest.approx(x.var(ddof=1))

    strata = np.repeat([0, 1], 20)
    y = np.concatenate((x, x + 100))
    without = (y.sum() - y) / 39
    apart = jackknife(np.array(y.mean()), without, strata, 0.95)
    mixed = jackknife(np.array(y.mean()), without, np.zeros(40, int), 0.95)
    assert apart.high - apart.low < 0.1 * (mixed.high - mixed.low)
    lone = jackknife(np.array(y.mean()), without, np.r_[strata[:-1], 2], 0.95)
    assert np.isnan(lone).all()


def test_skewness_moves_the_interval_as_far_as_an_exponential_needs() -> None:
    """Means of 25 exponentials: equal tails come near 2.5 % each, where Student's are 6 and 0.5."""
    rng = np.random.default_rng(2)
    x = rng.exponential(size=(25, 4000))
    without = (x.sum(axis=0) - x) / 24
    _, low, high = jackknife(x.mean(axis=0), without, np.zeros(25, int), 0.95)
    assert 0.005 < (low > 1).mean() < 0.04
    assert 0.015 < (high < 1).mean() < 0.06


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


def test_excess_has_the_jackknife_interval_of_the_difference() -> None:
    """By leaving each group out of the trace: the same draws, since a class has its own."""
    experts = markov(300, 3, 4, seed=5)[:, :, :1]
    requests = np.repeat(np.arange(30), 10)
    groups = {str(request): str(request // 3) for request in range(30)}

    def excess(keep: npt.NDArray[np.bool_]) -> rs.stats.Information:
        return rs.stats.information(
            rs.Trace.from_arrays(
                experts[keep], num_experts=4, request_ids=requests[keep], groups=groups
            ),
            hops="all",
            null_draws=200,
        )

    whole = excess(np.ones(300, bool))
    assert whole.groups == 10
    without = np.stack([excess(requests // 3 != g).request_excess.value for g in range(10)])
    there = np.isfinite(whole.mi_bits.value)
    naive = jackknife(whole.request_excess.value[there], without[:, there], np.zeros(10, int), 0.95)
    width = whole.request_excess.high - whole.request_excess.low
    # The classes of a shorter trace are numbered anew and drawn otherwise: equal up to the draws.
    assert width[there] == pytest.approx(naive.high - naive.low, rel=0.15)
    assert whole.request_excess.value == pytest.approx(
        whole.mi_bits.value - whole.request_null_bits, nan_ok=True
    )
    assert (whole.request_p[there] == 1 / 201).all()


def test_long_traces_are_permuted_in_parts_to_the_same_result() -> None:
    experts = markov(900, 3, 4, seed=6)
    trace = rs.Trace.from_arrays(
        experts,
        num_experts=4,
        ordered=True,
        request_ids=np.arange(900) % 40,
        token_ids=np.arange(900) % 17,
        groups={str(request): str(request % 13) for request in range(40)},
    )
    whole = rs.stats.information(trace, "any", hops="all", null_draws=3, seed=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("routestats.stats._information.levels.HELD_ROWS", 50)
        parts = rs.stats.information(trace, "any", hops="all", null_draws=3, seed=4)
    assert whole.to_json() == parts.to_json()
    other = rs.stats.information(trace, "any", hops="all", null_draws=3, seed=5)
    assert other.request_null_bits[0, 1] != whole.request_null_bits[0, 1]
    assert other.token_null_bits[0, 1] != whole.token_null_bits[0, 1]


def test_one_request_gives_values_but_no_interval() -> None:
    trace = rs.Trace.from_arrays(markov(400, 3, 4, 0)[:, :, :1], num_experts=4)
    found = rs.stats.information(trace, null_draws=2)
    assert found.groups == 1
    assert found.mi_bits.value[0, 1] > 0.1
    assert np.isnan(found.mi_bits.low).all()
    assert np.isnan(found.jackknife_bits).all()
    assert found.request_null_bits[0, 1] < 0.1
    assert "(no interval)" in found.summary()


def test_wrong_arguments_are_named() -> None:
    trace = rs.Trace.from_arrays(markov(10, 3, 4, 0), num_experts=4)
    with pytest.raises(InvalidValueError, match="ordered"):
        rs.stats.information(trace)
    with pytest.raises(InvalidValueError, match="hops: expected some of 1 to 2"):
        rs.stats.information(trace, "any", hops=(3,))
    one = rs.Trace.from_arrays(markov(10, 1, 4, 0), num_experts=4)
    with pytest.raises(InvalidValueError, match="trace: expected at least 2 layers, got 1"):
        rs.stats.information(one, "any")
    empty = rs.Trace.from_arrays(markov(0, 3, 4, 0), num_experts=4)
    with pytest.raises(InvalidValueError, match="trace: expected at least 1 token, got 0"):
        rs.stats.information(empty, "any")
    wrong: Any
    for name, wrong in (("hops", (1.5,)), ("seed", 0.5), ("null_draws", True)):
        with pytest.raises(InvalidTypeError, match=f"{name}: expected"):
            rs.stats.information(trace, "any", **{name: wrong})
    for name, wrong in (("hops", "some"), ("seed", -1), ("null_draws", -1), ("confidence", 1.0)):
        with pytest.raises(InvalidValueError, match=f"{name}: expected"):
            rs.stats.information(trace, "any", **{name: wrong})
    with pytest.raises(InvalidValueError, match="pairing: expected one of any, top1, got 'set'"):
        rs.stats.information(trace, "set")
    with pytest.raises(InvalidTypeError, match="trace: expected a Trace"):
        rs.stats.information(np.zeros((3, 2, 1)))  # type: ignore[arg-type]


def test_tables_with_too_few_tokens_have_no_interval() -> None:
    """32 x 32 cells of 164 groups: the bias is estimated short, so that no interval would hold."""
    sparse = rs.stats.information(TwoLayers(32, 0.3).draw(np.random.default_rng(0)), null_draws=2)
    assert sparse.mi_bits.value[0, 1] > 1.0
    assert np.isnan(sparse.mi_bits.low[0, 1])
    assert np.isnan(sparse.mi_bits.high[0, 1])
    assert "(no interval)" in sparse.summary()
    # The bias of the null is about the same, so the excess keeps its own.
    assert np.isfinite(sparse.request_excess.low[0, 1])
    filled = rs.stats.information(TwoLayers(8, 0.3).draw(np.random.default_rng(0)), null_draws=0)
    assert filled.mi_bits.low[0, 1] < filled.jackknife_bits[0, 1] < filled.mi_bits.high[0, 1]
