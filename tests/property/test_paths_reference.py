"""Path counts in C++ equal the NumPy reference: shapes, memory, windows, threads, chunks, ties."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routestats import _core
from routestats.counts import PathCounts, count_ngrams, count_paths
from routestats.counts.reference import paths as reference

PROFILE = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
KINDS = st.sampled_from(["top1", "set"])


@dataclass(frozen=True)
class Case:
    experts: npt.NDArray[np.integer[Any]]
    num_experts: int
    start: int
    length: int

    def __repr__(self) -> str:
        return (
            f"Case({self.experts.shape}, {self.experts.dtype}, E={self.num_experts}, "
            f"start={self.start}, length={self.length})"
        )

    def count(self, experts: Any, kind: str, **more: Any) -> PathCounts:
        return count_paths(
            experts, kind, self.start, self.length, num_experts=self.num_experts, **more
        )

    def expected(self, kind: str) -> list[tuple[tuple[int, ...], int]]:
        return reference.path_counts(self.experts, kind, self.start, self.length)


def rearranged(ids: npt.NDArray[Any], memory: str) -> npt.NDArray[Any]:
    """The same values with other strides."""
    if memory == "reversed":
        return np.ascontiguousarray(ids[::-1, ::-1, ::-1])[::-1, ::-1, ::-1]
    if memory == "fortran":
        return np.asfortranarray(ids)
    if memory == "sliced":
        wide = np.zeros((2 * len(ids) + 1, ids.shape[1] + 1, ids.shape[2] + 1), ids.dtype)
        wide[1::2, 1:, 1:] = ids
        return wide[1::2, 1:, 1:]
    if memory == "rows":  # dense rows that do not lie side by side
        wide = np.zeros((3 * len(ids) + 1, *ids.shape[1:]), ids.dtype)
        wide[1::3] = ids
        return wide[1::3]
    return ids


@st.composite
def cases(draw: st.DrawFn) -> Case:
    L = draw(st.integers(1, 64))
    E = draw(st.one_of(st.integers(1, 16), st.integers(1, 512)))
    K = draw(st.one_of(st.sampled_from([2, 4, 8]), st.integers(1, 16), st.just(E)))
    K = min(K, E, 16)
    T = draw(st.integers(0, 20_000 // (L * K)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    # Some rows of few kinds, whose sets differ in order only, and some single changes of a layer.
    kinds = draw(st.integers(1, 30))
    coprime = np.array([s for s in range(1, E + 1) if np.gcd(s, E) == 1])
    start, stride = rng.integers(0, E, (kinds, L, 1)), rng.choice(coprime, (kinds, L, 1))
    rows = ((start + stride * np.arange(K)) % E)[rng.integers(0, kinds, T)]
    if draw(st.booleans()):
        layer = rng.integers(0, L, T)
        rows[np.arange(T), layer] = (rows[np.arange(T), layer] + rng.integers(0, 2, (T, 1))) % E
    if draw(st.booleans()):
        rows = rng.permuted(rows, axis=2)
    ids = rows.astype(np.uint16 if E > 256 or draw(st.booleans()) else np.uint8)
    memory = draw(st.sampled_from(["plain", "reversed", "fortran", "sliced", "rows"]))
    first = draw(st.one_of(st.just(0), st.integers(0, L - 1)))
    length = draw(st.one_of(st.just(L - first), st.integers(1, L - first)))
    return Case(rearranged(ids, memory), E, first, length)


def listed(counts: PathCounts) -> list[tuple[tuple[int, ...], int]]:
    rows = [tuple(row.ravel().tolist()) for row in counts.paths]
    return list(zip(rows, counts.counts.tolist(), strict=True))


@PROFILE
@given(cases(), KINDS, st.integers(1, 8), st.data())
def test_equals_reference(case: Case, kind: str, threads: int, data: st.DataObject) -> None:
    expected = case.expected(kind)
    top = data.draw(st.integers(0, len(expected) + 2))
    counts = case.count(case.experts, kind, top=top, threads=threads)
    assert listed(counts) == expected[:top]
    assert (counts.tokens, counts.distinct) == (len(case.experts), len(expected))
    paths, tokens = counts.coverage_curve()
    total = np.cumsum([0] + [n for _, n in expected])
    np.testing.assert_array_equal(np.interp(np.arange(len(total)), paths, tokens), total)
    if counts.tokens:
        for n in (0, 1, top, len(expected), len(expected) + 5):
            assert counts.coverage(n) == total[min(n, len(expected))] / counts.tokens


@PROFILE
@given(cases(), KINDS, st.data())
def test_parts_merge(case: Case, kind: str, data: st.DataObject) -> None:
    T = len(case.experts)
    cuts = sorted(data.draw(st.lists(st.integers(0, T), max_size=4)))
    bounds = data.draw(st.permutations(list(zip([0, *cuts], [*cuts, T], strict=True))))
    parts = [case.count(case.experts[a:b], kind, threads=2, top=3) for a, b in bounds]
    total = parts[0]
    for part in parts[1:]:
        total = part + total
    expected = case.expected(kind)
    assert listed(total) == expected[:3]
    assert (total.tokens, total.distinct) == (T, len(expected))
    everything = total.most_frequent(len(expected))[1]
    np.testing.assert_array_equal(everything, [n for _, n in expected])


@PROFILE
@given(cases(), KINDS)
def test_every_instruction_set(case: Case, kind: str) -> None:
    whole = case.count(case.experts, kind, top=50)
    for isa in _core.build_info()["isas"]:
        table = _core.PathCounter(
            kind=kind,
            num_experts=case.num_experts,
            top_k=case.experts.shape[2],
            start=case.start,
            length=case.length,
            isa=isa,
        )
        table.add(case.experts, threads=1)
        ids, counts = table.most_frequent(50)
        np.testing.assert_array_equal(ids.reshape(whole.paths.shape), whole.paths)
        np.testing.assert_array_equal(counts, whole.counts)


@PROFILE
@given(cases(), st.integers(0, 12), st.integers(1, 8))
def test_ngrams_equal_reference(case: Case, top: int, threads: int) -> None:
    L = case.experts.shape[1]
    ngrams = count_ngrams(case.experts, top, num_experts=case.num_experts, threads=threads)
    assert ngrams.tokens == len(case.experts)
    for start, length in {(0, L), (case.start, case.length), (case.start, 1), (L - 1, 1)}:
        expected = reference.path_counts(case.experts, "top1", start, length)
        assert ngrams.distinct[start, length - 1] == len(expected)
        paths, counts = ngrams.most_frequent(start, length)
        rows = [tuple(row) for row in paths.tolist()]
        assert list(zip(rows, counts.tolist(), strict=True)) == expected[:top]
    beyond = np.add.outer(np.arange(L), np.arange(L)) >= L
    assert not ngrams.distinct[beyond].any()


def test_first_choices_of_all_lengths() -> None:
    """Bytes are packed a word of eight layers at a time; the last word is rarely full."""
    rng = np.random.default_rng(0)
    for E, K, L in itertools.product((64, 65, 128, 129, 256), (3, 4, 8), range(1, 26)):
        kinds = rng.permuted(np.tile(np.arange(E, dtype=np.uint8), (6, L, 1)), axis=2)[:, :, :K]
        case = Case(kinds[rng.integers(0, 6, 40)], E, 0, L)
        counts = case.count(case.experts, "top1", top=6)
        found = zip(map(tuple, counts.paths.tolist()), counts.counts.tolist(), strict=True)
        assert list(found) == case.expected("top1")
