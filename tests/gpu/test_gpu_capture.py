"""Capture inside a replayed CUDA graph: every row exact, overruns counted, nothing waits."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
import pytest

from routestats.counts import RouteCounts, count
from routestats.counts._plan import PairPlan, check_hops
from routestats.errors import CaptureError
from routestats.shape import RouteShape
from routestats.trace import sort_by_weight

torch = pytest.importorskip("torch", reason="CUDA graphs are made by torch")

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


def test_steps_are_counted_on_the_device() -> None:
    from routestats import _cuda

    shape = RouteShape(6, 8, 2)
    model = Model(shape, 150, torch.int64, torch.float32)
    ring = model.ring()
    plan = PairPlan(check_hops("all", 6), 6)
    counter = _cuda.PairCounter(layers=6, experts=8, slots=2, layer_pairs=plan.pairs)
    ring.count_into(counter)
    taken = []
    for rows in [40, 64, 1, 63, 30, 64, 17]:
        model.step(ring, rows)
        taken += [part[1] for part in drain_all(ring)]
    counts = RouteCounts.empty(shape, hops="all", pairing="any")
    counter.read(counts._expert, counts._pairs)
    counts.tokens = 279
    assert counts == count(np.concatenate(taken), num_experts=8, device="cpu")


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
