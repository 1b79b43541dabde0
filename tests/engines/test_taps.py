"""All ways from a router into a ring give the same rows, and all notice what is missing.

`DeviceTap` runs on the CPU here, its kernels compiled for the host.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulated_device import emulated_device

from routestats.errors import CaptureError
from routestats.shape import RouteShape
from routestats.trace import Trace, sort_by_weight, verify

pytest.importorskip("torch")
pytest.importorskip("vllm")

import torch

from routestats.engines._requests import NewRequest
from routestats.engines._steps import StepRows
from routestats.engines.recorder import Recorder
from routestats.engines.recorder_options import RecorderOptions
from routestats.engines.vllm.taps import DeviceTap, HostTap, StagedTap

SHAPE = RouteShape(3, 8, 2)


def taps() -> list[HostTap | StagedTap | DeviceTap]:
    cpu = torch.device("cpu")
    return [HostTap(SHAPE), StagedTap(SHAPE, 16, cpu), DeviceTap(SHAPE, 64, emulated_device())]


def ring_of(tap: Any) -> Any:
    return tap.begin(RecorderOptions(ring_rows=64))


def commit(tap: Any, target: Any, rows: int = 5) -> None:
    positions = torch.arange(100, 100 + rows + 3)
    tap.close(rows)
    tap.take_inputs(rows, positions, positions.to(torch.int32))
    target.commit_step()


def commit_and_drain(tap: Any, target: Any) -> None:
    commit(tap, target)
    target.drain(max_rows=64, wait_rows=1, seconds=0.0)  # a device's faults are known here


def routing(
    rows: int, seed: int, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    weights, ids = torch.rand(3, rows, 8, generator=draw).topk(2, dim=-1, sorted=False)
    return ids.to(torch.int32), weights.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_all_taps_give_the_same_rows(dtype: torch.dtype) -> None:
    drained = []
    for tap in taps():
        target = ring_of(tap)
        warm_up = routing(16, 99, dtype)
        for layer in range(3):
            tap.observe(layer, warm_up[0][layer], warm_up[1][layer])
        for seed in range(4):
            ids, weights = routing(7, seed, dtype)  # five real rows and two of padding
            target.begin_step(5)
            tap.open()
            for layer in range(3):
                tap.observe(layer, ids[layer], weights[layer])
            commit(tap, target)
        drained.append(target.drain(max_rows=64, wait_rows=1, seconds=0.0))
    for other in drained[1:]:
        assert drained[0][0] == other[0] == [(i, 5) for i in range(4)]
        np.testing.assert_array_equal(drained[0][1], other[1])
        np.testing.assert_array_equal(drained[0][2], other[2])
    tags = drained[2][3]
    np.testing.assert_array_equal(tags, np.tile(np.arange(100, 105)[:, None], (4, 2)))


def test_all_taps_notice_a_layer_that_did_not_fire() -> None:
    for tap in taps():
        target = ring_of(tap)
        for fires in ((0, 1, 2), (0, 2)):  # the stamp of the first step must not count
            ids, weights = routing(5, 0)
            target.begin_step(5)
            tap.open()
            for layer in fires:
                tap.observe(layer, ids[layer], weights[layer])
            if len(fires) == 3:
                commit(tap, target)
            else:
                with pytest.raises(CaptureError, match="MoE layer 1 was not written"):
                    commit_and_drain(tap, target)


@pytest.mark.parametrize("which", range(3))
def test_what_cannot_be_recorded_fails_the_capture_and_not_the_forward_pass(which: int) -> None:
    good = torch.zeros(5, 2, dtype=torch.int32), torch.zeros(5, 2)
    wide = torch.zeros(5, 3, dtype=torch.int32), torch.zeros(5, 3)
    for bad, message in (
        (wide, "MoE layer 0: expected 2 experts per token, got 3"),
        ((good[0], wide[1]), r"MoE layer 0: expected weights \[5, 2\], got \[5, 3\]"),
        ((good[0].bool(), good[1]), "torch.bool and torch.float32 are no dtypes"),
    ):
        tap = taps()[which]
        target = ring_of(tap)
        target.begin_step(5)
        tap.open()
        tap.observe(0, *bad)
        tap.observe(1, *good)
        with pytest.raises(CaptureError, match=message):
            tap.close(5)
        target.abandon_step()


def staged_step(rows: int, observe: Any) -> None:
    """A step of `rows` rows after a sound one, through a `StagedTap`."""
    tap = taps()[1]
    target = ring_of(tap)
    for step in (None, observe):
        ids, weights = routing(9, 0)
        target.begin_step(rows)
        tap.open()
        if step is None:
            for layer in range(3):
                tap.observe(layer, ids[layer], weights[layer])
        else:
            step(tap, ids, weights)
        commit(tap, target, rows)


def seen(ids: Any, weights: Any, layer: int = 1) -> Any:
    """Every layer is routed alike, but for `layer`, which is given `ids` and `weights`."""

    def observe(tap: Any, *good: Any) -> None:
        for index in range(3):
            of = (ids, weights) if index == layer else (part[index] for part in good)
            tap.observe(index, *of)

    return observe


def test_a_staged_layer_with_fewer_rows_than_the_step_is_named() -> None:
    ids, weights = routing(4, 1)
    with pytest.raises(CaptureError, match="MoE layer 1 routed 4 rows of a step of 5"):
        staged_step(5, seen(ids[1], weights[1]))


def test_a_staged_layer_that_is_routed_twice_is_named() -> None:
    def twice(tap: Any, ids: Any, weights: Any) -> None:
        for layer in (0, 1, 1, 2):
            tap.observe(layer, ids[layer], weights[layer])

    with pytest.raises(CaptureError, match="MoE layer 1 was routed twice in one step"):
        staged_step(5, twice)


@pytest.mark.parametrize("bad", [-1, 8, 2**32 + 1])
def test_a_staged_id_out_of_range_is_named(bad: int) -> None:
    ids, weights = routing(5, 1)
    wide = ids[1].to(torch.int64)
    wide[3, 1] = bad
    with pytest.raises(CaptureError, match="MoE layer 1, row 3: expert id .*num_experts is 8"):
        staged_step(5, seen(wide, weights[1]))


@pytest.mark.parametrize(
    ("ids", "weights", "message"),
    [
        (torch.zeros(5, 3, dtype=torch.int32), torch.zeros(5, 3), "2 experts per token, got 3"),
        (torch.zeros(5, 2), torch.zeros(5, 2), "torch.float32 and torch.float32 are no dtypes"),
        (torch.zeros(5, 2, dtype=torch.int32), torch.zeros(5, 2).double(), "are no dtypes"),
    ],
)
def test_staged_routing_of_another_kind_is_named_and_ends_no_engine_step(
    ids: Any, weights: Any, message: str
) -> None:
    with pytest.raises(CaptureError, match=f"MoE layer 1: .*{message}"):
        staged_step(5, seen(ids, weights))


def test_a_step_larger_than_what_is_staged_is_named() -> None:
    tap = taps()[1]
    target = ring_of(tap)
    ids, weights = routing(20, 0)
    target.begin_step(20)
    tap.open()
    for layer in range(3):
        tap.observe(layer, ids[layer], weights[layer])
    with pytest.raises(CaptureError, match="MoE layer 0 routed 16 rows of a step of 20"):
        commit(tap, target, 20)


def test_padding_beyond_what_is_staged_is_left_out() -> None:
    ids, weights = routing(40, 1)
    staged_step(5, seen(ids[1], weights[1]))


@pytest.mark.parametrize("which", [0, 2])
def test_a_compiled_model_keeps_its_writes(which: int) -> None:
    tap = taps()[which]

    def model(x: torch.Tensor) -> torch.Tensor:
        total = x.sum()
        for layer in range(3):
            weights, ids = (x + layer).topk(2, dim=-1)
            tap.observe(layer, ids, weights)
            total = total + weights.sum() * ids.sum()  # as experts do
        return total

    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    target, x = ring_of(tap), torch.rand(5, 8)
    compiled(x)  # traced outside a step
    for _ in range(2):
        x = torch.rand(5, 8)
        target.begin_step(5)
        tap.open()
        compiled(x)
        commit(tap, target)
        _, ids, *_ = target.drain(max_rows=64, wait_rows=1, seconds=0.0)
        np.testing.assert_array_equal(ids[:, 0], x.topk(2, dim=-1).indices.numpy())


def test_a_ring_larger_than_the_devices_is_refused() -> None:
    with pytest.raises(CaptureError, match="ring_rows: the ring on the device was made with 64"):
        taps()[2].begin(RecorderOptions(ring_rows=65))


def test_inputs_that_kernels_cannot_read_are_refused() -> None:
    tap = taps()[2]
    target = ring_of(tap)
    tap.open()
    target.begin_step(2)
    good = torch.arange(4)
    for bad in (good[::2], good.float(), good[None]):
        with pytest.raises(CaptureError, match="positions: expected one dense dimension"):
            tap.take_inputs(2, bad, good)
    with pytest.raises(CaptureError, match="positions and token ids are not known"):
        target.commit_step()
    target.abandon_step()
    assert not target.step_open


def test_a_recorder_writes_what_a_device_ring_gives(tmp_path: Path) -> None:
    """Positions and token ids come with the rows, after the engine has gone on."""
    tap, options = DeviceTap(SHAPE, 64, emulated_device()), RecorderOptions(ring_rows=64)
    recorder = Recorder(
        tmp_path / "run",
        SHAPE,
        [1, 3, 5],
        model="model",
        engine={},
        settings={},
        options=options,
        hold_records=False,
        ring=tap.begin(options),
    )
    prompt = np.array([7, 9, 11, 13], np.int32)
    expected, start = [], 0
    for seed, rows in enumerate([4, 1, 1, 1]):
        new = [NewRequest("request", "code", prompt)] if seed == 0 else []
        step = StepRows(request_ids=["request"], counts=[rows], new=new)
        ids, weights = routing(rows + 2, seed)
        assert recorder.begin(rows)
        tap.open()
        for layer in range(3):
            tap.observe(layer, ids[layer], weights[layer])
        tap.close(rows)
        positions = torch.arange(start, start + rows + 2)
        assert tap.take_inputs(rows, positions, (2 * positions + 7).to(torch.int32)) is None
        recorder.commit(step)
        start += rows
        wide = (ids[:, :rows].numpy(), weights[:, :rows].numpy())
        expected.append(sort_by_weight(*(part.swapaxes(0, 1) for part in wide)))
    totals = recorder.close()
    assert (totals["error"], totals["rows"]) == (None, 7)
    trace = Trace.open(tmp_path / "run")
    np.testing.assert_array_equal(trace.experts, np.concatenate([ids for ids, _ in expected]))
    np.testing.assert_array_equal(trace.weights, np.concatenate([w for _, w in expected]))
    assert trace.rows["position"].to_pylist() == list(range(7))
    assert trace.rows["token_id"].to_pylist() == list(range(7, 21, 2))
    assert verify(trace).ok
