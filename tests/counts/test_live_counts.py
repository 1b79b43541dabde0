"""Counts of a capture under way are of the rows that its trace keeps, once they are confirmed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from emulated_device import emulated_device, emulated_kernels

import routestats as rs
from routestats.counts import LiveCounts, why_no_cuda
from routestats.engines._requests import NewRequest
from routestats.engines._steps import StepRows
from routestats.engines.recorder import Recorder
from routestats.engines.recorder_options import RecorderOptions
from routestats.errors import DeviceError, DeviceUnavailableError
from routestats.shape import RouteShape

torch = pytest.importorskip("torch", reason="the ring is made of torch's memory")

from routestats.engines.device_ring import DeviceMemory, DeviceRing  # noqa: E402

SHAPE = RouteShape(3, 8, 2)
A, B = "a-00000001", "b-00000002"


def step(
    parts: dict[str, tuple[int, int]], new: tuple[str, ...] = (), **more: Any
) -> tuple[StepRows, np.ndarray[Any, Any]]:
    """A step of `parts`, request: (first position, rows), and the positions of its rows."""
    positions = np.concatenate(
        [np.arange(first, first + rows, dtype=np.int32) for first, rows in parts.values()]
    )
    requests = [NewRequest(name, "d", np.arange(4, dtype=np.int32)) for name in new]
    counts = [rows for _, rows in parts.values()]
    return StepRows(list(parts), counts, positions, positions + 1, new=requests, **more), positions


# Drafts that are accepted and rejected, a request that is run again, drafts nobody decides on.
STEPS = [
    step({A: (0, 4), B: (0, 4)}, new=(A, B)),
    step({A: (4, 4), B: (4, 1)}, drafts={A: 3}),
    step({A: (6, 3), B: (0, 5)}, drafts={A: 2}),
    step({A: (9, 1), B: (5, 3)}, drafts={B: 2}),
]


class OnHost:
    """Routers write into the recorder's own ring."""

    ring = None

    def run(self, recorder: Recorder, one: StepRows, positions: Any, seed: int) -> None:
        assert recorder.begin(one.rows)
        random = np.random.default_rng(seed)
        for layer in range(3):
            ids = np.argsort(random.random((one.rows, 8)), axis=1)[:, :2].copy()
            weights = random.random((one.rows, 2)).astype(np.float32)
            self.write(recorder, layer, ids, weights)
        self.tag(positions)
        recorder.commit(one)

    def write(self, recorder: Any, layer: int, ids: Any, weights: Any) -> None:
        recorder.ring.write_layer(layer, ids, weights)

    def tag(self, positions: Any) -> None:
        pass


class OnEmulatedDevice(OnHost):
    """Kernels write into a ring in a device's memory, compiled for the host."""

    def __init__(self) -> None:
        self.memory = DeviceMemory(SHAPE, 64, emulated_device())
        self.ring: Any = DeviceRing(self.memory, capacity=64, weights=True, block=True)

    def write(self, recorder: Any, layer: int, ids: Any, weights: Any) -> None:
        self.memory.capture(layer, torch.from_numpy(ids), torch.from_numpy(weights))

    def tag(self, positions: Any) -> None:
        self.ring.tag(torch.from_numpy(positions), torch.from_numpy(positions + 1))


def new_recorder(run_dir: Path, ring: Any, **options: Any) -> Recorder:
    recorder = Recorder(
        run_dir,
        SHAPE,
        [0, 1, 2],
        model="m",
        engine={},
        settings={},
        options=RecorderOptions(**options),
        hold_records=True,
        ring=ring,
    )
    recorder.domains.append("d")
    return recorder


@pytest.fixture(autouse=True)
def counted_where_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that an emulated device holds lie in the host's memory."""

    add = LiveCounts.add

    def add_held(self: LiveCounts, ring: Any, rows: Any) -> None:
        add(self, emulated_kernels().gather_rows(ring, rows))

    monkeypatch.setattr(LiveCounts, "add_held", add_held)


@pytest.mark.parametrize("engine", [OnHost, OnEmulatedDevice])
def test_only_what_the_trace_keeps_is_counted(tmp_path: Path, engine: Callable[[], OnHost]) -> None:
    source = engine()
    recorder = new_recorder(tmp_path / "run", source.ring, counts=True, paths=True)
    for seed, (one, positions) in enumerate(STEPS):
        source.run(recorder, one, positions, seed)
    totals = recorder.close()
    assert totals["error"] is None
    left_out = ("rejected_rows", "duplicate_rows", "unconfirmed_rows")
    assert {name: totals[name] for name in left_out} == {
        "rejected_rows": 2,  # 6 and 7 of the first three drafts
        "duplicate_rows": 5,
        "unconfirmed_rows": 2,
    }
    ran = sum(one.rows for one, _ in STEPS)
    assert totals["rows"] == ran - 9

    trace = rs.Trace.open(tmp_path / "run")
    counts = rs.RouteCounts.load(tmp_path / "run" / "counts-any.npz")
    assert counts.tokens == totals["rows"]
    assert counts == rs.count(trace, hops=(0, 1))
    for kind in ("top1", "set"):
        expected = rs.count_paths(trace, kind, top=1000)
        table = pq.read_table(tmp_path / "run" / f"paths-{kind}.parquet")
        assert table.equals(expected.to_table())
        assert table.schema.metadata == {
            b"tokens": str(expected.tokens).encode(),
            b"distinct": str(expected.distinct).encode(),
        }


