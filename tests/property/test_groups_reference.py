"""Permutations within classes and counts without groups equal their reference."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routestats import _core
from routestats.counts import GroupedRows, count, recount, sum_changes_without_groups
from routestats.counts.reference import groups as reference
from routestats.errors import InvalidTypeError, InvalidValueError

PROFILE = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def random_codes(T: int, groups: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    # Skewed, so that some groups are large and some of one row.
    return (groups * rng.random(T) ** 2).astype(np.int64)


@PROFILE
@given(
    T=st.integers(0, 300),
    classes=st.integers(1, 40),
    layers=st.integers(0, 4),
    threads=st.integers(1, 8),
    seed=st.integers(0, 2**64 - 1),
    stream=st.integers(0, 2**64 - 1),
    first=st.integers(0, 2**40),
)
def test_shuffle_equals_the_reference(
    T: int, classes: int, layers: int, threads: int, seed: int, stream: int, first: int
) -> None:
    codes = random_codes(T, classes, np.random.default_rng(seed))
    grouped = GroupedRows.of(codes)
    grouped = GroupedRows(grouped.rows, grouped.starts, first)
    got = grouped.shuffled(layers, seed=seed, stream=stream, threads=threads)
    expected = reference.shuffle_rows(
        grouped.rows, grouped.starts, layers, seed=seed, stream=stream, first_group=first
    )
    assert np.array_equal(got, expected)
    assert (codes[got] == codes[grouped.rows]).all()
    assert (np.sort(got, axis=1) == np.arange(T)).all()
    rows = 1 + seed % 100
    parts = [part.shuffled(layers, seed=seed, stream=stream) for part in grouped.parts(rows)]
    assert np.array_equal(np.concatenate([got[:, :0], *parts], axis=1), got)
    assert all(
        part.shape[1] <= rows or len(p) == 1
        for part, p in zip(parts, grouped.parts(rows), strict=True)
    )


def test_every_permutation_is_as_likely() -> None:
    """Chi-square over the 24 orders of 4 rows; and layers, classes and streams differ."""
    from scipy.stats import chisquare

    classes = 6_000
    grouped = GroupedRows.of(np.repeat(np.arange(classes), 4))
    for stream in (0, 1):
        orders = grouped.shuffled(2, seed=5, stream=stream).reshape(2, classes, 4) % 4
        for layer in orders:
            found = np.unique(layer @ [64, 16, 4, 1], return_counts=True)[1]
            assert len(found) == 24
            assert chisquare(found).pvalue > 1e-3
        # Independent layers agree in one class of 24.
        same = (orders[0] == orders[1]).all(axis=1).mean()
        assert abs(same - 1 / 24) < 4 * (1 / 24 / classes) ** 0.5


@PROFILE
@given(
    T=st.integers(0, 200),
    L=st.integers(1, 6),
    E=st.integers(1, 12),
    K=st.integers(1, 4),
    groups=st.integers(1, 30),
    pairing=st.sampled_from(["any", "top1"]),
    dtype=st.sampled_from([np.uint8, np.uint16, np.int64]),
    distinct=st.booleans(),
    permuted=st.booleans(),
    threads=st.integers(1, 8),
    seed=st.integers(0, 2**32),
)
def test_sums_without_groups_equal_the_reference(
    T: int,
    L: int,
    E: int,
    K: int,
    groups: int,
    pairing: str,
    dtype: type,
    distinct: bool,
    permuted: bool,
    threads: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    K = min(K, E)
    experts = rng.random((T, L, E)).argsort(axis=2)[:, :, :K]
    if not distinct:
        experts = rng.integers(0, E, (T, L, K))
    experts = np.asfortranarray(experts.astype(dtype)) if seed % 2 else experts.astype(dtype)
    grouped = GroupedRows.of(random_codes(T, groups, rng))
    order = grouped.shuffled(L, seed=seed, stream=0) if permuted else None
    if order is None:
        counts = count(experts, num_experts=E, pairing=pairing)
    else:
        counts = recount(experts, order, num_experts=E, pairing=pairing)
    got = sum_changes_without_groups(experts, counts, grouped, order, threads=threads)
    expected = reference.sum_changes_without_groups(
        experts,
        E,
        [(a, a + hop) for hop in range(L) for a in range(L - hop)],
        grouped.rows if order is None else order,
        grouped.starts,
        pairing=pairing,
    )
    for mine, theirs in zip(got, expected, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-9)
    one = sum_changes_without_groups(experts, counts, grouped, order, threads=1)
    assert all(np.array_equal(a, b) for a, b in zip(got, one, strict=True))


@pytest.mark.parametrize(
    ("T", "L", "E", "K"),
    [
        (60, 7, 512, 1),  # every group touches few of the cells
        (540, 3, 512, 8),  # one touches many, of more tables than are held at once
        (20_000, 2, 3, 1),  # and has more rows than are read at once
    ],
)
def test_groups_of_few_and_of_many_cells(T: int, L: int, E: int, K: int) -> None:
    rng = np.random.default_rng(0)
    experts = rng.integers(0, E, (T, L, K)).astype(np.uint16)
    grouped = GroupedRows.of(np.minimum(np.arange(T), 3))
    counts = count(experts, num_experts=E)
    got, layers = sum_changes_without_groups(experts, counts, grouped, threads=2)
    plan = [(a, a + hop) for hop in range(L) for a in range(L - hop)]
    assert got.shape == (4, len(plan))
    expected = reference.sum_changes_without_groups(
        experts, E, plan, grouped.rows, grouped.starts, pairing="any"
    )
    assert got == pytest.approx(expected[0], rel=1e-12, abs=1e-9)
    assert layers == pytest.approx(expected[1], rel=1e-12, abs=1e-9)


def test_wrong_arguments_are_named() -> None:
    experts = np.zeros((4, 2, 1), np.uint8)
    counts = count(experts, num_experts=2)
    grouped = GroupedRows.of(np.array([0, 0, 1, 1]))
    with pytest.raises(InvalidTypeError, match="seed: expected an integer, got 'x'"):
        grouped.shuffled(2, seed="x", stream=0)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="seed: expected 0 to"):
        grouped.shuffled(2, seed=-1, stream=0)
    for wrong, message in (
        (GroupedRows(np.array([0, 1, 2, 4], np.uint32), grouped.starts), "rows: expected less"),
        (GroupedRows(grouped.rows, np.array([0, 3, 1, 4], np.uint64)), "starts: expected"),
        (GroupedRows(grouped.rows[:3], grouped.starts), r"rows: expected shape \[4\], got \[3\]"),
    ):
        with pytest.raises(InvalidValueError, match=message):
            sum_changes_without_groups(experts, counts, wrong)
    few = count(experts[:1], num_experts=2)
    with pytest.raises(InvalidValueError, match="counts: expected those of all entries"):
        sum_changes_without_groups(experts, few, grouped)
    with pytest.raises(InvalidValueError, match="starts: expected ascending"):
        _core.shuffle_rows(
            rows=grouped.rows,
            starts=np.array([0, 9], np.uint64),
            seed=0,
            stream=0,
            first_group=0,
            orders=np.empty((1, 4), np.uint32),
            threads=1,
        )
