"""Capture inside a replayed CUDA graph: every row exact, overruns counted, nothing waits."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from routestats.counts import RouteCounts, count, count_paths
from routestats.engines._requests import NewRequest
from routestats.engines._steps import StepRows
from routestats.engines.recorder import Recorder
from routestats.engines.recorder_options import RecorderOptions
from routestats.errors import CaptureError
from routestats.shape import RouteShape
from routestats.trace import Trace, sort_by_weight

torch = pytest.importorskip("torch", reason="CUDA graphs are made by torch")

from routestats.engines.choice_check import Scores, rounding  # noqa: E402
from routestats.engines.device_ring import DeviceMemory, DeviceRing  # noqa: E402

ROWS = 64  # of the graph; fewer are real
# compute-sanitizer makes every kernel a hundred times slower.
REPLAYS = 50 if "ROUTESTATS_SANITIZE" in os.environ else 1000


class Model:
    """Routers' outputs of L layers in static tensors, and a graph that captures them."""

    def __init__(
        self, shape: RouteShape, capacity: int, id_dtype: Any, gate_dtype: Any, rows: int = ROWS
    ) -> None:
        self.shape, self.rows = shape, rows
        self.memory = DeviceMemory(shape, capacity, "cuda")
        extents = (shape.num_layers, rows, shape.top_k)
        self.ids = torch.zeros(extents, dtype=id_dtype, device="cuda")
        self.weights = torch.zeros(extents, dtype=gate_dtype, device="cuda")
        self.positions = torch.zeros(rows, dtype=torch.int64, device="cuda")
        self.tokens = torch.zeros(rows, dtype=torch.int32, device="cuda")
        self.random = torch.Generator("cuda").manual_seed(0)
        self.forward()  # warm up
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.forward()

    def forward(self) -> None:
        for layer in range(self.shape.num_layers):
            self.memory.capture(layer, self.ids[layer], self.weights[layer])

    def route(self) -> None:
        """New choices, unordered, in the static tensors; ties occur in the narrow formats."""
        scores = torch.rand(
            (self.shape.num_layers, self.rows, self.shape.num_experts),
            device="cuda",
            generator=self.random,
        )
        weights, ids = scores.topk(self.shape.top_k, dim=-1, sorted=False)
        self.ids.copy_(ids)
        self.weights.copy_(weights)

    def step(self, ring: DeviceRing, rows: int) -> tuple[Any, Any] | None:
        """One engine step; what it must give, on the device, or None if it was dropped."""
        self.route()
        self.positions.add_(1)
        self.tokens.sub_(1)
        if not ring.begin_step(rows):
            self.graph.replay()
            return None
        self.graph.replay()
        ring.tag(self.positions, self.tokens)
        ring.commit_step()
        ids, weights = self.ids[:, :rows].transpose(0, 1), self.weights[:, :rows].transpose(0, 1)
        return ids.clone(), weights.clone()

    def ring(self, **options: Any) -> DeviceRing:
        defaults = {"capacity": self.memory.capacity, "weights": True, "block": True}
        return DeviceRing(self.memory, **{**defaults, **options})


def expected_rows(step: tuple[Any, Any]) -> tuple[Any, Any]:
    ids, weights = step[0].cpu().to(torch.int64), step[1].cpu().float()
    return sort_by_weight(ids.numpy(), weights.numpy())


def drain_all(ring: DeviceRing) -> list[Any]:
    taken = []
    while (part := ring.drain(max_rows=1 << 20, wait_rows=1, seconds=0.0))[0]:
        taken.append(part)
    return taken


@pytest.mark.parametrize(
    ("shape", "id_dtype", "gate_dtype"),
    [
        (RouteShape(32, 8, 2), torch.int32, torch.float32),
        (RouteShape(5, 512, 16), torch.int64, torch.bfloat16),
        (RouteShape(3, 257, 7), torch.uint32, torch.float16),
    ],
    ids=str,
)
def test_a_graph_replayed_a_thousand_times(shape: Any, id_dtype: Any, gate_dtype: Any) -> None:
    model = Model(shape, 700, id_dtype, gate_dtype)
    ring = model.ring()
    random = np.random.default_rng(0)
    expected: list[Any] = []
    position = 0
    for replay in range(REPLAYS):
        rows = int(random.integers(1, ROWS + 1))
        step = model.step(ring, rows)
        assert step is not None
        expected.append(step)
        if replay % 7 and replay != REPLAYS - 1:
            continue
        spans, ids, weights, tags = ring.drain(max_rows=1 << 20, wait_rows=1, seconds=0.0)
        ring.release()  # this thread is the engine's, too
        assert [rows for _, rows in spans] == [len(step[0]) for step in expected]
        start = 0
        for step in expected:
            position += 1
            part = slice(start, start + len(step[0]))
            start = part.stop
            want_ids, want_weights = expected_rows(step)
            np.testing.assert_array_equal(ids[part], want_ids)
            np.testing.assert_array_equal(
                weights[part].view(np.uint16), want_weights.view(np.uint16)
            )
            assert (tags[part] == [position, -position]).all()
        expected = []


