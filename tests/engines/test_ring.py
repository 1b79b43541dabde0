"""The capture ring against the readable rule: what is written comes out, ordered, once."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routestats._core import CaptureRing
from routestats.errors import CaptureError
from routestats.trace import sort_by_weight


def ring(
    layers: int = 2, experts: int = 8, top_k: int = 2, capacity: int = 16, **more: Any
) -> CaptureRing:
    options = {"weights": True, "block": True, **more}
    return CaptureRing(layers=layers, experts=experts, top_k=top_k, capacity=capacity, **options)


def write(target: CaptureRing, ids: np.ndarray, weights: np.ndarray) -> None:
    """One step; `ids` and `weights` are [L, rows, K]."""
    for layer in range(len(ids)):
        target.write_layer(layer, ids[layer], weights[layer])


def drain(target: CaptureRing, max_rows: int = 1 << 20) -> Any:
    return target.drain(max_rows=max_rows, wait_rows=1, seconds=0.0)


def valid_step(
    rows: int, layers: int = 2, experts: int = 8, top_k: int = 2, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    ids = np.argsort(random.random((layers, rows, experts)), axis=2)[:, :, :top_k]
    return ids.astype(np.int64), random.random((layers, rows, top_k)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_steps_come_out_ordered_and_once(data: st.DataObject) -> None:
    layers = data.draw(st.integers(1, 5))
    experts = data.draw(st.sampled_from([1, 2, 8, 255, 256, 257, 600]))
    top_k = data.draw(st.integers(1, min(experts, 9)))
    capacity = data.draw(st.integers(1, 40))
    dtype = data.draw(st.sampled_from([np.int32, np.int64]))
    gate = data.draw(st.sampled_from([np.float32, np.float16]))
    random = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    target = ring(layers, experts, top_k, capacity)
    expected, got = [], []
    for _ in range(data.draw(st.integers(1, 8))):
        rows = int(random.integers(1, capacity + 1))
        padding = int(random.integers(0, 3))
        ids = np.argsort(random.random((layers, rows + padding, experts)), axis=2)[:, :, :top_k]
        # Few distinct weights, so that ties occur.
        weights = (random.integers(0, 4, ids.shape) / 7).astype(gate)
        assert target.begin_step(rows)
        write(target, np.ascontiguousarray(ids.astype(dtype)), weights)
        target.commit_step()
        expected.append(
            sort_by_weight(ids[:, :rows].swapaxes(0, 1), weights[:, :rows].swapaxes(0, 1))
        )
        spans, experts_out, weights_out = drain(target)
        assert [n for _, n in spans] == [rows]
        got.append((experts_out, weights_out))
    for (ids, weights), (ids_out, weights_out) in zip(expected, got, strict=True):
        assert ids_out.dtype == (np.uint8 if experts <= 256 else np.uint16)
        np.testing.assert_array_equal(ids, ids_out)
        np.testing.assert_array_equal(weights.view(np.uint16), weights_out.view(np.uint16))


def test_float16_is_numpys_for_every_kind_of_float32() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint32)
    edges = np.array([0, 1, 0x33000000, 0x33000001, 0x387FFFFF, 0x477FEFFF, 0x477FF000, 0x7F800000])
    values = np.r_[bits, edges.astype(np.uint32)].view(np.float32)
    values = values[~np.isnan(values)]
    target = ring(1, 1, 1, len(values))
    target.begin_step(len(values))
    target.write_layer(0, np.zeros((len(values), 1), np.int32), values[:, None])
    target.commit_step()
    _, _, out = drain(target)
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    np.testing.assert_array_equal(out.ravel().view(np.uint16), expected.view(np.uint16))


def test_every_float16_survives() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[~np.isnan(halves)]
    target = ring(1, 1, 1, len(halves))
    target.begin_step(len(halves))
    target.write_layer(0, np.zeros((len(halves), 1), np.int32), halves[:, None])
    target.commit_step()
    np.testing.assert_array_equal(drain(target)[2].ravel().view(np.uint16), halves.view(np.uint16))


def test_outside_a_step_nothing_is_taken() -> None:
    target = ring()
    ids, weights = valid_step(3)
    write(target, ids, weights)
    target.begin_step(3)
    with pytest.raises(CaptureError, match="MoE layer 0 was not written"):
        target.commit_step()
    assert target.committed_rows == 0


@pytest.mark.parametrize("missing", [0, 1])
def test_a_layer_that_was_not_written_is_named(missing: int) -> None:
    target = ring()
    ids, weights = valid_step(3)
    for _ in range(2):  # also when the layer was written in the step before
        target.begin_step(3)
        write(target, ids, weights)
        target.commit_step()
    target.begin_step(3)
    target.write_layer(1 - missing, ids[1 - missing], weights[1 - missing])
    with pytest.raises(CaptureError, match=f"step 2: MoE layer {missing} was not written"):
        target.commit_step()


@pytest.mark.parametrize("bad", [-1, 8, 300, 2**33])
def test_an_id_out_of_range_is_named(bad: int) -> None:
    target = ring()
    ids, weights = valid_step(3)
    ids[1, 2, 0] = bad
    target.begin_step(3)
    write(target, ids, weights)
    with pytest.raises(
        CaptureError, match=f"MoE layer 1, row 2: expert id {bad}, but num_experts is 8"
    ):
        target.commit_step()
    assert drain(target)[0] == []


def test_too_few_rows_and_doubled_layers_are_faults() -> None:
    target = ring()
    ids, weights = valid_step(3)
    target.begin_step(4)
    write(target, ids, weights)
    with pytest.raises(CaptureError, match="routed 3 rows of a step of 4"):
        target.commit_step()
    target.begin_step(3)
    write(target, ids, weights)
    target.write_layer(0, ids[0], weights[0])
    with pytest.raises(CaptureError, match="routed twice"):
        target.commit_step()


def test_drop_counts_every_row() -> None:
    target = ring(capacity=5, block=False)
    ids, weights = valid_step(3)
    kept = []
    for _ in range(3):
        kept.append(target.begin_step(3))
        if kept[-1]:
            write(target, ids, weights)
            target.commit_step()
    assert kept == [True, False, False]
    assert (target.dropped_rows, target.dropped_steps, target.committed_rows) == (6, 2, 3)
    drain(target)
    assert target.begin_step(3)


def test_block_waits_for_the_drain() -> None:
    target = ring(capacity=3)
    ids, weights = valid_step(3)
    target.begin_step(3)
    write(target, ids, weights)
    target.commit_step()
    entered = threading.Event()

    def next_step() -> None:
        target.begin_step(1)
        entered.set()

    waiting = threading.Thread(target=next_step)
    waiting.start()
    assert not entered.wait(0.1)
    drain(target)
    assert entered.wait(5)
    waiting.join()


def test_a_failed_drain_frees_a_blocked_engine() -> None:
    target = ring(capacity=1)
    ids, weights = valid_step(1)
    target.begin_step(1)
    write(target, ids, weights)
    target.commit_step()
    threading.Timer(0.05, lambda: target.fail("disk full")).start()
    with pytest.raises(CaptureError, match="disk full"):
        target.begin_step(1)


def test_a_step_larger_than_the_ring_is_refused() -> None:
    with pytest.raises(ValueError, match="a step of 17 rows exceeds the ring's capacity of 16"):
        ring().begin_step(17)


def test_one_thread_writes_while_another_drains() -> None:
    target = ring(layers=3, capacity=64)
    steps = [valid_step(1 + i % 17, layers=3, seed=i) for i in range(300)]
    got: list[np.ndarray] = []

    def reader() -> None:
        while sum(map(len, got)) < sum(ids.shape[1] for ids, _ in steps):
            got.append(target.drain(max_rows=40, wait_rows=8, seconds=0.05)[1])

    thread = threading.Thread(target=reader)
    thread.start()
    for ids, weights in steps:
        assert target.begin_step(ids.shape[1])
        write(target, ids, weights)
        target.commit_step()
    thread.join(timeout=30)
    assert not thread.is_alive()
    expected = [sort_by_weight(i.swapaxes(0, 1), w.swapaxes(0, 1))[0] for i, w in steps]
    np.testing.assert_array_equal(np.concatenate(got), np.concatenate(expected))


def test_drain_returns_in_time_when_there_is_nothing() -> None:
    start = time.monotonic()
    spans, ids, weights = ring().drain(max_rows=10, wait_rows=5, seconds=0.05)
    assert weights is not None
    assert (spans, ids.shape, weights.shape) == ([], (0, 2, 2), (0, 2, 2))
    assert time.monotonic() - start < 2
