"""How the cost of counting all pairs grows with the number of tokens, and what memory it takes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from _compare import seconds
from _workload import SHAPES, Shape, make_trace
from routestats.counts import count

RESULTS = Path(__file__).parent / "results"
TOKENS = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
MEMORY_LIMIT_BYTES = {"mixtral": 0.2e9, "qwen3": 0.8e9, "dsv3": 1.6e9}

# In a process of its own: the trace is read, the high-water mark reset, all pairs counted.
MEASURE_PEAK = """
import re, sys
import numpy as np
from pathlib import Path
from routestats.counts import count

experts = np.load(sys.argv[1])
count(experts[:1000], num_experts=int(sys.argv[2]), hops=0)

def status(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
counts = count(experts, num_experts=int(sys.argv[2]))
print((status("VmHWM") - before) * 1024)
"""


@dataclass(frozen=True)
class Scaling:
    shape: str
    tokens: int
    seconds: float
    ns_per_token: float
    peak_bytes: int | None
    peak_limit_bytes: float | None


def measure_scaling(shapes: list[Shape], memory_tokens: int, path: Path | None) -> None:
    """Print and write the rows, and draw ``results/pair_counts_scaling.png``."""
    rows: list[Scaling] = []
    for shape in shapes:
        # Ten times the same million: the cost does not depend on how often a path repeats.
        million = make_trace(shape, 1_000_000)
        peak = peak_bytes(million[:memory_tokens], shape)
        for tokens in TOKENS:
            repeats = -(-tokens // len(million))
            experts = million[:tokens] if repeats == 1 else np.tile(million, (repeats, 1, 1))
            spent = min(
                seconds(partial(count, experts, num_experts=shape.E))
                for _ in range(3 if tokens <= 1_000_000 else 1)
            )
            at_memory = tokens == memory_tokens
            rows.append(
                Scaling(
                    shape.name,
                    tokens,
                    spent,
                    spent / tokens * 1e9,
                    peak if at_memory else None,
                    MEMORY_LIMIT_BYTES[shape.name] if at_memory else None,
                )
            )
            print(
                f"{shape.name:<9}{tokens:>11,} tokens{spent:>9.3f} s"
                f"{spent / tokens * 1e9:>9.1f} ns/token"
                + (f"   peak {peak / 1e9:.3f} GB" if at_memory else ""),
                flush=True,
            )
    path = path or RESULTS / "pair_counts_scaling.json"
    kept = json.loads(path.read_text()) if path.exists() else []
    measured = {shape.name for shape in shapes}
    table = [row for row in kept if row["shape"] not in measured] + [asdict(r) for r in rows]
    path.write_text(json.dumps(table, indent=1) + "\n")
    draw(table, path.with_suffix(".png"))


def peak_bytes(experts: np.ndarray, shape: Shape) -> int:
    """Most memory beyond the trace, the counts themselves included."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.npy"
        np.save(trace, experts)
        command = [sys.executable, "-c", MEASURE_PEAK, str(trace), str(shape.E)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    for name in SHAPES:
        points = [(row["tokens"], row["ns_per_token"]) for row in rows if row["shape"] == name]
        if points:
            tokens, cost = zip(*sorted(points), strict=True)
            axes.plot(tokens, cost, "o-", label=str(SHAPES[name]))
    axes.set(xscale="log", yscale="log", xlabel="tokens", ylabel="ns per token, all layer pairs")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
