"""What is attached to a worker, where its memory lies, and what is said where that cannot be.

The workers are vLLM's own class, its settings real ones; models are a few modules.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from emulated_device import emulated_device

from routestats.errors import CaptureError, DeviceError

pytest.importorskip("vllm")

import torch
from torch.utils._python_dispatch import TorchDispatchMode

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, on vLLM's way to it
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.worker import gpu_worker

from routestats.engines.vllm import attachment as attachment_module
from routestats.engines.vllm.agent import Agent
from routestats.engines.vllm.attachment import Attachment
from routestats.engines.vllm.plugin import RUN_VARIABLE
from routestats.engines.vllm.tap_choice import TapChoice
from routestats.models import tiny_model

pytestmark = pytest.mark.filterwarnings("default")  # importing vLLM imports torch's compiler


def model_of(layers: int = 2) -> torch.nn.Module:
    model = torch.nn.Module()
    model.layers = torch.nn.ModuleList()
    for index in range(layers):
        layer = torch.nn.Linear(4, 4)
        layer.router = SimpleNamespace(
            set_capture_fn=None, _compute_routing=lambda *_: None, top_k=2
        )
        layer.layer_id = index
        model.layers.append(layer)
    return model


class Runner:
    """A model runner that loads a model of a few modules."""

    def __init__(self, make: Callable[[], torch.nn.Module] = model_of) -> None:
        self._make = make

    def load_model(self, *, load_dummy_weights: bool = False) -> None:
        self.model = self._make()

    def get_model(self) -> torch.nn.Module:
        return self.model

    def execute_model(self, scheduler_output: Any) -> None:
        raise AssertionError("no step is run")


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setattr("atexit.register", lambda *_: None)
    args = EngineArgs(model=str(tiny_model()), max_model_len=64, max_num_batched_tokens=64)
    return args.create_engine_config()


def worker_of(config: Any, make: Callable[[], torch.nn.Module] = model_of) -> Any:
    worker = object.__new__(gpu_worker.Worker)
    worker.vllm_config = config
    worker.model_runner = Runner(make)
    worker.device = torch.device("cpu")
    worker._scoped_allocator_max_split = lambda max_split_size_mb: nullcontext()
    return worker


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "vllm.routestats"]


@pytest.fixture(autouse=True)
def propagated(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's logger hands nothing on, and caplog listens at the root."""
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)


# --- sleep mode ---


class Pool(TorchDispatchMode):
    """Tells vLLM's allocator of every tensor that is made inside its pool."""

    def __init__(self, allocator: Any) -> None:
        super().__init__()
        self.allocator = allocator

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            storage = made.untyped_storage()
            handle = (0, storage.nbytes(), storage.data_ptr(), 0)
            if storage.data_ptr() not in self.allocator.pointer_to_data:
                self.allocator._python_malloc_callback(handle)
        return made


@pytest.mark.parametrize("tap", ["DeviceTap", "StagedTap"])
def test_sleep_takes_none_of_our_memory_away(
    config: Any, monkeypatch: pytest.MonkeyPatch, tap: str
) -> None:
    """vLLM's own loading, pool and sleep of level 2; its driver calls are noted, not made."""
    from vllm.device_allocator import cumem

    taken: set[int] = set()

    @contextmanager
    def pool(*callbacks: Any) -> Iterator[Any]:
        with Pool(allocator):
            yield SimpleNamespace(snapshot=list), None

    monkeypatch.setattr(cumem, "use_memory_pool_with_allocator", pool)
    monkeypatch.setattr(cumem, "unmap_and_release", lambda handle: taken.add(handle[2]))
    monkeypatch.setattr(cumem, "current_alloc_conf", lambda: "")
    allocator = cumem.CuMemAllocator()
    cuda = SimpleNamespace(is_cuda_alike=lambda: True, is_xpu=lambda: False, is_cpu=lambda: False)
    monkeypatch.setattr(gpu_worker, "current_platform", cuda)
    monkeypatch.setattr(gpu_worker, "get_mem_allocator_instance", lambda: allocator)
    config.model_config.enable_sleep_mode = config.model_config.enable_cumem_allocator = True
    emulated_device()
    monkeypatch.setattr(attachment_module, "choose_tap", lambda _: TapChoice(tap))
    worker = worker_of(config)
    attached = Attachment(worker, late=False)
    attached.follow_load(lambda: None)
    worker.load_model()
    allocator.sleep(("runtime", "cudagraph"))
    owner: Any = attached.tap
    owner = owner.memory if tap == "DeviceTap" else owner
    ours = [value for value in vars(owner).values() if isinstance(value, torch.Tensor)]
    assert len(ours) >= 3
    weights = worker.model_runner.model.layers[0].weight
    assert weights.untyped_storage().data_ptr() in taken
    assert not taken & {tensor.untyped_storage().data_ptr() for tensor in ours}


