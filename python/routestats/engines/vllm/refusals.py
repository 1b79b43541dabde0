"""What of an engine's settings and model capture does not understand, refused by name.

Settings are looked at when the engine starts, before its weights are loaded; what only the model
shows, as soon as it is there.
"""

from __future__ import annotations

from typing import Any

from routestats.errors import CaptureError

_INSTEAD = "take tensor_parallel_size, or engines of their own with a run each"
_PARALLEL = {
    "data_parallel_size": "each rank runs requests of its own and dummy batches between them",
    "pipeline_parallel_size": "each rank has some of the layers",
    "prefill_context_parallel_size": "ranks share out the tokens of a prompt",
    "decode_context_parallel_size": "ranks share out the tokens in the KV cache",
}
# Kernels that want every rank to bring tokens of its own.
_SHARING_BACKENDS = (
    "deep_gemm_mega_moe",
    "flashinfer_moe_ep_cutedsl",
    "flashinfer_moe_ep_mega_deep_gemm",
)


def refuse_settings(vllm_config: Any) -> None:
    """Refuse what spreads a step's rows, or makes a step, in a way that is not understood.

    Raises
    ------
    CaptureError
        For the first such setting: its name, what was expected, what was got, and what works.
    """
    _refuse_spreading(vllm_config)
    runner = getattr(vllm_config.model_config, "runner_type", "generate")
    if runner != "generate":
        _refuse("runner_type", "generate", runner, "capture follows models that generate tokens")
    if getattr(vllm_config, "is_mm_encoder_only", False):
        _refuse("mm_encoder_only", False, True, "no language model runs in this engine")
    if (
        getattr(vllm_config, "diffusion_config", None) is not None
        or getattr(vllm_config.model_config, "is_diffusion", False) is True
    ):
        raise CaptureError(
            "diffusion_config: capture expects a model that writes one token after the other, got "
            "one that computes a token many times over"
        )
    speculative = getattr(vllm_config, "speculative_config", None)
    if getattr(speculative, "enable_adaptive_verification", False):
        _refuse(
            "speculative_config.enable_adaptive_verification",
            False,
            True,
            "the GPU decides which drafts a step runs; other speculation works",
        )
    transfer = getattr(vllm_config, "kv_transfer_config", None)
    policy = getattr(transfer, "kv_load_failure_policy", "fail")
    if policy == "recompute":
        _refuse(
            "kv_transfer_config.kv_load_failure_policy",
            "fail",
            policy,
            "rows that were computed on a cache that had not arrived would be kept",
        )
    if getattr(getattr(vllm_config, "cache_config", None), "kv_sharing_fast_prefill", False):
        _refuse("kv_sharing_fast_prefill", False, True, "later layers leave out rows of a prompt")
    backend = getattr(vllm_config.model_config, "sleep_mode_backend", "cumem")
    if getattr(vllm_config.model_config, "enable_sleep_mode", False) and backend != "cumem":
        _refuse("sleep_mode_backend", "cumem", backend, "what others do to memory is not known")


def _refuse_spreading(vllm_config: Any) -> None:
    parallel = vllm_config.parallel_config
    for name, why in _PARALLEL.items():
        size = getattr(parallel, name, 1)
        if size > 1:
            _refuse(name, 1, size, f"{why}; {_INSTEAD}")
    for name in ("use_sequence_parallel_moe", "enable_elastic_ep"):
        if getattr(parallel, name, False):
            _refuse(name, False, True, f"it spreads a step's tokens over ranks; {_INSTEAD}")
    for name in ("enable_dbo", "use_ubatching"):
        if getattr(parallel, name, False):
            _refuse(name, False, True, "steps are cut into micro-batches")
    backend = getattr(getattr(vllm_config, "kernel_config", None), "moe_backend", "auto")
    ranks = getattr(parallel, "tensor_parallel_size", 1)
    if backend in _SHARING_BACKENDS and ranks > 1:
        raise CaptureError(
            f"moe_backend={backend} with tensor_parallel_size={ranks}: each rank routes a share of "
            "a step's tokens; capture expects another moe_backend, such as auto"
        )


def refuse_model(model: Any) -> None:
    """Refuse a model that runs some of its MoE layers on fewer rows than a step has.

    Raises
    ------
    CaptureError
        If a layer's tokens are shared out over ranks, or a part of the model replays old tokens.
    """
    for name, module in model.named_modules():
        if getattr(module, "decoder_replay_layers", None) is not None:
            raise CaptureError(
                f"{name or type(model).__name__}: its last layers run on a window of each "
                "request's rows (decoder_replay_layers); expected layers that run on every row"
            )
        if getattr(getattr(module, "moe_config", None), "is_sequence_parallel", False) is True:
            raise CaptureError(
                f"layer {name}: each rank routes a share of a step's tokens (is_sequence_parallel);"
                " expected every rank to route all of them: take another moe_backend, or one rank"
            )


def _refuse(name: str, expected: object, got: object, why: str) -> None:
    raise CaptureError(f"{name}: capture expects {expected}, got {got}: {why}")
