"""Layers of other kinds: adapters around them, and those that are handed their experts.

The classes are vLLM's own. What they compute needs a GPU; what is looked for in them does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fake_platform import H100
from moe_layers import FAMILIES, make_layer, vllm_on

from routestats.errors import CaptureError

pytest.importorskip("vllm")

import torch

from routestats.engines.vllm.routers import find_layers
from routestats.engines.vllm.stages import modules_of, stage_functions

pytestmark = pytest.mark.filterwarnings("default")  # importing vLLM imports torch's compiler


def in_a_decoder(experts: Any) -> torch.nn.Module:
    """A model of one layer whose block has a gate and those experts."""
    model = torch.nn.Module()
    model.model = torch.nn.Module()
    decoder = torch.nn.Module()
    decoder.mlp = torch.nn.Module()
    decoder.mlp.gate = torch.nn.Linear(4, 8, device="meta")
    decoder.mlp.experts = experts
    model.model.layers = torch.nn.ModuleList([decoder])
    return model


@pytest.fixture
def on_h100() -> Iterator[Any]:
    with vllm_on(H100) as config:
        yield config


def test_a_layer_inside_a_lora_adapter_is_found_with_all_its_stages(on_h100: Any) -> None:
    from vllm.lora.layers.fused_moe import FusedMoEWithLoRA

    layer = make_layer(FAMILIES["Mixtral-8x7B"], "bf16", "triton")
    layer.routed_experts.quant_method.process_weights_after_loading(layer.routed_experts)
    adapted = FusedMoEWithLoRA(layer)
    model = in_a_decoder(adapted)
    (found,) = find_layers(model, 8)
    assert found.name == "model.layers.0.mlp.experts.base_layer"
    assert found.router is layer.router
    (modules,) = modules_of(model, [found])
    block: Any = model.get_submodule("model.layers.0.mlp")
    assert modules.block is block
    assert modules.gate is block.gate
    assert modules.decoder is model.get_submodule("model.layers.0")
    clocked = {stage: (target, method) for target, method, stage in stage_functions(modules)}
    # The adapter calls this, and nothing around it.
    assert clocked["runner"] == (layer, "forward")
    assert clocked["topk"] == (layer.router, "select_experts")
    assert {"gate", "dispatch", "experts", "combine", "kernel", "block", "rest"} <= set(clocked)


def mega_layer() -> Any:
    from vllm.models.deepseek_v4.nvidia.model import DeepseekV4MegaMoEExperts

    settings = SimpleNamespace(
        scheduler_config=SimpleNamespace(max_num_batched_tokens=16),
        compilation_config=SimpleNamespace(static_forward_context={}),
    )
    return DeepseekV4MegaMoEExperts(
        settings,
        num_experts=12,
        num_logical_experts=8,
        num_local_experts=12,
        experts_start_idx=0,
        top_k=2,
        hidden_size=64,
        intermediate_size=64,
        prefix="model.layers.3.mlp.experts",
    )


def test_a_layer_that_is_handed_its_experts_is_captured(
    on_h100: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = mega_layer()
    ran: list[Any] = []

    def forward(hidden: Any, weights: Any, ids: Any, *, activation_clamp: float | None) -> str:
        ran.append((weights, ids, activation_clamp))
        return "output"

    layer.forward = forward
    model = in_a_decoder(layer)
    (found,) = find_layers(model, 12)
    assert (found.layer_id, found.num_experts, found.top_k) == (3, 8, 2)
    seen: list[Any] = []
    compute = found.router._compute_routing

    def observed(weights: Any, ids: Any) -> Any:
        seen.append((weights, ids))
        return compute(weights, ids)

    found.router._compute_routing = observed
    assert layer(torch.zeros(1), "weights", "ids", activation_clamp=7.0) == "output"
    assert layer(torch.zeros(1), topk_weights="w", topk_ids="i", activation_clamp=None) == "output"
    assert seen == [("weights", "ids"), ("w", "i")]
    assert ran == [("weights", "ids", 7.0), ("w", "i", None)]
    with pytest.raises(CaptureError, match="DeepseekV4MegaMoEExperts has no router and runs in on"):
        modules_of(model, [found])


def test_the_number_of_a_layer_is_read_from_its_name() -> None:
    from routestats.engines.vllm.given_routing import layer_id_of

    assert layer_id_of("model.layers.12.ffn.experts", object()) == 12
    with pytest.raises(CaptureError, match=r"layer a\.1\.2\.b: expected one number"):
        layer_id_of("a.1.2.b", object())