def test_an_overrun_is_counted_exactly() -> None:
    model = Model(RouteShape(4, 8, 2), 200, torch.int32, torch.float32)
    ring = model.ring(block=False)
    kept, dropped, steps = [], 0, 0
    for rows in [60, 60, 60, 30, 20, 10, 1]:  # 60 * 3 + 20 fill it
        step = model.step(ring, rows)
        if step is None:
            dropped += rows
            steps += 1
        else:
            kept.append(step)
    assert (ring.dropped_rows, ring.dropped_steps) == (dropped, steps) == (41, 3)
    ids = np.concatenate([part[1] for part in drain_all(ring)])
    np.testing.assert_array_equal(ids, np.concatenate([expected_rows(s)[0] for s in kept]))


def test_a_full_ring_blocks_before_the_step() -> None:
    model = Model(RouteShape(4, 8, 2), 100, torch.int32, torch.float32)
    ring = model.ring()
    model.step(ring, 60)
    entered = threading.Event()

    def next_step() -> None:
        with torch.cuda.device(0):
            ring.begin_step(60)
            ring.abandon_step()
        entered.set()

    waiting = threading.Thread(target=next_step)
    waiting.start()
    assert not entered.wait(0.2)
    drain_all(ring)
    assert entered.wait(10)
    waiting.join()


def test_outside_a_step_nothing_is_written() -> None:
    model = Model(RouteShape(4, 8, 2), 100, torch.int32, torch.float32)
    ring = model.ring()
    step = model.step(ring, 40)
    for _ in range(3):  # e.g. warm-up runs, before the host has fetched the step
        model.route()
        model.graph.replay()
    (part,) = drain_all(ring)
    assert step is not None
    np.testing.assert_array_equal(part[1], expected_rows(step)[0])
    assert int(model.memory.control[1]) == 0


def test_faults_are_named() -> None:
    model = Model(RouteShape(4, 8, 2), 100, torch.int32, torch.float32)
    ring = model.ring()
    ring.begin_step(10)
    for layer in (0, 1, 3):
        model.memory.capture(layer, model.ids[layer], model.weights[layer])
    ring.tag(model.positions, model.tokens)
    ring.commit_step()
    with pytest.raises(CaptureError, match="MoE layer 2 was not written"):
        drain_all(ring)
    ring = model.ring()
    model.route()
    model.ids[1, 5, 1] = 8
    ring.begin_step(10)
    model.graph.replay()
    ring.tag(model.positions, model.tokens)
    ring.commit_step()
    with pytest.raises(CaptureError, match="MoE layer 1, row 5, slot 1: an expert id outside 0..7"):
        drain_all(ring)


def test_a_step_waits_for_nothing() -> None:
    """torch makes any synchronisation an error; the ring's own calls go past torch."""
    model = Model(RouteShape(32, 8, 2), 4096, torch.int32, torch.bfloat16)
    ring = model.ring()
    model.step(ring, 8)  # the first launch of a graph uploads it
    drain_all(ring)
    done = torch.cuda.Event()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.cuda._sleep(2_000_000_000)  # about a second: the step returns long before
        done.record()
        for _ in range(4):
            assert ring.begin_step(8)
            model.graph.replay()
            ring.tag(model.positions, model.tokens)
            ring.commit_step()
        assert not done.query()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sum(len(part[1]) for part in drain_all(ring)) == 32


def test_abandoned_steps_leave_no_stamp() -> None:
    model = Model(RouteShape(4, 8, 2), 300, torch.int32, torch.float32)
    ring = model.ring()
    kept = [model.step(ring, 40)]
    for _ in range(150):  # more than there are records
        ring.begin_step(40)
        model.graph.replay()
        ring.abandon_step()
    kept.append(model.step(ring, 50))
    ids = np.concatenate([part[1] for part in drain_all(ring)])
    np.testing.assert_array_equal(ids, np.concatenate([expected_rows(s)[0] for s in kept if s]))


def test_lookahead_waits_for_nothing() -> None:
    from routestats.engines.vllm.lookahead import fetching

    ids = torch.randint(0, 300, (64, 2, 5, 8), dtype=torch.int32, device="cuda")
    expected = ids.cpu().numpy()
    fetching(ids, np.dtype(np.uint16))()  # pinned memory is there
    for dtype, bound in ((np.uint16, 300), (np.uint8, 256)):
        ids.remainder_(bound)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            torch.cuda._sleep(2_000_000_000)
            done = torch.cuda.Event()
            done.record()
            fetch = fetching(ids, np.dtype(dtype))
            ids.add_(1)  # the next step
            assert not done.query()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        np.testing.assert_array_equal(fetch(), expected % bound)
        ids.sub_(1)


