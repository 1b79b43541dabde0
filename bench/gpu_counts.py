"""All layer pairs of 1 million tokens on the device, beside what one writes with torch.

Shapes: Mixtral-8x7B, Qwen3-30B-A3B, DeepSeek-V3. Data are resident as uint8, results stay on the
device. Baselines on the same device:

- ``torch one-hot bf16``: one-hot rows, chunk by chunk, times themselves (float32 sums, exact);
- ``torch one-hot int8``: the same with ``torch._int_mm``;
- ``torch bincount``: ``e * E + f`` of each pair of layers; measured on some pairs and scaled, since
  all of them take minutes;
- ``cpu``: our own kernel on this machine's processor, on fewer tokens, scaled.

Then full paths, top-1 and set, beside ``torch.unique`` of the rows and the CPU's table.

First the tables are checked: both methods of ours against the CPU's on some tokens, and ours on all
tokens against torch's one-hot product, on every pair of layers. A rule chooses the method of ours
by the shape and the tokens (csrc/cuda/device_method.cpp). It was worked out, not measured, so both
methods are timed here: on all tokens, and on the smaller batches that a live capture counts. The
floor is reading the ids once at the bandwidth of a copy. Exit status 1 if ours is under 5 times the
best torch way, or if the rule takes a method that needs 1.3 times as long as the other.

    python bench/gpu_counts.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from _gpu import alternate, copy_bandwidth, ratio, require_gpu, save
from _workload import SHAPES, Shape, make_trace
from routestats.counts import RouteCounts, count, count_paths
from routestats.counts._plan import PairPlan
from routestats.counts.device.counts import as_device_ids
from routestats.shape import RouteShape

GOAL = 5.0
NEAR = 1.3  # the chosen method may take this many times as long as the other
BATCHES = (256, 4_096, 65_536)  # tokens
BINCOUNT_PAIRS = 6
CPU_TOKENS = 20_000


class Ours:
    """`_cuda.PairCounter` on one array, without the copy of the result to the host."""

    def __init__(self, shape: Shape, ids: Any) -> None:
        from routestats import _cuda

        self.ids = as_device_ids(ids)
        self.plan = PairPlan(tuple(range(shape.L)), shape.L)
        self.counter = _cuda.PairCounter(
            layers=shape.L, experts=shape.E, slots=shape.K, layer_pairs=self.plan.pairs
        )
        self.shape = shape

    def add(self, method: str | None = None) -> str:
        ids = self.ids
        return self.counter.add(
            ids.address,
            (ids.shape[0], ids.shape[1], ids.shape[2]),
            (ids.strides[0], ids.strides[1], ids.strides[2]),
            item_bytes=1,
            is_signed=False,
            method=method,
        )

    def counts(self) -> RouteCounts:
        """What was added since the last call."""
        shape = RouteShape(self.shape.L, self.shape.E, self.shape.K)
        counts = RouteCounts.empty(shape, hops="all", pairing="any")
        self.counter.read(counts._expert, counts._pairs)
        self.counter.clear()
        counts.tokens = len(self.ids)
        return counts


def one_hot_product(torch: Any, shape: Shape, ids: Any, dtype: Any) -> Any:
    """The table [L * E, L * E] by products of one-hot rows, 16,384 tokens at a time."""
    width = shape.L * shape.E
    integer = dtype == torch.int8
    total = torch.zeros((width, width), dtype=torch.int32, device="cuda")
    columns = torch.arange(shape.L, device="cuda")[:, None] * shape.E
    for chunk in ids.split(16_384):
        one_hot = torch.zeros((len(chunk), width), dtype=dtype, device="cuda")
        one_hot.scatter_(1, (chunk.long() + columns).flatten(1), 1)
        if integer:
            turned = one_hot.t().contiguous()
            total += torch._int_mm(turned, one_hot)
        else:
            # Whole numbers up to 2^24 are exact in the float32 that the product sums in and gives.
            total += torch.mm(one_hot.t(), one_hot, out_dtype=torch.float32).to(torch.int32)
    return total


def some_bincounts(torch: Any, shape: Shape, slots: Any, pairs: list[tuple[int, int]]) -> None:
    for source, target in pairs:  # slots of a layer are [K, T]
        keys = slots[source][:, None] * shape.E + slots[target][None, :]
        torch.bincount(keys.flatten(), minlength=shape.E**2)


def check_some(torch: Any, shape: Shape, experts: Any) -> None:
    """Both methods against the CPU's counts, in every cell."""
    from routestats import _cuda

    expected = count(experts, num_experts=shape.E, device="cpu")
    ours = Ours(shape, torch.from_numpy(experts).cuda())
    for method in _cuda.METHODS:
        ours.add(method)
        if ours.counts() != expected:
            sys.exit(f"gpu_counts: {shape}: {method} and the CPU differ")


def check_all(torch: Any, shape: Shape, ours: Ours, table: Any) -> None:
    """The chosen method against torch's table, in every pair of layers."""
    ours.add()
    counts = ours.counts()
    view = table.reshape(shape.L, shape.E, shape.L, shape.E)
    for source, target in ours.plan.pairs:
        theirs = view[source, :, target].cpu().numpy()
        if not np.array_equal(counts.pair(source, target), theirs):
            sys.exit(f"gpu_counts: {shape}: ours and torch differ at layers {source}, {target}")


def time_methods(torch: Any, shape: Shape, ids: Any, rounds: int) -> dict[str, Any]:
    """Milliseconds of both methods on some tokens, and which one the rule takes."""
    from routestats import _cuda

    ours = Ours(shape, ids)
    times = alternate(
        torch, {m: partial(ours.add, m) for m in _cuda.METHODS}, rounds=rounds, repeats=1
    )
    return {
        "tokens": len(ids),
        "chosen": ours.add(),
        "median_ms": {n: round(statistics.median(t), 4) for n, t in times.items()},
    }


