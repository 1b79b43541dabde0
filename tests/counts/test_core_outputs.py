"""Arrays that the core writes to: of another shape, kind or layout they are refused, untouched."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from output_cases import refuse_wrong_outputs

from routestats import _core
from routestats.errors import InvalidValueError

EXPERTS = np.array([[[0], [1]], [[2], [3]], [[1], [0]]], np.uint8)  # [3, 2, 1]
L, E, PAIRS = 2, 4, [(0, 0), (0, 1), (1, 1)]


def zeros(*shape: int, dtype: Any = np.uint64) -> npt.NDArray[Any]:
    return np.zeros(shape, dtype)


def sums(*shape: int) -> npt.NDArray[np.int64]:
    return np.zeros(shape, np.int64)


COUNTED = partial(
    _core.count_pairs,
    experts=EXPERTS,
    num_experts=E,
    counted_slots=1,
    layer_pairs=PAIRS,
    expert=zeros(L, E),
    pairs=zeros(3, E, E),
    threads=1,
)
SEGMENTS = partial(
    _core.count_segments,
    experts=EXPERTS,
    num_experts=E,
    tokens=np.arange(3),
    starts=np.array([0, 3]),
    groups=np.array([0]),
    m=2,
    capacity=1,
    uses=zeros(1, L, 3),
    hits=zeros(1, L),
    threads=1,
)
SHUFFLED = partial(
    _core.shuffle_rows,
    rows=np.arange(3, dtype=np.uint32),
    starts=np.array([0, 3], np.uint64),
    seed=0,
    stream=0,
    first_group=0,
    orders=zeros(L, 3, dtype=np.uint32),
    threads=1,
)
CHANGES = partial(
    _core.sum_changes_without_groups,
    experts=EXPERTS,
    num_experts=E,
    counted_slots=1,
    layer_pairs=PAIRS,
    rows=np.arange(3, dtype=np.uint32),
    starts=np.array([0, 1, 3], np.uint64),
    expert=np.full((L, E), 9, np.uint64),
    pairs=np.full((3, E, E), 9, np.uint64),
    pair_changes=zeros(2, 3, dtype=np.float64),
    layer_changes=zeros(2, L, dtype=np.float64),
    threads=1,
)
RANKED = partial(
    _core.add_rank_hits,
    tables=np.zeros((1, 3, E)),
    base=np.arange(4, dtype=np.float64).reshape(1, E),
    rows=zeros(1, 5, 2, dtype=np.uint32),
    chosen=zeros(1, 5, 1, dtype=np.uint16),
    group_of=zeros(5, dtype=np.uint32),
    best=[1],
    hits=sums(1, 1, 3),
    threads=1,
)
HISTORY = partial(
    _core.history_hits,
    train=EXPERTS,
    test=EXPERTS,
    num_experts=E,
    sets=False,
    top1=True,
    best=[1],
    orders=[1],
    supports=[1],
    hits=sums(1, 3, 1),
    resolved=sums(1, 1, L),
    threads=1,
)
OUTPUTS = [
    (COUNTED, "expert"),
    (COUNTED, "pairs"),
    (SEGMENTS, "uses"),
    (SEGMENTS, "hits"),
    (SHUFFLED, "orders"),
    (CHANGES, "pair_changes"),
    (CHANGES, "layer_changes"),
    (RANKED, "hits"),
    (HISTORY, "hits"),
    (HISTORY, "resolved"),
]


@pytest.mark.parametrize(
    ("call", "name"), OUTPUTS, ids=[f"{call.func.__name__}-{name}" for call, name in OUTPUTS]
)
def test_wrong_outputs_are_refused(call: partial[Any], name: str) -> None:
    call()
    refuse_wrong_outputs(call, name, call.keywords[name])


@pytest.mark.parametrize("number", [2**64 - 1, 2**64 - 2, 2**63])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (CHANGES, "num_experts"),
        (COUNTED, "num_experts"),
        (SEGMENTS, "m"),
        (CHANGES, "starts"),
        (
            partial(
                HISTORY,
                groups=np.zeros(3, np.uint32),
                chosen=np.zeros(1, np.uint32),
                hits=sums(3, 1, 1),
                num_groups=1,
            ),
            "num_groups",
        ),
    ],
)
def test_numbers_beyond_every_array_are_refused(call: partial[Any], name: str, number: int) -> None:
    """They are no extent, and none that fits any array."""
    call()
    value = np.array([0, 1, number], np.uint64) if name == "starts" else number
    with pytest.raises(InvalidValueError, match=f"{name}: expected"):
        call(**{name: value})
