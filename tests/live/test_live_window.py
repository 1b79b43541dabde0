"""The window equals what a naive count of the same rows gives, in memory that does not grow."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from live_cases import SHAPE, FakeEngine
from scipy.stats import entropy

import routestats as rs
from routestats.live import _measures
from routestats.live._state import LiveState
from routestats.live._window import RoutingWindow
from routestats.schema import RoutingBatch
from routestats.shape import RouteShape
from routestats.stats._base.contingency import entropy_bits
from routestats.trace.feed import FeedReader, FeedWriter, row_dtype


def rows_of(experts: np.ndarray, shape: RouteShape, start: int = 0) -> np.ndarray:
    rows = np.zeros(len(experts), row_dtype(shape))
    rows["experts"] = experts
    rows["position"] = np.arange(start, start + len(experts))
    return rows


@given(
    size=st.integers(1, 12),
    pieces=st.lists(st.integers(0, 30), max_size=8),
    seed=st.integers(0, 99),
)
def test_sliding_counts_equal_a_count_of_the_last_rows(
    size: int, pieces: list[int], seed: int
) -> None:
    shape = RouteShape(3, 5, 2)
    random = np.random.default_rng(seed)
    window = RoutingWindow(shape, size)
    everything = random.integers(0, 5, (sum(pieces), 3, 2))
    done = 0
    for count in pieces:
        window.add(rows_of(everything[done : done + count], shape, done))
        done += count
        kept = everything[max(done - size, 0) : done]
        assert (len(window), window.seen) == (len(kept), done)
        np.testing.assert_array_equal(window.rows()["experts"], kept)
        np.testing.assert_array_equal(window.rows(3)["position"], np.arange(done)[-min(size, 3) :])
        np.testing.assert_array_equal(window.first_choices(), kept[:, :, 0])
        naive = [[np.sum(kept[:, layer] == e) for e in range(5)] for layer in range(3)]
        np.testing.assert_array_equal(window.load, naive)


def skewed(rows: int, shape: RouteShape, seed: int) -> np.ndarray:
    """Routing in which layers follow each other, and experts differ in load."""
    random = np.random.default_rng(seed)
    share = random.dirichlet(np.full(shape.num_experts, 0.7))
    first = random.choice(shape.num_experts, (rows, shape.num_layers), p=share)
    for layer in range(1, shape.num_layers):
        follows = random.random(rows) < 0.4
        first[follows, layer] = (3 * first[follows, layer - 1] + layer) % shape.num_experts
    return (first[:, :, None] + np.arange(shape.top_k)) % shape.num_experts


def test_predictability_is_hop_accuracy_fitted_on_the_older_half() -> None:
    shape = RouteShape(5, 8, 2)
    experts = skewed(1001, shape, 0)
    found = _measures.predictability(experts[:, :, 0], 8)
    train = rs.Trace.from_arrays(experts[:500], num_experts=8, ordered=True)
    test = rs.Trace.from_arrays(experts[500:], num_experts=8, ordered=True)
    result = rs.stats.hop_accuracy(
        train, test, "top1", predictors=("single_hop", "marginal"), bootstrap=0
    )
    table = {
        (row["predictor"], row["target"]): row["value"]
        for row in result.to_table().to_pylist()
        if row["measure"] == "top1_accuracy" and row["kind"] == "pair" and row["hop"] == 1
    }
    assert found.tested == 501
    for name, values in (("single_hop", found.single_hop), ("marginal", found.marginal)):
        expected = [table[name, target] for target in range(1, 5)]
        np.testing.assert_allclose(values, expected)
    assert (found.single_hop > found.marginal).all()


def test_balance_is_that_of_expert_load() -> None:
    shape = RouteShape(3, 8, 2)
    experts = skewed(400, shape, 1)
    load = rs.stats.expert_load(rs.count(experts, num_experts=8, hops=(0,), pairing="any"))
    window = RoutingWindow(shape, 1000)
    window.add(rows_of(experts, shape))
    np.testing.assert_array_equal(window.load, load.load)
    np.testing.assert_allclose(_measures.imbalance(window.load), load.imbalance)
    np.testing.assert_allclose(entropy_bits(window.load), load.entropy_bits)
    np.testing.assert_allclose(_measures.times_even(window.load), load.share * 8)


def test_information_is_what_its_definition_gives_and_its_null_what_chance_gives() -> None:
    experts = skewed(4000, RouteShape(3, 8, 1), 2)[:, :, 0]
    found = _measures.adjacent_information(experts, 8)
    for target in (1, 2):
        joint = np.zeros((8, 8))
        np.add.at(joint, (experts[:, target - 1], experts[:, target]), 1)
        later = entropy(joint.sum(axis=0), base=2)
        bits = entropy(joint.sum(axis=1), base=2) + later - entropy(joint.ravel(), base=2)
        assert found.ratio[target - 1] == pytest.approx(bits / later)
    assert (found.ratio > 0.05).all()
    assert (found.null_ratio < 0.01).all()
    apart = np.random.default_rng(3).integers(0, 64, (1000, 2))
    chance = _measures.adjacent_information(apart, 64)
    assert chance.ratio[0] == pytest.approx(chance.null_ratio[0], rel=0.05)
    assert chance.ratio[0] > 0.2  # 1,000 rows over 4,096 cells: the null is not to be left out


def test_too_few_rows_give_no_figure() -> None:
    first = np.zeros((31, 3), np.int64)
    assert np.isnan(_measures.predictability(first, 8).single_hop).all()
    assert np.isnan(_measures.adjacent_information(first, 8).ratio).all()
    nothing = np.zeros((2, 8), np.int64)
    assert np.isnan(entropy_bits(nothing)).all()
    assert np.isnan(_measures.imbalance(nothing)).all()


def test_millions_of_rows_stay_in_bounds(tmp_path: Path) -> None:
    FakeEngine(tmp_path / "run").close()  # a run of which nothing but its description is used
    shape, capacity = SHAPE, 4096
    feed = FeedWriter(tmp_path / "run", shape, layer_ids=range(4), capacity=capacity)
    size = feed.path.stat().st_size
    experts = skewed(50_000, shape, 4).astype(np.uint8)
    state = LiveState(tmp_path / "run", window=2048, least_seconds=0.0)
    batch = _batch(experts)
    feed.publish([batch], rows=50_000, dropped=0, waiting=0)
    state.refresh()
    state.predictability()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for i in range(2, 62):
            feed.publish([batch], rows=50_000 * i, dropped=0, waiting=0)
            state.refresh()
            state.predictability()
            assert len(state.latest(34)) == 34
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert state.standing.rows == 3_050_000
    assert state.standing.skipped == 3_050_000 - 61 * 2048
    assert state.window is not None
    assert (len(state.window), state.window.seen) == (2048, 61 * 2048)
    assert after - before < 200_000  # three million rows are 72 MB
    assert feed.path.stat().st_size == size
    with FeedReader(tmp_path / "run") as reader:
        assert len(reader.read()[0]) == capacity
    state.close()
    feed.close(rows=0, dropped=0)


def _batch(experts: np.ndarray) -> RoutingBatch:
    rows = len(experts)
    return RoutingBatch(
        domain="d",
        request_ids=("r",),
        request_index=np.zeros(rows, np.int32),
        positions=np.arange(rows, dtype=np.int32),
        token_ids=np.zeros(rows, np.int32),
        phase=np.zeros(rows, np.uint8),
        experts=experts,
    )
