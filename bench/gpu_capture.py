"""What capture adds to a decode step of Mixtral-8x7B's shapes in one CUDA graph.

The step: 32 layers of gate, top-2 and bf16 expert products (hidden size 4096, intermediate size
14336, 8 experts). Where the weights of 32 layers do not fit the device, fewer sets of weights take
turns; each is far larger than the cache, so that every layer still reads its experts from memory.
Three graphs take turns:

- ``nothing``: the step alone;
- ``ours``: the capture kernel in every layer; around the replay the step's opening, its tags, the
  fetch of ids and weights to pinned memory, and, on a thread and a stream of their own, counts on
  the device of experts, adjacent layers and full paths of the rows that arrived;
- ``peer``: what vLLM's own feature does: per layer one strided int32 copy, per step one cast and
  one asynchronous copy to the host; ids only.

First, rows captured by ours are checked against the routers' outputs. Exit status 1 if ours adds
more than 1 % at any batch, or more than the peer.

    python bench/gpu_capture.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from _gpu import alternate, ratio, require_gpu, save
from routestats.counts import LiveCounts
from routestats.shape import RouteShape

SHAPE = RouteShape(32, 8, 2)
HIDDEN, INTERMEDIATE = 4096, 14336
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
GOAL = 1.01


class Layers:
    """Weights of the model's layers, as many sets as fit."""

    def __init__(self, torch: Any) -> None:
        experts = SHAPE.num_experts
        free, _ = torch.cuda.mem_get_info()
        size = 3 * experts * HIDDEN * INTERMEDIATE * 2
        self.sets = max(1, min(SHAPE.num_layers, int(free * 0.85) // size))
        self.gates, self.up, self.down = [], [], []
        for _ in range(self.sets):
            gate = torch.randn(HIDDEN, experts, device="cuda", dtype=torch.bfloat16)
            up = torch.empty(experts, HIDDEN, 2 * INTERMEDIATE, device="cuda", dtype=torch.bfloat16)
            down = torch.empty(experts, INTERMEDIATE, HIDDEN, device="cuda", dtype=torch.bfloat16)
            self.gates.append(gate / HIDDEN**0.5)
            self.up.append(up.normal_(0, HIDDEN**-0.5))
            self.down.append(down.normal_(0, INTERMEDIATE**-0.5))


class Step:
    """The decode step of one batch size as a graph; `observe` sees every router's output."""

    def __init__(self, torch: Any, layers: Layers, batch: int, observe: Any) -> None:
        self.torch, self.layers = torch, layers
        self.hidden = torch.randn(batch, HIDDEN, device="cuda", dtype=torch.bfloat16)
        self.routed: list[tuple[Any, Any]] = []
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._forward(observe)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._forward(observe)

    def _forward(self, observe: Any) -> None:
        self.routed = []
        hidden = self.hidden
        for layer in range(SHAPE.num_layers):
            hidden = hidden + self._layer(layer, hidden, observe)
        self.output = hidden

    def _layer(self, layer: int, hidden: Any, observe: Any) -> Any:
        torch, which = self.torch, layer % self.layers.sets
        normal = hidden * torch.rsqrt(hidden.float().pow(2).mean(-1, keepdim=True) + 1e-5).to(
            torch.bfloat16
        )
        # A layer of the same set of weights must not route alike.
        scores = torch.softmax((normal.roll(layer, 1) @ self.layers.gates[which]).float(), -1)
        weights, ids = torch.topk(scores, SHAPE.top_k, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)
        ids = ids.to(torch.int32)
        self.routed.append((ids, weights))
        observe(layer, ids, weights)
        # Tokens in the order of their experts, and how far each expert's reach.
        flat = ids.flatten().long()
        order = torch.argsort(flat, stable=True)
        experts = torch.arange(SHAPE.num_experts, device="cuda")
        ends = (flat[:, None] == experts).sum(0).cumsum(0).to(torch.int32)
        rows = order // SHAPE.top_k
        inner = torch._grouped_mm(normal[rows], self.layers.up[which], offs=ends)
        gate, up = inner.chunk(2, dim=-1)
        outer = torch._grouped_mm(
            torch.nn.functional.silu(gate) * up, self.layers.down[which], offs=ends
        )
        weighted = outer * weights.flatten()[order, None].to(torch.bfloat16)
        return torch.zeros_like(hidden).index_add_(0, rows, weighted)


class Ours:
    """Capture as an engine does it: a ring, a drain thread, counts on the device."""

    def __init__(self, torch: Any, batch: int) -> None:
        from routestats.engines.device_ring import DeviceMemory, DeviceRing

        self.batch = batch
        self.memory = DeviceMemory(SHAPE, 32_768, "cuda")
        self.ring = DeviceRing(self.memory, capacity=32_768, weights=True, block=True)
        self.counts = LiveCounts(SHAPE, hops=(0, 1), paths=("top1", "set"), device="cuda")
        self.positions = torch.arange(batch, device="cuda")
        self.tokens = self.positions.to(torch.int32)
        self.last: Any = None
        self.rows = 0
        self.stopping = False
        self.thread = threading.Thread(target=self._drain, daemon=True)
        self.thread.start()

    def step(self, graph: Any) -> None:
        self.ring.begin_step(self.batch)
        graph.replay()
        self.ring.tag(self.positions, self.tokens)
        self.ring.commit_step()

    def _drain(self) -> None:
        try:
            while not self.stopping:
                self._take()
        except Exception as error:
            self.ring.fail(f"the drain thread failed: {error}")  # else a full ring blocks for ever
            raise

    def _take(self) -> None:
        spans, ids, weights, _ = self.ring.drain(max_rows=16_384, wait_rows=2048, seconds=0.1)
        if spans:
            self.counts.add_held(self.ring.target, np.arange(self.rows, self.rows + len(ids)))
            self.ring.release()
            self.last = (ids[-self.batch :], weights[-self.batch :])
            self.rows += len(ids)

    def close(self) -> None:
        self.stopping = True
        self.thread.join()


class Peer:
    """vLLM's feature, as its capturer does it: ids only."""

    def __init__(self, torch: Any, batch: int) -> None:
        self.torch = torch
        extents = (batch, SHAPE.num_layers, SHAPE.top_k)
        self.buffer = torch.zeros(extents, dtype=torch.int32, device="cuda")
        self.host = torch.zeros(extents, dtype=torch.uint8, pin_memory=True)

    def observe(self, layer: int, ids: Any, weights: Any) -> None:
        self.buffer[: ids.shape[0], layer] = ids

    def step(self, graph: Any) -> None:
        graph.replay()
        self.host.copy_(self.buffer.to(self.torch.uint8), non_blocking=True)


def check(torch: Any, ours: Ours, step: Step) -> None:
    before = ours.rows
    ours.step(step.graph)
    torch.cuda.synchronize()
    for _ in range(100):
        if ours.rows > before:
            break
        threading.Event().wait(0.05)
    ids = torch.stack([ids for ids, _ in step.routed], dim=1).cpu().numpy()
    if ours.last is None or not np.array_equal(ours.last[0], ids):
        sys.exit("gpu_capture: the captured rows are not what the routers chose")


def measure(torch: Any, layers: Layers, batch: int, rounds: int) -> dict[str, Any]:
    ours, peer = Ours(torch, batch), Peer(torch, batch)
    plain = Step(torch, layers, batch, lambda *_: None)
    captured = Step(torch, layers, batch, ours.memory.capture)
    copied = Step(torch, layers, batch, peer.observe)
    check(torch, ours, captured)
    times = alternate(
        torch,
        {
            "nothing": plain.graph.replay,
            "ours": lambda: ours.step(captured.graph),
            "peer": lambda: peer.step(copied.graph),
            "nothing again": plain.graph.replay,
        },
        rounds=rounds,
        repeats=20,
    )
    ours.close()
    result: dict[str, Any] = {"batch": batch}
    for name, values in times.items():
        result[f"{name.replace(' ', '_')}_ms"] = round(statistics.median(values), 4)
    for name in ("ours", "peer", "nothing again"):
        result[f"{name.replace(' ', '_')}_ratio"] = ratio(times[name], times["nothing"])
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--output", type=Path, help="folder of the results (bench/results)")
    arguments = parser.parse_args()
    torch = require_gpu("gpu_capture")
    torch.manual_seed(0)
    layers = Layers(torch)
    print(f"{layers.sets} sets of weights for {SHAPE.num_layers} layers")
    rows, failed = [], []
    for batch in arguments.batches:
        row = measure(torch, layers, batch, arguments.rounds)
        rows.append(row)
        # After each: a run that is cut off keeps what it has.
        result = {"weight_sets": layers.sets, "rows": rows}
        path = save(torch, "capture", result, arguments.output)
        shown = {k: v["median"] if isinstance(v, dict) else v for k, v in row.items()}
        print("  ".join(f"{name} {value}" for name, value in shown.items()), flush=True)
        mine, theirs = row["ours_ratio"]["median"], row["peer_ratio"]["median"]
        if mine > GOAL or mine > theirs:
            failed.append(f"batch {batch}: ours {mine:.4f}, peer {theirs:.4f}")
    print(path)
    for line in failed:
        print(f"FAILED: {line}; the goal is at most {GOAL} and the peer's", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
