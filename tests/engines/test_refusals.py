"""Settings and models that capture does not understand are refused by name."""

from __future__ import annotations

import copy
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
from fake_platform import H100
from moe_layers import vllm_on

from routestats.errors import CaptureError

pytest.importorskip("vllm")

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, on vLLM's way to it
    from vllm.config import DiffusionConfig, KVTransferConfig, SpeculativeConfig
    from vllm.config.compilation import CompilationMode, CUDAGraphMode
    from vllm.engine.arg_utils import EngineArgs

from routestats.engines.vllm.attachment import Attachment
from routestats.engines.vllm.description import is_eager, require_eager
from routestats.engines.vllm.refusals import refuse_model, refuse_settings
from routestats.models import tiny_model

pytestmark = pytest.mark.filterwarnings("default")  # importing vLLM imports torch's compiler


@pytest.fixture(scope="module")
def made() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        return EngineArgs(model=str(tiny_model()), max_model_len=64).create_engine_config()


@pytest.fixture
def config(made: Any) -> Any:
    """A configuration of vLLM's own, whose parts a test may change."""
    changed = copy.copy(made)
    for name in ("parallel_config", "model_config", "cache_config", "kernel_config"):
        setattr(changed, name, copy.copy(getattr(made, name)))
    changed.compilation_config = copy.copy(made.compilation_config)
    return changed


def test_what_is_understood_is_not_refused(config: Any) -> None:
    refuse_settings(config)
    config.parallel_config.tensor_parallel_size = 8
    config.parallel_config.enable_expert_parallel = True
    config.parallel_config.enable_eplb = True
    config.model_config.enable_sleep_mode = True
    config.kv_transfer_config = KVTransferConfig(kv_connector="c", kv_role="kv_both")
    refuse_settings(config)


@pytest.mark.parametrize(
    ("part", "setting", "value", "message"),
    [
        ("parallel", "data_parallel_size", 2, "data_parallel_size: capture expects 1, got 2: .*"
         "take tensor_parallel_size, or engines of their own"),
        ("parallel", "pipeline_parallel_size", 2, "pipeline_parallel_size: .* got 2"),
        ("parallel", "prefill_context_parallel_size", 2, "prefill_context_parallel_size: "),
        ("parallel", "decode_context_parallel_size", 2, "decode_context_parallel_size: "),
        ("parallel", "enable_elastic_ep", True, "enable_elastic_ep: .* expects False, got True"),
        ("parallel", "enable_dbo", True, "enable_dbo: .*micro-batches"),
        ("parallel", "ubatch_size", 2, "use_ubatching: .*micro-batches"),
        ("cache", "kv_sharing_fast_prefill", True, "kv_sharing_fast_prefill: .*later layers"),
        ("model", "runner_type", "pooling", "runner_type: .* expects generate, got pooling"),
        ("model", "sleep_mode_backend", "criu", "sleep_mode_backend: .* expects cumem, got criu"),
    ],
)  # fmt: skip
def test_settings_are_refused_by_name(
    config: Any, part: str, setting: str, value: object, message: str
) -> None:
    config.model_config.enable_sleep_mode = True
    of = getattr(config, f"{part}_config")
    assert hasattr(of, setting)  # vLLM still calls it so
    setattr(of, setting, value)
    with pytest.raises(CaptureError, match=message):
        refuse_settings(config)


@pytest.mark.parametrize("backend", ["deep_gemm_mega_moe", "flashinfer_moe_ep_cutedsl"])
def test_kernels_that_share_tokens_out_are_refused_on_several_ranks(
    config: Any, backend: str
) -> None:
    config.kernel_config.moe_backend = backend
    refuse_settings(config)
    config.parallel_config.tensor_parallel_size = 4
    with pytest.raises(CaptureError, match=f"moe_backend={backend} with tensor_parallel_size=4"):
        refuse_settings(config)


def test_tokens_that_are_computed_more_than_once_are_refused(config: Any) -> None:
    config.kv_transfer_config = KVTransferConfig(
        kv_connector="c", kv_role="kv_both", kv_load_failure_policy="recompute"
    )
    with pytest.raises(CaptureError, match="kv_load_failure_policy: capture expects fail, got re"):
        refuse_settings(config)
    config.kv_transfer_config = None
    config.diffusion_config = DiffusionConfig(canvas_length=8)
    with pytest.raises(CaptureError, match="diffusion_config: capture expects a model that writes"):
        refuse_settings(config)
    config.diffusion_config = None
    speculative = object.__new__(SpeculativeConfig)
    speculative.enable_adaptive_verification = True
    config.speculative_config = speculative
    with pytest.raises(CaptureError, match="enable_adaptive_verification: capture expects False"):
        refuse_settings(config)


def test_layers_that_run_on_some_of_the_rows_are_refused() -> None:
    model = torch.nn.Module()
    model.inner = torch.nn.Module()
    model.inner.moe_config = SimpleNamespace(is_sequence_parallel=False)
    model.inner.decoder_replay_layers = None
    refuse_model(model)
    model.inner.moe_config.is_sequence_parallel = True
    with pytest.raises(CaptureError, match=r"layer inner: each rank routes a share"):
        refuse_model(model)
    model.inner.moe_config.is_sequence_parallel = False
    model.inner.decoder_replay_layers = object()
    with pytest.raises(CaptureError, match=r"inner: its last layers run on a window"):
        refuse_model(model)


@pytest.mark.parametrize(
    ("breakable", "settings", "eager"),
    [
        ("1", {}, False),
        ("0", {"compilation_config": {"mode": 0}}, False),
        ("0", {}, False),
        ("1", {"enforce_eager": True}, True),
        ("0", {"compilation_config": {"mode": 0, "cudagraph_mode": "NONE"}}, True),
    ],
)
def test_vllms_own_graphs_without_compilation_are_not_eager(
    monkeypatch: pytest.MonkeyPatch, breakable: str, settings: dict[str, Any], eager: bool
) -> None:
    """As vLLM resolves them on an H100, where graphs are the default."""
    monkeypatch.setenv("VLLM_USE_BREAKABLE_CUDAGRAPH", breakable)
    with vllm_on(H100, model=str(tiny_model()), max_model_len=64, **settings) as config:
        assert is_eager(config) is eager
        worker: Any = SimpleNamespace(
            vllm_config=config, device=torch.device("cpu"), model_runner=None
        )
        refusal = Attachment(worker, late=True).refusal or ""
        assert refusal.startswith("the engine was compiled, or replays graphs, without") != eager


@pytest.mark.parametrize("graphs", list(CUDAGraphMode))
@pytest.mark.parametrize("mode", list(CompilationMode))
def test_an_engine_with_graphs_is_not_eager(
    config: Any, mode: CompilationMode, graphs: CUDAGraphMode
) -> None:
    config.compilation_config.mode = mode
    config.compilation_config.cudagraph_mode = graphs
    eager = mode == CompilationMode.NONE and graphs == CUDAGraphMode.NONE
    assert is_eager(config) is eager
    if not eager:
        message = f"enforce_eager=True, got compilation mode {mode.name} and CUDA graphs {graphs}"
        with pytest.raises(CaptureError, match=message):
            require_eager(config, "timing", "whose stages are separate calls")
