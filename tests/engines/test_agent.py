"""The agent in a worker: an engine that cannot be captured starts, a server asked to does not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from routestats.engines.vllm import plugin
from routestats.engines.vllm.agent import Agent
from routestats.engines.vllm.attachment import Attachment
from routestats.engines.vllm.plugin import RUN_VARIABLE
from routestats.errors import CaptureError

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "pooling": ({"model": {"runner_type": "pooling"}}, "runner_type"),
    "draft": ({"model": {"runner_type": "draft"}}, "runner_type"),
    "encoder": ({"is_mm_encoder_only": True}, "mm_encoder_only"),
    "elastic": ({"parallel": {"enable_elastic_ep": True}}, "enable_elastic_ep"),
    "data parallel": ({"parallel": {"data_parallel_size": 2}}, "data_parallel_size"),
    "two batches": ({"parallel": {"enable_dbo": True}}, "enable_dbo"),
}


def config(model: Any = (), parallel: Any = (), **more: Any) -> Any:
    generating = {"runner_type": "generate", "enforce_eager": True, "max_model_len": 64}
    names = {"served_model_name": "m", "model": "m", "hf_config": None, "tokenizer": "m"}
    return SimpleNamespace(
        model_config=SimpleNamespace(
            **{**generating, **names, **dict(model)}, get_num_experts=lambda: 8, dtype="float32"
        ),
        parallel_config=SimpleNamespace(**{"rank": 0, "tensor_parallel_size": 1, **dict(parallel)}),
        compilation_config=SimpleNamespace(mode=0),
        scheduler_config=SimpleNamespace(max_num_batched_tokens=8),
        **more,
    )


class Runner:
    def load_model(self) -> str:
        return "loaded"

    def get_model(self) -> Any:
        return torch.nn.Identity()

    def execute_model(self, scheduler_output: Any) -> None: ...


class Worker:
    def __init__(self, vllm_config: Any) -> None:
        self.vllm_config, self.model_runner = vllm_config, Runner()
        self.device = torch.device("cpu")
        self.calls: list[str] = []

    def load_model(self) -> str:
        return self.model_runner.load_model()

    def compile_or_warm_up_model(self) -> str:
        self.calls.append("warm")
        return "warm"

    def shutdown(self) -> str:
        self.calls.append("shut down")
        return "shut down"


def start(worker: Worker) -> Agent:
    """What an engine does with a worker: it goes on to the end."""
    agent = Agent(worker, late=False)
    assert worker.load_model() == "loaded"
    return agent


@pytest.mark.parametrize("kind", REFUSED)
def test_a_kind_of_engine_is_refused_by_name(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, named = REFUSED[kind]
    worker = Worker(config(**given))
    agent = start(worker)
    with pytest.raises(CaptureError, match=named):
        agent.start({"run_dir": str(tmp_path / "run"), "domain": "d", "alarm": "a"})
    monkeypatch.setenv(RUN_VARIABLE, str(tmp_path / "run"))
    worker = Worker(config(**given))
    with pytest.raises(CaptureError, match=f"{RUN_VARIABLE} is set, but {named}"):
        start(worker)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["get_model", "tap", "bind"])
def test_what_goes_wrong_while_the_model_is_loaded_is_a_refusal(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise ZeroDivisionError("ours")

    router = SimpleNamespace(set_capture_fn=None, _compute_routing=None, top_k=2)
    model = torch.nn.Identity()
    model.router, model.layer_id = router, 0
    monkeypatch.setattr(Runner, "get_model", fail if place == "get_model" else lambda _: model)
    if place == "tap":
        monkeypatch.setattr(Attachment, "_new_tap", fail)
    if place == "bind":
        monkeypatch.setattr(Attachment, "bind", fail)
    worker = Worker(config())
    agent = start(worker)
    assert worker.compile_or_warm_up_model() == "warm"
    with pytest.raises(CaptureError, match="routestats failed: ZeroDivisionError: ours"):
        agent.start({"run_dir": str(tmp_path / "run"), "domain": "d", "alarm": "a"})
    monkeypatch.setenv(RUN_VARIABLE, str(tmp_path / "run"))
    worker = Worker(config())
    with pytest.raises(CaptureError, match=f"{RUN_VARIABLE} is set, but routestats failed"):
        start(worker)


def test_an_agent_that_cannot_be_made_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = SimpleNamespace(vllm_config=SimpleNamespace(additional_config={}))  # no runner
    plugin._attach_early(worker)
    answer = plugin._start(SimpleNamespace(worker=worker), {})
    assert "model_runner" in answer["refused"]
    monkeypatch.setenv(RUN_VARIABLE, "run")
    with pytest.raises(CaptureError, match=f"{RUN_VARIABLE} is set, but routestats failed"):
        plugin._attach_early(worker)


def test_a_servers_refusal_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_VARIABLE, "run")
    worker = Worker(config(model={"runner_type": "pooling"}, additional_config={}))
    with pytest.raises(CaptureError, match=f"^{RUN_VARIABLE} is set, but runner_type") as raised:
        plugin._attach_early(worker)
    assert str(raised.value).count(RUN_VARIABLE) == 1


def test_a_worker_shuts_down_whatever_the_capture_does(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(config())
    agent = Agent(worker, late=False)

    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(agent._capture, "close", fail)
    assert worker.shutdown() == "shut down"
    assert worker.calls == ["shut down"]
