"""Layers whose kernel routes by itself: their router computes the routing beside it.

vLLM calls such a kernel monolithic and gives it the router's logits, so the router is never asked.
Here it is asked with the same arguments as for any other kernel, right before the kernel runs and
inside the same operator (``vllm.moe_forward``), so that this is in every captured graph. What it
chooses is recorded: it comes with weights, which no such kernel tells.

Where the kernel can tell which experts it chose, these are compared with what is recorded. The
recorded choice stays the router's, also in a near tie; near ties are counted, and any other
difference fails the capture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from routestats.engines._forward_fault import ForwardFault
from routestats.engines.choice_check import Scores, rounding
from routestats.engines.vllm.taps import keep_record

# By the name of vLLM's routing method, which the kernel was chosen by.
BY_LOGIT = frozenset({"Renormalize", "RenormalizeNaive", "Default", "TopK", "Llama4"})
BY_SIGMOID = frozenset({"SigmoidRenorm", "Sigmoid", "MiniMax2", "DeepSeekV3"})
# Kernels that take logits or biases of any format and compute in bfloat16.
_COARSE_KERNELS = frozenset({"TrtLlmMxfp4ExpertsMonolithic", "TrtLlmMxint4ExpertsMonolithic"})


class Checks(Protocol):
    """The part of a tap that compares choices."""

    @property
    def fault(self) -> ForwardFault: ...

    def check(self, layer: int, ids: Any, theirs: Any, scores: Scores) -> None: ...


def is_monolithic(module: Any) -> bool:
    """Whether the kernel of a layer routes by itself."""
    return bool(getattr(getattr(module, "_quant_method", None), "is_monolithic", False))


def why_unobservable(module: Any, router: Any) -> str | None:
    """Why a monolithic layer cannot be observed; None if it can."""
    if not hasattr(getattr(module, "routed_experts", None), "forward_monolithic"):
        return "is not called in a way that is understood"
    if type(router).__name__ == "RoutingSimulatorRouter":
        return "draws experts at random, so that its router would draw others"
    return None


@dataclass(frozen=True, slots=True)
class Selection:
    """How a layer's experts are chosen from its router's logits."""

    sigmoid: bool
    bias: Any
    groups: int
    chosen_groups: int
    coarse: bool

    def scores(self, logits: Any) -> Scores:
        """What the choice for these logits, ``[rows, E]``, is made by."""
        dtypes = [logits.dtype, *([torch.bfloat16] if self.coarse else [])]
        unit = max(map(rounding, dtypes))
        return Scores(logits, self.bias, self.sigmoid, self.groups, self.chosen_groups, unit)


def selection_of(module: Any) -> Selection | None:
    """How a layer chooses, where its kernel tells what it chose and near ties can be told apart."""
    experts: Any = getattr(module, "routed_experts", None)
    kernel = _telling_kernel(experts)
    method = getattr(getattr(module.router, "routing_method_type", None), "name", "")
    if kernel is None or method not in BY_LOGIT | BY_SIGMOID:
        return None
    groups, chosen = 1, 1
    if getattr(experts, "use_grouped_topk", False):
        count, total = int(experts.num_expert_group or 1), int(experts.global_num_experts)
        if total > count and total % count == 0:  # else vLLM's router does without groups
            groups, chosen = count, int(experts.topk_group or 1)
    return Selection(
        method in BY_SIGMOID,
        getattr(experts, "e_score_correction_bias", None),
        groups,
        chosen,
        type(kernel).__name__ in _COARSE_KERNELS,
    )


def _telling_kernel(experts: Any) -> Any:
    """The experts' kernel if it is monolithic and can tell what it chose."""
    method = getattr(experts, "quant_method", None)
    kernel = getattr(getattr(getattr(method, "moe_kernel", None), "impl", None), "fused_experts", 0)
    tells = getattr(kernel, "supports_routing_replay_capture", None)
    return kernel if tells is not None and tells() else None


