"""A server's warm-up is never data, and nothing of capture runs beside it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from v2_runner import V2, V2Engine, assert_rows, v2, v2_model  # noqa: F401

import routestats as rs
from routestats.engines.vllm.plugin import RUN_VARIABLE

pytestmark = pytest.mark.filterwarnings("default")
PROMPT = list(range(3, 43))


def warm_up_as_on_a_gpu(worker: Any) -> None:
    """vLLM's own warm-up: every function of it that runs steps of made-up requests."""
    from vllm.model_executor.warmup.attention_warmup import mixed_batch_attention_warmup
    from vllm.v1.worker.gpu.warmup import run_mixed_prefill_decode_warmup, warmup_kernels

    runner = worker.model_runner
    mixed_batch_attention_warmup(worker)
    assert run_mixed_prefill_decode_warmup(
        runner,
        worker.execute_model,
        worker.sample_tokens,
        16,
        req_id_prefix="_sparse_mla_v2_warmup",
    )
    warmup_kernels(runner, worker.execute_model, worker.sample_tokens)


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def warming(v2: V2, seen: Callable[[Any], None]) -> Any:  # noqa: F811
    """In a ``with`` block, workers warm up as on a GPU; `seen` runs where graphs are captured."""
    from vllm.v1.worker.cpu_worker import CPUWorker

    warm_up = CPUWorker.compile_or_warm_up_model

    def compile_or_warm_up_model(worker: Any) -> Any:
        worker.model_runner._dummy_run(8)
        warm_up_as_on_a_gpu(worker)
        seen(worker)
        return warm_up(worker)

    patch = pytest.MonkeyPatch()
    patch.setattr(CPUWorker, "compile_or_warm_up_model", compile_or_warm_up_model)
    return patch


@pytest.fixture
def server(
    v2: V2,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., V2Engine]:
    """Starts an engine as a server that is asked to capture into ``tmp_path/"run"``."""

    def start(seen: Callable[[Any], None], tap: str = "host") -> V2Engine:
        monkeypatch.setenv(RUN_VARIABLE, str(tmp_path / "run"))
        patch = warming(v2, seen)
        try:
            return v2.engine(tap, seed=len(v2._engines))  # one of its own
        finally:
            patch.undo()
            monkeypatch.delenv(RUN_VARIABLE)

    return start


@pytest.mark.parametrize("tap", ["host", "device"])
def test_a_servers_warm_up_is_no_data(
    server: Callable[..., V2Engine], tmp_path: Path, tap: str
) -> None:
    before, at_capture = threads(), list[set[str]]()

    def seen(worker: Any) -> None:
        at_capture.append(threads())
        assert not (tmp_path / "run").exists()

    engine = server(seen, tap)
    assert at_capture == [before]
    assert "routestats-drain" in threads() - before
    for i in range(3):
        engine.add(f"r{i}", PROMPT[i:], 5)
    engine.run()
    engine.worker.shutdown = lambda: None  # the engine itself is closed later
    engine.worker._routestats_agent._close()
    assert "routestats-drain" not in threads()
    totals = json.loads((tmp_path / "run" / "run.json").read_text())["totals"]
    assert (totals["requests"], totals["foreign_rows"], totals["synthetic_requests"]) == (3, 0, 0)
    assert_rows(tmp_path / "run", engine.answers)
