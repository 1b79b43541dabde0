"""What capture wrote in a real vLLM equals transformers' own routing, row by row."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from engine_cases import QUIET
from engine_process import run_engine

pytest.importorskip("vllm", reason="it runs vLLM's engine")
pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("default")]

SCRIPT = Path(__file__).parents[2] / "bench" / "capture_fidelity.py"


# Cases of equal settings share an engine. The numbers of rows are lower bounds.
@pytest.mark.parametrize(
    "least_rows",
    [
        {"plain": 6000, "two domains": 4500},
        {"chunked prefill": 3500},
        {"prefix caching": 6000},
        {"preemption": 3000},
        {"speculative (n-gram)": 5000},
        pytest.param({"compiled": 6000}, marks=pytest.mark.slow),
    ],
    ids=" + ".join,
)
def test_capture_equals_transformers(tmp_path: Path, least_rows: dict[str, int]) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(SCRIPT), *least_rows, "--json", str(figures)]
    done = run_engine(command, timeout=1200, env={**os.environ, **QUIET})
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    cases = {case["case"]: case for case in json.loads(figures.read_text())}
    assert cases.keys() == least_rows.keys()
    for name, case in cases.items():
        assert case["rows"] == case["expected_rows"] >= least_rows[name], case
        assert case["wrong"] == 0, case
