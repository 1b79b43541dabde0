"""Counts on the device equal the NumPy specification and the CPU's, bit for bit."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from devices import EMULATED, keep_busy, on_device
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from output_cases import refuse_wrong_outputs
from stub_cases import module_names, stub_names

from routestats._core import CaptureTarget
from routestats.counts import LiveCounts, RouteCounts, count, count_paths
from routestats.counts._plan import PairPlan, check_hops
from routestats.counts.device.counts import as_device_ids, count_on_cuda
from routestats.counts.reference.pairs import expert_counts, pair_counts
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.shape import RouteShape

# Every kernel is a hundred times slower, or a thousand.
SANITIZED = EMULATED is not None or "ROUTESTATS_SANITIZE" in os.environ
METHODS = ("direct", "lists")
SLOW = settings(
    max_examples=10 if EMULATED else 40,
    deadline=None,
    suppress_health_check=[HealthCheck.data_too_large],
)


def draw_ids(random: Any, tokens: int, shape: RouteShape, *, distinct: bool = True) -> Any:
    """Ids [T, L, K] whose experts are of unequal popularity."""
    size = (tokens, shape.num_layers, shape.num_experts)
    if not distinct:
        return random.integers(0, shape.num_experts, (*size[:2], shape.top_k)).astype(np.int32)
    noise = random.gumbel(size=size) - np.log(1 + np.arange(shape.num_experts))
    return np.argsort(-noise, axis=2)[:, :, : shape.top_k].astype(np.int32)


def on_cuda(ids: Any, shape: RouteShape, hops: Any, pairing: str, method: str | None) -> Any:
    counts = RouteCounts.empty(shape, hops=hops, pairing=pairing)
    plan = PairPlan(check_hops(hops, shape.num_layers), shape.num_layers)
    counts.tokens = count_on_cuda(
        [as_device_ids(ids)],
        shape,
        slots=1 if pairing == "top1" else shape.top_k,
        layer_pairs=plan.pairs,
        expert=counts._expert,
        pairs=counts._pairs,
        method=method,
    )
    return counts


@SLOW
@given(st.data())
def test_every_method_equals_the_specification(data: st.DataObject) -> None:
    layers = data.draw(st.integers(1, 96))
    experts = data.draw(st.sampled_from([1, 2, 7, 8, 16, 33, 64, 128, 160, 255, 256, 257, 512]))
    top_k = data.draw(st.integers(1, min(experts, 16)))
    size = 30_000 if EMULATED else 3_000_000
    tokens = data.draw(st.integers(1, max(2, size // (layers * experts))))
    pairing = data.draw(st.sampled_from(["any", "top1"]))
    hops: Any = "all" if layers * experts <= 2048 else data.draw(st.sampled_from([0, (0, 1)]))
    if hops == (0, 1) and layers == 1:
        hops = 0
    shape = RouteShape(layers, experts, top_k)
    ids = draw_ids(np.random.default_rng(data.draw(st.integers(0, 2**31))), tokens, shape)
    expected = count(ids, num_experts=experts, hops=hops, pairing=pairing, device="cpu")
    np.testing.assert_array_equal(
        expected.expert, expert_counts(ids, experts, pairing=pairing), strict=True
    )
    hop = expected.hops[-1]
    np.testing.assert_array_equal(
        expected.pair(0, hop), pair_counts(ids, experts, 0, hop, pairing=pairing)
    )
    dtype = data.draw(st.sampled_from([np.int32, np.int64, np.int16]))
    device = on_device(ids.astype(dtype))
    for method in (*METHODS, None):
        assert on_cuda(device, shape, hops, pairing, method) == expected, method


def test_the_shape_and_the_tokens_choose_the_method() -> None:
    from routestats import _cuda

    assert _cuda.METHODS == METHODS
    shape = RouteShape(7, 24, 3)
    ids = draw_ids(np.random.default_rng(8), 10_000 if EMULATED else 200_000, shape)
    expected = count(ids, num_experts=24, device="cpu")
    device = on_device(ids.astype(np.uint8))
    assert on_cuda(device, shape, "all", "any", None) == expected
    counter = _cuda.PairCounter(layers=7, experts=24, slots=3, layer_pairs=[(0, 1)])

    def taken(tokens: int, method: str | None = None) -> str:
        part = as_device_ids(device[:tokens])
        return counter.add(
            part.address,
            (tokens, 7, 3),
            (part.strides[0], part.strides[1], part.strides[2]),
            item_bytes=1,
            is_signed=False,
            method=method,
        )

    assert (taken(len(ids)), taken(20)) == ("lists", "direct")
    assert [taken(20, method) for method in METHODS] == list(METHODS)
    tables = np.zeros((7, 24), np.uint64), np.zeros((1, 24, 24), np.uint64)
    counter.read(*tables)  # and waits for the device, which reads the ids until then
    some = count(ids[:20], num_experts=24, device="cpu")
    np.testing.assert_array_equal(tables[0], expected.expert + 3 * some.expert)
    np.testing.assert_array_equal(tables[1][0], expected.pair(0, 1) + 3 * some.pair(0, 1))


def tiled(shape: RouteShape, repeats: int) -> Any:
    """40,000 tokens, over and over."""
    ids = draw_ids(np.random.default_rng(0), 10_000 if EMULATED else 40_000, shape)
    return np.tile(ids.astype(np.uint8), (2 if SANITIZED else repeats, 1, 1))


@pytest.mark.parametrize("method", METHODS)
def test_many_tokens_in_several_blocks(method: str) -> None:
    """More tokens than one block of any method holds, and than 16-bit cells could."""
    shape = RouteShape(24, 64, 4)
    ids = tiled(shape, 40)
    expected = count(ids, num_experts=64, hops=(0, 1), device="cpu")
    assert on_cuda(on_device(ids), shape, (0, 1), "any", method) == expected


def test_several_blocks_of_lists_of_few_experts() -> None:
    """Their rows are narrow, so that it is the lists which end a block: 254 times 2048 tokens."""
    shape = RouteShape(32, 8, 8)
    ids = tiled(shape, 14)
    expected = count(ids, num_experts=8, hops=(0, 1), device="cpu")
    assert on_cuda(on_device(ids), shape, (0, 1), "any", "lists") == expected


@pytest.mark.parametrize("method", METHODS)
def test_batches_of_all_sizes(method: str) -> None:
    """One counter's memory grows with them, from the device's memory and from the host's."""
    shape = RouteShape(5, 40, 4)
    ids = draw_ids(np.random.default_rng(6), 30_000, shape)
    cuts = [0, 1, 40, 3000, 3001, 20_000, 20_500, 30_000]
    parts = [ids[first:last] for first, last in pairwise(cuts)]
    expected = count(ids, num_experts=40, device="cpu")
    plan = PairPlan(check_hops("all", shape.num_layers), shape.num_layers)
    there = [as_device_ids(on_device(part)) for part in parts]
    for chunks in (parts, there):
        counts = RouteCounts.empty(shape, hops="all", pairing="any")
        counts.tokens = count_on_cuda(
            chunks,
            shape,
            slots=shape.top_k,
            layer_pairs=plan.pairs,
            expert=counts._expert,
            pairs=counts._pairs,
            method=method,
        )
        assert counts == expected


