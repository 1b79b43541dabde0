"""The kernels that the built-in model gets on a GPU fit the shared memory of every card."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_platform import CUDA_CARDS

SCRIPT = Path(__file__).parents[1] / "cases" / "kernel_memory.py"
DOCS = Path(__file__).parents[2] / "docs" / "gpu.md"


@pytest.mark.slow
@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("vllm", "triton")),
    reason="it compiles vLLM's kernels by Triton: make gpu-check",
)
def test_the_kernels_fit_every_card_and_the_figures_are_those_of_the_docs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "bfloat16"],
        capture_output=True,
        text=True,
        timeout=1500,
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    taken = {(f["kernel"], f["card"]): f["shared_bytes"] for f in json.loads(done.stdout)}
    written = DOCS.read_text()
    for card in CUDA_CARDS:
        experts, attention = taken["experts", card.name], taken["attention", card.name]
        assert max(experts, attention) <= card.shared_memory, card.name
        row = f"| {card.name} | {card.sm} | {card.shared_memory:,} | {experts:,} | {attention:,} |"
        assert row in written
