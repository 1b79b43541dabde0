"""`import routestats` is light, and has the names that the documentation promises."""

from __future__ import annotations

import subprocess
import sys

import routestats as rs

_IMPORT = """
import sys, time
import numpy, pyarrow.parquet, pyarrow.compute
ours = time.process_time()  # of the processor: the machine may be busy
import routestats
print(time.process_time() - ours)
heavy = {"torch", "vllm", "transformers", "matplotlib", "tqdm", "tokenizers"} & set(sys.modules)
assert not heavy, heavy
"""


def test_import_is_light() -> None:
    times = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True
        )
        times.append(float(done.stdout))
    assert min(times) < 0.3, times


def test_public_names() -> None:
    names = {"Trace", "RouteCounts", "RouteShape", "capture", "count", "enable", "verify"}
    assert names <= set(rs.__all__)
    for name in rs.__all__:
        assert getattr(rs, name) is not None
    for name in ("expert_load", "affinity", "hop_accuracy"):
        assert callable(getattr(rs.stats, name))
    for name in ("expert_load", "affinity_grid", "hop_accuracy"):
        assert callable(getattr(rs.plots, name))
