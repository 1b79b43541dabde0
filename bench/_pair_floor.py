"""What counting pairs cannot be faster than: bytes to move and operations to do."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from _pair_baselines import Pairs
from _workload import Shape
from routestats import _core
from routestats.counts.device.choice import choose_threads

ROW_COLUMNS = 512
HALF_ROW = ROW_COLUMNS // 2
MEMORY_BYTES_PER_S = 31e9


def print_floor(shape: Shape, pairs: Pairs, tokens: int, spent_s: float) -> None:
    """Print the floor of the method that this shape takes, and the fraction of it reached.

    Direct: an increment per pair of slots, one store a cycle. AND-popcount: with AVX-512 an AND, a
    popcount and an addition per 512 bits, two a cycle; with AVX2 an AND and the five operations of
    an adder per 256 bits, three a cycle. Lists: a row of 64 bytes per (slot, group of 512 target
    columns) from the second-level cache, 32 bytes a cycle (AVX2: two adders of five operations,
    three a cycle). Lists of a block: an entry and the end of its list stored per (layer, slot), one
    store a cycle, or the rows of 32 bytes per 256 columns of the targets, 32 bytes a cycle,
    whichever takes longer.
    """
    isa = _core.build_info()["isas"][-1]
    wide = isa == "avx512"
    method = _core.choose_pair_method(
        layers=shape.L, experts=shape.E, slots=shape.K, pairs=len(pairs)
    )
    if method == "direct":
        increments = len(pairs) * shape.K**2 * tokens
        cycles = 1.0 * increments
        what = f"{increments:.3g} increments"
    elif method == "bitmap":
        vectors = len(pairs) * shape.E**2 * tokens / (512 if wide else 256)
        cycles = vectors * (1.5 if wide else 2.0)
        what = f"{vectors:.3g} vectors to AND and count"
    elif method == "block_lists":
        targets = Counter(source for source, _ in pairs)
        entries = tokens * shape.K * shape.L
        rows = tokens * shape.K * sum(-(-n * shape.E // HALF_ROW) for n in targets.values())
        cycles = max(2.0 * entries, rows * (1.0 if wide else 5 / 3))
        what = f"{entries:.3g} entries to list, {rows:.3g} rows of 32 bytes to add"
    else:
        groups = {(s, c // ROW_COLUMNS) for s, d in pairs for c in _ends(d, shape.E)}
        rows = tokens * shape.K * len(groups)
        cycles = rows * (2.0 if wide else 10 / 3)
        what = f"{rows:.3g} rows of 64 bytes to add"
    read_s = tokens * shape.L * shape.K / MEMORY_BYTES_PER_S
    table = 8 * len(pairs) * shape.E**2
    floor_s = max(cycles / (_hertz() * choose_threads(None)), read_s)
    print(
        f"  floor ({method}, {isa}): {what}, {tokens * shape.L * shape.K / 1e6:.0f} MB to read, "
        f"{table / 1e6:.1f} MB of counts to write: {floor_s * 1e3:.1f} ms at "
        f"{_hertz() / 1e9:.1f} GHz; reached {floor_s / spent_s:.0%} of it in {spent_s * 1e3:.1f} ms"
    )


def _ends(layer: int, E: int) -> range:
    """A column of every group of 512 that a layer's columns touch."""
    first, last = layer * E, layer * E + E - 1
    return range(first, last // ROW_COLUMNS * ROW_COLUMNS + ROW_COLUMNS, ROW_COLUMNS)


def _hertz() -> float:
    info = Path("/proc/cpuinfo")
    if info.exists() and os.name == "posix":
        for line in info.read_text().splitlines():
            if line.startswith("cpu MHz"):
                return float(line.split(":")[1]) * 1e6
    return 3e9