@SLOW
@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 300), st.integers(0, 2**31))
def test_repeated_experts(experts: int, layers: int, tokens: int, seed: int) -> None:
    shape = RouteShape(layers, experts, min(experts, 3))
    ids = draw_ids(np.random.default_rng(seed), tokens, shape, distinct=False)
    expected = count(ids, num_experts=experts, device="cpu")
    for method in ("direct", None):
        assert on_cuda(on_device(ids), shape, "all", "any", method) == expected


def test_strided_arrays() -> None:
    shape = RouteShape(5, 20, 3)
    ids = draw_ids(np.random.default_rng(1), 999, shape)
    expected = count(ids[::3], num_experts=20, device="cpu")
    tensor = on_device(ids)
    assert count(tensor[::3], num_experts=20) == expected
    turned = on_device(ids.transpose(2, 0, 1).copy().transpose(1, 2, 0))
    assert count(turned[::3], num_experts=20) == expected
    assert count(tensor[::3], num_experts=20).device == "cuda"
    assert count(ids[::3], num_experts=20, device="cuda") == expected


def test_cupy_arrays() -> None:
    cupy = pytest.importorskip("cupy", reason="counts CuPy arrays")
    ids = draw_ids(np.random.default_rng(1), 999, RouteShape(5, 20, 3))
    expected = count(ids[::3], num_experts=20, device="cpu")
    assert count(cupy.asarray(ids.astype(np.uint8))[::3], num_experts=20) == expected


