"""vLLM's own MoE layers on the CPU, with a kernel that routes by itself where one is wanted.

The layer, its router, its quantization method and the kernel around the experts are vLLM's. Only
the innermost part is made here: experts that choose from the logits, may tell what they chose, and
then compute what vLLM's CPU experts compute.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of torch, while vLLM is imported
    import vllm.model_executor.layers.fused_moe.modular_kernel as mk
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.forward_context import set_forward_context
    from vllm.model_executor.layers.fused_moe import FusedMoEFactory
    from vllm.model_executor.layers.fused_moe.prepare_finalize.no_dp_ep import (
        MoEPrepareAndFinalizeNoDPEPMonolithic,
    )
    from vllm.model_executor.models.llama4 import Llama4MoE

llama4_choice = Llama4MoE.custom_routing_function

Choose = Callable[[Any], tuple[Any, Any]]
"""Weights and ids ``[rows, K]`` by logits ``[rows, E]``."""


def softmax_choice(top_k: int) -> Choose:
    """As gpt-oss's kernels choose: the best logits, and their softmax."""

    def choose(logits: Any) -> tuple[Any, Any]:
        values, ids = logits.float().topk(top_k, dim=-1)
        return values.softmax(dim=-1), ids

    return choose


class RoutingExperts(mk.FusedMoEExpertsMonolithic):  # type: ignore[misc]
    """Experts that route by themselves, and compute as `modular` ones do."""

    def __init__(self, modular: Any, choose: Choose, tells: bool) -> None:
        super().__init__(modular.moe_config, modular.quant_config)
        self.modular, self.choose, self.tells = modular, choose, tells

    def supports_routing_replay_capture(self) -> bool:
        return self.tells

    @property
    def expects_unquantized_inputs(self) -> bool:
        return True

    @staticmethod
    def activation_format() -> mk.FusedMoEActivationFormat:
        return mk.FusedMoEActivationFormat.Standard

    @staticmethod
    def _supports_current_device() -> bool:
        return True

    @staticmethod
    def _supports_no_act_and_mul() -> bool:
        return False

    @staticmethod
    def _supports_quant_scheme(weight_key: Any, activation_key: Any) -> bool:
        return True

    @staticmethod
    def _supports_activation(activation: Any) -> bool:
        return True

    @staticmethod
    def _supports_parallel_config(moe_parallel_config: Any) -> bool:
        return True

    def apply(
        self,
        hidden_states: Any,
        w1: Any,
        w2: Any,
        router_logits: Any,
        activation: Any,
        global_num_experts: int,
        expert_map: Any,
        a1q_scale: Any,
        apply_router_weight_on_input: bool,
        num_expert_group: int | None = None,
        e_score_correction_bias: Any = None,
        routed_scaling_factor: float | None = None,
        topk_group: int | None = None,
        routing_replay_out: Any = None,
    ) -> Any:
        weights, ids = self.choose(router_logits)
        if routing_replay_out is not None:
            routing_replay_out.copy_(ids)
        if apply_router_weight_on_input:
            hidden_states = hidden_states * weights.to(hidden_states.dtype)
        output = torch.empty_like(hidden_states)
        self.modular.apply(
            output=output,
            hidden_states=hidden_states,
            w1=w1,
            w2=w2,
            topk_weights=weights.float().contiguous(),
            topk_ids=ids.to(torch.int32).contiguous(),
            activation=activation,
            global_num_experts=global_num_experts,
            expert_map=expert_map,
            a1q_scale=None,
            a2_scale=None,
            workspace13=None,
            workspace2=None,
            expert_tokens_meta=None,
            apply_router_weight_on_input=apply_router_weight_on_input,
        )
        return output


def make_monolithic(experts: Any, choose: Choose | None = None, tells: bool = False) -> None:
    """Give vLLM's ``RoutedExperts``, with weights, a kernel that routes by itself."""
    method = experts.quant_method
    modular = method.moe_kernel.impl.fused_experts
    modular = getattr(modular, "modular", modular)
    routing = RoutingExperts(modular, choose or softmax_choice(experts.top_k), tells)
    method.moe_kernel = mk.FusedMoEKernel(MoEPrepareAndFinalizeNoDPEPMonolithic(), routing)


class Layers(torch.nn.Module):  # type: ignore[misc]
    """A model of MoE layers, and the configuration of vLLM that it was made in."""

    def __init__(self, count: int = 2, hidden: int = 32, **options: Any) -> None:
        super().__init__()
        self.config = VllmConfig()
        self.hidden = hidden
        sizes = {"num_experts": 8, "top_k": 2, "intermediate_size": 32, **options}
        with set_current_vllm_config(self.config):
            self.layers = torch.nn.ModuleList(
                FusedMoEFactory(
                    hidden_size=hidden,
                    params_dtype=torch.float32,
                    tp_size=1,
                    dp_size=1,
                    pcp_size=1,
                    prefix=f"model.layers.{i}.mlp.experts",
                    **sizes,
                )
                for i in range(count)
            )
        draw = torch.Generator().manual_seed(0)
        for layer in self.layers:
            for weight in layer.routed_experts.parameters():
                weight.data.normal_(generator=draw)
            layer._quant_method.process_weights_after_loading(layer.routed_experts)

    @contextmanager
    def running(self) -> Iterator[None]:
        """vLLM's context of a forward pass."""
        with set_current_vllm_config(self.config), set_forward_context(None, self.config):
            yield

    def forward(self, x: Any, logits: Any, input_ids: Any = None) -> list[Any]:
        """Outputs of the layers, of inputs ``[rows, hidden]`` and logits ``[L, rows, E]``."""
        return [
            layer(x, of_layer, input_ids=input_ids)
            for layer, of_layer in zip(self.layers, logits, strict=True)
        ]
