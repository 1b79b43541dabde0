"""MoE layers of the common model families, built by vLLM's own factory without memory.

A layer is what the family's model in vLLM makes of its checkpoint's ``config.json``, on the meta
device: its router, its quantization method and, by them, the back end that vLLM selects.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from fake_platform import Card, fake_platform


@dataclass(frozen=True, slots=True)
class Family:
    """How vLLM's model of that name makes its MoE layers."""

    num_experts: int
    top_k: int
    hidden_size: int
    intermediate_size: int
    options: dict[str, Any] = field(default_factory=dict)
    has_bias: bool = False  # a correction of the scores
    groups: tuple[int, int] | None = None  # of experts, and of those the chosen ones


_NOAUX = {"scoring_func": "sigmoid", "routed_scaling_factor": 2.5}
FAMILIES = {
    "tiny": Family(8, 2, 96, 128),
    "Mixtral-8x7B": Family(8, 2, 4096, 14336),
    "Qwen3-30B-A3B": Family(128, 8, 2048, 768),
    "OLMoE-1B-7B": Family(64, 8, 2048, 1024, {"renormalize": False}),
    "Qwen1.5-MoE-A2.7B": Family(60, 4, 2048, 1408, {"renormalize": False}),
    "DeepSeek-V3": Family(256, 8, 7168, 2048, _NOAUX, has_bias=True, groups=(8, 4)),
    "GLM-4.5-Air": Family(
        128,
        8,
        4096,
        1408,
        {**_NOAUX, "routed_scaling_factor": 1.0, "router_logits_dtype": torch.float32},
        has_bias=True,
        groups=(1, 1),
    ),
    "gpt-oss-120b": Family(128, 4, 2880, 2880, {"activation": "swigluoai", "has_bias": True}),
}

# As checkpoints declare them.
FORMATS: dict[str, dict[str, Any] | None] = {
    "bf16": None,
    "fp8 block": {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "weight_block_size": [128, 128],
    },
    "fp8 tensor": {"quant_method": "fp8", "activation_scheme": "static"},
    "nvfp4": {
        "quant_method": "modelopt_fp4",
        "quantization": {
            "quant_algo": "NVFP4",
            "group_size": 16,
            "kv_cache_quant_algo": None,
            "exclude_modules": [],
        },
    },
    "mxfp4": {"quant_method": "gpt_oss_mxfp4"},
    "mxfp8": {
        "quant_method": "modelopt_mxfp8",
        "quantization": {"quant_algo": "MXFP8", "kv_cache_quant_algo": None, "exclude_modules": []},
    },
    "int4": {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "ignore": [],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {
                    "num_bits": 4,
                    "type": "int",
                    "symmetric": True,
                    "strategy": "group",
                    "group_size": 32,
                },
                "input_activations": None,
            }
        },
    },
}


@contextmanager
def vllm_on(card: Card, **settings: Any) -> Iterator[Any]:
    """vLLM as on one `card`, ready to make layers; yields its config, with `settings`."""
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.distributed import parallel_state
    from vllm.engine.arg_utils import EngineArgs

    alone = SimpleNamespace(world_size=1, rank_in_group=0)
    with fake_platform(card), mock.patch.object(parallel_state, "_TP", alone):
        if settings:
            config = EngineArgs(**settings).create_engine_config()
        else:
            config = VllmConfig()
            config.model_config = SimpleNamespace(dtype=torch.bfloat16, quantization_config=None)
        with set_current_vllm_config(config), torch.device("meta"):
            yield config


def make_layer(family: Family, weights: str, moe_backend: str | None = None) -> Any:
    """A MoE layer, in `vllm_on` a card; with another back end than the config says, if named.

    Raises
    ------
    Exception
        What vLLM raises where no back end, or not the one that was asked for, supports it.
    """
    from vllm.config import get_current_vllm_config
    from vllm.model_executor.layers.fused_moe import FusedMoEFactory
    from vllm.model_executor.layers.quantization import get_quantization_config

    config = get_current_vllm_config()
    asked = moe_backend or config.kernel_config.moe_backend
    config.compilation_config.static_forward_context.clear()  # names of layers are unique
    declared = FORMATS[weights]
    quantization = None
    if declared is not None:
        quantization = get_quantization_config(declared["quant_method"]).from_config(declared)
    options = dict(family.options)
    if family.has_bias:
        options["e_score_correction_bias"] = torch.empty(family.num_experts)
    if family.groups is not None:
        groups, chosen = family.groups
        options.update(use_grouped_topk=True, num_expert_group=groups, topk_group=chosen)
    with mock.patch.object(config.kernel_config, "moe_backend", asked):
        return FusedMoEFactory(
            num_experts=family.num_experts,
            top_k=family.top_k,
            hidden_size=family.hidden_size,
            intermediate_size=family.intermediate_size,
            params_dtype=config.model_config.dtype,
            quant_config=quantization,
            tp_size=1,
            dp_size=1,
            pcp_size=1,
            prefix="model.layers.0.mlp.experts",
            **options,
        )