@pytest.mark.parametrize(
    ("value", "dtype"), [(8, np.uint8), (-1, np.int8), (-1, np.int64), (300, np.int32)]
)
def test_the_first_id_out_of_range_is_named(value: int, dtype: Any) -> None:
    ids = np.zeros((50, 4, 2), dtype)
    ids[:, :, 1] = 1
    ids[17, 3, 1] = value
    ids[17, 3, 0] = value
    ids[40, 0, 0] = value
    counts = RouteCounts.empty(RouteShape(4, 8, 2), hops="all", pairing="any")
    with pytest.raises(InvalidValueError) as error:
        counts.update(on_device(ids))
    assert str(error.value) == f"experts[17, 3, 0] = {value}, but num_experts is 8"
    assert counts == RouteCounts.empty(RouteShape(4, 8, 2), hops="all", pairing="any")


@pytest.mark.parametrize(("dtype", "experts"), [(np.int8, 256), (np.int16, 65_536)])
def test_negative_ids_are_no_experts_of_many(dtype: Any, experts: int) -> None:
    ids = np.zeros((50, 2, 1), dtype)
    ids[9, 1, 0] = -1
    message = rf"experts\[9, 1, 0\] = -1, but num_experts is {experts}"
    with pytest.raises(InvalidValueError, match=message):
        count_paths(on_device(ids), num_experts=experts)


@pytest.mark.parametrize("experts", [128, 256, 384])
def test_lists_of_many_blocks(experts: int) -> None:
    """More blocks of rows than one share may sum, long lists, and a last block that is short."""
    shape = RouteShape(2, experts, 8)
    random = np.random.default_rng(experts)
    blocks = 3 if SANITIZED else 70
    ids = np.tile(draw_ids(random, 2048, shape).astype(np.uint16), (blocks, 1, 1))[:-777]
    ids[::3] = np.arange(8)  # one expert's counters nearly fill up
    expected = count(ids, num_experts=experts, device="cpu")
    assert on_cuda(on_device(ids), shape, "all", "any", "lists") == expected


def test_updates_add_up_across_devices() -> None:
    ids = draw_ids(np.random.default_rng(2), 600, RouteShape(3, 8, 2))
    counts = count(ids[:200], num_experts=8, device="cpu")
    counts.update(on_device(ids[200:]))
    assert counts == count(ids, num_experts=8, device="cpu")


@SLOW
@given(st.data())
def test_paths_equal_the_cpus(data: st.DataObject) -> None:
    layers = data.draw(st.integers(1, 12))
    experts = data.draw(st.sampled_from([1, 2, 8, 300]))
    shape = RouteShape(layers, experts, data.draw(st.integers(1, min(experts, 4))))
    random = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    ids = draw_ids(random, data.draw(st.integers(1, 300)), shape)
    ids = ids[random.integers(0, len(ids), 4 * len(ids))]  # most rows repeat another
    start = data.draw(st.integers(0, layers - 1))
    window: dict[str, Any] = {
        "start": start,
        "length": data.draw(st.integers(1, layers - start)),
        "top": data.draw(st.sampled_from([0, 3, 1000])),
        "num_experts": experts,
    }
    for kind in ("top1", "set"):
        expected = count_paths(ids, kind, **window)
        there = on_device(ids)
        for got in (
            count_paths(there, kind, **window),
            count_paths(ids, kind, **window, device="cuda"),
        ):
            assert got.device == "cuda"
            assert (got.tokens, got.distinct) == (expected.tokens, expected.distinct)
            np.testing.assert_array_equal(got.paths, expected.paths, strict=True)
            np.testing.assert_array_equal(got.counts, expected.counts, strict=True)
            for mine, theirs in zip(got.frequencies(), expected.frequencies(), strict=True):
                np.testing.assert_array_equal(mine, theirs)


def test_a_set_path_needs_sets_in_its_window_only() -> None:
    ids = np.zeros((60, 4, 3), np.int32) + np.arange(3, dtype=np.int32)
    ids[41, 2, 2] = ids[41, 2, 0]
    ids[50, 1, 1] = ids[50, 1, 0]
    for source in (ids, on_device(ids)):
        for start in (0, 2):
            with pytest.raises(InvalidValueError) as error:
                count_paths(source, "set", start, num_experts=8, device="auto")
            assert str(error.value) == (
                "experts[41, 2, 2] = 0, which is in slot 0 already; a set needs distinct experts"
            )
        assert count_paths(source, "set", 3, num_experts=8).distinct == 1
        assert count_paths(source, "top1", num_experts=8).tokens == 60


