"""What C++ refuses leaves as a RouteStatsError, from the core and from the public functions."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import routestats as rs
from routestats import _core
from routestats.counts import (
    GroupedRows,
    LiveCounts,
    RouteCounts,
    count,
    count_ngrams,
    count_paths,
    rank_hits,
    recount,
    sum_changes_without_groups,
)
from routestats.counts._history import HistoryQuestion, history_totals
from routestats.errors import (
    CaptureError,
    InvalidTypeError,
    InvalidValueError,
    OutOfMemoryError,
    RouteStatsError,
)
from routestats.shape import RouteShape

IDS = np.array([[[0, 1], [1, 2]], [[2, 3], [3, 0]], [[1, 0], [0, 3]]], np.uint8)  # [3, 2, 2]
TOO_LARGE = np.where(IDS == 3, 9, IDS)
SHAPE = RouteShape(2, 4, 2)
COUNTS = count(IDS, num_experts=4)
QUESTION = HistoryQuestion(4, "set", True, (2,))
GROUPS = GroupedRows.of(np.array([0, 0, 1]))


def ring(**options: Any) -> _core.CaptureRing:
    given = {"layers": 2, "experts": 4, "top_k": 2, "capacity": 4, "weights": True, "block": True}
    return _core.CaptureRing(**{**given, **options})


def fail_and_begin() -> None:
    failed = ring()
    failed.fail("disk full")
    failed.begin_step(1)


def begin_twice() -> None:
    opened = ring()
    opened.begin_step(1)
    opened.begin_step(1)


def write_floats() -> None:
    ring().write_layer(0, np.zeros((1, 2)), np.zeros((1, 2), np.float32))


def ngrams_of(experts: Any) -> None:
    _core.NgramCounter(layers=2, num_experts=4).add(experts, threads=1)


PathCounter = partial(_core.PathCounter, kind="top1", num_experts=4, top_k=2, start=0, length=2)
segments = partial(
    _core.count_segments,
    num_experts=4,
    tokens=np.arange(3),
    starts=np.array([0, 3]),
    groups=np.array([0]),
    m=2,
    capacity=1,
    uses=np.zeros((1, 2, 3), np.uint64),
    hits=np.zeros((1, 2), np.uint64),
    threads=1,
)
FLOATS: Any = IDS * 1.0
WRONG: Any = np.arange(3, dtype=np.int32)  # of no dtype that is asked for
rank = partial(
    rank_hits,
    np.zeros((1, 3, 4)),
    np.arange(4, dtype=np.float64).reshape(1, 4),
    group_of=np.zeros(5, int),
    best=[1],
    num_groups=1,
)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: ring(layers=0), InvalidValueError, "layers: expected at least 1, got 0"),
        (fail_and_begin, CaptureError, "disk full"),
        (begin_twice, RouteStatsError, "begin_step: the previous step is still open"),
        (lambda: ring().commit_step(), RouteStatsError, "commit_step: no step is open"),
        (write_floats, InvalidTypeError, "ids: expected int32, int64 or uint32, got float64"),
        (lambda: PathCounter(kind="x"), InvalidValueError, "kind: expected top1 or set, got x"),
        (lambda: PathCounter(isa="sse9"), InvalidValueError, "isa: sse9 does not run here"),
        (lambda: PathCounter().add(IDS[0], threads=1), InvalidValueError, "experts: expected 3 d"),
        (lambda: PathCounter().add(FLOATS, threads=1), InvalidTypeError, "experts: expected i"),
        (lambda: ngrams_of(TOO_LARGE), InvalidValueError, r"experts\[1, 0, 1\] = 9, but num_exp"),
        (lambda: ngrams_of(IDS[:, :1]), InvalidValueError, "experts: of other layers than the n"),
        (lambda: segments(TOO_LARGE), InvalidValueError, r"experts\[1, 0"),
        (lambda: segments(IDS, m=0, uses=np.zeros((1, 2, 1), np.uint64)), InvalidValueError, "m: "),
        (lambda: segments(IDS, tokens=WRONG), InvalidTypeError, "tokens: expected int64"),
        (
            lambda: ring(capacity=2**63),
            InvalidValueError,
            "capacity: expected at most 576460752303423488 rows, got 9223372036854775808",
        ),
        (lambda: ring(capacity=2**56), OutOfMemoryError, "memory: the host has too little"),
    ],
)
def test_what_the_core_refuses(
    call: Callable[[], object], kind: type[RouteStatsError], message: str
) -> None:
    with pytest.raises(RouteStatsError, match=message) as caught:
        call()
    assert type(caught.value) is kind


def test_too_little_memory_is_a_memory_error() -> None:
    with pytest.raises(builtins.MemoryError):
        ring(capacity=2**56)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: count(TOO_LARGE, num_experts=4), r"experts\[1, 0, 1\] = 9"),
        (lambda: rs.count(IDS, num_experts=70_000), "num_experts: expected .*65536, got 70000"),
        (lambda: RouteCounts.empty(SHAPE, hops=0, pairing="any").update(TOO_LARGE), " = 9"),
        (lambda: count_paths(TOO_LARGE, num_experts=4), r"experts\[1, 0, 1\] = 9"),
        (lambda: count_paths(IDS[:, :, [0, 0]], "set", num_experts=4), "twice|distinct"),
        (lambda: count_ngrams(TOO_LARGE, num_experts=4), r"experts\[1, 0, 1\] = 9"),
        (lambda: recount(IDS, [[0, 1], [1, 3]], num_experts=4), r"row_order\[1, 1\] = 3"),
        (lambda: LiveCounts(SHAPE, hops=0).add(TOO_LARGE), r"experts\[1, 0, 1\] = 9"),
        (lambda: sum_changes_without_groups(TOO_LARGE, COUNTS, GROUPS), " = 9"),
        (lambda: sum_changes_without_groups(FLOATS, COUNTS, GROUPS), "experts: expected int"),
        (
            lambda: sum_changes_without_groups(IDS, COUNTS, GROUPS, np.zeros((2, 3), np.int64)),
            "rows: expected uint32, got int64",
        ),
        (
            lambda: GroupedRows(WRONG, GROUPS.starts).shuffled(2, seed=0, stream=0),
            "rows: expected uint32, got int32",
        ),
        (
            lambda: rank(np.full((1, 5, 2), 3), np.zeros((1, 5, 1), int)),
            "rows: expected values below 3, got 3",
        ),
        (
            lambda: rank(np.zeros((1, 5, 2), int), np.zeros((1, 5, 1), int), isa="sse9"),
            "isa: sse9 does not run here",
        ),
        (
            lambda: rs.stats.segment_routing(
                rs.Trace.from_arrays(IDS[:, :, [0, 0]], num_experts=4), 2
            ),
            r"experts\[0, 0\]: expected distinct experts",
        ),
        (
            lambda: history_totals(
                IDS, IDS[:, :, [0, 0]], QUESTION, orders=[1], supports=[1], threads=1
            ),
            r"test\[0, 0\]: expected a set of experts, but 0 stands in slots 0 and 1",
        ),
    ],
)
def test_what_the_public_functions_refuse(call: Callable[[], object], message: str) -> None:
    with pytest.raises((InvalidTypeError, InvalidValueError), match=message):
        call()
