"""What bench/gpu_vllm.py makes of what its engines found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpu_vllm
from _models import CONFIGS, write_config
from _vllm_engine import decode_steps_ms, prompts, step_ends


def _engine(mean: float, batch: int = 32) -> dict[str, Any]:
    names = ("tokens_per_s", "step_ms_mean", "step_ms_p50", "step_ms_p95")
    row = {"batch": batch, **dict.fromkeys(names, mean)}
    return {"rows": [row], "captured": {"drain_cpu_ms": 12.5, "rows": 1000}}


def test_no_prompt_of_an_engine_begins_as_another_does() -> None:
    # Prefix caching is on, and what is cached is not computed.
    blocks = [
        tuple(tokens[:16])
        for batch in gpu_vllm.BATCHES
        for repeat in range(6)
        for tokens in prompts(batch, repeat, 32_000)
    ]
    assert len(set(blocks)) == len(blocks)
    assert prompts(32, 1, 32_000) == prompts(32, 1, 32_000)  # the same in every engine
    assert max(max(tokens) for tokens in prompts(32, 1, 4_096)) < 4_096


def test_decode_steps_are_those_of_the_middle() -> None:
    took = [0.5] * 8 + [0.008] * 120 + [0.004] * 8  # prompts, all requests, the last ones
    steps = decode_steps_ms(np.cumsum(took).tolist())
    assert len(steps) >= 60
    assert np.allclose(steps, 8.0)


def test_steps_are_noted_above_those_of_a_capture() -> None:
    class Engine:
        def step(self) -> str:
            return "engine"

    class Holder:
        llm_engine: Any = Engine()

    llm = Holder()
    with step_ends(llm) as ends:
        assert llm.llm_engine.step() == "engine"
    assert len(ends) == 1
    assert "step" not in vars(llm.llm_engine)
    llm.llm_engine.step = lambda: "capture"
    with step_ends(llm) as ends:
        assert llm.llm_engine.step() == "capture"
    assert llm.llm_engine.step() == "capture"
    assert len(ends) == 1


@pytest.mark.parametrize(
    ("ours", "theirs", "missed"),
    [(8.05, 8.2, []), (8.2, 8.3, ["batch 32"]), (8.05, 8.04, ["batch 32"]), (8.05, None, [])],
)
def test_a_capture_that_costs_more_than_a_percent_or_than_vllms_own_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ours: float, theirs: float | None,
    missed: list[str],
) -> None:  # fmt: skip
    into = tmp_path / "engines.json"
    for kind, mean in (("nothing", 8.0), ("ours", ours), ("theirs", theirs)):
        if mean is not None:
            gpu_vllm.add_to(into, kind, _engine(mean))
    assert gpu_vllm.judge(into, None) == bool(missed)
    printed = capsys.readouterr()
    row = json.loads(printed.out.splitlines()[0])
    assert row["ours_step_ms_mean_ratio"]["median"] == pytest.approx(ours / 8.0, abs=1e-4)
    assert "drain thread: 12.5 ms for 1,000 rows" in printed.out
    assert all(line in printed.err for line in missed)
    assert printed.err.count("FAILED") == len(missed)


def test_nothing_to_compare_fails(tmp_path: Path) -> None:
    into = tmp_path / "engines.json"
    gpu_vllm.add_to(into, "ours", _engine(8.0))
    assert gpu_vllm.judge(into, None) == 1


@pytest.mark.parametrize(
    ("kind", "found", "said"),
    [
        ("both", {"rows": 9, "different": 0}, None),
        ("both", {"rows": 9, "different": 1}, "1 of 9 rows differ"),
        ("both", {"rows": 0, "different": 0}, "0 of 0 rows differ"),
        ("check", {"refused": "monolithic"}, "capture was refused: monolithic"),
        ("check", {"verified": False, "report": "torn"}, "verify: torn"),
        ("check", {"verified": True, "rows": 8, "expected_rows": 9}, "expected 9 rows, got 8"),
        ("check", {"verified": True, "rows": 9, "expected_rows": 9}, None),
    ],
)
def test_what_an_engine_found_is_judged(kind: str, found: dict[str, Any], said: str | None) -> None:
    line = gpu_vllm.wrong(kind, found)
    assert (line is None) if said is None else (said in str(line))


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_may_be_cut_to_fewer_layers(tmp_path: Path, name: str) -> None:
    config = json.loads((write_config(name, tmp_path, 2) / "config.json").read_text())
    assert config["num_hidden_layers"] == 2
    assert len(config.get("layer_types", [0, 0])) == 2