def test_a_table_of_paths_grows() -> None:
    tokens = 100_000 if SANITIZED else 2_500_000
    ids = np.random.default_rng(3).integers(0, 256, (tokens, 8, 1)).astype(np.uint8)
    ids[::5] = ids[0]
    counts = count_paths(on_device(ids), num_experts=256)
    assert (counts.tokens, int(counts.counts[0])) == (len(ids), tokens // 5)
    np.testing.assert_array_equal(counts.paths[0], ids[0, :, 0])
    assert counts.distinct == len(np.unique(np.ascontiguousarray(ids[:, :, 0]).view(np.uint64)))


def test_rows_are_counted_where_a_ring_holds_them() -> None:
    """By their numbers, in any order."""
    for shape in (RouteShape(3, 8, 1), RouteShape(6, 300, 5)):
        ids = draw_ids(np.random.default_rng(9), 50, shape).astype(shape.id_dtype)
        memory = on_device(ids)  # row 100 lies in slot 0
        ring = CaptureTarget(
            control=0,
            ids=as_device_ids(memory).address,
            weights=0,
            tags=0,
            capacity=len(ids),
            layers=shape.num_layers,
            experts=shape.num_experts,
            top_k=shape.top_k,
        )
        live = LiveCounts(shape, hops="all", paths=("top1", "set"), device="cuda")
        rows = np.array([149, 100, 120, 121, 122], np.int64)
        live.add_held(ring, rows)
        live.add_held(ring, rows[:0])
        live.add(ids[7:9])
        kept = np.concatenate([ids[rows - 100], ids[7:9]])
        assert live.counts() == count(kept, num_experts=shape.num_experts, device="cpu")
        got = live.paths("set")
        expected = count_paths(kept, "set", num_experts=shape.num_experts)
        np.testing.assert_array_equal(got.paths, expected.paths)


def test_live_counts_beside_an_engine() -> None:
    """Added by a thread of its own on a stream of its own, in batches of all sizes."""
    shape = RouteShape(6, 128, 8)
    ids = draw_ids(np.random.default_rng(4), 9000, shape).astype(np.uint8)
    ids[5000:] = ids[:4000]
    live = LiveCounts(shape, hops="all", paths=("top1", "set"), device="cuda")
    with ThreadPoolExecutor(1) as drain:
        is_busy = keep_busy()  # the engine's stream, for about a second
        for first in range(0, 9000, 700):
            drain.submit(live.add, ids[first : first + 700]).result()
        if not SANITIZED:  # counting then takes longer than the engine's second
            assert is_busy()
    assert live.counts() == count(ids, num_experts=128, device="cpu")
    for kind in ("top1", "set"):
        got, expected = live.paths(kind, top=50), count_paths(ids, kind, top=50, num_experts=128)
        np.testing.assert_array_equal(got.paths, expected.paths)
        np.testing.assert_array_equal(got.counts, expected.counts)


@pytest.mark.parametrize("name", ["expert", "pairs"])
def test_tables_that_cannot_be_read_into_are_refused(name: str) -> None:
    from routestats import _cuda

    counter = _cuda.PairCounter(layers=2, experts=4, slots=1, layer_pairs=[(0, 1)])
    counter.add_host(np.array([[[0], [1]], [[2], [3]]], np.uint8))
    tables = {"expert": np.zeros((2, 4), np.uint64), "pairs": np.zeros((1, 4, 4), np.uint64)}
    counter.read(**tables)
    assert tables["pairs"].sum() == 2
    others = {key: table for key, table in tables.items() if key != name}
    refuse_wrong_outputs(partial(counter.read, **others), name, tables[name])


def test_arrays_of_no_ids_are_refused() -> None:
    from routestats import _cuda

    floats: Any = np.zeros((3, 2, 1))
    counter = _cuda.PairCounter(layers=2, experts=4, slots=1, layer_pairs=[(0, 1)])
    with pytest.raises(InvalidTypeError, match="experts: expected integers, got float64"):
        counter.add_host(floats)
    with pytest.raises(InvalidValueError, match="experts: expected 3 dimensions"):
        counter.add_host(np.zeros((3, 2), np.uint8))
    with pytest.raises(InvalidValueError, match="method: expected one of .*, got x"):
        counter.add_host(np.zeros((3, 2, 1), np.uint8), method="x")


def test_the_stub_is_in_step_with_the_kernels() -> None:
    from routestats import _cuda

    assert stub_names("_cuda") == module_names(_cuda)