# --- fallbacks ---


class OldCard:
    """Stands for `DeviceTap` where its kernels do not load."""

    def __init__(self, *arguments: Any) -> None:
        raise DeviceError("load the capture kernels: no kernel image is available")


@pytest.mark.parametrize("why", ["chosen", "kernels"])
def test_a_fallback_is_said_once_and_stands_in_the_run(
    config: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, why: str
) -> None:
    choice = TapChoice("StagedTap", "there is no driver") if why == "chosen" else None
    monkeypatch.setattr(attachment_module, "choose_tap", lambda _: choice or TapChoice("DeviceTap"))
    monkeypatch.setattr(attachment_module, "DeviceTap", OldCard)
    failed = "load the capture kernels: no kernel image is available"
    reason = "there is no driver" if why == "chosen" else f"the ring cannot be made: {failed}"
    worker = worker_of(config)
    worker.shutdown = lambda: None
    agent = Agent(worker, late=False)
    assert told(caplog) == []
    worker.load_model()
    (line,) = told(caplog)
    assert line.startswith(f"capture falls back to StagedTap, because {reason}: choices are copied")
    assert "asynchronous scheduling is lost" in line
    assert agent.about() == {"writes": True, "refusal": None, "warning": line}
    assert type(agent._attachment.tap).__name__ == "StagedTap"
    assert agent._attachment.tap_reason == {"tap_reason": reason}


def test_the_best_tap_says_nothing(config: Any, caplog: pytest.LogCaptureFixture) -> None:
    worker = worker_of(config)
    worker.shutdown = lambda: None
    agent = Agent(worker, late=False)
    worker.load_model()
    assert told(caplog) == []
    assert agent._attachment.tap_reason == {}
    assert agent.about()["warning"] is None


# --- refusals ---


def data_parallel(config: Any) -> None:
    config.parallel_config.data_parallel_size = 2


def test_settings_are_refused_when_the_engine_starts(
    config: Any, caplog: pytest.LogCaptureFixture
) -> None:
    data_parallel(config)
    worker = worker_of(config)
    worker.shutdown = lambda: None
    agent = Agent(worker, late=False)
    (line,) = told(caplog)
    assert line.startswith("this engine cannot be captured: data_parallel_size: capture expects 1,")
    assert "got 2" in line
    assert "tensor_parallel_size" in line
    worker.load_model()
    assert len(told(caplog)) == 1
    with pytest.raises(CaptureError, match="data_parallel_size: capture expects 1, got 2"):
        agent.start({})
    assert agent.about()["refusal"].startswith("data_parallel_size")


def test_a_server_that_cannot_be_captured_does_not_start(
    config: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data_parallel(config)
    monkeypatch.setenv(RUN_VARIABLE, str(tmp_path))
    with pytest.raises(CaptureError, match=r"ROUTESTATS_RUN is set, but data_parallel_size: "):
        Agent(worker_of(config), late=False)


def test_whatever_goes_wrong_while_attaching_the_engine_starts(
    config: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise MemoryError("no memory left")

    monkeypatch.setattr(attachment_module, "HostTap", broken)
    worker = worker_of(config)
    worker.shutdown = lambda: None
    Agent(worker, late=False)
    worker.load_model()
    (line,) = told(caplog)
    assert line.endswith("routestats failed: MemoryError: no memory left")


def test_profile_says_what_a_hidden_log_would(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from routestats.engines.vllm.offline import _speak_for

    about: dict[str, Any] = {"writes": True, "refusal": None, "warning": None}
    llm = SimpleNamespace(collective_rpc=lambda method, args: [about] * (method == _ABOUT))
    _speak_for(llm)
    assert capsys.readouterr().err == ""
    about["warning"] = "capture falls back to StagedTap"
    _speak_for(llm)
    assert capsys.readouterr().err == "routestats: capture falls back to StagedTap\n"
    about["refusal"] = "data_parallel_size: capture expects 1"
    with pytest.raises(CaptureError, match="data_parallel_size: capture expects 1"):
        _speak_for(llm)


_ABOUT = "routestats_about"