def until_counted(recorder: Recorder) -> None:
    """Wait until what the engine has done is drained and counted, and the ring has its slots."""
    assert isinstance(recorder.ring, DeviceRing)
    deadline = time.monotonic() + 60
    while recorder.ring.committed_rows != recorder._held_from:
        assert time.monotonic() < deadline
        assert recorder.error is None
        time.sleep(0.01)


def test_rows_are_counted_from_the_ring_that_holds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but drafts that are confirmed when their slots have gone to other rows."""
    held: list[int] = []
    copied: list[int] = []
    calls: list[str] = []
    add, add_held, release = LiveCounts.add, LiveCounts.add_held, DeviceRing.release

    def note_held(self: LiveCounts, target: Any, rows: Any) -> None:
        held.extend(rows.tolist())
        calls.append("count")
        add_held(self, target, rows)

    def note_copied(self: LiveCounts, experts: Any) -> None:
        copied.append(len(experts))
        add(self, experts)

    def note_release(self: DeviceRing) -> None:
        calls.append("release")
        release(self)

    monkeypatch.setattr(LiveCounts, "add_held", note_held)
    monkeypatch.setattr(LiveCounts, "add", note_copied)
    monkeypatch.setattr(DeviceRing, "release", note_release)
    source = OnEmulatedDevice()
    recorder = new_recorder(tmp_path / "run", source.ring, counts=True)
    for seed, (one, positions) in enumerate(STEPS):
        source.run(recorder, one, positions, seed)
        until_counted(recorder)
    totals = recorder.close()
    assert len(held) == len(set(held))
    assert len(held) + sum(copied) == totals["rows"]
    # Given back as soon as they are counted, and no sooner.
    assert calls[:2] == ["count", "release"]
    after = [calls[place + 1] for place, call in enumerate(calls) if call == "count"]
    assert after == ["release"] * 4
    assert sum(copied) == 3  # one draft of the second step's three, both of the third's
    counts = rs.RouteCounts.load(tmp_path / "run" / "counts-any.npz")
    assert counts == rs.count(rs.Trace.open(tmp_path / "run"), hops=(0, 1))


def test_rows_of_another_device_are_counted_from_their_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DeviceRing, "device", property(lambda self: "cuda"))
    monkeypatch.delattr(LiveCounts, "add_held")
    source = OnEmulatedDevice()
    recorder = new_recorder(tmp_path / "run", source.ring, counts=True)
    for seed, (one, positions) in enumerate(STEPS):
        source.run(recorder, one, positions, seed)
    totals = recorder.close()
    assert totals["error"] is None
    counts = rs.RouteCounts.load(tmp_path / "run" / "counts-any.npz")
    assert counts == rs.count(rs.Trace.open(tmp_path / "run"), hops=(0, 1))


def test_slots_are_given_back_where_nothing_is_counted(tmp_path: Path) -> None:
    """As soon as they are drained: the next drain may be late."""
    source = OnEmulatedDevice()
    recorder = new_recorder(tmp_path / "run", source.ring)
    for number in range(10):
        one, positions = step({A: (16 * number, 16)}, new=(A,) if number == 0 else ())
        source.run(recorder, one, positions, number)
    until_counted(recorder)
    totals = recorder.close()
    assert (totals["error"], totals["rows"]) == (None, 160)


def test_what_cannot_be_counted_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no counts are, which would lack rows."""

    def fail(self: LiveCounts, target: Any, rows: Any) -> None:
        raise DeviceError("CUDA: out of memory")

    monkeypatch.setattr(LiveCounts, "add_held", fail)
    source = OnEmulatedDevice()
    recorder = new_recorder(tmp_path / "run", source.ring, counts=True)
    source.run(recorder, *STEPS[0], seed=0)
    totals = recorder.close()
    assert (totals["error"], totals["rows"]) == ("CUDA: out of memory", 8)
    assert len(rs.Trace.open(tmp_path / "run")) == 8
    assert not (tmp_path / "run" / "counts-any.npz").exists()


def test_pieces_add_up_while_they_come() -> None:
    random = np.random.default_rng(0)
    ids = np.argsort(random.random((500, 3, 8)), axis=2)[:, :, :2].astype(np.uint8)
    live = LiveCounts(SHAPE, hops="all", paths=("top1", "set"))
    for first in range(0, 500, 37):
        live.add(ids[first : first + 37])
        kept = ids[: first + 37]
        assert live.counts() == rs.count(kept, num_experts=8)
        sets, expected = live.paths("set", top=7), rs.count_paths(kept, "set", 0, None, 7, 8)
        np.testing.assert_array_equal(sets.paths, expected.paths)
        np.testing.assert_array_equal(sets.counts, expected.counts)
    before = live.counts()
    live.counts()._expert[:] = 0  # a copy
    assert live.counts() == before


@pytest.mark.skipif(why_no_cuda() is None, reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceUnavailableError, match="device: 'cuda' was asked for, but th"):
        LiveCounts(SHAPE, hops=0, device="cuda")
