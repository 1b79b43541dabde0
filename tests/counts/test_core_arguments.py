"""What the core does when asked for what the package never asks: it raises, it never crashes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from routestats import _core
from routestats.counts import count, count_ngrams, count_paths
from routestats.errors import InvalidValueError

IDS = np.random.default_rng(3).integers(0, 200, (20_000, 3, 1)).astype(np.uint8)


@pytest.mark.parametrize("counted", [count, count_paths, count_ngrams])
def test_a_negative_byte_is_no_expert_of_256(counted: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"experts\[1, 0, 0\] = -56, but num_experts is"):
        counted(np.array([[[127]], [[-56]]], np.int8), num_experts=256)


@pytest.mark.parametrize("length", [2**33, 2**63])
def test_paths_longer_than_memory(length: int) -> None:
    with pytest.raises(InvalidValueError, match="path: expected at most"):
        _core.PathCounter(kind="set", num_experts=65_536, top_k=2, start=0, length=length)


def test_more_ngrams_than_memory_has_addresses() -> None:
    """Room is made for those that can be."""
    counter = _core.NgramCounter(layers=2, num_experts=4)
    counter.add(np.zeros((2, 2, 1), np.uint8), threads=1)
    distinct, counts, ids = counter.count(2**62, threads=1)
    assert distinct.tolist() == [[1, 1], [1, 0]]
    assert counts.tolist() == [[[2], [2]], [[2], [0]]]
    assert ids.shape == (2, 2, 1, 2)


def test_sums_over_no_experts() -> None:
    with pytest.raises(InvalidValueError, match="num_experts: expected 1 to 65536, got 0"):
        _core.sum_changes_without_groups(
            np.zeros((0, 2, 1), np.uint8),
            num_experts=0,
            counted_slots=0,
            layer_pairs=[],
            rows=np.zeros(0, np.uint32),
            starts=np.zeros(1, np.uint64),
            expert=np.zeros((2, 0), np.uint64),
            pairs=np.zeros((0, 0, 0), np.uint64),
            pair_changes=np.zeros((0, 0)),
            layer_changes=np.zeros((0, 2)),
            threads=1,
        )


def test_python_threads_share_counters() -> None:
    paths = _core.PathCounter(kind="top1", num_experts=200, top_k=1, start=0, length=3)
    ngrams = _core.NgramCounter(layers=3, num_experts=200)

    def add(_: int) -> None:
        paths.add(IDS, threads=1)
        ngrams.add(IDS, threads=1)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(60)))
    assert paths.tokens == ngrams.tokens == 60 * len(IDS)
    count_of, with_count = paths.frequencies()
    assert count_of @ with_count == 60 * len(IDS)
    assert (count_of % 60 == 0).all()
    assert ngrams.count(1, threads=2)[0][0, 2] == paths.distinct
    paths.merge(paths, threads=2)
    assert paths.tokens == 120 * len(IDS)
