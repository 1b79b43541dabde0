"""Counting all layer pairs of a Mixtral-shaped trace, beside what people use today.

Baselines, each counting the same pairs (every src <= dst, diagonal included, pairing ``any``):

- ``numpy.bincount`` of ``e * E + f`` over the K x K pairs of slots, per pair of layers;
- ``torch`` (where it is installed): one matrix product of one-hot rows, in chunks, float32.

First each result is checked to be equal, cell by cell; then the rounds alternate between the
methods, so that a busy machine slows all of them. Exit status 1 if a result differs or the speed-up
over numpy.bincount is below 5.

    python bench/pair_counts.py
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from routestats import _core
from routestats.counts import RouteCounts, count
from routestats.counts._device import choose_threads

L, E, K = 32, 8, 2
GOAL = 5.0
RESULT = Path(__file__).parent / "results" / "pair_counts.json"

Ids = npt.NDArray[np.uint8]
Tiles = dict[tuple[int, int], npt.NDArray[Any]]
PAIRS = [(src, dst) for src in range(L) for dst in range(src, L)]


def markov_trace(tokens: int, seed: int) -> Ids:
    """Synthetic ids [T, L, K]: a layer's experts depend on the first choice of the layer before.

    The logits of each layer are a fixed bias (popular experts) plus a row of a fixed table per
    previous first choice, plus Gumbel noise: the K largest are drawn without replacement.
    """
    rng = np.random.default_rng(seed)
    bias = rng.normal(0, 0.5, (L, E))
    table = rng.normal(0, 1.5, (L, E, E))
    experts = np.empty((tokens, L, K), np.uint8)
    first = rng.integers(0, E, tokens)
    for layer in range(L):
        logits = bias[layer] + table[layer, first] + rng.gumbel(size=(tokens, E))
        order = np.argsort(-logits, axis=1)
        experts[:, layer] = order[:, :K]
        first = order[:, 0]
    return experts


def with_bincount(experts: Ids) -> Tiles:
    # One contiguous row of wide ids per layer and slot, made once: indexing the trace anew for
    # each pair would be slower.
    slots = np.ascontiguousarray(experts.transpose(1, 2, 0)).astype(np.int64)
    tiles = {}
    for src, dst in PAIRS:
        pairs = slots[src][:, None] * E + slots[dst][None, :]
        tiles[src, dst] = np.bincount(pairs.ravel(), minlength=E * E).reshape(E, E)
    return tiles


def with_torch(experts: Ids) -> Tiles:
    import torch

    total = torch.zeros((L * E, L * E), dtype=torch.int64)
    columns = torch.arange(L)[:, None] * E
    for chunk in torch.from_numpy(experts).split(16_384):  # float32 is exact up to 2^24
        one_hot = torch.zeros((len(chunk), L * E))
        one_hot.scatter_(1, (chunk.long() + columns).flatten(1), 1.0)
        total += (one_hot.T @ one_hot).long()
    table = total.numpy().reshape(L, E, L, E)
    return {(src, dst): table[src, :, dst] for src, dst in PAIRS}


def with_routestats(experts: Ids) -> RouteCounts:
    return count(experts, num_experts=E, hops="all", pairing="any")


def require_equal(name: str, counts: RouteCounts, tiles: Tiles) -> None:
    for (src, dst), tile in tiles.items():
        if not np.array_equal(counts.pair(src, dst), tile):
            sys.exit(f"pair_counts: {name} and routestats differ at layers {src}, {dst}")


def seconds(function: Callable[[Ids], object], experts: Ids) -> float:
    start = time.perf_counter()
    function(experts)
    return time.perf_counter() - start


def read_seconds(experts: Ids) -> float:
    """What only reading the trace takes: the floor of any method, one thread."""
    words = experts.reshape(-1).view(np.uint64)
    return min(seconds(lambda _: np.bitwise_or.reduce(words), experts) for _ in range(5))


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def torch_version() -> str | None:
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()

    experts = markov_trace(arguments.tokens, arguments.seed)
    methods: dict[str, Callable[[Ids], Any]] = {"routestats": with_routestats}
    baselines = {"numpy.bincount": with_bincount}
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    if (torch := torch_version()) is not None:
        baselines["torch one-hot matmul"] = with_torch
        versions["torch"] = torch
    methods |= baselines

    counts = with_routestats(experts)
    for name, baseline in baselines.items():
        require_equal(name, counts, baseline(experts))
    print(f"equal in all {len(PAIRS)} pairs: routestats, {', '.join(baselines)}")

    times: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(arguments.rounds):
        for name, method in methods.items():
            times[name].append(seconds(method, experts))
    floor = read_seconds(experts)

    ours = statistics.median(times["routestats"])
    threads = choose_threads(None)
    print(f"{arguments.tokens} tokens, L={L} E={E} K={K}, {threads} threads, {cpu_model()}")
    print(f"{'method':<22}{'median ms':>11}{'min':>9}{'max':>9}{'ratio':>9}")
    for name, values in times.items():
        median = statistics.median(values)
        print(
            f"{name:<22}{median * 1e3:>11.2f}{min(values) * 1e3:>9.2f}"
            f"{max(values) * 1e3:>9.2f}{median / ours:>8.1f}x"
        )
    print(
        f"floor: reading {experts.nbytes / 1e6:.1f} MB once takes {floor * 1e3:.2f} ms on one "
        f"thread; routestats takes {ours / floor:.1f} times that"
    )
    ratio = statistics.median(times["numpy.bincount"]) / ours
    build = _core.build_info()
    arguments.output.parent.mkdir(exist_ok=True)
    result = {
        "tokens": arguments.tokens,
        "num_layers": L,
        "num_experts": E,
        "top_k": K,
        "pairing": "any",
        "layer_pairs": len(PAIRS),
        "rounds": arguments.rounds,
        "threads": threads,
        "cpu": cpu_model(),
        "isa": build["isas"][-1],
        "versions": {"routestats": build["version"], "compiler": build["compiler"], **versions},
        "median_ms": {n: round(statistics.median(v) * 1e3, 3) for n, v in times.items()},
        "min_ms": {n: round(min(v) * 1e3, 3) for n, v in times.items()},
        "max_ms": {n: round(max(v) * 1e3, 3) for n, v in times.items()},
        "bytes_to_read": experts.nbytes,
        "read_ms": round(floor * 1e3, 3),
        "speedup_over_bincount": round(ratio, 1),
    }
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    if ratio < GOAL:
        print(f"FAILED: {ratio:.1f}x numpy.bincount, the goal is {GOAL}x", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