class Sink:
    """What a kernel tells its choice to, while it runs.

    Parameters
    ----------
    buffer : tensor of int16, shape [rows, K]
    capture_fn : function
        Called with the leading rows of the buffer when they have been written.
    """

    def __init__(self, buffer: Any, capture_fn: Callable[[Any], None]) -> None:
        self.buffer = buffer
        self.capture_fn = capture_fn


def routing_beside(
    module: Any, index: int, checks: Checks, selection: Selection | None, buffer: Any
) -> Callable[..., Any]:
    """A ``forward_monolithic`` that has the router compute the routing before the kernel does.

    The router is wrapped, so that what it computes is observed.

    Parameters
    ----------
    module : vLLM's MoERunner
    index : int
        Of the layer.
    checks : Checks
    selection : Selection or None
        Without it nothing is compared.
    buffer : tensor of int16 or None
        For a kernel's choice; one for all layers, because it is read before the next one runs.
    """
    experts, router = module.routed_experts, module.router
    forward = experts.forward_monolithic

    def forward_monolithic(
        x: Any, router_logits: Any | None = None, input_ids: Any | None = None
    ) -> Any:
        ids = None
        try:
            _, ids = router._compute_routing(
                x, router_logits, experts.quant_method.topk_indices_dtype, input_ids=input_ids
            )
        except Exception as error:  # inside the forward pass, and of no use to the engine
            checks.fault.keep(index, error)
        if torch.compiler.is_compiling():  # as on the CPU, where no kernel tells
            if ids is not None:
                keep_record(router_logits, ids)
            return forward(x=x, router_logits=router_logits, input_ids=input_ids)
        # A reload of weights may have made another kernel.
        if selection is None or ids is None or _telling_kernel(experts) is None:
            return forward(x=x, router_logits=router_logits, input_ids=input_ids)
        # The slot holds one sink; vLLM's own, if it is there, gets the choice as well.
        other = experts.routing_sink

        def compare(theirs: Any) -> None:
            if other is not None:
                other.capture_fn(theirs)
            try:
                checks.check(index, ids, theirs, selection.scores(router_logits))
            except Exception as error:
                checks.fault.keep(index, error)

        experts.routing_sink = Sink(buffer if other is None else other.buffer, compare)
        try:
            return forward(x=x, router_logits=router_logits, input_ids=input_ids)
        finally:
            experts.routing_sink = other

    return forward_monolithic


def buffer_for(module: Any) -> Any:
    """Memory for the choice of the kernel of a layer, as vLLM's own capturer makes it."""
    from vllm.model_executor.layers.fused_moe.routed_experts_capturer import RoutedExpertsSink

    config = module.routed_experts.quant_method.moe_kernel.impl.fused_experts.moe_config
    return RoutedExpertsSink(config, lambda ids: None).buffer


def settings_of(modules: list[Any]) -> dict[str, str]:
    """How the routing of a model's layers is observed, for ``run.json``."""
    beside = [module for module in modules if is_monolithic(module)]
    if not beside:
        return {"observed": "as the router computed it for the kernel"}
    checked = sum(selection_of(module) is not None for module in beside)
    kernel = type(beside[0]._quant_method).__name__
    where = "" if len(beside) == len(modules) else f" in {len(beside)} of {len(modules)} layers"
    settings = {"observed": f"recomputed beside the kernel{where}", "kernel": kernel}
    if checked == 0:
        return {
            **settings,
            "ties": "not compared with the kernel, which may break ties, and what is a tie after "
            "rounding, otherwise",
        }
    of = "every layer" if checked == len(beside) else f"{checked} of {len(beside)} layers"
    return {
        **settings,
        "checked": f"{of} against the experts that the kernel chose",
        "ties": "recorded as the router breaks them; totals.near_ties counts choices in which the "
        "kernel took another expert of equal score, within rounding",
    }
