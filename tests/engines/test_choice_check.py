"""What is a near tie of two choices: a plain account in NumPy, and the two that are used.

One is for torch, the other for kernels; it runs on the host here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from emulated_device import emulated_device
from hypothesis import given, settings
from hypothesis import strategies as st

from routestats.errors import CaptureError
from routestats.shape import RouteShape

torch = pytest.importorskip("torch")

from routestats.engines.choice_check import (  # noqa: E402
    DIFFERENT,
    NEAR_TIE,
    SAME,
    Scores,
    agreement,
    rounding,
)
from routestats.engines.device_ring import DeviceMemory, DeviceRing  # noqa: E402

Ids = npt.NDArray[np.integer[Any]]


# --- the account ---


def score_ranges(scores: Scores, row: int) -> list[tuple[float, float]]:
    """Least and greatest value of the score of each expert."""
    ranges = []
    for expert, logit in enumerate(scores.logits[row].double().tolist()):
        value, scale = logit, max(1.0, abs(logit))
        if scores.sigmoid:
            value, scale = 1 / (1 + np.exp(-logit)), 1.0
        if scores.bias is not None:
            bias = float(scores.bias[expert])
            value, scale = value + bias, scale + abs(bias)
        ranges.append((value - scores.unit * scale, value + scores.unit * scale))
    return ranges


def may_be_best(ids: list[int], ranges: list[tuple[float, float]], scores: Scores) -> bool:
    """Whether a choice of K experts may be right, whatever the scores are within their ranges."""
    experts, size = len(ranges), len(ranges) // scores.groups
    if len(set(ids)) < len(ids) or not all(0 <= expert < experts for expert in ids):
        return False
    groups = [ranges[start : start + size] for start in range(0, experts, size)]
    best = 1 if scores.bias is None else 2
    of_group = [
        tuple(sum(sorted(side)[-best:]) for side in zip(*group, strict=True)) for group in groups
    ]
    free = scores.groups <= scores.chosen_groups
    may_be_chosen, must_be_chosen = set(), set()
    for group, (low, high) in enumerate(of_group):
        others = of_group[:group] + of_group[group + 1 :]
        if free or sum(other[0] > high for other in others) < scores.chosen_groups:
            may_be_chosen.add(group)
        if free or sum(other[1] >= low for other in others) < scores.chosen_groups:
            must_be_chosen.add(group)
    used = {expert // size for expert in ids}
    if not used <= may_be_chosen or (not free and len(used) > scores.chosen_groups):
        return False
    least = min(ranges[expert][1] for expert in ids)
    return not any(
        ranges[expert][0] > least
        for expert in range(experts)
        if expert not in ids and expert // size in must_be_chosen
    )


def account(ours: Ids, theirs: Ids, scores: Scores) -> list[int]:
    """As `agreement`, row by row."""
    found = []
    for row in range(len(ours)):
        pair = ours[row].tolist(), theirs[row].tolist()
        ranges = score_ranges(scores, row)
        if sorted(pair[0]) == sorted(pair[1]):
            found.append(SAME)
        elif all(may_be_best(ids, ranges, scores) for ids in pair):
            found.append(NEAR_TIE)
        else:
            found.append(DIFFERENT)
    return found


def on_device(ours: Any, theirs: Any, scores: Scores) -> list[int]:
    """As `agreement`, by the kernel, a step for each row; the rows after it are padding."""
    rows, top_k = ours.shape
    shape = RouteShape(1, scores.logits.shape[1], top_k)
    memory = DeviceMemory(shape, 2 * rows, emulated_device())
    ring = DeviceRing(memory, capacity=2, weights=True, block=True, checked_layers=1)
    found, before = [], 0
    for row in range(rows):
        ring.begin_step(1)
        memory.capture(0, ours[row:].contiguous(), torch.ones(rows - row, top_k))
        memory.check(
            0, ours[row:], theirs[row:], replace(scores, logits=scores.logits[row:].contiguous())
        )
        ring.tag(torch.zeros(1, dtype=torch.int32), torch.zeros(1, dtype=torch.int32))
        ring.commit_step()
        try:
            ring.drain(max_rows=2, wait_rows=1, seconds=0.0)
        except CaptureError as error:
            if "the router chose experts {" not in str(error):
                raise
            found.append(DIFFERENT)
            ring = DeviceRing(memory, capacity=2, weights=True, block=True, checked_layers=1)
            before = 0
            continue
        found.append(NEAR_TIE if ring.near_ties > before else SAME)
        before = ring.near_ties
    assert memory.fault.reason is None
    return found


# --- drawn choices ---


@st.composite
def drawn(draw: st.DrawFn) -> tuple[Any, Any, Scores]:
    """Choices by scores many of which almost tie: by the best, by noisy scores, and others."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    experts = groups * draw(st.integers(2, 9))
    chosen = draw(st.integers(1, groups))
    top_k = draw(st.integers(1, min(experts // groups * chosen, 9)))
    rows = draw(st.integers(1, 12))
    unit = draw(st.sampled_from([2**-8 + 1e-6, 1e-3]))
    steps = rng.integers(-6, 7, (rows, experts)) / 4
    logits = torch.tensor(steps + rng.normal(0, 2 * unit, (rows, experts)))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    bias = None
    if draw(st.booleans()):
        bias = torch.tensor(rng.integers(-8, 9, experts) / 4).to(
            draw(st.sampled_from([torch.float32, torch.bfloat16]))
        )
    scores = Scores(logits.to(dtype), bias, draw(st.booleans()), groups, chosen, unit)
    middle = np.array([np.mean(score_ranges(scores, row), axis=1) for row in range(rows)])
    ours = choice(middle, scores, top_k)
    noise = draw(st.sampled_from([0.0, unit, 4 * unit, 1.0]))
    theirs = choice(middle + rng.uniform(-noise, noise, middle.shape), scores, top_k)
    theirs = rng.permuted(theirs, axis=1)
    for row in np.flatnonzero(rng.random(rows) < 0.1):
        theirs[row, rng.integers(top_k)] = rng.integers(-1, experts + 1)
    return torch.tensor(ours, dtype=torch.int32), torch.tensor(theirs, dtype=torch.int16), scores


def choice(values: npt.NDArray[np.float64], scores: Scores, top_k: int) -> Ids:
    """The K best of scores ``[rows, E]``, of the best groups only."""
    groups = values.reshape(len(values), scores.groups, -1)
    best = 1 if scores.bias is None else 2
    order = np.argsort(-np.sort(groups)[..., -best:].sum(axis=-1), kind="stable")
    allowed = np.zeros(groups.shape[:2], bool)
    np.put_along_axis(allowed, order[:, : scores.chosen_groups], True, axis=1)
    masked = np.where(allowed[..., None], groups, -np.inf).reshape(values.shape)
    return np.argsort(-masked, axis=1, kind="stable")[:, :top_k]


@given(drawn())
@settings(max_examples=150, deadline=None)
def test_both_agree_with_the_account(case: tuple[Any, Any, Scores]) -> None:
    ours, theirs, scores = case
    arrays = ours.numpy(), theirs.numpy()
    expected = account(*arrays, scores)
    # On the edge of a range, float32 decides otherwise than float64.
    edges = [account(*arrays, replace(scores, unit=scores.unit * f)) for f in (0.998, 1.002)]
    sharp = [row for row, found in enumerate(zip(*edges, strict=True)) if len(set(found)) == 1]
    found = agreement(ours, theirs, scores).tolist()
    assert [found[row] for row in sharp] == [expected[row] for row in sharp]
    found = on_device(ours, theirs, scores)
    assert [found[row] for row in sharp] == [expected[row] for row in sharp]


@given(st.integers(0, 2**32 - 1), st.sampled_from([(1, 1), (8, 4)]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_kernel_that_rounds_is_never_another_choice(
    seed: int, grouping: tuple[int, int], sigmoid: bool
) -> None:
    """Logits of float32, a router in float32, and a kernel that computes in bfloat16."""
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(50, 64, generator=draw)
    bias = torch.randn(64, generator=draw) / 10 if sigmoid else None
    scores = Scores(logits, bias, sigmoid, *grouping, rounding(torch.bfloat16))

    def values(of: Any) -> npt.NDArray[np.float64]:
        found = of.sigmoid() if sigmoid else of
        total = found.float() if bias is None else found.float() + bias
        array: npt.NDArray[np.float64] = total.double().numpy()
        return array

    ours = torch.tensor(choice(values(logits), scores, 8))
    theirs = torch.tensor(choice(values(logits.to(torch.bfloat16)), scores, 8))
    found = agreement(ours, theirs, scores)
    assert (found != DIFFERENT).all()
    fine = replace(scores, unit=rounding(torch.float32))
    different = (ours.sort().values != theirs.sort().values).any(dim=1)
    assert ((agreement(ours, theirs, fine) == DIFFERENT) <= different).all()


def test_rounding_is_seen_by_the_format_of_the_logits() -> None:
    """The same pair of choices: a near tie in bfloat16, not in float32."""
    logits = torch.tensor([[2.0, 1.0, 0.995, 0.0]])
    ours, theirs = torch.tensor([[0, 1]]), torch.tensor([[2, 0]])
    for dtype, expected in ((torch.bfloat16, NEAR_TIE), (torch.float32, DIFFERENT)):
        scores = Scores(logits, None, False, 1, 1, rounding(dtype))
        assert agreement(ours, theirs, scores).tolist() == [expected]


def test_each_of_the_two_has_to_be_right() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    scores = Scores(logits, None, False, 1, 1, 1e-6)
    for pair in (([[0]], [[3]]), ([[3]], [[0]])):
        ours, theirs = map(torch.tensor, pair)
        assert agreement(ours, theirs, scores).tolist() == [DIFFERENT]
        assert on_device(ours, theirs, scores) == [DIFFERENT]


def test_nothing_is_a_tie_by_logits_that_are_no_numbers() -> None:
    logits = torch.tensor([[1.0, float("nan"), 0.0, 0.0]])
    scores = Scores(logits, None, False, 1, 1, 0.1)
    for ids, expected in (([[0]], SAME), ([[1]], DIFFERENT), ([[2]], DIFFERENT)):
        ours, theirs = torch.tensor([[0]]), torch.tensor(ids)
        assert agreement(ours, theirs, scores).tolist() == [expected]
        assert on_device(ours, theirs, scores) == [expected]


def test_what_a_kernel_cannot_compare_is_kept_as_a_fault() -> None:
    shape = RouteShape(1, 8, 2)
    memory = DeviceMemory(shape, 4, emulated_device())
    scores = Scores(torch.zeros(3, 8), None, False, 1, 1, 0.1)
    ids = torch.zeros(3, 2, dtype=torch.int32)
    with pytest.raises(CaptureError, match=r"choice: expected \[3, 2\], got \[2, 2\]"):
        memory.check(0, ids, ids[:2], scores)
    with pytest.raises(CaptureError, match=r"logits: expected \[3, 8\], got \[3, 4\]"):
        memory.check(0, ids, ids, replace(scores, logits=torch.zeros(3, 4)))