def test_a_run_counts_on_the_device_what_its_trace_keeps(tmp_path: Path) -> None:
    shape = RouteShape(6, 8, 2)
    model = Model(shape, 150, torch.int64, torch.float32)
    recorder = Recorder(
        tmp_path / "run",
        shape,
        list(range(6)),
        model="m",
        engine={},
        settings={},
        options=RecorderOptions(counts=True, paths=True),
        hold_records=True,
        ring=model.ring(),
        count_device="cuda",
    )
    recorder.domains.append("d")
    prompt = np.arange(4, dtype=np.int32)
    # A prompt, a step with three drafts of which one is accepted, and all of it a second time.
    for number, (first, rows, drafts) in enumerate([(0, 2, 0), (2, 4, 3), (4, 2, 0), (0, 6, 0)]):
        model.route()
        assert recorder.begin(rows)
        model.graph.replay()
        model.positions.copy_(torch.arange(first, first + ROWS))
        assert isinstance(recorder.ring, DeviceRing)
        recorder.ring.tag(model.positions, model.tokens)
        new = [NewRequest("a-00000001", "d", prompt)] if number == 0 else []
        asked = {"a-00000001": drafts} if drafts else {}
        step = StepRows(["a-00000001"], [rows], drafts=asked, new=new)
        recorder.commit(step)
    totals = recorder.close()
    assert totals["error"] is None
    assert (totals["rows"], totals["rejected_rows"], totals["duplicate_rows"]) == (6, 2, 6)
    trace = Trace.open(tmp_path / "run")
    counts = RouteCounts.load(tmp_path / "run" / "counts-any.npz")
    assert counts == count(trace, hops=(0, 1), device="cpu")
    for kind in ("top1", "set"):
        table = pq.read_table(tmp_path / "run" / f"paths-{kind}.parquet")
        assert table.equals(count_paths(trace, kind, top=1000).to_table())


def test_choices_of_kernels_are_compared_in_a_graph() -> None:
    """Near ties are counted for real rows; another choice is named when the step is drained."""
    shape = RouteShape(2, 64, 4)
    memory = DeviceMemory(shape, 256, "cuda")
    logits = torch.rand(2, ROWS, 64, device="cuda")
    weights, chosen = logits.topk(4, dim=-1)
    ids, theirs = chosen.to(torch.int32), chosen.flip(-1).to(torch.int16)
    positions = torch.arange(ROWS, device="cuda")

    def forward() -> None:
        for layer in range(2):
            scores = Scores(logits[layer], None, False, 1, 1, rounding(torch.float32))
            memory.capture(layer, ids[layer], weights[layer])
            memory.check(layer, ids[layer], theirs[layer], scores)

    forward()  # warm up
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        forward()
    ring = DeviceRing(memory, capacity=256, weights=True, block=True, checked_layers=2)

    def step() -> None:
        ring.begin_step(ROWS - 3)
        graph.replay()
        ring.tag(positions, positions)
        ring.commit_step()
        drain_all(ring)

    step()
    assert ring.near_ties == 0
    best, last = int(chosen[1, 5, 3]), int(logits[1, 5].argmin())
    logits[1, 5, last] = logits[1, 5, best]
    theirs[1, 5, 0] = last  # the router's least choice comes first here
    theirs[0, ROWS - 2] = 63  # padding
    step()
    assert ring.near_ties == 1
    logits[1, 5, last] = 0.0
    with pytest.raises(CaptureError, match="MoE layer 1, row 5: the router chose experts"):
        step()
    assert memory.fault.reason is None


def test_compiled_code_keeps_its_writes() -> None:
    shape = RouteShape(3, 8, 2)
    memory = DeviceMemory(shape, 64, "cuda")

    def model(x: Any) -> Any:
        total = x.sum()
        for layer in range(3):
            weights, ids = (x * (layer + 1)).topk(2, dim=-1)
            memory.capture(layer, ids, weights)
            total = total + weights.sum() * ids.sum()
        return total

    compiled = torch.compile(model, fullgraph=True)
    ring = DeviceRing(memory, capacity=64, weights=True, block=True)
    positions = torch.arange(64, device="cuda")
    for rows in (5, 5, 9):
        x = torch.rand(rows, 8, device="cuda")
        compiled(x)  # compiles outside a step
        ring.begin_step(rows)
        compiled(x)
        ring.tag(positions, positions)
        ring.commit_step()
        (part,) = drain_all(ring)
        np.testing.assert_array_equal(part[1][:, 0], x.topk(2, dim=-1).indices.cpu().numpy())