def measure_paths(torch: Any, shape: Shape, experts: Any, ids: Any, rounds: int) -> dict[str, Any]:
    """Milliseconds of full paths, the result on the host and in order, after a check of it."""
    times: dict[str, Any] = {}
    for kind in ("top1", "set"):
        mine = count_paths(ids, kind, num_experts=shape.E)
        theirs = count_paths(experts, kind, num_experts=shape.E)
        same = (mine.distinct, mine.tokens) == (theirs.distinct, theirs.tokens)
        if not (
            same
            and np.array_equal(mine.paths, theirs.paths)
            and np.array_equal(mine.counts, theirs.counts)
        ):
            sys.exit(f"gpu_counts: {shape}: {kind} paths of the device and the CPU differ")
        keys = ids[:, :, 0] if kind == "top1" else ids.sort(dim=2).values.flatten(1)
        actions: dict[str, Callable[[], object]] = {
            "ours": partial(count_paths, ids, kind, num_experts=shape.E),
            "torch.unique": partial(torch.unique, keys, dim=0, return_counts=True),
        }
        found = alternate(torch, actions, rounds=rounds, repeats=1)
        start = time.perf_counter()
        count_paths(experts, kind, num_experts=shape.E)
        found["cpu"] = [(time.perf_counter() - start) * 1e3]
        times[kind] = {
            "distinct": mine.distinct,
            "median_ms": {n: round(statistics.median(t), 3) for n, t in found.items()},
        }
    return times


def measure(torch: Any, shape: Shape, tokens: int, rounds: int, bandwidth: float) -> dict[str, Any]:
    experts = make_trace(shape, tokens)
    check_some(torch, shape, np.ascontiguousarray(experts[:CPU_TOKENS]))
    ids = torch.from_numpy(experts).cuda()
    ours = Ours(shape, ids)
    bf16 = one_hot_product(torch, shape, ids, torch.bfloat16)
    check_all(torch, shape, ours, bf16)
    if not torch.equal(bf16, one_hot_product(torch, shape, ids, torch.int8)):
        sys.exit(f"gpu_counts: {shape}: torch's own ways differ")

    slots = ids.permute(1, 2, 0).contiguous().long().unbind()
    sample = ours.plan.pairs[:: max(1, len(ours.plan.pairs) // BINCOUNT_PAIRS)]
    actions: dict[str, Callable[[], object]] = {
        "ours": ours.add,
        "torch one-hot bf16": lambda: one_hot_product(torch, shape, ids, torch.bfloat16),
        "torch one-hot int8": lambda: one_hot_product(torch, shape, ids, torch.int8),
        "torch bincount": lambda: some_bincounts(torch, shape, slots, list(sample)),
    }
    times = alternate(torch, actions, rounds=rounds, repeats=1)
    scale = len(ours.plan.pairs) / len(sample)
    times["torch bincount"] = [t * scale for t in times["torch bincount"]]
    batches = [n for n in BATCHES if n < tokens]
    methods = [time_methods(torch, shape, ids[:n], rounds) for n in (*batches, tokens)]
    start = time.perf_counter()
    count(experts[:CPU_TOKENS], num_experts=shape.E, device="cpu")
    cpu = (time.perf_counter() - start) * 1e3 * tokens / CPU_TOKENS

    best = min(
        (name for name in times if name != "ours"), key=lambda n: statistics.median(times[n])
    )
    mine = statistics.median(times["ours"])
    cells = (shape.L * shape.E) ** 2 / 2
    return {
        "shape": shape.name,
        "tokens": tokens,
        "median_ms": {n: round(statistics.median(t), 4) for n, t in times.items()},
        "methods": methods,
        "scaled": {"torch bincount": scale, "cpu": tokens / CPU_TOKENS},
        "cpu_ms": round(cpu, 1),
        "paths": measure_paths(torch, shape, experts, ids, rounds=3),
        "best_torch": best,
        "speedup": ratio(times[best], times["ours"]),
        "floor_ms": round(experts.nbytes / bandwidth * 1e3, 4),
        "share_of_bandwidth": round(experts.nbytes / bandwidth * 1e3 / mine, 4),
        # One bit-AND and one addition per token and cell of the half table.
        "bit_operations_per_s": 2 * tokens * cells / (mine / 1e3),
        "increments_per_s": tokens * len(ours.plan.pairs) * shape.K**2 / (mine / 1e3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES))
    parser.add_argument("--output", type=Path, help="folder of the results (bench/results)")
    arguments = parser.parse_args()
    torch = require_gpu("gpu_counts")
    bandwidth = copy_bandwidth(torch)
    print(f"copy: {bandwidth / 1e12:.2f} TB/s")
    rows, failed = [], []
    for name in arguments.shapes:
        row = measure(torch, SHAPES[name], arguments.tokens, arguments.rounds, bandwidth)
        rows.append(row)
        # After each: a run that is cut off keeps what it has.
        result = {"copy_bytes_per_s": bandwidth, "rows": rows}
        path = save(torch, "counts", result, arguments.output)
        for key, value in row.items():
            print(f"  {key}: {value}", flush=True)
        for at in row["methods"]:
            chosen, times = at["chosen"], at["median_ms"]
            if times[chosen] > NEAR * min(times.values()):
                failed.append(f"{name}, {at['tokens']} tokens: the rule takes {chosen} of {times}")
        if row["speedup"]["median"] < GOAL:
            failed.append(
                f"{name}: {row['speedup']['median']:.1f}x {row['best_torch']}, the goal is {GOAL}x"
            )
    print(path)
    for line in failed:
        print(f"FAILED: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
