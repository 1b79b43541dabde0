"""The C++ counts equal the NumPy reference, whatever the shape, the memory and the order."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routestats import _core
from routestats.counts import RouteCounts, count, recount
from routestats.counts.reference import pairs as reference

MAX_TABLE_CELLS = 1 << 20  # L * L * E * E: keeps a case at milliseconds
MAX_INCREMENTS = 1 << 20  # T * K * K of one pair: what the reference takes
PROFILE = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Case:
    experts: npt.NDArray[np.integer[Any]]
    num_experts: int

    def __repr__(self) -> str:
        return f"Case({self.experts.shape}, {self.experts.dtype}, E={self.num_experts})"


def draw_ids(
    rng: np.random.Generator, T: int, L: int, E: int, K: int, *, distinct: bool
) -> npt.NDArray[np.int64]:
    if not distinct:
        return rng.integers(0, E, (T, L, K))
    # A random start and a random stride coprime with E give K distinct ids without E * T draws.
    coprime = np.array([s for s in range(1, E + 1) if np.gcd(s, E) == 1])
    start, stride = rng.integers(0, E, (T, L, 1)), rng.choice(coprime, (T, L, 1))
    ids: npt.NDArray[np.int64] = (start + stride * np.arange(K)) % E
    return ids


def rearranged(ids: npt.NDArray[Any], memory: str) -> npt.NDArray[Any]:
    """The same values with other strides."""
    if memory == "reversed":
        return np.ascontiguousarray(ids[::-1, ::-1, ::-1])[::-1, ::-1, ::-1]
    if memory == "fortran":
        return np.asfortranarray(ids)
    if memory == "sliced":
        wide = np.full((2 * len(ids) + 1, ids.shape[1], ids.shape[2] + 1), 255, ids.dtype)
        wide[1::2, :, 1:] = ids
        return wide[1::2, :, 1:]
    if memory == "unaligned":
        raw = np.zeros(ids.nbytes + 1, np.uint8)
        raw[1:] = np.frombuffer(np.ascontiguousarray(ids).tobytes(), np.uint8)
        return raw[1:].view(ids.dtype).reshape(ids.shape)
    return ids


@st.composite
def cases(draw: st.DrawFn) -> Case:
    L = draw(st.integers(1, 64))
    E = draw(st.integers(1, min(512, max(1, int((MAX_TABLE_CELLS / L**2) ** 0.5)))))
    K = draw(st.integers(1, min(16, E)))
    T = draw(st.integers(0, min(5000, MAX_INCREMENTS // (K * K * L))))
    wide = E > 256 or draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    ids = draw_ids(rng, T, L, E, K, distinct=draw(st.booleans()))
    if T > 0:  # some methods count tokens that name an expert twice some other way
        for t in draw(st.lists(st.integers(0, T - 1), max_size=3)):
            layer = draw(st.integers(0, L - 1))
            ids[t, layer, K - 1] = ids[t, layer, 0]
    ids = ids.astype(np.uint16 if wide else np.uint8)
    memory = draw(st.sampled_from(["plain", "reversed", "fortran", "sliced", "unaligned"]))
    return Case(rearranged(ids, memory), E)


def some_pairs(data: st.DataObject, L: int) -> list[tuple[int, int]]:
    layer = st.integers(0, L - 1)
    return data.draw(st.lists(st.tuples(layer, layer), min_size=1, max_size=4))


@PROFILE
@given(cases(), st.sampled_from(["any", "top1"]), st.data())
def test_equals_reference(case: Case, pairing: str, data: st.DataObject) -> None:
    counts = count(case.experts, num_experts=case.num_experts, pairing=pairing, threads=2)
    expected = reference.expert_counts(case.experts, case.num_experts, pairing=pairing)
    np.testing.assert_array_equal(counts.expert, expected)
    for src, dst in some_pairs(data, counts.shape.num_layers):
        np.testing.assert_array_equal(
            counts.pair(src, dst),
            reference.pair_counts(case.experts, case.num_experts, src, dst, pairing=pairing),
        )


@PROFILE
@given(cases())
def test_totals(case: Case) -> None:
    T, L, K = case.experts.shape
    for pairing, slots in (("any", K), ("top1", 1)):
        counts = count(case.experts, num_experts=case.num_experts, pairing=pairing)
        assert counts.tokens == T
        assert (counts.expert.sum(axis=1) == T * slots).all()
        totals = {int(counts.pair(s, d).sum()) for s in range(L) for d in range(s, L)}
        assert totals == {T * slots**2}


@PROFILE
@given(cases(), st.data())
def test_every_method_gives_the_same(case: Case, data: st.DataObject) -> None:
    """Each kernel, and narrow tiles that spill after any number of tokens."""
    T, L, K = case.experts.shape
    E = case.num_experts
    block = data.draw(st.one_of(st.just(0), st.integers(1 + T // 8, 5000)))
    pairs = some_pairs(data, L)
    threads = data.draw(st.integers(1, 8))
    results = []
    methods = [method for method in _core.PAIR_METHODS if method != "direct"]
    kernels = [(m, i) for m in methods for i in _core.build_info()["isas"]]
    for method, isa in [("direct", None), *kernels]:
        expert = np.zeros((L, E), np.uint64)
        tiles = np.zeros((len(pairs), E, E), np.uint64)
        _core.count_pairs(
            case.experts,
            num_experts=E,
            counted_slots=K,
            layer_pairs=pairs,
            expert=expert,
            pairs=tiles,
            threads=threads,
            method=method,
            isa=isa,
            block_tokens=block,
        )
        results.append((expert, tiles))
    for src_dst, tile in zip(pairs, results[0][1], strict=True):
        expected = reference.pair_counts(case.experts, E, *src_dst, pairing="any")
        np.testing.assert_array_equal(tile, expected)
    for expert, tiles in results[1:]:
        np.testing.assert_array_equal(expert, results[0][0])
        np.testing.assert_array_equal(tiles, results[0][1])


@PROFILE
@given(cases(), st.sampled_from(["any", "top1"]), st.data())
def test_parts_merge_in_any_order(case: Case, pairing: str, data: st.DataObject) -> None:
    T, L, _ = case.experts.shape
    hops = data.draw(st.sets(st.integers(0, L - 1), min_size=1))
    cuts = sorted(data.draw(st.lists(st.integers(0, T), max_size=4)))
    bounds = list(zip([0, *cuts], [*cuts, T], strict=True))
    order = data.draw(st.permutations(bounds))
    whole = count(case.experts, num_experts=case.num_experts, hops=hops, pairing=pairing)

    updated = RouteCounts.empty(whole.shape, hops=hops, pairing=pairing)
    summed = RouteCounts.empty(whole.shape, hops=hops, pairing=pairing)
    for first, last in order:
        updated.update(case.experts[first:last])
        part = count(
            case.experts[first:last], num_experts=case.num_experts, hops=hops, pairing=pairing
        )
        summed = part + summed
    assert updated == whole
    assert summed == whole


@PROFILE
@given(cases(), st.sampled_from(["any", "top1"]), st.data())
def test_recount_equals_counting_the_reordered_rows(
    case: Case, pairing: str, data: st.DataObject
) -> None:
    T, L, _ = case.experts.shape
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    if data.draw(st.booleans()):
        order = rng.permuted(np.tile(np.arange(T, dtype=np.uint32), (L, 1)), axis=1)
    else:
        drawn = data.draw(st.integers(0, 300)) if T else 0
        order = rng.integers(0, max(T, 1), (L, drawn), np.uint32)
    hops = data.draw(st.sets(st.integers(0, L - 1), min_size=1))
    threads = data.draw(st.integers(1, 8))
    got = recount(
        case.experts,
        order,
        num_experts=case.num_experts,
        hops=hops,
        pairing=pairing,
        threads=threads,
    )
    copy = reference.reordered(case.experts, order)
    assert copy.shape == (order.shape[1], *case.experts.shape[1:])
    assert got.tokens == order.shape[1]
    np.testing.assert_array_equal(
        got.expert, reference.expert_counts(copy, case.num_experts, pairing=pairing)
    )
    hop = data.draw(st.sampled_from(sorted(hops)))
    np.testing.assert_array_equal(
        got.pair(0, hop),
        reference.pair_counts(copy, case.num_experts, 0, hop, pairing=pairing),
    )


@settings(PROFILE, max_examples=20)
@given(cases(), st.sampled_from(["any", "top1"]))
def test_file_round_trip(case: Case, pairing: str) -> None:
    counts = count(case.experts, num_experts=case.num_experts, pairing=pairing, hops=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "counts.npz"
        counts.save(path)
        assert RouteCounts.load(path) == counts
        assert [p.name for p in Path(folder).iterdir()] == ["counts.npz"]


@pytest.mark.parametrize("dtype", ["i1", "i2", "<i4", ">i4", "i8", "u1", "u2", "u4", ">u8"])
def test_any_integer_dtype(dtype: str) -> None:
    ids = draw_ids(np.random.default_rng(3), 500, 3, 100, 4, distinct=True)
    expected = count(ids.astype(np.uint8), num_experts=100)
    assert count(ids.astype(dtype), num_experts=100) == expected
